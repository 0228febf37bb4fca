"""Conditioned diffusions: weights whose mean is the evidence, exactly, for linear systems and any drift."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fkdrift.bridges.conditioned import Conditioned, Guide, GuidedDrift, Measurement
from fkdrift.errors import BadParameter
from fkdrift.hamiltonian.system import Rates
from fkdrift.numerics.estimates import log_mean
from fkdrift.paths.process import FeynmanKac
from tests.systems import generator

NAN = float("nan")


@dataclass(frozen=True)
class Restoring:
    """dr = -k r dt + sigma dB, not killed."""

    sigma: Tensor
    k: float = 1.0

    def rates(self, r: Tensor) -> Rates:
        return Rates(-self.k * r, r.new_zeros(len(r)))


def tensor(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def log_gaussian(y: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> float:
    z = y - mean
    sign, log_det = np.linalg.slogdet(2 * np.pi * covariance)
    assert sign > 0
    return float(-(z @ np.linalg.solve(covariance, z) + log_det) / 2)


def brownian(sigma: Tensor) -> FeynmanKac:
    return FeynmanKac(lambda r: 0 * r.sum((-2, -1)), sigma)


def scattered(drift: GuidedDrift, seed: int = 5) -> GuidedDrift:
    """A drift with a random network on top of its guide."""
    g = generator(seed)
    for parameter in drift.parameters():
        parameter.data = 0.15 * torch.randn(parameter.shape, generator=g, dtype=parameter.dtype)
    return drift


def two_particles() -> tuple[Conditioned, float]:
    """Two particles of different mass in two dimensions, seen at three times, not all coordinates: and exact log Z."""
    sigma = tensor((1.0,), (0.6,))
    start = tensor((0.0, 0.3), (-0.2, 0.5))
    seen = (
        Measurement(0.5, tensor((0.4, NAN), (NAN, 0.1)), 0.3),
        Measurement(0.9, tensor((NAN, NAN), (0.3, NAN)), 0.5),
        Measurement(1.5, tensor((1.0, -0.5), (0.2, NAN)), 0.2),
    )
    log_evidence = 0.0
    for i in range(2):
        for d in range(2):
            found = [m for m in seen if not math.isnan(m.value[i, d])]
            t = np.array([m.time for m in found])
            covariance = sigma[i].item() ** 2 * np.minimum(t[:, None], t) + np.diag([m.noise**2 for m in found])
            y = np.array([m.value[i, d].item() for m in found])
            log_evidence += log_gaussian(y, np.full(len(y), start[i, d].item()), covariance)
    return Conditioned(brownian(sigma), start, seen), log_evidence


@pytest.mark.parametrize("dt", [0.25, 0.05])
@pytest.mark.parametrize("learned", [False, True])
def test_weights_average_to_the_evidence(dt: float, learned: bool) -> None:
    """Brownian steps are exact at any dt and weights whatever the drift, so log E[w] is the Gaussian evidence."""
    problem, exact = two_particles()
    drift: nn.Module = scattered(GuidedDrift(problem)) if learned else Guide(problem)
    with torch.no_grad():
        found = log_mean(problem.follow(drift, 16384, dt=dt, generator=generator()).log_weight)
    assert found.error < 0.1
    assert abs(found.deviation(exact)) < 4


def test_the_guide_is_the_exact_drift_of_brownian_motion() -> None:
    """Its weights spread as sqrt(dt) only, so almost all paths count."""
    problem, exact = two_particles()
    spreads = []
    for dt in (0.008, 0.002):
        weighted = problem.follow(Guide(problem), 2048, dt=dt, generator=generator())
        spreads.append(weighted.log_weight.std().item())
    assert spreads[0] / spreads[1] == pytest.approx(2, rel=0.2)
    assert abs(weighted.log_weight.mean().item() - exact) < spreads[1]


def test_guide_agrees_with_the_posterior_of_the_later_measurements() -> None:
    """v = sigma^2 d/dr log N(measurements after t; r, covariance), by finite differences."""
    problem, _ = two_particles()
    guide = Guide(problem)
    t, r = 0.6, 0.25
    later = [(0.9, 0.3, 0.5), (1.5, 0.2, 0.2)]  # of coordinate 0 of particle 1
    times = np.array([at - t for at, _, _ in later])
    covariance = 0.36 * np.minimum(times[:, None], times) + np.diag([s**2 for _, _, s in later])
    y = np.array([value for _, value, _ in later])
    slope = (
        log_gaussian(y, np.full(2, r + 1e-6), covariance) - log_gaussian(y, np.full(2, r - 1e-6), covariance)
    ) / 2e-6
    found = guide(torch.tensor(t), torch.full((1, 2, 2), r, dtype=torch.float64))
    assert found[0, 1, 0].item() == pytest.approx(0.36 * slope, rel=1e-6)
    assert found[0, 1, 1].item() == 0  # nothing about it is measured any more


class Posterior(nn.Module):
    """The exact drift on top of h = -z towards y at T, seen with variance s2."""

    def __init__(self, T: float, y: float, s2: float) -> None:
        super().__init__()
        self.T, self.y, self.s2 = T, y, s2

    def forward(self, t: Tensor, r: Tensor) -> Tensor:
        e = math.exp(float(t) - self.T)
        return e * (self.y - r * e) / (self.s2 + (1 - e**2) / 2)


def chain_evidence(problem: Conditioned, dt: float) -> float:
    """Exact log Z of the Euler chain of dz = -z dt + dB with the same steps."""
    mean, variance = problem.start.item(), 0.0
    for n, step in problem._blocks(0, dt):
        for _ in range(n):
            mean, variance = mean * (1 - step), variance * (1 - step) ** 2 + step
    seen = problem.measurements[0]
    return log_gaussian(np.array([seen.value.item()]), np.array([mean]), np.array([[variance + seen.noise**2]]))


def ornstein_uhlenbeck() -> Conditioned:
    one = tensor((1.0,))
    return Conditioned(Restoring(one), -one, (Measurement(2.0, 1.5 * one, 0.2),))


def test_exact_drift_of_an_ornstein_uhlenbeck_bridge() -> None:
    """log Z is that of the Euler chain, and the spread of log w falls as sqrt(dt)."""
    problem, spreads = ornstein_uhlenbeck(), []
    for dt in (0.016, 0.004):
        with torch.no_grad():
            weighted = problem.follow(Posterior(2.0, 1.5, 0.04), 8192, dt=dt, generator=generator())
        found = log_mean(weighted.log_weight)
        assert abs(found.deviation(chain_evidence(problem, dt))) < 4
        spreads.append(weighted.log_weight.std().item())
    assert spreads[0] / spreads[1] == pytest.approx(2, rel=0.1)


def test_step_bias_is_of_first_order() -> None:
    """The chain's evidence approaches -3.121166 linearly in dt, which is what the extrapolation assumes."""
    mean, variance = -math.exp(-2), (1 - math.exp(-4)) / 2 + 0.04
    exact = log_gaussian(np.array([1.5]), np.array([mean]), np.array([[variance]]))
    assert exact == pytest.approx(-3.1212, abs=5e-5)
    bias = [chain_evidence(ornstein_uhlenbeck(), dt) - exact for dt in (0.02, 0.01, 0.005)]
    assert bias[0] / bias[1] == pytest.approx(2, rel=0.02)
    assert bias[1] / bias[2] == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("refine", [1, 2])
def test_pinned_end(refine: int) -> None:
    """A path pinned to a point has the density of the point as its evidence, and ends there."""
    one = tensor((1.0,))
    problem = Conditioned(brownian(0.5 * one), 0 * one, (Measurement(1.0, one, 0.0),))
    drift = scattered(GuidedDrift(problem))
    with torch.no_grad():
        weighted = problem.follow(drift, 16384, dt=0.125, generator=generator(), refine=refine, finest=2)
    exact = -(1**2) / (2 * 0.25) - math.log(2 * math.pi * 0.25) / 2
    assert abs(log_mean(weighted.log_weight).deviation(exact)) < 4
    assert torch.equal(weighted.path.positions[-1], torch.ones(16384, 1, 1, dtype=torch.float64))
    assert weighted.path.times.tolist() == [k / 8 for k in range(9)]


def test_killing_is_summed_along_a_pinned_path() -> None:
    """A constant rate c multiplies the evidence by exp(-c T), last step included."""
    one = tensor((1.0,))
    for noise in (0.0, 0.3):
        weights = []
        for c in (0.0, 0.7):
            reference = FeynmanKac(lambda r, c=c: r.new_full((len(r),), c), one)
            problem = Conditioned(reference, 0 * one, (Measurement(1.5, one, noise),))
            weights.append(problem.follow(Guide(problem), 4, dt=0.125, generator=generator(), refine=2, finest=2)[1])
        torch.testing.assert_close(weights[1] - weights[0], torch.full((4,), -0.7 * 1.5, dtype=torch.float64))


def test_refined_runs_share_a_brownian_path() -> None:
    problem, _ = two_particles()
    zero = ZeroDrift()
    coarse = problem.follow(zero, 3, dt=0.125, generator=generator(), refine=1, finest=4).path
    fine = problem.follow(zero, 3, dt=0.125, generator=generator(), refine=4, finest=4).path
    torch.testing.assert_close(coarse.positions, fine.positions)
    torch.testing.assert_close(coarse.times, fine.times)


class ZeroDrift(nn.Module):
    def forward(self, t: Tensor, r: Tensor) -> Tensor:
        return torch.zeros_like(r)


def test_steps_resolve_a_precise_measurement() -> None:
    one = tensor((1.0,))
    problem = Conditioned(brownian(one), 0 * one, (Measurement(1.0, one, 0.01),))
    blocks = problem._blocks(0, 0.1)
    assert sum(n * step for n, step in blocks) == pytest.approx(1.0)
    assert blocks[-1][1] <= 0.01**2 / 2
    assert max(step for _, step in blocks) <= 0.1


def test_measurements_are_normalised_and_skip_what_was_not_seen() -> None:
    seen = Measurement(1.0, tensor((0.2, NAN)), 0.5)
    r = tensor((0.3, 9.0))[None]
    expected = torch.distributions.Normal(0.3, 0.5).log_prob(torch.tensor(0.2, dtype=torch.float64))
    torch.testing.assert_close(seen.log_likelihood(r), expected[None], rtol=1e-6, atol=1e-6)
    assert seen.log_likelihood(r.expand(7, 1, 2)).shape == (7,)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((0.0, tensor((1.0,)), 0.1), "time"),
        ((NAN, tensor((1.0,)), 0.1), "time"),
        ((1.0, tensor((1.0,)), -0.1), "noise"),
        ((1.0, tensor((NAN,)), 0.1), "value"),
        ((1.0, torch.ones(1), 0.1), "value"),
    ],
)
def test_bad_measurements(arguments: tuple[float, Tensor, float], why: str) -> None:
    with pytest.raises(BadParameter, match=why):
        Measurement(*arguments)


def test_bad_problems() -> None:
    one = tensor((1.0,))
    measure, early, late = brownian(one), Measurement(1.0, one, 0.1), Measurement(2.0, one, 0.1)
    with pytest.raises(BadParameter, match="at least one"):
        Conditioned(measure, one, ())
    with pytest.raises(BadParameter, match="increase"):
        Conditioned(measure, one, (late, early))
    with pytest.raises(BadParameter, match="shape"):
        Conditioned(measure, torch.ones(2, 1), (early,))
    with pytest.raises(BadParameter, match="only the last"):
        Conditioned(measure, one, (Measurement(1.0, one, 0.0), late))
    with pytest.raises(BadParameter, match="not measured"):
        Conditioned(measure, torch.ones(1, 2), (Measurement(1.0, tensor((1.0, NAN)), 0.0),))
