"""The trial function of particles that act on each other in pairs: the two-body problem in every pair.

    W = sum_{i<j} [ log f(r_ij) + p log(1 + r_ij^2 / s^2) - a (sqrt(r_ij^2 + s^2) - s) ],    p = (1 - 1 / (N - 1)) / 2

f solves the pair equation (pair_state.py), so that v, and whatever core it has, is not in the local energy any more:

    E_W = sum_{i<j} e(r_ij) - sum_i sigma_i^2 sum_{j<k} g_ij g_ik cos(theta_jik) + V - sum_{i<j} v(r_ij),

with g the slope of a pair's term and e(r) its own energy, e without the tails. Of the two tails the first takes back
what N - 1 factors 1 / r have too much for one particle that is far away, and the second, whose a is chosen by energy,
lets the density fall faster than that of pairs; s is 1.7 times the distance where v is lowest. What three particles do
is left to the network.

In a box f heals at a distance of at most half a period, chosen by energy, and there are no tails; a trial function
that the potential brings is taken as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fkdrift.errors import Unbound
from fkdrift.hamiltonian.pair_state import PairFunction, PairState, healing_state, pair_state
from fkdrift.hamiltonian.pair_values import PairValues
from fkdrift.hamiltonian.potential import Potential
from fkdrift.hamiltonian.preparation import Preparation
from fkdrift.hamiltonian.three_body import with_three_body
from fkdrift.hamiltonian.trial_function import Among, Pair, Radial, Term, TrialFunction, random_walk, reference_energy
from fkdrift.numerics.geometry import distance, nearest_image, pair_vectors
from fkdrift.tensor_types import PerWalker, Positions

Array = NDArray[np.float64]

FAR = 1e7  # distance at which two particles are alone
SAME = 1e-8  # relative difference of V and the sum over pairs that counts as rounding
TAIL_CORE = 1.7  # s, in units of the distance where v is lowest
CLOSEST = 0.8  # distance of two particles to start with, in the same unit
SPACING = 0.9  # radius of the ball they start in, in units of that distance and N^(1/3)
DECAYS = (0.0, 0.02, 0.04, 0.07, 0.11, 0.16, 0.23, 0.33, 0.5)  # a, in units of 1 / s, to choose from
HEALING = (0.5, 0.7, 1.0)  # healing distances, in units of half a period, to choose from
N_WALKERS, N_LEAST, PAIRS_AT_FULL_COST = 768, 128, 12  # positions by which energies are compared, fewer for many pairs
N_FIRST, N_STEPS = 300, 100  # steps to them, for the first candidate and for each that follows
MOST_CORRELATED = 64  # particles with a term of three: fitting one to more of them takes many minutes
N_APART = 100  # steps between positions that are drawn


@dataclass(frozen=True)
class Sum(Radial):
    """A sum of radial functions."""

    parts: tuple[Radial, ...]

    def __call__(self, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        w, slope, curvature = zip(*(part(d) for part in self.parts), strict=True)
        return sum(w), sum(slope), sum(curvature)


@dataclass(frozen=True)
class PairTail(Radial):
    """w = power log(1 + d^2 / core^2) - decay (sqrt(d^2 + core^2) - core)."""

    power: float
    decay: float
    core: float

    def __call__(self, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        square = d.square() + self.core**2
        root = square.sqrt()
        w = self.power * (square / self.core**2).log() - self.decay * (root - self.core)
        slope = d * (2 * self.power / square - self.decay / root)
        curvature = 2 * self.power * (self.core**2 - d.square()) / square.square()
        return w, slope, curvature - self.decay * self.core**2 / (square * root)


@dataclass(frozen=True, eq=False)
class PairTable:
    """Where a sum over pairs is tabulated: no pair is nearer than its table begins.

    Args:
        nearest: (pair,) smallest distances.
        box: period along each dimension, or None.
    """

    nearest: Tensor
    box: tuple[float, ...] | None

    def covers(self, r: Positions) -> Tensor:
        d = distance(nearest_image(pair_vectors(r.double()), self.box))
        return (d >= self.nearest.to(d.device)).all(-1)


def pair_functions(potential: Potential) -> list[PairFunction] | None:
    """v_ij of every pair i < j if V is the sum of them, as declared or as the values of V show; else None.

    Two particles are looked at with all others at 1e7 from them and from each other.
    """
    pairs = list(combinations(range(potential.n_particles), 2))
    if potential.pair_potential is not None:
        return [potential.pair_potential] * len(pairs)
    if potential.box is not None:
        return None
    functions = _by_kind(potential, pairs, lambda i, j: partial(_alone, potential, i, j))
    rng = np.random.default_rng(41)
    size = np.resize([1.0, 3.0, 10.0], 48)[:, None, None]
    r = torch.from_numpy(size * rng.normal(size=(48, potential.n_particles, potential.n_dims)))
    with torch.no_grad():
        d = distance(pair_vectors(r)).double()
        each = torch.stack([v(d[:, k]) for k, v in enumerate(functions)], 1)
        V = potential(r).double()
    known = V.isfinite() & each.isfinite().all(1)
    close = (V - each.sum(1)).abs() <= SAME * each.abs().sum(1)
    if 2 * int(known.sum()) <= len(V) or not bool(close[known].all()):
        return None
    functions = _alike(functions, d[:, 0])
    if not potential.values_only:
        return functions
    tables = {v: _tabulated(v) for v in dict.fromkeys(functions)}
    return [tables[v] for v in functions]


def _tabulated(v: PairFunction) -> PairFunction:
    table = PairValues(lambda d: v(torch.from_numpy(d)).numpy())
    return lambda d: torch.from_numpy(table(d.detach().double().cpu().numpy())).to(d)


def _alike(functions: list[PairFunction], d: Tensor) -> list[PairFunction]:
    """The same functions, with one for all those that have equal values at distances d."""
    kept: dict[PairFunction, Tensor] = {}
    found = []
    for v in functions:
        values = kept[v] if v in kept else v(d).nan_to_num()
        rounding = SAME * (values.abs() + values.abs().median())
        found.append(next((u for u, known in kept.items() if bool(((known - values).abs() <= rounding).all())), v))
        kept.setdefault(found[-1], values)
    return found


def _by_kind(potential: Potential, pairs: list[tuple[int, int]], make: Callable[[int, int], PairFunction]) -> list:
    """One function for each kind of pair, made from its first pair."""
    group = {i: g for g, members in enumerate(potential.groups) for i in members}
    made: dict[tuple[int, ...], PairFunction] = {}
    return [made.setdefault(tuple(sorted((group[i], group[j]))), make(i, j)) for i, j in pairs]


def _alone(potential: Potential, i: int, j: int, d: Tensor) -> Tensor:
    """V of particles i and j at distances d, all others far away, less what it is with these two apart as well."""
    n, dim = potential.n_particles, potential.n_dims
    x = torch.zeros(n, dim, dtype=torch.float64, device=d.device)
    x[:, 0] = FAR * (1 + torch.arange(n, device=d.device)) ** 2
    apart = potential(x[None])
    r = x.expand(d.numel(), n, dim).clone()
    r[:, j] = r[:, i]
    r[:, j, dim - 1] += d.double().flatten()
    return (potential(r) - apart).reshape(d.shape).to(d.dtype)


def prepare_pairs(potential: Potential, functions: list[PairFunction]) -> Preparation:
    """The trial function of a potential that is a sum over pairs, given those of `pair_functions`.

    Raises:
        Unbound: no energy below that of particles apart was found for particles of which no pair is bound.
    """
    kinds = _Kinds(potential, functions)
    candidates = kinds.in_box() if potential.box is not None else kinds.in_space()
    k, generator = len(candidates) // 2, torch.Generator().manual_seed(43)
    n_walkers = max(N_LEAST, N_WALKERS * PAIRS_AT_FULL_COST // max(PAIRS_AT_FULL_COST, len(kinds.pairs)))
    r = random_walk(candidates[k], kinds.packed(n_walkers, generator), N_FIRST, generator)
    for _ in candidates:
        before, k = k, kinds.best(candidates, k, r)
        if k == before:
            break
        r = random_walk(candidates[k], r, N_STEPS, generator)
    held = potential.box is not None or any(state.bound for state in kinds.states.values())
    if not held and k == 0:  # without a tail these functions do not end
        raise _unbound(potential, "and a trial function of all has the less energy the further it reaches")
    W = candidates[k]
    few = 2 < potential.n_particles <= MOST_CORRELATED
    if few and len(kinds.states) == 1 and potential.trial_function is None:
        W, r = with_three_body(potential, W, r, generator)
    E = float(kinds.energies(W, r).mean())
    V = float(potential(r).mean())
    if not held and not V < E < 0:
        raise _unbound(potential, f"and in the best trial function they drift apart, with V = {V:.2g} and E = {E:.2g}")
    return _preparation(kinds, W, E, r)


def _unbound(potential: Potential, why: str) -> Unbound:
    pairs = "no two of its particles hold each other"
    return Unbound(f"{potential.name} has no bound state that could be found: {pairs}, {why}")


def _preparation(kinds: _Kinds, W: TrialFunction, energy: float, r: Tensor) -> Preparation:
    """What follows from a trial function and positions (walker, particle, dim) that are drawn from it."""
    potential = kinds.potential
    mass = torch.tensor(potential.mass, dtype=torch.float64)
    table = PairTable(kinds.nearest, potential.box)

    def resting(x: Tensor) -> Tensor:
        if potential.box is not None:
            return x
        return x - (mass[:, None] * x).sum(-2, keepdim=True) / mass.sum()

    def draw(count: int, rng: np.random.Generator) -> Array:
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        start = r[torch.from_numpy(rng.integers(len(r), size=count))]
        drawn: Array = resting(random_walk(W, start, N_APART, generator)).numpy()
        return drawn

    x = resting(r)
    width = np.empty((potential.n_particles, potential.n_dims))
    for members in map(list, potential.groups):
        width[members] = float(x[:, members].square().mean()) ** 0.5
    stiffest = float((-W.derivatives(r).laplacian.mean(0) / mass).max()) / potential.n_dims
    rate = max(stiffest, *(state.rate for state in kinds.states.values()))
    return Preparation(W, np.zeros_like(width), width, rate, draw, table, energy)


class _Kinds:
    """The pairs of a potential by kind, each with its two-body problem."""

    def __init__(self, potential: Potential, functions: list[PairFunction]) -> None:
        self.potential, self.functions = potential, functions
        self.pairs = list(combinations(range(potential.n_particles), 2))
        m = potential.mass
        self.reduced = [m[i] * m[j] / (m[i] + m[j]) for i, j in self.pairs]
        self.keys = list(zip(functions, self.reduced, strict=True))
        limit = None if potential.box is None else min(potential.box) / 2
        self.states: dict[tuple[PairFunction, float], PairState] = {}
        for key in dict.fromkeys(self.keys):
            self.states[key] = (
                pair_state(*key, potential.n_dims, potential.name)
                if limit is None
                else healing_state(*key, limit, potential.name)
            )
        minima = [state.minimum for state in self.states.values()]
        known = [each for each in minima if 0 < each < np.inf]
        self.scale = max(known) if known else 1.0
        self.nearest = torch.tensor([self.states[key].radial.nearest for key in self.keys], dtype=torch.float64)

    def in_space(self) -> list[TrialFunction]:
        """Candidates that differ in the decay of their tails."""
        n = self.potential.n_particles
        power, core = (1 - 1 / (n - 1)) / 2, TAIL_CORE * self.scale
        return [
            self._trial_function(
                {key: Sum((s.radial, PairTail(power, decay / core, core))) for key, s in self.states.items()}
            )
            for decay in DECAYS
        ]

    def in_box(self) -> list[TrialFunction]:
        """Candidates that differ in their healing distance."""
        assert self.potential.box is not None
        limit, name = min(self.potential.box) / 2, self.potential.name
        if self.potential.trial_function is not None:
            return [self.potential.trial_function]
        return [
            self._trial_function({key: healing_state(*key, share * limit, name).radial for key in self.states})
            for share in HEALING
        ]

    def _trial_function(self, radial: dict[tuple[PairFunction, float], Radial]) -> TrialFunction:
        box = self.potential.box
        if len(radial) == 1:
            return TrialFunction((Pair(next(iter(radial.values())), box),))
        terms: list[Term] = [
            Among(Pair(radial[key], box), pair) for key, pair in zip(self.keys, self.pairs, strict=True)
        ]
        return TrialFunction(tuple(terms))

    def best(self, candidates: list[TrialFunction], k: int, r: Positions) -> int:
        """Which of the k-th candidate and those next to it has the lowest mean of E_W, r being drawn from the k-th."""
        W = candidates[k](r)
        near = range(max(0, k - 1), min(len(candidates), k + 2))
        weights = [(2 * (candidates[j](r) - W)).softmax(0) for j in near]
        energies = [(w * self.energies(candidates[j], r)).sum() for j, w in zip(near, weights, strict=True)]
        return near[int(torch.stack(energies).argmin())]

    def energies(self, W: TrialFunction, r: Positions) -> PerWalker:
        """E_W at r."""
        variance = 1 / torch.tensor(self.potential.mass, dtype=torch.float64)
        return reference_energy(self.potential(r), W.derivatives(r), variance)

    def packed(self, n_walkers: int, generator: torch.Generator) -> Positions:
        """Random positions, compact and with no two particles on top of each other."""
        n, dim, box = self.potential.n_particles, self.potential.n_dims, self.potential.box
        nearest = torch.zeros(n, n, dtype=torch.float64)
        for (i, j), key in zip(self.pairs, self.keys, strict=True):
            minimum = self.states[key].minimum
            nearest[i, j] = nearest[j, i] = CLOSEST * minimum if 0 < minimum < np.inf else 0.0
        radius = SPACING * self.scale * CLOSEST * n ** (1 / 3)

        def anywhere(count: int) -> Tensor:
            if box is not None:
                return torch.rand(count, dim, generator=generator, dtype=torch.float64) * torch.tensor(box)
            u = torch.randn(count, dim, generator=generator, dtype=torch.float64)
            share = torch.rand(count, 1, generator=generator, dtype=torch.float64) ** (1 / dim)
            return radius * share * u / u.norm(dim=-1, keepdim=True)

        r = torch.zeros(n_walkers, n, dim, dtype=torch.float64)
        for k in range(n):
            waiting, reach = torch.arange(n_walkers), 1.0
            while len(waiting):
                place = anywhere(len(waiting))
                d = distance(nearest_image(place[:, None] - r[waiting, :k], box))
                good = (d >= reach * nearest[k, :k]).all(-1)
                r[waiting[good], k] = place[good]
                waiting, reach = waiting[~good], reach * 0.999
        return r
