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

CORE_SEEN = 1e-6  # attraction c/(2 m r^2) weaker than this is left to the elements


def central_potential(V: Landscape, request: SpectrumRequest, parity: Literal["any", "even"] = "any") -> Spectrum:
    """One particle whose V depends on the distance from the origin: a radial equation for each l.

    A level with angular momentum l in d dimensions stands for (2l + d - 2)(l + d - 3)!/(l! (d - 2)!) states.
    """
    d, wanted = V.size, request.levels
    direction = np.full(d, d**-0.5)
    line = Coordinate(lambda r: V.V(r[:, None] * direction), float(V.mass[0]), n_dims=d)
    core = inverse_square(line)
    found: list[tuple[float, float, int, int]] = []
    lowest: LineStates | None = None
    radial: dict[int, LineStates] = {}
    step = 2 if parity == "even" else 1
    for l in range(0, 2 if d == 1 else 10_000, step):  # noqa: E741  the name used in every textbook
        known = sorted(E for E, _, k, l_ in found for _ in range(_states(l_, d)))
        limit = known[wanted - 1] if len(known) >= wanted else np.inf
        request.limits.say(f"radial equation, l = {l}")
        try:
            states = _radial_levels(_with_core(line, l, core), wanted, limit, request)
        except FkdriftError as error:
            if lowest is None or (isinstance(error, NotConverged) and not isinstance(error, OutOfTime)):
                raise
            if isinstance(error, OutOfTime):
                raise OutOfTime(str(error), partial=_spectrum(found, lowest, radial, d, wanted)) from None
            break
        lowest, radial[l] = lowest or states, states
        found += [
            (float(E), float(e), k, l) for k, (E, e) in enumerate(zip(states.energies, states.errors, strict=True))
        ]
        known = sorted(E for E, _, _, l_ in found for _ in range(_states(l_, d)))
        if len(known) >= wanted and states.energies[0] >= known[wanted - 1]:  # a higher l has higher levels still
            break
    assert lowest is not None
    return _spectrum(found, lowest, radial, d, wanted)


def _with_core(line: Coordinate, l: int, core: float | None) -> Coordinate:  # noqa: E741  the name used in every textbook
    """The radial equation of one l; with c/(2 m r^2) < 0 in V, that for u = r^-s R, s(s+d-2) = l(l+d-2) + c."""
    if core is None or core > -CORE_SEEN:
        return replace(line, momentum=l)
    assert line.n_dims is not None
    half = (line.n_dims - 2) / 2
    return replace(line, momentum=l, core=core, power=math.sqrt(max((l + half) ** 2 + core, 0.0)) - half)


def _spectrum(
    found: list[tuple[float, float, int, int]], lowest: LineStates, radial: dict[int, LineStates], d: int, wanted: int
) -> Spectrum:
    """The levels of all l in one list."""
    rows = [row for row in sorted(found) for _ in range(_states(row[3], d))][:wanted]
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


def _radial_levels(line: Coordinate, wanted: int, limit: float, request: SpectrumRequest) -> LineStates:
    """Levels of one angular momentum: enough of them to pass `limit`, at most `wanted`."""
    k = min(wanted, 3)
    while True:
        states = solve_line(line, k, request.tolerance or 1e-8, request.limits)
        if k >= wanted or len(states.energies) < k or states.energies[-1] > limit:
            return states
        k = min(2 * k, wanted)


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
