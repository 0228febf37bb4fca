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


class AutogradJacobian:
    """J = d outputs / d theta of a batch by products; one graph: J^T c is linear in c, so its derivative gives J p.

    Args:
        outputs: with their graph to the parameters.
        parameters: what they depend on.
    """

    def __init__(self, outputs: Sequence[Tensor], parameters: Sequence[Tensor]) -> None:
        self.outputs, self.parameters = outputs, parameters
        self.cotangents = [torch.zeros_like(output, requires_grad=True) for output in outputs]
        self.pulled = self._pull(self.cotangents, create_graph=True)

    def push(self, p: Tensor) -> tuple[Tensor, ...]:
        """J p for a vector p of parameters, in the shapes of the outputs."""
        return torch.autograd.grad(self.pulled.dot(p), self.cotangents, retain_graph=True)

    def pull(self, *cotangents: Tensor) -> Tensor:
        """J^T c for cotangents in the shapes of the outputs."""
        return self._pull(cotangents)

    def _pull(self, cotangents: Sequence[Tensor], create_graph: bool = False) -> Tensor:
        total = torch.stack([(y * c).sum() for y, c in zip(self.outputs, cotangents, strict=True)]).sum()
        return flat_gradient(
            total, self.parameters, torch.ones_like(total), create_graph=create_graph, retain_graph=True
        )


def metric_product(control: Tensor, parameters: Sequence[Tensor], workers: Workers = ALONE) -> MetricProduct:
    """p -> F p for the control u of a batch, F = mean over walkers of (d_theta u)^T (d_theta u).

    Args:
        control: u (batch, particle, dim), with its graph to the parameters.
        parameters: what u depends on.
        workers: that share the walkers; one message for each product.
    """
    jacobian = AutogradJacobian([control], parameters)
    return lambda p: workers.average(jacobian.pull(jacobian.push(p)[0] / len(control)), len(control))


def conjugate_gradient(
    product: MetricProduct, target: Tensor, start: Tensor, damping: Tensor | float, n_iterations: int
) -> tuple[Tensor, Tensor]:
    """Solve (F + damping) x = target from `start`, for at most n_iterations; nothing here waits for the device.

    Returns:
        x and F x.
    """
    x = start
    residual = target - product(x) - damping * x
    direction, square = residual, residual.dot(residual)
    for _ in range(n_iterations):
        image = product(direction) + damping * direction
        curvature = direction.dot(image)
        step = torch.where(curvature > 0, square / curvature, 0.0)  # negative ones are those of rounding
        x = x + step * direction
        residual = residual - step * image
        square, previous = residual.dot(residual), square
        direction = residual + square / previous.clamp_min(torch.finfo(x.dtype).tiny) * direction
    return x, target - residual - damping * x


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
