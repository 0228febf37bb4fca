"""Energy levels from the Schroedinger equation itself, with numpy and scipy only: the check on everything stochastic.

    H psi = E psi,      H = sum_i p_i^2/(2 m_i) + V(r),      hbar = 1

`diagonalise` looks at V by evaluating it and takes the first method that covers it:

1. one coordinate: elements of polynomials on a line (line.py), or plane waves on a ring (grids.py);
2. V that is a sum over particles: levels add up, bosons filling them in all ways;
3. two particles whose V = V_c(centre of mass) + V_r(distance): two problems of one particle;
4. one particle in a central potential: a radial equation for each angular momentum;
5. V that is a sum over groups of coordinates: levels add up;
6. up to five coordinates with a smooth V: a product of grids (grids.py).

Where particles are identical, the levels are those of the states that are symmetric under exchange.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar, cast

import numpy as np

from fkdrift.errors import BadParameter, FkdriftError, NoExactSolution, NotConverged
from fkdrift.grids import LARGEST, GridStates, solve_grid
from fkdrift.landscape import Landscape, central, centre_and_relative, components, landscape, lowest_point
from fkdrift.levels import Array, Spectrum
from fkdrift.line import Line, States, solve_line
from fkdrift.potential import Potential, require

Walls = Sequence[float] | Sequence[tuple[float, float]]
Result = TypeVar("Result")
SYMMETRIC = "symmetric under exchange of identical particles"


@dataclass(frozen=True)
class Settings:
    """How accurately, and with how much memory."""

    levels: int
    tolerance: float
    points: int | None
    max_memory_gib: float


def diagonalise(
    potential: Potential,
    levels: int = 5,
    *,
    box: Walls | None = None,
    points: int | None = None,
    tolerance: float = 1e-8,
    max_memory_gib: float = 2.0,
) -> Spectrum:
    """Solve H psi_n = E_n psi_n, H = sum_i p_i^2/(2 m_i) + V(r), for the lowest bound levels.

    Args:
        potential: V(r) with its masses, period, domain and groups of identical particles.
        levels: how many states, a degenerate level counting as many times as it has states.
        box: (low, high) for every coordinate, or one such pair for each: hard walls there.  By default the box is
            chosen so that its ends do not matter, or at the ends of a table's range.
        points: grid points for each coordinate of a product grid or ring; by default as many as the tolerance needs.
        tolerance: largest allowed estimated error of a level, relative to its height above the minimum of V.
        max_memory_gib: most memory for a product grid, GiB.

    Returns:
        Spectrum: energies, estimated errors, the method in words, the ground state.  Fewer levels than asked for where fewer
        are bound.

    Raises:
        NoExactSolution: no method covers this V (the message says why); raised within a second.
        Unbound: V has no bound state.
        TooLarge: the grid would need more than max_memory_gib.
        NotConverged: the error stayed above the tolerance; `partial` is the Spectrum reached, or None.
        BadParameter: an argument is out of range, or V is NaN where the particles are.

    Example:
        >>> from fkdrift.potential import FunctionPotential
        >>> spectrum = diagonalise(FunctionPotential(lambda r: r.square().sum((1, 2)) / 2), levels=3)
        >>> [round(float(E), 10) for E in spectrum.energies]
        [0.5, 1.5, 2.5]
    """
    _check(potential, levels, points, tolerance, max_memory_gib)
    V = landscape(potential, _walls(potential, box))
    plan = _plan(potential, V)
    settings = Settings(levels, tolerance, points, max_memory_gib)
    spectrum = plan(settings)
    notes = spectrum.notes
    if box is not None:
        notes = (*notes, "hard walls at the ends of the box that was given")
    elif potential.domain is not None:
        notes = (*notes, "hard walls at the ends of the table's range, where V ends")
    symmetry = SYMMETRIC if V.alike else "all states"
    shape = (potential.n_particles, potential.n_dims)
    return replace(spectrum, asked=levels, notes=notes, symmetry=symmetry, shape=shape)


def has_exact(potential: Potential) -> bool:
    """Whether `diagonalise` has a method for this potential; evaluates V at some thousand points, solves nothing.

    Example:
        >>> from fkdrift.potential import FunctionPotential
        >>> has_exact(FunctionPotential(lambda r: r.square().sum((1, 2)), n_particles=50, n_dims=3))
        True
    """
    try:
        _plan(potential, landscape(potential))
    except FkdriftError:
        return False
    return True


# -- the choice --------------------------------------------------------------------------------------------------------

Plan = Callable[[Settings], Spectrum]


def _plan(potential: Potential, V: Landscape) -> Plan:
    """The method for this potential; NoExactSolution if there is none."""
    if V.size == 1 or (potential.n_particles == 1 and V.size <= 3 and central(V)):
        return lambda settings: _single(V, settings)
    parts = components(V, largest=LARGEST)
    if parts is not None and all(len({V.particle[k] for k in part}) == 1 for part in parts):
        return lambda settings: _independent(V, parts, settings)
    if potential.n_particles == 2:
        split = centre_and_relative(V)
        if split is not None and central(split[1]):
            return lambda settings: _two(V, *split, settings)
    if potential.n_particles == 1 and central(V):
        return lambda settings: _central(V, settings)
    if parts is not None:
        return lambda settings: _sum_of_parts(V, parts, settings)
    if potential.nuclei or potential.coalescence:
        where = "at nuclei that are not one centre" if potential.nuclei else "where particles meet"
        raise NoExactSolution(
            f"no exact method for {potential.name}: V is singular {where}, and with its {V.size} degrees of freedom it is neither "
            "central nor a sum of centre of mass and distance; compare with the literature (known_energy) instead"
        )
    if V.size > LARGEST:
        raise NoExactSolution(
            f"no exact method for {potential.name}: V couples its {V.size} degrees of freedom, and product grids reach {LARGEST}; "
            "only sums of smaller independent parts go further"
        )
    return lambda settings: _product(V, settings)


def _single(V: Landscape, settings: Settings) -> Spectrum:
    """One coordinate, one particle in a central potential, or a few coupled coordinates."""
    if V.size > 1 and len(set(V.particle)) == 1 and central(V):
        return _central(V, settings)
    return _one(V, settings) if V.size == 1 else _product(V, settings)


def _one(V: Landscape, settings: Settings) -> Spectrum:
    """One coordinate."""
    if V.period is not None:
        return _product(V, settings)
    line = Line(lambda x: V.V(x[:, None]), float(V.mass[0]), float(V.low[0]), float(V.high[0]))
    states = _converged(
        lambda: solve_line(line, settings.levels, settings.tolerance), lambda s: _line_spectrum(s, line)
    )
    return _line_spectrum(states, line)


def _line_spectrum(states: States, line: Line) -> Spectrum:
    n = 16 * (len(states.edges) - 1) - 1
    low, high = float(states.edges[0]), float(states.edges[-1])
    probe = np.unique(
        np.concatenate([np.linspace(a, b, 9) for a, b in zip(states.edges[:-1], states.edges[1:], strict=True)])
    )
    psi = np.abs(states.wavefunctions(probe))
    seen = probe[(psi > 1e-7 * psi.max(1, keepdims=True)).any(0)]
    grid = np.linspace(seen[0], seen[-1], 1001)
    walls = " between hard walls" if low <= line.low and high >= line.high else ""
    return Spectrum(
        energies=states.energies,
        errors=states.errors,
        method=f"polynomial elements on a line{walls}, {len(states.edges) - 1} elements of order 16, confirmed on two grids",
        labels=tuple(f"n={k}" for k in range(len(states.energies))),
        box=((low, high),),
        points=(n,),
        threshold=states.threshold,
        axes=(grid,),
        wavefunctions=states.wavefunctions(grid),
        ground=None if states.tail is None else lambda x, tail=states.tail: tail.log_psi(x[:, 0]),
    )


def _product(V: Landscape, settings: Settings) -> Spectrum:
    """Coupled coordinates on a product of grids."""

    def solve() -> GridStates:
        return solve_grid(
            V,
            settings.levels,
            tolerance=settings.tolerance,
            points=settings.points,
            max_memory_gib=settings.max_memory_gib,
        )

    return _grid_spectrum(_converged(solve, _grid_spectrum))


def _grid_spectrum(states: GridStates) -> Spectrum:
    kind = "plane waves on a ring" if states.axes[0].ring else "sine grid (sinc-DVR)"
    if len(states.axes) > 1:
        kind = f"product of {len(states.axes)} {'rings of plane waves' if states.axes[0].ring else 'sinc-DVR grids'}, Lanczos"
    keep = len(states.axes) <= 2
    return Spectrum(
        energies=states.energies,
        errors=states.errors,
        method=f"{kind}, confirmed on two grids",
        labels=tuple(f"n={k}" for k in range(len(states.energies))),
        box=tuple((axis.low, axis.high) for axis in states.axes),
        points=tuple(axis.n for axis in states.axes),
        threshold=states.threshold,
        axes=tuple(axis.points for axis in states.axes) if keep else (),
        wavefunctions=states.vectors * states.density_norm() if keep else None,
        ground=states.log_psi,
    )


def _central(V: Landscape, settings: Settings, parity: Literal["any", "even"] = "any") -> Spectrum:
    """One particle whose V depends on the distance from the origin: a radial equation for each l.

    A level with angular momentum l in d dimensions stands for (2l + d - 2)(l + d - 3)!/(l! (d - 2)!) states.
    """
    d, wanted = V.size, settings.levels
    direction = np.full(d, d**-0.5)
    line = Line(lambda r: V.V(r[:, None] * direction), float(V.mass[0]), n_dims=d)
    found: list[tuple[float, float, int, int]] = []
    lowest: States | None = None
    radial: dict[int, States] = {}
    for l in range(0, 2 if d == 1 else 10_000, 2 if parity == "even" else 1):
        known = sorted(E for E, _, k, l_ in found for _ in range(_states(l_, d)))
        limit = known[wanted - 1] if len(known) >= wanted else np.inf
        try:
            states = _radial_levels(replace(line, momentum=l), wanted, limit, settings.tolerance)
        except FkdriftError as error:
            if lowest is None or isinstance(error, NotConverged):
                raise
            break
        lowest, radial[l] = lowest or states, states
        found += [
            (float(E), float(e), k, l) for k, (E, e) in enumerate(zip(states.energies, states.errors, strict=True))
        ]
        if states.energies[0] > limit:
            break
    assert lowest is not None
    rows = [row for row in sorted(found) for _ in range(_states(row[3], d))][:wanted]
    r = np.linspace(0, _extent(lowest), 801)
    area = 2 * math.pi ** (d / 2) / math.gamma(d / 2)

    def ground(x: Array) -> Array:
        assert lowest is not None and lowest.tail is not None
        return lowest.tail.log_psi(np.linalg.norm(x, axis=1)) - 0.5 * math.log(area)

    return Spectrum(
        energies=np.array([row[0] for row in rows]),
        errors=np.array([row[1] for row in rows]),
        method=f"radial equation in {d} dimension{'s' if d > 1 else ''} for each angular momentum, polynomial elements, two grids",
        labels=tuple(f"l={row[3]} k={row[2]}" for row in rows),
        box=((float(lowest.edges[0]), float(lowest.edges[-1])),),
        points=(16 * (len(lowest.edges) - 1),),
        threshold=lowest.threshold,
        axes=(r,),
        wavefunctions=np.stack([radial[row[3]].wavefunctions(r)[row[2]] for row in rows]),
        ground=ground,
    )


def _radial_levels(line: Line, wanted: int, limit: float, tolerance: float) -> States:
    """Levels of one angular momentum: enough of them to pass `limit`, at most `wanted`."""
    k = min(wanted, 3)
    while True:
        states = solve_line(line, k, tolerance)
        if k >= wanted or len(states.energies) < k or states.energies[-1] > limit:
            return states
        k = min(2 * k, wanted)


def _states(l: int, d: int) -> int:  # noqa: E741  the name used in every textbook
    """Number of spherical harmonics of degree l in d dimensions."""
    if d == 1 or l == 0:
        return 1
    return (2 * l + d - 2) * math.comb(l + d - 3, l) // (d - 2) if d > 2 else 2


def _extent(states: States) -> float:
    """The distance beyond which every wavefunction is below 1e-6 of its maximum."""
    r = np.unique(
        np.concatenate([np.linspace(a, b, 9) for a, b in zip(states.edges[:-1], states.edges[1:], strict=True)])
    )
    psi = np.abs(states.wavefunctions(r))
    return float(r[(psi > 1e-6 * psi.max(1, keepdims=True)).any(0)].max())


def _two(V: Landscape, centre: Landscape, relative: Landscape, settings: Settings) -> Spectrum:
    """Centre of mass plus relative distance; identical particles have even relative states only."""
    rho = _central(relative, settings, "even" if V.alike else "any")
    parts = components(centre) if centre.size > 1 and not central(centre) else None
    R = _independent(centre, parts, settings) if parts else _single(centre, settings)
    d, share = centre.size, float(V.mass[0] / centre.mass[0])

    def ground(x: Array) -> Array:
        assert R.ground is not None and rho.ground is not None
        a, b = x[:, :d], x[:, d:]
        return R.ground(share * a + (1 - share) * b) + rho.ground(a - b)

    total = _added([R, rho], [[], []], settings.levels)
    return replace(
        total,
        labels=tuple(label.replace(";", ", distance", 1) for label in (f"centre {label}" for label in total.labels)),
        method=f"centre of mass: {R.method}; distance: {rho.method}",
        ground=ground,
        axes=rho.axes,
        wavefunctions=None if rho.wavefunctions is None else rho.wavefunctions[:1],
        notes=("the stored wavefunction is that of the distance between the particles",),
    )


# -- sums --------------------------------------------------------------------------------------------------------------


def _independent(V: Landscape, parts: list[list[int]], settings: Settings) -> Spectrum:
    """Particles that do not interact: levels of each particle, filled in all ways that are symmetric."""
    at = lowest_point(V)
    offset = float(V.V(at[None])[0])
    solved: list[tuple[Landscape, Spectrum]] = []
    particles = sorted(set(V.particle))
    columns = [[k for k, p in enumerate(V.particle) if p == i] for i in particles]
    each = []
    for i, mine in zip(particles, columns, strict=True):
        inside = [part for part in parts if V.particle[part[0]] == i]
        local = [[mine.index(k) for k in part] for part in inside]
        each.append(
            _added([_solved(V.part(part, at, offset), solved, settings) for part in inside], local, settings.levels)
        )
    alike = tuple(tuple(particles.index(i) for i in group) for group in V.alike)
    total = each[0] if len(each) == 1 else _added(each, columns, settings.levels, alike)
    return _lifted(total, offset, len(parts), solved)


def _sum_of_parts(V: Landscape, parts: list[list[int]], settings: Settings) -> Spectrum:
    """V a sum over groups of coordinates that belong to several particles.

    With identical particles only the ground state is a plain product: symmetric states also arise from products of
    states that are not symmetric, so nothing above it is listed.
    """
    at = lowest_point(V)
    offset = float(V.V(at[None])[0])
    solved: list[tuple[Landscape, Spectrum]] = []
    inner = replace(settings, levels=1) if V.alike else settings
    total = _added([_solved(V.part(part, at, offset), solved, inner) for part in parts], parts, inner.levels)
    notes = ("only the ground state: excited states of identical particles are not products here",) if V.alike else ()
    return replace(_lifted(total, offset, len(parts), solved), notes=notes)


def _lifted(total: Spectrum, offset: float, n: int, solved: list[tuple[Landscape, Spectrum]]) -> Spectrum:
    """Put back the constant that was taken out of every part, and say what the parts were."""
    if n == 1:
        return replace(total, energies=total.energies + offset)
    kinds = "; ".join(dict.fromkeys(spectrum.method for _, spectrum in solved))
    return replace(
        total,
        energies=total.energies + offset,
        errors=total.errors + 1e-15 * abs(offset),
        method=f"sum of {n} independent parts ({len(solved)} different): {kinds}",
        threshold=None if total.threshold is None else total.threshold + offset,
    )


def _solved(V: Landscape, solved: list[tuple[Landscape, Spectrum]], settings: Settings) -> Spectrum:
    """The levels of one part; parts that are alike are solved once."""
    x = np.concatenate([V.points(32, seed, spread) for seed, spread in enumerate((0.3, 1.0, 3.0))])
    for other, spectrum in solved:
        if V.size == other.size and all(
            np.array_equal(getattr(V, name), getattr(other, name)) for name in ("mass", "low", "high", "period")
        ):
            a, b = V.V(x), other.V(x)
            if (np.abs(a - b) <= 1e-13 * np.maximum(1.0, np.abs(a).max())).all():
                return spectrum
    spectrum = _single(V, settings)
    solved.append((V, spectrum))
    return spectrum


def _added(
    spectra: list[Spectrum], columns: list[list[int]], levels: int, alike: tuple[tuple[int, ...], ...] = ()
) -> Spectrum:
    """Levels E = sum of one level of each spectrum, lowest first; equal ones in `alike` count once in any order.

    Args:
        columns: which coordinates each spectrum's ground state takes.
    """
    if len(spectra) == 1:
        return spectra[0]
    thresholds = [s.threshold - s.ground_state for s in spectra if s.threshold is not None]
    E0 = sum(s.ground_state for s in spectra)
    threshold = E0 + min(thresholds) if thresholds else None
    energies, errors, labels = [], [], []
    for E, filling in _fillings(spectra, levels, alike):
        if threshold is not None and E >= threshold:
            break
        energies.append(E)
        errors.append(sum(float(s.errors[n]) for s, n in zip(spectra, filling, strict=True)))
        excited = [f"{s.labels[n]}" for s, n in zip(spectra, filling, strict=True)]
        labels.append("; ".join(excited) if len(spectra) <= 3 else f"{sum(n > 0 for n in filling)} parts excited")

    def ground(x: Array) -> Array:
        return np.sum(
            [s.ground(x[:, c]) for s, c in zip(spectra, columns, strict=True) if s.ground is not None], axis=0
        )

    grids = [s.grid for s in spectra]
    plane = len(spectra) == 2 and all(grid is not None and c for grid, c in zip(grids, columns, strict=True))
    psi = [s.wavefunctions[0] for s in spectra if s.wavefunctions is not None] if plane else []
    return Spectrum(
        energies=np.array(energies),
        errors=np.array(errors),
        method="sum",
        labels=tuple(labels),
        box=sum((s.box for s in spectra), ()),
        points=sum((s.points for s in spectra), ()),
        threshold=threshold,
        axes=tuple(grid for grid in grids if grid is not None) if len(psi) == 2 else (),
        wavefunctions=np.multiply.outer(*psi)[None] if len(psi) == 2 else None,
        ground=ground if all(s.ground is not None for s in spectra) else None,
    )


def _fillings(
    spectra: list[Spectrum], levels: int, alike: tuple[tuple[int, ...], ...]
) -> Iterator[tuple[float, tuple[int, ...]]]:
    """The `levels` lowest ways to choose one level of each spectrum, non-decreasing within each group of `alike`."""
    before = {b: a for group in alike for a, b in zip(group[:-1], group[1:], strict=True)}
    after = {a: b for b, a in before.items()}
    start = (0,) * len(spectra)
    heap = [(sum(s.ground_state for s in spectra), start)]
    seen = {start}
    for _ in range(levels):
        if not heap:
            return
        E, filling = heapq.heappop(heap)
        yield E, filling
        for k, s in enumerate(spectra):
            n = filling[k] + 1
            if n < len(s.energies) and (k not in after or n <= filling[after[k]]):
                new = (*filling[:k], n, *filling[k + 1 :])
                if new not in seen:
                    seen.add(new)
                    heapq.heappush(heap, (E + float(s.energies[n] - s.energies[n - 1]), new))


# -- arguments ---------------------------------------------------------------------------------------------------------


def _converged(solve: Callable[[], Result], convert: Callable[[Result], Spectrum]) -> Result:
    """Run a solver; what it had reached when it did not converge is passed on as a Spectrum."""
    try:
        return solve()
    except NotConverged as error:
        partial = None if error.partial is None else convert(cast("Result", error.partial))
        raise NotConverged(str(error), partial=partial) from None


def _check(potential: object, levels: int, points: int | None, tolerance: float, max_memory_gib: float) -> None:
    """Refuse arguments that cannot be meant."""
    if not isinstance(potential, Potential):
        raise BadParameter(
            f"potential is a {type(potential).__name__}; diagonalise takes a Potential: load_potential(...) gives one by name, "
            "FunctionPotential(...) wraps a callable"
        )
    require(isinstance(levels, int) and 1 <= levels <= 2000, "levels", levels, "a whole number from 1 to 2000")
    require(points is None or (isinstance(points, int) and points >= 4), "points", points, "None, or at least 4")
    require(1e-13 <= tolerance <= 0.1, "tolerance", tolerance, "between 1e-13 and 0.1")
    require(0 < max_memory_gib < math.inf, "max_memory_gib", max_memory_gib, "a positive number of GiB")


def _walls(potential: Potential, box: Walls | None) -> list[tuple[float, float]] | None:
    """One (low, high) for each coordinate."""
    if box is None:
        return None
    n = potential.n_particles * potential.n_dims
    allowed = "(low, high) with low < high, or one such pair for each coordinate"
    require(potential.box is None, "box", box, "None for a system on a ring or torus, which has no walls")
    try:
        pairs = np.array(box, dtype=np.float64)
        pairs = np.tile(pairs, (n, 1)) if pairs.ndim == 1 else pairs
        pairs = np.tile(pairs, (potential.n_particles, 1)) if len(pairs) == potential.n_dims < n else pairs
    except (TypeError, ValueError):
        raise BadParameter(f"box = {box!r} is not allowed: box must be {allowed}") from None
    require(pairs.shape == (n, 2) and bool((pairs[:, 0] < pairs[:, 1]).all()), "box", box, allowed)
    require(bool(np.isfinite(pairs).all()), "box", box, "finite; leave it out to have it chosen")
    for low, high in potential.domain or ():
        require(
            bool((pairs >= low).all() and (pairs <= high).all()),
            "box",
            box,
            f"inside the table's range, {low:g} to {high:g}",
        )
    return [(float(low), float(high)) for low, high in pairs]
