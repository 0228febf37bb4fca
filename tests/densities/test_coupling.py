"""Flows of coupling layers: the determinant, the inverse, the normalisation and the known limits."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from fkdrift.densities.coupling import Coupling, Elementwise, Flow, Scale, Tail, Triangular, coupling_flow
from fkdrift.densities.density import Density
from fkdrift.densities.known_densities import eight_gaussians, two_moons
from fkdrift.densities.monotone import identity_parameters, inverse, n_parameters, transform
from fkdrift.errors import InputError
from tests.systems import generator


def shaken(flow: Flow, strength: float = 0.1, seed: int = 3) -> Flow:
    """The flow with noise on all its parameters, so that nothing is at a special value."""
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += strength * torch.randn(parameter.shape, generator=generator(seed)).to(parameter)
    return flow


def flow_in(n: int) -> Flow:
    spread = torch.linspace(0.5, 2.0, n, dtype=torch.float64)
    tail = (torch.full_like(spread, 1.5), torch.full_like(spread, 1.2))
    return shaken(coupling_flow(n, centre=0.3 * spread, spread=spread, tail=tail, n_steps=4, width=8))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_log_determinant_is_that_of_the_jacobian(n):
    flow = flow_in(n)
    x = torch.randn(6, n, generator=generator(), dtype=torch.float64)
    _, log_det = flow.normal(x)
    jacobian = torch.stack([torch.func.jacrev(lambda y: flow.normal(y[None])[0][0])(point) for point in x])
    assert log_det.shape == (6,)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_inverse_round_trip_near_and_far(n):
    flow = flow_in(n)
    z = torch.randn(200, n, generator=generator(), dtype=torch.float64)
    z[100:] *= 3
    back, _ = flow.normal(flow.inverse(z))
    torch.testing.assert_close(back, z, rtol=1e-9, atol=1e-9)


def test_every_layer_inverts_itself():
    x = torch.randn(50, 3, generator=generator(), dtype=torch.float64)
    ones = torch.ones(3, dtype=torch.float64)
    for layer in (Scale(ones, 2 * ones), Tail(1.5 * ones, ones), Triangular(3), Elementwise(3), Coupling(3, [1])):
        layer = shaken(Flow(3, [layer]).double())
        torch.testing.assert_close(layer.inverse(layer.normal(x)[0]), x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("batch", [1, 7])
def test_log_prob_has_one_number_for_each_point_and_agrees_with_samples(batch):
    flow = flow_in(2)
    x, log_p = flow.sample_and_log_prob(batch, generator())
    assert log_p.shape == (batch,)
    torch.testing.assert_close(flow.log_prob(x), log_p, rtol=0, atol=0)
    singly = torch.cat([flow.log_prob(point[None]) for point in x])
    torch.testing.assert_close(singly, log_p, rtol=1e-12, atol=1e-12)
    assert isinstance(flow, Density)


def test_integrates_to_one_with_its_tails():
    line = flow_in(1)
    x = torch.linspace(-60, 60, 200_001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        p = line.log_prob(x).exp()
        assert abs(float(p.sum() * (x[1] - x[0])) - 1) < 1e-6
        plane = flow_in(2)
        side = torch.linspace(-20, 20, 801, dtype=torch.float64)
        grid = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
        mass = sum(float(plane.log_prob(part).exp().sum()) for part in grid.split(100_000)) * 0.05**2
    assert abs(mass - 1) < 1e-4


def test_samples_have_the_density():
    flow = flow_in(1)
    x = flow.sample(20_000, generator()).detach()[:, 0]
    edges = torch.tensor([-3.0, -1.0, 0.0, 0.5, 1.0, 3.0], dtype=torch.float64)
    fine = torch.linspace(-3, 3, 60_001, dtype=torch.float64)
    with torch.no_grad():
        p = flow.log_prob(fine[:, None]).exp()
    for low, high in pairwise(edges):
        exact = float(p[(fine >= low) & (fine < high)].sum() * (fine[1] - fine[0]))
        seen = float(((x >= low) & (x < high)).double().mean())
        assert abs(seen - exact) < 4 * math.sqrt(exact * (1 - exact) / len(x)) + 1e-4


def test_tail_falls_with_the_power_it_was_given():
    power = torch.tensor([1.5], dtype=torch.float64)
    flow = Flow(1, [Tail(power, torch.ones_like(power))])
    x = torch.tensor([[1e3], [2e3]], dtype=torch.float64)
    near, far = (-flow.log_prob(x)).tolist()
    assert abs(math.log2(far / near) - 3.0) < 1e-3  # log p ~ -|x|^3


def test_monotone_map_starts_near_the_identity_and_differentiates_its_inverse():
    parameters = identity_parameters(8).double()
    assert parameters.shape == (n_parameters(8),)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    z, log_slope = transform(x, parameters)
    assert float((z - x).abs().max()) < 0.5
    z = z.detach().requires_grad_()
    (slope,) = torch.autograd.grad(inverse(z, parameters).sum(), z)
    torch.testing.assert_close(slope, (-log_slope).exp(), rtol=1e-9, atol=1e-9)


def test_samples_follow_the_parameters():
    flow = flow_in(1)
    z = torch.randn(4, 1, generator=generator(), dtype=torch.float64)
    parameter = flow.chain[3].parameters_of_map
    flow.inverse(z)[:, 0].sum().backward()
    analytic, h = parameter.grad[0, 5].item(), 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            parameter[0, 5] += sign * h
            values.append(flow.inverse(z)[:, 0].sum().item())
            parameter[0, 5] -= sign * h
    assert analytic == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-5)


def test_coupling_needs_two_halves():
    with pytest.raises(InputError, match="both halves"):
        Coupling(2, [0, 1])


@pytest.mark.parametrize(("exact", "reach", "n"), [(eight_gaussians(), 8, 321), (two_moons(), 2.7, 145)])
def test_known_densities_integrate_to_one_and_match_their_samples(exact, reach, n):
    side = torch.linspace(-reach, reach, n, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    log_p = torch.cat([exact.log_prob(part) for part in grid.split(10_000)])
    cell = float(side[1] - side[0]) ** 2
    assert abs(float(log_p.exp().sum()) * cell - 1) < 1e-6
    entropy = -float((log_p.exp() * log_p).sum()) * cell
    sampled = -exact.log_prob(exact.sample(20_000, generator()))
    assert abs(float(sampled.mean()) - entropy) < 4 * float(sampled.std()) / 20_000**0.5


def test_moons_are_those_of_scikit_learn():
    make_moons = pytest.importorskip("sklearn.datasets").make_moons
    theirs = torch.tensor(make_moons(4000, noise=0.1, random_state=0)[0])[:4000]
    exact = two_moons()
    ours = -exact.log_prob(exact.sample(4000, generator()))
    log_p = -exact.log_prob(theirs)
    assert abs(float(log_p.mean() - ours.mean())) < 4 * float(ours.std()) * (2 / 4000) ** 0.5


@pytest.mark.slow
def test_a_vae_with_a_sharp_decoder_is_a_flow():
    """x = f^-1(z) + s e with q(z | x) its best Gaussian: -ELBO falls to -log p of the flow as s goes to 0, like s^2."""
    flow = flow_in(2)
    x = flow.sample(16, generator()).detach()
    gaps = []
    for s in (0.04, 0.02, 0.01):
        z, _ = flow.normal(x)
        J = torch.stack([torch.func.jacrev(lambda y: flow.inverse(y[None])[0])(point.detach()) for point in z])
        precision = torch.eye(2, dtype=torch.float64) + J.mT @ J / s**2
        posterior = torch.distributions.MultivariateNormal(z, precision_matrix=precision)
        half = torch.randn(200, *z.shape, generator=generator(1), dtype=torch.float64)
        spread = torch.linalg.cholesky(torch.linalg.inv(precision))
        draws = z + torch.cat([half, -half])[..., None, :].mul(spread).sum(-1)
        decoded = flow.inverse(draws.reshape(-1, 2)).reshape(draws.shape)
        log_decoder = -0.5 * ((x - decoded) / s).square().sum(-1) - math.log(2 * math.pi * s**2)
        log_prior = -0.5 * draws.square().sum(-1) - math.log(2 * math.pi)
        elbo = (log_decoder + log_prior - posterior.log_prob(draws)).mean(0)
        gaps.append(float((flow.log_prob(x) - elbo).detach().mean()))
    assert abs(gaps[2]) < abs(gaps[1]) < abs(gaps[0])
    assert abs(gaps[2]) < 0.02
    assert gaps[1] / gaps[2] == pytest.approx(4, rel=0.4)
