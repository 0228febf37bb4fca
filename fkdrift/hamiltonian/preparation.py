"""A trial function for a potential that comes without one, from nothing but values of V.

What V is like is found by evaluating it at random points:

    quadratic                    the Gaussian of the normal modes, which is exact
    one coordinate, or a sum     each coordinate's lowest state, solved for and tabulated: W = sum_k W_k(x_k)
    central, in 2 dimensions up  the lowest state of the distance from the centre, W = w(|r|)
    two coupled coordinates      the lowest state on a grid, W = w(x_1, x_2)
    anything else                a mixture of Gaussians, or the one of lowest energy

In all but the last E_W = V - sum_i sigma_i^2 (|grad_i W|^2 + lap_i W) / 2 is the ground-state energy everywhere, up to
the precision of the table, and walkers start from the state itself, in all of its wells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from fkdrift.errors import Unbound
from fkdrift.hamiltonian import bound_state
from fkdrift.hamiltonian.bound_state import BoundState, Equation
from fkdrift.hamiltonian.gaussian_trial_function import fit_gaussian
from fkdrift.hamiltonian.minima import (
    CAP,
    N_EVEN,
    N_PLANE,
    PLANE_SIZES,
    SIZES,
    Scan,
    bounded,
    energy_from_above,
    finite,
    line_points,
    refuse_far,
    scan_line,
    scan_plane,
)
from fkdrift.hamiltonian.mixture import GaussianMixture, LogMixture, fit_mixtures
from fkdrift.hamiltonian.plane_state import solve_plane
from fkdrift.hamiltonian.potential import Potential, values_at
from fkdrift.hamiltonian.tabulated import Central, Coordinates, Profile, SplineSurface, Table
from fkdrift.hamiltonian.trial_function import Gaussian, Term, TrialFunction, reference_energy

Array = NDArray[np.float64]

ALIKE = 1e-10  # relative difference of two values of V that counts as rounding
SMALLEST = 1e-7  # distance from a centre where its table begins
PROBES = (0.3, 1.0, 3.0, 10.0, 30.0)  # sizes of the random positions that V is tried at
LENGTHS = (1e-4, 1e4)  # widths of a Gaussian, in units of length, between which it is looked for
MOST_MODES = 400  # coordinates of a quadratic V whose couplings are looked for
GAIN = 0.01  # of energy by a mixture, relative to its kinetic energy, below which a single Gaussian will do
N_PROBES, N_SURE = 50, 4000  # how many, to find what V is like and to make sure of it


@dataclass(frozen=True)
class Preparation:
    """A trial function and what follows from it.

    Args:
        trial_function: W = log phi_ref.
        centre, width: (particle, dim), mean and standard deviation of |phi_ref|^2.
        rate: the largest sigma^2 < -d^2 W / dx^2 > of any direction, the inverse of the time scale.
        draw: positions (n, particle, dim) from |phi_ref|^2, given n and numpy's generator.
        table: W as a table, with the region that it covers; None if W is a formula.
        energy: of the trial function, where W is a table.
        harmonic: V_min + sum omega / 2 of a molecule, None of anything else.
    """

    trial_function: TrialFunction
    centre: Array
    width: Array
    rate: float
    draw: Callable[[int, np.random.Generator], Array]
    table: Table | None = None
    energy: float = 0.0
    harmonic: float | None = None

    @cached_property
    def typical(self) -> Array:
        """A position (particle, dim) where V is finite: one drawn from |phi_ref|^2."""
        return self.draw(1, np.random.default_rng(0))[0]


def prepare(potential: Potential) -> Preparation:
    """The trial function that suits what V is like.

    Raises:
        Unbound: V has no ground state, or none was found.
        InputError: V is not finite.
    """
    values = _Values(potential)
    n, dim = potential.n_particles, potential.n_dims
    if values.quadratic():
        return _normal_modes(values) or gaussian(potential)
    if n == 1 and dim > 1 and potential.domain is None and values.central():
        return _central(values)
    if values.separable():
        return _separable(values)
    if potential.domain is None:
        values.refuse_falling()
    found = _plane(values) if n * dim == 2 else None
    return _mixture(values) if found is None else found


class _Values:
    """V as a function of float64 arrays."""

    def __init__(self, potential: Potential) -> None:
        self.potential = potential
        self.shape = (potential.n_particles, potential.n_dims)
        self.rng = np.random.default_rng(11)

    def __call__(self, r: Array) -> Array:
        """V at (n, particle, dim)."""
        return values_at(self.potential, r)

    def probes(self, n: int) -> Array:
        """Random positions of several sizes, (n, particle, dim); inside the domain where there is one."""
        if self.potential.domain is not None:
            low, high = np.asarray(self.potential.domain, dtype=float).T
            return low + (high - low) * self.rng.uniform(0.05, 0.95, (n, *self.shape))
        return np.resize(PROBES, n)[:, None, None] * self.rng.normal(size=(n, *self.shape))

    def everywhere(self) -> Array:
        """Many positions: random ones and, of one or two coordinates, grids of every size: no well is missed."""
        random = self.probes(N_SURE)
        if self.shape == (1, 1) and self.potential.domain is None:
            return np.concatenate([random, line_points().reshape(-1, 1, 1)])
        if self.shape[0] * self.shape[1] != 2 or self.potential.domain is not None:
            return random
        grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, N_PLANE)] * 2, indexing="ij"), -1).reshape(-1, 1, 2)
        grids = np.concatenate([size * grid for size in PLANE_SIZES]).reshape(-1, *self.shape)
        return np.concatenate([random, grids])

    def alike(self, first: Array, second: Array, size: Array) -> bool:
        """Whether values agree to rounding, of which at least half are numbers."""
        known = np.isfinite(first) & np.isfinite(second)
        if 2 * known.sum() < len(known):
            return False
        return bool((np.abs(first[known] - second[known]) <= ALIKE * size[known]).all())

    def quadratic(self) -> bool:
        """Whether third differences vanish along random lines."""
        if self.potential.domain is not None:
            return False
        return self._quadratic(self.probes(N_PROBES)) and self._quadratic(self.everywhere())

    def _quadratic(self, start: Array) -> bool:
        step = self.probes(len(start))
        V = [self(start + k * step) for k in range(4)]
        return self.alike(V[3] + 3 * V[1], 3 * V[2] + V[0], np.sum(np.abs(V), 0))

    def central(self) -> bool:
        """Whether V depends on the distance from the origin only."""
        return self._central(self.probes(N_PROBES)) and self._central(self.everywhere())

    def _central(self, r: Array) -> bool:
        turned = self.rng.normal(size=r.shape)
        turned *= (np.linalg.norm(r, axis=-1) / np.linalg.norm(turned, axis=-1))[..., None]
        V = self(r)
        return self.alike(V, self(turned), np.abs(V) * 10 + 1e-3 * np.nanmedian(np.abs(V)))

    def separable(self) -> bool:
        """Whether V is a sum of functions of one coordinate each."""
        return self.shape == (1, 1) or (self._separable(self.probes(N_PROBES)) and self._separable(self.everywhere()))

    def _separable(self, r: Array) -> bool:
        r, base = r.reshape(len(r), -1), self.probes(len(r)).reshape(len(r), -1)
        size = r.shape[1]
        V, V_base = self(r.reshape(-1, *self.shape)), self(base.reshape(-1, *self.shape))
        total, scale = -(size - 1) * V_base, np.abs(V) + size * np.abs(V_base)
        for k in range(size):
            one = base.copy()
            one[:, k] = r[:, k]
            V_one = self(one.reshape(-1, *self.shape))
            total, scale = total + V_one, scale + np.abs(V_one)
        return self.alike(V, total, scale)

    def refuse_falling(self) -> None:
        """Refuse a potential that falls without limit along some straight line.

        Raises:
            Unbound: it does.
        """
        size = self.shape[0] * self.shape[1]
        rays = np.concatenate([self.rng.normal(size=(128, size)), np.eye(size), -np.eye(size)])
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        n_rays, radii = len(rays), np.array([1e3, 1e4, 1e5])
        starts = np.concatenate([np.zeros_like(rays), *(self.probes(n_rays).reshape(n_rays, size) for _ in range(8))])
        rays = np.tile(rays, (9, 1))  # from the origin and from eight places around it: a valley may begin anywhere
        near = self(self.probes(N_SURE))
        lowest = float(np.nanmin(np.where(np.isfinite(near), near, np.inf)))
        V = np.stack([np.nan_to_num(self((starts + d * rays).reshape(-1, *self.shape)), nan=CAP) for d in radii])
        falls = (V[2] < V[1]) & (V[1] < V[0]) & (V[0] < lowest - abs(lowest)) & (V[2] / 3 < V[1])
        if falls.any():
            raise Unbound(
                f"{self.potential.name} has no ground state: V falls to {V[2][falls].min():.3g} at a distance of 1e5, "
                "so that what sits in a well inside is at best metastable; the potential must confine the particles"
            )

    def coordinate(self, k: int, base: Array) -> Callable[[Array], Array]:
        """V along coordinate k through the position `base` (flat)."""

        def along(x: Array) -> Array:
            r = np.tile(base, (len(x), 1))
            r[:, k] = x
            return self(r.reshape(len(x), *self.shape))

        return along


def gaussian(potential: Potential) -> Preparation:
    """The Gaussian of lowest energy, whatever V is like."""
    centre, width = fit_gaussian(potential)
    W = TrialFunction((Gaussian(tuple(map(tuple, centre)), tuple(map(tuple, width))),))
    mass = np.asarray(potential.mass, dtype=float)[:, None]

    def draw(n: int, rng: np.random.Generator) -> Array:
        return centre + width * rng.normal(size=(n, *centre.shape))

    return Preparation(W, centre, width, float((1 / (2 * mass * width**2)).max()), draw)


def _normal_modes(values: _Values) -> Preparation | None:
    """The ground state of a quadratic V; None where it has none, or of very many coordinates.

    phi = exp(-y.A y / 2),  y = x - c,  A = M^1/2 (M^-1/2 K M^-1/2)^1/2 M^1/2,  K the second derivatives of V
    """
    shape, mass = values.shape, np.repeat(np.asarray(values.potential.mass, dtype=float), values.shape[1])
    size = len(mass)
    if size > MOST_MODES:
        return None
    c, step = np.zeros(size), np.ones(size)
    for _ in range(2):  # about the origin, then about the minimum in steps of the width, where rounding is least
        slope, K = _expanded(values, c, step)
        omega2, modes = np.linalg.eigh(K / np.sqrt(np.outer(mass, mass)))
        if not omega2.min() > ALIKE * omega2.max():
            return None
        c = c - np.linalg.solve(K, slope)
        A = (modes * np.sqrt(omega2)) @ modes.T * np.sqrt(np.outer(mass, mass))
        covariance = np.linalg.inv(A)
        step = np.sqrt(covariance.diagonal() / 2)
        if not (LENGTHS[0] < step.min() and step.max() < LENGTHS[1]):
            return None
    centre, width = c.reshape(shape), step.reshape(shape)
    coupled = np.abs(A - np.diag(A.diagonal())).max() > 1e3 * ALIKE * A.diagonal().min()
    term: Term = Gaussian(tuple(map(tuple, centre)), tuple(map(tuple, width)))
    if coupled:
        mixture = GaussianMixture(np.ones(1), c[None], covariance[None])
        term = LogMixture.of(mixture, (tuple(range(shape[0])),))
    root = np.linalg.cholesky(covariance / 2)

    def draw(n: int, rng: np.random.Generator) -> Array:
        return (c + rng.normal(size=(n, size)) @ root.T).reshape(n, *shape)

    if not np.isfinite(values(draw(N_SURE, np.random.default_rng(3)))).all():
        return None
    return Preparation(TrialFunction((term,)), centre, width, float(np.sqrt(omega2.max())), draw)


def _expanded(values: _Values, c: Array, step: Array) -> tuple[Array, Array]:
    """First and second derivatives of V at c by differences, which are exact for a quadratic V."""
    size, e = len(c), np.diag(step)
    V0, up, down = (values((c + d).reshape(-1, *values.shape)) for d in (np.zeros((1, size)), e, -e))
    K = np.stack([values((c + e + row).reshape(-1, *values.shape)) - up - up[k] + V0 for k, row in enumerate(e)])
    K[np.diag_indices(size)] = up + down - 2 * V0
    return (up - down) / (2 * step), K / np.outer(step, step)


def _mixture(values: _Values) -> Preparation:
    """A mixture of Gaussians, where its energy is below that of a single one."""
    single, potential = gaussian(values.potential), values.potential
    if potential.domain is not None or potential.isotropic:
        return single
    rng = np.random.default_rng(17)
    sigma = np.asarray(potential.mass, dtype=float) ** -0.5
    mixtures = fit_mixtures(values, single.draw(N_SURE, rng), sigma, 1 / single.rate, potential.groups, rng)
    if not mixtures:
        return single
    centre, width = np.empty(values.shape), np.empty(values.shape)
    for mixture, parts in mixtures:
        mean, deviation = mixture.moments()
        for part in parts:
            centre[list(part)], width[list(part)] = mean.reshape(len(part), -1), deviation.reshape(len(part), -1)

    def draw(n: int, rng: np.random.Generator) -> Array:
        r = np.empty((n, *values.shape))
        for mixture, parts in mixtures:
            for part in parts:
                r[:, list(part)] = mixture.draw(n, rng).reshape(n, len(part), -1)
        return r

    W = TrialFunction(tuple(LogMixture.of(mixture, parts) for mixture, parts in mixtures))
    E, slope = _local_energy(W, draw(N_SURE, rng), values)
    E_single, _ = _local_energy(single.trial_function, single.draw(N_SURE, rng), values)
    gain, noise = E_single.mean() - E.mean(), np.hypot(E.std(), E_single.std()) / len(E) ** 0.5
    if not gain > GAIN * float(slope.sum((1, 2)).mean()) / 2 + 3 * noise:
        return single
    return Preparation(W, centre, width, 2 * float(slope.mean(0).max()), draw)


def _local_energy(W: TrialFunction, r: Array, values: _Values) -> tuple[Array, Array]:
    """E_W (batch,) and sigma^2 (d W)^2 (batch, particle, dim)."""
    with torch.no_grad():
        found = W.derivatives(torch.from_numpy(r))
    variance = 1 / torch.tensor(values.potential.mass, dtype=torch.float64)
    E = reference_energy(torch.from_numpy(values(r)), found, variance)
    return E.numpy(), (variance[:, None] * found.gradient.square()).numpy()


# One coordinate each


@dataclass(frozen=True)
class _Solved:
    """The lowest state of one coordinate: its table, moments, rate, and points with their cumulative probability."""

    profile: Profile
    mean: float
    deviation: float
    rate: float
    energy: float
    points: Array
    cumulative: Array

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return np.interp(rng.uniform(size=shape), self.cumulative, self.points)


def _separable(values: _Values) -> Preparation:
    """The product of every coordinate's lowest state."""
    n, dim = values.shape
    mass = np.repeat(np.asarray(values.potential.mass, dtype=float), dim)
    base = values.probes(1)[0].ravel()
    probe = np.linspace(-2.1, 2.3, 23)
    solved: list[_Solved] = []
    known: list[tuple[float, Array]] = []
    index = []
    shift = float(values(base.reshape(1, n, dim))[0]) if n * dim > 1 else 0.0
    for k in range(n * dim):
        V = values.coordinate(k, base)
        domain = None if values.potential.domain is None else values.potential.domain[k % dim]
        seen = V(probe if domain is None else np.linspace(*domain, 23)) - float(V(base[k : k + 1])[0])
        same = (
            [j for j, (m, u) in enumerate(known) if m == mass[k] and np.allclose(u, seen, rtol=1e-9, atol=1e-12)]
            if domain is None
            else []
        )
        if not same:
            solved.append(_solve_line(V, float(mass[k]), domain, values.potential.name))
            known.append((float(mass[k]), seen))
        index.append(same[0] if same else len(solved) - 1)
    chosen = [solved[j] for j in index]
    table = Coordinates(tuple(s.profile for s in solved), tuple(map(tuple, np.reshape(index, (n, dim)).tolist())))

    def draw(count: int, rng: np.random.Generator) -> Array:
        return np.stack([s.draw((count,), rng) for s in chosen], -1).reshape(count, n, dim)

    return Preparation(
        TrialFunction((table,)),
        np.reshape([s.mean for s in chosen], (n, dim)),
        np.reshape([s.deviation for s in chosen], (n, dim)),
        max(s.rate for s in chosen),
        draw,
        table,
        float(sum(s.energy for s in chosen) - (n * dim - 1) * shift),
    )


def _solve_line(V: Callable[[Array], Array], mass: float, domain: tuple[float, float] | None, name: str) -> _Solved:
    """The lowest state of a coordinate on a line."""

    def capped(x: Array) -> Array:
        return bounded(V(x))

    scan = scan_line(V, mass, domain, name)
    middle = _symmetry(capped, scan) if domain is None else None
    if middle is None:
        state, equation = _lowest(Equation(capped, mass), scan.x, scan, name)
        centre = 0.0
    else:
        centre = middle
        half = Equation(lambda x: capped(centre + x), mass, even=True)
        x = scan.x - centre
        keep = (x > 0) & (x < -x[0])
        x = np.unique(np.append(x[keep], SMALLEST * np.array([0.01, 0.1, 1.0])))
        right = Scan(x, half.V(x), scan.energy, scan.lowest, abs(scan.at - centre))
        state, equation = _lowest(half, x, right, name)
        state = _mirrored(state)
    share = bound_state.weights(equation, state)
    t = state.t + centre
    points, cumulative = _cumulative(equation, state, t)
    between, part = (points[1:] + points[:-1]) / 2, cumulative[1:] - cumulative[:-1]
    mean = float((part * between).sum())
    deviation = float(np.sqrt((part * (between - mean) ** 2).sum()))
    slope = (state.slope[1:] ** 2 + state.slope[:-1] ** 2) / 2
    before = (state.log_chi[0], state.slope[0], min(state.curvature[0], 0.0) / 2)
    after = (state.log_chi[-1], state.slope[-1], min(state.curvature[-1], 0.0) / 2)
    profile = Profile(t, bound_state.coefficients(state), before, after)
    rate = 2 * float((share * slope).sum()) / mass
    return _Solved(profile, mean, deviation, rate, state.energy, points, cumulative)


def _symmetry(V: Callable[[Array], Array], scan: Scan) -> float | None:
    """The point about which V is even, or None."""
    low = scan.x[scan.energy > scan.V]
    for centre in (0.0, (low[0] + low[-1]) / 2):
        reach = min(centre - scan.x[0], scan.x[-1] - centre)
        seen = np.abs(scan.x - centre) < reach
        size = (np.abs(scan.V) + abs(scan.lowest))[seen]
        if not seen.any():
            continue
        difference = np.abs(V(2 * centre - scan.x[seen]) - scan.V[seen])
        if (difference <= (1e-11 if centre == 0 else 1e-8) * size).all():
            return float(centre)
    return None


def _lowest(equation: Equation, t: Array, scan: Scan, name: str) -> tuple[BoundState, Equation]:
    """The lowest state from a scan.

    Raises:
        Unbound: no level lies below what V is far away.
    """
    x = equation.position(t)
    far = x > SIZES[-1] / 10
    if equation.n_dims is None:
        far = far | (x < -SIZES[-1] / 10)
    threshold = float(scan.V[far].min()) if far.any() else np.inf
    high = scan.energy + 1e-6 * abs(scan.energy) + 1e-12
    if high >= threshold:
        depth = threshold - scan.lowest
        high = threshold - 1e-7 * depth
        mesh = bound_state.RadialMesh(equation, bound_state.points(equation, t, scan.V, high))
        if not mesh.has_node(high):
            raise Unbound(
                f"{name} has no bound state: no level lies below {threshold:.4g}, the value of V far away; make the "
                "well deeper or wider, or give the particles a potential that must confine them"
            )
    return bound_state.lowest_state(
        equation, bound_state.points(equation, t, scan.V, high), scan.lowest, high
    ), equation


def _mirrored(state: BoundState) -> BoundState:
    """An even state on both sides of its symmetry."""
    both = [np.concatenate([sign * a[::-1], a]) for a, sign in zip(state[:4], (-1, -1, 1, 1), strict=True)]
    return BoundState(both[0], both[1], both[2], both[3], state.energy)


def _cumulative(equation: Equation, state: BoundState, position: Array) -> tuple[Array, Array]:
    """Points, five in each element, and the probability to their left."""
    share = bound_state.weights(equation, state)
    inner = np.linspace(0, 1, 6)[:-1]
    k = np.repeat(np.arange(len(share)), 5)
    t = (state.t[:-1, None] + np.diff(state.t)[:, None] * inner).ravel()
    value, _, _ = bound_state.interpolate(state, t, k)
    weight = equation.terms(t)[1] if equation.n_dims is not None else np.ones_like(t)
    density = np.append(np.exp(2 * np.minimum(value, 0.0)) * weight, 0.0)
    t = np.append(t, state.t[-1])
    between = (position[:-1, None] + np.diff(position)[:, None] * inner).ravel()
    x = np.append(between if equation.n_dims is None else np.exp(t[:-1]), position[-1])
    total = np.append(0.0, np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(t)))
    keep = np.append(True, np.diff(total) > 0)
    return x[keep], total[keep] / total[-1]


# A distance from a centre


def _central(values: _Values) -> Preparation:
    """The lowest state of a central potential."""
    dim, mass, name = values.shape[1], float(values.potential.mass[0]), values.potential.name

    def V(r: Array) -> Array:
        positions = np.zeros((len(r), 1, dim))
        positions[:, 0, 0] = r
        return bounded(values(positions))

    even = [(np.arange(N_EVEN // 2) + 0.5) / (N_EVEN // 2) * size for size in SIZES]
    r = np.unique(np.concatenate([np.geomspace(SMALLEST, SIZES[-1], 12_000), *even]))
    positions = np.zeros((len(r), 1, dim))
    positions[:, 0, 0] = r
    V_scan = finite(values(positions), r, name)
    strength = 2 * mass * SMALLEST**2 * V_scan[0] + (dim - 2) ** 2 / 4
    if strength < -1e-3:
        raise Unbound(
            f"{name} has no ground state: V falls without limit at r = 0, like {V_scan[0] * r[0] ** 2:.3g}/r^2 or "
            "faster; the potential must confine the particles and be bounded below (soften it there)"
        )
    barrier = max(0, (dim - 1) * (dim - 3)) / (8 * mass)
    energy, at = energy_from_above(lambda x: V(x) + barrier / x**2, r, V_scan + barrier / r**2, mass, (r[0], r[-1]))
    inside = _gaussian_about_centre(V, dim, mass)
    energy, at = min((energy, at), (inside, 0.0))
    far = r > SIZES[-1] / 10
    if V_scan[far].min() <= energy or at > SIZES[-1] / 10:
        refuse_far(V, r, V_scan, far, mass, name)
    scan = Scan(r, V_scan, energy, float(V_scan.min()), at)
    state, equation = _lowest(Equation(V, mass, dim), np.log(r), scan, name)
    slope, curvature = state.slope - (dim - 2) / 2, state.curvature
    log_phi = state.log_chi - (dim - 2) / 2 * state.t
    shifted = BoundState(state.t, slope, curvature, log_phi - log_phi.max(), state.energy)
    last = (shifted.log_chi[-1], slope[-1], curvature[-1] / 2 if curvature[-1] < 0 else 0.0)
    table = Central(
        Profile(state.t, bound_state.coefficients(shifted), (shifted.log_chi[0], slope[0], 0.0), last),
        (0.0,) * dim,
    )
    share = bound_state.weights(equation, state)
    x, cumulative = _cumulative(equation, state, np.exp(state.t))
    radius = np.exp((state.t[1:] + state.t[:-1]) / 2)
    width = float(np.sqrt((share * radius**2).sum() / dim))
    ends = np.exp(state.t)
    along = -(curvature - slope) / ends**2
    across = -slope / ends**2
    rate = max(float((share * (u[1:] + u[:-1]) / 2).sum()) for u in (along, across)) / mass

    def draw(count: int, rng: np.random.Generator) -> Array:
        direction = rng.normal(size=(count, 1, dim))
        direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
        return np.interp(rng.uniform(size=(count, 1, 1)), cumulative, x) * direction

    return Preparation(
        TrialFunction((table,)), np.zeros((1, dim)), np.full((1, dim), width), rate, draw, table, state.energy
    )


def _gaussian_about_centre(V: Callable[[Array], Array], dim: int, mass: float) -> float:
    """The lowest energy of a Gaussian about the origin."""
    rng = np.random.default_rng(5)
    d = np.sort(np.linalg.norm(rng.normal(size=(4000, dim)), axis=1))[5::10]
    widths = np.geomspace(1e-4, 3e3, 60)
    E = V((widths[:, None] * d).ravel()).reshape(len(widths), len(d)).mean(1) + dim / (8 * mass * widths**2)
    return float(E.min())


# Two coupled coordinates


def _plane(values: _Values) -> Preparation | None:
    """The lowest state of two coordinates on a grid; None where none is found below V far away."""
    potential = values.potential
    m = np.repeat(np.asarray(potential.mass, dtype=float), potential.n_dims)
    mass = (float(m[0]), float(m[1]))
    domain = None
    if potential.domain is not None:
        first, second = potential.domain * (2 // potential.n_dims)
        domain = (first, second)

    def V(x: Array, y: Array) -> Array:
        r = np.stack([x.ravel(), y.ravel()], 1).reshape(-1, *values.shape)
        return bounded(values(r)).reshape(x.shape)

    found = scan_plane(V, mass, domain, potential.name)
    if found is None:
        return None
    plane = solve_plane(V, mass, *found, fixed=domain is not None)
    axes = (plane.x, plane.y)
    start, step = [a[0] for a in axes], [a[1] - a[0] for a in axes]
    table = SplineSurface.through(plane.log_phi, start, step)
    weight = np.exp(2 * plane.log_phi)
    weight /= weight.sum()
    mean = np.array([(weight.sum(1 - k) * axes[k]).sum() for k in (0, 1)])
    width = np.sqrt([(weight.sum(1 - k) * (axes[k] - mean[k]) ** 2).sum() for k in (0, 1)])
    slopes = np.gradient(plane.log_phi, *step)
    xx, xy = np.gradient(slopes[0], *step)
    yy = np.gradient(slopes[1], step[1], axis=1)
    xx, xy, yy = xx / mass[0], xy / (mass[0] * mass[1]) ** 0.5, yy / mass[1]
    stiffest = -(xx + yy) / 2 + np.sqrt((xx - yy) ** 2 / 4 + xy**2)
    cumulative = np.cumsum(weight.ravel())

    def draw(count: int, rng: np.random.Generator) -> Array:
        k = np.searchsorted(cumulative, rng.uniform(size=count) * cumulative[-1])
        cells = np.stack(np.unravel_index(k, weight.shape), 1) + rng.uniform(-0.5, 0.5, (count, 2))
        x = np.clip(np.array(start) + cells * np.array(step), [a[0] for a in axes], [a[-1] for a in axes])
        return x.reshape(count, *values.shape)

    found_state = Preparation(
        TrialFunction((table,)),
        mean.reshape(values.shape),
        width.reshape(values.shape),
        float((weight * stiffest).sum()),
        draw,
        table,
        plane.energy,
    )
    return found_state if _solves(found_state, values) else None


def _solves(state: Preparation, values: _Values) -> bool:
    """Whether the mean of E_W over the state is its energy, within a twentieth of its kinetic energy."""
    E, slope = _local_energy(state.trial_function, state.draw(2000, np.random.default_rng(1)), values)
    kinetic = slope.sum((1, 2)).mean() / 2
    return bool(abs(np.median(E) - state.energy) < 0.05 * kinetic and E.std() < 10 * kinetic)
