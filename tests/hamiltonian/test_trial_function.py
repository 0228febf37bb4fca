"""Terms of a reference: their closed-form derivatives, and what each is for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fkdrift.hamiltonian.mixture import GaussianMixture, LogMixture
from fkdrift.hamiltonian.trial_function import (
    Cusp,
    Envelope,
    Gaussian,
    Hole,
    Logarithm,
    LogSum,
    OneBody,
    Pair,
    Smooth,
    TrialFunction,
)

POINTS = ((0.0, 0.0, -0.7), (0.0, 0.0, 0.7))
RADIALS = [Cusp(-2.0, 0.3), Cusp(0.5), Envelope(1.3, 0.8), Envelope(-0.7, 3.0), Logarithm(2.0), Hole(2.3, 0.7)]


def mixture(size: int) -> GaussianMixture:
    """Three correlated Gaussians in `size` coordinates."""
    rng = np.random.default_rng(size)
    root = rng.normal(size=(3, size, size))
    covariances = root @ root.transpose(0, 2, 1) / size + 0.5 * np.eye(size)
    return GaussianMixture(np.array([0.5, 0.3, 0.2]), rng.normal(size=(3, size)), covariances)


TERMS = [
    LogMixture.of(mixture(9), ((0, 1, 2),)),
    LogMixture.of(mixture(3), ((0,), (2,))),
    LogMixture.of(mixture(6), ((2, 0),)),
    Gaussian(((0.1, -0.2, 0.3),), ((0.5, 1.0, 2.0),)),
    Gaussian(((0.0,) * 3, (1.0,) * 3, (2.0,) * 3), ((1.0,) * 3, (0.5,) * 3, (0.7,) * 3)),
    *(OneBody(radial, (0.2, 0.0, -0.3)) for radial in RADIALS),
    *(Pair(radial) for radial in RADIALS),
    LogSum(Envelope(-1.0, 0.6), POINTS),
    LogSum(Cusp(-1.0), POINTS),
    Smooth(lambda r: (r.square().sum((-2, -1)) + r[:, 0, 0] * r[:, 1, 1] ** 3).sin()),
]


def walkers(batch=6):
    return torch.randn(batch, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("radial", RADIALS, ids=repr)
def test_radial_derivatives(radial):
    d = torch.linspace(0.05, 4, 50, dtype=torch.float64, requires_grad=True)
    w, slope, curvature = radial(d)
    (first,) = torch.autograd.grad(w.sum(), d, create_graph=True)
    second = torch.autograd.grad(first.sum(), d)[0] if first.requires_grad else torch.zeros_like(d)
    torch.testing.assert_close(slope.expand_as(d), first)
    torch.testing.assert_close(curvature.expand_as(d), second)


@pytest.mark.parametrize("term", TERMS, ids=lambda term: type(term).__name__)
def test_term_derivatives_against_autograd(term):
    r = walkers().requires_grad_()
    value, gradient, laplacian = TrialFunction((term,)).derivatives(r)
    torch.testing.assert_close(term.value(r), value)
    (expected,) = torch.autograd.grad(value.sum(), r, create_graph=True)
    second = torch.zeros_like(r)
    for i in range(3):
        for k in range(3):
            if expected.requires_grad:
                second[:, i, k] = torch.autograd.grad(expected[:, i, k].sum(), r, retain_graph=True)[0][:, i, k]
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(laplacian, second.sum(-1))


def test_sum_of_terms():
    r = walkers()
    parts = [TrialFunction((term,)).derivatives(r) for term in TERMS]
    for total, *each in zip(TrialFunction(tuple(TERMS)).derivatives(r), *parts, strict=True):
        torch.testing.assert_close(total, sum(each))


def test_gaussian_is_the_square_root_of_a_normal_density():
    r, width = walkers(), 0.6
    W = TrialFunction((Gaussian(((0.3,) * 3,), ((width,) * 3,)),))
    log_density = torch.distributions.Normal(0.3, width).log_prob(r).sum((-2, -1))
    difference = 2 * W(r) - log_density
    torch.testing.assert_close(difference, difference[:1].expand_as(difference))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_smooth_terms_have_no_gradient_history_unless_asked(dtype):
    term = Smooth(lambda r: -r.square().sum((-2, -1)))
    value, gradient, laplacian = term(walkers().to(dtype))
    assert not any(x.requires_grad for x in (value, gradient, laplacian))
    torch.testing.assert_close(laplacian, torch.full_like(laplacian, -6.0))


def test_derivatives_are_finite_where_particles_meet():
    r = torch.zeros(1, 2, 3, dtype=torch.float64)
    for term in (Pair(Cusp(0.5, 1.0)), OneBody(Cusp(-1.0), (0.0, 0.0, 0.0)), LogSum(Envelope(-1.0), POINTS)):
        assert all(torch.isfinite(x).all() for x in term(r))


def test_logsum_takes_apart_what_two_cusps_join():
    """Close to A, with B far away, W is the atom's -r_A: no slope is left from B."""
    far = ((0.0, 0.0, -8.0), (0.0, 0.0, 8.0))
    W = TrialFunction((OneBody(Cusp(-1.0), far[0]), OneBody(Cusp(-1.0), far[1]), LogSum(Envelope(-1.0, 0.5), far)))
    r = torch.tensor([[[0.0, 0.3, -8.0]], [[0.0, 0.3, -8.4]]], dtype=torch.float64)
    gradient = W.derivatives(r).gradient[:, 0]
    d = torch.tensor([0.3, math.hypot(0.3, 0.4)], dtype=torch.float64)
    expected = -(r[:, 0] - r.new_tensor(far[0])) / d[:, None]
    torch.testing.assert_close(gradient, expected, atol=3e-2, rtol=0)
