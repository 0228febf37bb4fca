"""Continuous flows: exact and estimated traces, symmetric fields, alignment, flow matching."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from fkdrift.densities.continuous import (
    Continuous,
    Field,
    MLPField,
    align,
    flow_matching_loss,
    hutchinson_log_prob,
    match,
)
from fkdrift.densities.coupling import Flow
from fkdrift.densities.symmetric import FadingField, GraphField, RadialField, RadialTail
from fkdrift.errors import InputError
from tests.systems import generator


def shaken(field: Field, strength: float = 0.2) -> Field:
    field = field.double()
    with torch.no_grad():
        for parameter in field.parameters():
            parameter += strength * torch.randn(parameter.shape, generator=generator(3), dtype=torch.float64)
    return field


FIELDS = {
    "mlp": lambda: MLPField(6, width=16, depth=2),
    "radial": lambda: RadialField(3, 2),
    "separable": lambda: RadialField(3, 2, isotropic=False),
    "fading": lambda: FadingField(3, 2),
    "fading separable": lambda: FadingField(3, 2, isotropic=False),
    "message": lambda: GraphField(3, 2, width=8, n_features=6),
}


def points(n: int, size: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, size, generator=generator(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", FIELDS)
def test_divergence_is_the_trace_of_the_jacobian(name):
    field, x = shaken(FIELDS[name]()), points(4)
    t = torch.full((4, 1), 0.3, dtype=torch.float64)
    v, divergence = field.with_divergence(x, t)
    jacobian = torch.stack([torch.func.jacrev(lambda y: field(y[None], t[:1])[0])(point) for point in x])
    torch.testing.assert_close(v, field(x, t))
    torch.testing.assert_close(divergence, torch.diagonal(jacobian, dim1=1, dim2=2).sum(-1))


@pytest.mark.parametrize("name", FIELDS)
def test_flow_inverts_and_its_determinant_converges(name):
    field, x = shaken(FIELDS[name]()), points(2)
    coarse, fine = (Flow(6, [Continuous(field, n)]) for n in (4, 16))
    h = 1e-5 * torch.eye(6, dtype=torch.float64)
    with torch.no_grad():
        z, log_det = fine.normal(x)
        torch.testing.assert_close(fine.inverse(z), x, rtol=1e-5, atol=1e-5)
        ahead, behind = (fine.inverse((z[:, None] + step).reshape(-1, 6)).view(2, 6, 6) for step in (h, -h))
        jacobian = (ahead - behind) / 2e-5
        torch.testing.assert_close(-log_det, torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(coarse.log_prob(x), fine.log_prob(x), rtol=2e-3, atol=2e-3)


def test_integrates_to_one_with_its_tails():
    flow = Flow(2, [Continuous(shaken(MLPField(2, width=16, depth=2)), 8)])
    side = torch.linspace(-12, 12, 121, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    with torch.no_grad():
        mass = float(flow.log_prob(grid).exp().sum()) * float(side[1] - side[0]) ** 2
    assert abs(mass - 1) < 1e-4


def test_hutchinson_is_unbiased_for_log_p_and_not_exact():
    flow = Flow(6, [Continuous(shaken(FIELDS["mlp"]()), 4)])
    x = points(1).expand(4000, 6)
    with torch.no_grad():
        estimates, exact = hutchinson_log_prob(flow, x, generator()), flow.log_prob(x[:1])
    error = float(estimates.std()) / 4000**0.5
    assert float(estimates.std()) > 0.01
    assert abs(float(estimates.mean() - exact)) < 4 * error


@pytest.mark.parametrize("name", ["radial", "message"])
def test_symmetric_flows_keep_exchange_rotation_and_reflection(name):
    flow = Flow(6, [Continuous(shaken(FIELDS[name]()), 4)])
    x = points(4)
    r = x.reshape(4, 3, 2)
    angle = torch.tensor(0.7, dtype=torch.float64)
    rotation = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    mirror = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
    with torch.no_grad():
        expected = flow.log_prob(x)
        for image in (r[:, [2, 0, 1]], r @ rotation.T, r @ mirror):
            torch.testing.assert_close(flow.log_prob(image.flatten(1)), expected, rtol=1e-12, atol=1e-12)


def test_separable_field_keeps_exchange_only():
    flow = Flow(6, [Continuous(shaken(FIELDS["separable"]()), 4)])
    x = points(4)
    with torch.no_grad():
        swapped = x.reshape(4, 3, 2)[:, [1, 0, 2]].flatten(1)
        torch.testing.assert_close(flow.log_prob(swapped), flow.log_prob(x), rtol=1e-12, atol=1e-12)


def test_message_field_leaves_the_mean_at_rest():
    field = shaken(FIELDS["message"]())
    v = field(points(4), torch.full((4, 1), 0.5, dtype=torch.float64))
    assert float(v.reshape(4, 3, 2).sum(1).detach().abs().max()) < 1e-12


def test_alignment_finds_the_nearest_image():
    start, end = points(8), points(8, seed=1)
    aligned = align(start, end, 3)
    z, w = start.reshape(8, 3, 2), end.reshape(8, 3, 2)
    best = torch.full((8,), torch.inf, dtype=torch.float64)
    for order in permutations(range(3)):
        for mirror in (1.0, -1.0):
            image = w[:, list(order)] * torch.tensor([1.0, mirror], dtype=torch.float64)
            u, _, vh = torch.linalg.svd(image.mT @ z)
            sign = torch.diag_embed(torch.stack([torch.ones(8).double(), torch.det(u @ vh)], -1))
            best = torch.minimum(best, (image @ u @ sign @ vh - z).square().sum((1, 2)))
    torch.testing.assert_close((aligned - start).square().sum(1), best)
    pairs = aligned.reshape(8, 3, 2), w
    distances = [torch.cdist(x, x).flatten(1).sort().values for x in pairs]
    torch.testing.assert_close(*distances)


def test_alignment_refuses_what_it_cannot_do():
    with pytest.raises(InputError, match="2 dimensions"):
        align(points(2), points(2), 2)


def test_flow_matching_is_least_at_the_exact_field():
    """Between N(0, 1) and N(m, s^2), paired at random, the best velocity is linear in x and known."""
    m, s = 1.0, 0.5

    class Exact(Field):
        factor = 1.0

        def forward(self, x, t):
            variance = (1 - t).square() + t.square() * s**2
            return self.factor * (m + (t * s**2 - (1 - t)) / variance * (x - t * m))

    field, g = Exact(), generator()
    start, end = torch.randn(2, 50_000, 1, generator=g, dtype=torch.float64)
    losses = []
    for field.factor in (0.9, 1.0, 1.1):
        losses.append(float(flow_matching_loss(field, start, m + s * end, generator(5)).mean()))
    assert losses[1] < losses[0]
    assert losses[1] < losses[2]
    late = []
    for field.factor in (0.9, 1.0, 1.1):
        late.append(float(flow_matching_loss(field, start, m + s * end, generator(5), late=0.1).mean()))
    assert late[1] == min(late)
    field.factor = 1.0
    flow = Flow(1, [Continuous(field, 32)])
    x = torch.linspace(-1, 3, 9, dtype=torch.float64)[:, None]
    exact = torch.distributions.Normal(m, s).log_prob(x[:, 0].double())
    torch.testing.assert_close(flow.log_prob(x), exact, rtol=1e-4, atol=1e-4)


def test_matched_pairs_are_the_nearest():
    """Of all orders within a group it is the one of least total length, and images of the noise find their own."""
    x = torch.randn(8, 8, generator=generator(), dtype=torch.float64)
    x = (x.reshape(8, 4, 2) - x.reshape(8, 4, 2).mean(1, keepdim=True)).flatten(1)
    turned = (x.reshape(8, 4, 2)[:, [2, 0, 3, 1]] @ torch.tensor([[0.6, 0.8], [-0.8, 0.6]]).double()).flatten(1)
    shuffled = turned[[3, 0, 1, 2, 7, 6, 5, 4]]
    torch.testing.assert_close(align(x, match(x, shuffled, 4, n_group=4), 4), x)
    y = torch.randn(4, 8, generator=generator(1), dtype=torch.float64)

    def length(order):
        return float((align(x[:4], y[list(order)], 4) - x[:4]).square().sum())

    least = min(length(order) for order in permutations(range(4)))
    assert float((align(x[:4], match(x[:4], y, 4, 4), 4) - x[:4]).square().sum()) == pytest.approx(least)
    with pytest.raises(InputError, match="groups of 3"):
        match(x, y, 4, n_group=3)


@pytest.mark.parametrize("n_dims", [1, 2, 3])
def test_radial_tails_invert_and_have_their_determinant(n_dims):
    layer = RadialTail(n_dims, torch.tensor([0.6, 1.4]), torch.tensor([0.7, 1.1]), torch.tensor([0, 1, 1])).double()
    x = points(4, 3 * n_dims)
    with torch.no_grad():
        z, log_det = layer(x)
        torch.testing.assert_close(layer.inverse(z), x)
        jacobian = torch.stack([torch.func.jacrev(lambda y: layer(y[None])[0][0])(point) for point in x])
    torch.testing.assert_close(log_det, jacobian.det().log())
