"""Particles in a periodic box whose potential is a sum over pairs: trial function, features, pressure, structure."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from systems import generator

from fkdrift.errors import BadParameter
from fkdrift.estimators.observables import Averages, parse_observable, standard_observables
from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.potential import distance, nearest_image, pair_vectors
from fkdrift.hamiltonian.system import System
from fkdrift.numerics.differentiation import curvatures
from fkdrift.paths.process import Process
from fkdrift.wavefunction import metropolis
from fkdrift.wavefunction.local_energy import local_energy
from fkdrift.wavefunction.neural import NeuralWavefunction

N = 8


def liquid(n_particles: int = N, mcmillan: float | None = None) -> System:
    return _liquid(n_particles, mcmillan)


@cache
def _liquid(n_particles: int, mcmillan: float | None) -> System:
    return System(load_potential("helium_liquid", n_particles=n_particles, mcmillan=mcmillan), torch.float64)


def wrong(system: System) -> NeuralWavefunction:
    psi = NeuralWavefunction(system, width=6)
    for parameter in psi.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator())
    return psi


def test_derivatives_in_a_box():
    system = liquid()
    psi, r = wrong(system), system.initial_walkers(8, generator())
    _, gradient, second = curvatures(psi.log_jastrow, r)
    found = psi.derivatives(r)
    torch.testing.assert_close(found.gradient, gradient)
    torch.testing.assert_close(psi.value_and_gradient(r)[1], gradient)
    weighted = (system.sigma.square()[:, 0] * second.sum(-1)).sum(-1)
    torch.testing.assert_close(found.laplacian.sum(-1), weighted)


@pytest.mark.parametrize("mcmillan", [None, 3.07])
def test_nothing_changes_by_a_period_or_a_shift(mcmillan):
    system = liquid(mcmillan=mcmillan)
    psi, r = wrong(system), system.initial_walkers(8, generator())
    box = torch.tensor(system.potential.box, dtype=torch.float64)
    moved = r + torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    moved[:, 0] += box * torch.tensor([1, 0, -2])
    for function in (psi.log_psi, lambda x: system.rates(x).killing, system.potential):
        torch.testing.assert_close(function(moved), function(r), rtol=1e-8, atol=1e-8)


def test_the_trial_function_ends_smoothly():
    for mcmillan in (None, 3.07):
        system = liquid(mcmillan=mcmillan)
        half = system.potential.box[0] / 2
        radial = system.trial_function.terms[0].radial
        d = torch.tensor([half - 1e-6, half + 1e-6, 1.5 * half], dtype=torch.float64)
        w, slope, _ = radial(d)
        assert (w - w[1]).abs().max() < 1e-6
        assert slope.abs().max() < 1e-5


def test_walkers_start_apart():
    r = liquid(16).initial_walkers(16, generator())
    d = distance(nearest_image(pair_vectors(r), liquid(16).potential.box))
    assert d.min() > 1.8


def test_the_tail():
    potential = load_potential("helium_liquid", n_particles=64)
    energy, pressure = potential.tail_correction
    assert energy / 64 == pytest.approx(-1.309, abs=5e-4)
    rho, cut = 0.02186, potential.box[0] / 2
    v = potential.pair_potential.v(torch.tensor(cut, dtype=torch.float64)).item()
    # int v' r^3 dr = -v(cut) cut^3 - 3 int v r^2 dr
    assert pressure == pytest.approx(rho * energy / 64 + 2 * torch.pi / 3 * rho**2 * v * cut**3, rel=1e-6)


def test_pressure_and_structure():
    """P is -dE/dOmega by stretching the box together with all positions; S(k) of points at random is 1."""
    system = liquid()
    potential = system.potential
    r = system.initial_walkers(32, generator())
    V, P = standard_observables(potential, r)
    averages = Averages((V, P), len(r))
    E = system.rates(r).killing
    averages.add(r, E)
    found = averages.estimates()
    volume, h = potential.box[0] ** 3, 1e-5
    scale = torch.tensor([1 + h, 1 - h], dtype=torch.float64)
    v = potential.pair_potential.v
    d = distance(nearest_image(pair_vectors(r), potential.box))
    inside = d < potential.pair_potential.cut
    stretched = [torch.where(inside, v(s * d), 0.0).sum(-1).mean() for s in scale]
    work = (stretched[0] - stretched[1]) / (2 * h)
    expected = (2 * (E - V(r)).mean() - work) / (3 * volume) + potential.tail_correction[1]
    assert found["P"].estimate.mean == pytest.approx(float(expected), rel=1e-6)
    S = parse_observable("S(k)", potential)
    uniform = potential.box[0] * torch.rand(4000, N, 3, generator=generator(), dtype=torch.float64)
    assert (S(uniform).mean(0) - 1).abs().max() < 0.12
    assert S.centres[0] == pytest.approx(2 * torch.pi / potential.box[0])


def test_parameters():
    with pytest.raises(BadParameter, match="8 or more"):
        load_potential("helium_liquid", n_particles=4)
    with pytest.raises(BadParameter, match="period"):
        load_potential("helium_liquid", n_particles=8, density=0.2)
    with pytest.raises(BadParameter, match="equal sides"):
        parse_observable("S(k)", load_potential("harmonic"))


@pytest.mark.slow
def test_mcmillan():
    """-5.70(2) K for each of 64 atoms, tail included: W. L. McMillan's trial function with b = 3.07 angstrom."""
    system = liquid(64, 3.07)
    process = Process(NeuralWavefunction(system, width=1), system)
    r = system.initial_walkers(24, generator())
    state = metropolis.start(process, r, system.time_scale / 14)
    energies = []
    for _ in range(12):
        state = metropolis.move(process, state, 8, generator())
        with torch.no_grad():
            energies.append(local_energy(process, state.positions))
    E = torch.stack(energies[2:]).mean(0) / 64 + system.potential.tail_correction[0] / 64
    assert abs(float(E.mean()) + 5.70) < 4 * float(E.std()) / len(E) ** 0.5 + 0.02
