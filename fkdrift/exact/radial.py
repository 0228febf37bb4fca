"""One particle in a central potential: a radial equation for each angular momentum l.

    -(1/2m) r^(1-d) (r^(d-1) R')' + [ l(l + d - 2)/(2 m r^2) + V(r) ] R = E R,      psi = R(r) Y_l

A level of angular momentum l in d dimensions stands for (2l + d - 2)(l + d - 3)!/(l! (d - 2)!) states; in one dimension
l = 0 are the even states and l = 1 the odd ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fkdrift.errors import FkdriftError, NotConverged
from fkdrift.exact.one_coordinate import States, solve_line
from fkdrift.exact.potential_scan import Coordinate
from fkdrift.exact.separability import Landscape
from fkdrift.exact.spectrum import Array, Spectrum


@dataclass(frozen=True)
class Settings:
    """How accurately, and with how much memory."""

    levels: int
    tolerance: float | None
    points: int | None
    max_memory_gib: float
    max_seconds: float


def central_potential(V: Landscape, settings: Settings, parity: Literal["any", "even"] = "any") -> Spectrum:
    """One particle whose V depends on the distance from the origin: a radial equation for each l.

    A level with angular momentum l in d dimensions stands for (2l + d - 2)(l + d - 3)!/(l! (d - 2)!) states.
    """
    d, wanted = V.size, settings.levels
    direction = np.full(d, d**-0.5)
    line = Coordinate(lambda r: V.V(r[:, None] * direction), float(V.mass[0]), n_dims=d)
    found: list[tuple[float, float, int, int]] = []
    lowest: States | None = None
    radial: dict[int, States] = {}
    step = 2 if parity == "even" else 1
    for l in range(0, 2 if d == 1 else 10_000, step):  # noqa: E741  the name used in every textbook
        known = sorted(E for E, _, k, l_ in found for _ in range(_states(l_, d)))
        limit = known[wanted - 1] if len(known) >= wanted else np.inf
        try:
            states = _radial_levels(replace(line, momentum=l), wanted, limit, settings.tolerance or 1e-8)
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
        assert lowest is not None
        assert lowest.tail is not None
        return lowest.tail.log_psi(np.linalg.norm(x, axis=1)) - 0.5 * math.log(area)

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
        ground=ground,
    )


def _radial_levels(line: Coordinate, wanted: int, limit: float, tolerance: float) -> States:
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
