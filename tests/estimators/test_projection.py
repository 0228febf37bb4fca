"""Projection: the exact energy, with an honest error, from drifts that are wrong."""

import copy
import math

import pytest
import torch

from fkdrift.errors import BadParameter, ComputationError
from fkdrift.estimators.observables import Observable
from fkdrift.estimators.projection import LEVELS, Projection
from fkdrift.hamiltonian.system import System
from fkdrift.numerics.estimates import Estimate
from fkdrift.paths.process import Process
from fkdrift.wavefunction.neural import NeuralWavefunction
from tests.systems import (
    LinearDrift,
    Stretched,
    gaussian_start,
    generator,
    oscillator,
    random_state,
    stationary,
    system_of,
)

F64 = torch.float64
SQUARE = Observable("x^2", "length^2", lambda r: r.square().sum((-2, -1)))


def wrong_oscillator(k: float) -> tuple[System, Process]:
    """V = x^2 / 2 with psi = exp(-k x^2 / 2)."""
    system = system_of("harmonic")
    return system, Process(Stretched(system, k - 1), system)


def project(system: System, process: Process, n_blocks: int, **options: object) -> Projection:
    g = generator()
    start = system.initial_walkers(1024, g)
    projection = Projection(process, start, time_scale=system.time_scale, **options)
    while projection.n_blocks < n_blocks:
        projection.advance(g)
    return projection


@pytest.mark.parametrize("k", [0.6, pytest.param(1.5, marks=pytest.mark.slow)])
def test_a_wrong_slope_is_projected_out(k: float) -> None:
    """The variational energy is (k + 1/k) / 4; the mixed and the growth estimate are 1/2 all the same."""
    found = project(*wrong_oscillator(k), 32, n_walkers=3072).energy()
    assert abs(found.energy.deviation(0.5)) < 4
    assert abs(found.growth.deviation(0.5)) < 4
    assert found.energy.error < 0.01
    assert found.variational.deviation(0.5) > 3
    assert abs(found.variational.deviation((k + 1 / k) / 4)) < 4
    assert abs(found.trend.mean) < 4 * found.trend.error
    assert found.time_steps[0] > found.time_steps[1] > found.time_steps[2] > 0


@pytest.mark.slow
def test_the_bias_of_the_step_is_what_the_head_of_the_file_says() -> None:
    """psi = exp(-0.75 x^2): kernel quadrature gives 0.0757 dt at dt = 1/16, half of it at dt = 1/32, and so on."""
    found = project(*wrong_oscillator(1.5), 96, n_walkers=6144).energy()
    excess = found.by_time_step[0].mean - 0.5
    assert abs(excess - 0.069 * found.time_steps[0]) < 4 * found.by_time_step[0].error
    assert excess > 3 * found.by_time_step[0].error


def test_an_exact_state_has_no_noise() -> None:
    system = system_of("hydrogen")
    found = project(system, Process(NeuralWavefunction(system), system), 4, n_walkers=192, n_steps=4).energy()
    assert abs(found.energy.mean + 0.5) < 1e-9
    assert found.energy.error < 1e-9
    assert found.effective_share[1] > 1 - 1e-9


@pytest.mark.slow
def test_an_untrained_drift_gives_the_energy_of_the_quartic_well() -> None:
    system = system_of("anharmonic", torch.float32)
    found = project(system, Process(NeuralWavefunction(system, 4, 1), system), 32, n_walkers=1536).energy()
    assert abs(found.energy.deviation(0.8037706512342)) < 4
    assert found.energy.error < 0.003


@pytest.mark.parametrize("k", [1.0, 0.7])
def test_a_free_drift_is_weighed_by_its_action(k: float) -> None:
    """v = -k x without any log psi: weights exp(-l_T), the energy from their growth."""
    g = generator()
    process = Process(LinearDrift(k), oscillator())
    projection = Projection(process, stationary(k, 0, 512, g), time_scale=1.0, n_walkers=6144)
    while projection.n_blocks < 32:
        projection.advance(g)
    found = projection.energy()
    assert abs(found.energy.deviation(0.5)) < 4
    assert found.energy.error < 0.01
    assert found.variational is None
    assert found.acceptance is None
    assert abs(found.mixed.deviation(0.5)) < 4


@pytest.mark.slow
def test_pure_estimates_are_of_the_exact_state() -> None:
    """psi = exp(-k x^2 / 2): <x^2> is 1/(1 + k) in psi phi_0 and 1/2 in phi_0^2."""
    k = 0.6
    projection = project(*wrong_oscillator(k), 32, n_walkers=6144, observables=(SQUARE,))
    averages = projection.averages()
    mixed, pure = averages["mixed"]["x^2"].estimate, averages["pure"]["x^2"].estimate
    assert abs(mixed.deviation(1 / (1 + k))) < 4
    assert abs(pure.deviation(0.5)) < 4
    assert pure.error < 0.03
    assert mixed.deviation(0.5) > 4
    lags, values, chosen = projection.plateau("x^2")
    assert lags[0] == 0
    assert len(lags) == len(values) > 2
    assert chosen in lags
    assert values[0].mean > values[-1].mean
    with pytest.raises(BadParameter, match="no observable with one value"):
        projection.plateau("y")


def test_nearly_equal_weights_need_no_populations() -> None:
    """psi = exp(-0.51 x^2): walkers stay independent, and the excess of 1e-4 is found with less noise than E_L has."""
    k = 1.02
    projection = project(*wrong_oscillator(k), 32, n_walkers=1536)
    found = projection.energy()
    assert found.independent
    assert abs(found.energy.deviation(0.5)) < 4
    assert abs(found.growth.deviation(0.5)) < 4
    assert abs(found.variational.deviation((k + 1 / k) / 4)) < 4
    projection.variational = Estimate((k + 1 / k) / 4, 1e-9)
    known = projection.energy()
    assert abs(known.energy.deviation(0.5)) < 4
    assert known.energy.error < found.energy.error / 3
    assert known.energy.error < 4e-5


@pytest.mark.slow
def test_small_populations_are_not_biased() -> None:
    """With four walkers in a population, its weight must be kept: without it the energy would be too high."""
    found = project(*wrong_oscillator(0.4), 48, n_walkers=LEVELS * 256 * 4, n_populations=256).energy()
    removed, left = found.population_bias
    assert removed.mean > 3 * removed.error
    assert abs(left.mean) < removed.mean / 2
    assert abs(found.energy.deviation(0.5)) < 4


def test_state_round_trip() -> None:
    """A projection restored from its state goes on exactly as the original, settling, projecting or counting."""
    system, process = random_state("double_well", 0.2)

    def make() -> Projection:
        walkers = system.initial_walkers(32, generator(3))
        options = {"n_walkers": 48, "n_populations": 2, "n_settling": 2, "n_steps": 8, "observables": (SQUARE,)}
        return Projection(process, walkers, time_scale=0.2, **options)

    g = generator()
    original = make()
    for n in (1, 3, 20):
        while len(original.series) + 2 - original.settling < n:
            original.advance(g)
        restored = make()
        restored.load_state_dict(original.state_dict())
        noise = g.get_state()
        original.advance(g)
        g.set_state(noise)
        restored.advance(g)
        for name, value in original.walkers.items():
            assert torch.equal(value, restored.walkers[name])
    while original.n_blocks < 2:
        original.advance(g)
        g.set_state(g.get_state())
    assert original.energy().energy.error >= 0


def test_effort_follows_the_tolerance() -> None:
    projection, g = project(*wrong_oscillator(0.8), 2, n_walkers=192, n_steps=4), generator(1)
    assert projection.planned(1.0) == 32
    while projection.n_blocks < 32:
        projection.advance(g)
    error = projection.energy().energy.error
    assert projection.planned(2 * error) == 32
    assert 32 < projection.planned(error / 10) <= 64


def test_the_projection_time_follows_what_may_be_left() -> None:
    system, process = wrong_oscillator(1.0)
    walkers = system.initial_walkers(96, generator())
    for left in (1e-3, 1e-2):
        projection = Projection(process, walkers, time_scale=1.0, gap=2.0, left=left, n_walkers=96)
        assert math.exp(-2.0 * projection.projection_time) == pytest.approx(left)


def test_bad_input() -> None:
    system, process = wrong_oscillator(1.0)
    walkers = system.initial_walkers(8, generator())
    for options in ({"n_populations": 1}, {"n_walkers": 6}, {"n_steps": 0}):
        with pytest.raises(BadParameter, match="at least 2 populations of 2 walkers"):
            Projection(process, walkers, time_scale=1.0, **options)
    with pytest.raises(ComputationError, match="needs at least 1"):
        Projection(process, walkers, time_scale=1.0).energy()


@pytest.mark.slow
@pytest.mark.parametrize("independent", [False, True])
def test_claimed_errors_cover(independent: bool) -> None:
    """Over 24 groups, each by itself: populations, and independent walkers in the quartic well with a Gaussian psi."""
    system, process, exact = *wrong_oscillator(1.2), 0.5
    if independent:
        system, exact = gaussian_start("anharmonic"), 0.8037706512342
        process = Process(NeuralWavefunction(system, 2, 1), system)
    everything = project(system, process, 32, n_walkers=LEVELS * 24 * 16 * 8, n_populations=24 * 16)
    assert everything.independent == independent
    z = []
    for k in range(24):
        group = copy.copy(everything)
        group.series = [block[..., 16 * k : 16 * (k + 1)] for block in everything.series]
        group.shape = (LEVELS, 16, 8)
        z.append(group.energy().energy.deviation(exact))
    assert sum(abs(x) < 1.96 for x in z) >= 21
    assert abs(sum(z) / math.sqrt(24)) < 4
