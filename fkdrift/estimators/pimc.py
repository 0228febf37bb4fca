"""Path integral Monte Carlo: thermal averages of distinguishable particles or bosons, without a wavefunction.

    Z = Tr exp(-beta H) ~ sum over permutations p of int dR_1 ... dR_P exp(-K - U),      R_(P+1) = p R_1

`PimcSampler` runs many independent chains of ring polymers (path_integral.py has K and U).  Its moves, each made by all
chains at once:

stage       new free paths between beads that are m slices apart, all along the polymer at the same time; with beads
            m slices apart fixed, the pieces between them are independent, and each is accepted on its own;
displace    a whole ring (of all particles in one permutation cycle), or all particles together;
exchange    two identical particles swap their ends over the last m slices; the pair is drawn in proportion to the
            square root of what the swap changes the free weight by, and the ratio of two sums is left to be accepted;
wind        on a ring or torus, one particle's end moves by a period.

The origin of imaginary time is moved at random between sweeps.  Lengths m and displacements are tuned while
equilibrating only.

Energies are derivatives of u = -ln(integrand) when beta changes and paths are scaled about the centroid of their
cycle, r' = c + sqrt(beta'/beta) (r - c),

    u(beta') = (d n_c / 2) ln beta' + sum_i m_i |X_i|^2 / (2 beta' l_i^2) + U(r', beta'),
    E = <u'>,        C = beta^2 ( <u'^2> - <u'>^2 - <u''> ),

with n_c cycles, of l_i particles that wind by X_i in all (r - c is taken from the straight line of a winding path): the
centroid virial estimator.  The same with r' = r is the thermodynamic one, whose noise grows with P, but which holds
for hard walls and jumps of V too.

Reference: D. M. Ceperley, Rev. Mod. Phys. 67, 279 (1995); T. M. Yamamoto, J. Chem. Phys. 123, 104101 (2005) for the
scaled paths; G. Zanella, J. Am. Stat. Assoc. 115, 852 (2020) for the choice of the pair.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fkdrift.errors import BadConfig, InputError
from fkdrift.estimators.observables import ENERGY, Average, Averages, Observable, evaluate, has_virial
from fkdrift.estimators.path_integral import FOURTH_ORDER, Action, Parts, SliceAction, brownian_bridge
from fkdrift.estimators.state import saved
from fkdrift.hamiltonian.potential import Potential
from fkdrift.hamiltonian.system import System
from fkdrift.numerics.estimates import Estimate, from_walkers
from fkdrift.numerics.workers import ALONE, Workers
from fkdrift.tensor_types import Positions

RELATIVE_STEP = 1e-4  # of beta, in a central difference: error 1e-8 by truncation and, for u'', by rounding
ACCEPTED = 0.2  # pieces that are accepted less often than this are too long
N_LENGTHS = 2  # lengths of pieces in use after equilibration
HALF = 0.5  # acceptance of displacements that is aimed at
FARTHEST = 4.0  # displacement in a box, in standard deviations of a uniform density: about one period
LARGEST = 2**26  # coordinates of all beads of all chains, 0.5 GiB
APPROACH = (1e-2, 1e-4, 1e-6)  # distances at which V is looked at: -1/r falls by more than 10 times as much at the last
AT_ONCE = 2**20  # coordinates at which V is looked at together
AXES = {"positions": 0, "partner": 0, "winding": 0, "sums": 1, "cycles": 0}  # of the chains, in what is saved
MEDIAN_OF_CHI_SQUARE = 0.4549  # median of x^2 for a normal x of variance 1


def choose_slices(system: System, temperature: float, action: Action = FOURTH_ORDER) -> int:
    """P for the action's step at the stiffest coordinate, a multiple of twice the action's period.

    The stiffness is the larger of 1 / time_scale and of the frequency omega at which an oscillator's ground state has
    the forces met here, <|dV/dx|^2> = m omega^3 / 2.

    Args:
        system: whose trial function gives the positions.
        temperature: k_B T in units of energy.
        action: primitive or fourth-order.

    Example:
        >>> from fkdrift.hamiltonian.loading import load_potential
        >>> choose_slices(System(load_potential("harmonic"), torch.float64), 0.1)
        36
    """
    r = system.initial_walkers(512, torch.Generator(system.device).manual_seed(0)).requires_grad_()
    V = system.potential(r)
    force = torch.autograd.grad(V.sum(), r)[0].square().median(0).values if V.requires_grad else torch.zeros_like(r[0])
    omega = (2 * system.sigma.square() * force / MEDIAN_OF_CHI_SQUARE).max().item() ** (1 / 3)
    multiple = 2 * action.period
    wanted = max(omega, 1 / system.time_scale) / (temperature * action.step)
    return multiple * max(1, math.ceil(wanted / multiple))


def refuse_singular(potential: Potential) -> None:
    """Raise InputError where V falls without bound: beads of a discretised path collect there and never leave.

    V is looked at as particles approach the nuclei (or the origin), and each other.
    """
    if potential.domain is not None:
        return
    N, dim = potential.n_particles, potential.n_dims
    generator = torch.Generator().manual_seed(0)
    apart = torch.randn(N, dim, generator=generator, dtype=torch.float64)
    direction = torch.nn.functional.normalize(torch.randn(N, dim, generator=generator, dtype=torch.float64), dim=-1)
    nuclei = [torch.tensor(place, dtype=torch.float64) for place in potential.nuclei or [(0.0,) * dim]]
    some = sorted(i for group in potential.groups for i in group[:2])  # the others are like these
    meetings = [(i, target) for i in some for target in (*nuclei, *(apart[j] for j in some if j < i))]
    distances = torch.tensor(APPROACH, dtype=torch.float64)[:, None]
    at_once = max(1, AT_ONCE // apart.numel())
    for first in range(0, len(meetings), at_once):
        part = meetings[first : first + at_once]
        close = apart.repeat(len(part), len(APPROACH), 1, 1)
        for positions, (i, target) in zip(close, part, strict=True):
            positions[:, i] = target + distances * direction[i]
        far, near, nearest = potential(close.flatten(0, 1)).reshape(-1, len(APPROACH)).T
        if not bool((nearest < near - 10 * (near - far).abs()).any()):
            continue
        raise InputError(
            f"path integral Monte Carlo needs a V that is bounded below, and that of {potential.name} falls to "
            "-infinity where particles meet nuclei or each other: use solve, whose trial function removes singularities"
        )


@dataclass(frozen=True)
class Thermal:
    """Thermal averages at one temperature and one number of slices.

    Args:
        energy: <H>, by the estimator named in `estimator`.
        specific_heat: d<H>/dT, in units of k_B.
        thermodynamic: <H> by the thermodynamic estimator.
        potential, kinetic: <V> and <H> - <V>.
        estimator: "centroid virial" or "thermodynamic".
        observables: everything else, by name.
        cycles: for identical particles, the share of particles in permutation cycles of 1, 2, ... particles.
        acceptance: of each move.
    """

    energy: Estimate
    specific_heat: Estimate
    thermodynamic: Estimate
    potential: Estimate
    kinetic: Estimate
    estimator: str
    observables: dict[str, Average]
    cycles: tuple[Estimate, ...]
    acceptance: dict[str, float]


class PimcSampler:
    """Independent chains of path integral Monte Carlo at one temperature.

    Args:
        system: potential, masses, groups of identical particles (bosons) and box, in float64.
        walkers: (chain, particle, dim) where the paths start.
        temperature: k_B T in units of energy.
        n_slices: P, a multiple of the action's period; chosen by `choose_slices` if not given.
        action: primitive or fourth-order.
        observables: functions of the positions to average, beside V.
        n_sweeps: sweeps in a block, which is measured once; 2 and 2 for each particle if not given.
        n_equilibration: blocks to discard first; moves are tuned during these only.
        workers: that share the chains.

    Attributes:
        n_blocks: counted blocks; negative while equilibrating.
        positions: (chain, slice, particle, dim).
        partner: (chain, particle), the particle whose first bead follows the last bead of each.
        winding: (chain, particle, dim), by how many periods that bead is moved; 0 in open space.
        trace: mean energy over the chains of each counted block.

    Raises:
        BadConfig: the temperature or the number of slices is not allowed.
        InputError: V is not bounded below.

    Example (harmonic oscillator; exactly coth(1) / 2 = 0.656518):
        >>> from fkdrift.hamiltonian.loading import load_potential
        >>> system = System(load_potential("harmonic"), torch.float64)
        >>> sampler = PimcSampler(system, system.initial_walkers(64, g), temperature=0.5, n_equilibration=10)
        >>> for _ in range(30):
        ...     sampler.advance(g)
        >>> abs(sampler.thermal().energy.deviation(0.656518)) < 3
        True
    """

    def __init__(
        self,
        system: System,
        walkers: Positions,
        *,
        temperature: float,
        n_slices: int | None = None,
        action: Action = FOURTH_ORDER,
        observables: Sequence[Observable] = (),
        n_sweeps: int | None = None,
        n_equilibration: int = 40,
        workers: Workers = ALONE,
    ) -> None:
        self.workers = workers
        if not (math.isfinite(temperature) and temperature > 0):
            raise BadConfig(
                f"temperature = {temperature!r} is not allowed: it must be finite and above 0, in units of energy "
                "(k_B = 1); for the ground state use solve"
            )
        potential = system.potential
        if potential.free and potential.box is None:
            raise InputError(
                f"{potential.name} is free: at any temperature its particles end up apart from each other; add a "
                "term that confines them, or use solve for the ground state"
            )
        refuse_singular(potential)
        P = choose_slices(system, temperature, action) if n_slices is None else n_slices
        if P < 1 or P % action.period:
            allowed = "an even number of at least 2" if action.period == 2 else "at least 1"
            raise BadConfig(f"n_slices = {P} is not allowed: the {action.name} action needs {allowed}")
        if P * walkers.numel() > LARGEST:
            raise BadConfig(
                f"{P:.3g} slices for {len(walkers)} chains at temperature = {temperature:g} are more than memory is "
                "for: take a higher temperature, fewer chains or fewer slices; for the ground state use solve"
            )
        self.system, self.action, self.n_slices, self.n_blocks = system, action, P, -n_equilibration
        self.beta, self.tau = 1 / temperature, 1 / (temperature * P)
        self.n_sweeps = 2 + 2 * potential.n_particles if n_sweeps is None else n_sweeps
        self.variance = system.sigma.square()
        self.slice_action = SliceAction(potential, action, self.variance)
        self.pairs = _identical_pairs(potential, system.device)
        self.period = None if potential.box is None else walkers.new_tensor(potential.box)
        everyone = workers.gather(walkers)
        smooth = potential.domain is None and (self.period is not None or has_virial(potential, everyone))
        self.estimator = "centroid virial" if smooth else "thermodynamic"
        # the state
        C, N, _ = walkers.shape
        self.positions = walkers[:, None].repeat(1, P, 1, 1)
        self.partner = torch.arange(N, device=walkers.device).repeat(C, 1)
        self.winding = torch.zeros_like(walkers)
        self.first = 0  # kind of the first slice
        self.parts = self.slice_action(self.positions)
        lengths = sorted({min(action.period * 2**k, P) for k in range(P.bit_length())})
        self.lengths = {
            name: [m for m in lengths if m > 1 or name != "stage"] for name in ("stage", "exchange", "wind")
        }
        self.stride = walkers.new_ones(2)
        self.tried: dict[str, int] = {}
        self.accepted: dict[str, float] = {}
        self.averages = Averages(observables, C, walkers.device, workers)
        self.sums = walkers.new_zeros(5, C)
        self.cycles = walkers.new_zeros(C, N)
        self.trace: list[float] = []

    # -- a block -------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def advance(self, generator: torch.Generator) -> None:
        """Run one block of sweeps and, once equilibrated, measure."""
        before = dict(self.accepted)
        for _ in range(self.n_sweeps):
            self._rotate(self._random(self.n_slices, generator))
            for m in self.lengths["stage"]:
                self._stage(m, generator)
            for together in range(1 + (self.positions.shape[2] > 1)):
                self._displace(bool(together), generator)
            if self.pairs is not None:
                for m in self.lengths["exchange"]:
                    self._exchange(m, generator)
            if self.period is not None:
                for m in self.lengths["wind"]:
                    self._wind(m, generator)
        self._wrap()
        self._agree_on_acceptance(before)
        if self.n_blocks >= 0:
            self._measure()
        self.n_blocks += 1
        if self.n_blocks == 0:
            self._tune()

    def _random(self, n: int, generator: torch.Generator) -> int:
        """A number below n, the same for all chains."""
        return int(self.workers.first(torch.randint(n, (), generator=generator, device=generator.device)))

    def _uniform(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """log of uniform random numbers."""
        return torch.rand(shape, generator=generator, dtype=self.positions.dtype, device=self.positions.device).log()

    def _count(self, move: str, accept: Tensor) -> None:
        self.tried[move] = self.tried.get(move, 0) + 1
        self.accepted[move] = self.accepted.get(move, 0.0) + accept.double().mean().item()

    def _agree_on_acceptance(self, before: Mapping[str, float]) -> None:
        """Add the mean over all workers to what was accepted before this block, in place of what was here."""
        if self.workers.size > 1:
            old = torch.tensor([before.get(move, 0.0) for move in self.accepted], dtype=torch.float64)
            now = torch.tensor(list(self.accepted.values()), dtype=torch.float64)
            mean = self.workers.accumulated(old, now, len(self.positions)).tolist()
            self.accepted = dict(zip(self.accepted, mean, strict=True))

    def _tune(self) -> None:
        """Keep the longest pieces that are accepted often enough, and forget the acceptance of equilibration."""
        rate = {move: self.accepted[move] / n for move, n in self.tried.items()}
        for name, lengths in self.lengths.items():
            tried = [m for m in lengths if f"{name} {m}" in rate]
            if name == "stage":
                good = [m for m in tried if rate[f"{name} {m}"] > ACCEPTED] or tried[:1]
                self.lengths[name] = good[-N_LENGTHS:]
            elif tried:
                self.lengths[name] = sorted(tried, key=lambda m: rate[f"{name} {m}"])[-N_LENGTHS:]
        self.tried, self.accepted = {}, {}

    # -- moves ---------------------------------------------------------------------------------------------------------

    def _ends(self) -> Tensor:
        """The beads that follow the last ones, (chain, particle, dim)."""
        ends = _of_particle(self.positions[:, 0], self.partner)
        return ends if self.period is None else ends + self.period * self.winding

    def _rotate(self, k: int) -> None:
        """Begin k slices later; the paths stay what they are."""
        if k == 0:
            return
        index = self.partner[:, None, :, None].expand(-1, k, -1, self.positions.shape[-1])
        later = self.positions[:, :k].gather(2, index)
        if self.period is not None:
            later = later + (self.period * self.winding)[:, None]
        self.positions = torch.cat([self.positions[:, k:], later], 1)
        self.parts = Parts(*(part.roll(-k, 1) for part in self.parts))
        self.first = (self.first + k) % self.action.period

    def _wrap(self) -> None:
        """Bring the first beads back into the box, with their paths."""
        if self.period is None:
            return
        shift = (self.positions[:, 0] / self.period).floor()
        self.positions = self.positions - (self.period * shift)[:, None]
        self.winding = self.winding - shift + _of_particle(shift, self.partner)

    def _stage(self, m: int, generator: torch.Generator) -> None:
        """One particle's path made anew between all beads m slices apart; pieces are accepted one by one."""
        C, P, N, dim = self.positions.shape
        n = P // m
        particle = torch.randint(N, (C, n), generator=generator, device=self.positions.device)
        edges = self.positions[:, : n * m : m]
        after = self.positions[:, n * m] if n * m < P else self._ends()
        start = _of_particle(edges.flatten(0, 1), particle.reshape(-1, 1))[:, 0]
        end = _of_particle(torch.cat([edges[:, 1:], after[:, None]], 1).flatten(0, 1), particle.reshape(-1, 1))[:, 0]
        path = brownian_bridge(start, end, m, self.tau * self.variance[particle.flatten(), 0], generator)
        old = self.positions[:, : n * m].reshape(C * n, m, N, dim)[:, 1:]
        moved = torch.nn.functional.one_hot(particle.flatten(), N).bool()[:, None, :, None]
        proposal = path[:, :, None, :].where(moved, old)
        parts = self.slice_action(proposal, (self.first + 1) % self.action.period)
        before = Parts(*(part[:, : n * m].reshape(C * n, m)[:, 1:] for part in self.parts))
        change = (parts.action(self.tau) - before.action(self.tau)).sum(-1)
        accept = self._uniform(change.shape, generator) < -change
        self.positions[:, : n * m].view(C, n, m, N, dim)[:, :, 1:] = proposal.where(
            accept[:, None, None, None], old
        ).view(C, n, m - 1, N, dim)
        for part, new, was in zip(self.parts, parts, before, strict=True):
            part[:, : n * m].view(C, n, m)[:, :, 1:] = new.where(accept[:, None], was).view(C, n, m - 1)
        self._count(f"stage {m}", accept)

    def _displace(self, together: bool, generator: torch.Generator) -> None:
        """Move all particles of one cycle, or all particles, by the same vector at all times."""
        C, _, N, dim = self.positions.shape
        device = self.positions.device
        scale = self.stride[int(together)] * 4 ** (
            2 * torch.rand(C, 1, 1, generator=generator, dtype=self.positions.dtype, device=device) - 1
        )
        if together:
            width, moved = self.system.width.mean(0), torch.ones(C, N, 1, dtype=torch.bool, device=device)
        else:
            j = torch.randint(N, (C, 1), generator=generator, device=device)
            width, moved = (
                _of_particle(self.system.width.expand(C, N, dim), j),
                torch.zeros(C, N, 1, dtype=torch.bool, device=device),
            )
            for _ in range(N):
                moved.scatter_(1, j[..., None], True)
                j = self.partner.gather(1, j)
        shift = scale * width * torch.randn(C, 1, dim, generator=generator, dtype=self.positions.dtype, device=device)
        proposal = self.positions + (shift * moved)[:, None]
        parts = self.slice_action(proposal, self.first)
        change = (parts.action(self.tau) - self.parts.action(self.tau)).sum(-1)
        accept = self._uniform(change.shape, generator) < -change
        self.positions = proposal.where(accept[:, None, None, None], self.positions)
        self.parts = Parts(*(new.where(accept[:, None], was) for new, was in zip(parts, self.parts, strict=True)))
        self._count("displace all" if together else "displace ring", accept)
        if self.n_blocks < 0:
            rate = self.workers.average(accept.double().mean(), len(accept)).item()
            self.stride[int(together)] *= math.exp(rate - HALF)
            if self.period is not None:
                self.stride.clamp_(max=FARTHEST)

    def _exchange(self, m: int, generator: torch.Generator) -> None:
        """Swap the ends of two identical particles over the last m slices."""
        assert self.pairs is not None
        i, j = self.pairs
        start, end = self.positions[:, self.n_slices - m], self._ends()
        T = self._swap_weights(start, end, m)
        pair = torch.multinomial((T - T.max(1, keepdim=True).values).exp(), 1, generator=generator)[:, 0]
        chosen = torch.stack([i[pair], j[pair]], 1)
        swapped = torch.arange(end.shape[1], device=end.device).repeat(len(end), 1).scatter(1, chosen, chosen.flip(1))
        new_end = _of_particle(end, swapped)
        log_ratio = T.logsumexp(1) - self._swap_weights(start, new_end, m).logsumexp(1)
        accept = self._reconnect(chosen, start, new_end, m, log_ratio, generator)
        self.partner = self.partner.gather(1, swapped).where(accept[:, None], self.partner)
        self.winding = _of_particle(self.winding, swapped).where(accept[:, None, None], self.winding)
        self._count(f"exchange {m}", accept)

    def _swap_weights(self, start: Tensor, end: Tensor, m: int) -> Tensor:
        """Half of the log of what swapping the ends of each pair changes the free weight by, (chain, pair)."""
        assert self.pairs is not None
        i, j = self.pairs
        squares = (start[:, :, None] - end[:, None]).square().sum(-1)
        change = squares[:, i, j] + squares[:, j, i] - squares[:, i, i] - squares[:, j, j]
        return -change / (4 * m * self.tau * self.variance[i, 0])

    def _wind(self, m: int, generator: torch.Generator) -> None:
        """Move the end of one particle by a period, over the last m slices."""
        assert self.period is not None
        C, _, N, dim = self.positions.shape
        device = self.positions.device
        particle = torch.randint(N, (C, 1), generator=generator, device=device)
        axis = torch.randint(dim, (C, 1, 1), generator=generator, device=device)
        sign = (2 * torch.randint(2, (C, 1, 1), generator=generator, device=device) - 1).to(self.winding)
        turn = torch.zeros_like(self.winding[:, :1]).scatter(2, axis, sign)
        turns = torch.zeros_like(self.winding).scatter(1, particle[..., None].expand(-1, -1, dim), turn)
        start, end = self.positions[:, self.n_slices - m], self._ends()
        new_end = end + self.period * turns
        change = ((new_end - start).square() - (end - start).square()).sum(-1) / (
            2 * m * self.tau * self.variance[:, 0]
        )
        accept = self._reconnect(particle, start, new_end, m, -change.sum(-1), generator)
        self.winding = torch.where(accept[:, None, None], self.winding + turns, self.winding)
        self._count(f"wind {m}", accept)

    def _reconnect(
        self, chosen: Tensor, start: Tensor, end: Tensor, m: int, log_ratio: Tensor, generator: torch.Generator
    ) -> Tensor:
        """New paths of the chosen particles over the last m slices, to other ends; returns what is accepted, (chain,).

        Args:
            chosen: (chain, k) particles.
            start, end: (chain, particle, dim) where the paths begin, and where they are to end.
            m: links.
            log_ratio: (chain,) log of the ratio of free weights and of proposals.
            generator: source of the noise.
        """
        if m == 1:
            return self._uniform(log_ratio.shape, generator) < log_ratio
        dim = self.positions.shape[-1]
        path = brownian_bridge(
            _of_particle(start, chosen), _of_particle(end, chosen), m, self.tau * self.variance[chosen, 0], generator
        )
        inside = slice(self.n_slices - m + 1, None)
        old = self.positions[:, inside]
        index = chosen[:, None, :, None].expand(-1, m - 1, -1, dim)
        proposal = old.scatter(2, index, path.transpose(1, 2))
        parts = self.slice_action(proposal, (self.first + self.n_slices - m + 1) % self.action.period)
        before = Parts(*(part[:, inside] for part in self.parts))
        change = (parts.action(self.tau) - before.action(self.tau)).sum(-1)
        accept = self._uniform(change.shape, generator) < log_ratio - change
        self.positions[:, inside] = proposal.where(accept[:, None, None, None], old)
        for part, new, was in zip(self.parts, parts, before, strict=True):
            part[:, inside] = new.where(accept[:, None], was)
        return accept

    # -- estimators ----------------------------------------------------------------------------------------------------

    def _measure(self) -> None:
        """Add up energies, observables and cycles of the present paths."""
        length, virial, thermodynamic = self._energies()
        u, curvature = virial if self.estimator == "centroid virial" else thermodynamic
        structural = self.positions[:, (-self.first) % self.action.period :: self.action.period]
        C, S = structural.shape[:2]
        flat = structural.flatten(0, 1)
        V = (
            self.parts.potential[:, (-self.first) % self.action.period :: self.action.period].mean(1)
            / self.action.weights[0]
        )
        self.averages.add_values(u, evaluate(self.averages.observables, flat).reshape(C, S, -1).mean(1))
        self.sums += torch.stack([u, u.square(), curvature, thermodynamic[0], V])
        self.cycles += torch.nn.functional.one_hot(length - 1, length.shape[1]).to(self.cycles).mean(1)
        self.trace.append(self.workers.average(u.mean(), len(u)).item())

    def _energies(self) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """l of each particle; u' and u'' (chain,) by the centroid virial and by the thermodynamic estimator."""
        beta, P = self.beta, self.n_slices
        _, _, N, dim = self.positions.shape
        length, centre, turn = self._cycles()
        slices = torch.arange(P, device=centre.device, dtype=centre.dtype)[:, None]
        line = (
            centre[:, None]
            + turn[:, None] * ((slices - (length[:, None] * P - 1) / 2) / (length[:, None] * P))[..., None]
        )
        deviation = self.positions - line
        n_centroids = dim * (1 / length).sum(-1)
        winding = (turn.square().sum(-1) / (2 * length.square() * self.variance[:, 0])).sum(-1)

        def scaled(ratio: float) -> Tensor:
            paths = line + math.sqrt(ratio) * deviation
            return self.slice_action(paths, self.first).action(ratio * self.tau).sum(-1)

        h = RELATIVE_STEP
        U, above, below = self.parts.action(self.tau).sum(-1), scaled(1 + h), scaled(1 - h)
        virial = (
            n_centroids / (2 * beta) - winding / beta**2 + (above - below) / (2 * h * beta),
            -n_centroids / (2 * beta**2) + 2 * winding / beta**3 + (above - 2 * U + below) / (h * beta) ** 2,
        )
        links = torch.cat([self.positions[:, 1:], self._ends()[:, None]], 1) - self.positions
        K = (links.square().sum(-1) / (2 * self.tau * self.variance[:, 0])).sum((-2, -1))
        A, B = (part.mean(1) for part in self.parts)
        thermodynamic = (
            dim * N * P / (2 * beta) - K / beta + A + 3 * self.tau**2 * B,
            -dim * N * P / (2 * beta**2) + 2 * K / beta**2 + 6 * self.tau**2 / beta * B,
        )
        return length, virial, thermodynamic

    def _cycles(self) -> tuple[Tensor, Tensor, Tensor]:
        """For each particle: particles in its cycle (chain, particle); the centroid, and by how much it winds.

        The centroid is that of the unwrapped cycle which begins with this particle, (chain, particle, dim).
        """
        mean = self.positions.mean(1)
        own = torch.arange(mean.shape[1], device=mean.device).expand_as(self.partner)
        j, is_open = own, torch.ones_like(self.partner, dtype=torch.bool)
        length, total, turn = torch.zeros_like(own), torch.zeros_like(mean), torch.zeros_like(mean)
        for _ in range(mean.shape[1]):
            length = length + is_open
            total = total + is_open[..., None] * (_of_particle(mean, j) + turn)
            if self.period is not None:
                turn = turn + is_open[..., None] * self.period * _of_particle(self.winding, j)
            j = self.partner.gather(1, j)
            is_open = is_open & (j != own)
        return length, total / length[..., None], turn

    @property
    def energy(self) -> Estimate:
        """<H> of the counted blocks, of which there must be at least one."""
        u, square = self.workers.gather(self.sums[:2], 1) / self.n_blocks
        return from_walkers(u, (square.mean() - u.mean() ** 2).item())

    def thermal(self) -> Thermal:
        """What the counted blocks give; there must be at least one."""
        u, square, curvature, thermodynamic, V = self.workers.gather(self.sums, 1) / self.n_blocks
        E = u.mean()
        heat = self.beta**2 * (square - 2 * E * u + E**2 - curvature)
        moves = {move: self.accepted[move] / n for move, n in self.tried.items()}
        observables = {name: each for name, each in self.averages.estimates().items() if name != ENERGY}
        return Thermal(
            energy=self.energy,
            specific_heat=from_walkers(heat),
            thermodynamic=from_walkers(thermodynamic),
            potential=from_walkers(V),
            kinetic=from_walkers(u - V),
            estimator=self.estimator,
            observables=observables,
            cycles=tuple(from_walkers(share) for share in (self.workers.gather(self.cycles) / self.n_blocks).T)
            if self.pairs is not None
            else (),
            acceptance=moves,
        )

    # -- saving --------------------------------------------------------------------------------------------------------

    SAVED = (
        "positions",
        "partner",
        "winding",
        "first",
        "lengths",
        "stride",
        "tried",
        "accepted",
        "sums",
        "cycles",
        "trace",
        "n_blocks",
    )

    def state_dict(self) -> dict[str, Any]:
        gather = self.workers.gather
        return saved(self, self.SAVED, AXES, self.workers) | {
            "parts": {"potential": gather(self.parts.potential), "force": gather(self.parts.force)},
            "averages": self.averages.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.SAVED:
            value, like = state[name], getattr(self, name)
            value = self.workers.own(value, AXES[name]) if name in AXES else value
            setattr(self, name, value.to(like, copy=True) if isinstance(value, Tensor) else copy.deepcopy(value))
        parts = (self.workers.own(state["parts"][name]) for name in Parts._fields)
        self.parts = Parts(*(part.to(self.positions, copy=True) for part in parts))
        self.averages.load_state_dict(state["averages"])


def _of_particle(values: Tensor, particle: Tensor) -> Tensor:
    """values (batch, particle, dim) of chosen particles (batch, k): (batch, k, dim)."""
    return values.gather(1, particle[..., None].expand(-1, -1, values.shape[-1]))


def _identical_pairs(potential: Potential, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """All pairs i < j within groups of identical particles, (pair,) each; None if there are none."""
    pairs = [pair for members in potential.groups for pair in itertools.combinations(members, 2)]
    if not pairs:
        return None
    i, j = torch.tensor(pairs, device=device).T
    return i, j
