"""Path actions of known processes: the step bias is removed, the errors are honest."""

import copy
import math

from fkdrift.estimators.path_action import PathSampler
from fkdrift.paths.process import Process
from tests.systems import LinearDrift, euler_energy, generator, oscillator, random_state, stationary


def follow(k: float, n_walkers: int, n_blocks: int) -> PathSampler:
    g = generator()
    sampler = PathSampler(Process(LinearDrift(k), oscillator()), stationary(k, 0, n_walkers, g), dt=0.25, n_steps=8)
    for _ in range(n_blocks + 4):
        sampler.advance(g)
    return sampler


def test_extrapolation_removes_the_step_bias() -> None:
    """v = -1.5 x: each step size has its own exact energy, and the extrapolated one is (k + 1/k) / 4."""
    k = 1.5
    energy = follow(k, 4096, 12).energy()
    for dt, estimate in zip(energy.time_steps, energy.by_time_step, strict=True):
        assert abs(estimate.deviation(euler_energy(k, dt))) < 4
    third_order = 0.125 * 0.25**3 * (k**2 + 1) / (4 * k) * (k / 2) ** 3
    assert abs(energy.action.mean - (k + 1 / k) / 4) < 4 * energy.action.error + third_order
    assert energy.by_time_step[0].deviation((k + 1 / k) / 4) > 10
    assert energy.action.error < 1.5 * energy.by_time_step[0].error


def test_claimed_errors_cover() -> None:
    """Over 40 groups of walkers, (mean - exact) / error of the extrapolated energy is a standard normal variable."""
    sampler, z = follow(1.0, 40 * 128, 6), []
    for group in range(40):
        part = copy.copy(sampler)
        cut = slice(128 * group, 128 * (group + 1))
        part.walkers, part.action, part.start = (
            each[:, cut] for each in (sampler.walkers, sampler.action, sampler.start)
        )
        part.squares = sampler.squares[cut]
        z.append(part.energy().action.deviation(0.5))
    square = sum(x**2 for x in z)
    assert abs((square - 40) / math.sqrt(80)) < 4
    assert abs(sum(z) / math.sqrt(40)) < 4


def test_state_round_trip() -> None:
    """A sampler restored from its state goes on exactly as the original."""
    system, process = random_state("double_well", 0.2)
    g = generator()

    def make() -> PathSampler:
        walkers = system.initial_walkers(8, generator(3))
        return PathSampler(process, walkers, dt=0.1, n_steps=4, n_equilibration=1)

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
