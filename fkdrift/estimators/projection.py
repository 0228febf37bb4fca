"""The exact energy by projection: the trajectories of the learned drift, reweighted to the Feynman-Kac measure.

Walkers follow Metropolis-adjusted steps of dr = v dt + sigma dB, v = sigma^2 grad log psi, and carry the weights

    w  <-  w exp( -dt_eff ( (E_L(r) + E_L(r')) / 2 - E_ref ) ).

Their weighted density goes to psi phi_0 with projection time, like exp(-gap t), whatever psi > 0 is: what the network
missed is projected out, and

    mixed:   E_0 = E[w E_L] / E[w],            growth:   E_0 = E_ref - d/dt log E[w]

are both exact for a nodeless ground state.  A free drift has no psi: its weights are exp(-l_T) along Euler-Maruyama
paths, and E_L is the killing rate of the reference.  Four things keep the number honest.

- The step.  One step is 1 + dt (generator) where it should be exp(dt generator), so E(dt) = E_0 + a dt + b dt^2, with
  a between a third of <(E_L - E_0)^2> / 2 and twice that (docs/projection.md): nothing where psi is exact.  Steps dt,
  dt/2 and dt/4 run side by side; the fit to dt = 0 knows how large a can be, and its error includes what it does not
  know.  dt_eff = dt times the accepted share of the squared displacement; E_L is limited to +- c / sqrt(dt) in the
  weights alone, which goes away with dt.
- Weights that are nearly equal need no populations.  As long as effective shares are large, walkers stay independent
  chains of |psi|^2, each weighed by its own last projection time, and the difference to their plain mean is what is
  estimated: E = <E_L> + (<w E_L>/<w> - <E_L>).  The first term has the little noise of everything that was sampled
  from |psi|^2, the second next to none; neither has any bias of a population, and the step's is in the second alone.
  Chains of |psi|^2 are reversible, so that E_L at the beginning of a projection time counts like that at its end: no
  block is spent on projecting alone.
- The population.  Where weights are too unequal for that, independent populations are resampled, each by itself, when
  their effective sample size falls below half.  The mean weight that resampling throws away is kept over the last
  projection time as the weight of the population, which removes the bias of a finite population; what is left is
  bounded by halving that window.
- The projection time.  Nothing counts but with a whole one beside it, and the trend of what is counted is tested.
- The noise.  Populations never meet, so their spread gives the error; series are blocked within them.

Workers have a share of the walkers of every population each: the sums of a block are reduced once, and resampling
sends only those copies elsewhere for which there is no place where they came from.

Observables come as mixed estimates, of psi phi_0, and as pure ones, of phi_0^2: a walker carries what its ancestors
were worth (forward walking), and the average over today's weights is flat in the lag once it is pure.

Reference: C. J. Umrigar, M. P. Nightingale and K. J. Runge, J. Chem. Phys. 99, 2865 (1993); M. Calandra Buonaura and
S. Sorella, Phys. Rev. B 57, 11446 (1998); J. Casulleras and J. Boronat, Phys. Rev. B 52, 3654 (1995).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fkdrift.errors import BadParameter, ComputationError, DivergedPath
from fkdrift.estimators.observables import Average, Observable, evaluate
from fkdrift.estimators.state import restore, saved
from fkdrift.numerics.estimates import Estimate, blocked_error, rounding_error
from fkdrift.numerics.extrapolation import Extrapolation, extrapolate
from fkdrift.numerics.resampling import systematic
from fkdrift.numerics.workers import balanced
from fkdrift.paths.process import Process
from fkdrift.tensor_types import PerWalker, Positions
from fkdrift.wavefunction.local_energy import local_quantities
from fkdrift.wavefunction.protocol import Wavefunction

LEVELS = 3
LONGEST_STEP = 1 / 8  # of the time scale, for the coarsest of the steps dt, dt/2, dt/4
COARSE_ACCEPTANCE = 0.9  # that the coarsest step is chosen for; smooth potentials reach it at the longest step
STEPS_IN_BLOCK = 16
MOST_STEPS = 2048  # of the finest dt in a projection time, which is cut short where dt is that small
PROJECTION_SCALES, MOST_SCALES = 6, 20  # projection time in units of the time scale, unless a gap is given; at most
LEFT = 1e-3  # of the excess energy, after a projection time of log(1 / LEFT) / gap
SETTLING_BLOCKS = 8
N_WALKERS, N_POPULATIONS = 6144, 16  # of all steps together; populations of each step
INDEPENDENT_ABOVE = 0.3  # effective share in every population, or walkers cannot stay independent chains
RESAMPLE_BELOW = 0.5  # effective share of a population
LIMIT = 3.0  # of |E_L - E_ref| in the weights, in units of 1 / sqrt(dt time_scale)
LONGEST_DRIFT = 2.0  # |v| sqrt(dt) / sigma of one particle beyond which a proposal would overshoot
N_LAGS = 16  # blocks that forward walking remembers
FORWARD_SCALES = 4  # forward walking over so many time scales, where the memory reaches that far
MINIMUM_BLOCKS = 32  # counted before an error bar is reliable
SLOPE = 1.5  # how far a can be from half the mixed variance of E_L, relative to it
CURVATURE = 16.0  # b over a, in units of 1 / time_scale: smooth wells show 3 at most, cusps at nuclei 11
SPREAD = 3.0  # the same of a free drift; and a of an observable, in units of its bias
SAVED = (
    "settling",
    "projection_time",
    "independent",
    "dt",
    "reference",
    "start_energy",
    "log_weights",
    "moves",
    "sums",
    "plain",
    "weights",
)
AXES = {"log_weights": 2}
"""Of the walkers, in what is saved."""
SERIES = ("energy", "square", "weight", "growth", "share", "start", "plain", "energy_before", "weight_before")
"""Of a block: mean of w E_L, of w (E_L - E_ref)^2 and of w over walkers and steps, log growth of the mean weight, the
effective share of walkers at its end, the mean weight at its beginning, and the mean of E_L without weights; of
independent walkers the mean of w E_L and of w in the block one projection time ago, w being of what came after it."""


@dataclass(frozen=True)
class Trace:
    """How the energy falls with projection time, over all populations of the coarsest step.

    Args:
        time: of the end of each block, since the weights were switched on.
        energy, error: (block,), the mixed estimate of each block alone.
        effective_share: (block,), smallest over populations, of walkers.
    """

    time: list[float]
    energy: list[float]
    error: list[float]
    effective_share: list[float]


@dataclass(frozen=True)
class ProjectedEnergy:
    """The projected energy and all that is needed to judge it.

    Args:
        energy: at zero step, with statistical and model error: the mixed estimate, or for a free drift growth.
        mixed, growth: both, each at zero step.
        variational: over |psi|^2, of all walkers as long as they are independent chains, otherwise of where they began;
            None for a free drift.
        independent: whether walkers stayed independent chains; otherwise populations were resampled.
        variance: of E_L over psi phi_0, at the finest step.
        time_steps: effective steps, coarsest first.
        by_time_step, growth_by_time_step: at each of them.
        fit: of the headline.
        population_bias: what weighing the populations changed (removed), and what halving its window would change
            (left over); both at the coarsest step.
        trend: second half of what was counted minus the first, at zero step of the weighted mean of all steps.
        effective_share: mean over blocks of the effective share of walkers; least seen in any population.
        population_share: effective share of populations under their own weights.
        acceptance: of each step; None for a free drift.
        projection_time, counted_time: of the coarsest step, in the potential's unit of time.
        n_populations, n_walkers: of each step.
    """

    energy: Estimate
    mixed: Estimate
    growth: Estimate
    variational: Estimate | None
    independent: bool
    variance: float
    time_steps: tuple[float, ...]
    by_time_step: tuple[Estimate, ...]
    growth_by_time_step: tuple[Estimate, ...]
    fit: Extrapolation
    population_bias: tuple[Estimate, Estimate]
    trend: Estimate
    effective_share: tuple[float, float]
    population_share: float
    acceptance: tuple[float, ...] | None
    projection_time: float
    counted_time: float
    n_populations: int
    n_walkers: int


class Projection:
    """Populations of weighted walkers at three step sizes.

    Args:
        process: the trained process, with any drift.
        walkers: (batch, particle, dim) starting positions; copied, or a part of them used, as needed.
        time_scale: of the system.
        observables: averaged beside the energy, mixed and pure.
        gap: E_1 - E_0 where something is known of it: the projection time is then log(1 / left) / gap.
        left: the part of the excess energy that may be left.
        longest: projection time, in units of the time scale.
        n_walkers: of all steps and populations together.
        n_populations: independent populations of each step size.
        n_steps: steps in a block.
        variational: the mean local energy over |psi|^2 from other walkers, where these alone would know it less well;
            may also be set later.
        averages: of the observables over |psi|^2, likewise.
        n_settling: blocks without weights, for tuning the step and forgetting the start.

    Attributes:
        n_blocks: counted blocks; negative while settling and projecting.

    Raises:
        BadParameter: too few walkers or populations.

    Example (harmonic oscillator with a drift that is wrong by a factor: 1 / 2 all the same):
        >>> system = fk.System(fk.load_potential("harmonic"), torch.float64)
        >>> psi = fk.AutogradWavefunction(lambda r: -0.2 * r.square().sum((-2, -1)), system)
        >>> walkers = system.initial_walkers(64, g)
        >>> projection = Projection(Process(psi, system), walkers, time_scale=1.0, gap=2.0, n_steps=8)
        >>> while projection.n_blocks < 4:
        ...     projection.advance(g)
        >>> print(projection.energy().energy)
        0.503(2)
    """

    def __init__(
        self,
        process: Process,
        walkers: Positions,
        *,
        time_scale: float,
        observables: Sequence[Observable] = (),
        gap: float | None = None,
        left: float = LEFT,
        longest: float = MOST_SCALES,
        n_walkers: int = N_WALKERS,
        n_populations: int = N_POPULATIONS,
        n_steps: int = STEPS_IN_BLOCK,
        variational: Estimate | None = None,
        averages: Mapping[str, Average] | None = None,
        n_settling: int = SETTLING_BLOCKS,
    ) -> None:
        n_members = n_walkers // (LEVELS * max(n_populations, 1))
        self.workers, least = process.workers, max(2, process.workers.size)
        if n_populations < 2 or n_members < least or n_steps < 1:
            raise BadParameter(
                f"n_walkers = {n_walkers}, n_populations = {n_populations}, n_steps = {n_steps} is not allowed: the "
                f"error needs at least 2 populations of {least} walkers at each of {LEVELS} step sizes, so "
                f"n_walkers >= {LEVELS * least * max(2, n_populations)}"
            )
        self.process, self.observables, self.time_scale, self.n_steps = process, tuple(observables), time_scale, n_steps
        self.free = not isinstance(process.drift, Wavefunction)
        wanted = PROJECTION_SCALES * time_scale if gap is None else math.log(1 / left) / gap
        self.projection_time = min(wanted, longest * time_scale)
        self.n_members, self.shape = n_members, (LEVELS, n_populations, self.workers.count(n_members))
        zeros = partial(torch.zeros, dtype=torch.float64, device=walkers.device)
        n, n_columns = math.prod(self.shape), evaluate(observables, walkers[:1]).shape[1]
        self.start = walkers[torch.arange(n, device=walkers.device) % len(walkers)]
        self.walkers: dict[str, Tensor] = {}
        self.variational, self.independent = variational, not self.free
        self.known = dict(averages or {})
        self.increments: list[Tensor] = []
        self.left: list[Tensor] = []
        self.settling, self.dt = n_settling, LONGEST_STEP * time_scale
        self.reference = 0.0
        self.start_energy = [math.nan, math.nan]
        self.log_weights = zeros(self.shape)
        self.moves = zeros((4, LEVELS))
        self.series: list[Tensor] = []
        self.ancestors = torch.zeros((N_LAGS + 1, n, n_columns), dtype=walkers.dtype, device=walkers.device)
        self.sums = zeros((N_LAGS + 1, LEVELS, n_populations, n_columns))
        self.plain = zeros(self.sums.shape)
        self.weights = zeros((LEVELS, n_populations))

    # -- what a run needs ----------------------------------------------------------------------------------------------

    @property
    def n_blocks(self) -> int:
        """Counted blocks; negative while settling and projecting."""
        return len(self.series) - self.settling - self._window(LEVELS - 1)

    def planned(self, tolerance: float) -> int:
        """Blocks to count in all for the error asked for, as far as it can be foreseen now.

        Args:
            tolerance: standard error to reach, in the potential's unit of energy.
        """
        n = self.n_blocks
        if n < MINIMUM_BLOCKS:
            return MINIMUM_BLOCKS
        error = self.energy().energy.error
        return n if error <= tolerance else n + max(1, math.ceil(min(n, n * ((error / tolerance) ** 2 - 1))))

    @property
    def walker_steps(self) -> int:
        """In a block, of all workers."""
        return self.n_steps * math.prod(self.shape) * self.workers.size

    @torch.no_grad()
    def advance(self, generator: torch.Generator) -> None:
        """Run one block of every population at every step size."""
        if not self.walkers:
            self.walkers = self._evaluate(self.start)
        if self.settling:
            self._settle(generator)
            return
        inverse = [1 / 2**level for level in range(LEVELS)]
        dt = self.dt * torch.tensor(inverse, dtype=torch.float64, device=self.start.device)
        share = self._shares()
        weight = torch.zeros_like(self.weights)
        energy, square, plain = torch.zeros_like(weight), torch.zeros_like(weight), torch.zeros_like(weight)
        beginning, moves = self.log_weights, self.moves.clone()
        left = torch.zeros((2, *self.shape), dtype=torch.float64, device=self.start.device)
        limit = LIMIT / (dt * self.time_scale).sqrt()
        for _ in range(self.n_steps):
            before, E = self._limited(self.walkers["energy"], limit), self.walkers["energy"].double().view(self.shape)
            left += torch.stack([E, torch.ones_like(E)]) / self.n_steps
            cost = self._step(dt, generator)
            increment = (before + self._limited(self.walkers["energy"], limit)) / 2
            increment = increment * (dt * share)[:, None, None]
            if self.free:
                increment = increment + cost.view(self.shape)
            else:
                # A walker that is rejected twice in a row is stuck where a step overshoots: time stands still for it.
                increment = torch.where(self.walkers["stuck"].view(self.shape), increment.clamp_min(0), increment)
            self.log_weights, left = self.log_weights - increment, left * (-increment).exp()
            w, E = self.log_weights.exp(), self.walkers["energy"].double().view(self.shape)
            weight += w.mean(-1)
            energy += (w * E).mean(-1)
            plain += E.mean(-1) / self.n_steps
            square += (w * (E - self.reference).square()).mean(-1)
        w, m = self.log_weights.exp(), self.shape[2]
        parts = [energy, square, weight, plain, beginning.exp().mean(-1), w.mean(-1), w.square().mean(-1)]
        energy, square, weight, plain, start, end, squares = self.workers.average(torch.stack(parts), m)
        self.moves = self.workers.accumulated(moves, self.moves, m)
        growth = end.log() - start.log()
        ess = end.square() / squares
        before = torch.zeros_like(self.weights).expand(2, -1, -1)
        self.series.append(torch.stack([energy, square, weight, growth, ess, start, plain, *before]))
        if self.observables:
            self._observe(w)
        if not self.independent:
            self.log_weights = self.log_weights - growth[..., None]
            self._resample(ess, generator)
        elif ess.min() > INDEPENDENT_ABOVE:
            self.series[-1][-2:] = self._forget(self.log_weights - beginning, left)
        else:  # begin again, with populations
            self.independent, self.series, self.increments, self.left = False, [], [], []
            self.log_weights, self.sums, self.plain, self.weights = (
                torch.zeros_like(each) for each in (self.log_weights, self.sums, self.plain, self.weights)
            )

    def _forget(self, increment: Tensor, left: Tensor) -> Tensor:
        """Independent walkers keep the weight of the last projection time only.

        Args:
            increment: (level, population, walker) of log weights in this block.
            left: (2, level, population, walker) means over its steps of w E_L and w, w from the step to its end.

        Returns:
            (2, level, population), means of both over the block one projection time ago, w from there until now.
        """
        longest = self._window(LEVELS - 1) + 1
        self.increments, self.left = [*self.increments, increment][-longest:], [*self.left, left][-longest:]
        found = torch.zeros_like(self.weights).repeat(2, 1, 1)
        for level in range(LEVELS):
            if len(self.increments) > (window := self._window(level)):
                self.log_weights[level] -= self.increments[-window - 1][level]
                found[:, level] = (self.log_weights[level].exp() * self.left[-window - 1][:, level]).mean(-1)
        return self.workers.average(found, self.shape[2])

    def _settle(self, generator: torch.Generator) -> None:
        """A block without weights at the coarsest step, which is steered towards the acceptance it should have."""
        dt = torch.full((LEVELS,), self.dt, dtype=torch.float64, device=self.start.device)
        self.moves.zero_()
        for _ in range(self.n_steps):
            self._step(dt, generator)
        self.moves = self.workers.accumulated(torch.zeros_like(self.moves), self.moves, self.shape[2])
        self.settling -= 1
        if not self.free:
            acceptance = (self.moves[0].sum() / self.moves[1].sum()).item()
            self.dt = min(LONGEST_STEP * self.time_scale, self.dt * math.exp(2 * (acceptance - COARSE_ACCEPTANCE)))
        if self.settling == 0:
            E = self.walkers["energy"].double()
            fine = E.isfinite() & self.walkers["positions"].isfinite().all(-1).all(-1)
            E = self.workers.gather(E.where(fine, math.nan))
            n, E = len(E), E[E.isfinite()]
            if len(E) < n:
                raise DivergedPath(
                    f"{1 - len(E) / n:.1%} of the walkers had no finite energy before the projection "
                    f"began, at dt = {self.dt:.3g}; train longer, or give the potential a trial function"
                )
            self.projection_time = min(self.projection_time, MOST_STEPS * self.dt / 2 ** (LEVELS - 1))
            self.reference = E.mean().item()
            self.start_energy = [self.reference, E.std().item() / math.sqrt(len(E))]
            self.moves.zero_()

    # -- one step ------------------------------------------------------------------------------------------------------

    def _evaluate(self, r: Positions) -> dict[str, Tensor]:
        """Everything a step needs to know at r."""
        if self.free:
            h, rate, _ = self.process.reference.rates(r)
            return {
                "positions": r,
                "velocity": h,
                "control": self.process.drift(r) / self.process.sigma,
                "energy": rate,
            }
        E, U, v = local_quantities(self.process, r)
        never = torch.zeros(len(r), dtype=torch.bool, device=r.device)
        return {"positions": r, "velocity": v, "log_psi": U, "energy": E, "rejected": never, "stuck": never}

    def _step(self, dt: Tensor, generator: torch.Generator) -> Tensor:
        """Move every walker once, by dt (level,); returns what a free drift adds to the cost of the path."""
        old, sigma = self.walkers, self.process.sigma
        r = old["positions"]
        xi = self.process.at_rest(torch.randn(r.shape, generator=generator, dtype=r.dtype, device=r.device))
        h = dt.to(r.dtype).repeat_interleave(self.shape[1] * self.shape[2])[:, None, None]
        if self.free:
            u = old["control"]
            self.walkers = self._evaluate(r + (old["velocity"] + sigma * u) * h + sigma * h.sqrt() * xi)
            return ((u * xi * h.sqrt()).sum((-2, -1)) + u.square().sum((-2, -1)) * h[:, 0, 0] / 2).double()
        step = self.process.at_rest(_capped(old["velocity"], sigma, h) * h / sigma) + h.sqrt() * xi
        new = self._evaluate(r + sigma * step)
        back = step + self.process.at_rest(_capped(new["velocity"], sigma, h) * h / sigma)
        log_ratio = 2 * (new["log_psi"] - old["log_psi"])
        log_ratio = log_ratio + (xi.square().sum((-2, -1)) - back.square().sum((-2, -1)) / h[:, 0, 0]) / 2
        log_ratio = torch.where(new["energy"].isfinite() & log_ratio.isfinite(), log_ratio, -math.inf)
        uniform = torch.rand(log_ratio.shape, generator=generator, dtype=r.dtype, device=r.device)
        accept = uniform.log() < log_ratio
        probability, square = log_ratio.clamp_max(0).exp().double(), step.square().sum((-2, -1)).double()
        square = square.nan_to_num(0, 0, 0)
        rows = (probability, torch.ones_like(square), probability * square, square)
        self.moves += torch.stack(rows).view(len(rows), LEVELS, -1).mean(-1)
        shape = {1: accept, 3: accept[:, None, None]}
        self.walkers = {name: torch.where(shape[new[name].ndim], new[name], old[name]) for name in new}
        self.walkers["rejected"], self.walkers["stuck"] = ~accept, ~accept & old["rejected"]
        return self.moves.new_zeros(())

    def _shares(self) -> Tensor:
        """dt_eff / dt of each level: the accepted share of the squared displacement so far."""
        if self.free or not self.series:
            return torch.ones_like(self.moves[0])
        return self.moves[2] / self.moves[3]

    def _limited(self, energy: PerWalker, limit: Tensor) -> Tensor:
        """E_L - E_ref within the limits of each level, (level, population, walker)."""
        excess = energy.double().view(self.shape) - self.reference
        return torch.minimum(torch.maximum(excess, -limit[:, None, None]), limit[:, None, None])

    # -- populations ---------------------------------------------------------------------------------------------------

    def _resample(self, ess: Tensor, generator: torch.Generator) -> None:
        """Replace the walkers of every population whose effective share is too small by copies of equal weight."""
        n, m = self.shape[0] * self.shape[1], self.shape[2]
        whole = self.workers.gather(self.log_weights.view(n, m), 1)
        chosen = balanced(self.workers.first(systematic(whole, generator)), self.workers.size)
        due = (ess < RESAMPLE_BELOW).view(n, 1)
        if not bool(due.any()):
            return
        source = torch.where(due, chosen, torch.arange(self.n_members, device=due.device))
        values = {**self.walkers, "ancestors": self.ancestors.movedim(0, 1)}
        values = {name: value.view(n, m, *value.shape[1:]) for name, value in values.items()}
        found = self.workers.exchange(values, source)
        self.walkers = {name: value.flatten(0, 1) for name, value in found.items()}
        self.ancestors = self.walkers.pop("ancestors").movedim(1, 0)
        self.log_weights = torch.where(due.view(*self.shape[:2], 1), 0.0, self.log_weights)

    def _window(self, level: int) -> int:
        """Blocks in the projection time at the step of a level; more where pure estimates need it."""
        more = FORWARD_SCALES * self.time_scale if self.observables and self.independent else 0.0
        return math.ceil((self.projection_time + more) / (self.n_steps * self.dt / 2**level))

    def _population_weights(self, growth: Tensor, level: int, part: float) -> Tensor:
        """Weights of populations (block, population): their growth over the window before each block.

        Args:
            growth: (block, population) of all blocks since the weights were switched on.
            part: of the projection time to keep.
        """
        if self.independent:
            return torch.ones_like(growth)
        window = round(part * self._window(level))
        total = torch.cat([torch.zeros_like(growth[:1]), growth.cumsum(0)])
        times = torch.arange(len(growth), device=growth.device)
        log_weights = total[times] - total[(times - window).clamp_min(0)]
        return (log_weights - log_weights.max()).exp()

    def _observe(self, w: Tensor) -> None:
        """Remember what the observables are now, and add today's and the ancestors' values once equilibrated."""
        values = evaluate(self.observables, self.walkers["positions"]).to(self.ancestors.dtype)
        self.ancestors = torch.cat([values[None], self.ancestors[:-1]])
        if self.n_blocks <= 0:
            return
        recent = torch.stack(self.series[-self._window(LEVELS - 1) :])[:, SERIES.index("growth")]
        G = torch.stack([recent[-self._window(level) :, level].sum(0) for level in range(LEVELS)]).exp()
        if self.independent:
            G = torch.ones_like(G)
        values = self.ancestors.double().view(N_LAGS + 1, *self.shape, -1)
        means = torch.einsum("spm,lspmk->lspk", w, values) / self.shape[2]
        self.sums += G[..., None] * self.workers.average(means, self.shape[2])
        self.plain += self.workers.average(values.mean(3), self.shape[2])
        self.weights += G * self.workers.average(w.mean(-1), self.shape[2])

    # -- what comes out ------------------------------------------------------------------------------------------------

    def energy(self) -> ProjectedEnergy:
        """The energy of all counted blocks, of which there must be at least one."""
        n = self.n_blocks
        if n < 1:
            raise ComputationError("no blocks have been counted yet: a projected energy needs at least 1")
        series = torch.stack(self.series)
        first = len(series) - n
        share = self._shares()
        steps = tuple(self.dt / 2**level * share[level].item() for level in range(LEVELS))
        mixed, growth, plain, halved, bare, trends, variances, G = [], [], [], [], [], [], [], []
        for level in range(LEVELS):
            energy, square, weight, log_growth, _, start, unweighted, *_ = series[:, :, level].unbind(1)
            counted = energy[first:], weight[first:]
            weights = [self._population_weights(log_growth, level, part)[first:] for part in (1.0, 0.5, 0.0)]
            G.append(weights[0])
            full, half, none = (_Ratio(each, *counted) for each in weights)
            m = _Ratio(G[-1] * start[first:], log_growth[first:].exp(), torch.ones_like(G[-1]))
            duration = self.n_steps * steps[level]
            grown = _Series(self.reference - math.log(m.mean) / duration, -m.influence / m.mean / duration)
            plain.append(_Ratio(ones := torch.ones_like(energy), unweighted, ones))
            if self.independent:
                mixed.append(self._weighed_from_both_ends(series[:, :, level], self._window(level)))
                growth.append(grown.minus(_Ratio(G[-1], unweighted[first:], ones[first:])))
            else:
                mixed.append(full)
                growth.append(grown)
            halved.append(half.minus(full).estimate)
            bare.append(none.minus(full).estimate)
            trends.append(mixed[-1].trend())
            second = _Ratio(G[-1], square[first:], weight[first:]).mean
            variances.append(max(0.0, second - (full.mean - self.reference) ** 2))
        base = Estimate(0.0, 0.0)
        before = Estimate(*self.start_energy)
        if self.independent:
            base = _weighted([*(each.estimate for each in plain), *([self.variational] if self.variational else [])])
            before = base
        fits = [
            self._extrapolated(steps, [each.estimate for each in values], variances[-1]).shifted(base)
            for values in (mixed, growth)
        ]
        rounding = Estimate(0.0, rounding_error(self.start) * abs(fits[0].value.mean))
        fits = [each.shifted(rounding) for each in fits]
        means = [_sum(each.estimate, base, rounding) for each in mixed]
        growths = [_sum(each.estimate, base, rounding) for each in growth]
        fit = fits[1] if self.free else fits[0]
        effective = series[first:, SERIES.index("share")]
        all_weights = torch.stack(G)
        acceptance = None if self.free else tuple((self.moves[0] / self.moves[1]).tolist())
        return ProjectedEnergy(
            energy=fit.value,
            mixed=fits[0].value,
            growth=fits[1].value,
            variational=None if self.free else before,
            independent=self.independent,
            variance=variances[-1],
            time_steps=steps,
            by_time_step=tuple(means),
            growth_by_time_step=tuple(growths),
            fit=fit,
            population_bias=(bare[0], halved[0]),
            trend=_weighted(trends),
            effective_share=(effective.mean().item(), effective.min().item()),
            population_share=(all_weights.mean((1, 2)).square() / all_weights.square().mean((1, 2))).min().item(),
            acceptance=acceptance,
            projection_time=self.projection_time,
            counted_time=n * self.n_steps * steps[0],
            n_populations=self.shape[1],
            n_walkers=self.n_members,
        )

    @staticmethod
    def _weighed_from_both_ends(series: Tensor, window: int) -> _Series:
        """<w E_L>/<w> - <E_L> of independent walkers, at the end and at the beginning of a window of blocks."""
        n, ones = len(series), torch.ones_like(series[:, 0])
        energy, _, weight, _, _, _, plain, energy_before, weight_before = series.unbind(1)
        found = []
        for blocks, values in (
            (slice(window, n), (energy[window:], weight[window:])),
            (slice(0, n - window), (energy_before[window:], weight_before[window:])),
        ):
            correction = _Ratio(ones[blocks], *values).minus(_Ratio(ones[blocks], plain[blocks], ones[blocks]))
            found.append(correction.placed(blocks, n))
        end, beginning = found
        return _Series((end.mean + beginning.mean) / 2, (end.influence + beginning.influence) / 2)

    def _extrapolated(self, steps: Sequence[float], energies: Sequence[Estimate], variance: float) -> Extrapolation:
        """To zero step, with what is known of the size of the terms; see the head of this file."""
        if self.free:
            size = max(abs(E.mean - energies[-1].mean) for E in energies) / steps[0]
            return extrapolate(steps, energies, curvature_scale=SPREAD * size / self.time_scale)
        slope = variance / 2
        scale = CURVATURE * slope / self.time_scale
        return extrapolate(steps, energies, slope=slope, slope_scale=SLOPE * slope, curvature_scale=scale)

    def trace(self) -> Trace:
        """Energy against projection time at the coarsest step."""
        series, step = torch.stack(self.series), self.dt * self._shares()[0].item()
        energy, _, weight, growth, effective, *_ = series[:, :, 0].unbind(1)
        G = self._population_weights(growth, 0, 1.0)
        ratios = [_Ratio(G[[k]], energy[[k]], weight[[k]]) for k in range(len(series))]
        return Trace(
            time=[self.n_steps * step * (k + 0.5) for k in range(len(series))],
            energy=[ratio.mean for ratio in ratios],
            error=[ratio.estimate.error for ratio in ratios],
            effective_share=effective.min(1).values.tolist(),
        )

    def averages(self) -> dict[str, dict[str, Average]]:
        """Mixed and pure estimates of the observables by kind and name, at zero step; counted blocks are needed."""
        steps = [self.dt / 2**level * share for level, share in enumerate(self._shares().tolist())]
        lags = [self._lag(level) for level in range(LEVELS)]
        found: dict[str, dict[str, Average]] = {"mixed": {}, "pure": {}}
        column = 0
        for observable in self.observables:
            columns = range(column, column := column + observable.size)
            base = self._base(columns, self.known.get(observable.name) if not observable.per_energy else None)
            values: dict[str, list[Estimate]] = {kind: [] for kind in found}
            for k, known in zip(columns, base, strict=True):
                mixed = [self._above(0, level, k) for level in range(LEVELS)]
                pure = [self._above(lags[level], level, k) for level in range(LEVELS)]
                # Where psi is exact there is no bias of the step, and none between mixed and pure either.
                size = (abs(pure[0].mean - mixed[0].mean) + pure[0].error) / self.time_scale
                for kind, energies in (("mixed", mixed), ("pure", pure)):
                    fit = extrapolate(steps, energies, slope_scale=SPREAD * size, curvature_scale=size / steps[0])
                    values[kind].append(_sum(fit.value, known))
            for kind, of_kind in found.items():
                if observable.per_energy:
                    E = self.energy().energy
                    share = Estimate(observable.per_energy * E.mean, abs(observable.per_energy) * E.error)
                    values[kind] = [_sum(value, share) for value in values[kind]]
                mean = torch.tensor([value.mean for value in values[kind]], dtype=torch.float64)
                error = torch.tensor([value.error for value in values[kind]], dtype=torch.float64)
                axes = observable.centres, observable.axis
                of_kind[observable.name] = Average(observable.name, observable.unit, mean, error, *axes)
        return found

    def plateau(self, name: str) -> tuple[list[float], list[Estimate], float]:
        """A single-valued observable against the lag of forward walking, at the coarsest step.

        Returns:
            Lags, the estimate at each, and the lag that the pure estimate is read at.
        """
        column = 0
        for observable in self.observables:
            if observable.name == name and observable.size == 1:
                block = self.n_steps * self.dt * self._shares()[0].item()
                lags = range((self._lag(0) if self.independent else N_LAGS) + 1)
                (base,) = self._base([column], None)
                found = [_sum(self._above(j, 0, column), base) for j in lags]
                return [block * j for j in lags], found, block * self._lag(0)
            column += observable.size
        names = ", ".join(each.name for each in self.observables if each.size == 1) or "none"
        raise BadParameter(f"no observable with one value is called {name!r}; there is {names}")

    def _lag(self, level: int) -> int:
        """Blocks to walk forward at the step of a level."""
        return min(N_LAGS, round(FORWARD_SCALES * self.time_scale / (self.n_steps * self.dt / 2**level)))

    def _above(self, lag: int, level: int, column: int) -> Estimate:
        """An observable so many blocks ago in today's weights, less `_base`; the error from populations.

        What independent walkers are without their weights is taken from it: nothing is left where all weights agree.
        """
        weights = self.weights[level][None]
        ones = torch.ones_like(weights)
        weighed = _Ratio(ones, self.sums[lag, level, :, column][None], weights)
        if not self.independent:
            return weighed.estimate
        return weighed.minus(_Ratio(ones, self.plain[lag, level, :, column][None], self.n_blocks * ones)).estimate

    def _base(self, columns: Sequence[int], known: Average | None) -> list[Estimate]:
        """Columns of one observable without weights: of all independent walkers, and as known before; otherwise 0.

        Both have one weight for all columns: the rare bins of a histogram have the smallest errors where they have the
        fewest counts.
        """
        if not self.independent:
            return [Estimate(0.0, 0.0)] * len(columns)
        plain = self.plain[0].flatten(0, 1)[:, list(columns)] / self.n_blocks
        means, errors = [plain.mean(0)], [plain.std(0) / math.sqrt(len(plain))]
        if known is not None:
            means, errors = [*means, known.mean.to(plain)], [*errors, known.error.to(plain)]
        precision = torch.stack([1 / each.square().sum().clamp_min(1e-200) for each in errors])
        share = (precision / precision.sum())[:, None]
        mean, error = (share * torch.stack(means)).sum(0), (share * torch.stack(errors)).square().sum(0).sqrt()
        return [Estimate(*each) for each in zip(mean.tolist(), error.tolist(), strict=True)]

    def results(self) -> dict[str, Any]:
        """Everything for result.json, the block and the figures."""
        found = self.energy()
        return {
            "projected": found.energy,
            "observables": self.averages() if self.observables else {},
            "projection": found,
        }

    def state_dict(self) -> dict[str, Any]:
        gather = self.workers.gather
        state = saved(self, SAVED, AXES, self.workers)
        state["ancestors"] = self._whole(self.ancestors, 1)
        lists = {"series": list(self.series), "increments": [gather(each, 2) for each in self.increments]}
        lists["left"] = [gather(each, 3) for each in self.left]
        return {**state, **lists, "walkers": {name: self._whole(value) for name, value in self.walkers.items()}}

    def _whole(self, value: Tensor, axis: int = 0) -> Tensor:
        """An array of all walkers from one of those here, which are all levels' and populations' along one axis."""
        return self.workers.gather(value.unflatten(axis, self.shape), axis + 2).flatten(axis, axis + 2)

    def _own(self, value: Tensor, axis: int = 0) -> Tensor:
        """The share of this worker in such an array."""
        shape = (*self.shape[:2], self.n_members)
        return self.workers.own(value.unflatten(axis, shape), axis + 2).flatten(axis, axis + 2)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        restore(self, {name: state[name] for name in SAVED}, AXES, self.workers)
        device = self.start.device
        self.ancestors = self._own(state["ancestors"], 1).to(self.ancestors)
        self.walkers = {name: self._own(value).to(device) for name, value in state["walkers"].items()}
        self.series = [row.to(device) for row in state["series"]]
        self.increments = [self.workers.own(row, 2).to(device) for row in state["increments"]]
        self.left = [self.workers.own(row, 3).to(device) for row in state["left"]]


class _Series:
    """A mean with the series of contributions to its deviation, from which its error and differences follow.

    Args:
        mean: the mean.
        influence: (block, population), of mean 0.
    """

    def __init__(self, mean: float, influence: Tensor) -> None:
        self.mean, self.influence = mean, influence

    @property
    def estimate(self) -> Estimate:
        return Estimate(self.mean, blocked_error(self.influence))

    def minus(self, other: _Series) -> _Series:
        """The difference to another mean over the same walkers."""
        return _Series(self.mean - other.mean, self.influence - other.influence)

    def placed(self, blocks: slice, n: int) -> _Series:
        """The same among n blocks, of which it is the mean over some."""
        influence = self.influence.new_zeros(n, self.influence.shape[1])
        influence[blocks] = self.influence * (n / len(self.influence))
        return _Series(self.mean, influence)

    def trend(self) -> Estimate:
        """Second half of the blocks minus the first."""
        half = (len(self.influence) + 1) // 2
        first, second = self.influence[:half], self.influence[-half:]
        return Estimate((second.mean() - first.mean()).item(), math.hypot(blocked_error(first), blocked_error(second)))


class _Ratio(_Series):
    """sum G a / sum G b over blocks and populations.

    Args:
        G: (block, population) weights of populations.
        a, b: (block, population).
    """

    def __init__(self, G: Tensor, a: Tensor, b: Tensor) -> None:
        total = (G * b).mean()
        mean = ((G * a).mean() / total).item()
        super().__init__(mean, G * (a - mean * b) / total)


def _sum(*estimates: Estimate) -> Estimate:
    """The sum of independent estimates."""
    return Estimate(sum(E.mean for E in estimates), math.hypot(*(E.error for E in estimates)))


def _weighted(estimates: Sequence[Estimate]) -> Estimate:
    """The mean with weights 1 / error^2."""
    precision = [max(E.error, 1e-100) ** -2 for E in estimates]
    mean = sum(w * E.mean for w, E in zip(precision, estimates, strict=True)) / sum(precision)
    return Estimate(mean, sum(precision) ** -0.5)


def _capped(v: Positions, sigma: Tensor, dt: Tensor) -> Positions:
    """The drift of a step, cut where one particle would be carried more than a few diffusion lengths."""
    length = (v / sigma).square().sum(-1, keepdim=True).sqrt() * dt.sqrt()
    return v * (LONGEST_DRIFT / length.clamp_min(LONGEST_DRIFT))
