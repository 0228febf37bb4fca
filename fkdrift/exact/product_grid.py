"""Energy levels of a few coupled coordinates: choosing the product grid, and confirming the result.

The box starts around everything that is classically allowed at the energy of the highest level wanted.  Then the grid
adapts itself: a side moves outwards while the wavefunctions are not small there, the spacing shrinks while the highest
modes are occupied.  The result is confirmed on a grid that is larger and finer; three times the change is the error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from fkdrift.errors import BadParameter, FkdriftError, Metastable, NoExactSolution, NotConverged, TooLarge, Unbound
from fkdrift.exact.grids import Axis, GridStates, diagonalise_on
from fkdrift.exact.limits import UNLIMITED, Limits
from fkdrift.exact.one_coordinate import solve_line
from fkdrift.exact.potential_scan import Coordinate, scan, whole
from fkdrift.exact.separability import Landscape
from fkdrift.exact.spectrum import Array

LARGEST = 5  # degrees of freedom of a product grid
ATTEMPTS = 16  # grids tried


def solve_grid(
    V: Landscape, levels: int, *, tolerance: float, points: int | None = None, limits: Limits = UNLIMITED
) -> GridStates:
    """The lowest levels on a product grid, symmetric under exchange of identical particles.

    Raises:
        TooLarge: the grid that the tolerance needs does not fit into the memory; the message has the estimate.
        NotConverged: the error stayed above the tolerance; `partial` has the GridStates.
        Unbound: no level lies below the continuum.
    """
    axes, floor, threshold, top = (_ring_axes if V.period is not None else _open_axes)(V, levels, points)
    axes = _same_for_identical(V, axes)
    small, precision = 0.1 * tolerance, max(1e-3 * tolerance**0.5, 1e-11)
    states: GridStates | None = None
    confirmed: GridStates | None = None
    clock = _Clock(limits)
    for _ in range(ATTEMPTS):
        try:
            with clock.timing(axes):
                states = diagonalise_on(V, axes, levels, top, states, limits, precision)
            states = replace(states, threshold=threshold)
            levels = min(levels, len(states.below()) + 1)
            highest = float(states.energies[-1])
            top = min(highest + 0.2 * (highest - floor), np.inf if threshold is None else threshold)
            better = axes if points is not None else _same_for_identical(V, _adapted(V, states, small))
            if better != axes:
                axes = better
                continue
            larger = _same_for_identical(V, tuple(_enlarged(axis, V, k) for k, axis in enumerate(axes)))
            with clock.timing(larger):
                check = diagonalise_on(V, larger, levels, top, states, limits, precision, verify=True)
            check = replace(check, threshold=threshold)
        except TooLarge as error:
            if confirmed is None:
                raise
            raise NotConverged(f"the error is {max(confirmed.errors):.1e}; then {error}", partial=confirmed) from None
        n = min(len(states.energies), len(check.energies))
        rounding = 1e-13 * np.maximum(np.abs(check.energies[:n]), check.energies[:n] - floor)
        errors = 3 * np.abs(check.energies[:n] - states.energies[:n]) + rounding  # slow convergence counted in
        confirmed = replace(states if points is not None else check, errors=errors).bound()
        if (
            points is not None
            or (confirmed.errors <= tolerance * (confirmed.energies - floor) + 10 * rounding.max()).all()
        ):
            return confirmed
        states, axes, small = check, _finer_at_walls(V, larger), 0.03 * small
    reached = "" if confirmed is None else f": error {max(confirmed.errors):.1e}"
    raise NotConverged(
        f"the product grid did not settle on {ATTEMPTS} grids{reached}; V may have kinks, or a level may reach very "
        "far out: allow a larger tolerance, or give a box",
        partial=confirmed,
    )


class _Clock:
    """Refuses a grid that would take longer than what is left of the time, going by the last one."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.per_point = limits, 0.0

    @contextmanager
    def timing(self, axes: tuple[Axis, ...]) -> Iterator[None]:
        size = float(np.prod([axis.n for axis in axes], dtype=float))
        begin = self.limits.seconds
        total = begin + self.per_point * size
        shape = " x ".join(str(axis.n) for axis in axes)
        if total > self.limits.max_seconds:
            raise TooLarge(
                f"a grid of {shape} points would take about {total:.0f} s in all, more than max_seconds = "
                f"{self.limits.max_seconds:g}; allow more time (max_seconds, or --max-seconds), or ask for fewer "
                "levels or less accuracy"
            )
        self.limits.say(f"grid of {shape} points")
        yield
        self.per_point = (self.limits.seconds - begin) / size


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
    minima = _descend(V)
    centre = minima[0]
    bottom = float(V.V(centre[None])[0])
    threshold = _far_away(V, minima)
    ladder, low, high = np.zeros(1), np.empty(V.size), np.empty(V.size)
    spacing, zero_point = np.empty(V.size), np.empty(V.size)
    cuts = []
    for k in range(V.size):
        cut = _cut(V, k, centre)
        cuts.append(whole(scan(cut)))
        try:
            energies = solve_line(cut, levels, tolerance=1e-4).energies - bottom
        except FkdriftError:
            energies = np.array([cuts[-1].energy_of(n + 0.5) - bottom for n in range(levels)])
        zero_point[k] = max(energies[0], 1e-12)
        ladder = np.sort(np.add.outer(ladder, energies).ravel())[:levels]
    top = bottom + float(ladder[-1]) * 1.1
    if threshold is not None:
        top = min(top, threshold)
    level = top if threshold is None else min(top, threshold - 1e-3 * (threshold - bottom))
    for k, along in enumerate(cuts):
        allowed = np.flatnonzero(along.V - max(level, along.V.min() + 0.5 * zero_point[k]) <= 0)
        ends = []
        for side in (-1, 1):
            edge = allowed[0] if side < 0 else allowed[-1]
            x, U = (along.x[edge:], along.V[edge:]) if side > 0 else (along.x[edge::-1], along.V[edge::-1])
            kappa = np.sqrt(2 * V.mass[k] * np.maximum(U - top, 0))
            S = np.concatenate([[0], np.cumsum(0.5 * (kappa[1:] + kappa[:-1]) * np.abs(np.diff(x)))])
            wave = 1 / np.sqrt(2 * V.mass[k] * zero_point[k])
            reach = abs(float(np.interp(5.0, S, x)) - x[0]) if S[-1] > 5 else np.inf
            ends.append(float(x[0]) + side * min(reach, 8 * wave))
        others = [c[k] for c in minima if V.V(c[None])[0] < level]
        low[k], high[k] = min(*ends, *(c - wave for c in others)), max(*ends, *(c + wave for c in others))
        spacing[k] = (
            np.pi / np.sqrt(2 * V.mass[k]) / (np.sqrt(max(top - bottom, zero_point[k])) + 2.0 * np.sqrt(zero_point[k]))
        )
    low, high = _around_allowed(V, np.maximum(low, V.low), np.minimum(high, V.high), level)
    counts = [points or max(6, int(np.ceil((b - a) / h))) for a, b, h in zip(low, high, spacing, strict=True)]
    axes = tuple(Axis(float(a), float(b), n) for a, b, n in zip(low, high, counts, strict=True))
    return axes, bottom, threshold, top


def _cut(V: Landscape, k: int, centre: Array) -> Coordinate:
    """V along one coordinate through the minimum."""
    part = V.part([k], centre)
    return Coordinate(lambda x: part.V(x[:, None]), float(V.mass[k]), float(V.low[k]), float(V.high[k]))


def _descend(V: Landscape) -> list[Array]:
    """Minima of V, the lowest first: where descents from the lowest random points of every spread end."""
    from scipy.optimize import minimize  # here: systems of one coordinate do without

    spreads = (0.1, 0.5, 1.0, 2.0, 5.0, 20.0, 100.0)
    tries = [V.points(4096, seed, s) for seed, s in enumerate(spreads)]
    values = [V.V(x) for x in tries]
    starts = [x[np.argmin(np.where(np.isfinite(v), v, np.inf))] for x, v in zip(tries, values, strict=True)]
    x, v = np.concatenate(tries), np.concatenate(values)
    x, v = x[np.isfinite(v)], v[np.isfinite(v)]
    if len(v) == 0:
        raise BadParameter(
            "V is not a finite number at any of the points tried; it must be finite where the particles are"
        )
    found: list[tuple[float, Array]] = []
    for start in (*x[np.argsort(v)[:4]], *starts):
        end = minimize(
            lambda z: float(np.nan_to_num(V.V(np.clip(z, V.low, V.high)[None])[0], nan=1e300, posinf=1e300)), start
        )
        if np.isfinite(end.fun):
            found.append((float(end.fun), np.clip(end.x, V.low, V.high)))
    found.sort(key=lambda pair: pair[0])
    best, at = found[0]
    refuse_singular_point(V, at)
    if np.abs(at).max() > 1e5 or best < -1e12:
        _refuse_metastable(V, [c for _, c in found], at)
        raise Unbound(
            f"V falls without limit: {best:.3g} at {np.array2string(at, precision=3)}; it must be bounded below"
        )
    return [c for _, c in found]


def refuse_singular_point(V: Landscape, at: Array) -> None:
    """Raise NoExactSolution where the minimum is a point at which V falls like a power: grids need a smooth V."""
    generator = np.random.default_rng(3)
    directions = generator.normal(size=(16, V.size))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for radius in np.geomspace(0.1, 1e-8, 24):  # descent by gradients stops short of such a point
        tries = np.clip(
            at + radius * np.append(np.zeros((1, V.size)), generator.normal(size=(64, V.size)), 0), V.low, V.high
        )
        at = tries[np.argmin(np.nan_to_num(V.V(tries), nan=np.inf))]
    for c in (at, np.zeros(V.size)):
        depth = [-float(np.median(V.V(np.clip(c + d * directions, V.low, V.high)))) for d in (1e-5, 1e-4, 1e-3)]
        if depth[2] > 0 and min(depth[0] / depth[1], depth[1] / depth[2]) > 5:
            raise NoExactSolution(
                f"V falls to -infinity at {np.array2string(c, precision=4)}, and V is not central: grids need a "
                "smooth V; compare with another method, or soften V there"
            )


def _far_away(V: Landscape, minima: list[Array]) -> float | None:
    """Where the continuum starts: the lowest V at a great distance; None if V still rises there."""
    centre = minima[0]
    bottom = float(V.V(centre[None])[0])
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
        _refuse_metastable(V, minima, centre + 1e5 * worst)
        raise Unbound(
            f"V falls without limit, to {outer.min():.3g} at distance 1e5 along {np.array2string(worst, precision=2)}; "
            "a ground state needs a potential that is bounded below"
        )
    change = outer - inner
    flat = change <= 0.01 * np.maximum(outer - bottom, 0)
    if not flat.any():
        return None
    threshold = float(outer[flat].min())
    if threshold - bottom <= 1e-9 * max(abs(threshold), abs(bottom)):
        raise Unbound(
            f"V does not confine: in some direction it is no higher far away ({threshold:.6g}) than at its minimum "
            f"({bottom:.6g}); give a box (hard walls), a periodic box, or a potential that rises in every direction"
        )
    return threshold


def _refuse_metastable(V: Landscape, minima: list[Array], below: Array) -> None:
    """Raise Metastable if V first rises on the way from one of its minima to a place where it is far lower."""
    for centre in reversed(minima):
        bottom = float(V.V(centre[None])[0])
        beside = V.V(np.clip(centre + 0.01 * np.append(np.eye(V.size), -np.eye(V.size), 0), V.low, V.high))
        if (beside < bottom).any():
            continue
        along = V.V(centre + np.geomspace(1e-9, 1, 600)[:, None] * (below - centre))
        before = along[: int(np.argmax(along < bottom)) + 1]
        if before.max() > bottom + 1e-6 * max(abs(bottom), 1e-6):
            raise Metastable(
                f"V falls without limit beyond a barrier (on a straight line out of the well at "
                f"{np.array2string(centre, precision=3)} it is {before.max():.4g} high): no bound ground state, only a "
                "metastable state; add a term that confines, or give a box (hard walls)"
            )


def _around_allowed(V: Landscape, low: Array, high: Array, level: float) -> tuple[Array, Array]:
    """Stretch the box until no random point outside it, up to ten times its size, has V below the level."""
    generator = np.random.default_rng(2)
    for factor in (10.0, 3.0, 1.5) * 4:
        middle, half = (low + high) / 2, (high - low) / 2
        x = np.clip(middle + factor * half * generator.uniform(-1, 1, size=(8192, V.size)), V.low, V.high)
        inside = ((x >= low) & (x <= high)).all(1)
        allowed = x[~inside & (V.V(x) < level)]
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
            n = max(axes[k].n for k in shared) if ring else max(round((b - a) / h) - 1, 2)
            for k in shared:
                found[k] = Axis(a, b, n, ring)
    return tuple(found)


def _adapted(V: Landscape, states: GridStates, small: float) -> tuple[Axis, ...]:
    """Move walls out and add modes where more than `small` of any bound level's probability is at the edge."""
    bound = states.energies < (np.inf if states.threshold is None else states.threshold)
    psi = states.vectors[bound if bound.any() else slice(0, 1)]
    steeper = 2.0 if states.threshold is None else 0.8  # tails that steepen outwards, or exponential ones
    axes = []
    for k, axis in enumerate(states.axes):
        others = tuple(j + 1 for j in range(len(states.axes)) if j != k)
        n, low, high, h = axis.n, axis.low, axis.high, axis.spacing
        P = (psi**2).sum(others).max(0)
        M = (np.moveaxis(np.tensordot(psi, axis.unitary, (k + 1, 0)), -1, k + 1) ** 2).sum(others).max(0)
        if not axis.ring:
            reach = max(n // 8, 2)
            for side, wall in ((0, V.low[k]), (-1, V.high[k])):
                edge, inner = P[side], P[reach if side == 0 else -1 - reach]
                if edge > small and (low if side == 0 else high) != wall:
                    rate = max(steeper * np.log(max(inner, edge * 1.01) / edge) / reach, 0.2)
                    out = h * min(np.log(edge / small) / rate + 0.1, max(n // 2, 3))
                    low, high = (max(low - out, wall), high) if side == 0 else (low, min(high + out, wall))
        reach = max(n // 8, 2)
        edge, inner = M[-2:].max(), M[-2 - reach : -reach].max()
        if edge > small:
            rate = max((2.0 if V.size > 3 else 1.5) * np.log(max(inner, edge * 1.01) / edge) / reach, 0.2)
            h *= n / (n + min(np.log(edge / small) / rate + 0.1, max(n // 2, 3)))
        cells = (high - low) / h
        n = max(n, int(np.ceil(cells - 1e-6)) | 1 if axis.ring else int(np.ceil(cells - 1e-6)) - 1)
        axes.append(Axis(low, high, n, axis.ring))
    return tuple(axes)


def _finer_at_walls(V: Landscape, axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """More points where a hard wall cuts V off: the error falls only like a power of the spacing there."""
    cut = [axis.low == V.low[k] or axis.high == V.high[k] for k, axis in enumerate(axes)]
    return tuple(replace(axis, n=int(1.3 * axis.n)) if wall else axis for axis, wall in zip(axes, cut, strict=True))


def _enlarged(axis: Axis, V: Landscape, k: int) -> Axis:
    """A box a few percent larger on either side (not beyond walls) with a spacing a few percent smaller."""
    more = 0.04 if V.size <= 3 else 0.025
    if axis.ring:
        return replace(axis, n=(axis.n + max(4, axis.n // 5)) | 1)
    out = more * (axis.high - axis.low)
    low, high = max(axis.low - out, float(V.low[k])), min(axis.high + out, float(V.high[k]))
    return Axis(low, high, int(np.ceil((high - low) / ((1 - 1.5 * more) * axis.spacing))))
