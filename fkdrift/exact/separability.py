"""V on plain numpy coordinates, and what can be learnt about its structure by evaluating it.

    coupled(j, k):   V(a_j, a_k) - V(b_j, a_k) - V(a_j, b_k) + V(b_j, b_k)  is not 0 for some points

Nothing is read off a name or a class: separability, rotational symmetry and the split into centre of mass and relative
distance are found by evaluating V in float64 at fixed random points, so callables are treated like plug-ins.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fkdrift.errors import BadParameter
from fkdrift.exact.limits import UNLIMITED, Limits
from fkdrift.exact.spectrum import Array
from fkdrift.hamiltonian.potential import Potential

SAME = 1e-9  # two energies are taken as equal if they differ by less than this, relative to their size
CHUNK = 65536  # positions evaluated at once
N_RADII, DIRECTIONS = 150, 8  # of each size, at which V is compared on spheres: a jump along a curve is met
N_PAIRS = 1200  # positions, divided by the number of pairs of coordinates, at which couplings are looked for


@dataclass(frozen=True)
class Landscape:
    """V(x) for x of shape (batch, coordinate), with the mass and the range of each coordinate.

    Attributes:
        V: (batch, coordinate) -> (batch,).
        mass: one for each coordinate.
        low, high: hard walls; infinite where there is none.
        period: period of each coordinate, or None in open space.
        particle: which particle each coordinate belongs to.
        alike: groups of identical particles.
        values_only: as of `Potential`: an energy may cost a calculation of its own.
    """

    V: Callable[[Array], Array]
    mass: Array
    low: Array
    high: Array
    period: Array | None
    particle: tuple[int, ...]
    alike: tuple[tuple[int, ...], ...]
    values_only: bool = False

    @property
    def size(self) -> int:
        return len(self.mass)

    def part(self, coordinates: Sequence[int], at: Array, offset: float = 0.0) -> Landscape:
        """V as a function of some coordinates, the others held at `at`, minus an offset."""
        index = list(coordinates)

        def V(x: Array) -> Array:
            full = np.tile(at, (len(x), 1))
            full[:, index] = x
            return self.V(full) - offset

        period = None if self.period is None else self.period[index]
        particle = tuple(self.particle[k] for k in index)
        alike = tuple(group for group in self.alike if set(group) <= set(particle))
        return Landscape(V, self.mass[index], self.low[index], self.high[index], period, particle, alike)

    def points(self, n: int, seed: int, spread: float = 1.0) -> Array:
        """Fixed random positions: normal around the origin in open space, uniform on rings and between walls."""
        generator = np.random.default_rng(seed)
        x = spread * generator.normal(size=(n, self.size))
        u = generator.uniform(size=(n, self.size))
        if self.period is not None:
            return u * self.period
        bounded = np.isfinite(self.low) & np.isfinite(self.high)
        with np.errstate(invalid="ignore"):
            return np.where(bounded, self.low + u * (self.high - self.low), np.clip(x, self.low, self.high))


def landscape(
    potential: Potential, box: Sequence[tuple[float, float]] | None = None, limits: Limits = UNLIMITED
) -> Landscape:
    """The landscape of a potential, between the walls of its domain or of `box` (one pair for each coordinate).

    Every evaluation of V looks at the clock of `limits`.
    """
    N, d = potential.n_particles, potential.n_dims
    walls = list(potential.domain or ()) * N or [(-np.inf, np.inf)] * (N * d)
    if box is not None:
        walls = [(max(a, low), min(b, high)) for (a, b), (low, high) in zip(walls, box, strict=True)]
    low, high = np.array(walls, dtype=np.float64).T
    period = None if potential.box is None else np.array(potential.box * N, dtype=np.float64)
    particle = tuple(i for i in range(N) for _ in range(d))
    alike = tuple(tuple(group) for group in potential.groups if len(group) > 1)
    mass = np.repeat(np.array(potential.mass, dtype=np.float64), d)

    def V(x: Array) -> Array:
        limits.check()
        return _evaluate(potential, np.clip(x, low, high))

    return Landscape(V, mass, low, high, period, particle, alike, potential.values_only)


def _evaluate(potential: Potential, x: Array) -> Array:
    """V at positions (batch, coordinate) in float64, in chunks; checks the shape and type of what comes back."""
    out = np.empty(len(x))
    r = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64)).view(-1, potential.n_particles, potential.n_dims)
    step = max(1, CHUNK // (potential.n_particles * potential.n_dims))
    with torch.no_grad():
        for start in range(0, len(x), step):
            V = potential(r[start : start + step])
            expected = (len(r[start : start + step]),)
            if not isinstance(V, Tensor) or V.shape != expected or V.is_complex():
                got = f"{V.dtype} of shape {tuple(V.shape)}" if isinstance(V, Tensor) else type(V).__name__
                raise BadParameter(
                    f"V(r) returned {got}; it must return a real tensor of shape {expected}, one number per walker"
                )
            out[start : start + step] = V.to(torch.float64).numpy()
    return out


# -- structure ---------------------------------------------------------------------------------------------------------


def components(V: Landscape, *, largest: int = 5) -> list[list[int]] | None:
    """Groups of coordinates such that V is a sum of one function for each group; None if that is not so.

    The pairs are only looked at where few coordinates are coupled to any other: at most 40 of them.
    """
    centre = lowest_point(V)
    coupled = [k for k in range(V.size) if _mixed(V, [k], [j for j in range(V.size) if j != k], centre)]
    if not coupled:
        return [[k] for k in range(V.size)]
    if len(coupled) > 40:
        return None
    groups = [{k} for k in coupled]
    for j in coupled:
        for k in coupled:
            if j < k and _mixed(V, [j], [k], centre):
                joined = [g for g in groups if j in g or k in g]
                groups = [g for g in groups if g not in joined] + [set().union(*joined)]
    found = [[k] for k in range(V.size) if k not in coupled] + [sorted(g) for g in groups]
    return sorted(found) if len(found) > 1 and max(map(len, found)) <= largest else None


def _mixed(V: Landscape, first: list[int], second: list[int], centre: Array) -> bool:
    """Whether the mixed second difference of V in two sets of coordinates differs from zero anywhere tried.

    Points are drawn around the origin and around `centre`, a low point of V, where a narrow well may be far away.
    """
    if not first or not second:
        return False
    n = max(6, N_PAIRS // V.size**2)
    for seed, spread in enumerate((0.5, 1.0, 2.0, 4.0, 0.5, 2.0)):
        around = centre if seed > 3 and V.period is None else np.zeros(V.size)
        a, b = (np.clip(around + V.points(n, 2 * seed + k, spread), V.low, V.high) for k in (0, 1))
        ab, ba, bb = a.copy(), a.copy(), a.copy()
        ab[:, second], ba[:, first] = b[:, second], b[:, first]
        bb[:, first], bb[:, second] = b[:, first], b[:, second]
        values = [V.V(x) for x in (a, ab, ba, bb)]
        with np.errstate(invalid="ignore"):
            difference = np.abs(values[0] - values[1] - values[2] + values[3])
        size = np.max(np.abs(values), axis=0)
        if not (difference <= SAME * size + 1e-13 * size.max()).all():
            return True
    return False


def central(V: Landscape) -> bool:
    """Whether V of one particle depends on the distance from the origin alone (in one dimension: is even)."""
    if V.period is not None or np.isfinite(V.low).any() or np.isfinite(V.high).any() or len(set(V.mass)) > 1:
        return False
    generator = np.random.default_rng(0)
    low = lowest_point(V)
    radii = np.concatenate([generator.uniform(0, R, N_RADII) for R in (0.3, 1.0, 3.0, 10.0)])
    x = generator.normal(size=(len(radii) + 1, DIRECTIONS, V.size))
    x[:, -1] = -x[:, 0]
    x[:, 1] = low if low.any() else x[:, 1]
    x *= (np.append(radii, np.linalg.norm(low) or 1.0) / np.linalg.norm(x, axis=2).T).T[..., None]
    values = V.V(x.reshape(-1, V.size)).reshape(x.shape[:2])
    size = np.abs(values).max(1)
    with np.errstate(invalid="ignore"):
        return bool((np.ptp(values, axis=1) <= SAME * size + 1e-13 * np.nanmedian(size)).all())


def centre_and_relative(V: Landscape) -> tuple[Landscape, Landscape] | None:
    """Two particles: V = V_c(R) + V_r(rho), R = (m1 r1 + m2 r2)/M, rho = r1 - r2; None if V is not such a sum."""
    d = V.size // 2
    if V.period is not None or np.isfinite(V.low).any() or np.isfinite(V.high).any():
        return None
    m1, m2 = V.mass[0], V.mass[-1]
    M = m1 + m2

    def transformed(x: Array) -> Array:
        R, rho = x[:, :d], x[:, d:]
        return V.V(np.concatenate([R + m2 / M * rho, R - m1 / M * rho], axis=1))

    mass = np.repeat([M, m1 * m2 / M], d)
    both = Landscape(transformed, mass, V.low, V.high, None, (0,) * d + (1,) * d, ())
    if _mixed(both, list(range(d)), list(range(d, 2 * d)), lowest_point(both)):
        return None
    at = np.concatenate([np.zeros(d), np.ones(d)])
    offset = float(transformed(at[None])[0])
    return both.part(range(d), at, offset), both.part(range(d, 2 * d), at)


def meets_singularity(V: Landscape) -> bool:
    """Whether V is infinite, or absurdly large, where two particles are at the same place."""
    particles = sorted(set(V.particle))
    columns = {i: [k for k, p in enumerate(V.particle) if p == i] for i in particles}
    x = V.points(4, 0)
    typical = np.abs(V.V(x)).max()
    for i, j in itertools.combinations(particles[:4], 2):
        together = x.copy()
        together[:, columns[j]] = x[:, columns[i]]
        values = np.abs(V.V(together))
        if not (values < 1e7 * typical + 1e7).all():
            return True
    return False


def lowest_point(V: Landscape) -> Array:
    """Where V is finite and lowest among random points at many scales: a place to hold the other coordinates at."""
    spreads = (1.0,) if V.period is not None else (0.1, 0.5, 1.0, 2.0, 5.0, 20.0, 100.0)
    x = np.concatenate(
        [V.points(256, seed, s) for seed, s in enumerate(spreads)] + [np.clip(np.zeros((1, V.size)), V.low, V.high)]
    )
    values = V.V(x)
    finite = np.isfinite(values)
    if not finite.any():
        raise BadParameter(
            "V is not a finite number at any of the points tried; it must be finite where the particles are"
        )
    return x[finite][np.argmin(values[finite])]
