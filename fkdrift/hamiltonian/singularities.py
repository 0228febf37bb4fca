"""Singular points of a potential found by evaluating it, and the trial function that removes them.

As a particle comes to a point, or two particles to each other, V goes like g / d^p. The power and the strength follow
from V at distances d, 2 d, 4 d, and with m the (reduced) mass the factor of phi_ref that cancels the divergence is

    p = 1   exp(s d / (1 + b d)),  s = 2 m g / (dim - 1)      Kato's cusp
    p = 2   d^alpha,  alpha (alpha + dim - 2) = 2 m g
    p > 2   exp(-a d^(1 - p / 2)),  a = sqrt(2 m g) / (p / 2 - 1)      a hard core

Attractive points of a single particle, the nuclei, are searched for from random positions downhill, and points that
repel it uphill. Which particles are identical, and whether V turns with all particles, is tried out too, so that a bare
function is used like a plug-in.
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

from fkdrift.hamiltonian.gaussian_trial_function import fit_gaussian
from fkdrift.hamiltonian.potential import FunctionPotential, Potential, moves_freely, values_at
from fkdrift.hamiltonian.trial_function import (
    Among,
    Cusp,
    Envelope,
    Gaussian,
    Logarithm,
    OneBody,
    Pair,
    Radial,
    Term,
    TrialFunction,
    random_walk,
    reference_energy,
)
from fkdrift.tensor_types import PerWalker, Positions

Array = NDArray[np.float64]

NEAR = 1e-4  # distance at which V is tried for a power law
SURE = 0.03  # how well the power must be the same in all directions
N_SEARCH, N_ROUNDS, N_ENDS = 384, 200, 48  # random searches for singular points, their steps, and ends looked at
SAME = 1e-5  # distance from a place with three decimals within which it is meant
WIDE = 30.0  # distance from the origin up to which points that repel are searched for
DEEP, HIGH = -1e3, 1e3  # V that a search must reach to have found a nucleus, or a point that repels
SOFT = 30.0  # V is cut off this far above its median for fitting a Gaussian beside hard cores
TAILS = (0.0, 0.2, 0.36, 0.5)  # share of a nuclear cusp's decay that a smooth tail takes back, to choose from
MAX_SEARCH = 40  # coordinates up to which nuclei are searched for
N_SAMPLES, N_STEPS = 1024, 300  # positions, and steps to them, by which trial functions are compared
SCREENINGS = (0.25, 0.5, 1.0, 2.0)  # of the pair cusps, in units of the largest cusp, to choose from


@dataclass(frozen=True)
class PowerLaw:
    """V = strength / d^power near a singular point."""

    strength: float
    power: float

    def factor(self, mass: float, dim: int, screening: float) -> Radial:
        """The function of the distance whose local energy cancels it."""
        if self.power < 1.5:
            return Cusp(2 * mass * self.strength / (dim - 1), screening)
        if self.power < 2.5:
            return Logarithm(1 - dim / 2 + ((1 - dim / 2) ** 2 + 2 * mass * self.strength) ** 0.5)
        exponent = self.power / 2 - 1
        return Core((2 * mass * self.strength) ** 0.5 / exponent, exponent)


@dataclass(frozen=True)
class Core(Radial):
    """w = -strength / d^exponent: phi_ref vanishes as two particles with a hard core meet."""

    strength: float
    exponent: float

    def __call__(self, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        w = -self.strength * d.pow(-self.exponent)
        slope = -self.exponent * w / d
        return w, slope, -(self.exponent + 1) * slope / d


@dataclass(frozen=True)
class Recognised(Potential):
    """A potential with what was found out about it: nuclei, coalescence, identical particles, a trial function."""

    potential: Potential
    found_nuclei: tuple[tuple[float, ...], ...]
    found_coalescence: bool
    found_groups: tuple[tuple[int, ...], ...]
    found_isotropic: bool
    found_free: bool = False
    found_trial_function: TrialFunction | None = None

    def __call__(self, r: Positions) -> PerWalker:
        return self.potential(r)

    @property
    def n_particles(self) -> int:  # type: ignore[override]
        return self.potential.n_particles

    @property
    def n_dims(self) -> int:  # type: ignore[override]
        return self.potential.n_dims

    @property
    def name(self) -> str:
        return self.potential.name

    @property
    def parameters(self) -> dict[str, object]:
        return self.potential.parameters

    @property
    def values_only(self) -> bool:  # type: ignore[override]
        return self.potential.values_only

    @property
    def mass(self) -> tuple[float, ...]:
        return self.potential.mass

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        return self.found_groups

    @property
    def isotropic(self) -> bool:
        return self.found_isotropic

    @property
    def free(self) -> bool:
        return self.found_free

    @property
    def nuclei(self) -> tuple[tuple[float, ...], ...]:
        return self.found_nuclei

    @property
    def coalescence(self) -> bool:
        return self.found_coalescence

    @property
    def trial_function(self) -> TrialFunction | None:
        return self.found_trial_function


def recognise(potential: Potential) -> Potential:
    """The potential with its singular points removed by a trial function; itself where it has none.

    Of one that turns out to be free, what is found is said, and its trial function is left to `prepare_free`.
    """
    if potential.free:
        return potential
    if moves_freely(potential):
        return _free(potential)
    bare = not (potential.nuclei or potential.coalescence) and potential.trial_function is None
    n, dim = potential.n_particles, potential.n_dims
    if not bare or potential.box is not None or potential.domain is not None or dim < 2:
        return potential
    V = partial(values_at, potential)
    rng = np.random.default_rng(17)
    pairs = {(i, j): _pair_law(V, potential, i, j, rng) for i, j in combinations(range(n), 2)}
    laws = {pair: law for pair, law in pairs.items() if law is not None}
    nuclei = _nuclei(V, potential, rng) if n * dim <= MAX_SEARCH else {}
    central = n == 1 and _turns(V, potential, rng)
    poles = _poles(V, potential, rng) if n * dim <= MAX_SEARCH and not central else ()
    if central or not (laws or nuclei or poles):
        return potential
    groups = potential.groups
    if len(groups) == n > 1:
        groups = _identical(V, potential, rng)
    found = Recognised(potential, tuple(nuclei), bool(laws), groups, potential.isotropic or _turns(V, potential, rng))
    W = _trial_function(V, found, nuclei, poles, laws)
    return Recognised(potential, found.nuclei, found.coalescence, groups, found.isotropic, found_trial_function=W)


def _free(potential: Potential) -> Recognised:
    """A free system, with what it does not say of itself."""
    V, rng, n = partial(values_at, potential), np.random.default_rng(17), potential.n_particles
    meets = any(_pair_law(V, potential, i, j, rng) for i, j in combinations(range(n), 2))
    groups = _identical(V, potential, rng) if len(potential.groups) == n else potential.groups
    isotropic = potential.isotropic or _turns(V, potential, rng)
    return Recognised(potential, (), potential.coalescence or meets, groups, isotropic, True)


def _law(V_at: Callable[[float], Array]) -> PowerLaw | None:
    """The power law of V at distances of order NEAR, the same in all directions, or None."""
    with np.errstate(all="ignore"):
        one, two, four = (V_at(scale * NEAR) for scale in (1.0, 2.0, 4.0))
        power = np.log2((one - two) / (two - four))
    if not np.isfinite(power).all() or power.std() > SURE or power.mean() < 0.9:
        return None
    p = float(power.mean())
    p = float(round(p)) if abs(p - round(p)) < SURE else p
    strength = float(np.median((one - two) * NEAR**p / (1 - 2**-p)))
    if abs(strength) < 1e-6 or (p > 1.5 and strength < 0):
        return None
    return PowerLaw(float(f"{strength:.6g}") if p > 1.5 else round(strength, 5), p)


def _directions(n: int, dim: int, rng: np.random.Generator) -> Array:
    u = rng.normal(size=(n, dim))
    return u / np.linalg.norm(u, axis=1, keepdims=True)


def _pair_law(
    V: Callable[[Array], Array], potential: Potential, i: int, j: int, rng: np.random.Generator
) -> PowerLaw | None:
    r = rng.normal(size=(1, potential.n_particles, potential.n_dims)).repeat(12, 0)
    u = _directions(12, potential.n_dims, rng)

    def at(distance: float) -> Array:
        near = r.copy()
        near[:, j] = near[:, i] + distance * u
        return V(near)

    return _law(at)


def _point_law(
    V: Callable[[Array], Array], potential: Potential, i: int, point: Array, rng: np.random.Generator
) -> PowerLaw | None:
    r = 1.5 * rng.normal(size=(1, potential.n_particles, potential.n_dims)).repeat(12, 0)
    u = _directions(12, potential.n_dims, rng)

    def at(distance: float) -> Array:
        near = r.copy()
        near[:, i] = point + distance * u
        return V(near)

    return _law(at)


def _nuclei(
    V: Callable[[Array], Array], potential: Potential, rng: np.random.Generator
) -> dict[tuple[float, ...], PowerLaw]:
    """Points where V goes to -infinity like 1/d as the first particle comes to them, with their power laws."""
    low = _searched(lambda r: np.nan_to_num(V(r), nan=np.inf, neginf=-1e12), DEEP, potential, rng)
    found = _with_laws(low, V, potential, rng)
    return {place: law for place, law in found.items() if law.power < 1.5 and law.strength < 0}


def _poles(
    V: Callable[[Array], Array], potential: Potential, rng: np.random.Generator
) -> tuple[tuple[float, ...], ...]:
    """Points where V goes to infinity as the first particle comes to them from anywhere."""

    def depth(r: Array) -> Array:
        outside = np.linalg.norm(r[:, 0], axis=-1) > WIDE
        return np.where(outside, np.inf, -np.nan_to_num(V(r), nan=-np.inf, posinf=1e12))

    high = _searched(depth, -HIGH, potential, rng)
    return tuple(place for place, law in _with_laws(high, V, potential, rng).items() if law.strength > 0)


def _searched(f: Callable[[Array], Array], reached: float, potential: Potential, rng: np.random.Generator) -> Array:
    """Where random searches for low values of f end, for the first particle, with f below `reached`; lowest first."""
    dim = potential.n_dims
    others = 3 * rng.normal(size=(1, potential.n_particles, dim)) + 20
    size = np.resize([1.0, 3.0, 10.0], N_SEARCH)[:, None]
    here = size * rng.normal(size=(N_SEARCH, dim))
    here[0] = 1e-3

    def along(p: Array) -> Array:
        r = others.repeat(len(p), 0)
        r[:, 0] = p
        return f(r)

    best, step = along(here), np.maximum(size, 0.3) * np.ones((N_SEARCH, 1))
    for _ in range(N_ROUNDS):
        new = here + step * rng.normal(size=here.shape)
        values = along(new)
        better = values < best
        here, best = np.where(better[:, None], new, here), np.where(better, values, best)
        step = np.where(better[:, None], step * 1.3, step * 0.82)
    order = np.argsort(best)[:N_ENDS]
    return here[order][best[order] < reached]


def _with_laws(
    places: Array, V: Callable[[Array], Array], potential: Potential, rng: np.random.Generator
) -> dict[tuple[float, ...], PowerLaw]:
    """Those that V has a power law at, each once."""
    found: dict[tuple[float, ...], PowerLaw] = {}
    for p in places:
        if any(np.linalg.norm(np.subtract(q, p)) < 0.01 for q in found):
            continue
        simple = np.round(p, 3)
        place = simple if np.abs(p - simple).max() < SAME else p
        law = _point_law(V, potential, 0, place, rng)
        if law is not None:
            found[tuple(float(x) + 0.0 for x in place)] = law
    return found


def _identical(
    V: Callable[[Array], Array], potential: Potential, rng: np.random.Generator
) -> tuple[tuple[int, ...], ...]:
    """Groups of particles that V and the masses are symmetric in."""
    r = rng.normal(size=(64, potential.n_particles, potential.n_dims))
    value = V(r)
    groups: list[list[int]] = []
    for i in range(potential.n_particles):
        for group in groups:
            swapped = r.copy()
            swapped[:, [i, group[0]]] = swapped[:, [group[0], i]]
            same_mass = potential.mass[i] == potential.mass[group[0]]
            if same_mass and np.allclose(V(swapped), value, rtol=1e-9, atol=1e-9):
                group.append(i)
                break
        else:
            groups.append([i])
    return tuple(map(tuple, groups))


def _turns(V: Callable[[Array], Array], potential: Potential, rng: np.random.Generator) -> bool:
    """Whether V stays as it is when all particles turn together about the origin."""
    r = rng.normal(size=(64, potential.n_particles, potential.n_dims))
    turn, _ = np.linalg.qr(rng.normal(size=(potential.n_dims, potential.n_dims)))
    return bool(np.allclose(V(r @ turn), V(r), rtol=1e-9, atol=1e-9))


def _trial_function(
    V: Callable[[Array], Array],
    found: Recognised,
    nuclei: dict[tuple[float, ...], PowerLaw],
    poles: tuple[tuple[float, ...], ...],
    laws: dict[tuple[int, int], PowerLaw],
) -> TrialFunction:
    """Factors for all singular points, on smooth tails that make the mean of E_W low."""
    n, dim, mass = found.n_particles, found.n_dims, found.mass
    screenings = SCREENINGS if laws or poles else SCREENINGS[:1]
    if nuclei:
        scale = max(2 * mass[0] * abs(law.strength) / (dim - 1) for law in nuclei.values())
        smooth = [_nuclear(found, V, scale, tail) for tail in TAILS]
    else:
        soft = FunctionPotential(_softened(found), n, dim, mass, None, len(found.groups) == 1)
        centre, width = fit_gaussian(soft)
        smooth = [[Gaussian(tuple(map(tuple, centre)), tuple(map(tuple, width)))]]
        scale = 1 / float(width.mean())
    choices = [
        (*tail, *_repelled(found, V, poles, screening * scale), *_pairs(laws, mass, dim, n, screening * scale))
        for tail in smooth
        for screening in screenings
    ]
    functions = [TrialFunction(terms) for terms in choices]
    r = torch.from_numpy(sample_trial_function(functions[len(functions) // 2], found, N_SAMPLES, n_steps=N_STEPS))
    W0 = functions[len(functions) // 2](r)
    return min(functions, key=lambda W: _energy(found, W, r, W0))


def sample_trial_function(
    trial_function: TrialFunction, potential: Potential, n_walkers: int, seed: int = 0, n_steps: int = 500
) -> Array:
    """Positions (walker, particle, dim) drawn from |phi_ref|^2, each by its own random-walk Metropolis chain."""
    generator = torch.Generator().manual_seed(seed)
    shape = (n_walkers, potential.n_particles, potential.n_dims)
    nuclei = torch.tensor(potential.nuclei or [[0.0] * potential.n_dims], dtype=torch.float64)
    home = torch.arange(potential.n_particles) % len(nuclei)
    r = nuclei[home] + torch.randn(shape, generator=generator, dtype=torch.float64)
    drawn: Array = random_walk(trial_function, r, n_steps, generator).numpy()
    return drawn


def _energy(potential: Potential, W: TrialFunction, r: Tensor, W0: Tensor) -> float:
    """The mean of E_W over |phi_ref|^2, from positions drawn with another W0; infinite where too few of them count."""
    found = W.derivatives(r)
    weight = (2 * (found.value - W0)).softmax(0)
    if 1 / float(weight.square().sum()) < len(r) / 20:
        return np.inf
    variance = 1 / torch.tensor(potential.mass, dtype=torch.float64)
    return float((weight * reference_energy(potential(r), found, variance)).sum())


def _softened(potential: Potential) -> Callable[[Tensor], Tensor]:
    """V without its highest peaks, for the fit of a Gaussian."""
    rng = torch.Generator().manual_seed(0)
    sample = potential(torch.randn(2000, potential.n_particles, potential.n_dims, generator=rng, dtype=torch.float64))
    middle = sample.median()
    if potential.values_only:
        return lambda r: potential(r.detach()).clamp_max(middle + SOFT)
    return lambda r: torch.minimum(potential(r), middle + SOFT + 0 * r.sum((-2, -1)))


def _nuclear(found: Recognised, V: Callable[[Array], Array], scale: float, tail: float) -> list[Term]:
    """Cusps at the nuclei, and tails that decay more slowly; of several nuclei the cusps saturate."""
    n_nuclei = len(found.nuclei)
    decay = -scale * tail if n_nuclei == 1 else scale * (1.2 - 2 * tail) / n_nuclei**1.2
    terms: list[Term] = []
    for term, place, group in _at_points(found, V, found.nuclei, 0.5 * scale if n_nuclei > 1 else 0.0):
        terms += [term, _of_group(found, OneBody(Envelope(decay, core=3 / scale), place), group)]
    return terms


def _repelled(
    found: Recognised, V: Callable[[Array], Array], poles: tuple[tuple[float, ...], ...], screening: float
) -> list[Term]:
    """Holes where V goes to infinity."""
    return [term for term, _, _ in _at_points(found, V, poles, screening)]


def _at_points(
    found: Recognised, V: Callable[[Array], Array], places: tuple[tuple[float, ...], ...], screening: float
) -> list[tuple[Term, tuple[float, ...], tuple[int, ...]]]:
    """What removes the singular points, for each group of particles that they are ones of."""
    terms = []
    for group in found.groups:
        for place in places:
            law = _point_law(V, found, group[0], np.array(place), np.random.default_rng(23))
            if law is not None:
                factor = OneBody(law.factor(found.mass[group[0]], found.n_dims, screening), place)
                terms.append((_of_group(found, factor, group), place, group))
    return terms


def _of_group(found: Recognised, term: Term, group: tuple[int, ...]) -> Term:
    return term if len(found.groups) == 1 else Among(term, group)


def _pairs(
    laws: dict[tuple[int, int], PowerLaw], mass: tuple[float, ...], dim: int, n: int, screening: float
) -> list[Term]:
    """Factors of pairs; one term where all pairs are alike."""
    factors = {
        (i, j): law.factor(mass[i] * mass[j] / (mass[i] + mass[j]), dim, screening) for (i, j), law in laws.items()
    }
    if len(factors) == n * (n - 1) // 2 and len(set(factors.values())) == 1:
        return [Pair(next(iter(factors.values())))]
    return [Among(Pair(factor), pair) for pair, factor in factors.items()]
