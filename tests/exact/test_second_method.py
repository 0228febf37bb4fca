"""Random wells of every kind: the exact solver against an independent method, with nothing in common but V."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fkdrift.exact.diagonalisation import diagonalise
from fkdrift.hamiltonian.potential import FunctionPotential
from tests.exact.second_method import KINDS, Well, random_well, second_method


def disagreement(well: Well, levels: int, n: int) -> float:
    """Largest difference of the lowest levels, relative to 1 + |E|."""
    potential = FunctionPotential(lambda r: torch.from_numpy(well.V(r[:, 0, 0].numpy())))
    found = diagonalise(potential, levels=levels, max_seconds=600)
    other = second_method(well, levels, n)[: len(found.energies)]
    return float((np.abs(found.energies - other) / (1 + np.abs(other))).max())


def test_the_second_method_knows_the_oscillator() -> None:
    well = Well("oscillator", lambda x: x**2 / 2, -10.0, 10.0, 1e-9)
    np.testing.assert_allclose(second_method(well, 3, 2000), [0.5, 1.5, 2.5], atol=1e-8)


@pytest.mark.parametrize("seed", range(2 * len(KINDS)), ids=lambda s: f"{KINDS[s % len(KINDS)]}-{s}")
def test_random_wells(seed: int) -> None:
    well = random_well(seed)
    assert disagreement(well, 1 + seed % 3, 4000) < well.tolerance


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_three_hundred_random_wells(kind: str) -> None:
    for seed in range(KINDS.index(kind), 43 * len(KINDS), len(KINDS)):
        well = random_well(seed)
        assert disagreement(well, 1 + seed % 4, 6000) < well.tolerance, seed
