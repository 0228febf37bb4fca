"""Three free particles in three dimensions: which method solves their relative motion at angular momentum zero.

V is taken apart by evaluating it: with the third particle far away what is left is u_ij of the other two.  Where V is
the sum of those, correlated exponentials on the pair solutions reach from halos to tight clusters; nearly rigid ones,
and any other V of the three distances, are solved on a grid of Jacobi coordinates.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from fkdrift.errors import NotConverged, OutOfTime, Unbound
from fkdrift.exact import jacobi_grid
from fkdrift.exact.correlated_exponentials import PAIRS, CorrelatedSet
from fkdrift.exact.jacobi_grid import Molecule
from fkdrift.exact.limits import Limits
from fkdrift.exact.one_coordinate import solve_line
from fkdrift.exact.pair_solution import PairSolution, pair_solution
from fkdrift.exact.potential_scan import Coordinate
from fkdrift.exact.separability import SAME, Landscape
from fkdrift.exact.spectrum import Array, Spectrum, SpectrumRequest
from fkdrift.hamiltonian.pair_values import PairValues

FAR = 1e7  # distance of a particle that is out of the way
TIGHT = 0.3  # pairs bound by more than this part of the well's depth are localised
FINER = (0.6, 1.0, 1.35, 1.8, 2.3)  # Jacobi grids, one after the other
SETTLED = 1e-5  # a level may change by this much from one grid to the next, relative to its height above the minimum
SLOW = 10  # a set may lack so much more than the smaller set lacks of it
CONVERGED = 1e-3  # excited levels with a larger relative error are not listed

N_EXPONENTS = {6: 10, 2: 8, 1: 7}
"""In the list, by the number of permutations under which psi is symmetric."""

Pair = Callable[[Array], Array]
Pairs = tuple[Pair, Pair, Pair]


def three_particles(V: Landscape, request: SpectrumRequest) -> Spectrum:
    """Levels of J = 0 that are symmetric under exchange of identical particles, of a V that `turns`.

    Raises:
        Unbound: no level lies below that of a pair with the third particle far away.
        NotConverged: the error stayed above the tolerance.
    """
    if request.levels == 1 and (same := _exchangeable(V)):  # the lowest state has whatever symmetry V has
        V = replace(V, alike=(tuple(sorted({k for pair in same for k in pair})),))
    pairs, of_sides = pair_potentials(V), partial(of_distances, V)
    if pairs is not None:
        if V.values_only:
            pairs = _tabulated(V, pairs)
            of_sides = partial(_of_pairs, pairs)
        try:
            return _correlated(V, pairs, request)
        except NotConverged as error:
            if isinstance(error, OutOfTime):
                raise
    return _on_grid(V, of_sides, request)


def _tabulated(V: Landscape, us: Pairs) -> Pairs:
    """Tables of u_12, u_13 and u_23, one for all that are alike."""
    alike, tables = _permutations(V), list[PairValues]()
    for k, pair in enumerate(PAIRS):
        first = next((m for m in range(k) if _same_pair(PAIRS[m], pair, alike)), None)
        tables.append(PairValues(us[k]) if first is None else tables[first])
    return tables[0], tables[1], tables[2]


def _of_pairs(us: Pairs, d: Array) -> Array:
    """V of triangles with sides (point, 3)."""
    total: Array = np.sum([u(side) for u, side in zip(us, d.T, strict=True)], 0)
    return total


def of_distances(V: Landscape, d: Array) -> Array:
    """V of triangles with the sides r_12, r_13, r_23 (point, 3)."""
    a, b, c = d.T
    along = (a * a + b * b - c * c) / (2 * a)
    zero = np.zeros_like(a)
    height = np.sqrt(np.maximum(b * b - along**2, 0))
    return V.V(np.stack([zero, zero, zero, a, zero, zero, along, height, zero], 1))


def turns(V: Landscape) -> bool:
    """Whether V is the same for congruent triangles, mirror images included."""
    rng = np.random.default_rng(43)
    x = np.resize([0.5, 2.0, 6.0], 48)[:, None, None] * rng.normal(size=(48, 3, 3))
    d = np.stack([np.linalg.norm(x[:, i] - x[:, j], axis=1) for i, j in PAIRS], 1)
    with np.errstate(all="ignore"):
        there, here = of_distances(V, d), V.V(x.reshape(48, 9))
    known = np.isfinite(there) & np.isfinite(here)
    return bool(known.sum() > 24 and (np.abs(there - here) <= 1e3 * SAME * (1 + np.abs(here)))[known].all())


def pair_potentials(V: Landscape) -> Pairs | None:
    """u_12, u_13 and u_23 with V = V_0 + sum of them, zero far away; None where V is not such a sum."""

    def alone(i: int, j: int) -> Pair:
        def u(r: Array) -> Array:
            x = np.zeros((len(r), 3, 3))
            x[:, 3 - i - j, 2] = FAR
            x[:, j, 0] = r
            return V.V(x.reshape(-1, 9)) - apart

        return u

    with np.errstate(all="ignore"):
        apart = float(of_distances(V, np.full((1, 3), FAR))[0])
        us = alone(0, 1), alone(0, 2), alone(1, 2)
        rng = np.random.default_rng(47)
        d = np.exp(rng.uniform(np.log(0.3), np.log(30), (400, 1))) * rng.uniform(0.5, 1, (400, 3))
        d = d[2 * d.max(1) < d.sum(1)]
        parts = np.stack([u(x) for u, x in zip(us, d.T, strict=True)])
        whole = of_distances(V, d) - apart
    size = np.abs(parts).sum(0) + abs(apart)
    known = np.isfinite(size) & np.isfinite(whole)
    fits = np.abs(parts.sum(0) - whole) <= 1e-8 * size
    return us if abs(apart) < 1e-6 and known.any() and bool(fits[known].all()) else None


# -- pair potentials ---------------------------------------------------------------------------------------------------


def _correlated(V: Landscape, us: Pairs, request: SpectrumRequest) -> Spectrum:
    m1, m2, m3 = (float(m) for m in V.mass[::3])
    masses = m1, m2, m3
    alike = _permutations(V)
    factors: list[PairSolution] = []
    depths = []
    for k, (i, j) in enumerate(PAIRS):
        first = next((m for m in range(k) if _same_pair(PAIRS[m], (i, j), alike)), None)
        if first is None:
            request.limits.say(f"pair equation of particles {i + 1} and {j + 1}")
            reduced = masses[i] * masses[j] / (masses[i] + masses[j])
            factors.append(pair_solution(us[k], reduced, _pair_energy(us[k], reduced, request.limits)))
            depths.append(float(-us[k](np.array([factors[-1].distance]))[0]))
        else:
            factors.append(factors[first])
            depths.append(depths[first])
    threshold = min(f.e for f in factors)
    strongest = int(np.argmin([f.e for f in factors]))
    tight = -threshold > TIGHT * depths[strongest]
    found = []
    for fewer in (2, 0):
        basis = _basis(masses, (factors[0], factors[1], factors[2]), alike, tight, fewer)
        request.limits.say(f"{basis.size} correlated exponentials")
        found.append(basis.levels(request.levels, request.limits))
    E = found[1][found[1] < threshold]
    if not len(E):
        raise Unbound(
            f"no level of three particles lies below {threshold:.6g}, the energy of the strongest pair with the third "
            "particle far away"
        )
    errors = SLOW * np.abs(found[1] - found[0])[: len(E)]
    good = 1 if tight else int(np.argmax(np.append(errors > CONVERGED * np.abs(E), True)))
    notes = ("higher levels are not reached by this set and not listed",) if 0 < good < len(E) else ()
    _refuse_error(errors[0], E[0], request)
    return Spectrum(
        energies=E[: max(good, 1)],
        errors=errors[: max(good, 1)],
        method=f"{basis.size} correlated exponentials times the solutions of the pair equations, confirmed by fewer",
        labels=("J=0",) * max(good, 1),
        threshold=threshold,
        notes=("three free particles: J = 0 only", *notes),
    )


def _pair_energy(u: Pair, mass: float, limits: Limits) -> float:
    """The lowest level of one pair, 0 where nothing is bound."""
    try:
        return min(float(solve_line(Coordinate(u, mass, n_dims=3), 1, 1e-8, limits).energies[0]), 0.0)
    except Unbound:
        return 0.0


def _basis(
    masses: tuple[float, float, float],
    factors: tuple[PairSolution, PairSolution, PairSolution],
    alike: tuple[tuple[int, ...], ...],
    tight: bool,
    fewer: int,
) -> CorrelatedSet:
    """The exponents: from the decay of the weakest bound pair to the inverse size of the core."""
    r = float(np.mean([f.distance for f in factors]))
    decays = [float(np.sqrt(-2 * f.mass * f.e)) for f in factors if f.e < 0]
    n = N_EXPONENTS[len(alike)] - fewer
    if tight:
        exponents = np.append(0.01, np.geomspace(0.05, 2.0, n - 3)) * min(decays)
    elif len(decays) == 3:
        exponents = np.append(-0.2 * min(decays), np.geomspace(0.5 * min(decays), 6 / r, n - 1))
    else:
        exponents = np.geomspace(0.03 / r, 6 / r, n)
    nodes, width = (80, 0.6 * r) if tight else (56, 1.4 * r)
    return CorrelatedSet(masses, factors, alike, exponents, nodes - 4 * fewer, width)


def _permutations(V: Landscape) -> tuple[tuple[int, ...], ...]:
    """Those of three particles that exchange identical ones."""
    group = next((set(g) for g in V.alike), set())
    return tuple(p for p in itertools.permutations(range(3)) if all(p[k] == k for k in range(3) if k not in group))


def _same_pair(a: tuple[int, int], b: tuple[int, int], alike: tuple[tuple[int, ...], ...]) -> bool:
    return any({p[a[0]], p[a[1]]} == set(b) for p in alike)


def _refuse_error(error: float, E: float, request: SpectrumRequest) -> None:
    tolerance = request.tolerance or 1e-3
    if error > tolerance * abs(E):
        raise NotConverged(
            f"three particles: the error {error:.1e} stayed above the tolerance, {tolerance:g} of the energy {E:.6g}"
        )


# -- any function of the distances -------------------------------------------------------------------------------------


def _on_grid(V: Landscape, of_sides: Pair, request: SpectrumRequest) -> Spectrum:
    """Levels on grids of Jacobi coordinates, each finer than the one before, until they have settled."""
    m1, m2, m3 = (float(m) for m in V.mass[::3])
    masses = m1, m2, m3
    pair = V.alike[0][:2] if V.alike else next(iter(_exchangeable(V)), None)
    parities = (0, 1) if pair is not None and not V.alike else (0,)  # of l, odd ones change sign under exchange
    third = next(k for k in range(3) if k not in pair) if pair else int(np.argmin(masses))
    n_levels = 1 if len(_permutations(V)) == 6 else request.levels  # others need not be symmetric in all three
    molecule = Molecule(of_sides, masses, third, step=2 if pair else 1)
    bottom, sides = jacobi_grid.minimum(molecule.V)
    top = bottom + 2 * jacobi_grid.zero_point(molecule, sides)
    before: Array | None = None
    for finer in FINER:
        points = jacobi_grid.grid(molecule, bottom, sides, top, finer)
        shape = points.r.n, points.R.n, points.n_angles
        request.limits.say(f"Jacobi coordinates, {' x '.join(map(str, shape))} points")
        found = [
            jacobi_grid.levels(replace(molecule, first=first), points, n_levels, request.limits) for first in parities
        ]
        E = np.sort(np.concatenate(found))[:n_levels]
        errors = np.abs(E - before) if before is not None and len(before) == len(E) else np.full(len(E), np.inf)
        before = E if finer > FINER[0] else None  # the first grid only says how high the levels lie
        top = float(E[-1])
        if (errors <= (request.tolerance or SETTLED) * (E - bottom)).all():
            break
    else:
        if not (errors <= CONVERGED * (E - bottom)).all():
            raise NotConverged(f"grids of Jacobi coordinates did not settle: error {errors.max():.1e}")
    return Spectrum(
        energies=E,
        errors=errors,
        method="grid of Jacobi coordinates, states contracted in the angle and in the pair, confirmed on two grids",
        labels=("J=0",) * len(E),
        box=((points.r.low, points.r.high), (points.R.low, points.R.high)),
        points=shape,
        notes=("three free particles: J = 0 only",),
    )


def _exchangeable(V: Landscape) -> list[tuple[int, int]]:
    """The pairs of particles of one mass that V is symmetric in, said to be identical or not."""
    rng = np.random.default_rng(67)
    d = np.resize([0.5, 1.0, 2.0, 4.0], 64)[:, None] * rng.uniform(0.7, 1.2, (64, 3))
    found = []
    for (i, j), swapped in zip(PAIRS, ([0, 2, 1], [2, 1, 0], [1, 0, 2]), strict=True):
        a, b = of_distances(V, d), of_distances(V, d[:, swapped])
        if V.mass[3 * i] == V.mass[3 * j] and bool((np.abs(a - b) <= 1e-8 * (1 + np.abs(a))).all()):
            found.append((i, j))
    return found
