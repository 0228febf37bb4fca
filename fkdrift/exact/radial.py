"""One particle in a central potential: a radial equation for each angular momentum l.

    -(1/2m) r^(1-d) (r^(d-1) R')' + [ l(l + d - 2)/(2 m r^2) + V(r) ] R = E R,      psi = R(r) Y_l

A level of angular momentum l in d dimensions stands for (2l + d - 2)(l + d - 3)!/(l! (d - 2)!) states; in one dimension
l = 0 are the even states and l = 1 the odd ones.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np

from fkdrift.errors import FkdriftError, NotConverged, OutOfTime
from fkdrift.exact.one_coordinate import LineStates, solve_line
from fkdrift.exact.potential_scan import Coordinate, inverse_square
from fkdrift.exact.separability import Landscape
from fkdrift.exact.spectrum import Array, Spectrum, SpectrumRequest

FEW = 3  # levels of each l at first
CORE_SEEN = 1e-6  # attraction c/(2 m r^2) weaker than this is left to the elements


def central_potential(V: Landscape, request: SpectrumRequest, parity: Literal["any", "even"] = "any") -> Spectrum:
    """One particle whose V depends on the distance from the origin: a radial equation for each l.

    A level with angular momentum l in d dimensions stands for (2l + d - 2)(l + d - 3)!/(l! (d - 2)!) states.
    """
    d, wanted = V.size, request.levels
    direction = np.full(d, d**-0.5)
    line = Coordinate(lambda r: V.V(r[:, None] * direction), float(V.mass[0]), n_dims=d)
    core = inverse_square(line)
    radial: dict[int, LineStates] = {}

    def solve(l: int, k: int) -> LineStates:  # noqa: E741  the name used in every textbook
        request.limits.say(f"radial equation, l = {l}")
        try:
            return solve_line(_with_core(line, l, core), k, request.tolerance or 1e-8, request.limits)
        except OutOfTime as error:
            raise OutOfTime(str(error), partial=_spectrum(radial, d, wanted) if radial else None) from None

    few = min(wanted, FEW)
    for l in range(0, 2 if d == 1 else 10_000, 2 if parity == "even" else 1):  # noqa: E741
        try:
            radial[l] = solve(l, few)
        except NotConverged:
            raise
        except FkdriftError:
            if not radial:
                raise
            break
        if radial[l].energies[0] >= _highest(radial, d, wanted):  # a higher l has higher levels still
            break
    for l, states in radial.items():  # noqa: E741
        k = few
        while len(states.energies) == k < wanted and states.energies[-1] < _highest(radial, d, wanted):
            states = radial[l] = solve(l, k := min(2 * k, wanted))
    return _spectrum(radial, d, wanted)


def _rows(radial: dict[int, LineStates], d: int) -> list[tuple[float, float, int, int]]:
    """E, its error, k and l of every state, lowest first."""
    rows = [
        (float(E), float(e), k, l)
        for l, states in radial.items()  # noqa: E741
        for k, (E, e) in enumerate(zip(states.energies, states.errors, strict=True))
    ]
    return [row for row in sorted(rows) for _ in range(_states(row[3], d))]


def _highest(radial: dict[int, LineStates], d: int, wanted: int) -> float:
    """The last level that is wanted, as far as it is known."""
    rows = _rows(radial, d)
    return rows[wanted - 1][0] if len(rows) >= wanted else np.inf


def _with_core(line: Coordinate, l: int, core: float | None) -> Coordinate:  # noqa: E741  the name used in every textbook
    """The radial equation of one l; with c/(2 m r^2) < 0 in V, that for u = r^-s R, s(s+d-2) = l(l+d-2) + c."""
    if core is None or core > -CORE_SEEN:
        return replace(line, momentum=l)
    assert line.n_dims is not None
    half = (line.n_dims - 2) / 2
    return replace(line, momentum=l, core=core, power=math.sqrt(max((l + half) ** 2 + core, 0.0)) - half)


def _spectrum(radial: dict[int, LineStates], d: int, wanted: int) -> Spectrum:
    """The levels of all l in one list."""
    rows, lowest = _rows(radial, d)[:wanted], next(iter(radial.values()))
    r = np.linspace(0, _extent(lowest), 801)
    area = 2 * math.pi ** (d / 2) / math.gamma(d / 2)

    def ground(x: Array) -> Array:
        return lowest.log_psi(np.linalg.norm(x, axis=1)) - 0.5 * math.log(area)

    return Spectrum(
        energies=np.array([row[0] for row in rows]),
        errors=np.array([row[1] for row in rows]),
        method=f"radial equation in {d} dimension{'s'[: d - 1]} for each l, polynomial elements, two grids",
        labels=tuple(f"l={row[3]} k={row[2]}" for row in rows),
        box=((float(lowest.edges[0]), float(lowest.edges[-1])),),
        points=(16 * (len(lowest.edges) - 1),),
        threshold=lowest.threshold,
        axes=(r,),
        wavefunctions=np.stack([radial[row[3]].wavefunctions(r)[row[2]] for row in rows]),
        notes=lowest.notes,
        ground=ground,
    )


def _states(l: int, d: int) -> int:  # noqa: E741  the name used in every textbook
    """Number of spherical harmonics of degree l in d dimensions."""
    if d == 1 or l == 0:
        return 1
    return (2 * l + d - 2) * math.comb(l + d - 3, l) // (d - 2) if d > 2 else 2


def _extent(states: LineStates) -> float:
    """The distance beyond which every wavefunction is below 1e-6 of its maximum."""
    r = np.unique(
        np.concatenate([np.linspace(a, b, 9) for a, b in zip(states.edges[:-1], states.edges[1:], strict=True)])
    )
    psi = np.abs(states.wavefunctions(r))
    return float(r[(psi > 1e-6 * psi.max(1, keepdims=True)).any(0)].max())
