"""Systematic resampling: unbiased, and never off by more than one copy."""

import torch

from fkdrift.numerics.resampling import systematic
from tests.systems import generator


def test_copies_are_the_expected_number_rounded() -> None:
    log_weights = torch.randn((50, 40), generator=generator(), dtype=torch.float64)
    index = systematic(log_weights, generator(1))
    expected = 40 * log_weights.softmax(1)
    copies = torch.stack([row.bincount(minlength=40) for row in index])
    assert bool(((copies - expected).abs() < 1).all())
    assert bool((copies.sum(1) == 40).all())


def test_copies_are_unbiased() -> None:
    log_weights = torch.tensor([[0.0, -1.0, -2.0]], dtype=torch.float64).expand(20000, 3)
    index = systematic(log_weights, generator())
    share = torch.stack([(index == k).double().mean() for k in range(3)])
    assert bool(((share - log_weights[0].softmax(0)).abs() < 4 * 0.5 / (3 * 20000) ** 0.5 * 2).all())


def test_equal_weights_change_nothing() -> None:
    index = systematic(torch.full((3, 8), -700.0), generator())
    assert index.tolist() == [list(range(8))] * 3
