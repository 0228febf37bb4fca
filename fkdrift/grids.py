"""Energy levels on a product of grids, one for each coordinate, without ever storing the Hamiltonian.

    H = sum_k T_k + V,      T_k = U_k diag(k^2 / 2m) U_k^T,      V diagonal on the points

Sine functions between walls (the sinc-DVR of Colbert and Miller, J. Chem. Phys. 96, 1982 (1992), their eq. A6) or plane
waves on a ring, so that V needs values at points only and the error falls faster than any power of the spacing.  T_k is
applied along its own axis, d products of small matrices; scipy's Lanczos does the rest.  The grid adapts itself: a side of the
box moves outwards while the wavefunctions are not small there, the spacing shrinks while the highest modes are occupied, and
the result is confirmed on a grid that is both larger and finer; the change is the error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, eigsh

from fkdrift.errors import BadParameter, FkdriftError, NotConverged, TooLarge, Unbound
from fkdrift.landscape import Landscape
from fkdrift.levels import Array
from fkdrift.line import Line, look, solve_line

LARGEST = 5  # degrees of freedom of a product grid


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
        return self.low + self.spacing * (np.arange(self.n) + (not self.ring))

    @property
    def wavenumbers(self) -> Array:
        j = np.arange(self.n)
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

    def density_norm(self) -> float:
        """What turns grid values into psi(x): 1/sqrt(volume of one cell)."""
        return float(np.prod([axis.spacing for axis in self.axes]) ** -0.5)

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


# -- public ------------------------------------------------------------------------------------------------------------


def solve_grid(V: Landscape, levels: int, *, tolerance: float, points: int | None, max_memory_gib: float) -> GridStates:
    """The lowest levels on a product grid, symmetric under exchange of identical particles.

    Raises:
        TooLarge: the grid that the tolerance needs does not fit into max_memory_gib; the message has the estimate.
        NotConverged: the error stayed above the tolerance; `partial` has the GridStates.
        Unbound: no level lies below the continuum.
    """
    axes, floor, threshold, top = (_ring_axes if V.period is not None else _open_axes)(V, levels, points)
    axes = _same_for_identical(V, axes)
    small = 1e-3 * tolerance
    states: GridStates | None = None
    confirmed: GridStates | None = None
    for attempt in range(24):
        try:
            states = _diagonalise(V, axes, levels, top, states, max_memory_gib, 1e-6 if attempt == 0 else 1e-9)
        except TooLarge as error:
            if confirmed is None:
                raise
            raise NotConverged(
                f"the error reached {np.max(confirmed.errors):.1e}; then {error}", partial=confirmed
            ) from None
        states = replace(states, threshold=threshold)
        top = (
            max(top, float(states.energies[-1]))
            if threshold is None
            else min(max(top, float(states.energies[-1])), threshold)
        )
        better = axes if points is not None else _same_for_identical(V, _adapted(V, states, small))
        if better != axes:
            axes = better
            continue
        larger = _same_for_identical(V, tuple(_enlarged(axis, V, k) for k, axis in enumerate(axes)))
        confirmed = replace(_diagonalise(V, larger, levels, top, states, max_memory_gib, 1e-9), threshold=threshold)
        scale = np.maximum(confirmed.energies - floor, 1e-3 * np.abs(confirmed.energies))
        errors = np.abs(confirmed.energies - states.energies) + 1e-13 * np.maximum(scale, np.abs(confirmed.energies))
        confirmed = replace(confirmed, errors=errors)
        bound = confirmed.energies < (np.inf if threshold is None else threshold)
        if not bound.any():
            raise Unbound(
                f"no level lies below the continuum, which starts at {threshold:.6g}; deepen the well, or give a box"
            )
        if (errors <= tolerance * scale + 1e-12 * np.abs(confirmed.energies))[bound].all() or points is not None:
            return replace(
                confirmed, energies=confirmed.energies[bound], errors=errors[bound], vectors=confirmed.vectors[bound]
            )
        states, axes, small = confirmed, larger, small * 1e-2
    raise NotConverged(
        f"the product grid did not settle: error {np.max(confirmed.errors) if confirmed else np.nan:.1e} after 24 grids; "
        "allow a larger tolerance, or give a box",
        partial=confirmed,
    )


# -- choosing the grid -------------------------------------------------------------------------------------------------


Start = tuple[tuple[Axis, ...], float, float | None, float]


def _ring_axes(V: Landscape, levels: int, points: int | None) -> Start:
    """Rings: enough modes for the kinetic energy, to be refined."""
    assert V.period is not None
    sample = V.V(V.points(4096, 0))
    if not np.isfinite(sample).all():
        raise BadParameter("V is not a finite number everywhere on the ring; smooth its singularities, or cut them off")
    depth = float(np.ptp(sample))
    axes = []
    for L, m in zip(V.period, V.mass, strict=True):
        n = points or int(np.sqrt(2 * m * depth) * L / np.pi + 2 * levels ** (1 / V.size)) + 8
        axes.append(Axis(0.0, float(L), n | 1, ring=True))
    return tuple(axes), float(sample.min()), None, float(sample.mean())


def _open_axes(V: Landscape, levels: int, points: int | None) -> Start:
    """Boxes around everything that is classically allowed at the energy of the highest level wanted (an estimate)."""
    centre = _descend(V)
    bottom = float(V.V(centre[None])[0])
    threshold = _far_away(V, centre, bottom)
    ladder, low, high = np.zeros(1), np.empty(V.size), np.empty(V.size)
    spacing, zero_point = np.empty(V.size), np.empty(V.size)
    surveys = []
    for k in range(V.size):
        cut = _cut(V, k, centre)
        surveys.append(look(cut))
        try:
            energies = solve_line(cut, levels, tolerance=1e-4).energies - bottom
        except FkdriftError:
            energies = np.array([surveys[-1].energy_of(n + 0.5) - bottom for n in range(levels)])
        zero_point[k] = max(energies[0], 1e-12)
        ladder = np.sort(np.add.outer(ladder, energies).ravel())[:levels]
    top = bottom + float(ladder[-1]) * 1.1
    if threshold is not None:
        top = min(top, threshold)
    for k, survey in enumerate(surveys):
        allowed = np.flatnonzero(survey.V <= max(top, survey.V.min() + zero_point[k]))
        ends = []
        for side in (-1, 1):
            edge = allowed[0] if side < 0 else allowed[-1]
            x, U = (survey.x[edge:], survey.V[edge:]) if side > 0 else (survey.x[edge::-1], survey.V[edge::-1])
            kappa = np.sqrt(2 * V.mass[k] * np.maximum(U - top, 0))
            S = np.concatenate([[0], np.cumsum(0.5 * (kappa[1:] + kappa[:-1]) * np.abs(np.diff(x)))])
            wave = 1 / np.sqrt(2 * V.mass[k] * zero_point[k])
            ends.append(float(np.interp(5.0, S, x)) if S[-1] > 5 else float(x[0] + side * 8 * wave))
        low[k], high[k] = min(ends), max(ends)
        spacing[k] = (
            np.pi / np.sqrt(2 * V.mass[k]) / (np.sqrt(max(top - bottom, zero_point[k])) + 2.0 * np.sqrt(zero_point[k]))
        )
    low, high = _around_allowed(V, np.maximum(low, V.low), np.minimum(high, V.high), top, threshold)
    counts = [points or max(6, int(np.ceil((b - a) / h))) for a, b, h in zip(low, high, spacing, strict=True)]
    axes = tuple(Axis(float(a), float(b), n) for a, b, n in zip(low, high, counts, strict=True))
    return axes, bottom, threshold, top


def _cut(V: Landscape, k: int, centre: Array) -> Line:
    """V along one coordinate through the minimum."""
    part = V.part([k], centre)
    return Line(lambda x: part.V(x[:, None]), float(V.mass[k]), float(V.low[k]), float(V.high[k]))


def _descend(V: Landscape) -> Array:
    """A minimum of V: the lowest of several descents from random points."""
    spreads = (0.1, 0.5, 1.0, 2.0, 5.0, 20.0, 100.0)
    x = np.concatenate([V.points(1024, seed, s) for seed, s in enumerate(spreads)])
    values = V.V(x)
    finite = np.isfinite(values)
    if not finite.any():
        raise BadParameter(
            "V is not a finite number at any of the points tried; it must be finite where the particles are"
        )
    x, values = x[finite], values[finite]
    best, at = np.inf, x[0]
    for start in x[np.argsort(values)[:4]]:
        found = minimize(
            lambda z: float(np.nan_to_num(V.V(np.clip(z, V.low, V.high)[None])[0], nan=1e300, posinf=1e300)), start
        )
        if np.isfinite(found.fun) and found.fun < best:
            best, at = float(found.fun), np.clip(found.x, V.low, V.high)
    if np.abs(at).max() > 1e5 or best < -1e12:
        raise Unbound(
            f"V falls without limit: {best:.3g} at {np.array2string(at, precision=3)}; it must be bounded below"
        )
    return at


def _far_away(V: Landscape, centre: Array, bottom: float) -> float | None:
    """Where the continuum starts: the lowest V at a great distance; None if V still rises there."""
    if np.isfinite(V.low).all() and np.isfinite(V.high).all():
        return None
    directions = np.random.default_rng(1).normal(size=(400, V.size))
    diagonal = np.array(np.meshgrid(*[[-1, 0, 1]] * V.size)).reshape(V.size, -1).T
    directions = np.concatenate([directions, diagonal[np.abs(diagonal).sum(1) > 0]])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    inner, outer = (V.V(np.clip(centre + r * directions, V.low, V.high)) for r in (1e3, 1e5))
    inner, outer = np.nan_to_num(inner, nan=np.inf), np.nan_to_num(outer, nan=np.inf)
    if outer.min() < bottom - 1e-6 * max(1.0, abs(bottom)):
        worst = directions[np.argmin(outer)]
        raise Unbound(
            f"V falls without limit, to {outer.min():.3g} at a distance 1e5 in the direction {np.array2string(worst, precision=2)}: "
            "a ground state needs a potential that is bounded below"
        )
    change = outer - inner
    flat = change <= 0.01 * np.maximum(outer - bottom, 0)
    if not flat.any():
        return None
    threshold = float(outer[flat].min())
    if threshold - bottom <= 1e-9 * max(abs(threshold), abs(bottom)):
        raise Unbound(
            f"V does not confine: in some direction it is no higher far away ({threshold:.6g}) than at its minimum ({bottom:.6g}); "
            "give a box (hard walls), a periodic box, or a potential that rises in every direction"
        )
    return threshold


def _around_allowed(V: Landscape, low: Array, high: Array, top: float, threshold: float | None) -> tuple[Array, Array]:
    """Stretch the box until no random point outside it, up to ten times its size, has V below the top level."""
    generator = np.random.default_rng(2)
    for factor in (10.0, 3.0, 1.5) * 4:
        middle, half = (low + high) / 2, (high - low) / 2
        x = np.clip(middle + factor * half * generator.uniform(-1, 1, size=(8192, V.size)), V.low, V.high)
        inside = ((x >= low) & (x <= high)).all(1)
        allowed = x[
            ~inside & (V.V(x) < (top if threshold is None else min(top, threshold - 0.3 * abs(threshold - top))))
        ]
        if len(allowed):
            low = np.maximum(np.minimum(low, allowed.min(0) - 0.1 * half), V.low)
            high = np.minimum(np.maximum(high, allowed.max(0) + 0.1 * half), V.high)
            if (high - low).max() > 1e6:
                raise Unbound(
                    "V does not confine: it stays below the level sought at distances of a million; give a box"
                )
    return low, high


def _same_for_identical(V: Landscape, axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Give identical particles the same axes."""
    axes = tuple(axes)
    found = list(axes)
    for group in V.alike:
        columns = np.array([[k for k, p in enumerate(V.particle) if p == i] for i in group])
        for shared in columns.T:
            a, b = min(axes[k].low for k in shared), max(axes[k].high for k in shared)
            h = min(axes[k].spacing for k in shared)
            ring = axes[shared[0]].ring
            n = max(axes[k].n for k in shared) if ring else max(int(round((b - a) / h)) - 1, 2)
            for k in shared:
                found[k] = Axis(a, b, n, ring)
    return tuple(found)


def _adapted(V: Landscape, states: GridStates, small: float) -> tuple[Axis, ...]:
    """Move walls out and add modes where more than `small` of any bound level's probability is at the edge."""
    bound = states.energies < (np.inf if states.threshold is None else states.threshold)
    psi = states.vectors[bound if bound.any() else slice(0, 1)]
    axes = []
    for k, axis in enumerate(states.axes):
        others = tuple(j + 1 for j in range(len(states.axes)) if j != k)
        n, low, high, h = axis.n, axis.low, axis.high, axis.spacing
        P = (psi**2).sum(others).max(0)
        M = (np.moveaxis(np.tensordot(psi, axis.unitary, (k + 1, 0)), -1, k + 1) ** 2).sum(others).max(0)
        if not axis.ring:
            reach = max(n // 6, 2)
            for side, wall in ((0, V.low[k]), (-1, V.high[k])):
                edge, inner = P[side], P[reach if side == 0 else -1 - reach]
                if edge > small and (low if side == 0 else high) != wall:
                    rate = max(np.log(max(inner, edge * 1.01) / edge) / reach, 0.2)
                    out = h * min(np.ceil(np.log(edge / small) / rate), max(n // 2, 3))
                    low, high = (max(low - out, wall), high) if side == 0 else (low, min(high + out, wall))
        reach = max(n // 6, 2)
        edge, inner = M[-2:].max(), M[-2 - reach : -reach].max()
        if edge > small:
            rate = max(np.log(max(inner, edge * 1.01) / edge) / reach, 0.2)
            more = min(np.ceil(np.log(edge / small) / rate), max(n // 2, 3))
            h *= n / (n + max(more, 1))
        cells = (high - low) / h
        n = max(n, int(np.ceil(cells - 1e-6)) | 1 if axis.ring else int(np.ceil(cells - 1e-6)) - 1)
        axes.append(Axis(low, high, n, axis.ring))
    return tuple(axes)


def _enlarged(axis: Axis, V: Landscape, k: int) -> Axis:
    """A box 4 % larger on either side (not beyond walls) with a spacing 6 % smaller."""
    if axis.ring:
        return replace(axis, n=(axis.n + max(4, axis.n // 5)) | 1)
    out = 0.04 * (axis.high - axis.low)
    low, high = max(axis.low - out, float(V.low[k])), min(axis.high + out, float(V.high[k]))
    return Axis(low, high, int(np.ceil((high - low) / (0.94 * axis.spacing))))


# -- Lanczos -----------------------------------------------------------------------------------------------------------


def _diagonalise(
    V: Landscape,
    axes: tuple[Axis, ...],
    levels: int,
    top: float,
    before: GridStates | None,
    max_memory_gib: float,
    precision: float,
) -> GridStates:
    """The lowest levels on one grid."""
    shape = tuple(axis.n for axis in axes)
    size = int(np.prod(shape, dtype=float))
    krylov = max(2 * levels + 1, 20)
    gib = 8.0 * size * (krylov + 2 * levels + 8) / 2**30
    if gib > max_memory_gib:
        raise TooLarge(
            f"a grid of {' x '.join(map(str, shape))} = {size:.3g} points needs about {gib:.1f} GiB, more than max_memory_gib = "
            f"{max_memory_gib:g}; allow more memory, ask for fewer levels, or give a larger tolerance"
        )
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
        start = _transferred(before, axes) if before is not None else np.exp(-2 * (U - U.min()) / np.ptp(U))
        start = start + 1e-3 * np.abs(start).max() * np.random.default_rng(0).normal(size=size)
        start = exchange(start.reshape(shape)).ravel()
        energies, vectors = eigsh(
            operator, k=min(levels, size - 1), which="SA", v0=start, ncv=min(krylov, size), tol=precision
        )
        order = np.argsort(energies)
        energies, vectors = energies[order], vectors[:, order]
    found = np.ascontiguousarray(vectors.T).reshape(-1, *shape)
    peaks = found.reshape(len(found), -1)
    signs = np.sign(peaks[np.arange(len(found)), np.abs(peaks).argmax(1)])
    found *= signs.reshape(-1, *[1] * len(shape))
    return GridStates(energies + shift, np.zeros(0), axes, found, None)


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
