"""Trial functions given by tables: log phi as a smooth function of each coordinate, of a distance, of two coordinates.

    Coordinates:  W(r) = sum_k W_k(x_k)      Central:  W(r) = w(log |r - c|)      SplineSurface:  W(r) = w(x_1, x_2)

A `Profile` is a function of one number: a quartic between any two knots, so that value, slope and curvature are
continuous where the potential is, and a parabola (or a line) beyond the last ones. Tables are evaluated in float64
whatever the dtype of the positions: in E_W they cancel potentials of any height.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.interpolate import BSpline
from scipy.ndimage import spline_filter
from torch import Tensor

from fkdrift.hamiltonian.trial_function import Derivatives, Term
from fkdrift.numerics.geometry import distance
from fkdrift.tensor_types import Positions


class Table(Protocol):
    """A term that is known in a part of space only."""

    def covers(self, r: Positions) -> Tensor:
        """Whether a position is where it is tabulated, (batch,)."""


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


MARGIN = 12  # points that a surface is continued beyond its edges


@dataclass(frozen=True, eq=False)
class SplineSurface(Term):
    """w(x_1, x_2) of two coordinates: a quintic spline on an even grid, flat in its second derivative beyond.

    Args:
        coefficients: of the B-splines, (n_1, n_2).
        start, step: of the grid along both coordinates, (2,).
    """

    coefficients: Tensor
    start: Tensor
    step: Tensor
    _moved: dict[torch.device, SplineSurface] = field(init=False, repr=False, default_factory=dict)

    @classmethod
    def through(cls, values: ArrayLike, start: ArrayLike, step: ArrayLike) -> SplineSurface:
        """The surface through values (n_1, n_2) on a grid, continued by a margin that keeps its slope."""
        wide = np.pad(np.asarray(values, dtype=float), MARGIN, mode="reflect", reflect_type="odd")
        step = torch.as_tensor(np.asarray(step, dtype=float))
        first = torch.as_tensor(np.asarray(start, dtype=float)) - MARGIN * step
        return cls(torch.as_tensor(spline_filter(wide, order=5, mode="mirror")), first, step)

    def __call__(self, r: Positions) -> Derivatives:
        table = self._on(r.device)
        x = r.double().flatten(1)
        u = (x - table.start) / table.step
        last = u.new_tensor(table.coefficients.shape) - 1 - MARGIN // 2
        inside = torch.minimum(u.clamp_min(MARGIN // 2), last)
        beyond = (u - inside) * table.step
        cell = inside.detach().floor()
        basis = [_quintic(inside - cell, order) for order in range(3)]  # each (batch, 2, 6)
        k = cell.long()[..., None] + torch.arange(-2, 4, device=r.device)
        c = table.coefficients[k[:, 0, :, None], k[:, 1, None, :]]
        (a, b), (da, db), (dda, ddb) = (each.unbind(1) for each in basis)
        h = table.step

        def sum_of(left: Tensor, right: Tensor) -> Tensor:
            return torch.einsum("bij,bi,bj->b", c, left, right)

        gradient = torch.stack([sum_of(da, b) / h[0], sum_of(a, db) / h[1]], -1)
        second = torch.stack([sum_of(dda, b) / h[0] ** 2, sum_of(a, ddb) / h[1] ** 2], -1)
        second = torch.where(beyond == 0, second, 0.0)
        value = sum_of(a, b) + (gradient * beyond).sum(-1)
        shape = r.shape[1:]
        laplacian = second.unflatten(-1, shape).sum(-1)
        return Derivatives(value.to(r.dtype), gradient.unflatten(-1, shape).to(r.dtype), laplacian.to(r.dtype))

    def covers(self, r: Positions) -> Tensor:
        """Whether both coordinates are on the grid, (batch,)."""
        table = self._on(r.device)
        u = (r.double().flatten(1) - table.start) / table.step - MARGIN
        last = u.new_tensor(table.coefficients.shape) - 1 - 2 * MARGIN
        return ((u >= 0) & (u <= last)).all(-1)

    def _on(self, device: torch.device) -> SplineSurface:
        if self.coefficients.device == device:
            return self
        if device not in self._moved:
            moved = (tensor.to(device) for tensor in (self.coefficients, self.start, self.step))
            self._moved[device] = SplineSurface(*moved)
        return self._moved[device]


def _quintic(u: Tensor, order: int) -> Tensor:
    """The six B-splines of degree 5 on a cell, or a derivative of theirs, at 0 <= u < 1 inside of it: (..., 6)."""
    matrix = torch.as_tensor(_quintic_matrix(order)).to(u)
    return (u[..., None] ** torch.arange(6, device=u.device)) @ matrix


@lru_cache
def _quintic_matrix(order: int) -> np.ndarray:
    """Powers of u to B-splines, (6, 6)."""
    spline = BSpline.basis_element(np.arange(7.0))
    u = np.linspace(0, 1, 6)
    u[-1] = 0.999999
    values = np.stack([spline.derivative(order)(u + 5 - k) if order else spline(u + 5 - k) for k in range(6)], 1)
    powers: np.ndarray = np.linalg.solve(np.vander(u, increasing=True), values)
    return powers
