"""Natural gradient in path space: near the optimum, one step is a Newton step.

The Fisher information of the path measure per unit time is, by Girsanov,

    F = E[ (d_theta u)^T (d_theta u) ],      u = v / sigma,

and since E(theta) - E_0 = E|u - u*|^2 / 2, F is also the Hessian of the energy at the optimum.  So

    (F + lambda) delta = -g,      theta <- theta + eta delta,

with g the gradient of the energy, is natural gradient and Gauss-Newton at once.  It is solved by conjugate gradients
with products F p = J^T (J p) alone; no matrix is formed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fkdrift.numerics.workers import ALONE, Workers

MetricProduct = Callable[[Tensor], Tensor]


def metric_product(control: Tensor, parameters: Sequence[Tensor], workers: Workers = ALONE) -> MetricProduct:
    """p -> F p for the control u of a batch, F = mean over walkers of (d_theta u)^T (d_theta u).

    The Jacobian products reuse one graph: J^T c is linear in c, so differentiating it once more gives J p.

    Args:
        control: u (batch, particle, dim), with its graph to the parameters.
        parameters: what u depends on.
        workers: that share the walkers; one message for each product.
    """
    batch = len(control)
    cotangent = torch.zeros_like(control, requires_grad=True)
    pulled = flat_gradient(control, parameters, cotangent, create_graph=True)

    def product(p: Tensor) -> Tensor:
        (pushed,) = torch.autograd.grad(pulled.dot(p), cotangent, retain_graph=True)
        return workers.average(flat_gradient(control, parameters, pushed / batch, retain_graph=True), batch)

    return product


def conjugate_gradient(
    product: MetricProduct, target: Tensor, start: Tensor, damping: Tensor | float, n_iterations: int
) -> Tensor:
    """Solve (F + damping) x = target from `start`, for at most n_iterations; nothing here waits for the device."""
    x = start
    residual = target - product(x) - damping * x
    direction, square = residual, residual.dot(residual)
    for _ in range(n_iterations):
        image = product(direction) + damping * direction
        step = square / direction.dot(image).clamp_min(torch.finfo(x.dtype).tiny)
        x = x + step * direction
        residual = residual - step * image
        square, previous = residual.dot(residual), square
        direction = residual + square / previous.clamp_min(torch.finfo(x.dtype).tiny) * direction
    return x


def mean_of(f: Tensor, parameters: Sequence[Tensor], workers: Workers) -> Tensor:
    """The mean of f (batch,) over all walkers, up to a constant: what the metric sees of it is its derivative.

    In several processes it is theta . g, with g = d_theta of the mean over all of them held fixed.
    """
    mean = f.mean()
    if workers.size == 1:
        return mean
    g = workers.average(flat_gradient(mean, parameters, torch.ones_like(mean), retain_graph=True), len(f))
    return torch.nn.utils.parameters_to_vector(parameters).dot(g)


def flat_gradient(
    output: Tensor,
    parameters: Sequence[Tensor],
    cotangent: Tensor,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> Tensor:
    """(d output / d theta)^T cotangent as one vector; parameters without influence give zeros."""
    value = (output * cotangent).sum()
    gradients = torch.autograd.grad(
        value,
        parameters,
        create_graph=create_graph,
        retain_graph=retain_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    return torch.cat([gradient.reshape(-1) for gradient in gradients])
