"""A controlled diffusion and the reference measure it is weighed against.

    dr = [ h(r) + v(r) ] dt + sigma dB,      u = v / sigma,

h is the drift of the reference measure, v the learned drift on top of it.  With no reference drift (h = 0) this is
the process of Barr, Gispen and Lamacraft (2020); with h = sigma^2 grad log phi_ref it is its h-transform.  By
Girsanov, log dP_v / dP_ref = int u . dB + int |u|^2 / 2 dt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fkdrift.shapes import Positions
from fkdrift.system import Rates


@runtime_checkable
class Measure(Protocol):
    """A diffusion killed at a rate: what a learned process is compared with.  `System` is one."""

    sigma: Tensor

    def rates(self, r: Positions) -> Rates:
        """Drift h (batch, particle, dim) and killing rate (batch,) at r."""


@dataclass(frozen=True)
class FeynmanKac:
    """Brownian motion killed at the rate V: the measure of the plain Feynman-Kac formula, h = 0.

    Args:
        rate: V(r), (batch, particle, dim) to (batch,).
        sigma: (particle, 1), 1 / sqrt(mass).
    """

    rate: Callable[[Tensor], Tensor]
    sigma: Tensor

    def rates(self, r: Positions) -> Rates:
        return Rates(torch.zeros_like(r), self.rate(r))


@dataclass(frozen=True)
class Process:
    """A learned drift on top of a reference measure.

    Args:
        drift: v(r), any callable on (batch, particle, dim); a `Drift` module when it has parameters.
        reference: the measure that the process is compared with; it also gives sigma.

    Example:
        >>> system = System(load_potential("harmonic"))
        >>> process = Process(lambda r: torch.zeros_like(r), system)    # the reference is already exact here
        >>> process.velocity(torch.ones(1, 1, 1)).item()                # h = -omega r
        -1.0000...
    """

    drift: Callable[[Tensor], Tensor]
    reference: Measure

    @property
    def sigma(self) -> Tensor:
        """(particle, 1), 1 / sqrt(mass)."""
        return self.reference.sigma

    def velocity(self, r: Positions) -> Positions:
        """The whole drift h + v, equal to sigma^2 grad log phi_0 at the optimum."""
        return self.reference.rates(r).drift + self.drift(r)
