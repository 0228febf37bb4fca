"""Three particles at angular momentum zero on a grid of Jacobi coordinates, for any V of their three distances.

    H = -(1/2 mu) d^2/dr^2 - (1/2 nu) d^2/dR^2 + [1/(2 mu r^2) + 1/(2 nu R^2)] l^2 + V,      psi = chi(r, R, c)/(r R)

r is the distance of one pair, R that of the third particle from its centre of mass, c the cosine of the angle between.
Sine functions in r and R, Legendre functions P_l in c (even l where the pair is identical), V on the points of the
discrete variables.  States are contracted twice: those of the angle at each (r, R), then those of (r, c) at each R, up
to an energy; the matrix that is left is small.

Source: J. C. Light and T. Carrington, Adv. Chem. Phys. 114, 263 (2000), sections III and IV.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.optimize import minimize
from scipy.sparse.linalg import eigsh

from fkdrift.exact.grids import Axis
from fkdrift.exact.limits import Limits
from fkdrift.exact.spectrum import Array

PAIRS = ((0, 1), (0, 2), (1, 2))
Distances = Callable[[Array], Array]
"""V of the distances r_12, r_13, r_23: (point, 3) -> (point,)."""

ACTION = 11.0  # int sqrt(2 mu (V - E)) dr from where V = E to the ends of the grid, V relaxed in the other coordinates
SPREAD = 8.0  # highest energy that the points resolve, in heights of the highest level above the minimum
KEPT = 5.0  # highest energy of states that are kept in a contraction, likewise
DENSE = 500  # matrices from this size on are left to Lanczos
N_SCAN = 400  # points at which the ends of the grid are looked for
N_STARTS = 20_000  # random triangles from which the minimum is searched


@dataclass(frozen=True)
class Molecule:
    """Three particles in Jacobi coordinates.

    Args:
        V: of the distances r_12, r_13, r_23.
        masses: of the particles.
        third: the particle that is not in the pair.
        step: 2 for even l only, 1 for all.
        first: the lowest l.
    """

    V: Distances
    masses: tuple[float, float, float]
    third: int
    step: int = 1
    first: int = 0

    @property
    def pair(self) -> tuple[int, int]:
        i, j = (k for k in range(3) if k != self.third)
        return i, j

    @property
    def reduced(self) -> tuple[float, float]:
        """mu of the pair, and nu of the third particle with it."""
        a, b = (self.masses[k] for k in self.pair)
        c = self.masses[self.third]
        return a * b / (a + b), c * (a + b) / (a + b + c)

    def potential(self, r: Array, R: Array, c: Array) -> Array:
        """V at Jacobi coordinates that are broadcast against each other."""
        i, j = self.pair
        a, b = self.masses[i], self.masses[j]
        r, R, c = np.broadcast_arrays(r, R, c)
        x, y = b / (a + b) * r, -a / (a + b) * r  # of the pair along its axis
        to_i, to_j = (np.sqrt(np.maximum(R * R + z * z - 2 * R * z * c, 0)) for z in (x, y))
        by_pair = {(i, j): r, tuple(sorted((i, self.third))): to_i, tuple(sorted((j, self.third))): to_j}
        d = np.stack([by_pair[p] for p in ((0, 1), (0, 2), (1, 2))], -1)
        with np.errstate(all="ignore"):
            V = self.V(d.reshape(-1, 3)).reshape(r.shape)
        return np.nan_to_num(V, nan=np.inf, posinf=1e30)


@dataclass(frozen=True)
class JacobiGrid:
    """Where the points are, and up to which energy states are kept."""

    r: Axis
    R: Axis
    n_angles: int
    kept: float


def minimum(V: Distances) -> tuple[float, Array]:
    """The lowest V over all triangles, and its sides; searched from the lowest of many random triangles."""
    rng = np.random.default_rng(41)
    sides = np.exp(rng.uniform(np.log(0.2), np.log(20), (N_STARTS, 1))) * rng.uniform(0.3, 1, (N_STARTS, 3))
    sides = sides[2 * sides.max(1) < sides.sum(1)]
    with np.errstate(all="ignore"):
        values = np.nan_to_num(V(sides), nan=np.inf)
    found = []
    for start in sides[np.argsort(values)[:6]]:
        a, b, c = start
        corner = np.array([a, (a * a + b * b - c * c) / (2 * a), 0.0])
        corner[2] = np.sqrt(max(b * b - corner[1] ** 2, 1e-12))

        def at(x: Array) -> float:
            d = np.array([abs(x[0]), np.hypot(x[1], x[2]), np.hypot(x[1] - x[0], x[2])])
            return float(np.clip(np.nan_to_num(V(d[None])[0], nan=1e30), -1e30, 1e30))

        end = minimize(at, corner, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-10, "maxiter": 2000})
        x = end.x
        found.append((float(end.fun), np.array([abs(x[0]), np.hypot(x[1], x[2]), np.hypot(x[1] - x[0], x[2])])))
    return min(found, key=lambda each: each[0])


def zero_point(molecule: Molecule, sides: Array) -> float:
    """The harmonic zero-point energy at the minimum, from second differences of V in r, R and c."""
    mu, nu = molecule.reduced
    (r, R, c), step = _jacobi(molecule, sides), 1e-3
    at = np.array([r, R, float(np.arccos(np.clip(c, -1, 1)))])
    scale = step * np.array([r, R, 1.0])

    def V(x: Array) -> float:
        return float(molecule.potential(np.array(x[0]), np.array(x[1]), np.cos(np.array(x[2]))))

    eye = np.eye(3)
    second = np.array(
        [[sum(s * t * V(at + scale * (s * a + t * b)) for s in (-1, 1) for t in (-1, 1)) / 4 for b in eye] for a in eye]
    ) / np.outer(scale, scale)
    G = np.diag([1 / mu, 1 / nu, 1 / (mu * r**2) + 1 / (nu * R**2)])
    omega = np.sqrt(np.maximum(np.linalg.eigvals(G @ second).real, 0))
    return float(omega.sum() / 2)


def _jacobi(molecule: Molecule, sides: Array) -> tuple[float, float, float]:
    """r, R and c of a triangle."""
    i, j = molecule.pair
    side = {pair: float(d) for pair, d in zip(PAIRS, sides, strict=True)}
    to_i, to_j = (side[min(k, molecule.third), max(k, molecule.third)] for k in (i, j))
    r, share = side[i, j], molecule.masses[i] / (molecule.masses[i] + molecule.masses[j])
    R = float(np.sqrt(max(share * to_i**2 + (1 - share) * to_j**2 - share * (1 - share) * r**2, 1e-4 * r**2)))
    return r, R, (R**2 + ((1 - share) * r) ** 2 - to_i**2) / (2 * R * (1 - share) * r)


def grid(molecule: Molecule, bottom: float, sides: Array, top: float, finer: float = 1.0) -> JacobiGrid:
    """The points for levels up to the energy `top`.

    Args:
        bottom, sides: the minimum of V.
        top: energy of the highest level wanted.
        finer: 1, or more for a check: energies and the reach are multiplied by it.
    """
    (mu, nu), (r0, R0, _) = molecule.reduced, _jacobi(molecule, sides)
    height = finer * SPREAD * (top - bottom)
    c = np.linspace(0 if molecule.step == 2 else -1, 1, 25)
    ratio = np.geomspace(0.02, 30, N_SCAN)
    along_r = molecule.potential((r0 * ratio)[:, None, None], (R0 * ratio[::5])[:, None], c).min((1, 2))
    along_R = molecule.potential((r0 * ratio[::5])[:, None], (R0 * ratio)[:, None, None], c).min((1, 2))
    r, r_far = _axis(r0 * ratio, along_r, mu, top, height, finer)
    R, R_far = _axis(R0 * ratio, along_R, nu, top, height, finer)
    inertia = 1 / (1 / (mu * r_far**2) + 1 / (nu * R_far**2))
    n_angles = int(np.sqrt(2 * inertia * height) / molecule.step) + 4
    return JacobiGrid(r, R, n_angles, bottom + finer * KEPT * (top - bottom))


def _axis(x: Array, V: Array, mass: float, top: float, height: float, finer: float) -> tuple[Axis, float]:
    """The points of one distance, and the largest distance that is allowed classically.

    Args:
        x, V: V along the distance, relaxed in the other coordinates, which says how far psi reaches.
        height: kinetic energy that the points resolve.
    """
    kappa = np.sqrt(2 * mass * np.maximum(V - top, 0))
    allowed = np.flatnonzero(kappa == 0)
    S = np.concatenate([[0.0], np.cumsum(np.diff(x) * (kappa[1:] + kappa[:-1]) / 2)])
    action = finer**0.5 * ACTION
    below = np.flatnonzero(S[allowed[0]] - S[: allowed[0] + 1] > action)
    above = np.flatnonzero(S[allowed[-1] :] - S[allowed[-1]] > action)
    low = float(x[below[-1]]) if len(below) else 0.0
    high = float(x[allowed[-1] + above[0]]) if len(above) else float(x[-1])
    return Axis(low, high, int((high - low) * np.sqrt(2 * mass * height) / np.pi) + 2), float(x[allowed[-1]])


def levels(molecule: Molecule, points: JacobiGrid, n: int, limits: Limits) -> Array:
    """The lowest n levels on a grid."""
    mu, nu = molecule.reduced
    r, R = points.r.points, points.R.points
    c, angular = _angles(points.n_angles, molecule.step, molecule.first)
    limits.room(8.0 * len(r) * len(R) * len(c) * (len(c) + 3) / 2**30, "a grid of Jacobi coordinates")
    V = molecule.potential(r[:, None, None], R[:, None], c)
    limits.check()
    T_r, T_R = points.r.kinetic(mu), points.R.kinetic(nu)
    blocks: list[tuple[int, Array, Array]] = []  # R, energies, and states on the points (r, c)
    for k in range(len(R)):
        limits.check()
        layer = _layer(V[:, k], T_r, 1 / (2 * mu * r**2) + 1 / (2 * nu * R[k] ** 2), angular, points.kept)
        if layer is not None:
            blocks.append((k, *layer))
    sizes = [len(E) for _, E, _ in blocks]
    H: Array = np.zeros((sum(sizes), sum(sizes)))
    limits.room(16.0 * sum(sizes) ** 2 / 2**30, "the states that are kept")
    starts = np.concatenate([[0], np.cumsum(sizes)])
    for a, (k, E, X) in enumerate(blocks):
        limits.check()
        for b, (m, _, Y) in enumerate(blocks[: a + 1]):
            block = T_R[k, m] * (X.T @ Y) if a != b else np.diag(E + T_R[k, k])
            H[starts[a] : starts[a + 1], starts[b] : starts[b + 1]] = block
    H += np.tril(H, -1).T
    if len(H) < DENSE:
        return np.asarray(np.linalg.eigvalsh(H)[:n], dtype=np.float64)
    found: Array = np.sort(eigsh(H, k=n, which="SA", ncv=max(4 * n, 60), return_eigenvectors=False, tol=1e-13))
    return found


def _layer(V: Array, T: Array, rotation: Array, angular: Array, kept: float) -> tuple[Array, Array] | None:
    """Energies and states (point of r and c, state) below `kept` at one R; None if there are none."""
    n_r, n_c = V.shape
    here = np.flatnonzero(V.min(1) < kept)
    if not len(here):
        return None
    ceiling = 1e3 * max(abs(kept), 1.0) + np.abs(V[here]).min()
    h = rotation[here, None, None] * angular + np.minimum(V[here], ceiling)[:, :, None] * np.eye(n_c)
    energies, vectors = np.linalg.eigh(h)
    some = [int((kept > E).sum()) for E in energies]
    U = [vector[:, :m] for vector, m in zip(vectors, some, strict=True) if m]
    rows = [a for a, m in zip(here, some, strict=True) if m]
    if not rows:
        return None
    basis = np.concatenate(U, 1)
    row = np.repeat(rows, [u.shape[1] for u in U])
    H = (basis.T @ basis) * T[np.ix_(row, row)]  # the angular functions of one r are orthonormal
    H[np.diag_indices(len(H))] += np.concatenate([E[:m] for E, m in zip(energies, some, strict=True) if m])
    E, C = eigh(H, subset_by_value=(-np.inf, kept), driver="evr", check_finite=False)
    if not len(E):
        return None
    X = np.zeros((n_r, n_c, len(E)))
    first = 0
    for a, u in zip(rows, U, strict=True):
        X[a] = u @ C[first : first + u.shape[1]]
        first += u.shape[1]
    return E, X.reshape(n_r * n_c, -1)


def _angles(n: int, step: int, first: int) -> tuple[Array, Array]:
    """Points of c, and l^2 on them: Gauss-Legendre points, one half of them where only even or odd l take part."""
    c, w = np.polynomial.legendre.leggauss(step * n)
    if step == 2:
        c, w = c[n:], 2 * w[n:]
    l = first + step * np.arange(n)  # noqa: E741  the name used in every textbook
    P = np.polynomial.legendre.legvander(c, int(l[-1]))[:, l] * np.sqrt((2 * l + 1) / 2 * w[:, None])
    return c, (P * (l * (l + 1))) @ P.T
