"""The Hamiltonian on a product of grids, one for each coordinate, without ever storing it.

    H = sum_k T_k + V,      T_k = U_k diag(k^2 / 2m) U_k^T,      V diagonal on the points

Sine functions between walls (the sinc-DVR of Colbert and Miller, J. Chem. Phys. 96, 1982 (1992), their eq. A6) or plane
waves on a ring: V is needed at points only, and the error falls faster than any power of the spacing.  T_k is applied
along its own axis, which makes d products with small matrices; scipy's Lanczos iteration does the rest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from fkdrift.errors import BadParameter, NotConverged, Unbound
from fkdrift.exact.limits import Limits
from fkdrift.exact.separability import Landscape
from fkdrift.exact.spectrum import Array


@dataclass(frozen=True)
class Axis:
    """n points of one coordinate, between walls at low and high, or on a ring of that length."""

    low: float
    high: float
    n: int
    ring: bool = False

    @property
    def spacing(self) -> float:
        return (self.high - self.low) / (self.n if self.ring else self.n + 1)

    @property
    def points(self) -> Array:
        return self.low + self.spacing * (np.arange(self.n, dtype=np.float64) + (not self.ring))

    @property
    def wavenumbers(self) -> Array:
        j = np.arange(self.n, dtype=np.float64)
        length = self.high - self.low
        return 2 * np.pi / length * ((j + 1) // 2) if self.ring else np.pi / length * (j + 1)

    def modes(self, x: Array) -> Array:
        """The orthonormal functions sin(kx), or 1, cos(kx), sin(kx) on a ring, at positions x: (position, mode)."""
        length, k = self.high - self.low, self.wavenumbers
        phase = (x[:, None] - self.low) * k
        if not self.ring:
            return np.sqrt(2 / length) * np.sin(phase)
        waves = np.where(np.arange(self.n) % 2 == 1, np.cos(phase), np.sin(phase)) * np.sqrt(2 / length)
        waves[:, 0] = 1 / np.sqrt(length)
        return waves

    @functools.cached_property
    def unitary(self) -> Array:
        """U: modes at the points, so that U^T psi are the amplitudes of the modes."""
        return self.modes(self.points) * np.sqrt(self.spacing)

    def kinetic(self, mass: float) -> Array:
        return (self.unitary * (self.wavenumbers**2 / (2 * mass))) @ self.unitary.T


@dataclass(frozen=True)
class GridStates:
    """Levels on a product grid; wavefunctions (level, *axes) normalised as sum psi^2 = 1."""

    energies: Array
    errors: Array
    axes: tuple[Axis, ...]
    vectors: Array
    threshold: float | None

    def below(self) -> Array:
        """The levels below the continuum."""
        return self.energies[self.energies < (np.inf if self.threshold is None else self.threshold)]

    def bound(self) -> GridStates:
        """Only those levels; Unbound if there is none."""
        n = len(self.below())
        if n == 0:
            raise Unbound(
                f"no level lies below the continuum, which starts at {self.threshold:.6g}: the well is too shallow or "
                "too narrow to bind, or binds so weakly that the state reaches very far; deepen it, or give a box"
            )
        return replace(self, energies=self.energies[:n], errors=self.errors[:n], vectors=self.vectors[:n])

    def density_norm(self) -> float:
        """What turns grid values into psi(x): 1/sqrt(volume of one cell)."""
        return float(np.prod([axis.spacing for axis in self.axes]) ** -0.5)

    def wavefunctions(self, axes: tuple[Array, ...]) -> Array:
        """psi_n on the product of other points along each axis, (level, *axes)."""
        psi = self.vectors
        for k, (axis, x) in enumerate(zip(self.axes, axes, strict=True), 1):
            psi = np.moveaxis(np.tensordot(axis.modes(x) @ axis.unitary.T, psi, (1, k)), 0, k)
        return psi

    def log_psi(self, x: Array) -> Array:
        """log psi_0 at positions (batch, coordinate) by summing the modes; NaN below 1e-7 of the maximum."""
        psi = self.vectors[0]
        out = np.empty(len(x))
        amplitude = psi
        for k, axis in enumerate(self.axes):
            amplitude = np.moveaxis(np.tensordot(axis.unitary, amplitude, (0, k)), 0, k)
        step = max(1, 2_000_000 // psi[0].size) if psi.ndim > 1 else 4096
        for start in range(0, len(x), step):
            block = x[start : start + step]
            value = self.axes[0].modes(block[:, 0]) @ amplitude.reshape(psi.shape[0], -1)
            for k, axis in enumerate(self.axes[1:], 1):
                value = np.einsum("bn,bnm->bm", axis.modes(block[:, k]), value.reshape(len(block), axis.n, -1))
            out[start : start + step] = value[:, 0]
        walls = np.array([[axis.low, axis.high] for axis in self.axes if not axis.ring]).reshape(-1, 2)
        open_ = [k for k, axis in enumerate(self.axes) if not axis.ring]
        inside = ((x[:, open_] >= walls[:, 0]) & (x[:, open_] <= walls[:, 1])).all(1)
        large = inside & (out > 1e-7 * self.density_norm() * psi.max())
        return np.log(np.where(large, out, np.nan))


def diagonalise_on(
    V: Landscape,
    axes: tuple[Axis, ...],
    levels: int,
    top: float,
    before: GridStates | None,
    limits: Limits,
    precision: float,
    verify: bool = False,
) -> GridStates:
    """The lowest levels on one grid; with `verify`, nothing orthogonal to them may lie below the highest of them."""
    shape = tuple(axis.n for axis in axes)
    size = int(np.prod(shape, dtype=float))
    krylov = max(2 * levels + 1, 20)
    gib = 8.0 * (size * (krylov + 2 * levels + 8) + 3 * sum(n**2 for n in shape)) / 2**30
    limits.room(gib, f"a grid of {' x '.join(map(str, shape))} = {size:.3g} points")
    U = np.empty(size)
    for start in range(0, size, 1 << 18):
        index = np.unravel_index(np.arange(start, min(start + (1 << 18), size)), shape)
        U[start : start + (1 << 18)] = V.V(np.stack([axis.points[i] for axis, i in zip(axes, index, strict=True)], 1))
    if np.isnan(U).any():
        at = [
            float(axis.points[i])
            for axis, i in zip(axes, np.unravel_index(int(np.argmax(np.isnan(U))), shape), strict=True)
        ]
        raise BadParameter(f"V is not a number (NaN) at {at}, inside the box of the calculation")
    kinetic = [axis.kinetic(float(m)) for axis, m in zip(axes, V.mass, strict=True)]
    fastest = sum(float(axis.wavenumbers[-1] ** 2) / (2 * m) for axis, m in zip(axes, V.mass, strict=True))
    shift = max(top, float(U.min())) + fastest
    U = np.minimum(U, shift) - shift
    exchange = _symmetriser(V, shape)
    levels = min(levels, size)

    def apply(x: Array) -> Array:
        limits.check()
        x = exchange(x.reshape(shape))
        y = (U * x.ravel()).reshape(shape)
        for k, T in enumerate(kinetic):
            y += _along(T, x, k)
        return exchange(y).ravel()

    if size <= 300:
        H = np.stack([apply(e) for e in np.eye(size)])
        energies, vectors = np.linalg.eigh((H + H.T) / 2)
        energies, vectors = energies[:levels], vectors[:, :levels]
    else:
        operator = LinearOperator((size, size), matvec=apply, dtype=np.float64)
        guess = _transferred(before, axes) if before is not None else np.exp(-2 * (U - U.min()) / np.ptp(U))
        guess = guess + 1e-3 * np.abs(guess).max() * np.random.default_rng(0).normal(size=size)
        guess = exchange(guess.reshape(shape)).ravel()
        for attempt in range(4):
            k = min(levels + attempt, size - 1)
            try:
                energies, vectors = eigsh(
                    operator, k=k, which="SA", v0=guess, ncv=min(krylov + 2 * attempt, size), tol=precision, maxiter=400
                )
            except ArpackNoConvergence as error:
                raise NotConverged(
                    f"Lanczos iteration on a grid of {shape} points did not settle: {error}; give a smaller box"
                ) from None
            order = np.argsort(energies)[:levels]
            energies, vectors = energies[order], vectors[:, order]
            if not verify:
                break
            guess = exchange(np.random.default_rng(attempt + 1).normal(size=shape)).ravel()
            missed = _lowest_beside(apply, vectors, guess) - energies[-1]
            if missed >= -1e-7 * abs(energies[-1] - energies[0]) - precision * float(energies[0] - U.min()):
                break
        else:
            raise NotConverged(
                f"Lanczos iteration on a grid of {shape} points misses a level below {energies[-1] + shift:.8g}; ask "
                "for more levels, or give a smaller box"
            )
    found = np.ascontiguousarray(vectors.T).reshape(-1, *shape)
    peaks = found.reshape(len(found), -1)
    signs = np.sign(peaks[np.arange(len(found)), np.abs(peaks).argmax(1)])
    found *= signs.reshape(-1, *[1] * len(shape))
    return GridStates(energies + shift, np.zeros(0), axes, found, None)


def _lowest_beside(apply: Callable[[Array], Array], vectors: Array, start: Array) -> float:
    """The lowest eigenvalue in the space orthogonal to the eigenvectors found, roughly and from above."""

    def project(x: Array) -> Array:
        return x - vectors @ (vectors.T @ x)

    def beside(x: Array) -> Array:
        return project(apply(project(x.ravel())))

    n = len(start)
    operator = LinearOperator((n, n), matvec=beside, dtype=np.float64)
    return float(eigsh(operator, k=1, which="SA", v0=project(start), tol=1e-3, return_eigenvectors=False)[0])


def _along(T: Array, x: Array, k: int) -> Array:
    """T applied along axis k of x."""
    n = x.shape[k]
    before, after = int(np.prod(x.shape[:k])), int(np.prod(x.shape[k + 1 :]))
    if after == 1:
        return (x.reshape(before, n) @ T).reshape(x.shape)
    return np.matmul(T, x.reshape(before, n, after)).reshape(x.shape)


def _symmetriser(V: Landscape, shape: tuple[int, ...]) -> Callable[[Array], Array]:
    """The projection on functions that do not change when identical particles are exchanged.

    For a group of n it is the product of (1 + P_{1j} + ... + P_{j-1,j})/j for j = 2..n, not a sum of n! terms.
    """
    factors = []
    for group in V.alike:
        columns = [[k for k, p in enumerate(V.particle) if p == i] for i in group]
        for j in range(1, len(group)):
            swaps = []
            for i in range(j):
                order = list(range(len(shape)))
                for a, b in zip(columns[i], columns[j], strict=True):
                    order[a], order[b] = order[b], order[a]
                swaps.append(order)
            factors.append(swaps)

    def project(x: Array) -> Array:
        for swaps in factors:
            x = (x + sum(x.transpose(order) for order in swaps)) / (len(swaps) + 1)
        return np.ascontiguousarray(x)

    return project


def _transferred(before: GridStates, axes: tuple[Axis, ...]) -> Array:
    """A start vector: the levels found on the previous grid, summed and interpolated to this one."""
    x = np.tensordot(1.0 / np.arange(1, len(before.vectors) + 1), before.vectors, 1)
    for k, (old, new) in enumerate(zip(before.axes, axes, strict=True)):
        points = new.points
        inside = (points >= old.low) & (points <= old.high)
        transfer = np.where(inside[:, None], old.modes(points), 0) @ old.unitary.T
        x = np.moveaxis(np.tensordot(transfer, x, (1, k)), 0, k)
    return np.ascontiguousarray(x).ravel()
