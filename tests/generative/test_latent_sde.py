"""The latent SDE against a linear-Gaussian one, whose evidence and posterior are exact (Kalman smoother)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchsde
from torch import Tensor, nn

from fkdrift.densities.kernels import DiagonalGaussian
from fkdrift.errors import BadParameter
from fkdrift.generative.latent_sde import LatentSDE, Prior
from fkdrift.numerics.estimates import log_mean
from fkdrift.paths.evolution import Detached
from fkdrift.training.adam import minibatch_adam
from fkdrift.training.loop import fit
from tests.systems import generator

TIMES = (0.0, 0.25, 0.375, 0.75)
DT, SIGMA, NOISE, START = 1 / 32, 0.8, 0.3, 0.7


class Decay(nn.Module):
    """h(z) = -z."""

    def forward(self, z: Tensor) -> Tensor:
        return -z


def linear_model(noise: float = NOISE, **options: object) -> LatentSDE:
    """Two independent hidden coordinates, each seen directly with noise; the recognition model is not trained."""
    decoder = DiagonalGaussian(nn.Identity(), 2, scale=torch.full((2,), noise), learn_scale=False)
    prior = Prior(Decay(), torch.full((2,), SIGMA), learn_sigma=False)
    model = LatentSDE(TIMES, 2, 2, dt=DT, decoder=decoder, prior=prior, width=24, n_context=8, **options).double()
    model.start_log_scale.data.fill_(np.log(START))
    model.start_mean.requires_grad_(False)
    model.start_log_scale.requires_grad_(False)
    return model


def joint_covariance(times: np.ndarray) -> np.ndarray:
    """Cov[z(t), z(t')] of the Euler chain of one coordinate at multiples of DT."""
    steps = np.round(times / DT).astype(int)
    decay = 1 - DT
    variance = [START**2]
    for _ in range(steps.max()):
        variance.append(decay**2 * variance[-1] + SIGMA**2 * DT)
    first = np.minimum(steps[:, None], steps)
    return np.array(variance)[first] * decay ** np.abs(steps[:, None] - steps)


def exact_log_evidence(x: Tensor, noise: float = NOISE) -> float:
    """log p(x) of one series (time, 2)."""
    covariance = joint_covariance(np.array(TIMES)) + noise**2 * np.eye(len(TIMES))
    y = x.double().numpy()
    quadratic = (y * np.linalg.solve(covariance, y)).sum()
    return float(-quadratic / 2 - np.linalg.slogdet(2 * np.pi * covariance)[1])


def smoother(x: Tensor, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (time, 2) and variance (time,) of z given one series."""
    both = np.concatenate([times, TIMES])
    C, n = joint_covariance(both), len(times)
    gain = C[:n, n:] @ np.linalg.inv(C[n:, n:] + NOISE**2 * np.eye(len(TIMES)))
    return gain @ x.double().numpy(), np.diag(C[:n, :n] - gain @ C[n:, :n])


def series(n: int, seed: int = 0) -> Tensor:
    """Data of the linear model itself, (n, time, 2)."""
    C = joint_covariance(np.array(TIMES)) + NOISE**2 * np.eye(len(TIMES))
    L = torch.from_numpy(np.linalg.cholesky(C))
    return torch.einsum("st,ntd->nsd", L, torch.randn(n, len(TIMES), 2, generator=generator(seed)).double())


def scatter(model: LatentSDE, size: float) -> LatentSDE:
    """Random weights for the recognition model."""
    g = generator(9)
    for module in (model.control, model.first, model.encoder):
        for parameter in module.parameters():
            parameter.data += size * torch.randn(parameter.shape, generator=g).double()
    return model


@pytest.mark.parametrize("size", [0.0, 0.1])
def test_weights_average_to_the_evidence(size: float) -> None:
    """E_q[exp(-log_ratio)] = p(x), whatever the recognition model; of the Euler chain exactly."""
    model, x = scatter(linear_model(noise=1.0), size), series(1)
    with torch.no_grad():
        found = log_mean(-model.log_ratio(x, generator(), 10000)[:, 0])
    assert found.error < 0.05
    assert abs(found.deviation(exact_log_evidence(x[0], noise=1.0))) < 4


def test_what_was_not_observed_is_left_out() -> None:
    """The evidence of what was, as the exact Gaussian has it, whatever the recognition model makes of the gaps."""
    model, x = scatter(linear_model(noise=1.0), 0.1), series(1)
    x[0, 1, 0] = x[0, 2, 0] = x[0, 2, 1] = x[0, 3, 1] = torch.nan
    with torch.no_grad():
        found = log_mean(-model.log_ratio(x, generator(), 10000)[:, 0])
    exact = sum(
        float(-y @ np.linalg.solve(C, y) / 2 - np.linalg.slogdet(2 * np.pi * C)[1] / 2)
        for y, C in (_seen(x[0, :, d].numpy(), 1.0) for d in range(2))
    )
    assert found.error < 0.05
    assert abs(found.deviation(exact)) < 4


def _seen(y: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """What was observed of one coordinate, and its covariance."""
    seen = np.isfinite(y)
    covariance = joint_covariance(np.array(TIMES)) + noise**2 * np.eye(len(TIMES))
    return y[seen], covariance[np.ix_(seen, seen)]


def train(model: LatentSDE, loss: str, n_updates: int, learning_rate: float = 0.02) -> LatentSDE:
    data = series(512)
    method = minibatch_adam(
        model,
        lambda x, g: model.free_energy(x, g, loss=loss),
        data,
        n_updates=n_updates,
        learning_rate=learning_rate,
        batch_size=64,
    )
    for _ in fit(method, torch.empty(0), n_updates=n_updates, generator=generator(1)):
        pass
    return model


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "n_updates"), [("kl", 90), ("log_variance", 110)])
def test_recognition_finds_the_kalman_smoother(loss: str, n_updates: int) -> None:
    """Both losses close the gap to the evidence, and the weighted hidden paths have the exact mean and variance."""
    model, x = linear_model(), series(32, seed=7)
    exact = torch.tensor([exact_log_evidence(one) for one in x])
    before = (exact + model.log_ratio(x, generator(2), 64).mean(0)).mean().item()
    train(model, loss, n_updates, learning_rate=0.04)
    with torch.no_grad():
        gap = (exact + model.log_ratio(x, generator(2), 64).mean(0)).mean().item()
        weighted = model.log_evidence(x, 256, generator(3)) - exact
    assert before > 2
    assert 0 < gap < 0.4
    assert abs(weighted.mean()) < 0.03
    path, log_weight = model.posterior(x[0], 5000, generator(4))
    w = log_weight.softmax(0)
    z = path.positions[..., 0]
    mean = torch.einsum("b,tbd->td", w, z)
    variance = torch.einsum("b,tbd->td", w, z.square()) - mean.square()
    expected, spread = smoother(x[0], path.times.numpy())
    tolerance = 5 * (w.square().sum() * torch.tensor(spread).max()).sqrt()
    assert (mean - torch.tensor(expected)).abs().max() < tolerance
    assert (variance - torch.tensor(spread)[:, None]).abs().max() < 0.03


def test_learning_everything_raises_the_evidence() -> None:
    """Prior, decoder and recognition model from scratch: the free energy of held-out series falls."""
    model = LatentSDE(TIMES, 2, 2, dt=0.125, width=16, n_context=8).double()
    x = series(64, seed=3)
    before = model.free_energy(x, generator(0), n_samples=8).mean().item()
    for loss in ("kl", "log_variance"):
        train(model, loss, 25)
    after = model.free_energy(x, generator(0), n_samples=8).mean().item()
    assert after < before - 1


@pytest.mark.parametrize("loss", ["kl", "log_variance"])
def test_every_parameter_learns(loss: str) -> None:
    model = LatentSDE(TIMES, 2, 3, dt=0.125, width=16, n_context=8).double()
    scatter(model, 0.1)
    x = series(8)
    x[0, 1, 0] = x[1, 2, 1] = torch.nan
    model.free_energy(x, generator(), loss=loss).mean().backward()
    still = {name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().sum() == 0}
    assert still == ({"prior.log_sigma"} if loss == "log_variance" else set())


def test_log_variance_surrogate_has_the_gradient_of_the_variance() -> None:
    """For the recognition model, the gradient of Var_k[log ratio] at fixed paths, by a finite difference in one weight.

    Paths are held fixed by drawing them once: along them log q - log p is a function of the weight alone, and
    d/dw of it is int d_w u . dB.
    """
    model, x = scatter(linear_model(), 0.1), series(4)
    model.free_energy(x, generator(6), loss="log_variance", n_samples=8).mean().backward()
    weight = model.control.network.last.bias
    ratio = model.log_ratio(x, generator(6), 8, gradient=Detached())
    slopes = torch.stack(
        [torch.autograd.grad(one, weight, retain_graph=True)[0][0] for one in ratio.flatten()]
    ).reshape(ratio.shape)
    covariance = ((ratio - ratio.mean(0)) * slopes).sum(0) / (len(ratio) - 1)
    assert weight.grad is not None
    assert weight.grad[0].item() == pytest.approx(2 * covariance.mean().item(), rel=1e-9)


def test_adjoint_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """With adjoint=True the same gradient up to the step, encoder included, on the same Brownian motion."""
    x, gradients = series(32), []
    for adjoint in (True, False):
        model = linear_model(adjoint=adjoint)
        model.dt = 1 / 64
        if not adjoint:
            model.free_energy = lambda x, g, model=model: model.log_ratio(x, g).mean(0)  # type: ignore[method-assign]

            def stored(batch: int, size: int, like: Tensor, g: torch.Generator, *options: object) -> object:
                seed = int(torch.randint(2**31, (), generator=g))
                return torchsde.BrownianInterval(
                    0.0, TIMES[-1], size=(batch, size), dtype=like.dtype, entropy=seed, dt=1 / 64
                )

            monkeypatch.setattr("fkdrift.paths.evolution.Increments", stored)
        else:

            def seeded(walkers: Tensor, times: Tensor, dt: float, g: torch.Generator) -> object:
                seed = int(torch.randint(2**31, (), generator=g))
                size = (len(walkers), walkers[0].numel())
                return torchsde.BrownianInterval(0.0, TIMES[-1], size=size, dtype=walkers.dtype, entropy=seed, dt=dt)

            monkeypatch.setattr("fkdrift.paths.evolution._stored_noise", seeded)
        scatter(model, 0.1)
        model.free_energy(x, generator(2)).mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert len(gradients[0]) == len(gradients[1])
    assert (gradients[0] - gradients[1]).norm() < 0.1 * gradients[1].norm()


@pytest.mark.parametrize("adjoint", [False, True])
def test_repeats_with_its_seed(adjoint: bool) -> None:
    state = torch.get_rng_state()
    runs = []
    for _ in range(2):
        model = LatentSDE((0.5, 1.0), 1, 1, adjoint=adjoint, seed=3).double()
        x = torch.ones(3, 2, 1).double()
        F = model.free_energy(x, generator(1))
        F.mean().backward()
        runs.append((F.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])))
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("n", [1, 7])
def test_shapes(n: int) -> None:
    model, x = linear_model(), series(n)
    assert model.log_ratio(x, generator(), 3).shape == (3, n)
    assert model.free_energy(x.flatten(1), generator()).shape == (n,)
    path, seen = model.generate(n, generator())
    assert seen.shape == (n, 4, 2)
    assert path.positions.shape == (25, n, 2, 1)


def test_generated_series_have_the_covariance_of_the_model() -> None:
    _, seen = linear_model().generate(20000, generator())
    found = torch.cov(seen[:, :, 0].T)
    expected = joint_covariance(np.array(TIMES)) + NOISE**2 * np.eye(4)
    assert (found - torch.tensor(expected)).abs().max() < 0.03


def test_bad_input() -> None:
    with pytest.raises(BadParameter, match="increase"):
        LatentSDE((1.0, 0.5), 1, 1)
    with pytest.raises(BadParameter, match="positive"):
        LatentSDE((0.5, 1.0), 0, 1)
    model = linear_model()
    with pytest.raises(BadParameter, match="do not fit"):
        model.free_energy(torch.zeros(3, 4, 1).double(), generator())
    with pytest.raises(BadParameter, match="infinite"):
        model.free_energy(torch.full((3, 4, 2), float("inf")).double(), generator())
    with pytest.raises(BadParameter, match="at least 2"):
        model.free_energy(series(2), generator(), loss="log_variance", n_samples=1)
    with pytest.raises(BadParameter, match="loss"):
        model.free_energy(series(2), generator(), loss="mse")
