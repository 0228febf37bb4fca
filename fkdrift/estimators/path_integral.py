"""The discretised path integral: a partition function of ring polymers with P beads for each particle.

    Z = Tr exp(-beta H) ~ sum over permutations of int dR_1 ... dR_P exp(-K - U),          tau = beta / P

    K = sum_s sum_i m_i |r_i(s+1) - r_i(s)|^2 / (2 tau),      U = tau sum_s w_s [ V(R_s) + g_s tau^2 F(R_s) ],

with F = sum_i |grad_i V|^2 / m_i = [V, [T, V]].  Slices alternate between the kinds of an `Action`:

primitive       w = 1,  g = 0: from exp(-tau V/2) exp(-tau T) exp(-tau V/2); errors of order tau^2.
fourth-order    two slices for one factorisation of exp(-2 tau H),
                    exp(-tau V/3) exp(-tau T) exp(-(4/3) tau (V + tau^2 [V, [T, V]]/12)) exp(-tau T) exp(-tau V/3),
                so w = 2/3, 4/3 and g = 0, 1/12.  The operator itself is right to fourth order, not only its trace: the
                slices of the first kind are distributed as <R| exp(-beta H) |R> to that order, and functions of the
                positions are averaged over these.

Reference: M. Suzuki, Phys. Lett. A 201, 425 (1995); S. A. Chin, Phys. Lett. A 226, 344 (1997); S. Jang, S. Jang and
G. A. Voth, J. Chem. Phys. 115, 7832 (2001).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fkdrift.hamiltonian.potential import Potential


@dataclass(frozen=True)
class Action:
    """How the potential enters the action at the kinds of slices, which alternate.

    Args:
        name: how it is asked for.
        weights: w of each kind.
        forces: g of each kind.
        order: the power of tau in the error of the energy.
        step: tau times the largest frequency by which P is chosen, for an error of the energy of about 1e-4.
    """

    name: str
    weights: tuple[float, ...]
    forces: tuple[float, ...]
    order: int
    step: float

    @property
    def period(self) -> int:
        """How many kinds of slices there are; P is a multiple of it."""
        return len(self.weights)


PRIMITIVE = Action("primitive", (1.0,), (0.0,), 2, 0.1)
FOURTH_ORDER = Action("fourth-order", (2 / 3, 4 / 3), (0.0, 1 / 12), 4, 0.3)
ACTIONS = {action.name: action for action in (FOURTH_ORDER, PRIMITIVE)}


class Parts(NamedTuple):
    """w V and w g F at every slice, (batch, slice): U = tau sum_s (potential + tau^2 force)."""

    potential: Tensor
    force: Tensor

    def action(self, tau: float) -> Tensor:
        """What each slice contributes to U, (batch, slice)."""
        return tau * (self.potential + tau**2 * self.force)


class SliceAction:
    """w V and w g F of a potential at the slices of paths.

    Args:
        potential: V(r); outside its domain it counts as infinite.
        action: weights.
        variance: (particle, 1), 1 / m.
    """

    def __init__(self, potential: Potential, action: Action, variance: Tensor) -> None:
        self.potential, self.action, self.variance = potential, action, variance
        self.limits = None if potential.domain is None else variance.new_tensor(potential.domain).T

    def __call__(self, r: Tensor, first: int = 0) -> Parts:
        """The parts at every slice.

        Args:
            r: (batch, slice, particle, dim).
            first: the kind of the first slice.
        """
        weights, forces = self.action.weights, self.action.forces
        period = self.action.period
        parts = Parts(r.new_zeros(r.shape[:2]), r.new_zeros(r.shape[:2]))
        for kind, (w, g) in enumerate(zip(weights, forces, strict=True)):
            slices = slice((kind - first) % period, None, period)
            chosen = r[:, slices]
            if not chosen.numel():
                continue
            flat = chosen.flatten(0, 1)
            V, F = self._force(flat) if g else (self._value(flat), None)
            parts.potential[:, slices] = w * V.reshape(chosen.shape[:2])
            if F is not None:
                parts.force[:, slices] = w * g * F.reshape(chosen.shape[:2])
        return parts

    @torch.no_grad()
    def _value(self, r: Tensor) -> Tensor:
        """V, (batch,)."""
        if self.limits is None:
            return self.potential(r)
        inside = r.clamp(*self.limits)
        return self.potential(inside).where((inside == r).all(-1).all(-1), math.inf)

    def _force(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """V and F = sum_i |grad_i V|^2 / m_i, (batch,) each."""
        with torch.enable_grad():
            x = (r if self.limits is None else r.clamp(*self.limits)).detach().requires_grad_()
            V = self.potential(x)
            (gradient,) = torch.autograd.grad(V.sum(), x)
        V = V.detach()
        if self.limits is not None:
            V = V.where((x.detach() == r).all(-1).all(-1), math.inf)
        return V, (self.variance * gradient.square()).sum((-2, -1))


def brownian_bridge(start: Tensor, end: Tensor, n_steps: int, variance: Tensor, generator: torch.Generator) -> Tensor:
    """Free paths between fixed ends: the n_steps - 1 points between them, (..., n_steps - 1, dim).

    With W a random walk of n_steps steps of the given variance, r_k = start + W_k + (k / n_steps)(end - start - W_n):
    all points at once, distributed as exp(-K) is.

    Args:
        start, end: (..., dim).
        n_steps: links between them.
        variance: (...), tau / m of each path.
        generator: source of the noise.

    Reference: P. Levy, Compositio Mathematica 7, 283 (1939).
    """
    shape = (*start.shape[:-1], n_steps, start.shape[-1])
    noise = torch.randn(shape, generator=generator, dtype=start.dtype, device=start.device)
    W = (variance.sqrt()[..., None, None] * noise).cumsum(-2)
    share = torch.arange(1, n_steps, dtype=start.dtype, device=start.device)[:, None] / n_steps
    return start[..., None, :] + W[..., :-1, :] + share * (end - start - W[..., -1, :])[..., None, :]


def oscillator_energy(beta: float, n_slices: int, action: Action, omega: float = 1.0) -> float:
    """The energy -d ln Z / d beta of an oscillator with a finite number of slices, in closed form.

    One step of each kind multiplies (x, p) by a matrix of determinant 1; if the product M over a period has trace
    2 cosh theta, Z = 1 / (2 sinh(P theta / (2 period))).

    Args:
        beta: 1 / temperature.
        n_slices: P.
        action: primitive or fourth-order.
        omega: frequency.

    Example:
        >>> round(oscillator_energy(2.0, 8, PRIMITIVE), 8), round(oscillator_energy(2.0, 8, FOURTH_ORDER), 6)
        (0.65238009, 0.656476)
    """

    def log_Z(beta: float) -> float:
        tau = beta / n_slices
        M = torch.eye(2, dtype=torch.float64)
        for w, g in zip(action.weights, action.forces, strict=True):
            k = tau * omega**2 * w * (1 + 2 * g * tau**2 * omega**2)
            M = M @ torch.tensor([[1.0, tau], [0.0, 1.0]], dtype=torch.float64)
            M = M @ torch.tensor([[1.0, 0.0], [k, 1.0]], dtype=torch.float64)
        theta = math.acosh(M.trace().item() / 2)
        return -math.log(2 * math.sinh(n_slices / action.period * theta / 2))

    h = 1e-3 * beta
    return -(8 * (log_Z(beta + h) - log_Z(beta - h)) - (log_Z(beta + 2 * h) - log_Z(beta - 2 * h))) / (12 * h)
