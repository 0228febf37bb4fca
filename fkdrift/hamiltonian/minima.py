"""Where a potential of one coordinate is low, before anything is solved: scan, wells, and an energy from above.

V is evaluated on even grids of seven sizes, from 0.1 to 1e6, so that a narrow well far away is seen beside a wide one.
The ground-state energy is at most that of the best Gaussian in any of the wells, and that of the lowest state of any
interval of length L (in the plane, any disc of radius R) inside of which V is low,

    E_0 <= min over centre c, width s of   1 / (8 m s^2) + < V >_{N(c, s^2)},
    E_0 <= pi^2 / (2 m L^2) + < V >_{sin^2(pi x / L)}      (j_0^2 / (2 m R^2) + < V >_{J_0^2(j_0 r / R)}, j_0 = 2.4048).

The second is close where walls stand beside the minimum, through which no Gaussian fits.

What has no ground state is refused in words: V falls without limit (far away, or into a singular point), or is as low
far away as the best energy inside, so that the particle escapes through the barrier or spreads over all of space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, minimum_filter
from scipy.special import j0

from fkdrift.errors import InputError, Unbound

Array = NDArray[np.float64]

SIZES = (0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6)
N_EVEN = 12_000  # points of each even grid
CAP = 1e30  # stands for an infinite wall
N_WELLS = 64  # wells in which Gaussians are tried
N_LEVELS = 64  # heights of V below which intervals and discs are looked for
WALL = 1e10  # a singular maximum this many times higher than the energy separates what is left from what is right of it
NOT_INTEGRABLE = 0.95  # power of 1/|x| from which an attraction on a line has no lower bound, less rounding
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_LEGENDRE, _LEGENDRE_WEIGHTS = np.polynomial.legendre.leggauss(80)


@dataclass(frozen=True)
class Scan:
    """A potential of one coordinate on a scan.

    Args:
        x, V: points and values, (n,); V is at most 1e30.
        energy: from above, of the best Gaussian.
        lowest: the minimum of V.
        at: where that Gaussian is.
    """

    x: Array
    V: Array
    energy: float
    lowest: float
    at: float


def scan_line(V: Callable[[Array], Array], mass: float, domain: tuple[float, float] | None, name: str) -> Scan:
    """Look at V on a line, or on the part of it where V is defined.

    Raises:
        Unbound: V has no ground state.
        InputError: V is not a number at too many points.
    """
    x = line_points() if domain is None else np.linspace(*domain, 2 * N_EVEN)
    values = finite(V(x), x, name)
    _refuse_singular(V, x, values, name)
    energy, at = energy_from_above(V, x, values, mass, domain)
    if domain is None:
        far = np.abs(x) > SIZES[-1] / 10
        if values[far].min() <= energy or abs(at) > SIZES[-1] / 10:
            walls = _walls(V, x, values, at, energy)
            if walls is not None:
                return scan_line(V, mass, walls, name)
            refuse_far(V, x, values, far, mass, name)
    return Scan(x, values, energy, float(values.min()), at)


def finite(V: Array, x: Array, name: str) -> Array:
    """V capped at 1e30; what is not a number far away counts as a wall.

    Raises:
        InputError: more than one in a thousand of the values near the origin is not a number.
    """
    bad = np.isnan(V) & (np.abs(x) < 100)
    if bad.mean() > 1e-3:
        raise InputError(
            f"the potential {name} is not finite at {100 * np.isnan(V).mean():.2g}% of starting points, such as "
            f"{x[bad][0]:.3g}; it must be finite everywhere"
        )
    return bounded(V)


def bounded(V: Array) -> Array:
    """V as numbers of at most 1e30; what is not a number is a wall."""
    return np.clip(np.nan_to_num(V, nan=CAP), -CAP, CAP)


def line_points() -> Array:
    """Points in pairs +x and -x, without the origin."""
    half = np.concatenate([(np.arange(N_EVEN // 2) + 0.5) / (N_EVEN // 2) * size for size in SIZES])
    half = np.concatenate([np.geomspace(1e-9, 1e-5, 30), half])
    return np.unique(np.concatenate([-half, half]))


def wells(x: Array, V: Array) -> Array:
    """Positions of the lowest local minima of the scan, deepest first; of equal ones the nearest to the origin."""
    lower = np.r_[True, V[1:] <= V[:-1]] & np.r_[V[:-1] <= V[1:], True]
    at = np.flatnonzero(lower)
    scale = max(abs(float(V[at].min())), 1e-12)
    order = np.lexsort([np.abs(x[at]), np.round(V[at] / scale, 6)])
    return x[at[order[:N_WELLS]]]


def energy_from_above(
    V: Callable[[Array], Array], x: Array, values: Array, mass: float, domain: tuple[float, float] | None = None
) -> tuple[float, float]:
    """The lower of the two bounds, and the middle of its Gaussian or interval."""
    return min(_gaussian_energy(V, x, values, mass, domain), _box_energy(V, x, values, mass))


def levels(values: Array) -> Array:
    """Heights of V that divide the points of the scan evenly."""
    return np.unique(np.quantile(values, np.linspace(0, 1, N_LEVELS), method="lower"))


def _box_energy(V: Callable[[Array], Array], x: Array, values: Array, mass: float) -> tuple[float, float]:
    """The lowest energy of a box, the longest in which V is below one of several heights, and its middle."""
    boxes = []
    for U in levels(values):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], values <= U, [False]])))
        first, last = x[edges[::2]], x[edges[1::2] - 1]
        k = int((last - first).argmax())
        boxes.append((first[k], last[k]))
    low, high = np.unique([box for box in boxes if box[1] > box[0]], axis=0).T[:, :, None]
    inside = (low + high + (high - low) * _LEGENDRE) / 2
    weight = _LEGENDRE_WEIGHTS * np.cos(np.pi / 2 * _LEGENDRE) ** 2
    heights = bounded(V(inside.ravel())).reshape(inside.shape)
    E = heights @ weight + np.pi**2 / (2 * mass * (high - low)[:, 0] ** 2)
    k = int(E.argmin())
    return float(E[k]), float(low[k, 0] + high[k, 0]) / 2


def _gaussian_energy(
    V: Callable[[Array], Array], x: Array, values: Array, mass: float, domain: tuple[float, float] | None
) -> tuple[float, float]:
    """The lowest energy of a Gaussian in any of the wells, and its centre."""
    centres = wells(x, values)
    widths = np.geomspace(1e-4, 3e3, 50)
    low, high = (-np.inf, np.inf) if domain is None else domain
    best, at = np.inf, float(centres[0])
    for c in centres:
        points = c + widths[:, None] * _NODES
        V_points = bounded(V(np.clip(points, low, high).ravel()))
        V_points = np.where((points < low) | (points > high), CAP, V_points.reshape(points.shape))
        E = V_points @ _WEIGHTS + 1 / (8 * mass * widths**2)
        if E.min() < best:
            best, at = float(E.min()), float(c)
    return best, at


def _golden(V: Callable[[Array], Array], low: float, high: float, sign: float) -> tuple[float, float]:
    """The lowest (sign 1) or highest (sign -1) point of V between low and high, by ever finer grids."""
    for _ in range(24):
        x = np.linspace(low, high, 42)  # an even number: not through the middle
        values = np.nan_to_num(sign * V(x), nan=np.inf, posinf=CAP, neginf=-CAP)
        k = int(values.argmin())
        low, high = x[max(k - 1, 0)], x[min(k + 1, 41)]
        if high - low < 1e-14 * max(1.0, abs(high)):
            break
    return float(x[k]), float(sign * values[k])


def _refuse_singular(V: Callable[[Array], Array], x: Array, values: Array, name: str) -> None:
    """Refuse an attraction to a point that is not integrable on a line."""
    for c in wells(x, values)[:8]:
        if abs(c) > SIZES[-1] / 10:
            continue
        k = int(np.searchsorted(x, c))
        at, _ = _golden(V, x[max(k - 2, 0)], x[min(k + 2, len(x) - 1)], 1.0)
        for centre in {at, 0.0 if abs(at) < 1e-6 else at}:
            size = max(1.0, abs(centre))
            steps = size * np.array([1e-5, 1e-6])
            depth = -np.nan_to_num(np.minimum(V(centre + steps), V(centre - steps)))
            if (depth > 0).all() and np.log10(depth[1] / depth[0]) > NOT_INTEGRABLE:
                raise Unbound(
                    f"{name} has no ground state: V falls without limit at x = {centre:.4g}, like -1/|x|^"
                    f"{np.log10(depth[1] / depth[0]):.2g}, too fast for one dimension; the potential must confine the "
                    "particles and be bounded below (soften it there)"
                )


def _walls(
    V: Callable[[Array], Array], x: Array, values: Array, at: float, energy: float
) -> tuple[float, float] | None:
    """The nearest impenetrable walls on both sides of a well: singular maxima of V."""
    found = []
    peaks = np.flatnonzero((values[1:-1] > values[:-2]) & (values[1:-1] > values[2:]) & (values[1:-1] > energy)) + 1
    for side in (-1, 1):
        wall = None
        candidates = peaks[side * (x[peaks] - at) > 0]
        for k in candidates[np.argsort(np.abs(x[candidates] - at))][:20]:
            where, height = _golden(V, x[k - 1], x[k + 1], -1.0)
            if height > WALL * (1 + abs(energy)):
                wall = where
                break
        if wall is None:
            return None
        found.append(wall - side * 1e-9 * max(1.0, abs(wall)))
    return found[0], found[1]


def refuse_far(
    V: Callable[[Array], Array], x: Array, values: Array, far: NDArray[np.bool_], mass: float, name: str
) -> None:
    """Say why a potential that is as low far away as the best energy inside has no ground state.

    Raises:
        Unbound: always, unless a wider state may still lie below V far away.
    """
    outside, inside = values[far], values[~far]
    k = int(np.argmin(outside))
    where, height, lowest = float(x[far][k]), float(outside[k]), float(inside.min())
    advice = "the potential must confine the particles (add a confining term, or make it periodic)"
    if height < lowest - 1e-6 * abs(lowest):
        inside_barrier = _metastable(V, x, values, mass)
        raise Unbound(f"{name} has no ground state: V falls to {height:.3g} at {where:.3g}{inside_barrier}; {advice}")
    if height <= lowest + 1e-9 * max(abs(lowest), abs(height)):
        raise Unbound(
            f"{name} has no bound state: far away, at {where:.4g}, V = {height:.4g} is as low as anywhere, so that the "
            f"state spreads over all of space; {advice}"
        )


def _metastable(V: Callable[[Array], Array], x: Array, values: Array, mass: float) -> str:
    """Words for the well inside the barrier of a potential that falls without limit, if there is one."""
    inner = np.flatnonzero(np.abs(x) < SIZES[-1] / 1000)[1:-1]
    low = inner[(values[inner] < values[inner - 1]) & (values[inner] <= values[inner + 1])]
    if not len(low):
        return ""
    k = low[np.argmin(np.abs(x[low]))]
    left, right = int(values[:k].argmax()), k + int(values[k:].argmax())
    if not (left < k < right):
        return ""
    energy, _ = energy_from_above(V, x[k - 1 : k + 2], values[k - 1 : k + 2], mass, (x[left], x[right]))
    return (
        f" (what sits in the well at {x[k]:.3g}, with an energy near {energy:.4g}, is metastable: it escapes through "
        "the barrier)"
    )


# Two coordinates

PLANE_SIZES = (0.3, 1.0, 4.0, 16.0, 64.0, 256.0, 1024.0)
N_PLANE = 160  # points along each side of a grid
FIRST_ZERO = 2.404825557695773  # of the Bessel function J_0
N_PLANE_WELLS = 12  # wells of each grid in which Gaussians are tried


def scan_plane(
    V: Callable[[Array, Array], Array],
    mass: tuple[float, float],
    domain: tuple[tuple[float, float], tuple[float, float]] | None,
    name: str,
) -> tuple[tuple[tuple[float, float], tuple[float, float]], float] | None:
    """A rectangle that holds all places where V is below an energy that E_0 is at most, and this energy.

    None where the energy is not below what V is far away, so that only a wider state may be bound.

    Raises:
        Unbound: V falls without limit far away.
        InputError: V is not a number at too many points.
    """
    squares = [((-size, size), (-size, size)) for size in PLANE_SIZES] if domain is None else [domain]
    low_points, energies = [], []
    for (left, right), (bottom, top) in squares:
        x, y = np.meshgrid(np.linspace(left, right, N_PLANE), np.linspace(bottom, top, N_PLANE), indexing="ij")
        values = finite(V(x, y).ravel(), x.ravel(), name).reshape(x.shape)
        low_points.append((x, y, values))
        lowest = minimum_filter(values, 3) == values
        order = np.argsort(values[lowest], kind="stable")[:N_PLANE_WELLS]
        centres = np.stack([x[lowest][order], y[lowest][order]], 1)
        energies.append(_plane_gaussian(V, centres, mass, domain))
        if domain is None:
            energies.append(_disc_energy(V, x, y, values, min(mass)))
    energy = min(energies)
    if domain is None:
        angle = np.random.default_rng(2).uniform(0, 2 * np.pi, 96)
        far = np.geomspace(2 * PLANE_SIZES[-1], 1e6, 40)[:, None]
        outside = bounded(V(far * np.cos(angle), far * np.sin(angle)))
        lowest_inside = min(float(values.min()) for _, _, values in low_points[:-1])
        if outside.min() < lowest_inside - 1e-6 * abs(lowest_inside):
            raise Unbound(
                f"{name} has no ground state: V falls to {outside.min():.3g} far away, so that what sits in a well "
                "inside is at best metastable; the potential must confine the particles (add a confining term)"
            )
        if outside.min() < lowest_inside + 0.02 * (energy - lowest_inside):
            raise Unbound(
                f"{name} has no bound state: far away V falls to {outside.min():.4g} again and again, as low as "
                "anywhere, so that the state spreads over all of space; the potential must confine the particles"
            )
        if outside.min() <= energy:
            return None
    sides = np.array([[np.inf, -np.inf], [np.inf, -np.inf]])
    for x, y, values in low_points:
        low = values <= energy
        if low.any():
            cell = np.array([x[1, 0] - x[0, 0], y[0, 1] - y[0, 0]])
            for k, u in enumerate((x[low], y[low])):
                if low.sum() >= 4 or cell[k] < 0.05:
                    sides[k] = min(sides[k, 0], u.min()), max(sides[k, 1], u.max())
    if not np.isfinite(sides).all():
        return None
    room = 0.2 * np.ptp(sides, axis=1) + 1e-3
    sides = sides + room[:, None] * np.array([-1, 1])
    if domain is not None:
        sides = np.asarray(domain, dtype=float)
    return ((float(sides[0, 0]), float(sides[0, 1])), (float(sides[1, 0]), float(sides[1, 1]))), energy


def _disc_energy(V: Callable[[Array, Array], Array], x: Array, y: Array, values: Array, mass: float) -> float:
    """The lowest energy of a disc, the largest in which V is below one of several heights."""
    step = (x[1, 0] - x[0, 0], y[0, 1] - y[0, 0])
    k = np.arange(128)
    r, angle = np.sqrt((k + 0.5) / len(k)), k * np.pi * (3 - 5**0.5)  # a sunflower: equal areas
    weight = j0(FIRST_ZERO * r) ** 2
    best = np.inf
    for U in levels(values):
        depth = distance_transform_edt(np.pad(values <= U, 1), sampling=step)[1:-1, 1:-1]
        at = np.unravel_index(int(depth.argmax()), depth.shape)
        R = float(depth[at]) - max(step)
        if R > 0:
            inside = V(x[at] + R * r * np.cos(angle), y[at] + R * r * np.sin(angle))
            heights = bounded(inside)
            best = min(best, float(heights @ weight / weight.sum()) + FIRST_ZERO**2 / (2 * mass * R**2))
    return best


def _plane_gaussian(
    V: Callable[[Array, Array], Array], centres: Array, mass: tuple[float, float], domain: object
) -> float:
    """The lowest energy of a round Gaussian about any of the centres."""
    if domain is not None:
        return float("inf") if not len(centres) else float(V(centres[:, 0], centres[:, 1]).min() + 1.0)
    widths = np.geomspace(1e-3, 1e3, 40)[:, None]
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    zx, zy = (z.ravel() for z in np.meshgrid(nodes, nodes))
    weight = np.outer(weights, weights).ravel() / weights.sum() ** 2
    best = np.inf
    for x, y in centres:
        values = bounded(V(x + widths * zx, y + widths * zy))
        E = values @ weight + (1 / mass[0] + 1 / mass[1]) / (8 * widths[:, 0] ** 2)
        best = min(best, float(E.min()))
    return best
