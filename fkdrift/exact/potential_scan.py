"""One coordinate and a first look at its potential: minima, walls, and where the continuum starts.

    number of levels below E  =  int sqrt(2 m (E - V)) dx / pi          (semiclassical)

V is evaluated on an even grid and on points whose distances from the origin, and then from every low minimum, grow by a
constant ratio, so that wells of any width at any place are seen, and what V does far away is known before anything is
solved.  Extrema are refined until it is clear whether V is finite there:

    V -> +infinity at least like 1/|x - c|:  an impenetrable wall; the line falls into parts
    V -> -infinity at least like 1/|x - c|:  no ground state in one dimension, E_0 = -infinity
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fkdrift.errors import BadParameter, Metastable, Unbound
from fkdrift.exact.spectrum import Array

FAR = 1e6  # how far from the minimum V is looked at
EVEN_REACH = 2048.0  # the even grid covers this much on either side of the origin,
EVEN_STEP = 1 / 64  # with this spacing: wells wider than it are seen wherever they are on it
N_RATIO = 2001  # points at distances of constant ratio, 1e-7 to FAR: neighbours differ by 1.5 %
N_MINIMA = 16  # low minima around which the scan is made dense
N_MAXIMA = 3000  # maxima examined for walls, those nearest to the lowest minimum first
N_PARTS = 12  # parts between walls that are solved together; beyond that the lowest one alone
STRONG = 0.97  # power p of |x - c|^-p from which V is not integrable on a line (1, less what rounding leaves of it)
CORE_FROM = 1e-6  # what is left of V beside c/(2 m x^2) is taken as constant below (formulas soften 1/r at 1e-10)
SPIKE = 0.02  # power from which a minimum counts as an integrable singularity (a logarithm has about 0.03)
SPIKE_WIDTH = 1e-3  # inside which it is cut off in the scan; the integrals see all of it
GIANT = 1e200  # stands for +infinity where numbers are needed


@dataclass(frozen=True)
class Coordinate:
    """One coordinate x: its potential V (n,) -> (n,), its mass, its ends.

    Attributes:
        n_dims: None for a coordinate on a line; d for the distance from the origin in d dimensions.
        momentum: angular momentum l of a distance (in one dimension: 0 for even, 1 for odd states).
        power: s, where psi = x^s u and the equation for u is solved (an attractive 1/x^2 at the origin).
        core: c, the strength of c/(2 m x^2) in V that the factor x^s takes care of.
    """

    V: Callable[[Array], Array]
    mass: float = 1.0
    low: float = -np.inf
    high: float = np.inf
    n_dims: int | None = None
    momentum: int = 0
    power: float = 0.0
    core: float = 0.0

    def effective(self, x: Array) -> Array:
        """V plus the centrifugal term; +inf stands for a wall and for a place where V is not a number."""
        with np.errstate(all="ignore"):
            if self.core:
                x = np.maximum(x, CORE_FROM)
            V = self.V(x)
            if self.n_dims is not None and (self.momentum or self.core):
                V = V + (self.momentum * (self.momentum + self.n_dims - 2) - self._taken()) / (2 * self.mass * x**2)
        return V

    def _taken(self) -> float:
        """What x^s removes from 2 m x^2 times the potential."""
        assert self.n_dims is not None
        return self.power * (self.power + self.n_dims - 2)

    def weight(self, x: Array) -> Array:
        return np.ones_like(x) if self.n_dims is None else x ** (self.n_dims - 1 + 2 * self.power)


@dataclass(frozen=True)
class PotentialScan:
    """V on points that are dense near its low minima and reach FAR away, between two impenetrable walls if any.

    Attributes:
        x, V: (point,).
        mass: of the coordinate.
        threshold: where the continuum starts; inf where both ends are walls or V rises.
        line: the coordinate, its ends moved to the walls.
        poles: those of its ends at which V goes to +infinity.
        oscillates: V goes up and down for ever far away.
        notes: what a reader of the result should know.
    """

    x: Array
    V: Array
    mass: float
    threshold: float
    line: Coordinate
    poles: tuple[float, ...] = ()
    oscillates: bool = False
    notes: tuple[str, ...] = ()

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
        if self.oscillates:  # below the bottom of the waves far away
            return float(self.V.min() + 0.999 * (self.threshold - self.V.min()))
        if np.isfinite(self.threshold) and self.count(self.threshold) <= count:
            return self.threshold
        step = 1e-3 * (np.pi / np.ptp(self.x)) ** 2 / self.mass
        while self.count(low + step) < count:
            step *= 4
        high = min(low + step, self.threshold)
        for _ in range(40):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.count(middle) < count else (low, middle)
        return high


def whole(parts: list[PotentialScan]) -> PotentialScan:
    """The parts between walls as one scan."""
    if len(parts) == 1:
        return parts[0]
    x, V = (np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "V"))
    order = np.argsort(x, kind="stable")
    return replace(parts[0], x=x[order], V=V[order], threshold=min(part.threshold for part in parts))


def scan(line: Coordinate) -> list[PotentialScan]:
    """Scan V: one entry for each part of the line between impenetrable walls, lowest minimum first.

    Raises:
        Unbound: V does not confine, falls without limit, or is infinitely deep at a point.
        BadParameter: V is not a number where it should be.
    """
    x = _scan_points(line, [])
    V = line.effective(x)
    if not np.isfinite(V).any():
        raise BadParameter("V is nowhere a finite number; it must be finite where the particle is")
    minima = _minima(line, x, V)
    walls = _walls(line, x, V, minima[0])
    near = walls[np.argsort(np.abs(walls - minima[0]))[: 4 * N_PARTS]]
    close = (near[:, None] + np.outer([-1, 1], np.geomspace(1e-9, 1, 40)).ravel()).ravel()
    close = close[(close > line.low) & (close < line.high)]
    x = np.unique(np.concatenate([_scan_points(line, list(minima)), walls, close]))
    V = line.effective(x)
    V = _without_points(line, x, V)
    if line.n_dims is None:
        V = _without_spikes(line, x, V, minima)
    V[np.isin(x, walls)] = np.inf
    parts = _parts(line, x, V, walls)
    best = min(float(V_.min()) for _, V_, _ in parts)
    tied = 1e-9 * max(abs(best), float(np.median(np.abs(parts[0][1]))) * 1e-6, 1e-300)
    order = sorted(parts, key=lambda p: (np.round((p[1].min() - best) / tied), abs(p[0][p[1].argmin()])))
    scans = [_part_scan(replace(line, low=ends[0], high=ends[1]), x, V, walls) for x, V, ends in order]
    if len(scans) > N_PARTS:
        low, high = scans[0].line.low, scans[0].line.high
        note = (
            f"V is infinite at x = {low:.6g} and {high:.6g}, among others: walls cut the line into many parts; the "
            "levels are those of the part between these two, which has the lowest minimum (nearest to x = 0)"
        )
        return [replace(scans[0], notes=(note,))]
    if len(scans) > 1:
        found = ", ".join(f"{a:.6g}" for a in sorted({s.line.high for s in scans} | {s.line.low for s in scans})[1:-1])
        note = f"V is infinite at x = {found}: the states live in the separate parts between these walls"
        scans = [replace(s, notes=(note,)) for s in scans]
    return scans


def _without_points(line: Coordinate, x: Array, V: Array) -> Array:
    """V with its infinities at single points, weak enough to be passed, replaced by values close by."""
    finite = np.isfinite(V)
    alone = np.isinf(V) & np.append(True, finite[:-1]) & np.append(finite[1:], True)
    if alone.any():
        V = V.copy()
        V[alone] = line.effective(x[alone] + 1e-12 * np.maximum(1.0, np.abs(x[alone])))
    return V


def _without_spikes(line: Coordinate, x: Array, V: Array, minima: Array) -> Array:
    """V cut off close to points where it is infinitely deep but integrable: that depth is not that of a well."""
    for c in minima[(_power(line, minima) > SPIKE) & (line.effective(minima + 1e-6) < line.effective(minima + 1e-3))]:
        near = np.abs(x - c) < SPIKE_WIDTH
        edge = line.effective(c + SPIKE_WIDTH * np.array([-1.0, 1.0]))
        V = np.where(near, np.maximum(V, edge.min()), V)
    return V


def _part_scan(line: Coordinate, x: Array, V: Array, walls: Array) -> PotentialScan:
    """What is known of one part between walls."""
    sides = _open_sides(line, x, V)
    centre = x[np.argmin(V)]
    far = [_far(x, V, side, side * (x - centre)) for side in sides]
    threshold = min((height for height, _ in far), default=np.inf)
    if np.isfinite(threshold) and threshold - V.min() <= 1e-12 * max(abs(threshold), abs(V.min())):
        _refuse_metastable(x, V)
        raise Unbound(
            f"V does not confine: its lowest value {V.min():.6g} is not below its value {threshold:.6g} far away, so "
            "there is no bound state; give a box (hard walls), a periodic box, or a potential with a well"
        )
    oscillates = any(swings for height, swings in far if height == threshold)
    if oscillates and threshold - V.min() <= 1e-3 * np.ptp(V):
        raise Unbound(f"no level lies below {threshold:.6g}, the lowest V far away: {DELOCALISED}")
    poles = tuple(end for end in (line.low, line.high) if end in walls)
    return PotentialScan(x, np.minimum(V, GIANT), line.mass, float(threshold), line, poles, oscillates)


_FALLS = (
    "V falls without limit, to {V:.3g} at a distance {x:.0e}: a ground state needs a potential that is bounded below "
    "and rises, or goes to a constant above its minimum, in every direction"
)


DELOCALISED = (
    "V goes up and down for ever, and the lowest state spreads over all of it (it is delocalised, no level is bound); "
    "give a box with hard walls, box=(low, high), or make the coordinate periodic, period=(L,)"
)


def _refuse_metastable(x: Array, V: Array) -> None:
    """Raise Metastable if V has a well closed by barriers whose bottom is not below what V reaches outside them."""
    near = np.abs(x) < EVEN_REACH
    bottom = (V[1:-1] < V[:-2]) & (V[1:-1] <= V[2:]) & near[1:-1]
    for k in np.flatnonzero(bottom)[np.argsort(np.abs(x[1:-1][bottom]))][:64] + 1:
        for side in (1, -1):
            away = V[k:] if side > 0 else V[k::-1]
            below = np.flatnonzero(away[1:] <= V[k] + 1e-9 * max(abs(V[k]), 1e-300))
            if len(below) == 0:
                continue
            top = k + side * int(np.argmax(away[: below[0] + 1]))
            if V[top] > V[k] + 1e-6 * max(abs(V[k]), 1e-6):
                raise Metastable(
                    f"V falls again beyond the barrier at x = {x[top]:.6g} (height {V[top]:.6g}; the well is at x = "
                    f"{x[k]:.6g}): no bound ground state, only a metastable state; add a term that confines, or give "
                    "a box (hard walls) that ends on the barrier"
                )


def _open_sides(line: Coordinate, x: Array, V: Array) -> list[int]:
    """-1 and +1 for the directions in which the scan met no wall."""
    centre = x[np.argmin(V)]
    left = line.n_dims is None and line.low == -np.inf and x[0] < centre - FAR / 2
    right = line.high == np.inf and x[-1] > centre + FAR / 2
    return [side for side, is_open in ((-1, left), (1, right)) if is_open]


def _far(x: Array, V: Array, side: int, away: Array) -> tuple[float, bool]:
    """Where the continuum starts on one side (inf if V still rises there), and whether V goes up and down there."""
    outer, inner = (V[(away > FAR / ratio) & (away <= 10 * FAR / ratio)] for ratio in (10, 100))
    if len(outer) == 0:  # the minimum itself is that far out
        raise Unbound(_FALLS.format(V=V.min(), x=FAR))
    change = outer.min() - inner.min()
    if change < -1e-3 * max(abs(inner.min()), abs(outer.min())) and outer.min() <= V.min():
        _refuse_metastable(x, V)
        raise Unbound(_FALLS.format(V=outer.min(), x=FAR))
    swing = np.ptp(outer)
    turns = np.abs(np.diff(np.sign(np.diff(outer)))).sum() / 2
    if turns > len(outer) / 10 and swing > max(1e-3 * (np.max(outer) - V.min()), 20 * abs(change)):
        return float(min(outer.min(), inner.min())), True
    if change > 0.01 * (outer.min() - V.min()):
        return np.inf, False
    end, tenth = V[np.argmax(away)], V[np.argmin(np.abs(away - away.max() / 10))]
    limit = end + (end - tenth) / 9 if change > 0 else outer.min()  # exact for a tail like 1/x
    return (0.0 if abs(limit) < 1e-9 * abs(V.min()) else float(limit)), False


def _scan_points(line: Coordinate, centres: list[float]) -> Array:
    """Points at distances of constant ratio from the origin and the centres, and an even grid around these."""
    away = np.geomspace(1e-7, FAR, N_RATIO)
    low, high = max(line.low, -2 * FAR), min(line.high, 2 * FAR)
    if line.n_dims is not None:
        low = 0.0
    if np.isfinite([line.low if line.n_dims is None else 0.0, line.high]).all():
        pieces = [np.linspace(low, high, 20_001)]
    elif centres:
        near = np.arange(-32, 32, EVEN_STEP)
        pieces = [near + c for c in (0.0, *centres)]
    else:
        pieces = [np.arange(-EVEN_REACH, EVEN_REACH + EVEN_STEP, EVEN_STEP)]
    start = 0.0 if low <= 0 <= high or line.n_dims is not None else (low if np.isfinite(line.low) else high)
    for c in (start, *centres):
        pieces += [c - away, np.array([c]), c + away]
    x = np.sort(np.concatenate(pieces), kind="stable")  # fast where pieces are sorted already
    x = x[np.append(True, x[1:] > x[:-1])]
    if line.n_dims is not None:
        x = x[(x >= 1e-7) & (x < line.high)]
        return x if np.isinf(line.high) else np.append(x, line.high)
    ends = [end for end in (line.low, line.high) if np.isfinite(end)]
    return np.unique(np.concatenate([x[(x > line.low) & (x < line.high)], ends]))


def zoom(line: Coordinate, a: Array, b: Array, sign: int) -> Array:
    """The highest (sign 1) or lowest (-1) point of V in each of the intervals from a to b, to rounding."""
    for _ in range(24):
        x = a[:, None] + (b - a)[:, None] * np.linspace(0, 1, 9)
        values = sign * line.effective(x.ravel()).reshape(x.shape)
        k = np.argmax(np.where(np.isnan(values), -np.inf, values), axis=1).clip(1, 7)
        rows = np.arange(len(a))
        a, b = x[rows, k - 1], x[rows, k + 1]
    x = np.stack([a, 0.5 * (a + b), b], 1)
    values = sign * line.effective(x.ravel()).reshape(x.shape)
    return x[np.arange(len(a)), np.argmax(np.where(np.isnan(values), -np.inf, values), axis=1)]


def _power(line: Coordinate, c: Array) -> Array:
    """p where V goes like |x - c|^-p on the steeper side of c; about 0 where V is finite."""
    d = 1e-8 * np.maximum(1.0, np.abs(c))
    sides = []
    for side in (-1, 1):
        near, off, farther = (np.abs(line.effective(c + side * step)) for step in (d, 10 * d, 100 * d))
        with np.errstate(all="ignore"):
            growth = np.minimum(np.log10(near / off), np.log10(off / farther))  # twice, not by an accident of waves
        sides.append(np.nan_to_num(growth, nan=0.0, posinf=0.0, neginf=0.0))
    return np.maximum(*sides)


def _minima(line: Coordinate, x: Array, V: Array) -> Array:
    """The lowest minima, refined, the lowest first; refuses a point where V is infinitely deep."""
    U = np.where(np.isnan(V), np.inf, V)
    inside = U[1:-1]
    found = np.flatnonzero((inside <= U[:-2]) & (inside <= U[2:]) & ((inside < U[:-2]) | (inside < U[2:]))) + 1
    found = np.unique(np.append(found, np.argmin(U)))
    size = max(abs(float(np.min(U[np.isfinite(U)]))), 1e-300)
    with np.errstate(invalid="ignore"):
        order = np.lexsort([np.abs(x[found]), np.round(np.clip(U[found] / size, -1e12, 1e12), 9)])
    found = found[order[: 4 * N_MINIMA]]
    refined = zoom(line, x[np.maximum(found - 1, 0)], x[np.minimum(found + 1, len(x) - 1)], -1)
    with np.errstate(all="ignore"):
        values = line.effective(refined)
    better = np.where(values <= U[found], refined, x[found])
    if line.n_dims is None or line.n_dims > 0:
        away = np.abs(better) > 1e-6 if line.n_dims is not None else np.ones(len(better), dtype=bool)
        powers = np.where(away, _power(line, better), 0.0)
        deep = (powers > STRONG) & (line.effective(better) < 0)
        if deep.any():
            c, p = better[deep][0], powers[deep][0]
            raise Unbound(
                f"V falls to -infinity at x = {c:.6g}, like -1/distance^{p:.3g}: too fast for one coordinate, the "
                "energy has no lower bound (E_0 = -infinity); soften V there, as in -1/sqrt(x^2 + a^2), or make it "
                "repulsive"
            )
    values = line.effective(better)
    order = np.lexsort([np.abs(better), np.round(np.clip(np.nan_to_num(values) / size, -1e12, 1e12), 9)])
    kept: list[float] = []
    for c in better[order]:
        if all(abs(c - k) > EVEN_STEP for k in kept) and len(kept) < N_MINIMA:
            kept.append(float(c))
    if abs(kept[0]) > 0.9 * FAR:
        _refuse_metastable(x, U)
        if U[np.argmin(np.abs(x - kept[0] / 10))] > U.min() + 1e-6 * abs(U.min()):
            raise Unbound(_FALLS.format(V=float(U.min()), x=abs(kept[0])))
    return np.array(kept)


def _walls(line: Coordinate, x: Array, V: Array, centre: float) -> Array:
    """Places where V goes to +infinity at least like 1/|x - c|, so that nothing passes."""
    U = np.where(np.isnan(V), -np.inf, V)
    inside = U[1:-1]
    found = np.flatnonzero((inside >= U[:-2]) & (inside >= U[2:]) & ((inside > U[:-2]) | (inside > U[2:]))) + 1
    found = found[np.isfinite(U[found - 1]) & np.isfinite(U[found + 1])]  # not the edge of an infinite region
    if line.n_dims is not None:
        found = found[x[found] > 1e-5]
    if len(found) == 0:
        return np.empty(0)
    found = found[np.argsort(np.abs(x[found] - centre))[:N_MAXIMA]]
    top = zoom(line, x[found - 1], x[found + 1], 1)
    strong = (_power(line, top) > STRONG) & (line.effective(top) > 0)
    walls = np.unique(top[strong])
    return walls[np.append(True, np.diff(walls) > 1e-9)] if len(walls) else walls


def _parts(line: Coordinate, x: Array, V: Array, walls: Array) -> list[tuple[Array, Array, tuple[float, float]]]:
    """(x, V, (low, high)) of every part where V is finite, with its ends placed on the walls by bisection."""
    finite = np.isfinite(V)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], finite, [False]]).astype(np.int8)))
    runs = [(a, b) for a, b in edges.reshape(-1, 2) if b - a >= 3]
    if not runs:
        raise BadParameter("V is finite at single points only; it must be finite where the particle is")
    parts = []
    for a, b in runs:
        keep_x, keep_V, ends = x[a:b], V[a:b], [line.low, line.high]
        for k, (inside, outside) in enumerate(((a, a - 1), (b - 1, b))):
            if not 0 <= outside < len(x):
                continue
            if x[outside] in walls:  # V there is infinite but for rounding, and says nothing
                ends[k] = x[outside]
                continue
            ends[k] = _wall(line, x, V, inside, outside, float(keep_V.min()), float(keep_V.max()))
            at = np.array([ends[k]])
            value = line.effective(at)
            if np.isfinite(value).all():
                keep_x, keep_V = np.append(keep_x, at), np.append(keep_V, value)
        keep_x, index = np.unique(keep_x, return_index=True)
        parts.append((keep_x, keep_V[index], (float(ends[0]), float(ends[1]))))
    return parts


def _wall(line: Coordinate, x: Array, V: Array, inside: int, outside: int, low: float, high: float) -> float:
    """Where between two scan points V stops to be finite."""
    a, b = x[inside], x[outside]
    for _ in range(60):
        middle = 0.5 * (a + b)
        a, b = (middle, b) if np.isfinite(line.effective(np.array([middle]))[0]) else (a, middle)
    if np.isnan(line.effective(np.array([b]))[0]) and V[inside] < low + 0.5 * (high - low):
        raise BadParameter(f"V is not a number (NaN) at x = {b:.6g}; it must be a number wherever it is finite nearby")
    return float(a)


def inverse_square(line: Coordinate) -> float | None:
    """c, where V goes like c/(2 m x^2) at the origin of a distance; 0 for weaker and None for steeper repulsion.

    Raises:
        Unbound: the attraction is too strong for a ground state, c < -((d - 2)/2)^2, or steeper than 1/x^2.
    """
    assert line.n_dims is not None
    d, x = line.n_dims, CORE_FROM * np.array([10.0, 20.0, 100.0])
    with np.errstate(all="ignore"):
        V = line.V(x)
        p = float(np.nan_to_num(np.log10(V[0] / V[2]), nan=0.0)) if V[0] * V[2] > 0 else 0.0
    strength = 2 * line.mass * x**2 * V
    if V[0] > 0:
        return None if p > 2.02 else 0.0 if p < 1.98 else float(2 * strength[0] - strength[1])
    if d == 1 and p > STRONG:
        raise Unbound(
            f"V falls to -infinity at distance 0 like -1/|x|^{p:.3g}: too fast for one dimension, the energy has no "
            "lower bound (E_0 = -infinity); soften V there"
        )
    c = float(2 * strength[0] - strength[1])
    if p > 2.02 or (p > 1.98 and c < -(((d - 2) / 2) ** 2) - 1e-9):
        raise Unbound(
            f"V falls to the centre like {strength[0]:.3g}/(2 m x^2) or steeper: too strong for a ground state, which "
            f"allows at most {((d - 2) / 2) ** 2:g}/(2 m x^2) of attraction in {d} dimensions (E_0 = -infinity)"
        )
    return c if p > 1.98 else 0.0
