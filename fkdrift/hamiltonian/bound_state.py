"""The lowest state of one coordinate, as the slope of its logarithm on points that adapt to the potential.

    chi'' = Q chi,    Q(t) = P(t) - E w(t)

On a line t = x, P = 2 m V and w = 2 m. For the distance r from a centre in d dimensions t = log r,
phi = exp(-(d - 2) t / 2) chi, P = 2 m r^2 V + (d - 2)^2 / 4 and w = 2 m r^2, which is regular for every d and for every
power at the centre. Between two points chi is carried by the exponential of a fourth-order Magnus series, stable in
forbidden regions however thick. The slope q = chi' / chi follows from each end inwards by q -> (c + d q) / (a + b q),
and E is the largest energy for which a + b q > 0 throughout: no level lies below it (Sturm). q' = Q - q^2 is exact at
every point, so the local energy of the tabulated state is E there, and points are added until it is so between them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DEPTH = 40.0  # exponents of e to which the state is followed into a forbidden region
DEEP = 1e6  # more of them are not told apart: the difference of two sums would have no digits left
PHASE = 0.2  # largest step of the first points in units of the wavelength / 2 pi
NARROW = 1e-11  # smallest spacing, relative to the extent: where V jumps or is singular
TOLERANCE = 1e-5  # standard deviation of the local energy of the tabulated state, relative to its kinetic energy
MAX_POINTS = 20_000
MAX_ROUNDS = 40


@dataclass(frozen=True)
class Equation:
    """One coordinate t of a particle of mass m.

    Args:
        V: of the position x (a distance where `n_dims` is given), (n,) to (n,).
        mass: m.
        n_dims: d where the coordinate is a distance and t its logarithm; None on a line.
        even: V(x) = V(-x) about `centre`, and the points are those of the right half.
        centre: of the symmetry.
    """

    V: Callable[[Array], Array]
    mass: float
    n_dims: int | None = None
    even: bool = False
    centre: float = 0.0

    def position(self, t: Array) -> Array:
        return t if self.n_dims is None else np.exp(t)

    def terms(self, t: Array) -> tuple[Array, Array]:
        """P and w at t."""
        x = self.position(t)
        if self.n_dims is None:
            return 2 * self.mass * self.V(x), np.full_like(x, 2 * self.mass)
        return 2 * self.mass * x**2 * self.V(x) + (self.n_dims - 2) ** 2 / 4, 2 * self.mass * x**2


class BoundState(NamedTuple):
    """The lowest state: points t, slope q and curvature Q - q^2 of log chi, log chi, the energy."""

    t: Array
    slope: Array
    curvature: Array
    log_chi: Array
    energy: float


class _Elements(NamedTuple):
    """Per element the matrix that carries (chi, chi') from its left to its right end, up to a positive factor."""

    a: Array
    b: Array
    c: Array
    d: Array
    has_node: bool


class RadialMesh:
    """Points with P and w at each of them and at the two Gauss points of every element."""

    def __init__(self, equation: Equation, t: Array) -> None:
        self.equation, self.t, self.h = equation, t, np.diff(t)
        self.P, self.w = equation.terms(t)
        middle = (t[1:] + t[:-1]) / 2
        offset = self.h / np.sqrt(12)
        self.P1, self.w1 = equation.terms(middle - offset)
        self.P2, self.w2 = equation.terms(middle + offset)

    def elements(self, E: float) -> _Elements:
        Q1, Q2 = self.P1 - E * self.w1, self.P2 - E * self.w2
        a = np.sqrt(3) / 12 * self.h**2 * (Q2 - Q1)
        square = a**2 + self.h**2 * (Q1 + Q2) / 2
        k = np.sqrt(np.abs(square)) + 1e-30
        share = np.where(square > 0, np.tanh(k), np.tan(np.minimum(k, 1.5))) / k
        h = self.h * share
        return _Elements(1 - a * share, h, h * (Q1 + Q2) / 2, 1 + a * share, bool((square < -2.25).any()))

    def ends(self, E: float) -> tuple[float, float]:
        """Slopes at the two ends: a state that decays beyond them, or is even about the first."""
        Q = self.P[[0, -1]] - E * self.w[[0, -1]]
        left, right = np.sqrt(np.maximum(Q, 0))
        return (0.0 if self.equation.even else float(left)), -float(right)

    def has_node(self, E: float) -> bool:
        """Whether a level lies below E."""
        elements = self.elements(E)
        if elements.has_node:
            return True
        q, end = self.ends(E)
        for a, b, c, d in zip(*_lists(elements), strict=True):
            pivot = a + b * q
            if pivot <= 0:
                return True
            q = (c + d * q) / pivot
        return q <= end

    def slopes(self, E: float) -> tuple[Array, Array]:
        """q followed from the left end and from the right end, at every point."""
        elements = list(zip(*_lists(self.elements(E)), strict=True))
        from_left, from_right = np.empty(len(self.t)), np.empty(len(self.t))
        q, last = self.ends(E)
        from_left[0], from_right[-1] = q, last
        for j, (a, b, c, d) in enumerate(elements, 1):
            q = (c + d * q) / ((a + b * q) or 1e-300)
            from_left[j] = q
        q = last
        for j, (a, b, c, d) in zip(reversed(range(len(elements))), reversed(elements), strict=True):
            q = (a * q - c) / ((d - b * q) or 1e-300)
            from_right[j] = q
        return from_left, from_right

    def energy(self, low: float, high: float) -> float:
        """The largest E that no level lies below, to rounding."""
        step = max(high - low, 1e-3 * abs(high), 1e-12)
        while not self.has_node(high):
            high, step = high + step, 2 * step
        while self.has_node(low):
            low, step = low - step, 2 * step
        for _ in range(200):
            middle = (low + high) / 2
            if not low < middle < high:
                break
            low, high = (low, middle) if self.has_node(middle) else (middle, high)
        return low


def _lists(elements: _Elements) -> tuple[list[float], ...]:
    return elements.a.tolist(), elements.b.tolist(), elements.c.tolist(), elements.d.tolist()


def lowest_state(equation: Equation, t: Array, low: float, high: float) -> BoundState:
    """The lowest state, from first points t (see `points`) and energies it lies between."""
    bounds = [low, high]

    def state(mesh: RadialMesh) -> BoundState:
        found = _state(mesh, *bounds)
        width = 0.05 * max(abs(bounds[1] - found.energy), 1e-6 * abs(found.energy)) + 1e-9
        bounds[:] = found.energy - width, found.energy + width
        return found

    return refined(equation, t, state)


def refined(equation: Equation, t: Array, solve: Callable[[RadialMesh], BoundState]) -> BoundState:
    """A state on points that are good enough for it, from first points t and what solves for it on given ones.

    Points are added where they reduce the variance of the local energy under |chi|^2 most, until its square root is
    1e-5 of the kinetic energy, and where an element bends too much for a cubic; where V jumps, down to the narrowest
    spacing.
    """
    mesh = RadialMesh(equation, t)
    narrow = NARROW * max(float(np.ptp(t)), float(np.abs(t).max()))
    for _ in range(MAX_ROUNDS):
        state = solve(mesh)
        share = _variance(mesh, state)
        kinetic = _kinetic(mesh, state)
        bent = mesh.h**2 * np.maximum(np.abs(state.curvature[1:]), np.abs(state.curvature[:-1])) > 1
        wanted = bent | (share > (TOLERANCE * kinetic) ** 2 / len(share)) & (share.sum() > (TOLERANCE * kinetic) ** 2)
        wanted &= mesh.h > narrow
        if not wanted.any() or len(mesh.t) > MAX_POINTS:
            break
        mesh = RadialMesh(equation, np.sort(np.append(mesh.t, (mesh.t[1:] + mesh.t[:-1])[wanted] / 2)))
    return state


def _state(mesh: RadialMesh, low: float, high: float) -> BoundState:
    """Energy and slopes for the present points."""
    E = mesh.energy(low, high)
    from_left, from_right = mesh.slopes(E - 1e-9 * max(abs(E), abs(high - low), 1e-300))
    match = int(np.argmin(from_left - from_right))
    from_left, from_right = mesh.slopes(E)
    return with_slopes(mesh, np.where(np.arange(len(mesh.t)) <= match, from_left, from_right), E)


def with_slopes(mesh: RadialMesh, slope: Array, E: float) -> BoundState:
    """The state with these slopes at the points, and the curvature that the equation gives it."""
    curvature = mesh.P - E * mesh.w - slope**2
    rise = mesh.h * (slope[1:] + slope[:-1]) / 2 + mesh.h**2 * (curvature[:-1] - curvature[1:]) / 12
    log_chi = np.append(0.0, np.cumsum(rise))
    return BoundState(mesh.t, slope, curvature, log_chi - log_chi.max(), E)


def weights(equation: Equation, state: BoundState) -> Array:
    """The probability of each element, |chi|^2 w dt normalised."""
    t = state.t
    density = np.exp(2 * state.log_chi) * equation.terms(t)[1]
    share = np.diff(t) * (density[1:] + density[:-1]) / 2
    return share / share.sum()


def _variance(mesh: RadialMesh, state: BoundState) -> Array:
    """What each element adds to the variance of the local energy, by two points inside of it."""
    density = np.exp(2 * state.log_chi) * mesh.w
    share = mesh.h * (density[1:] + density[:-1]) / 2
    total = np.zeros_like(mesh.h)
    for at in (0.25, 0.5, 0.75):
        t = mesh.t[:-1] + at * mesh.h
        _, q, curvature = interpolate(state, t, np.arange(len(mesh.h)))
        P, w = mesh.equation.terms(t)
        total += ((P - curvature - q**2) / w - state.energy) ** 2 / 3
    return total * share / share.sum()


def _kinetic(mesh: RadialMesh, state: BoundState) -> float:
    """The mean kinetic energy <q^2 / w> of the coordinate t."""
    density = np.exp(2 * state.log_chi) * mesh.w
    share = np.gradient(mesh.t) * density
    return float((share * state.slope**2 / mesh.w).sum() / share.sum())


def interpolate(state: BoundState, t: Array, k: NDArray[np.intp]) -> tuple[Array, Array, Array]:
    """log chi, its slope (a cubic that meets slope and curvature at both ends) and its curvature, in elements k."""
    c = coefficients(state)[k]
    d = t - state.t[k]
    value = c[:, 0] + d * (c[:, 1] + d * (c[:, 2] + d * (c[:, 3] + d * c[:, 4])))
    slope = c[:, 1] + d * (2 * c[:, 2] + d * (3 * c[:, 3] + d * 4 * c[:, 4]))
    return value, slope, 2 * c[:, 2] + d * (6 * c[:, 3] + d * 12 * c[:, 4])


def coefficients(state: BoundState) -> Array:
    """Of log chi in powers of t - t_k, for each element (element, 5)."""
    h = np.diff(state.t)
    q, w = state.slope, state.curvature
    rise = (q[1:] - q[:-1]) / h
    second = (3 * rise - 2 * w[:-1] - w[1:]) / h
    third = (w[:-1] + w[1:] - 2 * rise) / h**2
    return np.stack([state.log_chi[:-1], q[:-1], w[:-1] / 2, second / 3, third / 4], 1)


def points(equation: Equation, t: Array, V: Array, high: float) -> Array:
    """First points for `lowest_state`: from a fine scan t, V and an energy at least as high as the ground state.

    They cover all places where V < high and reach `DEPTH` exponents of e into the forbidden regions on both sides,
    PHASE of a wavelength apart where V < high, and further apart the deeper they are in a forbidden region.
    """
    x = equation.position(t)
    scale = 1.0 if equation.n_dims is None else x
    P = 2 * equation.mass * (np.minimum(V, 1e30) - high) * scale**2
    if equation.n_dims is not None:
        P = P + (equation.n_dims - 2) ** 2 / 4
    low = np.less(V, high)
    allowed = np.flatnonzero(low)
    first, last = 0 if equation.even else allowed[0], allowed[-1]
    floor = 1 / max(t[last] - t[first], 1e-12 * abs(t[last]), 1e-300)
    k = np.sqrt(np.abs(P))
    decay = np.sqrt(np.maximum(P, 0))
    action = np.append(0.0, np.cumsum(np.minimum((decay[1:] + decay[:-1]) / 2 * np.diff(t), DEEP)))
    here = np.maximum.accumulate(np.where(low, action, -np.inf))
    ahead = np.minimum.accumulate(np.where(low, action, np.inf)[::-1])[::-1]
    depth = np.minimum(action - here, ahead - action)
    inside = np.flatnonzero((depth <= DEPTH) | ((np.arange(len(t)) >= first) & (np.arange(len(t)) <= last)))
    inside = np.arange(max(inside[0] - 1, 0), min(inside[-1] + 2, len(t)))
    density = np.minimum((k + floor * 8) / (1 + (np.minimum(depth, DEEP) / 8) ** 2), 1 / np.gradient(t)) / PHASE
    t, density = t[inside], density[inside]
    count = np.append(0.0, np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(t)))
    n = int(np.clip(np.ceil(count[-1]), 48, MAX_POINTS // 4)) + 1
    return np.interp(np.linspace(0, count[-1], n), count, t)
