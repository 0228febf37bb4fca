"""Functions that excited states are built from, psi_n = psi sum_k c_k f_k, with what the Hamiltonian does to them.

    H (f psi) = psi ( E_L f - L f ),        L f = v . grad f + sum_i sigma_i^2 lap_i f / 2

Every f is a function of a few coordinates q(r), symmetric in identical particles:

    polynomials   prod_m He_n(q_m)   up to a degree, every coordinate counting with its own weight
    bumps         exp(-|q - q_k|^2 / 2 h^2)   around places far from each other, for one or two coordinates: complete in
                  the limit, so that wells apart and barriers need no thought

so that L f takes only the gradients and Laplacians of the q, by automatic differentiation.  Each f is even or odd under
every mirror that leaves V unchanged, which makes labels, and matrices in blocks.

Reference: J. Toulouse and C. J. Umrigar, J. Chem. Phys. 126, 084102 (2007), on local energies of basis functions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from fkdrift.errors import InputError
from fkdrift.hamiltonian.potential import Potential
from fkdrift.hamiltonian.system import System
from fkdrift.numerics.geometry import distance
from fkdrift.tensor_types import Positions

POLYNOMIAL_DEGREE = {1: 8, 2: 5, 3: 4}
"""Highest degree of polynomials by number of coordinates of weight 1; 3 for more."""
MOST_FUNCTIONS = 160  # the matrices have its square of entries, each with noise
N_BUMPS = {1: 12, 2: 16}
"""How many centres of bumps, by number of coordinates."""
GROWTH = (0.3, 0.6)  # of the rate at which psi decays: states less bound than psi, as exp(growth) psi
FAR = 0.02  # share of the walkers that are in the tail of psi
CORE = 0.5  # radius, in units of the width, within which distances are flat
AXES = "xyz"

Places = Float[Tensor, "place particle dim"]
"""Positions of no particular number."""


@dataclass(frozen=True)
class CollectiveCoordinate:
    """One function of the positions, symmetric in identical particles.

    Args:
        name: for labels.
        function: (batch, particle, dim) to (batch,), twice differentiable by torch.
        weight: what its first power counts in the degree of a polynomial.
        grows: an exponential, of which a polynomial has one factor at most.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    weight: int = 1
    grows: bool = False


@dataclass(frozen=True)
class Mirror:
    """A reflection r -> 2 c - r of some axes of all particles that leaves V unchanged.

    Args:
        name: of what changes sign, "x" or "r".
        axes: which.
        centre: (dim,).
    """

    name: str
    axes: tuple[int, ...]
    centre: Tensor

    def __call__(self, r: Positions) -> Positions:
        """The mirror image."""
        sign = torch.ones_like(self.centre)
        sign[list(self.axes)] = -1
        return (sign * r + (1 - sign) * self.centre).to(r.dtype)


class Basis:
    """Polynomials and bumps in given coordinates.

    Args:
        coordinates: q, scaled inside to mean 0 and standard deviation 1 (only scaled where a mirror changes the sign).
        walkers: (batch, particle, dim) typical positions.
        places: (place, particle, dim) that bumps may be centred at; the walkers if not given.
        mirrors: that leave V unchanged; those under which a coordinate is neither even nor odd are left out.
        degree: highest weighted degree; by the number of coordinates if not given.
        n_bumps: centres of bumps; by the number of coordinates if not given.

    Attributes:
        sectors: (function, mirror) +1 or -1.
        mirrors: those kept.
    """

    def __init__(
        self,
        coordinates: Sequence[CollectiveCoordinate],
        walkers: Positions,
        mirrors: Sequence[Mirror] = (),
        *,
        places: Places | None = None,
        degree: int | None = None,
        n_bumps: int | None = None,
    ) -> None:
        self.coordinates = tuple(coordinates)
        r = walkers.double()
        raw = self._raw(r)
        signs, kept = [], []
        for mirror in mirrors:
            sign = _signs(raw, self._raw(mirror(r)))
            if sign is not None:
                signs.append(sign)
                kept.append(mirror)
        self.mirrors = tuple(kept)
        self.signs = torch.stack(signs) if signs else raw.new_ones(0, len(coordinates))
        odd = (self.signs < 0).any(0)
        self.location = torch.where(odd, torch.zeros_like(raw[0]), raw.mean(0))
        self.scale = raw.std(0).clamp_min(1e-12)
        self.main = [m for m, each in enumerate(coordinates) if each.weight == 1 and not each.grows]
        chosen = degree if degree is not None else POLYNOMIAL_DEGREE.get(len(self.main), 3)
        exponents = _exponents(self.coordinates, chosen)
        if n_bumps is None:
            n_others = sum(not each.grows for each in coordinates) - len(self.main)
            n_bumps = 0 if n_others else N_BUMPS.get(len(self.main), 0)
        self.exponents = torch.tensor(exponents, device=r.device)
        self._factors()
        parity = self.signs[None].double() ** self.exponents[:, None].double()
        sectors = parity.prod(-1)
        sites = self._scaled(raw if places is None else self._raw(places.double()))
        self.centres, self.width = _spread(sites[:, self.main], self.signs[:, self.main], n_bumps)
        self.characters = raw.new_tensor(list(itertools.product((1.0, -1.0), repeat=len(self.mirrors))))
        bumps = self.characters.repeat(len(self.centres), 1)
        self.sectors = torch.cat([sectors, bumps]) if len(self.centres) else sectors

    def __len__(self) -> int:
        return len(self.sectors)

    def __call__(self, r: Positions) -> Tensor:
        """f(r), (batch, function) float64, differentiable in r."""
        q = self._scaled(self._raw(r.double()))
        return torch.cat([self._polynomials(q)[0], self._bumps(q)[0]], 1)

    def with_generator(self, r: Positions, v: Positions, variance: Tensor) -> tuple[Tensor, Tensor]:
        """f and L f = v . grad f + sum_i sigma_i^2 lap_i f / 2 at r, both (batch, function) float64.

        Args:
            r: positions (batch, particle, dim).
            v: sigma^2 grad log psi there.
            variance: (particle, 1), sigma^2.
        """
        q, drift, metric = self._derivatives(r.detach().double(), v.double(), variance.double())
        f, slope = self._polynomials(q, drift, metric)
        g, bump_slope = self._bumps(q, drift, metric)
        return torch.cat([f, g], 1), torch.cat([slope, bump_slope], 1)

    def _raw(self, r: Tensor) -> Tensor:
        return torch.stack([each.function(r) for each in self.coordinates], -1)

    def _scaled(self, raw: Tensor) -> Tensor:
        return (raw - self.location) / self.scale

    def _derivatives(self, r: Tensor, v: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q (batch, m), L q_m (batch, m) and sum_i sigma_i^2 grad_i q_m . grad_i q_n (batch, m, n)."""
        weights = variance.expand_as(r[0]).flatten()
        gradients, laplacians = [], []
        with torch.enable_grad():
            x = r.requires_grad_()
            q = self._scaled(self._raw(x))
            for m in range(q.shape[1]):
                (gradient,) = torch.autograd.grad(q[:, m].sum(), x, create_graph=True, retain_graph=True)
                flat, laplacian = gradient.flatten(1), torch.zeros_like(r[:, 0, 0])
                for k in range(flat.shape[1]):
                    column = flat[:, k].sum()
                    if column.requires_grad:
                        (second,) = torch.autograd.grad(column, x, retain_graph=True, materialize_grads=True)
                        laplacian = laplacian + weights[k] * second.flatten(1)[:, k]
                gradients.append(flat.detach())
                laplacians.append(laplacian.detach())
        slope = torch.stack(gradients, 1)
        drift = (slope * v.flatten(1)[:, None]).sum(-1) + torch.stack(laplacians, 1) / 2
        return q.detach(), drift, (slope * weights) @ slope.transpose(1, 2)

    def _factors(self) -> None:
        """Every polynomial as a product of few factors: which coordinates (slot, function), and their exponents."""
        rows = [[(m, n) for m, n in enumerate(row) if n > 0] for row in self.exponents.tolist()]
        n_slots = max(1, max(len(row) for row in rows))
        rows = [row + [(0, 0)] * (n_slots - len(row)) for row in rows]
        table = torch.tensor(rows, device=self.exponents.device)  # (function, slot, 2)
        self.which, self.power = table[..., 0].T, table[..., 1].T

    def _polynomials(
        self, q: Tensor, drift: Tensor | None = None, metric: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Products of Hermite polynomials and, with L q and the metric given, what L makes of them."""
        highest = int(self.exponents.max())
        powers = [torch.ones_like(q), q]
        for n in range(1, highest):
            powers.append(q * powers[n] - n * powers[n - 1])
        value = torch.stack(powers[: highest + 1], -1).flatten(1)  # (batch, m (highest + 1))
        index = self.which * (highest + 1) + self.power

        def pick(order: int) -> Tensor:
            """The derivative of this order of every factor, He_n' = n He_(n-1), (batch, slot, function)."""
            n = self.power.double()
            factor = torch.ones_like(n)
            for k in range(order):
                factor = factor * (n - k).clamp_min(0)
            return factor * value[:, (index - order).clamp_min(0)]

        T = pick(0)
        f = T.prod(1)
        slope = torch.zeros_like(f)
        if drift is None or metric is None:
            return f, slope
        first, second = pick(1), pick(2)
        slots = range(len(self.which))

        def others(*left_out: int) -> Tensor:
            rest = [T[:, s] for s in slots if s not in left_out]
            return torch.stack(rest).prod(0) if rest else torch.ones_like(f)

        for s in slots:
            m = self.which[s]
            slope = slope + (drift[:, m] * first[:, s] + metric[:, m, m] * second[:, s] / 2) * others(s)
            for t in range(s):
                slope = slope + metric[:, m, self.which[t]] * first[:, s] * first[:, t] * others(s, t)
        return f, slope

    def _bumps(self, q: Tensor, drift: Tensor | None = None, metric: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Gaussians in q, made even or odd under the mirrors."""
        if not len(self.centres):
            return (q[:, :0], q[:, :0])
        images, q = self._images(), q[:, self.main]  # (image, centre, m)
        away = (q[:, None, None] - images) / self.width
        g = (-away.square().sum(-1) / 2).exp()  # (batch, image, centre)
        if drift is None or metric is None:
            slope = torch.zeros_like(g)
        else:
            drift, metric = drift[:, self.main], metric[:, self.main][:, :, self.main]
            first = -(away * drift[:, None, None]).sum(-1) / self.width
            second = ((away @ metric[:, None]) * away).sum(-1) - torch.einsum("bmm->b", metric)[:, None, None]
            slope = g * (first + second / (2 * self.width**2))
        return self._project(g), self._project(slope)

    def _images(self) -> Tensor:
        """The centres and their mirror images, (image, centre, m)."""
        images = [self.centres]
        for sign in self.signs[:, self.main]:
            images = images + [sign * each for each in images]
        return torch.stack(images)

    def _project(self, g: Tensor) -> Tensor:
        """(batch, image, centre) to (batch, centre x sector): sum over images with the characters of each sector."""
        choices = list(itertools.product((0, 1), repeat=len(self.mirrors)))
        choices = [tuple(reversed(choice)) for choice in choices]  # the first mirror's bit changes fastest in `_images`
        table = g.new_tensor(
            [[float((c[list(map(bool, choice))]).prod()) for choice in choices] for c in self.characters]
        )
        return torch.einsum("bic,si->bcs", g, table).flatten(1)

    def names(self) -> list[str]:
        """For each sector of the mirrors, "even" or "odd" in what they change the sign of; "" without mirrors."""
        return [sector_name(self.mirrors, row) for row in self.sectors]

    def state_dict(self) -> dict[str, Tensor | float]:
        return {name: getattr(self, name) for name in ("location", "scale", "centres", "width")}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def sector_name(mirrors: Sequence[Mirror], signs: Tensor) -> str:
    """ "even", "odd" for a single mirror, "odd in x, even in y" for several."""
    words = ["even" if sign > 0 else "odd" for sign in signs.tolist()]
    if len(mirrors) == 1:
        return words[0]
    return ", ".join(f"{word} in {mirror.name}" for word, mirror in zip(words, mirrors, strict=True))


def _signs(raw: Tensor, mirrored: Tensor) -> Tensor | None:
    """+1 or -1 for every coordinate (m,) that a mirror leaves or negates; None if it does something else to one."""
    scale = 1e-6 * (raw.abs().amax(0) + 1e-12)
    even, odd = (mirrored - raw).abs().amax(0) < scale, (mirrored + raw).abs().amax(0) < scale
    if not bool((even | odd).all()):
        return None
    return torch.where(even, 1.0, -1.0).to(raw)


def _exponents(coordinates: Sequence[CollectiveCoordinate], degree: int) -> list[list[int]]:
    """All exponents (function, m) whose weighted degree is at most `degree`, lower degrees first.

    Raises:
        InputError: they are too many.
    """
    rows: list[list[int]] = [[]]
    for k, each in enumerate(coordinates):
        most = 1 if each.grows else degree
        rows = [
            [*row, n]
            for row in rows
            for n in range(most + 1)
            if sum(c.weight * p for c, p in zip(coordinates[: k + 1], [*row, n], strict=True)) <= degree
            and sum(p for c, p in zip(coordinates[: k + 1], [*row, n], strict=True) if c.grows) <= 1
        ]
        if len(rows) > 100 * MOST_FUNCTIONS:
            break
    rows.sort(key=lambda row: sum(c.weight * p for c, p in zip(coordinates, row, strict=False)))
    if len(rows) > MOST_FUNCTIONS:
        if degree > 1:
            return _exponents(coordinates, degree - 1)
        raise InputError(
            f"{len(coordinates)} coordinates make more than {MOST_FUNCTIONS} functions: give fewer coordinates"
        )
    return rows


def _spread(q: Tensor, signs: Tensor, n_centres: int) -> tuple[Tensor, float]:
    """Centres (centre, m) among the places q, each the farthest from those before, and the width of a bump.

    Mirror images count as the same place.
    """
    if n_centres == 0:
        return q[:0], 1.0
    images = [torch.ones_like(q[0])]
    for sign in signs:
        images = images + [sign * each for each in images]

    def away(centre: Tensor) -> Tensor:
        return torch.stack([(q - image * centre).norm(dim=-1) for image in images]).amin(0)

    chosen = [int(q.square().sum(-1).argmax())]
    distances = away(q[chosen[0]])
    while len(chosen) < n_centres:
        chosen.append(int(distances.argmax()))
        distances = torch.minimum(distances, away(q[chosen[-1]]))
    return q[chosen], BUMP_WIDTH * distances.max().item()


BUMP_WIDTH = 1.5  # in units of the largest distance left between a place and the next centre


# -- which coordinates -------------------------------------------------------------------------------------------------


def mirrors_of(system: System, walkers: Positions, log_psi: Callable[[Tensor], Tensor] | None = None) -> list[Mirror]:
    """The mirrors of every axis that leave V (and psi, if given) unchanged, or else the inversion of all axes.

    Args:
        system: potential and centre.
        walkers: (batch, particle, dim) where V is compared.
        log_psi: of positions, (batch,).
    """
    potential = system.potential
    dim, r = potential.n_dims, walkers.double()
    V = potential(r)
    scale = 1e-8 * (V.abs() + V.std() + 1e-12)

    def holds(mirror: Mirror) -> bool:
        if not bool(((potential(mirror(r)) - V).abs() < scale).all()):
            return False
        if log_psi is None:
            return True
        U = log_psi(walkers)
        return bool(((log_psi(mirror(walkers)) - U).abs() < MIRRORED * (1 + U.abs())).all())

    places = [torch.zeros(dim).to(r), system.centre.double().mean(0)]
    found = []
    for axis in range(dim):
        name = AXES[axis] if dim <= len(AXES) else f"x{axis + 1}"
        candidates = (Mirror(name, (axis,), centre) for centre in places)
        found += [mirror for mirror in candidates if holds(mirror)][:1]
    if not found and dim > 1:
        found = [mirror for centre in places if holds(mirror := Mirror("r", tuple(range(dim)), centre))][:1]
    return found


MIRRORED = 1e-4  # largest relative difference of log psi at a mirror image: rounding in float32


def coordinates_of(system: System, decay: float) -> list[CollectiveCoordinate]:
    """Coordinates for a system, the same for every choice of names among identical particles.

        one particle of its kind      its own x, y, z; sin and cos of them in a box
        several                       sum_i x_i and, of weight 2, sum_i x_i y_i
        any pairs                     the mean distance of two particles of the same two kinds, flat at 0
        nuclei                        sum_i of d_i, d_i^2, exp(k d_i), d_i exp(k d_i), x_i exp(k d_i)
        a single particle             exp(k d) without nuclei too

    with d_i the mean distance from the nuclei (or the centre), flat there, and k fractions of the rate at which psi
    decays: a state that is less bound than psi is an exponential times psi.

    Args:
        system: particles, groups, nuclei, box.
        decay: -d log psi / d r far out.
    """
    potential, dim = system.potential, system.shape[1]
    core = CORE * system.width.double().mean().item()
    names = [AXES[c] if dim <= len(AXES) else f"x{c + 1}" for c in range(dim)]
    found: list[CollectiveCoordinate] = []
    for members in potential.groups:
        who = list(members)
        if potential.box is not None:
            found += [
                _wave(who, c, names[c], potential.box[c], wave) for c in range(dim) for wave in (torch.sin, torch.cos)
            ]
            continue
        found += [_moment(who, (c,), names) for c in range(dim)]
        if potential.nuclei:
            found += _around(who, system.centre.new_tensor(potential.nuclei).double(), core, decay, powers=True)
        elif len(who) > 1:
            pairs = itertools.combinations_with_replacement(range(dim), 2)
            found += [_moment(who, pair, names) for pair in pairs]
    if potential.n_particles == 1 and not potential.nuclei and potential.box is None:
        found += _around([0], system.centre.double(), core, decay, powers=False)
    found += [_pair(pairs, core, potential) for pairs in _pair_kinds(potential)]
    return found


def places_of(system: System, walkers: Positions) -> Places:
    """Where excited states may live: the walkers, and twice as far from the centre wherever V is not above its highest.

    Args:
        system: potential and centre.
        walkers: (batch, particle, dim) from |psi|^2.
    """
    r = walkers.double()
    centre = system.centre.double()
    farther = centre + 2 * (r - centre)
    V = system.potential(farther)
    return torch.cat([r, farther[system.potential(r).max() >= V]])


def _moment(who: list[int], axes: tuple[int, ...], names: list[str]) -> CollectiveCoordinate:
    def function(r: Tensor) -> Tensor:
        product = r[:, who, axes[0]]
        for axis in axes[1:]:
            product = product * r[:, who, axis]
        return product.sum(-1)

    return CollectiveCoordinate(" ".join(names[axis] for axis in axes), function, weight=len(axes))


def _flat(x: Tensor, core: float) -> Tensor:
    """A distance that is quadratic at 0, so that it cannot spoil a cusp."""
    return (x.square().sum(-1) + core**2).sqrt() - core


def _wave(
    who: list[int], axis: int, name: str, period: float, wave: Callable[[Tensor], Tensor]
) -> CollectiveCoordinate:
    k = 2 * torch.pi / period
    return CollectiveCoordinate(f"{wave.__name__} {k:.3g} {name}", lambda r: wave(k * r[:, who, axis]).sum(-1))


def _around(who: list[int], points: Tensor, core: float, decay: float, powers: bool) -> list[CollectiveCoordinate]:
    """Radial coordinates around points (point, dim); of vectors the weight is 2: they multiply distances once."""

    def d(r: Tensor) -> Tensor:
        return _flat(r[:, who, None] - points, core).mean(-1)

    def growing(k: float, factor: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda r: (factor(r) * (k * d(r)).exp()).sum(-1)

    found = []
    if powers:
        found.append(CollectiveCoordinate("d", lambda r: d(r).sum(-1)))
        found.append(CollectiveCoordinate("d^2", lambda r: d(r).square().sum(-1), weight=2))
    for share in GROWTH:
        k = share * decay
        found.append(
            CollectiveCoordinate(f"exp({k:.2g} d)", growing(k, lambda r: torch.ones_like(r[:, who, 0])), grows=True)
        )
        if len(who) > 1:
            found.append(CollectiveCoordinate(f"d exp({k:.2g} d)", growing(k, d), grows=True))
            for c in range(points.shape[-1]):
                vector = growing(k, partial(_component, who=who, axis=c))
                found.append(CollectiveCoordinate(f"x{c + 1} exp({k:.2g} d)", vector, weight=2, grows=True))
    return found


def _component(r: Tensor, who: list[int], axis: int) -> Tensor:
    return r[:, who, axis]


def _pair_kinds(potential: Potential) -> list[list[tuple[int, int]]]:
    """Pairs of particles, grouped by the kinds of the two."""
    kind = {i: g for g, members in enumerate(potential.groups) for i in members}
    pairs: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for i, j in itertools.combinations(range(potential.n_particles), 2):
        pairs.setdefault((kind[i], kind[j]), []).append((i, j))
    return list(pairs.values())


def _pair(pairs: list[tuple[int, int]], core: float, potential: Potential) -> CollectiveCoordinate:
    i, j = ([pair[k] for pair in pairs] for k in range(2))
    box = potential.box

    def function(r: Tensor) -> Tensor:
        x = r[:, i] - r[:, j]
        if box is None:
            return _flat(x, core).mean(-1)
        return (1 - (2 * torch.pi / x.new_tensor(box) * x).cos()).sum(-1).mean(-1)

    return CollectiveCoordinate("u", function, weight=2)


def decay_rate(system: System, walkers: Positions, slope: Positions) -> float:
    """-d log psi / dr of the particle farthest out, over the farthest fiftieth of the walkers.

    Args:
        system: gives the centre.
        walkers: (batch, particle, dim).
        slope: grad log psi there.
    """
    away = walkers - system.centre
    d = distance(away)
    outermost = d.argmax(-1)
    batch = torch.arange(len(walkers), device=walkers.device)
    r, g = away[batch, outermost], slope[batch, outermost]
    far = d.amax(-1) >= d.amax(-1).quantile(1 - FAR)
    return float((-(r * g).sum(-1) / distance(r))[far].mean())
