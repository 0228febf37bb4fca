"""A second, independent way to the levels of one coordinate, and random wells to compare it on.

    -(1/2) psi'' + V psi = E psi          by finite volumes on three grids, extrapolated (Richardson)

The points are x = middle + stretch sinh(t) at even t, so that a tail of any length fits between the hard walls.  V is
averaged over each cell with a hat function, exactly where it is not smooth, so that jumps, cusps and integrable
singularities leave an error of order h^2 too.  The lowest eigenvalues of the tridiagonal matrix are found by bisection
with Sturm counts (LAPACK stebz), so none is missed.  Nothing here is shared with fkdrift.exact.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal

Array = NDArray[np.float64]

N_POINTS = 3000  # of the coarsest grid; the tolerances of the wells are for this number


@dataclass(frozen=True)
class Well:
    """V(x), a range in which its lowest states live, and how far the second method may be off, relative to 1 + |E|.

    The tolerance is at least three times the largest change with twice as many points, in a thousand wells.

    A V that is not smooth is `smooth` plus the second derivative of `twice_integrated`, whose cell averages are exact.
    `stretch` is the distance from the middle beyond which the spacing of the points grows.
    """

    kind: str
    V: Callable[[Array], Array]
    low: float
    high: float
    tolerance: float
    smooth: Callable[[Array], Array] | None = None
    twice_integrated: Callable[[Array], Array] | None = None
    stretch: float = np.inf


def second_method(well: Well, levels: int, n: int = N_POINTS) -> Array:
    """The lowest levels, from three grids, the error of order h^2 (and h^4 where V is smooth) extrapolated away."""
    E = [_finite_volumes(well, levels, m) for m in (n, 2 * n, 4 * n)]
    first = [(4 * b - a) / 3 for a, b in itertools.pairwise(E)]
    return first[1] if well.twice_integrated is not None else (16 * first[1] - first[0]) / 15


def _finite_volumes(well: Well, levels: int, n: int) -> Array:
    """Hard walls at the ends; V averaged over each cell with hat functions by Gauss sums on either side."""
    middle, half = (well.low + well.high) / 2, (well.high - well.low) / 2
    t = np.linspace(-1, 1, n + 2)
    away = half * t if np.isinf(well.stretch) else well.stretch * np.sinh(np.arcsinh(half / well.stretch) * t)
    points = middle + away
    h, x = np.diff(away), points[1:-1]
    left, right = h[:-1], h[1:]
    z, w = np.polynomial.legendre.leggauss(8)
    z, w = (z + 1) / 2, w / 2
    smooth = well.smooth or well.V
    V = sum(
        wk * (1 - zk) * (right * smooth(x + zk * right) + left * smooth(x - zk * left))
        for zk, wk in zip(z, w, strict=True)
    )
    if well.twice_integrated is not None:
        slopes = np.diff(well.twice_integrated(points)) / h
        V = V + np.diff(slopes)
    cell = (left + right) / 2
    diagonal = (V + (1 / left + 1 / right) / 2) / cell
    beside = -0.5 / (right[:-1] * np.sqrt(cell[:-1] * cell[1:]))
    return eigh_tridiagonal(diagonal, beside, select="i", select_range=(0, levels - 1), lapack_driver="stebz")[0]


# -- wells -------------------------------------------------------------------------------------------------------------


def random_well(seed: int) -> Well:
    """One of seven kinds of well, by the seed."""
    g = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    return _MAKERS[kind](g)


def _smooth(g: np.random.Generator) -> Well:
    a, b, c, k = g.uniform(0.1, 2), g.uniform(-1, 1), g.uniform(-2, 2), g.uniform(0.05, 0.5)
    return Well("smooth", lambda x: k * x**4 + b * x**3 * k + c * x**2 / 2 + a * x, -9.0, 9.0, 1e-8)


def _cusped(g: np.random.Generator) -> Well:
    p, c, s = g.uniform(0.4, 1.9), g.uniform(-1, 1), g.uniform(0.5, 3)

    def V(x: Array) -> Array:
        return s * np.abs(x - c) ** p + 0.02 * x**2

    def twice_integrated(x: Array) -> Array:
        return s * np.abs(x - c) ** (p + 2) / ((p + 1) * (p + 2))

    return Well("cusped", V, c - 30, c + 30, 2e-7, lambda x: 0.02 * x**2, twice_integrated, stretch=0.1)


def _jumping(g: np.random.Generator) -> Well:
    edges = np.sort(g.uniform(-3, 3, size=4))
    steps = g.uniform(-6, 3, size=5)

    def twice_integrated(x: Array) -> Array:
        return (np.diff(steps) * np.maximum(x[:, None] - edges, 0) ** 2).sum(1) / 2

    def V(x: Array) -> Array:
        return steps[np.searchsorted(edges, x)] + 0.2 * x**2

    return Well("jumping", V, -14.0, 14.0, 1e-7, lambda x: steps[0] + 0.2 * x**2, twice_integrated)


def _singular(g: np.random.Generator) -> Well:
    p, s, c = g.uniform(0.2, 0.6), g.uniform(-1.5, 1.5), g.uniform(-1, 1)

    def twice_integrated(x: Array) -> Array:
        return s * np.abs(x - c) ** (2 - p) / ((1 - p) * (2 - p))

    def V(x: Array) -> Array:
        return x**2 / 2 + s * np.maximum(np.abs(x - c), 1e-17) ** -p

    return Well("singular", V, c - 10, c + 10, 1e-6, lambda x: x**2 / 2, twice_integrated, stretch=0.05)


def _multiple(g: np.random.Generator) -> Well:
    n = int(g.integers(2, 5))
    at, width, depth = g.uniform(-12, 12, size=n), g.uniform(0.4, 2, size=n), g.uniform(1, 8, size=n)

    def V(x: Array) -> Array:
        return 0.01 * x**2 - sum(d * np.exp(-(((x - a) / s) ** 2)) for a, s, d in zip(at, width, depth, strict=True))

    return Well("multiple", V, -40.0, 40.0, 1e-7)


def _shifted(g: np.random.Generator) -> Well:
    c, d, gap = g.uniform(-1500, 1500), g.uniform(2, 9), g.uniform(0, 8)

    def V(x: Array) -> Array:
        return -d / np.cosh(np.clip(x - c, -40, 40)) ** 2 - (d + 1) / np.cosh(np.clip(2 * (x - c - gap), -40, 40)) ** 2

    return Well("shifted", V, c + gap / 2 - 1e5, c + gap / 2 + 1e5, 2e-7, stretch=10.0)


def _doublet(g: np.random.Generator) -> Well:
    a, k = g.uniform(1.5, 4), g.uniform(0.3, 2)

    def V(x: Array) -> Array:
        return k * np.minimum((x - a) ** 2, (x + a) ** 2)

    return Well("doublet", V, -14.0, 14.0, 1e-8, lambda x: k * (x**2 + a**2), lambda x: -k * a * np.abs(x) ** 3 / 3)


_MAKERS = {
    "smooth": _smooth,
    "cusped": _cusped,
    "jumping": _jumping,
    "singular": _singular,
    "multiple": _multiple,
    "shifted": _shifted,
    "doublet": _doublet,
}
KINDS = tuple(_MAKERS)
