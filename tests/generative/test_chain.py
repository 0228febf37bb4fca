"""VAE and Markov autoencoders against models that are solved exactly, and against the path measure of the physics."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from fkdrift.densities.kernels import BetaBinomialDecoder, DiagonalGaussian, FullGaussian, draw, standard_normal_kl
from fkdrift.errors import BadParameter
from fkdrift.generative.chain import draw_posterior, generate, log_ratio, path_log_ratio, terms, transition_log_ratio
from fkdrift.generative.linear import LinearChain, copula, principal_components
from fkdrift.generative.markov import MarkovAutoencoder, euler_kernel, fixed_kernel
from fkdrift.generative.vae import VAE
from fkdrift.numerics.log_weights import iwae
from fkdrift.numerics.networks import MLP, seeded
from fkdrift.paths.evolution import evolve
from fkdrift.paths.process import Overdamped, Process


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def data():
    g = generator(3)
    mixing = torch.randn(6, 6, dtype=torch.float64, generator=g)
    return torch.randn(500, 6, dtype=torch.float64, generator=g) @ mixing + 2.0


@pytest.fixture
def linear_chain():
    """Three latents of 4, 3 and 2 components under data of 5, all numbers random."""
    g, steps, sizes = generator(1), [], (5, 4, 3, 2)
    for below, above in pairwise(sizes):
        A = torch.randn(below, above, dtype=torch.float64, generator=g)
        B = torch.randn(below, below, dtype=torch.float64, generator=g)
        b = torch.randn(below, dtype=torch.float64, generator=g)
        steps.append((A, b, B @ B.T / below + 0.1 * torch.eye(below, dtype=torch.float64)))
    return LinearChain(steps)


def small_vae(encoder_kind=DiagonalGaussian, n=5, n_latents=3):
    with seeded(0):
        encoder = encoder_kind(MLP(n, (16,), encoder_kind.n_outputs(n_latents)), n_latents)
        decoder = BetaBinomialDecoder(MLP(n_latents, (16,), 2 * n), n, 17)
    return VAE(encoder, decoder, n_latents).double()


COUNTS = torch.tensor([[0, 3, 16, 7, 1], [5, 5, 2, 0, 16]], dtype=torch.float64)


# -- exact models ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [True, False])
def test_exact_principal_components_have_no_variance(data, full):
    """-log weight = -log p(x) for every z, wherever z is: the closed-form parameters are the exact reversal."""
    exact = principal_components(data, 2)
    model = exact.vae(full)
    ratios = log_ratio(model, data, generator(), n_samples=20)
    assert ratios.shape == (20, 500)
    assert (ratios + exact.log_prob(data)).abs().max() < 1e-10
    elsewhere = 10 * torch.randn(500, 2, dtype=torch.float64, generator=generator(1))
    assert (path_log_ratio(model, [data, elsewhere]) + exact.log_prob(data)).abs().max() < 1e-10
    assert (model.free_energy(data, generator(), closed_form=False) + exact.log_prob(data)).abs().max() < 1e-10


def test_closed_form_elbo_of_principal_components(data):
    """With the KL as a formula, F varies with z, and its mean over the data and z is exact."""
    exact = principal_components(data, 2)
    model = exact.vae()
    values = torch.stack([model.free_energy(data, generator(seed)).mean() for seed in range(200)])
    error = values.std() / len(values) ** 0.5
    assert error > 1e-6
    assert abs(values.mean() + exact.log_prob(data).mean()) < 4 * error


def test_principal_components_are_most_likely(data):
    exact = principal_components(data, 3)
    best = exact.log_prob(data).mean()
    g = generator(2)
    for _ in range(20):
        nudge = 1e-3 * torch.randn(exact.loadings.shape, dtype=torch.float64, generator=g)
        worse = type(exact)(exact.mean, exact.loadings + nudge, exact.noise * 1.001, exact.eigenvalues)
        assert worse.log_prob(data).mean() < best


def test_units_of_the_best_linear_model_carry_half_log_of_their_variance(data):
    exact = principal_components(data, 4, noise=8.0)
    mean, std = exact.vae(full=False).encode(data)
    mean_kl = (mean.square() + std.square() - 1 - 2 * std.log()).mean(0) / 2
    assert torch.allclose(mean_kl, exact.unit_kl, atol=1e-12)
    assert (exact.unit_kl == 0).any()
    assert (exact.unit_kl > 0.1).any()


def test_rotated_latents_have_another_joint_and_the_same_evidence(data):
    exact = principal_components(data, 2)
    c, s = math.cos(0.7), math.sin(0.7)
    rotated = exact.rotated(torch.tensor([[c, -s], [s, c]], dtype=torch.float64))
    model, other = exact.vae(), rotated.vae()
    assert torch.allclose(log_ratio(other, data, generator()), -exact.log_prob(data), atol=1e-10)
    z = torch.ones(500, 2, dtype=torch.float64)
    joint = [m.decode(z).log_prob(data) + m.prior(500).log_prob(z) for m in (model, other)]
    assert (joint[0] - joint[1]).abs().max() > 0.1
    diagonal = standard_normal_kl(rotated.vae(full=False).encoder(data)).mean()
    assert diagonal < standard_normal_kl(other.encoder(data)).mean() - 1e-3  # no diagonal posterior any more


def test_copulas_share_marginals_evidence_and_elbo_and_differ_in_information():
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    for correlation in (0.0, 0.5, -0.99):
        model = copula(correlation)
        assert torch.allclose(log_ratio(model, x, generator()), -normal.log_prob(x[:, 0]), atol=1e-12)
        drawn = normal.sample((1,)).new_tensor([[1.0]])
        mean, std = model.encode(drawn)
        assert (mean.item(), std.item()) == pytest.approx((correlation, math.sqrt(1 - correlation**2)), abs=1e-12)
        g, n = generator(1), 100_000
        z, y = (part[:, 0] for part in generate(model, n, g))
        information = standard_normal_kl(model.encoder(y[:, None])).mean().item()
        assert information == pytest.approx(-math.log(1 - correlation**2) / 2, abs=4 * 0.8 / n**0.5)
        assert abs(y.std().item() - 1) < 4 / (2 * n) ** 0.5
        assert torch.corrcoef(torch.stack([z, y]))[0, 1].item() == pytest.approx(correlation, abs=4 / n**0.5)


def test_exact_chain_has_no_variance(linear_chain):
    """-log weight = -log p(x) for every path of T = 3 steps."""
    model = linear_chain.autoencoder()
    path = generate(model, 100, generator())[::-1]
    exact = linear_chain.log_prob(path[0])
    assert [part.shape[1] for part in path] == [5, 4, 3, 2]
    assert (path_log_ratio(model, path) + exact).abs().max() < 1e-10
    assert (log_ratio(model, path[0], generator(1), n_samples=10) + exact).abs().max() < 1e-10
    far = [part + 0.5 for part in path]
    assert (path_log_ratio(model, far) + linear_chain.log_prob(far[0])).abs().max() < 1e-9


def test_without_the_reconstruction_the_sum_is_no_evidence(linear_chain):
    """The formula as it is sometimes printed lacks -log p(x | z_1), and is far off."""
    model = linear_chain.autoencoder()
    path = generate(model, 100, generator())[::-1]
    parts = terms(model, path, infer_log_q(model, path))
    assert parts.shape == (4, 100)
    assert (parts.sum(0) + linear_chain.log_prob(path[0])).abs().max() < 1e-10
    assert (parts[1:].sum(0) + linear_chain.log_prob(path[0])).abs().mean() > 1


def infer_log_q(model, path):
    return [model.posterior(t, path[t - 1]).log_prob(path[t]) for t in range(1, model.n_steps + 1)]


def test_chain_draws_its_marginals(linear_chain):
    n = 100_000
    states = generate(linear_chain.autoencoder(), n, generator())[::-1]
    for z, (mean, C) in zip(states, linear_chain.marginals, strict=True):
        assert ((z.mean(0) - mean) / (C.diagonal() / n).sqrt()).abs().max() < 4.5
        error = ((C.diagonal()[:, None] * C.diagonal() + C**2) / n).sqrt()
        assert ((torch.cov(z.T) - C) / error).abs().max() < 4.5


# -- bounds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DiagonalGaussian, FullGaussian])
def test_closed_form_and_sampled_kl_agree(kind):
    model = small_vae(kind)
    x = COUNTS.repeat(20_000, 1)
    closed = model.free_energy(x, generator())
    sampled = model.free_energy(x, generator(), closed_form=False)
    assert closed.shape == sampled.shape == (40_000,)
    difference = closed - sampled
    assert difference.abs().max() > 0.1
    assert abs(difference.mean()) < 4 * difference.std() / 40_000**0.5


def test_many_samples_tighten_the_bound():
    model = small_vae()
    x = COUNTS.repeat(500, 1)
    with torch.no_grad():
        bounds = torch.stack([model.free_energy(x, generator(), n_samples=k).mean() for k in (1, 4, 16, 64)])
    assert (bounds.diff() < 0).all()
    with pytest.raises(BadParameter, match="beta"):
        model.free_energy(x, generator(), n_samples=2, beta=2.0)


def test_many_samples_reach_the_evidence_of_a_wrong_posterior(data):
    exact = principal_components(data, 2)
    wrong = exact.vae()
    with torch.no_grad():
        wrong.encoder.lower[0] += 0.3
    x = data[:20]
    ratios = log_ratio(wrong, x, generator(), n_samples=20_000)
    assert (-ratios.mean(0) < exact.log_prob(x)).all()
    assert (iwae(ratios) - exact.log_prob(x)).abs().max() < 0.05


def test_beta_weighs_the_divergence():
    model = small_vae()
    values = [model.free_energy(COUNTS, generator(), beta=beta) for beta in (0.0, 1.0, 3.0)]
    kl = standard_normal_kl(model.encoder(COUNTS))
    assert torch.allclose(values[1] - values[0], kl, atol=1e-12)
    assert torch.allclose(values[2] - values[0], 3 * kl, atol=1e-12)


def test_loss_of_a_batch_is_the_mean_of_single_losses():
    """Nothing broadcasts (batch,) against (batch, 1)."""
    model = small_vae()
    x = COUNTS[[0, 1, 0, 1, 1, 0, 0]]
    noise = draw(model.prior(7), generator())
    whole = path_log_ratio(model, [x, noise])
    single = torch.cat([path_log_ratio(model, [x[k : k + 1], noise[k : k + 1]]) for k in range(7)])
    assert torch.allclose(whole, single, atol=1e-12)


# -- chains of one step, of many, of infinitely many -------------------------------------------------------------------


def test_one_step_is_the_vae():
    vae = small_vae()
    chain = MarkovAutoencoder([vae.encoder], [vae.decoder], 3).double()
    x = COUNTS.repeat(10, 1)
    for options in ({}, {"beta": 2.5}, {"n_samples": 5}):
        mine = chain.free_energy(x, generator(), **options)
        closed = {} if "n_samples" in options else {"closed_form": False}
        assert torch.allclose(mine, vae.free_energy(x, generator(), **options, **closed), atol=1e-12)
    kl = standard_normal_kl(vae.encoder(x))
    assert torch.allclose(vae.free_energy(x, generator()), _reconstruction(vae, x) + kl, atol=1e-12)


def _reconstruction(vae, x):
    return -vae.decoder(draw(vae.encoder(x), generator())).log_prob(x)


def test_fixed_backward_kernels_have_nothing_to_learn_and_keep_the_prior():
    kernel = fixed_kernel(3, 0.8)
    assert list(kernel.parameters()) == []
    z = torch.randn(100_000, 3, generator=generator())
    after = kernel.rsample(z, generator(1))
    assert (after.var(0) - 1).abs().max() < 5 * (2 / 100_000) ** 0.5
    assert ((after * z).mean(0) - 0.8).abs().max() < 5 * (1.64 / 100_000) ** 0.5
    for decay in (0.0, 1.0, 1.2):
        with pytest.raises(BadParameter, match="between 0 and 1"):
            fixed_kernel(3, decay)


def test_chain_with_fixed_encoders_above_the_first_trains():
    with seeded(0):
        first = DiagonalGaussian(MLP(5, (16,), 6), 3)
        decoders = [BetaBinomialDecoder(MLP(3, (16,), 10), 5, 17), DiagonalGaussian(MLP(3, (16,), 6), 3)]
    model = MarkovAutoencoder([first, fixed_kernel(3, 0.5)], decoders, 3).double()
    free_energy = model.free_energy(COUNTS, generator())
    free_energy.mean().backward()
    assert free_energy.shape == (2,)
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())


def test_as_many_encoders_as_decoders():
    vae = small_vae()
    for encoders, decoders in ([vae.encoder], []), ([], []), ([vae.encoder] * 2, [vae.decoder]):
        with pytest.raises(BadParameter, match="one of each"):
            MarkovAutoencoder(encoders, decoders, 3)


def test_euler_kernels_are_the_path_measure():
    """Gaussian steps with the drifts h + v and h: their log ratio is int u dB + int u^2 / 2 dt, on the same noise."""
    sigma = torch.tensor([[0.7], [1.3]], dtype=torch.float64)
    with seeded(0):
        network = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Tanh(), nn.Unflatten(1, (2, 2))).double()
    process = Process(network, Overdamped(lambda r: (r.square().sum((-2, -1)) - 1) ** 2 / 4, sigma))
    walkers = torch.randn(32, 2, 2, dtype=torch.float64, generator=generator())
    n_steps, dt = 50, 0.02
    with torch.no_grad():
        path = evolve(process, walkers, n_steps=n_steps, dt=dt, generator=generator(1), n_saved=n_steps)
        q = euler_kernel(process.velocity, (2, 2), sigma, dt)
        p = euler_kernel(lambda r: process.reference.rates(r).drift, (2, 2), sigma, dt)
        ratio = transition_log_ratio([q] * n_steps, [p] * n_steps, path.positions.flatten(2))
    assert ratio.shape == (32,)
    assert path.log_ratio[-1].abs().max() > 0.5
    assert (ratio - path.log_ratio[-1]).abs().max() < 1e-12


def test_infer_follows_the_chain(linear_chain):
    model = linear_chain.autoencoder()
    x = generate(model, 10, generator())[-1]
    path, log_q = draw_posterior(model, x, generator(2))
    assert path[0] is x
    assert len(path) == 4
    assert len(log_q) == 3
    assert torch.allclose(torch.stack(log_q), torch.stack(infer_log_q(model, path)), atol=1e-12)
