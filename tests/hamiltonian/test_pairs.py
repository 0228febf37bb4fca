"""Pair potentials of atoms, their two-body problem, and trial functions made of it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from fkdrift_potentials.noble_gas import ELEMENTS, HELIUM
from systems import generator
from torch import Tensor

from fkdrift.errors import BadParameter, Unbound
from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.pair_reference import pair_functions
from fkdrift.hamiltonian.pair_state import healing_state, pair_state
from fkdrift.hamiltonian.potential import FunctionPotential, distance, pair_vectors
from fkdrift.hamiltonian.system import System

PAIRS = [(element, name) for element, (_, choice, _) in ELEMENTS.items() for name in choice]
H = 12.12  # hbar^2 / m of helium, K A^2
DIMERS = {"HFDHE2": -0.830125, "HFD-B(HE)": -1.685411, "HFD-B2": -1.648853, "LM2M2": -1.303481, "TTY": -1.309619}  # mK


@cache
def cluster(n_particles: int, element: str = "Ne") -> System:
    return System(load_potential("noble_gas", element=element, n_particles=n_particles), torch.float64)


@pytest.mark.parametrize(("element", "name"), PAIRS)
def test_where_a_pair_potential_is_lowest(element, name):
    v = ELEMENTS[element][1][name]
    r_m, eps = v.minimum
    r = torch.tensor(r_m, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(v(r), r)
    rounding = 3e-3 if name == "HFDHE2" else 3e-5  # of its published parameters
    assert v(r).item() == pytest.approx(-eps, rel=rounding / 100)
    assert abs(slope.item()) * r_m / eps < rounding
    near = torch.tensor([1e-10, 1e-3, 0.1, 0.5])
    assert v(near).isfinite().all()
    assert (v(near) > eps).all()


@pytest.mark.parametrize("name", DIMERS)
def test_dimers(name):
    found = pair_state(HELIUM[name], 1 / (2 * H), 3, name)
    assert found.bound
    assert found.energy * 1e3 == pytest.approx(DIMERS[name], abs=1e-5)


def test_the_rest_of_the_dimers():
    assert load_potential("noble_gas", element="Ne", n_particles=2).known_energy.value == pytest.approx(
        pair_state(ELEMENTS["Ne"][1]["Lennard-Jones"], 1 / (2 * 2.4263538), 3, "").energy, rel=1e-6
    )
    assert pair_state(ELEMENTS["H2"][1]["Silvera-Goldman"], 1 / (2 * 24.0633), 3, "").energy == pytest.approx(
        -3.710571, rel=1e-6
    )


@pytest.mark.parametrize("parameters", [{"element": "3He"}, {"potential": "Lennard-Jones"}])
def test_what_does_not_bind(parameters):
    with pytest.raises(Unbound, match="no bound state"):
        System(load_potential("noble_gas", n_particles=2, **parameters))


@pytest.mark.parametrize(("strength", "n_particles"), [(5.0, 3), (-0.8, 3)])
def test_three_and_more_that_do_not_bind(strength, n_particles):
    """Gaussian wells of depth 0.8 hold no three particles of mass 1 either: `fkdrift exact` finds no level."""

    def total(r: Tensor) -> Tensor:
        return strength * (-distance(pair_vectors(r)).square()).exp().sum(-1)

    with pytest.raises(Unbound, match="no two of its particles hold each other"):
        System(FunctionPotential(total, n_particles, 3), torch.float64)


def test_three_that_bind_where_two_do_not():
    """Helium with the Lennard-Jones potential, -0.063469 K by correlated exponentials."""
    system = System(load_potential("noble_gas", n_particles=3, potential="Lennard-Jones"), torch.float64)
    E = system.rates(system.initial_walkers(512, generator())).killing
    assert E.mean().item() == pytest.approx(-0.0635, rel=0.2)


def test_parameters():
    with pytest.raises(BadParameter, match="fermions"):
        load_potential("noble_gas", element="3He", n_particles=3)
    with pytest.raises(BadParameter, match="one of He"):
        load_potential("noble_gas", element="Xe")
    with pytest.raises(BadParameter, match="HFD-B2"):
        load_potential("noble_gas", potential="HFD-B9")
    assert load_potential("noble_gas", hbar2_over_m=12.119296).known_energy is None


@pytest.mark.parametrize("name", ["HFDHE2", "Lennard-Jones"])
def test_a_pair_function_solves_its_equation(name):
    v = HELIUM[name]
    healing = healing_state(v, 1 / (2 * H), 7.0, name)
    d = torch.linspace(2.0, 6.99, 500, dtype=torch.float64)
    for state, r in ((healing, d), (pair_state(v, 1 / (2 * H), 3, name), 1.3 * d)):
        _, slope, curvature = state.radial(r)
        assert (v(r) - H * (curvature + slope.square() + 2 * slope / r) - state.energy).abs().max() < 2e-4
    _, slope, _ = healing.radial(torch.tensor([6.9999, 7.1, 20.0], dtype=torch.float64))
    assert slope.abs().max() < 1e-4


def test_a_sum_over_pairs_is_found_out():
    v = HELIUM["LM2M2"]

    def total(r: Tensor) -> Tensor:
        return v(distance(pair_vectors(r))).sum(-1)

    found = pair_functions(FunctionPotential(total, 4, 3, (1 / H,) * 4))
    d = torch.linspace(2, 20, 50, dtype=torch.float64)
    assert found is not None
    torch.testing.assert_close(found[3](d), v(d), rtol=1e-9, atol=1e-9)
    assert len(set(found)) == 1
    three_body = FunctionPotential(lambda r: total(r) + distance(pair_vectors(r)).prod(-1).mul(-1e-3).exp(), 4, 3)
    assert pair_functions(three_body) is None


def test_the_core_is_not_in_the_local_energy():
    """E_W is the sum of pair energies less the terms of three atoms, also where V is 1e5 times as large."""
    system = cluster(3)
    r = system.initial_walkers(256, generator())
    r[0, 1] = r[0, 0] + torch.tensor([1.6, 0.0, 0.0], dtype=torch.float64)  # V = 1e5 K
    assert system.potential(r[:1]).item() > 5e4
    E = system.rates(r).killing
    assert E[0].abs() < 2e4
    assert E[1:].mean().item() == pytest.approx(-60.6, abs=1.0)
    centre = r[1:].mean(1)
    assert centre.abs().max() < 1e-9


def test_walkers_do_not_overlap():
    for n in (3, 8):
        system = cluster(n)
        d = distance(pair_vectors(system.initial_walkers(64, generator())))
        assert d.min() > 0.75 * 2 ** (1 / 6) * 2.749
        assert 0.015 < system.time_scale < 0.06


def test_two_kinds_of_pairs():
    """A lithium-like pair potential for which two of three pairs are alike, with unequal masses."""

    def total(r: Tensor) -> Tensor:
        i, j, k = (distance(x) for x in pair_vectors(r).unbind(1))
        return -20 * (-i.square()).exp() - 20 * (-j.square()).exp() + 5 * (-k.square()).exp()

    system = System(FunctionPotential(total, 3, 3, (5.0, 1.0, 1.0)), torch.float64)
    assert system.potential.groups == ((0,), (1, 2))
    E = system.rates(system.initial_walkers(256, generator())).killing
    two = pair_state(lambda d: -20 * (-d.square()).exp(), 5 / 6, 3, "").energy
    assert 2.2 * two < E.mean() < 1.4 * two
    assert np.isfinite(system.time_scale)
