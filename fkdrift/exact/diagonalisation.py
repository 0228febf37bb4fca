"""Energy levels from the Schroedinger equation itself, with numpy and scipy only: the check on everything stochastic.

    H psi = E psi,      H = sum_i p_i^2/(2 m_i) + V(r),      hbar = 1

`diagonalise` looks at V by evaluating it and takes the first method that covers it:

1. one coordinate: elements of polynomials on a line (line.py), or plane waves on a ring (product.py);
2. V that is a sum over particles: levels add up, bosons filling them in all ways;
3. two particles whose V = V_c(centre of mass) + V_r(distance): two problems of one particle;
4. one particle in a central potential: a radial equation for each angular momentum;
5. V that is a sum over groups of coordinates: levels add up;
6. V that is a quadratic form: normal modes (normal_modes.py);
7. up to five coordinates with a smooth V: a product of grids (product.py).

Of a free system, whose V does not change when all particles move together, the levels are those of the relative motion:
of two particles, or of three in three dimensions at angular momentum zero (three_particles.py).

Where particles are identical, the levels are those of the states that are symmetric under exchange.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from fkdrift.errors import BadParameter, FkdriftError, NoExactSolution
from fkdrift.exact.limits import Limits, OnMessage
from fkdrift.exact.normal_modes import normal_modes, quadratic
from fkdrift.exact.product_grid import LARGEST, refuse_singular_point
from fkdrift.exact.radial import central_potential
from fkdrift.exact.separability import (
    Landscape,
    central,
    centre_and_relative,
    components,
    landscape,
    lowest_point,
    meets_singularity,
)
from fkdrift.exact.separable import (
    independent_coordinates,
    independent_particles,
    product_grid,
    relative_motion,
    single_part,
    two_particles,
)
from fkdrift.exact.spectrum import Spectrum, SpectrumRequest
from fkdrift.exact.three_particles import three_particles, turns
from fkdrift.hamiltonian.potential import Potential, moves_freely, require

Walls = Sequence[float] | Sequence[tuple[float, float]]
MOST_COORDINATES = 10_000
"""Whose couplings can be looked for in minutes."""
SYMMETRIC = "symmetric under exchange of identical particles"


def diagonalise(
    potential: Potential,
    levels: int = 5,
    *,
    box: Walls | None = None,
    points: int | None = None,
    tolerance: float | None = None,
    max_memory_gib: float = 2.0,
    max_seconds: float = 60.0,
    progress: OnMessage | None = None,
) -> Spectrum:
    """Solve H psi_n = E_n psi_n, H = sum_i p_i^2/(2 m_i) + V(r), for the lowest bound levels.

    Args:
        potential: V(r) with its masses, period, domain and groups of identical particles.
        levels: how many states, a degenerate level counting as many times as it has states.
        box: (low, high) for every coordinate, or one such pair for each: hard walls there.  By default the box is
            chosen so that its ends do not matter, or at the ends of a table's range.
        points: grid points for each coordinate of a product grid or ring; by default as many as the tolerance needs.
        tolerance: largest allowed estimated error of a level, relative to its height above the minimum of V; by default
            1e-8, and 1e-6 on grids of four and five dimensions.
        max_memory_gib: most memory for a product grid, GiB.
        max_seconds: wall-clock time after which the calculation stops, s; no grid is started that would take longer.
        progress: called with a line of text at every new stage.

    Returns:
        Spectrum: energies, estimated errors, the method in words, the ground state.  Fewer levels than asked for
        where fewer are bound.

    Raises:
        NoExactSolution: no method covers this V (the message says why); raised within a second.
        Unbound: V has no bound state; Metastable where only a barrier holds the particle.
        TooLarge: the grid would need more than max_memory_gib.
        OutOfTime: max_seconds have passed; `partial` is the Spectrum reached, or None.
        NotConverged: the error stayed above the tolerance; `partial` is the Spectrum reached, or None.
        BadParameter: an argument is out of range, or V is NaN where the particles are.

    Example:
        >>> from fkdrift.hamiltonian.potential import FunctionPotential
        >>> spectrum = diagonalise(FunctionPotential(lambda r: r.square().sum((1, 2)) / 2), levels=3)
        >>> [round(float(E), 10) for E in spectrum.energies]
        [0.5, 1.5, 2.5]
    """
    _check(potential, levels, points, tolerance, max_memory_gib, max_seconds)
    if (n := potential.n_particles * potential.n_dims) > MOST_COORDINATES:
        raise NoExactSolution(f"no exact method for {n:,} coordinates, which are more than {MOST_COORDINATES:,}")
    limits = Limits(max_seconds, max_memory_gib, progress)
    limits.say(f"looking at {potential.name}")
    V = landscape(potential, _walls(potential, box), limits)
    plan = _plan(potential, V)
    spectrum = plan(SpectrumRequest(levels, tolerance, points, limits))
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
        >>> from fkdrift.hamiltonian.potential import FunctionPotential
        >>> has_exact(FunctionPotential(lambda r: r.square().sum((1, 2)), n_particles=10, n_dims=3))
        True
    """
    try:
        _plan(potential, landscape(potential))
    except FkdriftError:
        return False
    return True


# -- the choice --------------------------------------------------------------------------------------------------------

Plan = Callable[[SpectrumRequest], Spectrum]


def _plan(potential: Potential, V: Landscape) -> Plan:
    """The method for this potential; NoExactSolution if there is none."""
    if moves_freely(potential) and potential.box is None:
        return _free_plan(potential, V)
    if V.size == 1 or (potential.n_particles == 1 and V.size <= 3 and central(V)):
        return lambda request: single_part(V, request)
    parts = components(V, largest=LARGEST)
    if parts is not None and all(len({V.particle[k] for k in part}) == 1 for part in parts):
        return lambda request: independent_particles(V, parts, request)
    if potential.n_particles == 2:
        split = centre_and_relative(V)
        if split is not None and central(split[1]):
            return lambda request: two_particles(V, *split, request)
    if potential.n_particles == 1 and central(V):
        return lambda request: central_potential(V, request)
    if parts is not None:
        return lambda request: independent_coordinates(V, parts, request)
    if quadratic(V):
        small = bool(V.alike) and V.size <= LARGEST  # a grid also finds the excited states of identical particles
        return lambda s: product_grid(V, s) if small and s.levels > 1 else normal_modes(V, s.levels)
    meeting = potential.coalescence or meets_singularity(V)
    if potential.nuclei or meeting:
        places = ["at nuclei"] * bool(potential.nuclei) + ["where particles meet"] * meeting
        where = " and ".join(places)
        raise NoExactSolution(
            f"no exact method for {potential.name}: V is singular {where}, and with its {V.size} degrees of freedom "
            "it is neither central nor a sum of centre of mass and distance; compare with known_energy instead"
        )
    if V.size > LARGEST:
        raise NoExactSolution(
            f"no exact method for {potential.name}: V couples its {V.size} degrees of freedom, and product grids reach "
            f"{LARGEST}; only sums of smaller independent parts go further"
        )
    if V.period is None:
        refuse_singular_point(V, lowest_point(V))
    return lambda request: product_grid(V, request)


def _free_plan(potential: Potential, V: Landscape) -> Plan:
    """The method for the relative motion of a free system."""
    if quadratic(V):
        return lambda request: normal_modes(V, request.levels, n_free=potential.n_dims)
    split = centre_and_relative(V) if potential.n_particles == 2 else None
    if split is not None and central(relative := split[1]):
        return lambda request: relative_motion(V, relative, request)
    if (potential.n_particles, potential.n_dims) == (3, 3) and turns(V):
        return lambda request: three_particles(V, request)
    raise NoExactSolution(
        f"no exact method for the relative motion of {potential.n_particles} free particles in {potential.name}: only "
        "two particles with a central V, three with a V of their distances, and quadratic forms are solved; compare "
        "with known_energy instead"
    )


# -- arguments ---------------------------------------------------------------------------------------------------------


def _check(
    potential: object,
    levels: int,
    points: int | None,
    tolerance: float | None,
    max_memory_gib: float,
    max_seconds: float,
) -> None:
    """Refuse arguments that cannot be meant."""
    if not isinstance(potential, Potential):
        raise BadParameter(
            f"potential is a {type(potential).__name__}; diagonalise takes a Potential: load_potential(...) gives one "
            "by name, FunctionPotential(...) wraps a callable"
        )
    require(isinstance(levels, int) and 1 <= levels <= 500, "levels", levels, "a whole number from 1 to 500")
    require(points is None or (isinstance(points, int) and points >= 4), "points", points, "None, or at least 4")
    require(tolerance is None or 1e-13 <= tolerance <= 0.1, "tolerance", tolerance, "between 1e-13 and 0.1")
    require(0 < max_memory_gib < math.inf, "max_memory_gib", max_memory_gib, "a positive number of GiB")
    require(max_seconds > 0, "max_seconds", max_seconds, "a positive number of seconds")


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
