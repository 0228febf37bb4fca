"""A second, independent way to the levels of one coordinate, and random wells to compare it on.

    -(1/2) psi'' + V psi = E psi          by finite differences on three even grids, extrapolated (Richardson)

V is averaged over each cell with a hat function, so that jumps and integrable singularities leave an error of order h^2
too.  The lowest eigenvalues of the tridiagonal matrix are found by bisection with Sturm counts (LAPACK stebz), so none
is missed.  Nothing here is shared with fkdrift.exact.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Well:
    """V(x), a range in which its lowest states live, and how far the second method may be off.

    A singular V is `smooth` plus the second derivative of `twice_integrated`, whose cell averages are exact.
    """

    kind: str
    V: Callable[[Array], Array]
    low: float
    high: float
    tolerance: float
    jumps: tuple[float, ...] = ()
    smooth: Callable[[Array], Array] | None = None
    twice_integrated: Callable[[Array], Array] | None = None


def second_method(well: Well, levels: int, n: int = 6000) -> Array:
    """The lowest levels, from three grids, the error of order h^2 (and h^4 where V is smooth) extrapolated away."""
    E = [_finite_volumes(well, levels, m) for m in (n, 2 * n, 4 * n)]
    first = [(4 * b - a) / 3 for a, b in itertools.pairwise(E)]
    return first[1] if well.jumps or well.tolerance > 1e-7 else (16 * first[1] - first[0]) / 15


def _finite_volumes(well: Well, levels: int, n: int) -> Array:
    """Hard walls at the ends; V averaged over each cell with hat functions by Gauss sums on sub-cells."""
    h = (well.high - well.low) / (n + 1)
    x = well.low + h * np.arange(1, n + 1)
    t, w = np.polynomial.legendre.leggauss(8)
    t, w = (t + 1) / 2, w / 2
    smooth = well.smooth or well.V
    V = sum(wk * (1 - tk) * (smooth(x + tk * h) + smooth(x - tk * h)) for tk, wk in zip(t, w, strict=True))
    if well.twice_integrated is not None:
        F = well.twice_integrated
        V = V + (F(x + h) - 2 * F(x) + F(x - h)) / h**2
    return eigh_tridiagonal(
        V + 1 / h**2, np.full(n - 1, -0.5 / h**2), select="i", select_range=(0, levels - 1), lapack_driver="stebz"
    )[0]


# -- wells -------------------------------------------------------------------------------------------------------------


def random_well(seed: int) -> Well:
    """One of seven kinds of well, by the seed."""
    g = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    return _MAKERS[kind](g)


def _smooth(g: np.random.Generator) -> Well:
    a, b, c, k = g.uniform(0.1, 2), g.uniform(-1, 1), g.uniform(-2, 2), g.uniform(0.05, 0.5)
    return Well("smooth", lambda x: k * x**4 + b * x**3 * k + c * x**2 / 2 + a * x, -9.0, 9.0, 2e-7)


def _cusped(g: np.random.Generator) -> Well:
    p, c, s = g.uniform(0.4, 1.9), g.uniform(-1, 1), g.uniform(0.5, 3)
    return Well("cusped", lambda x: s * np.abs(x - c) ** p + 0.02 * x**2, -40.0, 40.0, 3e-6)


def _jumping(g: np.random.Generator) -> Well:
    edges = np.sort(g.uniform(-3, 3, size=4))
    steps = g.uniform(-6, 3, size=5)
    return Well("jumping", lambda x: steps[np.searchsorted(edges, x)] + 0.2 * x**2, -14.0, 14.0, 2e-4, tuple(edges))


def _singular(g: np.random.Generator) -> Well:
    p, s, c = g.uniform(0.2, 0.6), g.uniform(-1.5, 1.5), g.uniform(-1, 1)

    def twice_integrated(x: Array) -> Array:
        return s * np.abs(x - c) ** (2 - p) / ((1 - p) * (2 - p))

    def V(x: Array) -> Array:
        return x**2 / 2 + s * np.maximum(np.abs(x - c), 1e-17) ** -p

    return Well("singular", V, -9.0, 9.0, 1e-5, smooth=lambda x: x**2 / 2, twice_integrated=twice_integrated)


def _multiple(g: np.random.Generator) -> Well:
    n = int(g.integers(2, 5))
    at, width, depth = g.uniform(-12, 12, size=n), g.uniform(0.4, 2, size=n), g.uniform(1, 8, size=n)

    def V(x: Array) -> Array:
        return 0.01 * x**2 - sum(d * np.exp(-(((x - a) / s) ** 2)) for a, s, d in zip(at, width, depth, strict=True))

    return Well("multiple", V, -40.0, 40.0, 1e-6)


def _shifted(g: np.random.Generator) -> Well:
    c, d, gap = g.uniform(-1500, 1500), g.uniform(2, 9), g.uniform(0, 8)

    def V(x: Array) -> Array:
        return -d / np.cosh(np.clip(x - c, -40, 40)) ** 2 - (d + 1) / np.cosh(np.clip(2 * (x - c - gap), -40, 40)) ** 2

    return Well("shifted", V, c - 25, c + 35, 1e-6)


def _doublet(g: np.random.Generator) -> Well:
    a, k = g.uniform(1.5, 4), g.uniform(0.3, 2)
    return Well("doublet", lambda x: k * np.minimum((x - a) ** 2, (x + a) ** 2), -14.0, 14.0, 2e-5)


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
