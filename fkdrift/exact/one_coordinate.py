"""Energy levels of one coordinate: a line, an interval between hard walls, or a distance from the origin.

    -(1/2m) w^-1 (w psi')' + [ l(l + d - 2)/(2 m x^2) + V ] psi = E psi,        w = 1 on a line, x^(d-1) for a distance

Galerkin's method on polynomials of order 12 (elements.py); the lowest levels come from shift-invert Lanczos and are
counted by Sylvester's law of inertia: the number of negative pivots of H - E S is the number of levels below E, so that
none is missed however close two of them lie.  Level k has k nodes (Sturm), which is checked too.  The box ends where
the classically forbidden decay exp(-int sqrt(2 m (V - E)) dx) is below exp(-18).  Everything is repeated with order 16,
shorter elements and a larger box; the change is the error.

The same idea as the finite-element discrete-variable method of Rescigno and McCurdy, Phys. Rev. A 62, 032706 (2000),
with full Galerkin integrals.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import eigh
from scipy.sparse.linalg import LinearOperator, eigsh, splu

from fkdrift.errors import NotConverged, Unbound
from fkdrift.exact.elements import Mesh, elements, energy_forms, evaluate, free_nodes, matrices, modes, reference
from fkdrift.exact.limits import UNLIMITED, Limits
from fkdrift.exact.potential_scan import DELOCALISED, Coordinate, PotentialScan, scan
from fkdrift.exact.spectrum import Array

ORDERS = (12, 16)  # of the polynomials on the first grid and on those that confirm it
REFINEMENTS = 5  # grids that may confirm
ROUGH = 1e-7  # elements are halved while the last two coefficients of a normalised wavefunction exceed this
SAME_LEVEL = 1e-7  # levels closer than this, relative to the height above the shift, need not be told apart in a count
VISIBLE = 1e-6  # nodes are counted where the wavefunction is larger than this, relative to its maximum
STEEP = 1e300  # decay of psi behind a wall
DEGENERATE = 1e-9  # ground states of separate parts are taken as one level if closer than this, relative


@dataclass(frozen=True)
class LineStates:
    """Levels of one coordinate and their wavefunctions as Legendre coefficients (level, element, order + 1)."""

    energies: Array
    errors: Array
    mesh: Mesh
    coefficients: Array
    threshold: float | None
    power: float = 0.0
    tails: tuple[DecayingTail, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def edges(self) -> Array:
        """Edges of the elements."""
        return self.mesh.edges

    def wavefunctions(self, x: Array) -> Array:
        """psi_n(x), shape (level, point); zero outside the box."""
        values = evaluate(self.edges, self.coefficients, x)
        return values * np.maximum(x, 1e-300) ** self.power if self.power else values

    def log_psi(self, x: Array) -> Array:
        """log psi_0(x); where several parts between walls share the lowest level, an equal mixture of them."""
        logs = np.stack([tail.log_psi(x) for tail in self.tails])
        if len(logs) == 1:
            return logs[0]
        return 0.5 * np.logaddexp.reduce(2 * np.nan_to_num(logs, nan=-np.inf), axis=0) - 0.5 * np.log(len(logs))


@dataclass(frozen=True)
class DecayingTail:
    """The ground state, recomputed so that its small values are as accurate as its large ones."""

    edges: Array
    coefficients: Array
    decay: tuple[float, float]
    power: float = 0.0

    def log_psi(self, x: Array) -> Array:
        """log psi_0(x); beyond the box it falls in a straight line with the last known slope."""
        low, high = self.edges[[0, -1]]
        inside = np.clip(x, low, high)
        psi = evaluate(self.edges, self.coefficients[None], inside)[0]
        beyond = self.decay[0] * np.maximum(low - x, 0) + self.decay[1] * np.maximum(x - high, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_u = np.log(np.where(psi > 0, psi, np.nan)) - beyond
            return log_u + self.power * np.log(np.maximum(x, 1e-300)) if self.power else log_u


# -- public ------------------------------------------------------------------------------------------------------------


def solve_line(
    line: Coordinate, levels: int, tolerance: float = 1e-8, limits: Limits = UNLIMITED, only_first: bool = False
) -> LineStates:
    """The lowest bound levels of one coordinate, with errors from a second calculation on a finer and larger grid.

    Where impenetrable walls cut the line into parts, the levels of all parts are listed together; those of the part
    with the lowest minimum alone where there are more than a dozen parts (the notes say so).

    Raises:
        Unbound: no level lies below the continuum, or V falls without limit.
        NotConverged: the error stayed above `tolerance` (relative to E - V_min); `partial` has the LineStates reached.
        OutOfTime, TooLarge: a limit was met.
    """
    found: list[LineStates] = []
    for part in scan(line):
        top = np.inf if not found else found[0].energies[-1]
        if len(found) and (part.V.min() > top or only_first):
            continue
        try:
            found.append(_solve_part(part, levels, tolerance, limits))
        except Unbound:
            if not found:
                raise
    return found[0] if len(found) == 1 else _joined(found, levels)


def _solve_part(part: PotentialScan, levels: int, tolerance: float, limits: Limits) -> LineStates:
    """The levels between two walls."""
    line = part.line
    top = part.energy_of(levels + 1)
    states = _levels(part, top, levels, limits, order=ORDERS[0], fineness=1.0, stretch=1.0)
    for attempt in range(REFINEMENTS):
        coarse = states
        states = _levels(part, top, levels, limits, order=ORDERS[1], fineness=1.25 * 1.5**attempt, stretch=1.35)
        n = min(len(coarse.energies), len(states.energies))
        scale = states.energies[:n] - part.lowest(states.energies[0])
        errors = np.abs(states.energies - coarse.energies)[:n] if n == len(states.energies) else None
        if errors is not None:
            floor = 2e-14 * np.maximum(scale, np.abs(states.energies)) + _rounding_at_breaks(line, states)
            states = replace(states, errors=errors + floor)
            if (errors <= tolerance * scale + floor).all():
                longer = elements(line, part, float(states.energies[0]), 1.25, 6.0)
                return replace(states, tails=(_tail(line, states, longer),), notes=part.notes)
    if len(states.errors) != len(states.energies):
        states = replace(states, errors=np.full(len(states.energies), np.nan))
    worst = float(np.max(states.errors))
    raise NotConverged(
        f"levels on a line reached an error of {worst:.1e}, not the tolerance {tolerance:g} relative to E - V_min; "
        "V may jump or be singular: allow a larger tolerance, or give a box",
        partial=states,
    )


def _rounding_at_breaks(line: Coordinate, states: LineStates) -> Array:
    """What positions that are only known to rounding leave open of int V psi^2 dx where V is infinite."""
    c = states.mesh.breaks[states.mesh.breaks != 0]
    if len(c) == 0:
        return np.zeros(len(states.energies))
    d = 4e-16 * np.abs(c)
    V = np.abs(line.effective(c - d)) + np.abs(line.effective(c + d))
    return 4 * evaluate(states.edges, states.coefficients, c) ** 2 @ (np.where(np.isfinite(V), V, 0.0) * d)


def _joined(parts: list[LineStates], levels: int) -> LineStates:
    """The levels of parts between walls, in one list."""
    parts = sorted(parts, key=lambda p: p.edges[0])
    E0 = min(p.energies[0] for p in parts)
    lowest = [p for p in parts if p.energies[0] - E0 <= DEGENERATE * abs(E0) + p.errors[0]]
    energies = np.concatenate([p.energies for p in parts])
    order = np.argsort(energies, kind="stable")[:levels]
    edges, blocks, n_levels = [parts[0].edges], [], len(energies)
    row = 0
    for k, p in enumerate(parts):
        gap = k > 0 and p.edges[0] > parts[k - 1].edges[-1]
        if gap:
            blocks.append(np.zeros((n_levels, 1, p.coefficients.shape[-1])))
        if k > 0:
            edges.append(p.edges if gap else p.edges[1:])
        block = np.zeros((n_levels, *p.coefficients.shape[1:]))
        block[row : row + len(p.energies)] = p.coefficients
        blocks.append(block)
        row += len(p.energies)
    thresholds = [p.threshold for p in parts if p.threshold is not None]
    return LineStates(
        energies=energies[order],
        errors=np.concatenate([p.errors for p in parts])[order],
        mesh=Mesh(np.concatenate(edges), np.concatenate([p.mesh.breaks for p in parts])),
        coefficients=np.concatenate(blocks, axis=1)[order],
        threshold=min(thresholds, default=None),
        power=parts[0].power,
        tails=tuple(t for p in lowest for t in p.tails),
        notes=parts[0].notes,
    )


# -- eigenvalues -------------------------------------------------------------------------------------------------------


def _levels(
    part: PotentialScan, E: float, levels: int, limits: Limits, *, order: int, fineness: float, stretch: float
) -> LineStates:
    """Levels on one grid, elements being halved until every wavefunction is smooth on each of them."""
    line = part.line
    mesh = elements(line, part, E, fineness, stretch)
    for _ in range(12):
        limits.check()
        n = order * (len(mesh.edges) - 1) + 1
        limits.room(8.0 * n * (max(2 * levels + 1, 20) + 2 * levels + 8 * order) / 2**30, f"a line with {n} points")
        H, S = matrices(line, mesh, modes(order))
        keep = free_nodes(line, mesh, H.shape[0])
        energies, vectors = _lowest(H[keep, keep], S[keep, keep], levels, part, E, limits)
        psi = np.zeros((H.shape[0], len(energies)))
        psi[keep] = vectors
        node = order * np.arange(len(mesh.edges) - 1)[:, None] + np.arange(order + 1)
        coefficients = np.einsum("ab,ebk->kea", modes(order), psi[node])
        h = np.diff(mesh.edges)
        size = np.sqrt(h * line.weight(mesh.edges[1:]))
        rough = np.abs(coefficients[:, :, -2:]).sum(-1).max(0) * size > ROUGH
        if not rough.any():
            break
        mesh = mesh.halved(rough)
    energies, mixing = eigh(*energy_forms(line, mesh, coefficients))  # no rounding left from tiny elements
    coefficients = np.einsum("kl,kea->lea", mixing, coefficients)
    for c in coefficients:  # sign: positive where it is largest
        means = c[:, 0]
        c *= np.sign(means[np.argmax(np.abs(means))]) or 1.0
    threshold = part.threshold if np.isfinite(part.threshold) else None
    states = LineStates(energies, np.zeros(0), mesh, coefficients, threshold, line.power)
    above = energies[-1] + SAME_LEVEL * (energies[-1] - part.lowest(energies[0]))
    _check_nodes(states, last_is_alone=_below(H[keep, keep], S[keep, keep], above) == len(energies))
    return states


def _check_nodes(states: LineStates, last_is_alone: bool) -> None:
    """Level k has k nodes; where its neighbours are not degenerate with it, it must not show more."""
    E = states.energies
    t = np.linspace(0.02, 0.98, 13)
    x = (states.edges[:-1, None] + np.diff(states.edges)[:, None] * t).ravel()
    psi = evaluate(states.edges, states.coefficients, x)
    gaps = np.diff(np.concatenate([[-np.inf], E, [np.inf]]))
    for k, row in enumerate(psi):
        seen = row[np.abs(row) > VISIBLE * np.abs(row).max()]
        nodes = int((np.diff(np.sign(seen)) != 0).sum())
        alone = min(gaps[k : k + 2]) > 1e-6 * max(abs(E[-1] - E[0]), abs(E[k])) and (k + 1 < len(E) or last_is_alone)
        if nodes > k and alone:
            raise NotConverged(
                f"the state found as level {k} has {nodes} nodes, so a level below it was missed or V is not resolved; "
                "give a box, or smooth V"
            )


def _below(H: sparse.csc_matrix, S: sparse.csc_matrix, E: float) -> int:
    """How many eigenvalues lie below E: the negative pivots of H - E S (Sylvester's law of inertia)."""
    options = {"SymmetricMode": True}
    lu = splu((H - E * S).tocsc(), permc_spec="NATURAL", diag_pivot_thresh=0.0, options=options)
    return int((lu.U.diagonal() < 0).sum())


def _lowest(
    H: sparse.csc_matrix, S: sparse.csc_matrix, levels: int, part: PotentialScan, E: float, limits: Limits
) -> tuple[Array, Array]:
    """The lowest eigenpairs below the threshold by shift-invert Lanczos; every one below the last has been counted.

    Raises:
        NotConverged: the levels found are not as many as the count says.
    """
    if np.isfinite(part.threshold):
        bound = _below(H, S, part.threshold - 1e-12 * max(1.0, abs(part.threshold)))
        if bound == 0:
            shallow = "the well is too shallow or too narrow to bind; deepen it, or give a box (hard walls)"
            raise Unbound(
                f"no level lies below the continuum, which starts at {part.threshold:.6g}: "
                f"{DELOCALISED if part.oscillates else shallow}"
            )
        levels = min(levels, bound)
    low, high = float(part.V.min()), E
    low -= 1e-3 * abs(high - low)
    for _ in range(12):  # V may be lower than it was seen to be
        if not _below(H, S, low):
            break
        low -= 2 * abs(high - low)
    else:
        raise NotConverged("no energy was found that lies below all levels: V is not resolved; give a box, or smooth V")
    for _ in range(60):  # a shift just below the lowest level makes Lanczos fast
        if high - low < 0.25 * (E - low):
            break
        middle = 0.5 * (low + high)
        low, high = (low, middle) if _below(H, S, middle) else (middle, high)
    n = H.shape[0]
    lu = splu((H - low * S).tocsc(), permc_spec="NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True})

    def solve(x: Array) -> Array:
        limits.check()
        return lu.solve(x)

    inverse = LinearOperator((n, n), matvec=solve, dtype=np.float64)
    for attempt in range(5):
        k = min(levels + (2 * attempt if np.isinf(part.threshold) else attempt), n - 2)
        start = np.random.default_rng(attempt).normal(size=n)
        krylov = min(n - 1, max(2 * k + 1, 20) * (1 + attempt))
        energies, vectors = eigsh(H, k=k, M=S, sigma=low, OPinv=inverse, v0=start, ncv=krylov, tol=0, maxiter=200)
        order = np.argsort(energies)[:levels]
        energies, vectors = energies[order], vectors[:, order]
        just_below = energies[-1] - SAME_LEVEL * (energies[-1] - low)
        if _below(H, S, just_below) == (energies < just_below).sum():
            return energies, vectors
    raise NotConverged(
        f"{_below(H, S, just_below)} levels lie below {just_below:.10g}, but only {(energies < just_below).sum()} of "
        "them were found; give a box, or smooth V"
    )


# -- tails ------------------------------------------------------------------------------------------------------------


def _tail(line: Coordinate, states: LineStates, longer: Mesh) -> DecayingTail:
    """Solve (H - E0) psi = 0 outwards from where psi_0 is large: no rounding error relative to the maximum remains.

    At the ends of the box psi' = -sqrt(2m(V - E0)) psi takes the place of a wall, unless there is a wall.
    """
    edges, c = states.edges, states.coefficients[0]
    before, after = longer.edges[longer.edges < edges[0]], longer.edges[longer.edges > edges[-1]]
    c = np.concatenate([np.zeros((len(before), c.shape[1])), c, np.zeros((len(after), c.shape[1]))])
    edges = np.concatenate([before, edges, after])
    order, E0 = c.shape[-1] - 1, float(states.energies[0])
    H, S = matrices(line, Mesh(edges, states.mesh.breaks), reference(order)[0])
    ends = np.array([edges[0], edges[-1]])
    with np.errstate(all="ignore"):
        V = line.effective(ends)
    kappa = np.sqrt(2 * line.mass * np.clip(np.nan_to_num(V - E0, nan=0, posinf=0), 0, None))
    values = c @ reference(order)[1].T
    nodes = np.append(values[:, :-1].ravel(), values[-1, -1])
    high_wall, low_wall = edges[-1] >= line.high, line.n_dims is None and edges[0] <= line.low
    origin = line.n_dims is not None and edges[0] == 0
    at_ends = np.zeros(len(nodes))
    if not high_wall:
        at_ends[-1] = kappa[1] * line.weight(ends)[1] / (2 * line.mass)
    if not low_wall and not origin:
        at_ends[0] = kappa[0] * line.weight(ends)[0] / (2 * line.mass)
    A = (H - E0 * S + sparse.diags_array(at_ends)).tocsr()
    large = np.flatnonzero(nodes > 1e-3 * nodes.max())
    if not high_wall:
        _outwards(A, nodes, np.arange(A.shape[0] - 1, large[-1], -1), large[-1])
    if not low_wall and not origin:
        _outwards(A, nodes, np.arange(0, large[0]), large[0])
    node = order * np.arange(len(edges) - 1)[:, None] + np.arange(order + 1)
    decay = (STEEP if low_wall else float(kappa[0]), STEEP if high_wall else float(kappa[1]))
    return DecayingTail(edges, nodes[node] @ reference(order)[0].T, decay, line.power)


def _outwards(A: sparse.csr_matrix, nodes: Array, outer: NDArray[np.intp], match: int) -> None:
    """Replace the values at the outer nodes (outermost first) by the solution that decays from the matching node."""
    if len(outer) == 0:
        return
    rows = A[outer]
    inner = np.setdiff1d(np.arange(A.shape[0]), outer)
    right = -np.asarray(rows[:, inner] @ nodes[inner])
    lu = splu(rows[:, outer].tocsc(), permc_spec="NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    nodes[outer] = lu.solve(right)
