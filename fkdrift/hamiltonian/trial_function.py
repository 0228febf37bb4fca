"""Trial functions: W(r) = log phi_ref(r) as a sum of terms whose derivatives are known in closed form.

A reference turns the singular potential into the bounded cost of the h-transformed process,

    E_W = V - sum_i sigma_i^2 (|grad_i W|^2 + lap_i W) / 2,

and h = sigma^2 grad W into its drift.  Kato's cusp conditions make E_W bounded: slope -Z at a nucleus,
+1/2 where two electrons of opposite spin meet.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fkdrift.numerics.differentiation import curvatures
from fkdrift.numerics.geometry import distance, nearest_image, pair_indices, pair_vectors
from fkdrift.tensor_types import PerParticle, PerWalker, Positions


class Derivatives(NamedTuple):
    """W (batch,), its gradient (batch, particle, dim) and Laplacian for each particle (batch, particle)."""

    value: PerWalker
    gradient: Positions
    laplacian: PerParticle


def reference_energy(V: PerWalker, W: Derivatives, variance: Tensor) -> PerWalker:
    """E_W = V - sum_i sigma_i^2 (|grad_i W|^2 + lap_i W) / 2, the local energy of phi_ref, (batch,).

    Args:
        V: the potential, (batch,).
        W: derivatives of the trial function at the same positions.
        variance: sigma_i^2 = 1 / m_i, (particle,).
    """
    return V - (variance * (W.gradient.square().sum(-1) + W.laplacian)).sum(-1) / 2


class Radial(ABC):
    """A function w(d) of a distance d with its first two derivatives."""

    @abstractmethod
    def __call__(self, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(w, w', w'') at distances d of any shape."""


@dataclass(frozen=True)
class Cusp(Radial):
    """w = slope d / (1 + screening d): slope at contact, saturating beyond 1 / screening."""

    slope: float
    screening: float = 0.0

    def __call__(self, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        screen = 1 / (1 + self.screening * d)
        slope = self.slope * screen.square()
        return self.slope * d * screen, slope, -2 * self.screening * slope * screen


@dataclass(frozen=True)
class Envelope(Radial):
    """w = -decay (sqrt(d^2 + core^2) - core): flat at d = 0, decaying like exp(-decay d) far away."""

    decay: float
    core: float = 1.0

    def __call__(self, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        root = (d.square() + self.core**2).sqrt()
        return -self.decay * (root - self.core), -self.decay * d / root, -self.decay * self.core**2 / root.pow(3)


@dataclass(frozen=True)
class Logarithm(Radial):
    """w = power log d: phi_ref vanishes like d^power, as for a 1/d^2 repulsion."""

    power: float

    def __call__(self, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.power * d.log(), self.power / d, -self.power / d.square()


@dataclass(frozen=True)
class Hole(Radial):
    """w = -depth / (1 + d^2 / radius^2): particles that repel softly keep apart; flat at d = 0, gone far away."""

    depth: float
    radius: float

    def __call__(self, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = d / self.radius
        share = 1 / (1 + x.square())
        slope = 2 * self.depth / self.radius * x * share.square()
        curvature = 2 * self.depth / self.radius**2 * (1 - 3 * x.square()) * share.pow(3)
        return -self.depth * share, slope, curvature


class Term(ABC):
    """One term of W."""

    @abstractmethod
    def __call__(self, r: Positions) -> Derivatives:
        """Value, gradient and per-particle Laplacian."""

    def value(self, r: Positions) -> PerWalker:
        """The value alone."""
        return self(r).value

    def value_and_gradient(self, r: Positions) -> tuple[PerWalker, Positions]:
        """What a Metropolis step needs."""
        return self(r)[:2]


@dataclass(frozen=True)
class Gaussian(Term):
    """-sum (r - centre)^2 / (4 width^2): |phi_ref|^2 is a normal density with these means and widths.

    Args:
        centre, width: nested tuples (particle, dim); a single row stands for every particle.
    """

    centre: tuple[tuple[float, ...], ...]
    width: tuple[tuple[float, ...], ...]

    def __call__(self, r: Positions) -> Derivatives:
        stiffness = 0.5 * r.new_tensor(self.width).pow(-2)
        x = r - r.new_tensor(self.centre)
        gradient = -stiffness * x
        laplacian = -stiffness.sum(-1).expand(r.shape[:-1])
        return Derivatives(0.5 * (gradient * x).sum((-2, -1)), gradient, laplacian)


@dataclass(frozen=True)
class OneBody(Term):
    """sum_i w(|r_i - point|): one radial function around one fixed point, for every particle."""

    radial: Radial
    point: tuple[float, ...]

    def __call__(self, r: Positions) -> Derivatives:
        x = r - r.new_tensor(self.point)
        w, gradient, laplacian, _ = _radial(self.radial, x)
        return Derivatives(w.sum(-1), gradient, laplacian)

    def value(self, r: Positions) -> PerWalker:
        return self.radial(distance(r - r.new_tensor(self.point)))[0].sum(-1)


@dataclass(frozen=True)
class LogSum(Term):
    """sum_i log sum_A exp w(|r_i - A|): the logarithm of an orbital summed over centres.

    With a smooth w it changes no cusp.  `LogSum(Envelope(-1.0), nuclei)` undoes, near each nucleus, the slope of
    the other nuclei's exp(-|r - B|), so that a molecule pulled apart becomes atoms.
    """

    radial: Radial
    points: tuple[tuple[float, ...], ...]

    def __call__(self, r: Positions) -> Derivatives:
        x = r[..., None, :] - r.new_tensor(self.points)  # (batch, particle, centre, dim)
        w, push, second, slope = _radial(self.radial, x)
        weight = w.softmax(-1)
        gradient = (weight[..., None] * push).sum(-2)
        laplacian = (weight * (second + slope.square())).sum(-1) - gradient.square().sum(-1)
        return Derivatives(w.logsumexp(-1).sum(-1), gradient, laplacian)

    def value(self, r: Positions) -> PerWalker:
        return self.radial(distance(r[..., None, :] - r.new_tensor(self.points)))[0].logsumexp(-1).sum(-1)


@dataclass(frozen=True)
class Pair(Term):
    """sum_{i<j} w(|r_i - r_j|) over all pairs of particles.

    Args:
        radial: w.
        box: period along each dimension, where distances are to the nearest image; w must be flat from half of it on.
    """

    radial: Radial
    box: tuple[float, ...] | None = None

    def __call__(self, r: Positions) -> Derivatives:
        i, j = pair_indices(r.shape[-2], r.device)
        x = nearest_image(pair_vectors(r), self.box)
        w, force, second, _ = _radial(self.radial, x)
        gradient = torch.zeros_like(r).index_add(-2, i, force).index_add(-2, j, -force)
        laplacian = torch.zeros_like(r[..., 0]).index_add(-1, i, second).index_add(-1, j, second)
        return Derivatives(w.sum(-1), gradient, laplacian)

    def value(self, r: Positions) -> PerWalker:
        return self.radial(distance(nearest_image(pair_vectors(r), self.box)))[0].sum(-1)


@dataclass(frozen=True)
class Among(Term):
    """A term of some of the particles only.

    Args:
        term: of those particles.
        particles: which ones.
    """

    term: Term
    particles: tuple[int, ...]

    def __call__(self, r: Positions) -> Derivatives:
        index = torch.tensor(self.particles, device=r.device)
        value, gradient, laplacian = self.term(r.index_select(1, index))
        gradient = torch.zeros_like(r).index_add(1, index, gradient)
        return Derivatives(value, gradient, torch.zeros_like(r[..., 0]).index_add(1, index, laplacian))

    def value(self, r: Positions) -> PerWalker:
        return self.term.value(r.index_select(1, torch.tensor(self.particles, device=r.device)))


@dataclass(frozen=True)
class Smooth(Term):
    """Any twice differentiable function (batch, particle, dim) -> (batch,); derivatives by autograd (slower)."""

    function: Callable[[Tensor], Tensor]

    def __call__(self, r: Positions) -> Derivatives:
        with torch.set_grad_enabled(r.requires_grad):
            value, gradient, second = curvatures(self.function, r)
        return Derivatives(value, gradient, second.sum(-1))

    def value(self, r: Positions) -> PerWalker:
        return self.function(r)


@dataclass(frozen=True)
class TrialFunction:
    """W(r) = log phi_ref(r), a sum of terms.

    Example:
        >>> W = TrialFunction((OneBody(Cusp(-1.0), (0.0, 0.0, 0.0)),))     # log of the hydrogen ground state
        >>> value, gradient, laplacian = W.derivatives(torch.tensor([[[0.0, 0.0, 2.0]]]))
        >>> value.item(), laplacian.item()                              # -r and -2/r
        (-2.0, -1.0)
    """

    terms: tuple[Term, ...]

    def __call__(self, r: Positions) -> PerWalker:
        """W(r), shape (batch,)."""
        return torch.stack([term.value(r) for term in self.terms]).sum(0)

    def value_and_gradient(self, r: Positions) -> tuple[PerWalker, Positions]:
        """W and grad W."""
        values, gradients = zip(*(term.value_and_gradient(r) for term in self.terms), strict=True)
        return torch.stack(values).sum(0), torch.stack(gradients).sum(0)

    def derivatives(self, r: Positions) -> Derivatives:
        """W, grad W and the Laplacian of W for each particle."""
        parts = [term(r) for term in self.terms]
        if len(parts) == 1:
            return parts[0]
        return Derivatives(*(torch.stack(part).sum(0) for part in zip(*parts, strict=True)))


def random_walk(W: TrialFunction, r: Positions, n_steps: int, generator: torch.Generator) -> Positions:
    """Positions of |phi_ref|^2, each by its own random-walk Metropolis chain of n_steps from r (float64).

    The step is tuned to an acceptance of one half over the first half of the chain.
    """
    value = W(r)
    step = 1.0 / (r.shape[1] * r.shape[2]) ** 0.5
    for k in range(n_steps):
        proposal = r + step * torch.randn(r.shape, generator=generator, dtype=torch.float64)
        new = W(proposal)
        accept = torch.rand(len(r), generator=generator, dtype=torch.float64).log() < 2 * (new - value)
        r, value = torch.where(accept[:, None, None], proposal, r), torch.where(accept, new, value)
        if k < n_steps // 2:
            step *= 1.1 if accept.double().mean() > 0.5 else 1 / 1.1
    return r


def _radial(radial: Radial, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """w(|x|), its gradient, its Laplacian, and w'."""
    d = distance(x)
    w, slope, curvature = radial(d)
    over = slope / d
    return w, over[..., None] * x, curvature + (x.shape[-1] - 1) * over, slope
