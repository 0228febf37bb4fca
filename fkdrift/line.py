"""Energy levels of one coordinate: a line, an interval between hard walls, or a distance from the origin.

    -(1/2m) w^-1 (w psi')' + [ l(l + d - 2)/(2 m x^2) + V ] psi = E psi,        w = 1 on a line, x^(d-1) for a distance

Galerkin's method on elements of polynomials (order 12) whose lengths follow the local wavelength
2 pi/sqrt(2 m |E - V|): every integral is a Gauss sum inside an element, so V may be singular at the origin and the
sparse matrices are banded.  The box ends where the classically forbidden decay exp(-int sqrt(2 m (V - E)) dx) has fallen below
exp(-18).  Everything is repeated with a higher order, shorter elements and a larger box; the change is the error.

The same discrete-variable idea as Rescigno and McCurdy, Phys. Rev. A 62, 032706 (2000), with full Galerkin integrals.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray
from scipy import sparse
from scipy.integrate import cumulative_trapezoid
from scipy.optimize import minimize_scalar
from scipy.sparse.linalg import LinearOperator, eigsh, splu

from fkdrift.errors import BadParameter, NotConverged, Unbound
from fkdrift.levels import Array

FAR = 1e6  # how far from the minimum V is looked at
DECAY = 18.0  # int sqrt(2m(V - E)) dx from the turning point to the end of the box
REACH = 1e4  # end of the box in widths of the well, where V goes to a constant


@dataclass(frozen=True)
class Line:
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
class States:
    """Levels of one coordinate and their wavefunctions as Legendre coefficients (level, element, order + 1)."""

    energies: Array
    errors: Array
    edges: Array
    coefficients: Array
    threshold: float | None
    tail: Tail | None = None

    def wavefunctions(self, x: Array) -> Array:
        """psi_n(x), shape (level, point); zero outside the box."""
        return evaluate(self.edges, self.coefficients, x)


@dataclass(frozen=True)
class Tail:
    """The ground state, recomputed so that its small values are as accurate as its large ones."""

    edges: Array
    coefficients: Array
    decay: tuple[float, float]

    def log_psi(self, x: Array) -> Array:
        """log psi_0(x); beyond the box it falls in a straight line with the last known slope."""
        low, high = self.edges[[0, -1]]
        inside = np.clip(x, low, high)
        psi = evaluate(self.edges, self.coefficients[None], inside)[0]
        beyond = self.decay[0] * np.maximum(low - x, 0) + self.decay[1] * np.maximum(x - high, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(np.where(psi > 0, psi, np.nan)) - beyond


# -- public ------------------------------------------------------------------------------------------------------------


def solve_line(line: Line, levels: int, tolerance: float = 1e-8) -> States:
    """The lowest bound levels of one coordinate, with errors from a second calculation on a finer and larger grid.

    Raises:
        Unbound: no level lies below the continuum, or V falls without limit.
        NotConverged: the error stayed above `tolerance` (relative to E - V_min); `partial` has the States reached.
    """
    survey = look(line)
    top = survey.energy_of(levels + 1)
    states = _levels(line, survey, top, levels, order=12, fineness=1.0, stretch=1.0)
    for attempt in range(5):
        coarse = states
        states = _levels(line, survey, top, levels, order=16, fineness=1.25 * 1.5**attempt, stretch=1.35)
        n = min(len(coarse.energies), len(states.energies))
        scale = states.energies[:n] - survey.lowest(states.energies[0])
        errors = np.abs(states.energies - coarse.energies)[:n] if n == len(states.energies) else None
        if errors is not None:
            floor = 2e-14 * np.maximum(scale, np.abs(states.energies))
            states = replace(states, errors=errors + floor)
            if (errors <= tolerance * scale + floor).all():
                longer = _elements(line, survey, float(states.energies[0]), 1.25, 6.0)
                return replace(states, tail=_tail(line, states, longer))
    if len(states.errors) != len(states.energies):
        states = replace(states, errors=np.full(len(states.energies), np.nan))
    worst = float(np.max(states.errors))
    raise NotConverged(
        f"levels on a line reached an error of {worst:.1e}, not the tolerance {tolerance:g} relative to E - V_min; "
        "V may jump or be singular: allow a larger tolerance, or give a box",
        partial=states,
    )


# -- looking at V ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Survey:
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


def look(line: Line) -> Survey:
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
    if (V == -np.inf).any():
        raise Unbound(f"V = -infinity at x = {x[V == -np.inf][0]:.6g}: a line potential must be bounded below")
    x, V = _between_walls(line, x, V)
    threshold = min([_far(line, side * (x - x[np.argmin(V)]), V) for side in _open_sides(line, x, V)], default=np.inf)
    if np.isfinite(threshold) and threshold - V.min() <= 1e-12 * max(abs(threshold), abs(V.min())):
        raise Unbound(
            f"V does not confine: its lowest value {V.min():.6g} is not below its value {threshold:.6g} far away, so there is "
            "no bound state; give a box (hard walls), a periodic box, or a potential with a well"
        )
    return Survey(x, np.minimum(V, 1e200), line.mass, float(threshold))


_FALLS = (
    "V falls without limit, to {V:.3g} at a distance {x:.0e}: a ground state needs a potential that is bounded below "
    "and rises, or goes to a constant above its minimum, in every direction"
)


def _open_sides(line: Line, x: Array, V: Array) -> list[int]:
    """-1 and +1 for the directions in which the scan met no wall."""
    centre = x[np.argmin(V)]
    left = line.n_dims is None and line.low == -np.inf and x[0] < centre - FAR / 2
    right = line.high == np.inf and x[-1] > centre + FAR / 2
    return [side for side, is_open in ((-1, left), (1, right)) if is_open]


def _far(line: Line, away: Array, V: Array) -> float:
    """The height at which the continuum starts on one side; inf if V still rises there."""
    outer, inner = (V[(away > FAR / ratio) & (away <= 10 * FAR / ratio)] for ratio in (10, 100))
    change = outer.min() - inner.min()
    if change < -1e-3 * max(abs(inner.min()), abs(outer.min())) and outer.min() <= V.min():
        raise Unbound(_FALLS.format(V=outer.min(), x=FAR))
    return np.inf if change > 0.01 * (outer.min() - V.min()) else float(outer.min())


def _scan_points(line: Line, centre: float) -> Array:
    """Points spaced by a constant ratio around `centre`, between the ends of the line."""
    away = np.geomspace(1e-7, FAR, 4501)
    if line.n_dims is not None:
        return away[away < line.high] if np.isinf(line.high) else np.append(away[away < line.high], line.high)
    low, high = max(line.low, -2 * FAR), min(line.high, 2 * FAR)
    even = np.linspace(low, high, 2001) if np.isfinite([line.low, line.high]).all() else np.empty(0)
    x = np.unique(np.concatenate([centre - away, [centre], centre + away, even]))
    ends = [end for end in (line.low, line.high) if np.isfinite(end)]
    return np.unique(np.concatenate([x[(x > line.low) & (x < line.high)], ends]))


def _minimum(line: Line, x: Array, V: Array) -> float:
    """Where V is lowest, refined between scan points."""
    k = int(np.argmin(V))
    bounds = (x[max(k - 1, 0)], x[min(k + 1, len(x) - 1)])
    found = minimize_scalar(lambda z: float(line.effective(np.array([z]))[0]), bounds=bounds, method="bounded")
    return float(found.x if found.fun < V[k] else x[k])


def _between_walls(line: Line, x: Array, V: Array) -> tuple[Array, Array]:
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


# -- elements ----------------------------------------------------------------------------------------------------------


def _elements(line: Line, survey: Survey, E: float, fineness: float, stretch: float) -> Array:
    """Edges of the elements: about 4/fineness in units of the local wavelength/2 pi, geometric far away."""
    x, V = survey.x, survey.V
    depth = max(E - V.min(), 1e-300)
    allowed = np.flatnonzero(V <= E - 1e-6 * min(depth, abs(E) + depth))
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


def _at_breaks(line: Line, edges: Array, negligible: float, noise: float) -> Array:
    """Put an edge on every jump or kink of V, found by halving elements on which V is not smooth."""
    skip = int(line.n_dims is not None and edges[0] == 0)  # V may be singular at the origin
    for _ in range(4):
        a, b = edges[:-1][skip:], edges[1:][skip:]
        bad = _roughness(line, a, b) * (b - a) > negligible + noise * (b - a)
        if not bad.any():
            break
        a, b, first = a[bad], b[bad], _roughness(line, a[bad], b[bad])
        slow = np.ones(len(a), dtype=bool)
        for step in range(1, 46):
            middle = 0.5 * (a + b)
            left, right = _roughness(line, a, middle), _roughness(line, middle, b)
            if step == 8:
                slow = np.maximum(left, right) > 2.0**-28 * first + noise
            take = left >= right
            found = np.maximum(left, right) < noise
            a, b = np.where(take & ~found, a, middle), np.where(take | found, middle, b)
        edges = np.unique(np.concatenate([edges, 0.5 * (a + b)[slow]]))
    return edges


def _roughness(line: Line, a: Array, b: Array) -> Array:
    """The last Legendre coefficients of V on the intervals from a to b: large where V jumps or has a kink."""
    z, w, _, _, _ = _reference(12)
    V = line.effective((a[:, None] + (b - a)[:, None] * (z + 1) / 2).ravel()).reshape(len(a), -1)
    last = legendre.legvander(z, 15)[:, -3:] * w[:, None] * (np.arange(13, 16) + 0.5)
    return np.abs(np.nan_to_num(V, nan=0.0, posinf=0.0, neginf=0.0) @ last).sum(-1)


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
def _reference(order: int) -> tuple[Array, Array, Array, Array, Array]:
    """On [-1, 1]: Gauss points and weights, the nodal basis and its derivative there, and nodes-to-Legendre."""
    interior = legendre.legroots(legendre.legder([0] * order + [1]))
    nodes = np.concatenate([[-1.0], interior, [1.0]])
    to_legendre = np.linalg.inv(legendre.legvander(nodes, order))
    z, w = legendre.leggauss(order + 6)
    B = legendre.legvander(z, order) @ to_legendre
    D = np.stack([legendre.legval(z, legendre.legder(c)) for c in to_legendre.T], axis=1)
    return z, w, B, D, to_legendre


def _matrices(line: Line, edges: Array, order: int) -> tuple[sparse.csc_matrix, sparse.csc_matrix]:
    """Hamiltonian and overlap of the nodal basis, before boundary conditions."""
    z, w, B, D, _ = _reference(order)
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


def _free(line: Line, edges: Array, size: int) -> slice:
    """Nodes that are not on a wall: the origin of a distance stays free unless the state must vanish there."""
    if line.n_dims is None or edges[0] > 0 or line.momentum > 0 or _core(line):
        return slice(1, size - 1)
    return slice(0, size - 1)


def _core(line: Line) -> bool:
    """Whether V rises at least like 1/x^2 at the origin."""
    x = np.array([1e-5, 1e-4])
    strength = 2 * line.mass * x**2 * line.V(x)
    if line.n_dims is not None and (strength < -(((line.n_dims - 2) / 2) ** 2) - 1e-3).all():
        raise Unbound(f"V falls to the centre like {strength[0]:.3g}/(2 m x^2): too strong for a ground state")
    return bool((strength > 1e-3).all())


# -- eigenvalues -------------------------------------------------------------------------------------------------------


def _levels(
    line: Line, survey: Survey, E: float, levels: int, *, order: int, fineness: float, stretch: float
) -> States:
    """Levels on one grid, elements being halved until every wavefunction is smooth on each of them."""
    edges = _elements(line, survey, E, fineness, stretch)
    if line.n_dims is not None and edges[0] == 0 and _core(line):
        edges = np.unique(np.concatenate([edges, edges[1] * np.geomspace(1e-7, 1, 24)]))
    for _ in range(12):
        H, S = _matrices(line, edges, order)
        keep = _free(line, edges, H.shape[0])
        energies, vectors = _lowest(H[keep, keep], S[keep, keep], levels, survey, E)
        psi = np.zeros((H.shape[0], len(energies)))
        psi[keep] = vectors
        node = order * np.arange(len(edges) - 1)[:, None] + np.arange(order + 1)
        coefficients = np.einsum("ab,ebk->kea", _reference(order)[4], psi[node])
        h = np.diff(edges)
        size = np.sqrt(h * line.weight(edges[1:]))
        rough = np.abs(coefficients[:, :, -2:]).sum(-1).max(0) * size > 1e-7
        if not rough.any():
            break
        edges = np.unique(np.concatenate([edges, (edges[:-1] + h / 2)[rough]]))
    for c in coefficients:  # sign: positive where it is largest
        means = c[:, 0]
        c *= np.sign(means[np.argmax(np.abs(means))]) or 1.0
    threshold = survey.threshold if np.isfinite(survey.threshold) else None
    return States(energies, np.zeros(0), edges, coefficients, threshold)


def _below(H: sparse.csc_matrix, S: sparse.csc_matrix, E: float) -> int:
    """How many eigenvalues lie below E: the negative pivots of H - E S (Sylvester's law of inertia)."""
    options = {"SymmetricMode": True}
    lu = splu((H - E * S).tocsc(), permc_spec="NATURAL", diag_pivot_thresh=0.0, options=options)
    return int((lu.U.diagonal() < 0).sum())


def _lowest(H: sparse.csc_matrix, S: sparse.csc_matrix, levels: int, survey: Survey, E: float) -> tuple[Array, Array]:
    """The lowest eigenpairs below the threshold by shift-invert Lanczos, checked for missed ones by counting."""
    if np.isfinite(survey.threshold):
        bound = _below(H, S, survey.threshold - 1e-12 * max(1.0, abs(survey.threshold)))
        if bound == 0:
            raise Unbound(
                f"no level lies below the continuum, which starts at {survey.threshold:.6g}: the well is too shallow or too "
                "narrow to bind; deepen it, or give a box (hard walls)"
            )
        levels = min(levels, bound)
    low, high = float(survey.V.min()), E
    low -= 1e-3 * abs(high - low)
    for _ in range(60):  # a shift just below the lowest level makes Lanczos fast
        if high - low < 0.25 * (E - low) and not _below(H, S, low):
            break
        middle = 0.5 * (low + high)
        low, high = (low, middle) if _below(H, S, middle) else (middle, high)
    n = H.shape[0]
    lu = splu((H - low * S).tocsc(), permc_spec="NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    inverse = LinearOperator((n, n), matvec=lu.solve, dtype=np.float64)
    for attempt in range(4):
        k = min(levels + (attempt if np.isinf(survey.threshold) else 0), n - 2)
        start = np.random.default_rng(attempt).normal(size=n)
        krylov = min(n - 1, max(2 * k + 1, 20) * (1 + attempt))
        energies, vectors = eigsh(H, k=k, M=S, sigma=low, OPinv=inverse, v0=start, ncv=krylov, tol=0, maxiter=200)
        order = np.argsort(energies)[:levels]
        energies, vectors = energies[order], vectors[:, order]
        if _below(H, S, energies[-1] - 1e-9 * (energies[-1] - low)) < levels:
            break
    return energies, vectors


# -- tails -------------------------------------------------------------------------------------------------------------


def evaluate(edges: Array, coefficients: Array, x: Array) -> Array:
    """Piecewise Legendre series (level, element, order + 1) at points x: (level, point); zero outside."""
    x = np.asarray(x, dtype=np.float64)
    element = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2)
    z = 2 * (x - edges[element]) / (edges[element + 1] - edges[element]) - 1
    basis = legendre.legvander(np.clip(z, -1, 1), coefficients.shape[-1] - 1)
    values = np.einsum("kpa,pa->kp", coefficients[:, element], basis)
    return np.where((x >= edges[0]) & (x <= edges[-1]), values, 0.0)


def _tail(line: Line, states: States, longer: Array) -> Tail:
    """Solve (H - E0) psi = 0 outwards from where psi_0 is large: no rounding error relative to the maximum remains.

    At the ends of the box psi' = -sqrt(2m(V - E0)) psi takes the place of a wall, unless there is a wall.
    """
    edges, c = states.edges, states.coefficients[0]
    before, after = longer[longer < edges[0]], longer[longer > edges[-1]]
    c = np.concatenate([np.zeros((len(before), c.shape[1])), c, np.zeros((len(after), c.shape[1]))])
    edges = np.concatenate([before, edges, after])
    order, E0 = c.shape[-1] - 1, float(states.energies[0])
    H, S = _matrices(line, edges, order)
    A = (H - E0 * S).tolil()
    ends = np.array([edges[0], edges[-1]])
    with np.errstate(all="ignore"):
        V = line.effective(ends)
    kappa = np.sqrt(2 * line.mass * np.clip(np.nan_to_num(V - E0, nan=0, posinf=0), 0, None))
    values = c @ np.linalg.inv(_reference(order)[4]).T
    nodes = np.append(values[:, :-1].ravel(), values[-1, -1])
    high_wall, low_wall = edges[-1] >= line.high, line.n_dims is None and edges[0] <= line.low
    origin = line.n_dims is not None and edges[0] == 0
    if not high_wall:
        A[-1, -1] += kappa[1] * line.weight(ends)[1] / (2 * line.mass)
    if not low_wall and not origin:
        A[0, 0] += kappa[0] * line.weight(ends)[0] / (2 * line.mass)
    A = A.tocsr()
    large = np.flatnonzero(nodes > 1e-3 * nodes.max())
    if not high_wall:
        _outwards(A, nodes, np.arange(A.shape[0] - 1, large[-1], -1), large[-1])
    if not low_wall and not origin:
        _outwards(A, nodes, np.arange(0, large[0]), large[0])
    node = order * np.arange(len(edges) - 1)[:, None] + np.arange(order + 1)
    return Tail(edges, nodes[node] @ _reference(order)[4].T, (float(kappa[0]), float(kappa[1])))


def _outwards(A: sparse.csr_matrix, nodes: Array, outer: NDArray[np.intp], match: int) -> None:
    """Replace the values at the outer nodes (outermost first) by the solution that decays from the matching node."""
    if len(outer) == 0:
        return
    rows = A[outer]
    inner = np.setdiff1d(np.arange(A.shape[0]), outer)
    right = -np.asarray(rows[:, inner] @ nodes[inner])
    lu = splu(rows[:, outer].tocsc(), permc_spec="NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    nodes[outer] = lu.solve(right)
