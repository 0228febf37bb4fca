"""Derivatives by automatic differentiation, against functions whose derivatives are known."""

import pytest
import torch

from fkdrift.numerics.differentiation import curvatures, field_and_divergence, value_and_gradient

X = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 2, 2)


def quartic(x: torch.Tensor) -> torch.Tensor:
    """(sum x^2)^2, which couples all coordinates."""
    return x.square().sum((-2, -1)).square()


def test_quartic() -> None:
    square = X.square().sum((-2, -1))
    value, gradient, second = curvatures(quartic, X)
    torch.testing.assert_close(value, square.square())
    torch.testing.assert_close(gradient, 4 * square[:, None, None] * X)
    torch.testing.assert_close(second, 4 * square[:, None, None] + 8 * X.square())
    for ours, exact in zip(value_and_gradient(quartic, X), (value, gradient), strict=True):
        torch.testing.assert_close(ours, exact)


def test_divergence_of_a_rotation_and_of_a_constant() -> None:
    v, divergence = field_and_divergence(lambda x: x.flip(-1) + 3 * x, X)
    torch.testing.assert_close(v, X.flip(-1) + 3 * X)
    torch.testing.assert_close(divergence, torch.full((3,), 12.0, dtype=torch.float64))
    constant = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.equal(field_and_divergence(lambda x: constant.expand_as(x), X)[1], torch.zeros(3, dtype=torch.float64))
    assert torch.equal(field_and_divergence(torch.ones_like, X)[1], torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("enabled", [True, False])
def test_a_graph_is_kept_where_gradients_are_enabled(enabled: bool) -> None:
    a = torch.ones((), dtype=torch.float64, requires_grad=True)
    with torch.set_grad_enabled(enabled):
        parts = [*curvatures(lambda x: a * quartic(x), X), *value_and_gradient(lambda x: a * quartic(x), X)]
        parts += field_and_divergence(lambda x: a * x.pow(3), X)
    assert [part.requires_grad for part in parts] == [enabled] * len(parts)
    if enabled:
        (slope,) = torch.autograd.grad(parts[2].sum(), a)
        torch.testing.assert_close(slope, parts[2].sum().detach())
