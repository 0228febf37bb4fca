"""Entropy production of linear drifts, where it is known exactly, and of gradient drifts, where it vanishes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fkdrift.errors import BadParameter
from fkdrift.numerics.differentiation import field_and_divergence
from fkdrift.paths.entropy_production import entropy_production, gaussian_score
from fkdrift.paths.process import FeynmanKac, Process
from tests.systems import generator

DOUBLE = {"dtype": torch.float64}


def swirl(omega: float, sigma: float = 1.0) -> Process:
    """dr = (-1 + omega J) r dt + sigma dB in the plane: p = N(0, sigma^2 / 2), rate 2 omega^2 for any sigma."""
    J = torch.tensor([[0.0, -1.0], [1.0, 0.0]], **DOUBLE)
    reference = FeynmanKac(lambda r: 0 * r.sum((-2, -1)), torch.full((1, 1), sigma, **DOUBLE))
    return Process(lambda r: -r + omega * r @ J.T, reference)


def samples(n: int, sigma: float = 1.0, seed: int = 0) -> Tensor:
    return sigma * torch.randn(n, 1, 2, generator=generator(seed), **DOUBLE) / 2**0.5


@pytest.mark.parametrize("sigma", [1.0, 0.5])
@pytest.mark.parametrize("omega", [0.5, 2.0])
def test_a_rotation_produces_entropy(omega: float, sigma: float) -> None:
    r = samples(20000, sigma)
    exact_score = lambda x: -2 * x / sigma**2  # noqa: E731
    for score in (None, exact_score):
        found = entropy_production(swirl(omega, sigma), r, score)
        assert found.error < 0.05 * 2 * omega**2 + 0.05
        assert abs(found.deviation(2 * omega**2)) < 4


def test_gradient_drifts_produce_none() -> None:
    r = samples(20000)
    assert entropy_production(swirl(0.0), r, lambda x: -2 * x).mean == 0
    assert abs(entropy_production(swirl(0.0), r).deviation(0.0)) < 4


def test_fitted_gaussian_score() -> None:
    """Fitted to samples of a correlated Gaussian, the score is that of the Gaussian within its own error."""
    L = torch.tensor([[1.0, 0.0], [0.6, 0.5]], **DOUBLE)
    r = (torch.randn(50000, 1, 2, generator=generator(), **DOUBLE) @ L.T) + 0.3
    x = samples(10, seed=3)
    expected = -(x - 0.3).flatten(1) @ torch.linalg.inv(L @ L.T)
    assert (gaussian_score(r)(x).flatten(1) - expected).abs().max() < 0.15
    found = entropy_production(swirl(1.0), s := samples(20000), gaussian_score(s))
    assert found.mean == pytest.approx(2.0, abs=4 * found.error + 0.02)


def test_two_heat_baths() -> None:
    """Two coupled particles with different noise: v_i = -r_i + k r_j, a gradient of nothing for sigma_1 != sigma_2.

    The covariance C solves A C + C A^T = D with D = diag(sigma^2), and the rate is
    tr[2 D^-1 (A - D C^-1 / 2) C (A - D C^-1 / 2)^T] for v = -A r.
    """
    A = torch.tensor([[1.0, -0.5], [-0.5, 1.0]], **DOUBLE)
    sigma = torch.tensor([[1.0], [2.0]], **DOUBLE)
    D = sigma[:, 0].square().diag()
    eye = torch.eye(2, **DOUBLE)
    C = torch.linalg.solve(torch.kron(A, eye) + torch.kron(eye, A), D.flatten()).reshape(2, 2)
    current = A - D @ torch.linalg.inv(C) / 2
    exact = 2 * torch.trace(torch.linalg.inv(D) @ current @ C @ current.T)
    assert exact > 0.1
    r = (torch.randn(40000, 2, generator=generator(), **DOUBLE) @ torch.linalg.cholesky(C).T)[:, :, None]
    process = Process(lambda x: -(x[:, :, 0] @ A.T)[:, :, None], FeynmanKac(lambda x: 0 * x.sum((-2, -1)), sigma))
    precision = torch.linalg.inv(C)
    for score in (None, lambda x: -(x[:, :, 0] @ precision)[:, :, None]):
        assert abs(entropy_production(process, r, score).deviation(exact.item())) < 4


def test_divergence() -> None:
    process = swirl(1.0)
    process = Process(lambda r: r.pow(3) + r.flip(-1), process.reference)
    r = samples(5)
    v, divergence = field_and_divergence(process.velocity, r)
    torch.testing.assert_close(v, r.pow(3) + r.flip(-1))
    torch.testing.assert_close(divergence, 3 * r.square().sum((-2, -1)))


def test_too_few_samples() -> None:
    with pytest.raises(BadParameter, match="at least 2"):
        entropy_production(swirl(1.0), samples(1))
    with pytest.raises(BadParameter, match="covariance"):
        gaussian_score(samples(2))
