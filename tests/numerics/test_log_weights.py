"""The bounds on a Gaussian whose evidence is known, and their limits."""

from __future__ import annotations

import math

import pytest
import torch

from fkdrift.densities.density import score
from fkdrift.errors import BadParameter
from fkdrift.numerics.log_weights import effective_sample_size, elbo, iwae, log_variance

A, B = 1.3, 0.7
"""Of z ~ N(0, 1), x | z ~ N(z, 1) the posterior is N(x/2, 1/2); q = N(x/2 + A - 1, B/2) is wrong in mean and width."""


def log_ratios(k, x, generator, mean=None, variance=None):
    mean = x / 2 + A - 1 if mean is None else mean
    q = torch.distributions.Normal(mean, math.sqrt(variance or B / 2))
    z = mean + q.stddev * torch.randn(k, len(x), generator=generator, dtype=x.dtype)
    normal = torch.distributions.Normal(torch.zeros((), dtype=x.dtype), 1.0)
    return q.log_prob(z) - normal.log_prob(z) - normal.log_prob(x - z)


@pytest.fixture
def x():
    return torch.tensor([-1.0, 0.3, 2.0], dtype=torch.float64)


def evidence(x):
    return torch.distributions.Normal(torch.zeros((), dtype=x.dtype), math.sqrt(2)).log_prob(x)


def test_elbo_misses_the_evidence_by_the_divergence(x):
    exact = torch.distributions.Normal(x / 2, math.sqrt(0.5))
    q = torch.distributions.Normal(x / 2 + A - 1, math.sqrt(B / 2))
    gap = torch.distributions.kl_divergence(q, exact)
    log_ratio = log_ratios(200_000, x, torch.Generator().manual_seed(0))
    error = log_ratio.std(0) / math.sqrt(len(log_ratio))
    z = (-log_ratio.mean(0) - (evidence(x) - gap)) / error
    assert z.abs().max() < 4
    assert elbo(log_ratio).item() == pytest.approx(-log_ratio.mean().item(), abs=1e-12)


def test_iwae_grows_to_the_evidence(x):
    log_ratio = log_ratios(100_000, x, torch.Generator().manual_seed(1))
    bounds = [iwae(part).mean() for k in (1, 4, 16) for part in [log_ratio.view(k, -1)]]
    assert bounds[0] < bounds[1] < bounds[2] < evidence(x).mean()
    fraction = effective_sample_size(-log_ratio)
    error = ((1 / fraction - 1) / len(log_ratio)).sqrt()
    assert ((iwae(log_ratio) - evidence(x)) / error).abs().max() < 4
    assert torch.equal(iwae(log_ratio[:1]), -log_ratio[0])


def test_exact_posterior_has_no_variance(x):
    log_ratio = log_ratios(50, x, torch.Generator().manual_seed(2), mean=x / 2, variance=0.5)
    assert torch.allclose(log_ratio, -evidence(x).expand(50, 3), atol=1e-13)
    assert log_variance(log_ratio) < 1e-26
    assert effective_sample_size(-log_ratio).min() > 1 - 1e-12


def test_effective_sample_size_of_known_weights():
    weights = torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64)
    assert effective_sample_size(weights.log() + 700).item() == pytest.approx(16 / 18, abs=1e-12)
    alone = torch.tensor([0.0, -math.inf, -math.inf])
    assert effective_sample_size(alone).item() == pytest.approx(1 / 3, abs=1e-7)


def test_log_variance_of_paths_and_of_data():
    log_ratio = torch.tensor([[0.0, 0.0], [2.0, 4.0]])
    assert log_variance(log_ratio).item() == pytest.approx((2 + 8) / 2)
    assert log_variance(log_ratio[:, 1]).item() == pytest.approx(8)


def test_iwae_wants_an_axis_of_samples():
    with pytest.raises(BadParameter, match=r"\(sample, batch\)"):
        iwae(torch.zeros(5))


def test_score_of_a_density_is_its_slope_and_differentiable():
    class Normal:
        smoothness = 1000

        def sample(self, n, generator):
            return torch.randn(n, 2, generator=generator)

        def log_prob(self, x):
            return -x.square().sum(-1) / 2 - math.log(2 * math.pi)

        def score(self, x):
            return score(self, x)

    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    slope = score(Normal(), x)
    assert torch.equal(slope, -x)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    assert torch.equal(curvature, -torch.ones_like(x))
    with torch.no_grad():
        assert torch.equal(score(Normal(), x.detach()), -x)
