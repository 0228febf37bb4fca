"""Kernels are normalised, sum over components, and draw what they say."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from fkdrift.densities.density import Kernel
from fkdrift.densities.kernels import (
    BernoulliDecoder,
    BetaBinomial,
    BetaBinomialDecoder,
    CategoricalDecoder,
    DiagonalGaussian,
    DiscreteLaplace,
    FullGaussian,
    draw,
    expectation,
    fold_triangle,
    standard_normal_kl,
    unit_kl,
    variance,
)
from fkdrift.errors import BadParameter
from fkdrift.numerics.networks import seeded

DISCRETE = [
    (BernoulliDecoder, 2, ()),
    (CategoricalDecoder, 5, (5,)),
    (BetaBinomialDecoder, 5, (5,)),
]


def kernels(size, n_in=3):
    """One of every kind, in double precision."""
    with seeded(0):
        made = [kind(nn.Linear(n_in, kind.n_outputs(size)), size) for kind in (DiagonalGaussian, FullGaussian)]
        made.append(DiagonalGaussian(nn.Linear(n_in, size), size, scale=torch.tensor(0.3)))
        made.append(DiagonalGaussian(nn.Linear(n_in, size), size, scale=torch.rand(size) + 0.1, learn_scale=False))
        made.append(FullGaussian(nn.Linear(n_in, size), size, scale_tril=random_triangle(size)))
        for kind, _, more in DISCRETE:
            made.append(kind(nn.Linear(n_in, kind.n_outputs(size, *more)), size, *more))
    return [kernel.double() for kernel in made]


def random_triangle(size):
    L = torch.tril(torch.randn(size, size, generator=torch.Generator().manual_seed(5)))
    return L - L.diagonal().diag() + (L.diagonal().abs() + 0.5).diag()


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("size", [1, 4])
def test_log_prob_has_one_axis(batch, size):
    g = torch.Generator().manual_seed(0)
    for kernel in kernels(size):
        cond = torch.randn(batch, 3, dtype=torch.float64, generator=g)
        x = kernel.rsample(cond, g)
        assert isinstance(kernel, Kernel)
        assert x.shape == (batch, size)
        log_p = kernel.log_prob(x, cond)
        assert log_p.shape == (batch,)
        singles = torch.cat([kernel.log_prob(x[k : k + 1], cond[k : k + 1]) for k in range(batch)])
        assert torch.allclose(log_p, singles, atol=1e-12)


@pytest.mark.parametrize(("kind", "n_levels", "more"), DISCRETE)
def test_discrete_decoders_sum_to_one_and_draw_their_probabilities(kind, n_levels, more):
    with seeded(1):
        kernel = kind(nn.Linear(3, kind.n_outputs(1, *more)), 1, *more).double()
    cond = 2 * torch.randn(1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    levels = torch.arange(n_levels, dtype=torch.float64)[:, None]
    p = kernel.log_prob(levels, cond.expand(n_levels, 3)).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-12)
    n = 200_000
    drawn = kernel.rsample(cond.expand(n, 3), torch.Generator().manual_seed(3))[:, 0]
    frequency = torch.stack([(drawn == level).double().mean() for level in levels[:, 0]])
    z = (frequency - p) / (p * (1 - p) / n).sqrt().clamp_min(1e-12)
    assert z.abs().max() < 4.5
    mean, square = (p @ levels**power for power in (1, 2))
    assert torch.allclose(expectation(kernel(cond))[0], mean, rtol=1e-10)
    assert torch.allclose(variance(kernel(cond))[0], square - mean**2, rtol=1e-10)


def test_beta_binomial_is_the_mixture_it_is_defined_as():
    a, b = torch.tensor([0.7], dtype=torch.float64), torch.tensor([2.5], dtype=torch.float64)
    distribution = BetaBinomial(16, a, b)
    k = distribution.enumerate_support()
    s = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    p = s**3 * (10 - 15 * s + 6 * s**2)
    jacobian = 30 * s**2 * (1 - s) ** 2
    weight = torch.distributions.Beta(a, b).log_prob(p).exp() * jacobian
    binomial = torch.distributions.Binomial(16, probs=p).log_prob(k).exp()
    assert torch.allclose(distribution.log_prob(k)[:, 0].exp(), (binomial * weight).mean(1), atol=1e-7)
    assert (distribution.log_prob(k).exp() * k).sum().item() == pytest.approx(distribution.mean.item())


def test_twice_the_components_twice_the_log_probability():
    x, mean = torch.tensor([[0.3]], dtype=torch.float64), torch.zeros(1, 1).double()
    for copies in (1, 2, 5):
        network = nn.Linear(1, 2 * copies).double()
        nn.init.zeros_(network.weight), nn.init.zeros_(network.bias)
        value = DiagonalGaussian(network, copies).log_prob(x.expand(1, copies), mean).item()
        assert value == pytest.approx(copies * (-0.045 - math.log(2 * math.pi) / 2), abs=1e-12)


def test_covariance_of_draws():
    L = random_triangle(3).double()
    network = nn.Linear(1, 3).double()
    kernel = FullGaussian(network, 3, scale_tril=L)
    n = 200_000
    x = kernel.rsample(torch.zeros(n, 1).double(), torch.Generator().manual_seed(0)).detach()
    S = L @ L.T
    error = ((S.diagonal()[:, None] * S.diagonal() + S**2) / n).sqrt()
    assert ((torch.cov(x.T) - S) / error).abs().max() < 4
    assert torch.allclose(kernel(torch.zeros(1, 1).double()).covariance_matrix[0], S, atol=1e-12)


def test_triangle_has_its_numbers_in_place():
    numbers = torch.tensor([0.0, math.log(2), math.log(3), 5.0, 6.0, 7.0])
    expected = torch.tensor([[1.0, 0, 0], [10.0, 2, 0], [18.0, 21.0, 3]])
    assert torch.allclose(fold_triangle(numbers, 3), expected)


def test_closed_form_kl_is_the_divergence():
    for size in (1, 5):
        for kernel in kernels(size)[:5]:
            q = kernel(torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
            full = q if isinstance(q, MultivariateNormal) else MultivariateNormal(q.mean, torch.diag_embed(q.variance))
            prior = MultivariateNormal(torch.zeros(size).double(), torch.eye(size).double())
            kl = standard_normal_kl(q)
            assert kl.shape == (6,)
            assert torch.allclose(kl, kl_divergence(full, prior), atol=1e-10)
            assert (kl > 0).all()
            z = draw(MultivariateNormal(full.loc.expand(20_000, 6, size), scale_tril=full.scale_tril),
                     torch.Generator().manual_seed(2))  # fmt: skip
            sampled = full.log_prob(z) - prior.log_prob(z)
            assert ((sampled.mean(0) - kl) / (sampled.std(0) / 20_000**0.5)).abs().max() < 4


def test_kl_vanishes_at_the_prior():
    q = Independent(Normal(torch.zeros(2, 3), torch.ones(2, 3)), 1)
    assert torch.equal(standard_normal_kl(q), torch.zeros(2))
    assert torch.equal(unit_kl(q), torch.zeros(2, 3))


def test_unit_kls_add_up_for_a_diagonal_covariance_only():
    diagonal, full = kernels(4)[:2]
    cond = torch.ones(2, 3).double()
    assert torch.allclose(unit_kl(diagonal(cond)).sum(-1), standard_normal_kl(diagonal(cond)), atol=1e-12)
    assert (unit_kl(full(cond)).sum(-1) < standard_normal_kl(full(cond))).all()


def test_gradients_through_draws_are_those_of_the_mean():
    """E (z - a)^2 = (m - a)^2 + s^2: slopes 2 (m - a) and 2 s."""
    m, s = (
        torch.tensor([0.5], dtype=torch.float64, requires_grad=True),
        torch.tensor([0.8], dtype=torch.float64, requires_grad=True),
    )
    n = 400_000
    z = draw(Normal(m.expand(n), s.expand(n)), torch.Generator().manual_seed(0))
    (z - 2).square().mean().backward()
    assert m.grad.item() == pytest.approx(2 * (0.5 - 2), abs=4 * 2 * 0.8 / n**0.5)
    assert s.grad.item() == pytest.approx(2 * 0.8, abs=4 * 5 / n**0.5)


def test_draws_repeat_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    for kernel in kernels(3):
        cond = torch.ones(4, 3).double()
        first, second = (kernel.rsample(cond, torch.Generator().manual_seed(7)) for _ in range(2))
        assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


def test_unknown_distributions_are_refused():
    with pytest.raises(BadParameter, match="Poisson"):
        draw(torch.distributions.Poisson(torch.ones(2)), torch.Generator())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_discrete_laplace_is_normalised_and_that_of_the_density(dtype):
    loc = torch.tensor([-30.0, 0.0, 3.3, 100.0, 254.9, 400.0], dtype=dtype, requires_grad=True)
    scale = torch.tensor([0.005, 0.5, 3.0, 40.0, 2.0, 20.0], dtype=dtype, requires_grad=True)
    k = torch.arange(256, dtype=dtype)[:, None]
    log_p = DiscreteLaplace(255, loc, scale).log_prob(k)
    torch.testing.assert_close(log_p.exp().sum(0), torch.ones_like(loc))
    density = torch.distributions.Laplace(loc, scale)
    inner = density.cdf(k[1:-1] + 0.5) - density.cdf(k[1:-1] - 0.5)
    torch.testing.assert_close(log_p[1:-1].exp(), inner, rtol=0, atol=2e-7)
    gradients = torch.autograd.grad(log_p.sum(), (loc, scale))
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    spread = DiscreteLaplace(20, torch.full((50_000,), 7.3, dtype=dtype), torch.full((50_000,), 2.0, dtype=dtype))
    drawn = draw(spread, torch.Generator().manual_seed(0))
    levels = torch.arange(21, dtype=dtype)
    expected = DiscreteLaplace(20, spread.loc[:21], spread.scale[:21]).log_prob(levels).exp()
    counts = torch.bincount(drawn.long(), minlength=21) / 50_000
    assert ((counts - expected).abs() < 5 * (expected / 50_000).sqrt() + 1e-5).all()
