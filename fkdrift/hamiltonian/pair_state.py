"""The two-body problem of a pair potential v(r), as the logarithm of a pair function f(r) with exact derivatives.

    -(1 / 2 mu) ( f'' + (d - 1) f' / r ) + v f = e f,        mu = m_1 m_2 / (m_1 + m_2)

    bound       e the lowest level of the pair; f falls like exp(-kappa r) / r^((d-1)/2)
    scattering  e = 0, where no level is below what v is far away; f goes to a constant
    healing     e such that f'(d) = 0 at a distance d, and f constant beyond: the lowest-order constrained choice

In a trial function prod_{i<j} f(r_ij) such an f removes v, and whatever core it has, from the local energy: what is
left of a pair is the number e.

Reference: V. R. Pandharipande and H. A. Bethe, Phys. Rev. C 7, 1312 (1973), on the healing distance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fkdrift.errors import InputError, Unbound
from fkdrift.hamiltonian import bound_state
from fkdrift.hamiltonian.bound_state import BoundState, Equation, RadialMesh
from fkdrift.hamiltonian.minima import bounded
from fkdrift.hamiltonian.potential import Potential
from fkdrift.hamiltonian.preparation import prepare
from fkdrift.hamiltonian.tabulated import Central, Profile
from fkdrift.hamiltonian.trial_function import Radial
from fkdrift.numerics.geometry import distance
from fkdrift.tensor_types import PerWalker, Positions

Array = NDArray[np.float64]
PairFunction = Callable[[Tensor], Tensor]
"""v(r), of distances of any shape."""

N_SCAN = 4000  # distances at which v is looked at
FARTHEST = 1e3  # of a scattering state, in units of the distance where v is lowest
SHIFTS = 60  # bisections for the energy of a healing state


@dataclass(frozen=True)
class Tabulated(Radial):
    """log f from a table in log r; beyond it a straight line in log r, or a parabola that falls."""

    profile: Profile

    def __call__(self, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = d.double()
        w, slope, curvature = self.profile(x.log())
        slope, curvature = slope / x, (curvature - slope) / x.square()
        return w.to(d.dtype), slope.to(d.dtype), curvature.to(d.dtype)

    @property
    def nearest(self) -> float:
        """The smallest distance of the table."""
        return float(self.profile.knots[0].exp())


@dataclass(frozen=True)
class PairState:
    """The state of one pair.

    Args:
        radial: log f.
        energy: e.
        bound: whether e is a level below what v is far away.
        minimum: where v is lowest.
        rate: of a bound state, as in `Preparation`; 0 for others.
    """

    radial: Tabulated
    energy: float
    bound: bool
    minimum: float
    rate: float = 0.0


@dataclass(frozen=True)
class _One(Potential):
    """v(|x|) of one particle with the reduced mass."""

    v: PairFunction
    reduced_mass: float
    n_dims: int = 3
    label: str = "the pair potential"

    def __call__(self, r: Positions) -> PerWalker:
        return self.v(distance(r[:, 0]))

    @property
    def name(self) -> str:
        return self.label

    @property
    def mass(self) -> tuple[float, ...]:
        return (self.reduced_mass,)


def pair_state(v: PairFunction, reduced_mass: float, n_dims: int, name: str) -> PairState:
    """The bound state of a pair, or the scattering state at e = 0 where there is none."""
    minimum = lowest_distance(v)
    try:
        found = prepare(_One(v, reduced_mass, n_dims, name))
    except Unbound:
        return PairState(Tabulated(_scattering(v, reduced_mass, n_dims, minimum)), 0.0, False, minimum)
    table = found.table
    if not isinstance(table, Central):
        raise InputError(f"{name} does not depend on the distance alone, or has one dimension")
    return PairState(Tabulated(table.profile), found.energy, True, minimum, found.rate)


def healing_state(v: PairFunction, reduced_mass: float, distance: float, name: str) -> PairState:
    """The state in three dimensions whose f has no slope at `distance` and no node before it.

    Args:
        v: the pair potential.
        reduced_mass: mu.
        distance: d, the healing distance.
        name: for messages.
    """
    equation = Equation(_capped(v), reduced_mass, 3)
    t = _points(equation, np.log(distance))

    def state(E: float) -> Callable[[RadialMesh], BoundState]:
        return lambda mesh: _followed(mesh, E)

    mesh = RadialMesh(equation, t)
    low = float(mesh.equation.V(np.exp(t)).min())
    high = 20 / (2 * reduced_mass * distance**2)
    while _slope_at_end(mesh, high) > 0:
        high += abs(high) + 1 / (2 * reduced_mass * distance**2)
    for _ in range(SHIFTS):
        middle = (low + high) / 2
        low, high = (middle, high) if _slope_at_end(mesh, middle) > 0 else (low, middle)
    found = bound_state.refined(equation, t, state(low))
    log_f = _without_factor(found, 3)
    profile = Profile(
        log_f.t,
        bound_state.coefficients(log_f),
        (log_f.log_chi[0], log_f.slope[0], 0.0),
        (log_f.log_chi[-1], 0.0, 0.0),
    )
    return PairState(Tabulated(profile), low, False, lowest_distance(v))


def lowest_distance(v: PairFunction) -> float:
    """Where v is lowest; 0 where that is at contact, infinity where it is far away."""
    d = np.geomspace(1e-4, 1e4, N_SCAN)
    values = _capped(v)(d)
    k = int(np.argmin(values))
    return 0.0 if k == 0 else np.inf if k == N_SCAN - 1 else float(d[k])


def _capped(v: PairFunction) -> Callable[[Array], Array]:
    def V(d: Array) -> Array:
        with torch.no_grad(), np.errstate(all="ignore"):
            values = v(torch.from_numpy(np.ascontiguousarray(d))).double().numpy()
        return bounded(values)

    return V


def _points(equation: Equation, last: float) -> Array:
    """First points in t = log r, from `DEPTH` exponents of e inside of the core to `last`."""
    t = np.linspace(last - np.log(1e6), last, N_SCAN)
    decay = np.sqrt(np.maximum(equation.terms(t)[0] - 1, 0.0))
    deep = np.cumsum((decay * (t[1] - t[0]))[::-1])[::-1]
    t = t[deep < bound_state.DEPTH]
    return np.linspace(t[0], last, 800)


def _followed(mesh: RadialMesh, E: float) -> BoundState:
    """The state at an energy E that is regular at the first point, followed outwards."""
    slope, _ = mesh.slopes(E)
    return bound_state.with_slopes(mesh, slope, E)


def _slope_at_end(mesh: RadialMesh, E: float) -> float:
    """d log f / dt at the last point; negative infinity where f has a node before."""
    elements = mesh.elements(E)
    if elements.has_node:
        return -np.inf
    q, _ = mesh.ends(E)
    for a, b, c, d in zip(elements.a, elements.b, elements.c, elements.d, strict=True):
        pivot = a + b * q
        if pivot <= 0:
            return -np.inf
        q = (c + d * q) / pivot
    return float(q) - 0.5


def _scattering(v: PairFunction, reduced_mass: float, n_dims: int, minimum: float) -> Profile:
    """log f at e = 0, without a node: there is no level below."""
    scale = minimum if 0 < minimum < np.inf else 1.0
    equation = Equation(_capped(v), reduced_mass, n_dims)
    t = _points(equation, np.log(FARTHEST * scale))
    found = _without_factor(bound_state.refined(equation, t, lambda mesh: _followed(mesh, 0.0)), n_dims)
    before = (found.log_chi[0], found.slope[0], 0.0)
    return Profile(
        found.t, bound_state.coefficients(found), before, (found.log_chi[-1], max(found.slope[-1], 0.0), 0.0)
    )


def _without_factor(state: BoundState, n_dims: int) -> BoundState:
    """log f from log chi, f = exp(-(d - 2) t / 2) chi; 0 at the last point."""
    half = (n_dims - 2) / 2
    log_f = state.log_chi - half * state.t
    return BoundState(state.t, state.slope - half, state.curvature, log_f - log_f[-1], state.energy)
