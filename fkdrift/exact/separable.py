"""Systems that fall apart: one coordinate, one radius, a few coupled coordinates, and sums of those.

    V = sum_a V_a(x_a)   ->   E = sum_a E_a,      psi = prod_a psi_a

Each function takes a landscape of one kind and returns its Spectrum; which kind it is has been decided by exact.py.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar, cast

import numpy as np

from fkdrift.errors import NotConverged
from fkdrift.exact.grids import GridStates
from fkdrift.exact.one_coordinate import LineStates, solve_line
from fkdrift.exact.potential_scan import Coordinate
from fkdrift.exact.product_grid import solve_grid
from fkdrift.exact.radial import central_potential
from fkdrift.exact.separability import Landscape, central, components, lowest_point
from fkdrift.exact.spectrum import Array, Spectrum, SpectrumRequest

Result = TypeVar("Result")


def single_part(V: Landscape, request: SpectrumRequest) -> Spectrum:
    """One coordinate, one particle in a central potential, or a few coupled coordinates."""
    if V.size > 1 and len(set(V.particle)) == 1 and central(V):
        return central_potential(V, request)
    return one_coordinate(V, request) if V.size == 1 else product_grid(V, request)


def one_coordinate(V: Landscape, request: SpectrumRequest) -> Spectrum:
    """One coordinate."""
    if V.period is not None:
        return product_grid(V, request)
    request.limits.say("one coordinate")
    line = Coordinate(lambda x: V.V(x[:, None]), float(V.mass[0]), float(V.low[0]), float(V.high[0]))
    states = _converged(
        lambda: solve_line(line, request.levels, request.tolerance or 1e-8, request.limits),
        lambda s: _line_spectrum(s, line),
    )
    return _line_spectrum(states, line)


def _line_spectrum(states: LineStates, line: Coordinate) -> Spectrum:
    n = 16 * (len(states.edges) - 1) - 1
    low, high = float(states.edges[0]), float(states.edges[-1])
    probe = np.unique(
        np.concatenate([np.linspace(a, b, 9) for a, b in zip(states.edges[:-1], states.edges[1:], strict=True)])
    )
    psi = np.abs(states.wavefunctions(probe))
    seen = probe[(psi > 1e-7 * psi.max(1, keepdims=True)).any(0)]
    grid = np.linspace(seen[0], seen[-1], 1001)

    def ground(x: Array) -> Array:
        return states.log_psi(x[:, 0])

    walls = " between hard walls" if low <= line.low and high >= line.high else ""
    return Spectrum(
        energies=states.energies,
        errors=states.errors,
        method=f"{len(states.edges) - 1} polynomial elements of order 16 on a line{walls}, confirmed on two grids",
        labels=tuple(f"n={k}" for k in range(len(states.energies))),
        box=((low, high),),
        points=(n,),
        threshold=states.threshold,
        axes=(grid,),
        wavefunctions=states.wavefunctions(grid),
        notes=states.notes,
        ground=ground if states.tails else None,
    )


def product_grid(V: Landscape, request: SpectrumRequest) -> Spectrum:
    """Coupled coordinates on a product of grids."""

    def solve() -> GridStates:
        return solve_grid(
            V,
            request.levels,
            tolerance=request.tolerance or (1e-8 if V.size <= 3 else 1e-6),
            points=request.points,
            limits=request.limits,
        )

    return _grid_spectrum(_converged(solve, _grid_spectrum))


def _grid_spectrum(states: GridStates) -> Spectrum:
    kind = "plane waves on a ring" if states.axes[0].ring else "sine grid (sinc-DVR)"
    if len(states.axes) > 1:
        each = "rings of plane waves" if states.axes[0].ring else "sinc-DVR grids"
        kind = f"product of {len(states.axes)} {each}, Lanczos"
    axes: tuple[Array, ...] = ()
    psi = None
    if len(states.axes) <= 2:
        axes = tuple(np.linspace(axis.low, axis.high, 401 if len(states.axes) == 1 else 161) for axis in states.axes)
        psi = states.wavefunctions(axes)
    return Spectrum(
        energies=states.energies,
        errors=states.errors,
        method=f"{kind}, confirmed on two grids",
        labels=tuple(f"n={k}" for k in range(len(states.energies))),
        box=tuple((axis.low, axis.high) for axis in states.axes),
        points=tuple(axis.n for axis in states.axes),
        threshold=states.threshold,
        axes=axes,
        wavefunctions=psi,
        ground=states.log_psi,
    )


def two_particles(V: Landscape, centre: Landscape, relative: Landscape, request: SpectrumRequest) -> Spectrum:
    """Centre of mass plus relative distance; identical particles have even relative states only."""
    rho = central_potential(relative, request, "even" if V.alike else "any")
    parts = components(centre) if centre.size > 1 and not central(centre) else None
    R = independent_particles(centre, parts, request) if parts else single_part(centre, request)
    d, share = centre.size, float(V.mass[0] / centre.mass[0])

    def ground(x: Array) -> Array:
        assert R.ground is not None
        assert rho.ground is not None
        a, b = x[:, :d], x[:, d:]
        return R.ground(share * a + (1 - share) * b) + rho.ground(a - b)

    total = _added([R, rho], [[], []], request.levels)
    return replace(
        total,
        labels=tuple(label.replace(";", ", distance", 1) for label in (f"centre {label}" for label in total.labels)),
        method=f"centre of mass: {R.method}; distance: {rho.method}",
        ground=ground,
        axes=rho.axes,
        wavefunctions=None if rho.wavefunctions is None else rho.wavefunctions[:1],
        notes=("the stored wavefunction is that of the distance between the particles",),
    )


def relative_motion(V: Landscape, relative: Landscape, request: SpectrumRequest) -> Spectrum:
    """Two free particles: levels of their distance; the centre of mass rests."""
    rho = central_potential(relative, request, "even" if V.alike else "any")
    d = relative.size

    def ground(x: Array) -> Array:
        assert rho.ground is not None
        return rho.ground(x[:, :d] - x[:, d:])

    return replace(rho, method=f"distance of two free particles: {rho.method}", ground=ground)


# -- sums --------------------------------------------------------------------------------------------------------------


def independent_particles(V: Landscape, parts: list[list[int]], request: SpectrumRequest) -> Spectrum:
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
            _added([_solved(V.part(part, at, offset), solved, request) for part in inside], local, request.levels)
        )
    alike = tuple(tuple(particles.index(i) for i in group) for group in V.alike)
    total = each[0] if len(each) == 1 else _added(each, columns, request.levels, alike)
    return _lifted(total, offset, len(parts), solved)


def independent_coordinates(V: Landscape, parts: list[list[int]], request: SpectrumRequest) -> Spectrum:
    """V a sum over groups of coordinates that belong to several particles.

    With identical particles only the ground state is a plain product: symmetric states also arise from products of
    states that are not symmetric, so nothing above it is listed.
    """
    at = lowest_point(V)
    offset = float(V.V(at[None])[0])
    solved: list[tuple[Landscape, Spectrum]] = []
    inner = replace(request, levels=1) if V.alike else request
    total = _added([_solved(V.part(part, at, offset), solved, inner) for part in parts], parts, inner.levels)
    notes = ("only the ground state: excited states of identical particles are not products here",) if V.alike else ()
    return replace(_lifted(total, offset, len(parts), solved), notes=notes)


def _lifted(total: Spectrum, offset: float, n: int, solved: list[tuple[Landscape, Spectrum]]) -> Spectrum:
    """Put back the constant that was taken out of every part, and say what the parts were."""
    kinds = "; ".join(dict.fromkeys(spectrum.method for _, spectrum in solved))
    return replace(
        total,
        energies=total.energies + offset,
        errors=total.errors + 1e-15 * abs(offset),
        method=total.method if n == 1 else f"sum of {n} independent parts ({len(solved)} different): {kinds}",
        threshold=None if total.threshold is None else total.threshold + offset,
    )


def _solved(V: Landscape, solved: list[tuple[Landscape, Spectrum]], request: SpectrumRequest) -> Spectrum:
    """The levels of one part; parts that are alike are solved once."""
    x = np.concatenate([V.points(32, seed, spread) for seed, spread in enumerate((0.3, 1.0, 3.0))])
    for other, spectrum in solved:
        if V.size == other.size and all(
            np.array_equal(getattr(V, name), getattr(other, name)) for name in ("mass", "low", "high", "period")
        ):
            a, b = V.V(x), other.V(x)
            if (np.abs(a - b) <= 1e-13 * np.maximum(1.0, np.abs(a).max())).all():
                return spectrum
    spectrum = single_part(V, request)
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
        if threshold is not None and E - threshold >= 0:
            break
        energies.append(E)
        errors.append(sum(float(s.errors[n]) for s, n in zip(spectra, filling, strict=True)))
        label = "; ".join(s.labels[n] for s, n in zip(spectra, filling, strict=True))
        n_excited = sum(n > 0 for n in filling)
        labels.append(label if len(label) < 40 else f"{n_excited} of {len(spectra)} parts excited")

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
    before = {b: a for group in alike for a, b in itertools.pairwise(group)}
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


def _converged(solve: Callable[[], Result], convert: Callable[[Result], Spectrum]) -> Result:
    """Run a solver; what it had reached when it did not converge is passed on as a Spectrum."""
    try:
        return solve()
    except NotConverged as error:
        partial = None if error.partial is None else convert(cast("Result", error.partial))
        raise type(error)(str(error), partial=partial) from None
