"""Energies of known processes: the step bias is removed, the errors are honest."""

import math

import torch

from fkdrift.estimators.energies import PathSampler, StationarySampler
from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.system import System
from fkdrift.paths.process import Process
from fkdrift.wavefunction.neural import NeuralWavefunction
from tests.systems import LinearDrift, euler_energy, generator, oscillator, stationary

F64 = torch.float64


def follow(k: float, n_walkers: int, n_blocks: int, seed: int) -> PathSampler:
    g = generator(seed)
    sampler = PathSampler(Process(LinearDrift(k), oscillator()), stationary(k, 0, n_walkers, g), dt=0.25, n_steps=8)
    for _ in range(n_blocks + 4):
        sampler.advance(g)
    return sampler


def test_extrapolation_removes_the_step_bias() -> None:
    """v = -1.5 x: each step size has its own exact energy, and the extrapolated one is (k + 1/k) / 4."""
    k = 1.5
    energy = follow(k, 4096, 12, 0).energy()
    for dt, estimate in zip(energy.time_steps, energy.by_time_step, strict=True):
        assert abs(estimate.deviation(euler_energy(k, dt))) < 4
    third_order = 0.125 * 0.25**3 * (k**2 + 1) / (4 * k) * (k / 2) ** 3
    assert abs(energy.action.mean - (k + 1 / k) / 4) < 4 * energy.action.error + third_order
    assert energy.by_time_step[0].deviation((k + 1 / k) / 4) > 10
    assert energy.action.error < 1.5 * energy.by_time_step[0].error


def test_claimed_errors_cover() -> None:
    """Over 40 seeds, (mean - exact) / error of the extrapolated energy behaves like a standard normal variable."""
    z = [follow(1.0, 128, 6, seed).energy().action.deviation(0.5) for seed in range(40)]
    square = sum(x**2 for x in z)
    assert abs((square - 40) / math.sqrt(80)) < 4
    assert abs(sum(z) / math.sqrt(40)) < 4


def random_state(name: str, scale: float) -> tuple[System, Process]:
    system = System(load_potential(name), F64)
    drift = NeuralWavefunction(system, width=6)
    for parameter in drift.parameters():
        torch.nn.init.normal_(parameter, std=scale, generator=generator())
    return system, Process(drift, system)


def test_two_estimates_of_one_energy_agree() -> None:
    """For a wrong psi the path action and the local energy give the same variational energy, above E_0."""
    system, process = random_state("anharmonic", 0.25)
    g = generator()
    walkers = system.initial_walkers(2048, g)
    paths = PathSampler(process, walkers, dt=system.time_scale / 16, n_steps=16, n_equilibration=8)
    local = StationarySampler(process, walkers, system.potential, time_scale=system.time_scale)
    for _ in range(24):
        paths.advance(g)
    for _ in range(216):
        local.advance(g)
    E, F = local.energy(), paths.energy()
    assert E.energy.mean > 0.8037706512 + 5 * E.energy.error
    for other in (F.action, F.corrected):
        assert abs(E.energy.mean - other.mean) < 4 * math.hypot(E.energy.error, other.error)
    assert F.corrected.error < F.action.error
    assert E.spread > 0.01
    assert 0.5 < E.acceptance < 1


def test_exact_state_has_no_noise() -> None:
    system = System(load_potential("hydrogen"), F64)
    g = generator()
    process = Process(NeuralWavefunction(system), system)
    sampler = StationarySampler(process, system.initial_walkers(64, g), system.potential, time_scale=system.time_scale)
    for _ in range(20):
        sampler.advance(g)
    energy = sampler.energy()
    assert abs(energy.energy.mean + 0.5) < 1e-12
    assert energy.spread < 1e-6
    assert abs(energy.potential.deviation(-1.0)) < 4


def test_state_round_trip() -> None:
    """A sampler restored from its state goes on exactly as the original."""
    system, process = random_state("double_well", 0.2)
    g = generator()
    for make in (
        lambda: PathSampler(process, system.initial_walkers(8, generator(3)), dt=0.1, n_steps=4, n_equilibration=1),
        lambda: StationarySampler(
            process, system.initial_walkers(8, generator(3)), system.potential, time_scale=1.0, n_equilibration=1
        ),
    ):
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
