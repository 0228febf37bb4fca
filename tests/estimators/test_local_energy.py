"""Local energies of known states: no step bias, no noise where psi is exact."""

import math

import pytest
import torch

from fkdrift.estimators.local_energy import StationarySampler
from fkdrift.estimators.observables import parse_observables
from fkdrift.estimators.path_action import PathSampler
from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.system import System
from fkdrift.paths.process import Process
from fkdrift.wavefunction.neural import NeuralWavefunction
from tests.systems import generator, random_state

F64 = torch.float64


@pytest.mark.slow
def test_two_estimates_of_one_energy_agree() -> None:
    """For a wrong psi the path action and the local energy give the same variational energy, above E_0."""
    system, process = random_state("anharmonic", 0.25)
    g = generator()
    walkers = system.initial_walkers(4096, g)
    paths = PathSampler(process, walkers, dt=system.time_scale / 16, n_steps=8, n_equilibration=6)
    local = StationarySampler(process, walkers, time_scale=system.time_scale)
    for _ in range(14):
        paths.advance(g)
    for _ in range(32):
        local.advance(g)
    E, F = local.energy(), paths.energy()
    assert E.energy.mean > 0.8037706512 + 5 * E.energy.error
    for other in (F.action, F.corrected):
        assert abs(E.energy.mean - other.mean) < 4 * math.hypot(E.energy.error, other.error)
    assert F.corrected.error < F.action.error
    assert E.standard_deviation > 0.01
    assert 0.5 < E.acceptance < 1


def test_exact_state_has_no_noise() -> None:
    system = System(load_potential("hydrogen"), F64)
    g = generator()
    process = Process(NeuralWavefunction(system), system)
    sampler = StationarySampler(process, system.initial_walkers(64, g), time_scale=system.time_scale)
    for _ in range(20):
        sampler.advance(g)
    energy = sampler.energy()
    assert abs(energy.energy.mean + 0.5) < 1e-12
    assert energy.standard_deviation < 1e-6


def test_state_round_trip() -> None:
    """A sampler restored from its state goes on exactly as the original."""
    system, process = random_state("double_well", 0.2)
    g = generator()

    def make() -> StationarySampler:
        walkers = system.initial_walkers(8, generator(3))
        return StationarySampler(process, walkers, time_scale=1.0, n_equilibration=1)

    original = make()
    for _ in range(3):
        original.advance(g)
    restored = make()
    restored.load_state_dict({k: v.clone() if hasattr(v, "clone") else v for k, v in original.state_dict().items()})
    noise = g.get_state()
    original.advance(g)
    g.set_state(noise)
    restored.advance(g)
    assert restored.energy() == original.energy()


def test_observables_are_averaged_beside_the_energy() -> None:
    """Hydrogen: <V> = -1, T = 1/2, virial 1, <r> = 1.5, <r^2> = 3, and they come back with the state."""
    potential = load_potential("hydrogen")
    system, g = System(potential, F64), generator()
    process = Process(NeuralWavefunction(system), system)
    walkers = system.initial_walkers(256, g)
    observables = parse_observables(["r", "r**2"], potential, walkers)

    def make() -> StationarySampler:
        return StationarySampler(process, walkers, time_scale=system.time_scale, observables=observables)

    sampler, restored = make(), make()
    for _ in range(40):
        sampler.advance(g)
    found = sampler.observables()
    for name, exact in {"V": -1.0, "T": 0.5, "virial": 1.0, "r": 1.5, "r**2": 3.0, "E_L": -0.5}.items():
        assert abs(found[name].estimate.deviation(exact)) < 4, name
    restored.load_state_dict(sampler.state_dict())
    assert restored.observables()["r"].plain() == found["r"].plain()
