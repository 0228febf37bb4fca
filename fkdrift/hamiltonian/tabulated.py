"""Trial functions given by tables: log phi as a smooth function of each coordinate, or of the distance from a centre.

    Coordinates:  W(r) = sum_k W_k(x_k)              Central:  W(r) = w(log |r - c|)

A `Profile` is a function of one number: a quartic between any two knots, so that value, slope and curvature are
continuous where the potential is, and a parabola (or a line) beyond the last ones. Tables are evaluated in float64
whatever the dtype of the positions: in E_W they cancel potentials of any height.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fkdrift.hamiltonian.trial_function import Derivatives, Term
from fkdrift.numerics.geometry import distance
from fkdrift.tensor_types import Positions


@dataclass(frozen=True, eq=False)
class Profile:
    """A function of one number t, with its first two derivatives.

    Args:
        knots: (n,), increasing.
        coefficients: (n - 1, 5), powers of t - knot in each interval.
        before, after: (3,), powers of t - knot before the first knot and after the last one.
    """

    knots: Tensor
    coefficients: Tensor
    _base: Tensor = field(init=False, repr=False)
    _moved: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = field(init=False, repr=False, default_factory=dict)

    def __init__(self, knots: ArrayLike, coefficients: ArrayLike, before: ArrayLike, after: ArrayLike) -> None:
        t = torch.as_tensor(np.asarray(knots, dtype=float))
        outer = [np.append(np.asarray(row, dtype=float), [0.0, 0.0])[None] for row in (before, after)]
        table = np.concatenate([outer[0], np.asarray(coefficients, dtype=float), outer[1]])
        object.__setattr__(self, "knots", t)
        object.__setattr__(self, "coefficients", torch.as_tensor(table))
        object.__setattr__(self, "_base", torch.cat([t[:1], t]))
        object.__setattr__(self, "_moved", {})

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(w, w', w'') at float64 numbers t of any shape."""
        knots, table, base = self._on(t.device)
        k = torch.searchsorted(knots, t.detach().contiguous())
        c0, c1, c2, c3, c4 = table[k].unbind(-1)
        d = t - base[k]
        value = c0 + d * (c1 + d * (c2 + d * (c3 + d * c4)))
        slope = c1 + d * (2 * c2 + d * (3 * c3 + d * (4 * c4)))
        return value, slope, 2 * c2 + d * (6 * c3 + d * (12 * c4))

    def covers(self, t: Tensor) -> Tensor:
        """Whether t is between the first and the last knot."""
        knots, _, _ = self._on(t.device)
        return (t >= knots[0]) & (t <= knots[-1])

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        if device not in self._moved:
            self._moved[device] = (self.knots.to(device), self.coefficients.to(device), self._base.to(device))
        return self._moved[device]


@dataclass(frozen=True, eq=False)
class Coordinates(Term):
    """sum_k W_k(x_k): a product of functions of one coordinate each, the Hartree form.

    Args:
        profiles: different functions of a coordinate.
        index: nested tuples (particle, dim), which of them belongs to each coordinate.
    """

    profiles: Sequence[Profile]
    index: tuple[tuple[int, ...], ...]

    def __call__(self, r: Positions) -> Derivatives:
        x = r.double()
        value, gradient, curvature = (torch.zeros_like(x) for _ in range(3))
        for k, profile in enumerate(self.profiles):
            if len(self.profiles) == 1:
                value, gradient, curvature = profile(x)
                break
            here = torch.tensor([[j == k for j in row] for row in self.index], device=r.device)
            parts = profile(x)
            value, gradient, curvature = (
                torch.where(here, new, old) for new, old in zip(parts, (value, gradient, curvature), strict=True)
            )
        return Derivatives(value.sum((-2, -1)).to(r.dtype), gradient.to(r.dtype), curvature.sum(-1).to(r.dtype))

    def covers(self, r: Positions) -> Tensor:
        """Whether every coordinate is where its function is tabulated, (batch,)."""
        x = r.double()
        inside = torch.ones_like(x, dtype=torch.bool)
        for k, profile in enumerate(self.profiles):
            here = torch.tensor([[j == k for j in row] for row in self.index], device=r.device)
            inside = inside & (profile.covers(x) | ~here)
        return inside.all(-1).all(-1)


@dataclass(frozen=True, eq=False)
class Central(Term):
    """w(log |r - c|) of one particle in two dimensions or more.

    Args:
        profile: w as a function of the logarithm of the distance.
        centre: c, (dim,).
    """

    profile: Profile
    centre: tuple[float, ...]

    def __call__(self, r: Positions) -> Derivatives:
        x = r.double() - torch.tensor(self.centre, dtype=torch.float64, device=r.device)
        d = distance(x)
        w, slope, curvature = self.profile(d.log())
        gradient = (slope / d.square())[..., None] * x
        laplacian = (curvature + (r.shape[-1] - 2) * slope) / d.square()
        return Derivatives(w.sum(-1).to(r.dtype), gradient.to(r.dtype), laplacian.to(r.dtype))

    def covers(self, r: Positions) -> Tensor:
        """Whether the distance is not beyond the table, (batch,)."""
        d = distance(r.double() - torch.tensor(self.centre, dtype=torch.float64, device=r.device))
        return (d.log() <= self.profile.knots[-1].item()).all(-1)
