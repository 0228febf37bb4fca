"""A controlled diffusion and the reference measure it is weighed against.

    dr = [ h(r) + v(r) ] dt + sigma dB,      u = v / sigma,

h is the drift of the reference measure, v the learned drift on top of it.  With no reference drift (h = 0) this is
the process of Barr, Gispen and Lamacraft (2020); with h = sigma^2 grad log phi_ref it is its h-transform.  By
Girsanov, log dP_v / dP_ref = int u . dB + int |u|^2 / 2 dt.  Whatever depends on time is bound by `at(t)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fkdrift.hamiltonian.system import Rates, System
from fkdrift.numerics.workers import ALONE, Workers
from fkdrift.tensor_types import Positions


@runtime_checkable
class ReferenceMeasure(Protocol):
    """A diffusion killed at a rate: what a learned process is compared with.  `System` is one."""

    @property
    def sigma(self) -> Tensor:
        """(particle, 1), 1 / sqrt(mass)."""

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
class Overdamped:
    """The free diffusion in a potential, dr = -(sigma^2 / 2 kT) grad U dt + sigma dB.

    Its stationary law is exp(-U / kT); it is the h-transform with phi_ref = exp(-U / 2 kT), and nothing kills it.

    Args:
        potential: U(r), (batch, particle, dim) to (batch,), differentiable.
        sigma: (particle, 1).
        temperature: kT.
    """

    potential: Callable[[Tensor], Tensor]
    sigma: Tensor
    temperature: float = 1.0

    def rates(self, r: Positions) -> Rates:
        with torch.enable_grad():
            x = r if r.requires_grad else r.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.potential(x).sum(), x, create_graph=r.requires_grad)
        return Rates(-self.sigma.square() / (2 * self.temperature) * gradient, r.new_zeros(len(r)))


@dataclass(frozen=True)
class Process:
    """A learned drift on top of a reference measure.

    Args:
        drift: v(r), any callable on (batch, particle, dim); a `Drift` module when it has parameters.
        reference: the measure that the process is compared with; it also gives sigma.
        workers: the computer's processes that walkers are shared among; means are over all of them.

    Example:
        >>> system = fk.System(fk.load_potential("harmonic"))
        >>> process = Process(lambda r: torch.zeros_like(r), system)    # the reference is already exact here
        >>> process.velocity(torch.ones(1, 1, 1)).item()                # h = -omega r
        -1.0000...
    """

    drift: Callable[[Tensor], Tensor]
    reference: ReferenceMeasure
    workers: Workers = ALONE

    @property
    def sigma(self) -> Tensor:
        """(particle, 1), 1 / sqrt(mass)."""
        return self.reference.sigma

    def velocity(self, r: Positions) -> Positions:
        """The whole drift h + v, equal to sigma^2 grad log phi_0 at the optimum."""
        return self.reference.rates(r).drift + self.drift(r)

    def at_rest(self, u: Positions) -> Positions:
        """u in units of the noise, dr = sigma u, without what moves the centre of mass of a free system."""
        return self.reference.at_rest(u) if isinstance(self.reference, System) else u

    def at(self, t: Tensor) -> Process:
        """The process at time t: itself, since nothing in it depends on time."""
        return self


@dataclass(frozen=True)
class TimedProcess:
    """A process that depends on time, dr = [h(t, r) + v(t, r)] dt + sigma(t) dB.

    Args:
        drift: v(t, r), from the time (a scalar tensor) and positions (batch, particle, dim).
        reference: the measure it is compared with, or a function of the time that returns one.

    Example:
        >>> brownian = FeynmanKac(lambda r: 0 * r.sum((-2, -1)), torch.ones(1, 1))
        >>> bridge = TimedProcess(lambda t, r: -r / (1 - t), brownian)       # Brownian motion pinned to 0 at t = 1
        >>> bridge.at(torch.tensor(0.5)).velocity(torch.ones(1, 1, 1)).item()
        -2.0
    """

    drift: Callable[[Tensor, Tensor], Tensor]
    reference: ReferenceMeasure | Callable[[Tensor], ReferenceMeasure]

    def at(self, t: Tensor) -> Process:
        """The process with its time held fixed."""
        fixed = hasattr(self.reference, "rates")
        return Process(partial(self.drift, t), self.reference if fixed else self.reference(t))  # type: ignore
