"""One coordinate and a first look at its potential: the minimum, the walls, and where the continuum starts.

    number of levels below E  =  int sqrt(2 m (E - V)) dx / pi          (semiclassical)

V is evaluated on points whose distances from the minimum grow by a constant ratio, from 1e-7 to 1e6, so that wells of
any width at any place are seen, and what V does far away is known before anything is solved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from fkdrift.errors import BadParameter, Unbound
from fkdrift.exact.spectrum import Array

FAR = 1e6  # how far from the minimum V is looked at


@dataclass(frozen=True)
class Coordinate:
    """One coordinate x: its potential V (n,) -> (n,), its mass, its ends.

    Attributes:
        n_dims: None for a coordinate on a line; d for the distance from the origin in d dimensions.
        momentum: angular momentum l of a distance (in one dimension: 0 for even, 1 for odd states).
    """

    V: Callable[[Array], Array]
    mass: float = 1.0
    low: float = -np.inf
    high: float = np.inf
    n_dims: int | None = None
    momentum: int = 0

    def effective(self, x: Array) -> Array:
        """V plus the centrifugal term; +inf stands for a wall and for a place where V is not a number."""
        with np.errstate(all="ignore"):
            V = self.V(x)
            if self.n_dims is not None and self.momentum:
                V = V + self.momentum * (self.momentum + self.n_dims - 2) / (2 * self.mass * x**2)
        return V

    def weight(self, x: Array) -> Array:
        return np.ones_like(x) if self.n_dims is None else x ** (self.n_dims - 1)


@dataclass(frozen=True)
class PotentialScan:
    """V on a scan of points that is dense near its minimum and reaches FAR away."""

    x: Array
    V: Array
    mass: float
    threshold: float  # inf where both ends are walls

    def lowest(self, E0: float) -> float:
        """The minimum of V, but not deeper below E0 than E0 is below zero in a singular well."""
        bottom = float(self.V.min())
        return max(bottom, E0 - 10 * abs(E0) - 1e-300) if bottom < -1e3 * abs(E0) else bottom

    def count(self, E: float) -> float:
        """Number of levels below E in the semiclassical approximation, int sqrt(2m(E - V)) dx / pi."""
        return float(np.trapezoid(np.sqrt(2 * self.mass * np.maximum(E - self.V, 0)), self.x) / np.pi)

    def energy_of(self, count: float) -> float:
        """The energy below which there are about `count` levels, at most the threshold."""
        low = float(self.V.min())
        if np.isfinite(self.threshold) and self.count(self.threshold) <= count:
            return self.threshold
        step = 1e-3 * (np.pi / np.ptp(self.x)) ** 2 / self.mass
        while self.count(low + step) < count:
            step *= 4
        high = min(low + step, self.threshold)
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.count(middle) < count else (low, middle)
        return high


def scan(line: Coordinate) -> PotentialScan:
    """Scan V: find its minimum, its walls, and its height far away."""
    x = _scan_points(line, 0.0)
    V = line.effective(x)
    if not np.isfinite(V).any():
        raise BadParameter("V is nowhere a finite number; it must be finite where the particle is")
    bare = line.n_dims is None
    if bare:
        centre = _minimum(line, x, np.where(np.isnan(V), np.inf, V))
        if abs(centre) > 0.9 * FAR and V[np.argmin(np.abs(x - centre / 10))] > V.min() + 1e-6 * abs(V.min()):
            raise Unbound(_FALLS.format(V=V.min(), x=abs(centre)))
        x = _scan_points(line, centre)
        V = line.effective(x)
    endless = np.isneginf(V)
    if endless.any():
        raise Unbound(f"V = -infinity at x = {x[endless][0]:.6g}: a potential on a line must be bounded below")
    x, V = _between_walls(line, x, V)
    threshold = min([_far(line, side * (x - x[np.argmin(V)]), V) for side in _open_sides(line, x, V)], default=np.inf)
    if np.isfinite(threshold) and threshold - V.min() <= 1e-12 * max(abs(threshold), abs(V.min())):
        raise Unbound(
            f"V does not confine: its lowest value {V.min():.6g} is not below its value {threshold:.6g} far away, so "
            "there is no bound state; give a box (hard walls), a periodic box, or a potential with a well"
        )
    return PotentialScan(x, np.minimum(V, 1e200), line.mass, float(threshold))


_FALLS = (
    "V falls without limit, to {V:.3g} at a distance {x:.0e}: a ground state needs a potential that is bounded below "
    "and rises, or goes to a constant above its minimum, in every direction"
)


def _open_sides(line: Coordinate, x: Array, V: Array) -> list[int]:
    """-1 and +1 for the directions in which the scan met no wall."""
    centre = x[np.argmin(V)]
    left = line.n_dims is None and line.low == -np.inf and x[0] < centre - FAR / 2
    right = line.high == np.inf and x[-1] > centre + FAR / 2
    return [side for side, is_open in ((-1, left), (1, right)) if is_open]


def _far(line: Coordinate, away: Array, V: Array) -> float:
    """The height at which the continuum starts on one side; inf if V still rises there."""
    outer, inner = (V[(away > FAR / ratio) & (away <= 10 * FAR / ratio)] for ratio in (10, 100))
    change = outer.min() - inner.min()
    if change < -1e-3 * max(abs(inner.min()), abs(outer.min())) and outer.min() <= V.min():
        raise Unbound(_FALLS.format(V=outer.min(), x=FAR))
    if change > 0.01 * (outer.min() - V.min()):
        return np.inf
    end, tenth = V[np.argmax(away)], V[np.argmin(np.abs(away - away.max() / 10))]
    limit = end + (end - tenth) / 9 if change > 0 else outer.min()  # exact for a tail like 1/x
    return 0.0 if abs(limit) < 1e-9 * abs(V.min()) else float(limit)


def _scan_points(line: Coordinate, centre: float) -> Array:
    """Points spaced by a constant ratio around `centre`, between the ends of the line."""
    away = np.geomspace(1e-7, FAR, 4501)
    if line.n_dims is not None:
        return away[away < line.high] if np.isinf(line.high) else np.append(away[away < line.high], line.high)
    low, high = max(line.low, -2 * FAR), min(line.high, 2 * FAR)
    even = np.linspace(low, high, 2001) if np.isfinite([line.low, line.high]).all() else np.empty(0)
    x = np.unique(np.concatenate([centre - away, [centre], centre + away, even]))
    ends = [end for end in (line.low, line.high) if np.isfinite(end)]
    return np.unique(np.concatenate([x[(x > line.low) & (x < line.high)], ends]))


def _minimum(line: Coordinate, x: Array, V: Array) -> float:
    """Where V is lowest, refined between scan points."""
    k = int(np.argmin(V))
    bounds = (x[max(k - 1, 0)], x[min(k + 1, len(x) - 1)])
    found = minimize_scalar(lambda z: float(line.effective(np.array([z]))[0]), bounds=bounds, method="bounded")
    return float(found.x if found.fun < V[k] else x[k])


def _between_walls(line: Coordinate, x: Array, V: Array) -> tuple[Array, Array]:
    """Keep the part around the minimum where V is finite, its ends placed on the walls by bisection."""
    finite = np.isfinite(V)
    if finite.all():
        return x, V
    k = int(np.argmin(np.where(finite, V, np.inf)))
    bad = np.flatnonzero(~finite)
    left, right = bad[bad < k].max(initial=-1), bad[bad > k].min(initial=len(x))
    keep_x, keep_V = x[left + 1 : right], V[left + 1 : right]
    for outside, inside, front in ((left, left + 1, True), (right, right - 1, False)):
        if not 0 <= outside < len(x):
            continue
        a, b = x[inside], x[outside]
        for _ in range(60):
            middle = 0.5 * (a + b)
            a, b = (middle, b) if np.isfinite(line.effective(np.array([middle]))[0]) else (a, middle)
        if np.isnan(V[outside]) and V[inside] < V[k] + 0.5 * (np.max(keep_V) - V[k]):
            raise BadParameter(
                f"V is not a number (NaN) at x = {b:.6g}; it must be a number wherever it is finite nearby"
            )
        wall = (np.array([a]), line.effective(np.array([a])))
        parts = ((wall[0], keep_x), (wall[1], keep_V)) if front else ((keep_x, wall[0]), (keep_V, wall[1]))
        keep_x, keep_V = np.concatenate(parts[0]), np.concatenate(parts[1])
    keep_x, index = np.unique(keep_x, return_index=True)
    return keep_x, keep_V[index]
