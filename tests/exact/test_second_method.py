"""Random wells of every kind: the exact solver against an independent method, with nothing in common but V.

A sample of the wells by default; 210 of them with

    FKDRIFT_WELLS=30 pytest -m slow tests/exact/test_second_method.py
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from fkdrift.exact.diagonalisation import diagonalise
from fkdrift.hamiltonian.potential import FunctionPotential
from tests.exact.second_method import KINDS, N_POINTS, Well, random_well, second_method

WELLS = int(os.environ.get("FKDRIFT_WELLS", "8"))  # of each kind


def check(seed: int) -> None:
    """The lowest levels agree within what the second method leaves and the error that the solver states."""
    well, levels = random_well(seed), 1 + seed % 4
    potential = FunctionPotential(lambda r: torch.from_numpy(well.V(r[:, 0, 0].numpy())))
    found = diagonalise(potential, levels=levels, max_seconds=600)
    other = second_method(well, levels)
    n, top = len(found.energies), np.inf if found.threshold is None else found.threshold
    assert (other < top - well.tolerance).sum() <= n <= (other < top + well.tolerance).sum(), (
        f"seed {seed}, {well.kind}"
    )
    excess = np.abs(found.energies - other[:n]) - found.errors
    assert (excess < well.tolerance * (1 + np.abs(found.energies))).all(), f"seed {seed}, {well.kind}: {excess}"


def test_the_second_method_knows_the_oscillator_and_a_long_tail() -> None:
    oscillator = Well("oscillator", lambda x: x**2 / 2, -10.0, 10.0, 1e-9)
    np.testing.assert_allclose(second_method(oscillator, 3, 2000), [0.5, 1.5, 2.5], atol=1e-8)
    l = 0.02  # noqa: E741  -l(l + 1)/(2 cosh^2 x) has E = -l^2/2, here with a tail exp(-x/50)
    shallow = Well(
        "shallow", lambda x: -l * (l + 1) / 2 / np.cosh(np.clip(x, -40, 40)) ** 2, -1e5, 1e5, 1e-9, stretch=5
    )
    np.testing.assert_allclose(second_method(shallow, 1, 2000), [-(l**2) / 2], rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_method_is_as_accurate_as_it_is_said_to_be(kind: str) -> None:
    well = random_well(KINDS.index(kind))
    coarse, fine = (second_method(well, 2, n) for n in (N_POINTS, 2 * N_POINTS))
    assert (np.abs(coarse - fine) < well.tolerance * (1 + np.abs(fine)) / 3).all()


@pytest.mark.parametrize("seed", range(len(KINDS)), ids=KINDS)
def test_random_wells(seed: int) -> None:
    check(seed)


@pytest.mark.parametrize("seed", [22, 64, 78])
def test_weak_cusps_that_are_seen_at_several_places_lose_no_level(seed: int) -> None:
    check(seed)


def test_a_barely_bound_level_with_a_long_tail() -> None:
    check(75)  # E = -0.00069 with a tail exp(-x/27)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_more_random_wells(kind: str) -> None:
    for seed in range(KINDS.index(kind) + len(KINDS), WELLS * len(KINDS), len(KINDS)):
        check(seed)
