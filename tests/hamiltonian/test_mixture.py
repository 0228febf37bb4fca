"""Mixtures of Gaussians: their algebra, and what is found of wells from nothing but values of V."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

import fkdrift as fk
from fkdrift.hamiltonian.mixture import GaussianMixture, LogMixture, fit_mixtures
from fkdrift.hamiltonian.potential import FunctionPotential
from fkdrift.hamiltonian.preparation import prepare
from tests.systems import generator


def two(distance: float = 1.0) -> GaussianMixture:
    covariances = np.array([[[1.0, 0.3], [0.3, 0.5]], [[0.4, -0.1], [-0.1, 0.9]]])
    return GaussianMixture(np.array([0.7, 0.3]), np.array([[-distance, 0.0], [distance, 0.5]]), covariances)


def test_the_square_of_a_mixture_is_a_mixture():
    mixture = two()
    x = np.stack(np.meshgrid(*[np.linspace(-7, 7, 281)] * 2, indexing="ij"), -1)
    parts = zip(mixture.weights, mixture.centres, mixture.covariances, strict=True)
    density = sum(w * multivariate_normal(c, C).pdf(x) for w, c, C in parts) ** 2
    density /= density.sum()
    squared = zip(*mixture.square(), strict=True)
    expected = sum(w * multivariate_normal(c, C).pdf(x) for w, c, C in squared)
    np.testing.assert_allclose(density, expected / expected.sum(), atol=1e-12)
    mean, deviation = mixture.moments()
    np.testing.assert_allclose(mean, np.einsum("ij,ijk->k", density, x), atol=1e-9)
    np.testing.assert_allclose(deviation**2, np.einsum("ij,ijk->k", density, (x - mean) ** 2), atol=1e-9)
    drawn = mixture.draw(20_000, np.random.default_rng(0))
    assert (np.abs(drawn.mean(0) - mean) < 4 * deviation / 20_000**0.5).all()


def test_log_mixture_is_the_logarithm():
    mixture, r = two(), torch.randn(5, 1, 2, generator=generator(), dtype=torch.float64)
    parts = zip(mixture.weights, mixture.centres, mixture.covariances, strict=True)
    density = sum(w * multivariate_normal(c, C).pdf(r[:, 0].numpy()) for w, c, C in parts)
    np.testing.assert_allclose(LogMixture.of(mixture, ((0,),))(r).value, np.log(density), atol=1e-12)


def wells(r: torch.Tensor) -> torch.Tensor:
    """Two wells of equal depth, the second three times as stiff."""
    first, second = (r + 3).square().sum((1, 2)) / 2, 9 * (r - 3).square().sum((1, 2)) / 2 - 3 * r[0].numel()
    return torch.minimum(first, second)


def test_two_stiff_wells_are_both_found():
    """E_0 of both in d coordinates is d / 2 and 3 d / 2 - 3 d: the second wins, by 2 d."""
    prepared = prepare(FunctionPotential(wells, n_dims=3))
    assert np.allclose(prepared.centre, 3, atol=0.1)
    assert np.allclose(prepared.width, (1 / 6) ** 0.5, rtol=0.1)


def symmetric(r: torch.Tensor) -> torch.Tensor:
    """Two Gaussian wells far apart in four dimensions."""
    x = r[:, 0]
    left, right = (-8 * (-(x - c).square().sum(-1) / 2).exp() for c in (-1.5, 1.5))
    return left + right + 0.1 * x.square().sum(-1)


def test_training_with_two_wells_goes_down():
    """The path metric alone cannot see the share of a well: steps in it would grow without limit."""
    potential = FunctionPotential(symmetric, n_dims=4)
    settings = fk.Settings(n_updates=16, n_walkers=512, n_path_blocks=1, n_blocks=32, project=False)
    state = fk.solve(potential, settings=settings, progress=False, seed=0)
    (log_mixture,) = state.system.trial_function.terms
    assert isinstance(log_mixture, LogMixture)
    assert {tuple(c.sign().tolist()) for c in log_mixture.centres[log_mixture.log_weights.exp() > 0.01]} == {
        (-1.0,) * 4,
        (1.0,) * 4,
    }
    E_0 = -2.1847207  # fk.diagonalise
    assert E_0 - 3 * state.energy.error < state.energy.mean < E_0 + 0.05
    start = state.system.initial_walkers(4096, torch.Generator().manual_seed(1))
    left, left_at_start = ((r.mean((1, 2)) < 0).double().mean() for r in (state.walkers, start))
    assert abs(left - left_at_start) < 0.1


def test_identical_particles_share_an_orbital():
    def V(r: np.ndarray) -> np.ndarray:
        return (((r[..., 0] ** 2 - 4) ** 2) / 4).sum(1)

    start, rng = np.random.default_rng(0).normal(size=(2000, 3, 1)), np.random.default_rng(1)
    ((mixture, parts),) = fit_mixtures(V, start, np.ones(3), 1.0, [(0, 1, 2)], rng)
    assert parts == ((0,), (1,), (2,))
    assert mixture.centres.min() < -1.5
    assert mixture.centres.max() > 1.5


@pytest.mark.parametrize("lost", [lambda r: np.full(len(r), np.nan), lambda r: np.full(len(r), np.inf)])
def test_a_cloud_that_is_lost_gives_no_mixture(lost):
    start = np.random.default_rng(0).normal(size=(500, 1, 3))
    assert fit_mixtures(lost, start, np.ones(1), 1.0, [(0,)], np.random.default_rng(0)) == []
