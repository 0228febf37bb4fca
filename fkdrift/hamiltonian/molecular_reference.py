"""A trial function for free particles that vibrate about a geometry: normal modes, in interatomic distances.

    W = b . x - x A x / 2 + P(q),    x_k = d_k - d_k0,    -Hessian of W at the minimum = M^1/2 Omega M^1/2 = G

d_k are the distances of all pairs, d_k0 those of the relaxed geometry, Omega the root of the mass-weighted Hessian of
V.  W turns with the molecule, which the Gaussian in positions does not, and E_W is the harmonic zero-point energy at
small amplitudes.  With Wilson's matrix B = d d_k / d r, A = (B^+)^T G B^+ (generalised inverses weighed by 1 / d_k0^2,
so that bonds count most); motion that no distance sees to first order, out of a plane or off a line, is left to b, with
B^T b = 0 and sum_k b_k d^2 d_k / d r^2 = B^T A B - G in the least-squares sense.

The anharmonic part P is a polynomial of the normal coordinates q in units of their width, each bounded as
q / sqrt(1 + q^2 / 100), whose coefficients make the variance of E_W least: Gauss and Newton's method, each step one
linear least-squares problem at positions drawn from |phi_ref|^2.  V is only ever evaluated, never differentiated.

Five atoms and more have more distances than vibrations.  The combinations that depend on the others to first order are
left out by A, have a wide Gaussian of their own, and are coordinates of P too.

Source: E. B. Wilson, J. C. Decius and P. C. Cross, Molecular Vibrations (1955), chapter 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement, permutations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import null_space
from torch import Tensor

from fkdrift.hamiltonian.potential import Potential, values_at
from fkdrift.hamiltonian.preparation import Preparation
from fkdrift.hamiltonian.trial_function import Derivatives, Term, TrialFunction, random_walk, reference_energy
from fkdrift.numerics.geometry import distance
from fkdrift.tensor_types import PerWalker, Positions

Array = NDArray[np.float64]
Values = Callable[[Array], Array]

STEP = 1e-3  # of the differences of V, in mean distances of neighbours
BOUND = 10.0  # of coordinates in P, in standard deviations
DEPENDENT = 1e-6  # singular value of B, relative to the largest, of a combination of distances that depends on others
WIDER = 2.0  # the Gaussian of such a combination than it is in harmonic motion
DEGREES = (3, 5), (6, 4), (15, 3), (36, 2)  # of P: so many coordinates at most, its degree; beyond the last none
N_DEPENDENT = 4096  # positions that show how far such combinations spread
LEAST_FIT, FIT_EACH, N_MOVES, N_ROUNDS = 2048, 8, 60, 6  # positions, for each coefficient, steps between fits, fits
RIDGE = 1e-6  # of the least-squares problem
RIGID = 0.25  # the largest zero-point change of a distance, relative to it, of what is called a molecule
SOFTEST = 1e-3  # omega of the softest vibration, relative to the hardest
N_STARTS, SIZES = 64, (0.5, 1.0, 2.0, 4.0)  # random geometries to relax, where the potential does not give one


@dataclass(frozen=True, eq=False)
class DistancePolynomial(Term):
    """b . x - x A x / 2 + P(q) with x the distances of all pairs minus their values in a geometry.

    Args:
        matrix: A, (pair, pair) float64, pairs in the order of `torch.triu_indices`.
        linear: b, (pair,).
        rest: the distances d_0, (pair,).
        modes: L, (mode, pair): q = L x.
        tensors: symmetric, of rank 1, 2, ...: P = sum_k T_k q~ ... q~ with q~ = q / sqrt(1 + q^2 / BOUND^2).
    """

    matrix: Tensor
    linear: Tensor
    rest: Tensor
    modes: Tensor
    tensors: tuple[Tensor, ...] = ()

    def __call__(self, r: Positions) -> Derivatives:
        A, b, L = self.matrix.to(r), self.linear.to(r), self.modes.to(r)
        n, dim = r.shape[1:]
        own, other, pair = _pairs_of(n, r.device)
        vector = r[:, :, None] - r[:, other.flatten()].unflatten(1, other.shape)
        d = distance(vector)
        unit = vector / d[..., None]
        x = d[:, own[0], own[1]] - self.rest.to(r)
        slope = b - x @ A
        value, curvature = (x * (slope + b)).sum(-1) / 2, -A.expand(len(r), -1, -1)
        if self.tensors:
            more, first, second = self._polynomial(x @ L.T)
            value, slope, curvature = value + more, slope + first @ L, curvature + L.T @ second @ L
        each = slope[:, pair.flatten()].unflatten(1, pair.shape)
        gradient = (each[..., None] * unit).sum(2)
        bend = curvature[:, pair[:, :, None], pair[:, None, :]]
        return Derivatives(value, gradient, (dim - 1) * (each / d).sum(-1) + (bend @ unit * unit).sum((-2, -1)))

    def value(self, r: Positions) -> PerWalker:
        A, b, L = self.matrix.to(r), self.linear.to(r), self.modes.to(r)
        i, j = torch.triu_indices(r.shape[1], r.shape[1], 1, device=r.device)
        x = distance(r[:, i] - r[:, j]) - self.rest.to(r)
        value = (x * (2 * b - x @ A)).sum(-1) / 2
        if not self.tensors:
            return value
        short, rest = bounded(x @ L.T)[0], torch.zeros((), dtype=r.dtype, device=r.device)
        for tensor in reversed(self.tensors):  # Horner's rule
            rest = ((tensor.to(r).flatten() + rest).unflatten(-1, (-1, len(L))) @ short[:, :, None])[..., 0]
        return value + rest[:, 0]

    def _polynomial(self, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """P, its gradient (batch, mode) and its second derivatives (batch, mode, mode) by q."""
        short, once, twice = bounded(q)
        m = q.shape[1]
        value, first, second = q.new_zeros(len(q)), torch.zeros_like(q), q.new_zeros(len(q), m, m)
        for rank, tensor in enumerate(self.tensors, 1):
            rest = tensor.to(q).expand(len(q), *tensor.shape)
            for k in range(rank):
                left = rank - k
                if left == 2:
                    second = second + rank * (rank - 1) * rest
                if left == 1:
                    first = first + rank * rest
                rest = (
                    (rest.flatten(1, -2) @ short[:, :, None]).unflatten(1, tensor.shape[: left - 1])[..., 0]
                    if left > 1
                    else (rest * short).sum(1)
                )
            value = value + rest
        return value, first * once, second * once[:, :, None] * once[:, None] + torch.diag_embed(first * twice)


def bounded(q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q~ = q / sqrt(1 + q^2 / BOUND^2) with its first two derivatives."""
    root = (1 + (q / BOUND).square()).rsqrt()
    return q * root, root.pow(3), -3 * q / BOUND**2 * root.pow(5)


def _pairs_of(n: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Where to find each pair among (particle, neighbour), the neighbours of each particle, and their pairs."""
    number = torch.zeros(n, n, dtype=torch.long, device=device)
    i, j = torch.triu_indices(n, n, 1, device=device)
    number[i, j] = number[j, i] = torch.arange(len(i), device=device)
    other = torch.tensor([[k for k in range(n) if k != m] for m in range(n)], device=device)
    return torch.stack([i, j - 1]), other, number.gather(1, other)


@dataclass(frozen=True)
class Vibrations:
    """A geometry at rest and its normal modes.

    Attributes:
        geometry: (particle, dim), the centre of mass at 0.
        lowest: V there.
        omega: (mode,) frequencies, increasing.
        modes: (coordinate, mode), mass-weighted.
    """

    geometry: Array
    lowest: float
    omega: Array
    modes: Array

    @property
    def zero_point(self) -> float:
        """V_min + sum omega / 2."""
        return self.lowest + float(self.omega.sum()) / 2


def prepare_molecule(potential: Potential) -> Preparation | None:
    """The trial function of a free system that vibrates about a geometry; None where it does not."""
    if potential.n_dims != 3 or potential.n_particles < 3:
        return None
    found = vibrations(potential)
    if found is None:
        return None
    mass = np.repeat(np.asarray(potential.mass, dtype=float), 3)
    root = np.sqrt(mass)
    x0 = found.geometry.ravel()
    d0, B = _wilson(found.geometry)
    G = root[:, None] * (found.modes * found.omega) @ found.modes.T * root
    amplitude = np.sqrt(np.square((B / root) @ found.modes) @ (1 / (2 * found.omega)))
    if (amplitude / d0).max() > RIGID:
        return None
    weight = d0**-2
    inverse = np.linalg.pinv(weight[:, None] * B, rcond=1e-6) * weight
    A = inverse.T @ G @ inverse
    b = _linear(found.geometry, B, B.T @ A @ B - G)
    spread = found.modes / np.sqrt(2 * found.omega) / root[:, None]

    def draw(n: int, rng: np.random.Generator) -> Array:
        return (x0 + rng.normal(size=(n, len(found.omega))) @ spread.T).reshape(n, *found.geometry.shape)

    L = (found.modes * np.sqrt(2 * found.omega)).T * root @ inverse
    A, L = _with_dependent(A, L, B, np.asarray(draw(N_DEPENDENT, np.random.default_rng(67))), d0)
    A_, b_, d_, L_ = (torch.from_numpy(array) for array in (A, b, d0, L))
    term = DistancePolynomial(A_, b_, d_, L_)
    W = TrialFunction((_anharmonic(potential, term, draw),))
    width = np.sqrt(np.square(spread).sum(1)).reshape(found.geometry.shape)
    return Preparation(W, np.zeros_like(width), width, float(found.omega[-1]), draw, harmonic=found.zero_point)


def _with_dependent(A: Array, L: Array, B: Array, r: Array, d0: Array) -> tuple[Array, Array]:
    """A and L with the combinations of distances that depend on the others, of five atoms and more.

    Vibrations change them in second order, so that A says nothing about them; but the atoms would escape along the
    softest, where harmonic motion is a bend.  They get a Gaussian of twice the spread that they have at positions r
    of the harmonic |phi|^2, and are coordinates of P.
    """
    if len(d0) <= len(L):
        return A, L
    free = null_space(B.T, rcond=DEPENDENT)
    i, j = np.triu_indices(r.shape[1], 1)
    x = (np.linalg.norm(r[:, i] - r[:, j], axis=-1) - d0) @ free
    square, axes = np.linalg.eigh(x.T @ x / len(x))
    free = free @ axes
    return A + (free / (2 * WIDER**2 * square)) @ free.T, np.concatenate([L, (free / np.sqrt(square)).T])


def _anharmonic(
    potential: Potential, term: DistancePolynomial, draw: Callable[[int, np.random.Generator], Array]
) -> DistancePolynomial:
    """The polynomial that makes the variance of E_W least."""
    m = len(term.modes)
    if m > DEGREES[-1][0]:
        return term
    degree = next(rank for most, rank in DEGREES if m <= most)
    powers = [p for k in range(1, degree + 1) for p in combinations_with_replacement(range(m), k)]
    r = torch.from_numpy(draw(max(LEAST_FIT, FIT_EACH * len(powers)), np.random.default_rng(59)))
    best, coefficients, least, start = np.zeros(len(powers)), np.zeros(len(powers)), np.inf, r
    generator = torch.Generator().manual_seed(61)
    for k in range(N_ROUNDS):
        r = random_walk(TrialFunction((term,)), r, N_MOVES, generator)
        E, response = _responses(potential, term, r, powers)
        known = np.isfinite(E)
        spread = float(np.subtract(*np.quantile(E[known], [0.95, 0.05])))
        if not spread < least:  # too long a step
            coefficients, r = (coefficients + best) / 2, start
        else:
            best, least, start = coefficients, spread, r
            usual = known & (np.abs(E - np.median(E[known])) < 3 * spread)
            taken = [len(power) <= 3 + k for power in powers]  # higher powers one after the other
            X, y = response[usual][:, taken], E[usual] - E[usual].mean()
            X = X - X.mean(0)
            scale = np.sqrt(np.square(X).mean(0)) + 1e-300
            normal = (X / scale).T @ (X / scale)
            normal[np.diag_indices(len(normal))] += RIDGE * len(X)
            coefficients = coefficients.copy()
            coefficients[taken] -= np.linalg.solve(normal, (X / scale).T @ y) / scale
        term = replace(term, tensors=_tensors(powers, coefficients, m, degree))
    return replace(term, tensors=_tensors(powers, best, m, degree))


def _responses(
    potential: Potential, term: DistancePolynomial, r: Tensor, powers: list[tuple[int, ...]]
) -> tuple[Array, Array]:
    """E_W (batch,), and what it changes by with each monomial of q~ (batch, monomial) to first order."""
    half = 0.5 / torch.tensor(potential.mass, dtype=torch.float64)
    W = term(r)
    with torch.no_grad():
        E = reference_energy(potential(r), W, 2 * half)
    gradients, laplacians, q = _coordinates(term, r)
    short, once, twice = bounded(q)
    metric = torch.einsum("bind,n,bjnd->bij", gradients, half, gradients)
    along = 2 * torch.einsum("bind,n,bnd->bi", gradients, half, W.gradient) + laplacians @ half
    along = along * once + metric.diagonal(dim1=1, dim2=2) * twice
    metric = metric * once[:, :, None] * once[:, None]
    columns = []
    for power in powers:
        change = torch.zeros(len(r), dtype=torch.float64)
        for a, i in enumerate(power):
            others = power[:a] + power[a + 1 :]
            change = change - along[:, i] * short[:, others].prod(1)
            for c, j in enumerate(others):
                change = change - metric[:, i, j] * short[:, others[:c] + others[c + 1 :]].prod(1)
        columns.append(change)
    return E.double().numpy(), torch.stack(columns, 1).numpy()


def _coordinates(term: DistancePolynomial, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients (batch, mode, particle, dim) and Laplacians (batch, mode, particle) of q, and q (batch, mode)."""
    n = r.shape[1]
    i, j = torch.triu_indices(n, n, 1)
    vector = r[:, i] - r[:, j]
    d = distance(vector)
    unit = vector / d[..., None]
    by_pair = r.new_zeros(len(i), n)
    by_pair[torch.arange(len(i)), i], by_pair[torch.arange(len(i)), j] = 1.0, -1.0
    gradients = torch.einsum("mp,bpd,pn->bmnd", term.modes, unit, by_pair)
    laplacians = torch.einsum("mp,bp,pn->bmn", term.modes, 2 / d, by_pair.abs())
    return gradients, laplacians, (d - term.rest) @ term.modes.T


def _tensors(powers: list[tuple[int, ...]], coefficients: Array, m: int, degree: int) -> tuple[Tensor, ...]:
    """Symmetric tensors from the coefficients of monomials."""
    tensors = [np.zeros((m,) * k) for k in range(1, degree + 1)]
    for power, c in zip(powers, coefficients, strict=True):
        orders = set(permutations(power))
        for order in orders:
            tensors[len(power) - 1][order] = c / len(orders)
    return tuple(map(torch.from_numpy, tensors))


def vibrations(potential: Potential) -> Vibrations | None:
    """The relaxed geometry and its normal modes; None where there is none with as many vibrations as a molecule has."""
    n = potential.n_particles
    mass = np.asarray(potential.mass, dtype=float)

    def V(x: Array) -> Array:
        return np.nan_to_num(values_at(potential, x.reshape(-1, n, 3)), nan=np.inf)

    geometry = _relaxed(V, potential.start, n)
    if geometry is None:
        return None
    x = geometry.ravel()
    K = _hessian(V, x, STEP * _neighbours(geometry))
    root = np.sqrt(np.repeat(mass, 3))
    still = _rigid_motions(geometry, root)
    project = np.eye(3 * n) - still @ still.T
    square, Q = np.linalg.eigh(project @ (K / np.outer(root, root)) @ project)
    n_still = still.shape[1]
    order = np.argsort(np.abs(still.T @ Q).max(0) > 0.5, kind="stable")  # vibrations first
    square, Q = square[order][: 3 * n - n_still], Q[:, order][:, : 3 * n - n_still]
    if not (np.isfinite(square).all() and square.min() > (SOFTEST**2) * square.max() > 0):
        return None
    up = np.argsort(square)
    centred = geometry - (mass[:, None] * geometry).sum(0) / mass.sum()
    return Vibrations(centred, float(V(x)[0]), np.sqrt(square[up]), Q[:, up])


def _relaxed(V: Values, start: object, n: int) -> Array | None:
    """The lowest geometry that descents from the start, or from the best of many random geometries, end in."""
    from scipy.optimize import minimize  # here: most systems never relax

    if start is not None:
        starts = [np.asarray(start, dtype=float)]
    else:
        rng = np.random.default_rng(53)
        tries = np.resize(SIZES, 32 * N_STARTS)[:, None, None] * rng.normal(size=(32 * N_STARTS, n, 3))
        values = V(tries)
        if not np.isfinite(values).any():
            return None
        starts = list(tries[np.argsort(values)[: 4 if n < 6 else 8]])
    best: tuple[float, Array] | None = None
    for first in starts:
        scale = _neighbours(first)

        def energy_and_slope(z: Array, scale: float = scale) -> tuple[float, Array]:
            x = scale * z
            step = STEP * scale * np.eye(x.size)
            around = V(np.concatenate([x[None], x + step, x - step]))
            slope = (around[1 : x.size + 1] - around[x.size + 1 :]) / (2 * STEP)
            return float(np.clip(around[0], -1e30, 1e30)), np.nan_to_num(slope, nan=0.0, posinf=0.0, neginf=0.0)

        end = minimize(energy_and_slope, first.ravel() / scale, jac=True, method="BFGS", options={"gtol": 1e-7})
        if np.isfinite(end.fun) and (best is None or end.fun < best[0]):
            best = float(end.fun), (scale * end.x).reshape(n, 3)
    return None if best is None else best[1]


def _hessian(V: Values, x: Array, step: float) -> Array:
    """Second derivatives of V by central differences."""
    m = x.size
    eye = step * np.eye(m)
    i, j = np.triu_indices(m)
    plus = V(x + eye[i] + eye[j]) + V(x - eye[i] - eye[j])
    minus = V(x + eye[i] - eye[j]) + V(x - eye[i] + eye[j])
    K = np.zeros((m, m))
    K[i, j] = (plus - minus) / (4 * step**2)
    return np.triu(K) + np.triu(K, 1).T


def _rigid_motions(geometry: Array, root: Array) -> Array:
    """Orthonormal mass-weighted directions of translations and rotations, (coordinate, 5 or 6)."""
    n, m = len(geometry), root[::3] ** 2
    x = geometry - (m[:, None] * geometry).sum(0) / m.sum()
    motions = [np.tile(axis, (n, 1)) for axis in np.eye(3)] + [np.cross(axis, x) for axis in np.eye(3)]
    U, size, _ = np.linalg.svd(root[:, None] * np.stack([motion.ravel() for motion in motions], 1), full_matrices=False)
    return U[:, size > 1e-5 * size[0]]


def _wilson(geometry: Array) -> tuple[Array, Array]:
    """Distances of all pairs and B = d d_k / d r, (pair, coordinate)."""
    n = len(geometry)
    i, j = np.triu_indices(n, 1)
    x = geometry[i] - geometry[j]
    d = np.linalg.norm(x, axis=1)
    B = np.zeros((len(i), n, 3))
    B[np.arange(len(i)), i] = x / d[:, None]
    B[np.arange(len(i)), j] = -x / d[:, None]
    return d, B.reshape(len(i), -1)


def _linear(geometry: Array, B: Array, missing: Array) -> Array:
    """b with B^T b = 0 whose sum_k b_k d^2 d_k / d r^2 comes closest to what is missing; 0 where nothing is."""
    if np.abs(missing).max() < 1e-6 * max(np.abs(B.T @ B).max(), 1e-300):
        return np.zeros(len(B))
    n = len(geometry)
    i, j = np.triu_indices(n, 1)
    U, size, _ = np.linalg.svd(B, full_matrices=True)
    free = U[:, int((size > 1e-6 * size[0]).sum()) :]
    if not free.shape[1]:
        return np.zeros(len(B))
    second = np.zeros((len(i), 3 * n, 3 * n))
    for k, (p, q) in enumerate(zip(i, j, strict=True)):
        x = geometry[p] - geometry[q]
        d = np.linalg.norm(x)
        block = (np.eye(3) - np.outer(x, x) / d**2) / d
        for s, t, sign in ((p, p, 1), (q, q, 1), (p, q, -1), (q, p, -1)):
            second[k, 3 * s : 3 * s + 3, 3 * t : 3 * t + 3] = sign * block
    columns = np.tensordot(free.T, second, 1).reshape(free.shape[1], -1).T
    solution, *_ = np.linalg.lstsq(columns, missing.ravel(), rcond=1e-8)
    return np.asarray(free @ solution)


def _neighbours(geometry: Array) -> float:
    """The mean distance to the nearest neighbour."""
    d = np.linalg.norm(geometry[:, None] - geometry, axis=-1) + np.diag(np.full(len(geometry), np.inf))
    return max(float(d.min(1).mean()), 1e-6)
