"""A pair potential of which only values can be had, and each of them costs: a table of it that is as good as it is.

A cubic spline in t = log r through values of v.  Intervals are halved until the spline foretells v at their middle, so
that a kink or a jump of v ends up between two distances that are next to each other.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

Array = NDArray[np.float64]

NEAREST, FARTHEST = 1e-8, 1e8  # distances of the table; v is asked for beyond
N_FIRST = 2000  # distances to begin with
ACCURACY = 1e-7  # of the spline at the middle of an interval, relative to v there and the depth of its well
ROUNDS, MOST = 12, 20_000  # of halving, and distances


class PairValues:
    """v(r) by a table; where v is not finite, or beyond the table, by v itself.

    Args:
        v: of distances of any shape.
    """

    def __init__(self, v: Callable[[Array], Array]) -> None:
        self.v = v
        self.start, self.spline = self._table()

    def __call__(self, d: Array) -> Array:
        with np.errstate(divide="ignore"):
            t = np.log(d)
        values: Array = self.spline(t)
        outside = (t < self.start) | (t > np.log(FARTHEST))
        if outside.any():
            values[outside] = self.v(d[outside])
        return values

    def _table(self) -> tuple[float, CubicSpline]:
        """Where it begins, and the spline."""
        t = np.linspace(np.log(NEAREST), np.log(FARTHEST), N_FIRST)
        values = self._values(t)
        good = np.isfinite(values)
        first = len(t) - int(np.argmin(good[::-1])) if not good.all() else 0
        first = min(first, len(t) - 4)
        t, values = t[first:], np.nan_to_num(values[first:])
        middles, floor = (t[1:] + t[:-1]) / 2, _depth(t, values)
        for _ in range(ROUNDS):
            foretold, found = CubicSpline(t, values)(middles), np.nan_to_num(self._values(middles))
            bad = ~(np.abs(found - foretold) <= ACCURACY * (np.abs(found) + floor))
            t, order = np.unique(np.concatenate([t, middles]), return_index=True)
            values = np.concatenate([values, found])[order]
            if not bad.any() or len(t) > MOST:
                break
            rough = np.searchsorted(t, middles[bad])
            wanted = np.unique(np.concatenate([rough - 1, rough]))
            middles = (t[wanted] + t[wanted + 1]) / 2
        return float(t[0]), CubicSpline(t, values)

    def _values(self, t: Array) -> Array:
        with np.errstate(all="ignore"):
            return self.v(np.exp(t))


def _depth(t: Array, values: Array) -> float:
    """Of the well, up to ten times the distance where v is lowest; of a v without one, next to nothing."""
    k = int(values.argmin())
    if 0 < k < len(t) - 1:
        return float(np.interp(t[k] + np.log(10), t, values) - values[k])
    return 1e-6 * float(np.median(np.abs(values)))
