"""Energy levels of one coordinate: a line, an interval between hard walls, or a distance from the origin.

    -(1/2m) w^-1 (w psi')' + [ l(l + d - 2)/(2 m x^2) + V ] psi = E psi,        w = 1 on a line, x^(d-1) for a distance

Galerkin's method on polynomials of order 12 (elements.py); the lowest levels come from shift-invert Lanczos and are
counted by Sylvester's law of inertia, so that none is missed however close two of them lie.  The box ends where the
classically forbidden decay exp(-int sqrt(2 m (V - E)) dx) is below exp(-18).  Everything is repeated with order 16,
shorter elements and a larger box; the change is the error.

The same idea as the finite-element discrete-variable method of Rescigno and McCurdy, Phys. Rev. A 62, 032706 (2000),
with full Galerkin integrals.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, eigsh, splu

from fkdrift.errors import NotConverged, Unbound
from fkdrift.exact.elements import elements, evaluate, free_nodes, has_core, matrices, reference
from fkdrift.exact.potential_scan import Coordinate, PotentialScan, scan
from fkdrift.exact.spectrum import Array


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


def solve_line(line: Coordinate, levels: int, tolerance: float = 1e-8) -> States:
    """The lowest bound levels of one coordinate, with errors from a second calculation on a finer and larger grid.

    Raises:
        Unbound: no level lies below the continuum, or V falls without limit.
        NotConverged: the error stayed above `tolerance` (relative to E - V_min); `partial` has the States reached.
    """
    survey = scan(line)
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
                longer = elements(line, survey, float(states.energies[0]), 1.25, 6.0)
                return replace(states, tail=_tail(line, states, longer))
    if len(states.errors) != len(states.energies):
        states = replace(states, errors=np.full(len(states.energies), np.nan))
    worst = float(np.max(states.errors))
    raise NotConverged(
        f"levels on a line reached an error of {worst:.1e}, not the tolerance {tolerance:g} relative to E - V_min; "
        "V may jump or be singular: allow a larger tolerance, or give a box",
        partial=states,
    )


# -- eigenvalues -------------------------------------------------------------------------------------------------------


def _levels(
    line: Coordinate, survey: PotentialScan, E: float, levels: int, *, order: int, fineness: float, stretch: float
) -> States:
    """Levels on one grid, elements being halved until every wavefunction is smooth on each of them."""
    edges = elements(line, survey, E, fineness, stretch)
    if line.n_dims is not None and edges[0] == 0 and has_core(line):
        edges = np.unique(np.concatenate([edges, edges[1] * np.geomspace(1e-7, 1, 24)]))
    for _ in range(12):
        H, S = matrices(line, edges, order)
        keep = free_nodes(line, edges, H.shape[0])
        energies, vectors = _lowest(H[keep, keep], S[keep, keep], levels, survey, E)
        psi = np.zeros((H.shape[0], len(energies)))
        psi[keep] = vectors
        node = order * np.arange(len(edges) - 1)[:, None] + np.arange(order + 1)
        coefficients = np.einsum("ab,ebk->kea", reference(order)[4], psi[node])
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


def _lowest(
    H: sparse.csc_matrix, S: sparse.csc_matrix, levels: int, survey: PotentialScan, E: float
) -> tuple[Array, Array]:
    """The lowest eigenpairs below the threshold by shift-invert Lanczos, checked for missed ones by counting."""
    if np.isfinite(survey.threshold):
        bound = _below(H, S, survey.threshold - 1e-12 * max(1.0, abs(survey.threshold)))
        if bound == 0:
            raise Unbound(
                f"no level lies below the continuum, which starts at {survey.threshold:.6g}: the well is too shallow "
                "or too narrow to bind; deepen it, or give a box (hard walls)"
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


# -- tails ------------------------------------------------------------------------------------------------------------


def _tail(line: Coordinate, states: States, longer: Array) -> Tail:
    """Solve (H - E0) psi = 0 outwards from where psi_0 is large: no rounding error relative to the maximum remains.

    At the ends of the box psi' = -sqrt(2m(V - E0)) psi takes the place of a wall, unless there is a wall.
    """
    edges, c = states.edges, states.coefficients[0]
    before, after = longer[longer < edges[0]], longer[longer > edges[-1]]
    c = np.concatenate([np.zeros((len(before), c.shape[1])), c, np.zeros((len(after), c.shape[1]))])
    edges = np.concatenate([before, edges, after])
    order, E0 = c.shape[-1] - 1, float(states.energies[0])
    H, S = matrices(line, edges, order)
    A = (H - E0 * S).tolil()
    ends = np.array([edges[0], edges[-1]])
    with np.errstate(all="ignore"):
        V = line.effective(ends)
    kappa = np.sqrt(2 * line.mass * np.clip(np.nan_to_num(V - E0, nan=0, posinf=0), 0, None))
    values = c @ np.linalg.inv(reference(order)[4]).T
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
    return Tail(edges, nodes[node] @ reference(order)[4].T, (float(kappa[0]), float(kappa[1])))


def _outwards(A: sparse.csr_matrix, nodes: Array, outer: NDArray[np.intp], match: int) -> None:
    """Replace the values at the outer nodes (outermost first) by the solution that decays from the matching node."""
    if len(outer) == 0:
        return
    rows = A[outer]
    inner = np.setdiff1d(np.arange(A.shape[0]), outer)
    right = -np.asarray(rows[:, inner] @ nodes[inner])
    lu = splu(rows[:, outer].tocsc(), permc_spec="NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    nodes[outer] = lu.solve(right)
