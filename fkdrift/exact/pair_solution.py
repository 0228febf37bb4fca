"""The radial factor f(r) of one pair and its logarithmic slope, from which correlated functions of particles are made.

    -(1/2 mu) (f'' + 2 f'/r) + u f = e f,      q = d log f/d log r,      dq/d log r = 2 mu r^2 (u - e) - q - q^2

With e the energy of the lowest bound state f is that state; with e = 0, where nothing is bound, it is the nodeless
scattering state of zero energy.  The Riccati equation for q is integrated outwards from the core, and for a bound state
inwards from its tail, each in the direction in which errors die out, so f has its relative accuracy everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicHermiteSpline

from fkdrift.exact.spectrum import Array

ACTION = 25.0  # int sqrt(2 mu (u - e)) dr from where u = e to the ends of the table
FARTHEST = 1e4  # end of the table of an unbound pair, in distances of the minimum
SPACING = 0.004  # of the table, in log r
PRECISION = 1e-11  # of the integration


@dataclass(frozen=True)
class PairSolution:
    """f of one pair, tabulated in log r.

    Attributes:
        e: its energy.
        mass: the reduced mass.
        distance: where u is lowest.
    """

    e: float
    mass: float
    distance: float
    log_f: CubicHermiteSpline
    q: CubicHermiteSpline

    def __call__(self, r: Array) -> tuple[Array, Array]:
        """log f and f'/f at distances; below the table q is constant, beyond it f'/f."""
        x = np.log(r)
        inside = np.clip(x, *self.log_f.x[[0, -1]])
        q, beyond = self.q(inside), r / np.exp(inside)
        logarithm = self.log_f(inside) + q * np.where(beyond > 1, beyond - 1, np.log(beyond))
        return logarithm, q / np.where(beyond > 1, np.exp(inside), r)


def pair_solution(u: Callable[[Array], Array], mass: float, e: float) -> PairSolution:
    """Solve for f.

    Args:
        u: pair potential (distance,) -> (distance,), zero far away.
        mass: reduced mass.
        e: energy of the lowest bound state, or 0 where there is none.
    """
    start, middle, end = _range(u, mass, e)

    def slope(x: float, y: Array) -> list[float]:
        r = np.exp(x)
        return [2 * mass * r * r * (float(u(np.array([r]))[0]) - e) - y[0] - y[0] ** 2, y[0]]

    def integrate(first: float, last: float, q: float) -> tuple[Array, Array]:
        x = np.linspace(np.log(first), np.log(last), int(abs(np.log(last / first)) / SPACING) + 2)
        found = solve_ivp(slope, x[[0, -1]], [q, 0.0], "LSODA", t_eval=x, rtol=PRECISION, atol=PRECISION)
        return x, found.y

    def forbidden(r: float) -> float:
        return r * float(np.sqrt(2 * mass * max(float(u(np.array([r]))[0]) - e, 0.0)))

    x, (q, log_f) = integrate(start, middle if e < 0 else end, forbidden(start))
    log_f = log_f - log_f[-1]
    if e < 0:
        x_out, (q_out, log_out) = integrate(end, middle, -forbidden(end) - 1.0)
        x, q = np.append(x, x_out[-2::-1]), np.append(q, q_out[-2::-1])
        log_f = np.append(log_f, log_out[-2::-1] - log_out[-1])
    q_slope = 2 * mass * np.exp(2 * x) * (u(np.exp(x)) - e) - q - q**2
    return PairSolution(e, mass, middle, CubicHermiteSpline(x, log_f, q), CubicHermiteSpline(x, q, q_slope))


def _range(u: Callable[[Array], Array], mass: float, e: float) -> tuple[float, float, float]:
    """Where the table begins, where u is lowest outside of the core, and where the table ends.

    The core is met from outside, since a formula may fall to -infinity in the middle of it.
    """
    r = np.geomspace(1e9, 1e-5, 40_001)
    with np.errstate(all="ignore"):
        height = np.nan_to_num(u(r), nan=np.inf) - e
    step = np.sqrt(2 * mass * np.maximum(height, 0)) * r * np.log(r[0] / r[1])
    allowed = np.flatnonzero(height < 0) if e < 0 else np.flatnonzero(height < np.min(height[r > 1e-4]) * 1e-6)
    first = int(allowed[0]) if len(allowed) else 0
    inside = first + int(np.searchsorted(np.cumsum(step[first:]), ACTION))
    inside = min(inside, len(r) - 1)
    middle = first + int(np.argmin(height[first : inside + 1]))
    outside = first - int(np.searchsorted(np.cumsum(step[:first][::-1]), ACTION)) if e < 0 else 0
    end = r[max(outside, 0)] if e < 0 else FARTHEST * r[middle]
    return float(r[inside]), float(r[middle]), float(end)
