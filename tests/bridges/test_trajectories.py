"""Trajectory inference and bridges against exact conditioned processes: Gaussian, and on a grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import fkdrift as fk
from fkdrift.bridges.conditioned import Conditioned, Guide, Measurement
from fkdrift.bridges.trajectories import Trajectories, free_energy, infer, weigh
from fkdrift.bridges.transition import bridge_problem, splitting
from fkdrift.errors import BadParameter
from fkdrift.numerics.estimates import Estimate
from fkdrift.paths.process import FeynmanKac, Overdamped
from tests.bridges.test_conditioned import Restoring, tensor
from tests.systems import generator
from tests.wells import double_well, imaginary_line, overdamped_line

NAN = float("nan")


@pytest.mark.slow
def test_kalman_smoother() -> None:
    """Two coordinates with dr_i = -k r_i dt + sigma_i dB, three measurements: evidence, mean and variance."""
    k, sigma, start = 1.5, (1.0, 0.5), (0.5, -0.3)
    seen = (
        Measurement(0.5, tensor((-0.6,), (NAN,)), 0.3),
        Measurement(1.0, tensor((0.8,), (0.5,)), 0.25),
        Measurement(1.5, tensor((NAN,), (-0.4,)), 0.2),
    )
    problem = Conditioned(Restoring(tensor(*[(s,) for s in sigma]), k), tensor(*[(x,) for x in start]), seen)
    found = infer(problem, seed=1, dt=1 / 64, n_updates=30, n_paths=8192)
    t = found.path.times.numpy()[1:]
    weights = found.weights[None, :, None]
    mean = found.mean()[1:, :, 0]
    variance = ((found.path.positions[1:, :, :, 0] - mean[:, None]).square() * weights).sum(1)
    log_evidence = 0.0
    for i in range(2):
        one = [m for m in seen if not math.isnan(m.value[i, 0])]
        at = np.array([m.time for m in one])
        both = np.concatenate([t, at])
        late, early = np.maximum(both[:, None], both), np.minimum(both[:, None], both)
        prior = sigma[i] ** 2 * np.exp(-k * late) * np.sinh(k * early) / k
        centre = start[i] * np.exp(-k * both)
        S = prior[len(t) :, len(t) :] + np.diag([m.noise**2 for m in one])
        residual = np.array([m.value[i, 0].item() for m in one]) - centre[len(t) :]
        log_evidence -= (residual @ np.linalg.solve(S, residual) + np.linalg.slogdet(2 * np.pi * S)[1]) / 2
        gain = prior[: len(t), len(t) :] @ np.linalg.inv(S)
        exact_mean = centre[: len(t)] + gain @ residual
        exact_variance = np.diag(prior[: len(t), : len(t)] - gain @ prior[len(t) :, : len(t)])
        assert np.abs(mean[:, i].numpy() - exact_mean).max() < 0.03
        assert np.abs(variance[:, i].numpy() - exact_variance).max() < 0.015
    assert found.efficiency > 0.5
    assert found.log_evidence.error < 0.02
    assert abs(found.log_evidence.mean - log_evidence) < 4 * found.log_evidence.error + 0.01


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["kl", "log_variance"])
def test_double_well_trajectories(loss: str) -> None:
    """dz = -U'/2 dt + dW from -1, seen at 1 after T = 2: the evidence and the bands of the grid."""
    one = tensor((1.0,))
    simulation = Overdamped(fk.load_potential("double_well"), one)
    problem = Conditioned(simulation, -one, (Measurement(2.0, one, 0.2),))
    found = infer(problem, dt=1 / 32, n_updates=30, n_paths=4096, loss=loss)
    line = overdamped_line()
    h = np.exp(-double_well(line.x) / 2)
    times = found.path.times.numpy()[1:]
    end = line.gaussian(1.0, 0.2) * h
    log_evidence, densities = line.conditioned(-1.0, [(2.0, end)], times)
    assert abs(found.log_evidence.deviation(log_evidence)) < 4
    assert found.log_evidence.error < 0.02
    assert 0 < found.by_step[1].mean - found.elbo.mean < 0.3
    exact = line.quantiles(densities, (0.05, 0.5, 0.95))
    assert np.abs(found.quantiles((0.05, 0.5, 0.95))[:, 1:, 0, 0].numpy() - exact).max() < 0.12


@pytest.mark.slow
def test_bridge_of_the_double_well() -> None:
    """log K(1, 2 | -1) of V = (x^2 - 1)^2 pinned at both ends."""
    problem = bridge_problem(fk.load_potential("double_well"), -1.0, 1.0, 2.0)
    found = infer(problem, dt=1 / 32, n_updates=40, n_paths=8192)
    exact = math.log(imaginary_line().kernel(-1.0, 1.0, 2.0))
    assert found.log_evidence.error < 0.02
    assert abs(found.log_evidence.deviation(exact)) < 4


def test_several_particles_are_a_product() -> None:
    """Two independent oscillators of mass 2 in one dimension: log K is the sum of Mehler's, without training."""
    potential = fk.FunctionPotential(lambda r: r.square().sum((-2, -1)), n_particles=2, masses=(2.0, 2.0))
    problem = bridge_problem(potential, [-0.2, 0.5], [0.3, 0.1], 0.5)
    found = weigh(problem, Guide(problem), 16384, dt=1 / 32, generator=generator()).log_evidence
    exact = 0.0
    for x, y in ((-0.2, 0.3), (0.5, 0.1)):
        s, c = math.sinh(0.5), math.cosh(0.5)
        exact += -2 * ((x**2 + y**2) * c - 2 * x * y) / (2 * s) - math.log(2 * math.pi * s / 2) / 2
    assert found.error < 0.02
    assert abs(found.deviation(exact)) < 4


def test_splitting_from_exact_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """With exact propagators the formula gives the gap 0.79185 within the states that it leaves out, and its error."""
    line = imaginary_line()

    class Found:
        def __init__(self, a: float, b: float, T: float, noise: float) -> None:
            self.log_evidence = Estimate(math.log(line.kernel(a, b, T, noise)), 0.001)

    monkeypatch.setattr(
        "fkdrift.bridges.transition.bridge_problem", lambda potential, a, b, T, noise: (float(a), float(b), T, noise)
    )
    monkeypatch.setattr("fkdrift.bridges.transition.infer", lambda problem, seed: Found(*problem))
    gap = line.energies[1] - line.energies[0]
    assert gap == pytest.approx(0.7918480793, abs=1e-8)
    near = splitting("double_well", 1.0, (1.5, 3.0), noise=0.5)
    far = splitting("double_well", 1.0, (4.0, 6.0), noise=0.5)
    assert near.mean == pytest.approx(gap, rel=0.01)
    assert far.mean == pytest.approx(gap, rel=1e-5)
    assert 0.001 < near.error < 0.004
    assert far.error > near.error


def test_quantiles_and_samples_are_weighted() -> None:
    """Paths at 0, 1, 2, 3 with weights 1, 2, 3, 4: the mean is 2, the median 2, and samples follow."""
    r = torch.arange(4.0).double()[None, :, None, None].repeat(2, 1, 1, 1)
    path = fk.Path(torch.tensor([0.0, 1.0]), r, {})
    nil = Estimate(0.0, 0.0)
    found = Trajectories(nil, nil, (nil, nil), 0.1, path, torch.tensor([1.0, 2.0, 3.0, 4.0]).log())
    assert found.mean().flatten().tolist() == pytest.approx([2.0, 2.0])
    assert found.quantiles((0.05, 0.5, 0.95))[:, 0, 0, 0].tolist() == [0, 2, 3]
    assert found.efficiency == pytest.approx(100 / 30 / 4)
    drawn = found.sample(1000, generator())[0, :, 0, 0]
    assert [int((drawn == k).sum()) for k in range(4)] == pytest.approx([100, 200, 300, 400], abs=1)


@pytest.mark.parametrize("loss", ["kl", "log_variance"])
def test_losses_vanish_at_the_exact_drift(loss: str) -> None:
    """Gradients at the optimum are noise of the size of the step: Brownian motion, whose guide is exact."""
    one = tensor((1.0,))
    problem = Conditioned(FeynmanKac(lambda r: 0 * r.sum((-2, -1)), one), 0 * one, (Measurement(1.0, one, 1.0),))

    class Tilted(torch.nn.Module):
        def __init__(self, b: float) -> None:
            super().__init__()
            self.guide = Guide(problem)
            self.b = torch.nn.Parameter(torch.tensor(b).double())

        def forward(self, t: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
            return self.guide(t, r) + self.b

    gradients = []
    for b in (0.0, 0.5):
        drift = Tilted(b)
        F = free_energy(problem, drift, 8192, dt=1 / 64, generator=generator(), loss=loss)
        F.mean().backward()
        assert F.shape == (8192,)
        assert drift.b.grad is not None
        gradients.append(drift.b.grad.item())
    # F(b) = b^2 T / 2 + ..., of which b r_T tilts the rest: F = -log Z + b^2 / 2; its variance is b^2
    assert abs(gradients[0]) < 0.02
    assert gradients[1] == pytest.approx(0.5 if loss == "kl" else 1.0, rel=0.25)


def test_repeats_with_its_seed() -> None:
    problem = bridge_problem(fk.load_potential("harmonic"), 0.0, 1.0, 1.0)
    runs = [infer(problem, n_updates=2, n_paths=64, dt=0.25, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(runs[0].log_weight, runs[1].log_weight)
    assert not torch.equal(runs[0].log_weight, runs[2].log_weight)


def test_bad_input() -> None:
    potential = fk.load_potential("double_well")
    with pytest.raises(BadParameter, match="dynamics"):
        bridge_problem(potential, -1.0, 1.0, 1.0, dynamics="real")
    with pytest.raises(BadParameter, match="needs 1"):
        bridge_problem(potential, [0.0, 1.0], 1.0, 1.0)
    with pytest.raises(BadParameter, match="ring"):
        bridge_problem(fk.load_potential("cosine"), 0.0, 1.0, 1.0)
    with pytest.raises(BadParameter, match="loss"):
        infer(bridge_problem(potential, -1.0, 1.0, 1.0), loss="mse")
