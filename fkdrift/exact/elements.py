"""Elements of polynomials on a line: where to put their edges, and the integrals of H and of 1 between them.

    <a|H|b> = int w [ a' b'/(2m) + V a b ] dx,      <a|b> = int w a b dx,      w = 1 on a line, x^(d-1) for a distance

The lengths follow the local wavelength 2 pi/sqrt(2 m |E - V|), with an edge on every jump or kink of V.  Integrals are
Gauss sums inside an element, so V may be singular at the origin; neighbours share one node, so matrices are banded.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.polynomial import legendre
from scipy import sparse
from scipy.integrate import cumulative_trapezoid

from fkdrift.errors import BadParameter, Unbound
from fkdrift.exact.potential_scan import Coordinate, PotentialScan
from fkdrift.exact.spectrum import Array

DECAY = 18.0  # int sqrt(2m(V - E)) dx from the turning point to the end of the box
REACH = 1e4  # end of the box in widths of the well, where V goes to a constant


def elements(line: Coordinate, survey: PotentialScan, E: float, fineness: float, stretch: float) -> Array:
    """Edges of the elements: about 4/fineness in units of the local wavelength/2 pi, geometric far away."""
    x, V = survey.x, survey.V
    depth = max(E - V.min(), 1e-300)
    allowed = np.flatnonzero(-1e-6 * min(depth, abs(E) + depth) >= V - E)
    first, last = allowed[0], allowed[-1]
    a, b = x[max(first - 1, 0)], x[min(last + 1, len(x) - 1)]
    width = max(b - a, 1e-300)
    k = np.sqrt(2 * line.mass * np.abs(E - V))
    high = _end(x[last:], k[last:], stretch, b + REACH * stretch * width)
    if (
        line.n_dims is not None
        and survey.x[0] < 1e-6
        and _end(-x[: first + 1][::-1], k[: first + 1][::-1], stretch, 0.0) > -1e-6
    ):
        low = 0.0
    else:
        low = -_end(-x[: first + 1][::-1], k[: first + 1][::-1], stretch, -(a - REACH * stretch * width))
    low, high = max(low, line.low, 0.0 if line.n_dims is not None else -np.inf), min(high, line.high)
    away = np.maximum(np.maximum(a - x, x - b), 0)
    density = fineness * np.maximum(k / 4, 1 / (width / 6 + away / 2))
    inside = (x >= low) & (x <= high)
    z = np.concatenate([[low], x[inside], [high]])
    rho = np.interp(z, x, density)
    total = np.concatenate([[0.0], np.cumsum(0.5 * (rho[1:] + rho[:-1]) * np.diff(z))])
    edges = np.unique(np.interp(np.linspace(0, total[-1], max(int(np.ceil(total[-1])), 4) + 1), total, z))
    return _at_breaks(line, edges, 1e-10 * depth * width, 1e-13 * (depth + abs(E)))


def _at_breaks(line: Coordinate, edges: Array, negligible: float, noise: float) -> Array:
    """Put an edge on every jump or kink of V, found by halving elements on which V is not smooth."""
    skip = int(line.n_dims is not None and edges[0] == 0)  # V may be singular at the origin
    for _ in range(4):
        a, b = edges[:-1][skip:], edges[1:][skip:]
        rough = _roughness(line, a, b)
        bad = rough * (b - a) > negligible + noise * (b - a)
        a, b, rough = a[bad], b[bad], rough[bad]
        first, sudden = rough, np.zeros(len(a), dtype=bool)
        for step in range(1, 46):
            if len(a) == 0:
                break
            middle = 0.5 * (a + b)
            left, right = _roughness(line, np.append(a, middle), np.append(middle, b)).reshape(2, -1)
            before, rough = rough, np.maximum(left, right)
            sudden |= (rough < noise) & (before > 1e5 * noise)  # the kink was exactly in the middle
            here, take = rough < noise, left >= right
            a, b = np.where(take & ~here, a, middle), np.where(take | here, middle, b)
            if step == 8:  # a smooth function has become smooth by now
                keep = sudden | (rough > 2.0**-28 * first + noise)
                a, b, rough, sudden = a[keep], b[keep], rough[keep], sudden[keep]
        if len(a) == 0:
            break
        edges = np.unique(np.concatenate([edges, 0.5 * (a + b)]))
    return edges


def _roughness(line: Coordinate, a: Array, b: Array) -> Array:
    """The last Legendre coefficients of V on the intervals from a to b: large where V jumps or has a kink."""
    z, last = _last_coefficients()
    V = line.effective((a[:, None] + (b - a)[:, None] * (z + 1) / 2).ravel()).reshape(len(a), -1)
    return np.abs(np.where(np.isfinite(V), V, 0.0) @ last).sum(-1)


@functools.lru_cache(maxsize=1)
def _last_coefficients() -> tuple[Array, Array]:
    """Gauss points on [-1, 1], and the matrix from values there to the Legendre coefficients 13 to 15."""
    z, w = legendre.leggauss(18)
    return z, legendre.legvander(z, 15)[:, -3:] * w[:, None] * (np.arange(13, 16) + 0.5)


def _end(x: Array, k: Array, stretch: float, limit: float) -> float:
    """How far out the box reaches: where the decay from x[0] on is enough, or the limit (or the wall)."""
    if len(x) < 2:
        return float(x[0])
    S = cumulative_trapezoid(k, x, initial=0)
    enough = np.flatnonzero(DECAY * stretch <= S)
    if len(enough):
        j = enough[0]
        reached = x[j - 1] + (x[j] - x[j - 1]) * (DECAY * stretch - S[j - 1]) / max(S[j] - S[j - 1], 1e-300)
        return float(min(reached, max(limit, x[1])))
    return float(min(limit, x[-1]))


@functools.lru_cache(maxsize=8)
def reference(order: int) -> tuple[Array, Array, Array, Array, Array]:
    """On [-1, 1]: Gauss points and weights, the nodal basis and its derivative there, and nodes-to-Legendre."""
    interior = legendre.legroots(legendre.legder([0] * order + [1]))
    nodes = np.concatenate([[-1.0], interior, [1.0]])
    to_legendre = np.linalg.inv(legendre.legvander(nodes, order))
    z, w = legendre.leggauss(order + 6)
    B = legendre.legvander(z, order) @ to_legendre
    D = np.stack([legendre.legval(z, legendre.legder(c)) for c in to_legendre.T], axis=1).astype(np.float64)
    return z, w, B, D, to_legendre


def matrices(line: Coordinate, edges: Array, order: int) -> tuple[sparse.csc_matrix, sparse.csc_matrix]:
    """Hamiltonian and overlap of the nodal basis, before boundary conditions."""
    z, w, B, D, _ = reference(order)
    h = np.diff(edges)[:, None]
    x = edges[:-1, None] + h * (z + 1) / 2
    V = line.effective(x.ravel()).reshape(x.shape)
    if not np.isfinite(V).all():
        bad = x[~np.isfinite(V)][0]
        raise BadParameter(f"V = {line.effective(np.array([bad]))[0]} at x = {bad:.6g}, where the particle can be")
    measure = line.weight(x) * w
    kinetic = np.matmul(D.T * (measure * (1 / h) / line.mass)[:, None, :], D)
    potential = np.matmul(B.T * (measure * V * h / 2)[:, None, :], B)
    overlap = np.matmul(B.T * (measure * h / 2)[:, None, :], B)
    node = order * np.arange(len(h))[:, None] + np.arange(order + 1)
    i = np.repeat(node, order + 1, axis=1).ravel()
    j = np.tile(node, order + 1).ravel()
    size = order * len(h) + 1
    H, S = (sparse.coo_matrix((m.ravel(), (i, j)), shape=(size, size)).tocsc() for m in (kinetic + potential, overlap))
    return H, S


def free_nodes(line: Coordinate, edges: Array, size: int) -> slice:
    """Nodes that are not on a wall: the origin of a distance stays free unless the state must vanish there."""
    if line.n_dims is None or edges[0] > 0 or line.momentum > 0 or has_core(line):
        return slice(1, size - 1)
    return slice(0, size - 1)


def has_core(line: Coordinate) -> bool:
    """Whether V rises at least like 1/x^2 at the origin."""
    x = np.array([1e-5, 1e-4])
    strength = 2 * line.mass * x**2 * line.V(x)
    if line.n_dims is not None and (strength < -(((line.n_dims - 2) / 2) ** 2) - 1e-3).all():
        raise Unbound(f"V falls to the centre like {strength[0]:.3g}/(2 m x^2): too strong for a ground state")
    return bool((strength > 1e-3).all())


def evaluate(edges: Array, coefficients: Array, x: Array) -> Array:
    """Piecewise Legendre series (level, element, order + 1) at points x: (level, point); zero outside."""
    x = np.asarray(x, dtype=np.float64)
    element = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2)
    z = 2 * (x - edges[element]) / (edges[element + 1] - edges[element]) - 1
    basis = legendre.legvander(np.clip(z, -1, 1), coefficients.shape[-1] - 1)
    values = np.einsum("kpa,pa->kp", coefficients[:, element], basis)
    return np.where((x >= edges[0]) & (x <= edges[-1]), values, 0.0)
