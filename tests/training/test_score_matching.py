"""Drifts from samples: the right minimum, energies from the drift above E_0, and fewer steps of training after it."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

import fkdrift as fk
from fkdrift.errors import BadConfig, BadParameter
from fkdrift.estimators.local_energy import StationarySampler
from fkdrift.training.score_matching import denoising_loss, drift_from_samples
from fkdrift.wavefunction.local_energy import local_energy
from tests.systems import gaussian_start, system_of

WELL = fk.load_potential("double_well")
SPECTRUM = fk.diagonalise(WELL, 2)
E0 = SPECTRUM.energies[0]
SYSTEM = gaussian_start("double_well")
GRID = torch.linspace(-4, 4, 2001, dtype=torch.float64)[:, None, None]


def well_samples(n: int, seed: int = 0) -> torch.Tensor:
    """Independent samples of |phi_0|^2, by inverting its distribution function."""
    x = np.linspace(-6, 6, 100_001)
    below = np.cumsum(np.exp(2 * SPECTRUM.log_psi(x)))
    u = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.from_numpy(np.interp(u.numpy(), below / below[-1], x))[:, None, None]


def exact_energy(drift: fk.NeuralWavefunction, system: fk.System = SYSTEM) -> float:
    """<psi|H|psi> by quadrature."""
    with torch.no_grad():
        weight = (2 * drift.log_psi(GRID)).softmax(0)
        return (weight * local_energy(fk.Process(drift, system), GRID)).sum().item()


@pytest.fixture(scope="module")
def learned() -> fk.NeuralWavefunction:
    return drift_from_samples(well_samples(20_000), SYSTEM, n_updates=300)


def cold() -> fk.NeuralWavefunction:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return fk.NeuralWavefunction(SYSTEM)


def updates_until(drift: fk.NeuralWavefunction, walkers: torch.Tensor, excess: float) -> int:
    """Steps of the natural gradient until the energy is within `excess` of E_0, relatively."""
    drift = copy.deepcopy(drift)
    method = fk.NaturalGradient(fk.Process(drift, SYSTEM), time_scale=SYSTEM.time_scale)
    for step in fk.fit(method, walkers, n_updates=60, generator=torch.Generator().manual_seed(1)):
        if exact_energy(drift) < E0 * (1 + excess):
            return step.index
    raise AssertionError("not within 60 steps")


@pytest.mark.slow
def test_energy_of_the_learned_drift(learned):
    assert E0 < exact_energy(learned) < 1.005 * E0
    process = fk.Process(learned, SYSTEM)
    generator = torch.Generator().manual_seed(2)
    sampler = StationarySampler(process, well_samples(512, seed=3), time_scale=SYSTEM.time_scale, n_moves=6)
    for _ in range(40):
        sampler.advance(generator)
    energy = sampler.energy().energy
    assert energy.error < 4e-3 * E0
    assert abs(energy.mean - exact_energy(learned)) < 4 * energy.error
    assert energy.mean > E0 - 3 * energy.error


@pytest.mark.slow
def test_a_warm_start_needs_at_most_half_the_steps(learned):
    walkers = well_samples(1024, seed=4)
    from_cold, from_warm = updates_until(cold(), walkers, 2e-3), updates_until(learned, walkers, 2e-3)
    assert 2 * from_warm <= from_cold


@pytest.mark.slow
def test_the_mean_over_data_is_no_bound():
    """E_data[v^2 / 2 + V] of a drift that is too small lies below E_0; the energy of the same drift does not."""
    samples = well_samples(5000)
    drift = drift_from_samples(samples, SYSTEM, blur=0.6, n_updates=150)
    with torch.no_grad():
        v = fk.Process(drift, SYSTEM).velocity(samples)
        naive = (v.square().sum((-2, -1)) / 2 + WELL(samples)).mean().item()
    assert naive < 0.95 * E0
    assert exact_energy(drift) > 1.005 * E0


@pytest.mark.parametrize("blur", [0.5, 0.05, 1e-4])
def test_the_loss_is_least_at_the_score_of_the_blurred_density(blur):
    """Harmonic oscillator: |phi_0|^2 has variance 1/2, and the least loss is -1 / (2 (1/2 + blur^2))."""
    system = fk.System(fk.load_potential("harmonic"), torch.float64)
    generator = torch.Generator().manual_seed(0)
    r = math.sqrt(0.5) * torch.randn(200_000, 1, 1, generator=generator, dtype=torch.float64)
    slope = 0.5 / (0.5 + blur**2)
    losses = {}
    for factor in (0.9, 1.0, 1.1):
        process = fk.Process(lambda x, k=factor * slope: -(k - 1) * x, system)
        values = denoising_loss(process, blur)(r, torch.Generator().manual_seed(1))
        assert values.shape == (200_000,)
        losses[factor] = values.mean().item()
        assert values.std().item() < 10, "the spread does not grow as the blur shrinks"
    error = values.std().item() / 200_000**0.5
    assert abs(losses[1.0] + 0.5 / (0.5 + blur**2)) < 4 * error
    assert losses[1.0] < min(losses[0.9], losses[1.1])


@pytest.mark.slow
def test_a_free_drift_learns_too():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        free = fk.NeuralVectorField(SYSTEM)
    drift = drift_from_samples(well_samples(20_000), SYSTEM, drift=free, n_updates=250)
    assert drift is free
    x = well_samples(2000, seed=5)
    exact = np.interp(x[:, 0, 0], GRID[:, 0, 0], np.gradient(SPECTRUM.log_psi(GRID[:, 0, 0].numpy()), GRID[:, 0, 0]))
    with torch.no_grad():
        v = fk.Process(drift, SYSTEM).velocity(x)[:, 0, 0].numpy()
    assert np.mean((v - exact) ** 2) < 0.03 * np.mean(exact**2)


def test_the_same_seed_gives_the_same_drift():
    samples = well_samples(200)
    state = torch.get_rng_state()
    a, b = (drift_from_samples(samples, SYSTEM, n_updates=3, seed=5) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.slow
def test_solve_starts_from_it():
    """Without an update the energy is that of the drift it was given; blurred samples leave it well above E_0."""
    system = system_of("double_well")
    drift = drift_from_samples(well_samples(2000), system, blur=0.6, n_updates=60)
    exact = exact_energy(drift, system)
    settings = fk.Settings(dtype="float64", n_updates=0, n_walkers=512, n_blocks=16, width=32, project=False)
    found = fk.solve(system.potential, settings=settings, start=drift, progress=False).energy
    assert abs(found.deviation(exact)) < 4
    assert found.error < (exact - E0) / 6
    with pytest.raises(BadConfig, match="not of the kind and size"):
        fk.solve(system.potential, settings=settings.changed(width=8), start=drift, progress=False)


@pytest.mark.parametrize(
    ("samples", "options", "reason"),
    [
        (torch.zeros(200, 1), {}, "they have to be"),
        (torch.zeros(200, 2, 1), {}, "they have to be"),
        (torch.zeros(99, 1, 1), {}, "too few"),
        (torch.full((200, 1, 1), math.nan), {}, "not finite"),
        (torch.zeros(200, 1, 1), {"blur": 0.0}, "must be positive"),
    ],
)
def test_bad_input(samples, options, reason):
    with pytest.raises(BadParameter, match=reason):
        drift_from_samples(samples, SYSTEM, **options)
