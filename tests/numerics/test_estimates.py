"""Means, errors and how they are printed."""

import math

import pytest
import torch

from fkdrift.numerics.estimates import Estimate, blocked_error, format_with_error, from_walkers
from tests.systems import generator


@pytest.mark.parametrize(
    ("mean", "error", "text"),
    [
        (0.500031, 0.000079, "0.50003(8)"),
        (-2.90349, 0.00061, "-2.9035(6)"),
        (7.6, 0.12, "7.60(12)"),
        (1234.5, 30.0, "1230(30)"),
        (1.0, 0.0096, "1.000(10)"),
        (1.0, 0.00199, "1.000(2)"),
        (0.5, 0.0, "0.5(0)"),
        (float("nan"), 0.1, "nan(?)"),
    ],
)
def test_concise_notation(mean: float, error: float, text: str) -> None:
    assert format_with_error(mean, error) == text


def test_error_of_independent_walkers() -> None:
    """The claimed standard error covers the true mean as often as a normal law says."""
    g = torch.Generator().manual_seed(3)
    inside = 0
    for _ in range(400):
        estimate = from_walkers(2 + 3 * torch.randn(64, generator=g, dtype=torch.float64))
        inside += abs(estimate.deviation(2.0)) < 1
    z = (inside / 400 - 0.679) / math.sqrt(0.679 * 0.321 / 400)  # 0.679: Student's t with 63 degrees of freedom
    assert abs(z) < 3.5


def test_effective_samples() -> None:
    values = torch.arange(100, dtype=torch.float64)
    assert from_walkers(values, sample_variance=values.var().item()).effective_samples == pytest.approx(100)


def test_deviation_ignores_rounding() -> None:
    assert Estimate(0.5 + 1e-14, 0.0).deviation(0.5) == 0.0
    assert Estimate(0.51, 0.01).deviation(0.5) == pytest.approx(1.0)


def test_blocked_error_of_a_correlated_series() -> None:
    """An AR(1) series of correlation c has the error sqrt((1 + c) / (1 - c) / n), and chains are independent."""
    g = generator()
    c, n, n_chains = 0.9, 2048, 16
    x = torch.zeros(n, n_chains, dtype=torch.float64)
    noise = torch.randn(n, n_chains, generator=g, dtype=torch.float64) * (1 - c**2) ** 0.5
    x[0] = noise[0] / (1 - c**2) ** 0.5
    for k in range(1, n):
        x[k] = c * x[k - 1] + noise[k]
    expected = ((1 + c) / (1 - c) / (n * n_chains)) ** 0.5
    assert abs(blocked_error(x) / expected - 1) < 0.15
    assert abs(blocked_error(x[:, :1]) / (expected * 4) - 1) < 0.5


def test_blocked_error_without_correlation_is_the_plain_one() -> None:
    x = torch.randn(64, 8, generator=generator(), dtype=torch.float64)
    assert abs(blocked_error(x) * 512**0.5 - 1) < 0.2
    assert blocked_error(torch.ones(8, 2)) == 0
