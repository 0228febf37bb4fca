"""Elements of polynomials on a line: where to put their edges, and the integrals of H and of 1 between them.

    <a|H|b> = int w [ a' b'/(2m) + V a b ] dx,      <a|b> = int w a b dx,      w = 1 on a line, x^(d-1) for a distance

The lengths follow the local wavelength 2 pi/sqrt(2 m |E - V|), with an edge on every jump, kink and singular point of
V.  Integrals are Gauss sums inside an element, with points that crowd towards such an edge, x = c + h t^6, so V may be
singular there; neighbours share one node, so matrices are banded.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray
from scipy import sparse

from fkdrift.errors import BadParameter
from fkdrift.exact.potential_scan import Coordinate, PotentialScan, zoom
from fkdrift.exact.spectrum import Array

DECAY = 18.0  # int sqrt(2m(V - E)) dx from the turning point to the end of the box
REACH = 1e4  # end of the box in widths of the well, where V goes to a constant
CLOSEST = 1e-8  # breaks closer than this, relative to the shortest wavelength, are taken as one
CROWDING = 6  # power of the map that crowds Gauss points towards a break: |x - c|^-0.8 becomes a polynomial times t^0.2
SNAP = 1e-6  # how far from a found break an infinite point is looked for, in wavelengths
GRADED = (
    8.0  # neighbours differ by at most this factor in length where breaks are looked for: none lies beside all points
)
NEARBY = 0.01  # half an interval's first Gauss point of 18 lies at 0.0022 of the whole
POLE_ZONE = 0.01  # how close to a wall where V is infinite elements become geometric, in widths of the well
UNRESOLVED = 1e-7  # elements are halved while V has more than this, relative to the depth, in its last coefficients
HALVINGS = 6  # at most so often; the wavefunctions ask for more where they need it


@dataclass(frozen=True)
class Mesh:
    """Edges of the elements, and those of them where V is not smooth."""

    edges: Array
    breaks: Array

    def halved(self, where: NDArray[np.bool_]) -> Mesh:
        """The elements marked are cut in two."""
        middle = self.edges[:-1] + np.diff(self.edges) / 2
        return Mesh(np.unique(np.concatenate([self.edges, middle[where]])), self.breaks)

    def rules(self) -> NDArray[np.intp]:
        """For each element: 0 plain Gauss points, 1 crowded at its left end, 2 at its right end."""
        left, right = np.isin(self.edges[:-1], self.breaks), np.isin(self.edges[1:], self.breaks)
        return np.where(left, 1, np.where(right, 2, 0))


def elements(line: Coordinate, scan: PotentialScan, E: float, fineness: float, stretch: float) -> Mesh:
    """The mesh: about 4/fineness in units of the local wavelength/2 pi, geometric far away and towards poles."""
    x, V = scan.x, scan.V
    depth = max(E - V.min(), 1e-300)
    allowed = np.flatnonzero(-1e-6 * min(depth, abs(E) + depth) >= V - E)
    first, last = (allowed[0], allowed[-1]) if len(allowed) else (int(np.argmin(V)),) * 2
    a, b = x[max(first - 1, 0)], x[min(last + 1, len(x) - 1)]
    width = max(b - a, 1e-300)
    k = np.sqrt(2 * line.mass * np.abs(E - V))
    high = _end(x[last:], k[last:], stretch, b + REACH * stretch * width)
    inwards = -x[: first + 1][::-1], k[: first + 1][::-1]
    if line.n_dims is not None and x[0] < 1e-6 and _end(*inwards, stretch, 0.0) > -1e-6:
        low = 0.0
    else:
        low = -_end(*inwards, stretch, -(a - REACH * stretch * width))
    if line.low in scan.poles and low <= x[0]:
        low = line.low
    if line.high in scan.poles and high >= x[-1]:
        high = line.high
    low, high = max(low, line.low, 0.0 if line.n_dims is not None else -np.inf), min(high, line.high)
    away = np.maximum(np.maximum(a - x, x - b), 0)
    density = fineness * np.maximum(k / 4, 1 / (width / 6 + away / 2))
    inside = (x > low) & (x < high)
    z = np.concatenate([[low], x[inside], [high]])
    rho = np.interp(z, x, density)
    total = np.concatenate([[0.0], np.cumsum(0.5 * (rho[1:] + rho[:-1]) * np.diff(z))])
    edges = np.interp(np.linspace(0, total[-1], max(int(np.ceil(total[-1])), 4) + 1), total, z)
    wave = min(width, float(1 / np.sqrt(2 * line.mass * depth)))
    noise = 1e-13 * (depth + abs(E))
    origin = line.n_dims is not None and low == 0
    start = np.array([0.0]) if origin and not has_core(line) else np.empty(0)
    zone = POLE_ZONE * width
    apart = _graded(np.unique(edges))
    apart = apart[_from_poles(apart, scan.poles) >= zone]
    found = _on_spikes(line, _breaks(line, apart, 1e-10 * depth * wave, noise, origin), SNAP * wave)
    breaks = np.unique(np.append(start, found))
    posts = [low, high]
    for c in breaks:
        if min(abs(c - p) for p in posts) > CLOSEST * wave + 1e-12 * abs(c):
            posts.append(float(c))
    posts = sorted(posts)
    pieces = []
    for left, right in zip(np.interp(posts[:-1], z, total), np.interp(posts[1:], z, total), strict=True):
        inner = np.linspace(left, right, max(int(np.ceil(right - left)), 2) + 1)[1:-1]
        pieces.append(np.interp(inner, total, z))
    edges = np.unique(np.concatenate([posts, *pieces]))
    mesh = Mesh(edges, np.array([*posts[1:-1], *start]))
    return _resolved(line, _towards_poles(line, scan, mesh, zone), UNRESOLVED * depth + noise, origin, scan.poles, zone)


def _graded(edges: Array) -> Array:
    """With more edges, so that neighbours are of similar length."""
    while True:
        h = np.diff(edges)
        after = np.flatnonzero(h[1:] > 1.01 * GRADED * h[:-1])
        before = np.flatnonzero(h[:-1] > 1.01 * GRADED * h[1:])
        more = np.append(edges[after + 1] + GRADED * h[after], edges[before + 1] - GRADED * h[before + 1])
        if len(more) == 0:
            return edges
        edges = np.unique(np.append(edges, more))


def _from_poles(x: Array, poles: tuple[float, ...]) -> Array:
    """Distance to the nearest wall at which V goes to infinity."""
    return np.min([np.full_like(x, np.inf), *(np.abs(x - c) for c in poles)], axis=0)


def _towards_poles(line: Coordinate, scan: PotentialScan, mesh: Mesh, zone: float) -> Mesh:
    """Geometric elements towards walls at which V goes to infinity: psi goes like a power of the distance there."""
    edges, more = mesh.edges, []
    if line.n_dims is not None and edges[0] == 0 and has_core(line):
        more.append((edges[1] - edges[0]) * np.geomspace(1e-7, 1, 24))
    for c, side in ((edges[0], 1), (edges[-1], -1)):
        if c in scan.poles:
            edges = edges[(c == edges) | (np.abs(edges - c) >= zone)]
            closest = max(1e-8, 1e-12 * abs(c) / zone)
            more.append(c + side * zone * np.geomspace(closest, 1, max(2, int(-np.log2(closest)) + 2)))
    return Mesh(np.unique(np.concatenate([edges, *more])), mesh.breaks)


def _resolved(line: Coordinate, mesh: Mesh, small: float, origin: bool, poles: tuple[float, ...], zone: float) -> Mesh:
    """Halve elements until V is smooth on each of them, as far as that can be reached."""
    skip = int(origin)
    for _ in range(HALVINGS):
        rough = _roughness(line, mesh.edges[:-1], mesh.edges[1:]) > small
        rough[:skip] = False
        rough &= _from_poles((mesh.edges[:-1] + mesh.edges[1:]) / 2, poles) > zone
        if not rough.any():
            break
        mesh = mesh.halved(rough)
    return mesh


def _breaks(line: Coordinate, edges: Array, negligible: float, noise: float, origin: bool) -> Array:
    """Jumps, kinks and singular points of V, found by halving intervals on which V is not smooth."""
    skip = int(origin)  # V may be singular at the origin
    found, unchanged = np.empty(0), 0
    for attempt in range(5):
        # from middle to middle in every other attempt: a break close to an end lies beyond the last Gauss point
        ends = edges[skip:] if attempt % 2 == 0 else (edges[:-1] + edges[1:])[skip:] / 2
        a, b = ends[:-1], ends[1:]
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
            nearby = NEARBY * (b - a)  # smooth on either half: the break is closer to the middle than any Gauss point
            a, b = (
                np.where(here, middle - nearby, np.where(take, a, middle)),
                np.where(here, middle + nearby, np.where(take, middle, b)),
            )
            if step == 8:  # a smooth function has become smooth by now
                keep = sudden | (rough > 2.0**-28 * first + noise)
                a, b, rough, sudden = a[keep], b[keep], rough[keep], sudden[keep]
        known, unchanged = len(found), unchanged + 1
        for c in 0.5 * (a + b):
            if len(found) == 0 or _differ(line, c, found[np.argmin(np.abs(found - c))], negligible):
                found = np.append(found, c)
        if len(found) > known:
            unchanged = 0
            edges = np.unique(np.concatenate([edges, found]))
        elif unchanged == 2:  # neither from edges nor from middles: a further look would see the same
            break
    return found


def _differ(line: Coordinate, c: float, other: float, negligible: float) -> bool:
    """Whether it matters which of two points is the break: a weak cusp is found again and again, a little off."""
    V = line.effective(np.linspace(c, other, 17))
    with np.errstate(invalid="ignore"):
        return not (np.ptp(V) * abs(c - other) <= negligible or c == other)


def _on_spikes(line: Coordinate, breaks: Array, reach: float) -> Array:
    """Breaks close to a point where V is infinite, moved onto it: |x - c|^-p is not forgiving there."""
    if len(breaks) == 0:
        return breaks
    a, b = breaks - reach, breaks + reach
    moved = breaks
    with np.errstate(all="ignore"):
        around = np.maximum(np.abs(line.effective(a)), np.abs(line.effective(b)))
        for sign in (-1, 1):
            top = zoom(line, a, b, sign)
            origin = np.where((a <= 0) & (b >= 0), 0.0, top)  # the one place that zooming reaches only in the limit
            top = np.where(np.isinf(line.effective(origin)), origin, top)
            moved = np.where(np.abs(line.effective(top)) > 1.5 * around, top, moved)
    return moved


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
    S = np.append(0.0, np.cumsum(np.minimum(k[1:], k[:-1]) * np.diff(x)))  # from below: k may jump in between
    enough = np.flatnonzero(DECAY * stretch <= S)
    if len(enough):
        j = enough[0]
        reached = x[j - 1] + (x[j] - x[j - 1]) * (DECAY * stretch - S[j - 1]) / max(S[j] - S[j - 1], 1e-300)
        return float(min(reached, max(limit, x[1])))
    return float(min(limit, x[-1]))


# -- integrals ---------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=8)
def reference(order: int) -> tuple[Array, Array]:
    """Nodes on [-1, 1] to Legendre coefficients, and back."""
    interior = legendre.legroots(legendre.legder([0] * order + [1]))
    nodes = np.concatenate([[-1.0], interior, [1.0]])
    to_nodes = legendre.legvander(nodes, order)
    return np.linalg.inv(to_nodes), to_nodes


@functools.lru_cache(maxsize=8)
def modes(order: int) -> Array:
    """Legendre coefficients of the two hats of an element and of polynomials between them with orthogonal slopes.

    The slopes int P_k are also orthogonal to those of the hats, so that eliminating them from H - E S leaves no
    rounding that grows with 1/h, and counts of levels stay right on tiny elements.
    """
    columns = np.zeros((order + 1, order + 1))
    columns[:2, 0], columns[:2, -1] = (0.5, -0.5), (0.5, 0.5)
    for k in range(1, order):
        columns[[k - 1, k + 1], k] = np.array([-1.0, 1.0]) / np.sqrt(2 * (2 * k + 1))
    return columns


@functools.lru_cache(maxsize=16)
def quadrature(order: int, rule: int) -> tuple[Array, Array, Array, Array]:
    """Points z and weights on [-1, 1] of one of the rules of a mesh; Legendre polynomials and derivatives there."""
    z, w = legendre.leggauss(order + 6)
    if rule:
        t, w = legendre.leggauss((2 * order + 6) * CROWDING // 2)
        t, w = (t + 1) / 2, w / 2
        z, w = 2 * t**CROWDING - 1, 2 * CROWDING * t ** (CROWDING - 1) * w
        if rule == 2:
            z = -z
    P = legendre.legvander(z, order)
    dP = np.stack([legendre.legval(z, legendre.legder(c)) for c in np.eye(order + 1)], axis=1).astype(np.float64)
    return np.asarray(z), np.asarray(w), np.asarray(P, dtype=np.float64), dP


def _samples(line: Coordinate, mesh: Mesh, chosen: NDArray[np.intp], z: Array, rule: int) -> tuple[Array, Array, Array]:
    """Lengths, weight w and V at the Gauss points of some elements."""
    a, b = mesh.edges[:-1][chosen], mesh.edges[1:][chosen]
    h = (b - a)[:, None]
    x = a[:, None] + h * (z + 1) / 2
    if rule:  # never on the break itself, where V may be infinite
        c = (a if rule == 1 else b)[:, None]
        step = np.maximum(np.abs(x - c), 4e-16 * np.abs(c) + 1e-30)
        x = c + step if rule == 1 else c - step
    V = line.effective(x.ravel()).reshape(x.shape)
    if not np.isfinite(V).all():
        bad = x[~np.isfinite(V)][0]
        raise BadParameter(f"V = {line.effective(np.array([bad]))[0]} at x = {bad:.6g}, where the particle can be")
    return h, line.weight(x), V


def matrices(line: Coordinate, mesh: Mesh, basis: Array) -> tuple[sparse.csc_matrix, sparse.csc_matrix]:
    """Hamiltonian and overlap before boundary conditions, in functions given by their Legendre coefficients.

    The first and the last function of an element are shared with its neighbours.
    """
    order = len(basis) - 1
    n, rules = len(mesh.edges) - 1, mesh.rules()
    hamiltonian, overlap = np.empty((2, n, order + 1, order + 1))
    for rule in np.unique(rules):
        z, w, P, dP = quadrature(order, int(rule))
        B, D = P @ basis, dP @ basis
        chosen = np.flatnonzero(rules == rule)
        h, weight, V = _samples(line, mesh, chosen, z, int(rule))
        measure = weight * w
        hamiltonian[chosen] = np.matmul(D.T * (measure / h / line.mass)[:, None, :], D)
        hamiltonian[chosen] += np.matmul(B.T * (measure * V * h / 2)[:, None, :], B)
        overlap[chosen] = np.matmul(B.T * (measure * h / 2)[:, None, :], B)
    node = order * np.arange(n)[:, None] + np.arange(order + 1)
    i = np.repeat(node, order + 1, axis=1).ravel()
    j = np.tile(node, order + 1).ravel()
    size = order * n + 1
    H, S = (sparse.coo_matrix((m.ravel(), (i, j)), shape=(size, size)).tocsc() for m in (hamiltonian, overlap))
    return H, S


def energy_forms(line: Coordinate, mesh: Mesh, c: Array) -> tuple[Array, Array]:
    """<k|H|l> and <k|l> of functions given by Legendre coefficients (level, element, order + 1).

    Sums of squares element by element: unlike the assembled matrices they lose nothing where elements are tiny.
    """
    order = c.shape[-1] - 1
    rules = mesh.rules()
    H, S = np.zeros((2, len(c), len(c)))
    for rule in np.unique(rules):
        z, w, P, dP = quadrature(order, int(rule))
        chosen = np.flatnonzero(rules == rule)
        h, weight, V = _samples(line, mesh, chosen, z, int(rule))
        psi, slope = (np.matmul(c[:, chosen], basis.T).reshape(len(c), -1) for basis in (P, dP))
        H += slope @ (slope * (weight * w * 2 / h / (2 * line.mass)).ravel()).T
        H += psi @ (psi * (weight * w * V * h / 2).ravel()).T
        S += psi @ (psi * (weight * w * h / 2).ravel()).T
    return H, S


def free_nodes(line: Coordinate, mesh: Mesh, size: int) -> slice:
    """Nodes that are not on a wall: the origin of a distance stays free unless the state must vanish there."""
    if line.n_dims is None or mesh.edges[0] > 0 or (line.momentum > 0 and not line.core) or has_core(line):
        return slice(1, size - 1)
    return slice(0, size - 1)


def has_core(line: Coordinate) -> bool:
    """Whether V rises at least like 1/x^2 at the origin."""
    x = np.array([1e-5, 1e-4])
    return bool((2 * line.mass * x**2 * line.V(x) > 1e-3).all())


def evaluate(edges: Array, coefficients: Array, x: Array) -> Array:
    """Piecewise Legendre series (level, element, order + 1) at points x: (level, point); zero outside."""
    x = np.asarray(x, dtype=np.float64)
    element = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2)
    z = 2 * (x - edges[element]) / (edges[element + 1] - edges[element]) - 1
    basis = legendre.legvander(np.clip(z, -1, 1), coefficients.shape[-1] - 1)
    values = np.einsum("kpa,pa->kp", coefficients[:, element], basis)
    return np.where((x >= edges[0]) & (x <= edges[-1]), values, 0.0)
