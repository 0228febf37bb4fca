"""What the models are made of: densities and conditional densities, as protocols.

    Density   p(x)         sample(n), log_prob(x), score(x) = grad log p
    Kernel    p(x | c)     rsample(c), log_prob(x, c)

Whatever the shape of a datum, `log_prob` sums over all of it: (batch, ...) gives (batch,) exactly.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fkdrift.numerics.differentiation import value_and_gradient


@runtime_checkable
class Density(Protocol):
    """A normalised density that can be sampled.

    Attributes:
        smoothness: how many continuous derivatives log p has.  A score needs 1, a local energy 2; what is smooth
            without limit says `SMOOTH`.
    """

    smoothness: int

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n independent samples (n, ...), differentiable in the parameters where that is possible."""

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), (batch, ...) to (batch,), nats."""

    def score(self, x: Tensor) -> Tensor:
        """grad_x log p(x), shape of x; differentiable once more where smoothness >= 2."""


@runtime_checkable
class Kernel(Protocol):
    """A normalised conditional density p(x | c)."""

    def rsample(self, cond: Tensor, generator: torch.Generator) -> Tensor:
        """One x for each condition (batch, ...); differentiable in c and the parameters where x is continuous."""

    def log_prob(self, x: Tensor, cond: Tensor) -> Tensor:
        """log p(x | c), (batch,), nats."""


SMOOTH = 1_000
"""The smoothness of what is smooth without limit."""


def score(density: Density, x: Tensor) -> Tensor:
    """grad_x log p(x) by differentiation; differentiable itself unless under torch.no_grad().

    Example:
        >>> normal = fk.generative.Mixture(torch.zeros(1, 3), width=1.0)
        >>> score(normal, torch.ones(1, 3)).detach()
        tensor([[-1., -1., -1.]])
    """
    return value_and_gradient(density.log_prob, x)[1]
