"""Tables of pair potentials that have values only."""

from __future__ import annotations

import numpy as np
import pytest

from fkdrift.exact.diagonalisation import diagonalise
from fkdrift.hamiltonian.pair_potentials import HELIUM
from fkdrift.hamiltonian.pair_values import FARTHEST, NEAREST, PairValues
from fkdrift.hamiltonian.surface import Surface
from fkdrift.hamiltonian.system import System


def lennard_jones(d: np.ndarray) -> np.ndarray:
    return 4 * ((1 / d) ** 12 - (1 / d) ** 6)


def helium(d: np.ndarray) -> np.ndarray:
    import torch

    return HELIUM["LM2M2"](torch.from_numpy(d)).numpy()


@pytest.mark.parametrize(
    "v",
    [
        lennard_jones,
        helium,
        lambda d: -np.exp(-d) / d,
        lambda d: d**2,
        lambda d: 3 * np.exp(-(d**2)),
        lambda d: np.where(d < 2.5, lennard_jones(d) - lennard_jones(2.5), 0.0),  # a kink
    ],
)
def test_a_table_is_as_good_as_what_it_is_of(v):
    asked = []

    def counted(d: np.ndarray) -> np.ndarray:
        asked.append(len(d))
        return v(d)

    table = PairValues(counted)
    assert sum(asked) < 30_000
    d = np.exp(np.random.default_rng(0).uniform(np.log(0.5), np.log(50), 20_000))
    assert (np.abs(table(d) - v(d)) <= 1e-5 * (1e-3 + np.abs(v(d)))).mean() > 0.999
    assert np.abs(table(d) - v(d)).max() < 1e-4 * (1 + np.abs(v(d)).max())


def test_a_jump_is_between_two_distances_next_to_each_other():
    table = PairValues(lambda d: np.where(d < 1, -3.0, 0.0))
    np.testing.assert_allclose(table(np.array([0.3, 1 - 1e-4, 1 + 1e-4, 4.0])), [-3, -3, 0, 0], atol=1e-8)


def test_beyond_the_table_and_where_v_is_not_finite_v_itself_is_asked():
    table = PairValues(lambda d: np.where(d < 0.1, np.inf, 1 / d))
    d = np.array([NEAREST / 2, 0.05, 2.0, 10 * FARTHEST])
    np.testing.assert_allclose(table(d), [np.inf, np.inf, 0.5, 0.1 / FARTHEST])


def argon(x: np.ndarray) -> np.ndarray:
    """Three atoms, kelvin and angstrom."""
    d = np.linalg.norm(x[:, (0, 0, 1)] - x[:, (1, 2, 2)], axis=-1)
    return 119.4 * lennard_jones(d / 3.405).sum(1)


def test_few_values_are_asked_for_before_the_first_update():
    surface = Surface(argon, ("Ar",) * 3, ((0, 0, 0), (3.8, 0, 0), (1.9, 3.3, 0)), energy_unit="K")
    assert System(surface).trial_function is not None
    assert surface.evaluations < 60_000


@pytest.mark.slow
def test_few_values_are_asked_for_by_exact_diagonalisation():
    surface = Surface(argon, ("Ar",) * 3, ((0, 0, 0), (3.8, 0, 0), (1.9, 3.3, 0)), energy_unit="K")
    assert diagonalise(surface, levels=1).ground_state == pytest.approx(-304.8768, abs=3e-3)
    assert surface.evaluations < 60_000
