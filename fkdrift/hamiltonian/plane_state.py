"""The lowest state of two coupled coordinates on a grid, and log phi as a smooth surface.

    [ -d^2/dx^2 / (2 m_x) - d^2/dy^2 / (2 m_y) + V(x, y) ] phi = E phi

Cardinal functions sinc((x - x_i) / h) make the kinetic energy a full matrix in each coordinate and the error
exponentially small; the lowest state follows from preconditioned steps (LOBPCG), the preconditioner being the sum of
two one-coordinate problems in each other's mean field. Where phi is too small to be accurate, below 1e-5 of its
maximum, log phi goes on as that of a three-point difference scheme, which is positive everywhere.

The rectangle grows or shrinks until phi at its edges is small and no space is lost.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.sparse import diags, identity, kron
from scipy.sparse.linalg import LinearOperator, lobpcg, splu

Array = NDArray[np.float64]

N_COARSE, N_FINE = 48, 144  # points along each coordinate, to find the rectangle and to solve in it
EDGE = 1e-8  # phi at the edges, relative to its maximum, that the rectangle is made for
TRUSTED = 1e-5  # phi, relative to its maximum, above which the cardinal functions are accurate
HIGHEST = 400.0  # V is cut off this many zero-point energies above the ground state, where phi is not felt
MAX_ROUNDS = 8
ALIKE = 1e-6  # levels closer than this, relative to E - min V, are not told apart


class Plane(NamedTuple):
    """log phi on an even grid: axes (n_x,), (n_y,), values (n_x, n_y), the energy."""

    x: Array
    y: Array
    log_phi: Array
    energy: float


def solve_plane(
    V: Callable[[Array, Array], Array],
    mass: tuple[float, float],
    box: tuple[tuple[float, float], tuple[float, float]],
    energy: float,
    fixed: bool = False,
) -> Plane:
    """The lowest state in the plane.

    Args:
        V: of two arrays of the same shape.
        mass: of the two coordinates.
        box: a first rectangle that holds all places where V < energy.
        energy: at least the ground-state energy.
        fixed: V is not defined outside of the rectangle.
    """
    sides = np.asarray(box, dtype=float)
    for _ in range(MAX_ROUNDS):
        grid = _Grid(V, mass, sides, N_COARSE, energy)
        phi, E = grid.positive()
        energy = min(energy, E) if np.isfinite(E) else energy
        if fixed:
            break
        changed = _resized(sides, phi / phi.max())
        done = np.abs(changed - sides).max() < 0.04 * np.ptp(sides, axis=1).min()
        sides = changed
        if done:
            break
    grid = _Grid(V, mass, sides, N_FINE, energy)
    rough, _ = grid.positive()
    phi, E = grid.cardinal(rough)
    return Plane(grid.x, grid.y, _joined(phi, rough), E)


def _resized(sides: Array, phi: Array) -> Array:
    """The rectangle in which phi falls to EDGE: smaller where it is below, larger where it is not yet."""
    new = sides.copy()
    for k, profile in enumerate((phi.max(1), phi.max(0))):
        points = np.linspace(sides[k, 0], sides[k, 1], len(profile))
        log = np.log(np.maximum(profile, 1e-300))
        wanted = np.log(EDGE)
        for end, order in ((0, 1), (1, -1)):
            p, f = points[::order], log[::order]
            if f[0] > wanted:
                slope = max((f[2] - f[0]) / abs(p[2] - p[0]), 0.3 / np.ptp(points))
                new[k, end] = p[0] - order * min((f[0] - wanted) / slope, 0.6 * np.ptp(points))
            else:
                j = int(np.argmax(f > wanted))
                new[k, end] = p[max(j - 1, 0)]
    return new


class _Grid:
    """An even grid on a rectangle, with V cut off where phi is not felt."""

    def __init__(
        self, V: Callable[[Array, Array], Array], mass: tuple[float, float], sides: Array, n: int, energy: float
    ) -> None:
        self.x, self.y = (np.linspace(side[0], side[1], n) for side in sides)
        self.mass = mass
        values = V(*np.meshgrid(self.x, self.y, indexing="ij"))
        lowest = float(values.min())
        self.h = (self.x[1] - self.x[0], self.y[1] - self.y[0])
        zero_point = max(energy - lowest, 1e-6 * abs(energy))
        self.V = np.minimum(values, energy + HIGHEST * zero_point)

    def positive(self) -> tuple[Array, float]:
        """phi > 0 and E by three-point differences and inverse iteration."""
        n = len(self.x)
        parts = [
            diags([np.full(n - 1, -1.0), np.full(n, 2.0), np.full(n - 1, -1.0)], [-1, 0, 1]) / (2 * m * h**2)
            for m, h in zip(self.mass, self.h, strict=True)
        ]
        H = (kron(parts[0], identity(n)) + kron(identity(n), parts[1]) + diags(self.V.ravel())).tocsc()
        shift = float(self.V.min())
        phi = np.exp(-(self.V - shift).ravel() / max(np.median(self.V) - shift, 1e-300))
        E = shift
        for _ in range(3):
            inverse = splu(H - shift * identity(n * n, format="csc"), permc_spec="MMD_AT_PLUS_A")
            for _ in range(12):
                new = inverse.solve(phi)
                new /= np.abs(new).max()
                previous, E = E, float(new @ (H @ new) / (new @ new))
                phi = new
                if abs(E - previous) < 1e-12 * abs(E - self.V.min()):
                    break
            lower = E - max(1e-3 * abs(E - float(self.V.min())), 4 * abs(E - previous))
            if abs(E - previous) < 1e-9 * abs(E - self.V.min()) or lower <= shift:
                break
            shift = lower
        return np.maximum(np.abs(phi), 1e-300).reshape(n, n), E

    def cardinal(self, start: Array) -> tuple[Array, float]:
        """phi and E with sinc functions, from a start."""
        n = len(self.x)
        k = np.arange(n)
        apart = k[:, None] - k
        with np.errstate(divide="ignore"):
            unit = np.where(apart == 0, np.pi**2 / 3, 2.0 * (-1.0) ** apart / np.where(apart == 0, 1, apart) ** 2)
        T = [unit / (2 * m * h**2) for m, h in zip(self.mass, self.h, strict=True)]
        weight = start**2 / (start**2).sum()
        along_x = (self.V * weight).sum(1) / np.maximum(weight.sum(1), 1e-12)
        along_y = (self.V * weight).sum(0) / np.maximum(weight.sum(0), 1e-12)
        along_x = np.where(weight.sum(1) > 1e-12, along_x, self.V.min(1))
        along_y = np.where(weight.sum(0) > 1e-12, along_y, self.V.min(0))
        ex, ux = np.linalg.eigh(T[0] + np.diag(along_x))
        ey, uy = np.linalg.eigh(T[1] + np.diag(along_y))
        sums = ex[:, None] + ey
        gaps = sums - sums[0, 0] + 0.2 * min(ex[1] - ex[0], ey[1] - ey[0])

        def apply(v: Array) -> Array:
            f = v.reshape(n, n)
            return (T[0] @ f + f @ T[1] + self.V * f).reshape(v.shape)

        def precondition(v: Array) -> Array:
            f = v.reshape(n, n)
            return (ux @ ((ux.T @ f @ uy) / gaps) @ uy.T).reshape(v.shape)

        H = LinearOperator((n * n, n * n), matvec=apply, dtype=float)
        M = LinearOperator((n * n, n * n), matvec=precondition, dtype=float)
        guess = np.stack([start.ravel(), (start * self.x[:, None]).ravel(), (start * self.y).ravel()], 1)
        size = max(abs(float(sums[0, 0] - self.V.min())), 1e-300)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # higher states of the block need not converge
            E, phi = lobpcg(H, guess, M=M, tol=1e-7 * size, maxiter=80, largest=False)
        alike = phi[:, E - E.min() < ALIKE * size]  # of nearly degenerate states the mixture without a node
        return (alike @ (alike.T @ start.ravel())).reshape(n, n), float(E.min())


def _joined(phi: Array, rough: Array) -> Array:
    """log phi where phi is accurate, going on as the logarithm of the rough one."""
    good = phi > TRUSTED * phi.max()
    fall = np.log(rough)
    correction = np.where(good, np.log(np.where(good, phi, 1.0)) - fall, 0.0)
    distance, nearest = distance_transform_edt(~good, return_indices=True)
    extended = correction[tuple(nearest)]
    smooth = gaussian_filter(extended, 3.0, mode="nearest")
    share = 1 / (1 + np.exp(-(distance - 6)))
    blended = np.where(good, correction, extended * (1 - share) + smooth * share)
    joined = fall + blended
    return joined - joined.max()
