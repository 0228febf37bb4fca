"""Derivatives by automatic differentiation: gradients, and the diagonal of a Jacobian for divergences and Laplacians.

    div v = sum_k dv_k / dx_k,       lap f = sum_k d^2 f / dx_k^2

The diagonal costs one backward pass for each coordinate, and no matrix is formed.  Results carry a graph of their own
(to parameters, for a further derivative) exactly where gradients are enabled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Curvatures(NamedTuple):
    """f (batch,), its gradient and its second derivatives d^2 f / dx_k^2, both in the shape of x."""

    value: Tensor
    gradient: Tensor
    second: Tensor


def value_and_gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """f (batch,) and grad f, in the shape of x.

    Args:
        function: x (batch, ...) to f (batch,), with no coupling between members of the batch.
        x: (batch, ...).

    Example:
        >>> value_and_gradient(lambda x: -x.square().sum(-1) / 2, torch.ones(1, 3))
        (tensor([-1.5000], grad_fn=...), tensor([[-1., -1., -1.]], grad_fn=...))
    """
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        y = x if x.requires_grad else x.detach().requires_grad_()
        value = function(y)
        gradient = _gradient(value.sum(), y, create_graph=keep)
    return (value, gradient) if keep else (value.detach(), gradient)


def curvatures(function: Callable[[Tensor], Tensor], x: Tensor) -> Curvatures:
    """f, grad f and d^2 f / dx_k^2.

    Args:
        function: x (batch, ...) to f (batch,).
        x: (batch, ...).

    Example:
        >>> curvatures(lambda x: x.pow(3).sum(-1), torch.ones(1, 2)).second
        tensor([[6., 6.]], grad_fn=...)
    """
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        y = x if x.requires_grad else x.detach().requires_grad_()
        value = function(y)
        gradient = _gradient(value.sum(), y, create_graph=True)
    second = jacobian_diagonal(gradient, y)
    return Curvatures(*(part if keep else part.detach() for part in (value, gradient, second)))


def field_and_divergence(
    field: Callable[[Tensor], Tensor], x: Tensor, probe: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """v in the shape of x, and div v (batch,).

    Args:
        field: x (batch, ...) to v of the same shape.
        x: (batch, ...).
        probe: e in the shape of x, of mean 0 and covariance 1: e . (dv/dx) e in the place of div v, which is its mean,
            for one backward pass whatever the size.

    Example:
        >>> field_and_divergence(lambda x: x.pow(2), torch.ones(1, 2))[1]
        tensor([4.], grad_fn=...)
    """
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        y = x if x.requires_grad else x.detach().requires_grad_()
        v = field(y)
        probed = None if probe is None else (v * probe).sum()
    if probed is None or probe is None:
        divergence = jacobian_diagonal(v, y).flatten(1).sum(-1)
    else:
        divergence = (_gradient(probed, y, create_graph=keep) * probe).flatten(1).sum(-1)
    return (v, divergence) if keep else (v.detach(), divergence)


def signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """Independent +-1, a probe for `field_and_divergence`."""
    return 2.0 * torch.randint(2, like.shape, generator=generator, device=like.device).to(like) - 1


def jacobian_diagonal(v: Tensor, x: Tensor) -> Tensor:
    """dv_k / dx_k in the shape of v; the graph of v is kept.

    Args:
        v: (batch, ...), with its graph to x; what does not depend on x has derivative 0.
        x: of the same shape.
    """
    if not v.requires_grad:
        return torch.zeros_like(v)
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        columns = [(k, column.sum()) for k, column in enumerate(v.flatten(1).unbind(1))]
    rows = [_gradient(column, x, create_graph=keep).flatten(1)[:, k] for k, column in columns]
    return torch.stack(rows, -1).reshape(v.shape)


def _gradient(value: Tensor, x: Tensor, create_graph: bool) -> Tensor:
    """d value / dx of a single number, zero where there is no dependence; the graph is kept."""
    if not value.requires_grad:
        return torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(value, x, create_graph=create_graph, retain_graph=True, materialize_grads=True)
    return gradient
