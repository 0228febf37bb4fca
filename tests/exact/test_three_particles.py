"""Two and three free particles against published and independently computed energies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from pair_potentials import Cluster, bosons
from torch import Tensor

from fkdrift.errors import Unbound
from fkdrift.exact.diagonalisation import diagonalise, has_exact
from fkdrift.exact.pair_solution import pair_solution
from fkdrift.hamiltonian import pair_potentials as pairs
from fkdrift.hamiltonian.potential import Potential

NEON, ARGON = pairs.NEON["Lennard-Jones"], pairs.ARGON["Lennard-Jones"]
LM2M2 = pairs.HELIUM["LM2M2"]


@pytest.mark.parametrize(
    ("u", "hbar2_over_m", "energy"),
    [(NEON, 2.4263538, -20.117154), (LM2M2, 12.12, -1.303482e-3)],
    ids=["neon", "helium"],
)
def test_dimers(u, hbar2_over_m, energy):
    spectrum = diagonalise(bosons(u, 2, hbar2_over_m), levels=1)
    assert spectrum.ground_state == pytest.approx(energy, rel=1e-6)
    assert spectrum.threshold == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("u", "hbar2_over_m", "energy", "allowed"),
    [
        pytest.param(NEON, 2.4263538, -61.0381, 4e-6, marks=pytest.mark.slow),
        (ARGON, 1.2138599, -304.876846, 2e-6),
        pytest.param(LM2M2, 12.12, -0.126407, 1e-5, marks=pytest.mark.slow),
    ],
    ids=["neon", "argon", "helium"],
)
def test_trimers(u, hbar2_over_m, energy, allowed):
    """Sources: discrete-variable calculations; helium: Motovilov et al., Eur. Phys. J. D 13, 33 (2001), -126.4 mK."""
    spectrum = diagonalise(bosons(u, 3, hbar2_over_m), levels=1)
    assert spectrum.ground_state == pytest.approx(energy, rel=allowed)
    assert abs(spectrum.ground_state - energy) < 3 * spectrum.error + allowed * abs(energy) / 3


@pytest.mark.slow
def test_two_kinds_of_particles_are_between_the_pure_trimers():
    h = 2.4263538
    mixed = Cluster(NEON, (1 / h, 1 / h, 1.2 / h), ((0, 1), (2,)))
    light, heavy = (diagonalise(bosons(NEON, 3, each), levels=1).ground_state for each in (h, h / 1.2))
    E = diagonalise(mixed, levels=1).ground_state
    assert heavy < E < light
    assert pytest.approx((2 * light + heavy) / 3, rel=1e-3) == E  # the kinetic energy is nearly a sum over particles


def test_helium_with_lennard_jones_does_not_bind_a_pair():
    with pytest.raises(Unbound):
        diagonalise(bosons(pairs.LennardJones(10.22, 2.556), 2, 12.12), levels=1)


def test_a_pair_solution_satisfies_its_equation():
    def u(r):
        return NEON(torch.from_numpy(np.ascontiguousarray(r))).numpy()

    h, e = 2.4263538, -20.11715393
    f = pair_solution(u, 0.5 / h, e)
    r, d = np.array([2.2, 2.6, 3.1, 4.0, 6.0]), 1e-4
    _, g = f(r)
    second = (f(r + d)[1] - f(r - d)[1]) / (2 * d) + g**2
    assert -h * (second + 2 * g / r) + u(r) == pytest.approx(e, abs=1e-3)
    assert (f(r + d)[0] - f(r - d)[0]) / (2 * d) == pytest.approx(g, abs=1e-5)


def test_a_zero_energy_pair_solution_goes_like_one_minus_a_over_r():
    def u(r):
        return np.where(r < 1.0, -1.0, 0.0)

    f = pair_solution(u, 0.5, 0.0)  # -u'' + V u = 0: u = sin r inside, r - a outside with 1 - a = tan 1
    a = 1 - np.tan(1.0)
    r = np.array([2.0, 5.0, 50.0])
    assert np.exp(f(r)[0] - f(np.array([2.0]))[0]) == pytest.approx((1 - a / r) / (1 - a / 2), rel=1e-5)


@dataclass(frozen=True)
class Bent(Potential):
    """Two stretches and a bend, such as water's (Habershon 2009): cm^-1, angstrom, atomic masses."""

    n_particles = 3
    n_dims = 3
    free = True

    def __call__(self, r: Tensor) -> Tensor:
        first, second = r[:, 1] - r[:, 0], r[:, 2] - r[:, 0]
        a, b = first.norm(dim=-1), second.norm(dim=-1)
        angle = ((first * second).sum(-1) / (a * b)).clamp(-1, 1).acos()
        V = 349.7550882 * 87.85 / 2 * (angle - np.deg2rad(107.4)) ** 2
        for d in (a, b):
            x = 2.287 * (d - 0.9419)
            V = V + 349.7550882 * 116.09 * (x**2 - x**3 + 7 / 12 * x**4)
        return V

    @property
    def mass(self) -> tuple[float, ...]:
        return tuple(m / 33.71525805 for m in (15.99491462, 1.00782503, 1.00782503))

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        return ((0,), (1, 2))


def test_water_on_a_grid_of_jacobi_coordinates():
    spectrum = diagonalise(Bent(), levels=2, tolerance=1e-3)
    assert spectrum.ground_state == pytest.approx(4609.865, abs=1.0)
    assert spectrum.splitting == pytest.approx(1561.660, abs=1.0)
    assert abs(spectrum.ground_state - 4609.865) < spectrum.error


@pytest.mark.slow
def test_particles_that_are_not_said_to_be_identical_have_odd_states_too():
    @dataclass(frozen=True)
    class Apart(Bent):
        @property
        def groups(self) -> tuple[tuple[int, ...], ...]:
            return ((0,), (1,), (2,))

    spectrum = diagonalise(Apart(), levels=1, tolerance=1e-3)
    assert spectrum.ground_state == pytest.approx(4609.865, abs=1.0)


def test_a_free_potential_that_is_not_of_the_distances_has_no_exact_solution():
    @dataclass(frozen=True)
    class Pointing(Bent):
        def __call__(self, r: Tensor) -> Tensor:
            return super().__call__(r) + (r[:, 1, 2] - r[:, 0, 2]) ** 2

    assert not has_exact(Pointing())
    assert has_exact(Bent())
