"""Diffusion models: bounds equal to closed forms on Gaussian data, samplers that keep densities, what is learned."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from fkdrift.errors import BadParameter
from fkdrift.generative.chain import generate, log_ratio
from fkdrift.generative.diffusion import DDPM, TimeNetwork, cosine_schedule, linear_schedule
from fkdrift.generative.reverse_diffusion import ancestral, flow_log_prob, multistep, probability_flow, reverse_sde
from fkdrift.numerics.estimates import from_walkers
from fkdrift.numerics.networks import seeded
from fkdrift.training.adam import minibatch_adam
from fkdrift.training.loop import fit

UNIT = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
"""Data of mean 0 and scale 1: z_0 = x."""

SCHEDULES = {"linear": linear_schedule, "cosine": cosine_schedule}


class ExactGaussian(nn.Module):
    """E[w | z] for independent N(0, s^2) components."""

    def __init__(self, s: float | Tensor) -> None:
        super().__init__()
        self.variance = torch.as_tensor(s, dtype=torch.float64) ** 2

    def forward(self, z: Tensor, phi: Tensor) -> Tensor:
        cos, sin = phi.cos()[:, None], phi.sin()[:, None]
        return cos * sin * z * (1 - self.variance) / (cos**2 * self.variance + sin**2)


def exact_model(s: float, n_steps: int, schedule=cosine_schedule) -> DDPM:
    return DDPM(ExactGaussian(s), UNIT, n_steps=n_steps, schedule=schedule)


def reverse_variance(model: DDPM, s: float) -> Tensor:
    """The exact width of q(z_{t-1} | z_t) for N(0, s^2) data, (T,)."""
    marginal = model.cos**2 * s**2 + model.sin**2
    return model.b * torch.cat([marginal.new_tensor([s**2]), marginal[:-1]]) / marginal


def expected_bound(model: DDPM, s: float) -> float:
    """E[F] over x and all noises, by Gauss-Hermite quadrature, which is exact here: terms are quadratic."""
    node = torch.tensor([-(3**0.5), 0, 3**0.5], dtype=torch.float64)
    weight = torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64)
    x, noise = (s * node).repeat_interleave(3)[:, None], node.repeat(3)[:, None]
    weights, T = torch.outer(weight, weight).flatten(), model.n_steps
    terms = model.term(x.repeat(T, 1), torch.arange(T).repeat_interleave(9), noise.repeat(T, 1))
    return (weights @ model.prior_term(x) + (terms.reshape(T, 9) @ weights).sum()).item()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("s", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("T", [10, 100, 1000])
def test_bound_minus_entropy_is_the_closed_form(schedule, s, T):
    model = exact_model(s, T, SCHEDULES[schedule])
    entropy = 0.5 * math.log(2 * math.pi * math.e * s**2)
    last = model.cos[-1] ** 2 * s**2 + model.sin[-1] ** 2
    prior = (0.5 * (last - 1 - last.log())).item()
    best = reverse_variance(model, s)
    for variance in (best, model.b, model.b_tilde):
        model.use_variance(variance)
        ratio = best / variance
        closed = prior + 0.5 * (ratio - 1 - ratio.log()).sum().item()
        assert abs(expected_bound(model, s) - entropy - closed) < 1e-10
    model.use_variance(best)
    assert -1e-10 < expected_bound(model, s) - entropy < 1e-7


def test_gaps_of_the_widths_that_are_not_the_best():
    """b_t costs O(1 / T); b~_t costs most in the last steps, whatever T."""
    gaps = {}
    for T in (10, 100, 1000):
        model = exact_model(0.5, T)
        for name in ("b", "b_tilde"):
            model.use_variance(getattr(model, name))
            gaps[name, T] = expected_bound(model, 0.5) - 0.5 * math.log(2 * math.pi * math.e * 0.25)
    assert 9 < gaps["b", 10] / gaps["b", 100] < 11
    assert 9 < gaps["b", 100] / gaps["b", 1000] < 11
    assert all(gaps["b_tilde", T] > 0.5 for T in (10, 100, 1000))


def test_sampled_bounds_agree_with_the_expected_one():
    """The sum over all steps, one drawn step, and the log ratio of the chain: three estimates of one number."""
    model = exact_model(0.5, 20)
    expected = expected_bound(model, 0.5)
    generator = torch.Generator().manual_seed(0)
    x = 0.5 * torch.randn(20_000, 1, generator=generator, dtype=torch.float64)
    sampled = (model.bound(x, generator), model.bound(x, generator, 5), model.free_energy(x, generator))
    for values in (*sampled, log_ratio(model, x, generator)):
        assert values.shape == (20_000,)
        assert abs(values.mean().item() - expected) < 4 * values.std().item() / 20_000**0.5


@pytest.mark.parametrize("n_terms", [None, 5])
def test_the_error_of_one_bound_covers_its_deviation(n_terms):
    """Of 200 bounds, each by one call on data of its own, the deviations in standard errors are normal numbers."""
    model = exact_model(0.5, 25)
    expected, generator = expected_bound(model, 0.5), torch.Generator().manual_seed(0)
    deviations = []
    for _ in range(200):
        x = 0.5 * torch.randn(300, 1, generator=generator, dtype=torch.float64)
        deviations.append(from_walkers(model.bound(x, generator, n_terms)).deviation(expected))
    z = torch.tensor(deviations)
    assert abs(z.mean()) < 4 / 200**0.5
    assert abs(z.square().mean() - 1) < 4 * (2 / 200) ** 0.5


def test_drawn_terms_are_nearly_as_good_as_all():
    """A network that is not exact has terms that fall like 1 / t, as they are drawn."""
    generator = torch.Generator().manual_seed(0)
    model = exact_model(1.0, 200)
    x = 0.3 * torch.randn(5000, 1, generator=generator, dtype=torch.float64)
    full, drawn = (from_walkers(model.bound(x, generator, n)).error for n in (None, 20))
    assert drawn < 1.5 * full


def test_best_variance_from_data_is_the_exact_one():
    model = exact_model(2.0, 50)
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.randn(50_000, 1, generator=generator, dtype=torch.float64)
    model.use_best_variance(x, generator)
    assert torch.allclose(model.log_variance.exp(), reverse_variance(model, 2.0), rtol=0.03)


class ToldGaussian(ExactGaussian):
    """The same around a centre for each class, which is read after z."""

    centres = torch.tensor([-1.5, 0.2, 2.0], dtype=torch.float64)

    def forward(self, z: Tensor, phi: Tensor) -> Tensor:
        z, centre = z[:, :1], (z[:, 1:] @ self.centres)[:, None]
        cos, sin = phi.cos()[:, None], phi.sin()[:, None]
        return super().forward(z - cos * centre, phi) - sin * centre


def test_told_classes_the_bound_is_that_of_each_class():
    """For p(x | c) = N(m_c, s^2) the bound is its entropy, and samples, codes and density are its own."""
    shares = torch.full((3,), 1 / 3, dtype=torch.float64)
    model = DDPM(ToldGaussian(0.4), UNIT, n_steps=400, class_shares=shares)
    generator, classes = torch.Generator().manual_seed(0), torch.arange(3).repeat(1000)
    z = torch.randn(3000, 1, generator=generator, dtype=torch.float64)
    x = ToldGaussian.centres[classes][:, None] + 0.4 * z
    told = model.given(classes)
    entropy = math.log(0.4) + (1 + math.log(2 * math.pi)) / 2
    assert abs(from_walkers(told.bound(x, generator)).mean - entropy) < 0.05
    drawn = ancestral(told, 3000, generator).reshape(1000, 3)
    assert torch.allclose(drawn.mean(0), ToldGaussian.centres, atol=0.06)
    assert torch.allclose(probability_flow(told, probability_flow(told, x, backwards=True)), x, atol=1e-5)
    with pytest.raises(BadParameter, match="told the classes"):
        model.bound(x, generator)


def test_units_of_the_data():
    """Moved and stretched data: the bound moves by the logarithm of the stretch, samples go along."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 2, generator=generator, dtype=torch.float64)
    a, b = (DDPM(ExactGaussian(1.0), data, n_steps=30) for data in (x, 7 * x - 3))
    Fa, Fb = (model.bound(data, torch.Generator().manual_seed(1)) for model, data in ((a, x), (b, 7 * x - 3)))
    assert torch.allclose(Fb - Fa, torch.full_like(Fa, 2 * math.log(7)))
    ya, yb = (ancestral(model, 10, torch.Generator().manual_seed(2)) for model in (a, b))
    assert torch.allclose(7 * ya - 3, yb)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("batch", [1, 7])
def test_shapes(size, batch):
    generator = torch.Generator().manual_seed(0)
    model = DDPM(TimeNetwork(size, (8, 8), n_waves=2), torch.randn(20, size, generator=generator), n_steps=5)
    x = torch.randn(batch, size, generator=generator)
    assert model.free_energy(x, generator).shape == (batch,)
    assert model.bound(x, generator).shape == (batch,)
    assert generate(model, batch, generator)[-1].shape == (batch, size)
    assert len(generate(model, batch, generator)) == 6
    with pytest.raises(BadParameter, match="at least 2"):
        DDPM(TimeNetwork(size), x, n_steps=1)


def test_a_mean_over_a_batch_is_the_mean_of_singles():
    generator = torch.Generator().manual_seed(0)
    model = DDPM(TimeNetwork(2), torch.randn(20, 2, generator=generator).double(), n_steps=9).double()
    x, noise = (torch.randn(9, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    steps = torch.arange(9)
    together = model.term(x, steps, noise)
    alone = torch.cat([model.term(x[k : k + 1], steps[k : k + 1], noise[k : k + 1]) for k in range(9)])
    assert torch.allclose(together, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampler", ["ancestral", "sde", "flow"])
def test_samplers_keep_the_exact_density(sampler):
    s = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64)
    data = torch.cat([s, -s]).reshape(2, 3)
    scale = s.square().mean().sqrt()
    model = DDPM(ExactGaussian(s / scale), data, n_steps=100)
    generator = torch.Generator().manual_seed(0)
    n = 10_000
    x = {
        "ancestral": lambda: ancestral(model, n, generator),
        "sde": lambda: reverse_sde(model, n, generator, n_steps=200),
        "flow": lambda: probability_flow(model, torch.randn(n, 3, generator=generator, dtype=torch.float64)),
    }[sampler]()
    assert (x.mean(0).abs() < 5 * s / n**0.5).all()
    assert (abs(x.std(0) / s - 1) < 5 / (2 * n) ** 0.5 + 0.01).all()


def test_the_multistep_flow_is_of_second_order():
    """Its error, against itself with many steps and against the exact map z_T s / width(z_T), falls with n^2."""
    s = 0.3
    model, z = exact_model(s, 1000), torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    best = multistep(model, z, 2560)
    errors = torch.stack([(multistep(model, z, n) - best).abs().max() for n in (20, 40, 80)])
    assert ((errors[:-1] / errors[1:] - 4).abs() < 0.8).all()
    width = (model.cos[-1] ** 2 * s**2 + model.sin[-1] ** 2).sqrt()
    assert torch.allclose(best, z * s / width, atol=1e-3)
    with pytest.raises(BadParameter, match="at least 2"):
        multistep(model, z, 1)


def test_the_flow_goes_back_and_gives_the_density():
    s = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64)
    model = DDPM(ExactGaussian(s / s.square().mean().sqrt()), torch.cat([s, -s]).reshape(2, 3), n_steps=100)
    x = s * torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    back = probability_flow(model, probability_flow(model, x, backwards=True))
    assert torch.allclose(back, x, atol=1e-5)
    blurred = (s.square() * model.cos[0] ** 2 + s.square().mean() * model.sin[0] ** 2).sqrt()
    exact = torch.distributions.Normal(torch.zeros(3).double(), blurred).log_prob(x).sum(-1)
    assert torch.allclose(flow_log_prob(model, x), exact, atol=1e-3)
    probed = flow_log_prob(model, x, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(probed, exact, atol=1e-3)  # e . J e of a diagonal J is its trace


def test_the_score_is_that_of_the_noised_data():
    model = exact_model(0.5, 10)
    z, phi = torch.randn(20, 1, generator=torch.Generator().manual_seed(0)).double(), torch.full((20,), 0.7).double()
    variance = math.cos(0.7) ** 2 * 0.25 + math.sin(0.7) ** 2
    assert torch.allclose(model.score(z, phi), -z / variance)


def test_schedules_begin_at_the_data_and_end_in_noise():
    s = torch.linspace(0, 1, 1001, dtype=torch.float64)
    for schedule in SCHEDULES.values():
        log_A = schedule(s)
        assert abs(log_A[0]) < 1e-12
        assert (log_A.diff() < 0).all()
        assert log_A[-1].exp() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("learn_variance", [False, True])
def test_training_finds_a_gaussian(learn_variance):
    """A correlated Gaussian: the bound falls to its entropy, and learned widths become the best ones."""
    generator = torch.Generator().manual_seed(0)
    L = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    data = torch.randn(10_000, 2, generator=generator) @ L.T
    with seeded(0):
        network = TimeNetwork(2, (32, 32))
    model = DDPM(network, data, n_steps=20, learn_variance=learn_variance)
    method = minibatch_adam(model, model.free_energy, data, n_updates=300, batch_size=512, learning_rate=5e-3)
    for _ in fit(method, torch.empty(0), n_updates=300, generator=generator):
        pass
    if not learn_variance:
        model.use_best_variance(data, generator)
    entropy = math.log(2 * math.pi * math.e) + math.log(0.6)
    test = torch.randn(10_000, 2, generator=generator) @ L.T
    exact = -torch.distributions.MultivariateNormal(torch.zeros(2), scale_tril=L).log_prob(test).double()
    gap = model.bound(test, generator) - exact
    error = gap.std().item() / len(gap) ** 0.5
    assert -4 * error < gap.mean().item() < 0.05 + 4 * error
    assert abs(exact.mean().item() - entropy) < 0.05
    y = ancestral(model, 20_000, generator)
    assert torch.allclose(y.T.cov(), L @ L.T, atol=0.1)
