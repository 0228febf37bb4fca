"""The ground state of a potential: train, follow trajectories, average the local energy, compare with scipy.

    potential -> system -> model -> process -> training -> trajectories, sampling -> exact -> result

The model is a drift, v = sigma^2 grad log psi of a network or a free vector field, or a normalizing flow for |psi|^2
(`method="flow"`), whose samples are independent and whose psi is normalised unless the trial function has a part in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fkdrift.errors import BadConfig, BadParameter, ComputationError, InputError
from fkdrift.estimators.correlation import CorrelationSampler
from fkdrift.estimators.energies import Energies
from fkdrift.estimators.independent import IndependentSampler
from fkdrift.estimators.local_energy import StationarySampler
from fkdrift.estimators.observables import DENSITY, ENERGY, FORCE, by_kind, parse_observable, parse_observables
from fkdrift.estimators.path_action import PathSampler
from fkdrift.estimators.projection import LEFT, LEVELS, MOST_SCALES, N_POPULATIONS, STEPS_IN_BLOCK, Projection
from fkdrift.estimators.scales import relaxation_time, sum_rule_gap
from fkdrift.estimators.spectrum import ExcitationSampler
from fkdrift.estimators.trust import SCALES_LIMIT, Verdict, energy_tests, lower_bound, projection_tests
from fkdrift.exact.diagonalisation import diagonalise
from fkdrift.exact.spectrum import Spectrum
from fkdrift.hamiltonian.loading import describe, from_file, load_potential
from fkdrift.hamiltonian.potential import Potential
from fkdrift.hamiltonian.system import System
from fkdrift.numerics.estimates import Estimate, rounding_error
from fkdrift.numerics.named_arrays import Named
from fkdrift.paths.evolution import evolve
from fkdrift.paths.process import Process
from fkdrift.runs.compare import summary
from fkdrift.runs.driver import drive, made
from fkdrift.runs.ground_state_report import (
    extrapolated,
    ground_state_block,
    path_results,
    projected_by,
    projection_results,
    verdict_of,
    with_tail,
)
from fkdrift.runs.of_potential import OfPotential
from fkdrift.runs.phases import MINIMUM_BLOCKS, Once, Sampling, Training
from fkdrift.runs.report import Block
from fkdrift.runs.settings import MOST_BLOCKS, Settings
from fkdrift.runs.starting import first_step, require_first_step
from fkdrift.settings import is_own
from fkdrift.tensor_types import PerWalker, Positions
from fkdrift.training.energy_gradients import IndependentSamples, MetropolisSamples, Pathwise
from fkdrift.training.loop import Optimiser
from fkdrift.training.natural_gradient import NaturalGradient
from fkdrift.training.pathwise import pathwise_adam
from fkdrift.wavefunction import metropolis
from fkdrift.wavefunction.flow import FlowWavefunction
from fkdrift.wavefunction.local_energy import log_psi
from fkdrift.wavefunction.neural import NeuralVectorField, NeuralWavefunction
from fkdrift.wavefunction.protocol import Drift, Wavefunction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXACT_SECONDS = 20.0
"""For scipy's solution, which is a check: few people wait longer for one."""
N_WALKERS, N_WALKERS_LEAST = 1024, 256
N_WALKERS_LINE, N_WALKERS_ALONE = 4096, 2048
"""Walkers by default, and at least; for log psi of a single coordinate, and of a single particle, where they cost
little more and find the tails."""
PAIRS_AT_FULL_COST = 12
"""From so many pairs of particles on, walkers are fewer in proportion: the cost of each grows with their number."""
N_CHECK_WALKERS, N_CHECK_VALUES = 1024, 256
"""Trajectories that check a gradient drift: they agree with the local energy to about 1e-3 of the energy; fewer where V
has values only, each of which may cost a calculation of its own."""
SETTLING_SCALES, SETTLING_STEPS = 4, 32
"""Time scales, and steps in each, for walkers to forget where they started when the drift is given."""
N_EXCITATION_WALKERS, N_EXCITATION_BLOCKS = 2048, 64
"""For excited states: gaps to about 1e-5 in one coordinate, 1e-3 for helium."""
N_CORRELATION_WALKERS, N_CORRELATION_WINDOWS = 1024, 4
"""For correlation functions; each window has 16 time scales of 64 steps."""
N_LINE = 400
"""Points at which the wavefunctions psi_n of a line are drawn."""
TRAINING_SHARE, TRAJECTORY_SHARE, SAMPLING_SHARE = 0.5, 0.65, 0.8
"""The parts of max_seconds that have gone when training, trajectories and the local energy end, and others follow."""
N_SETTLING = 4
"""Blocks in which the projection finds its step; its walkers have forgotten already where they started."""
PROJECTED_PER_WALKER, PROJECTED_MOST, PROJECTED_LEAST = 3, 6144, 192
"""Walkers of the projection, at all steps together, for each one of the run; at most, and at least."""
POPULATION, POPULATIONS_LEAST = 16, 4
"""Walkers in a population, at each step, before there are more populations than so few."""
PROJECTED_FINER = 2
"""So much smaller than the error asked for the one before the projection has to be, for fewer walkers to do."""
NEGLIGIBLE = 0.1
"""Part of the error asked for that an excess energy may have which nothing more is done about."""
PROJECTED_FEW, PROJECTED_FEW_STEPS = 2048, 8
"""Walkers, and steps in a block, where weights differ so little that more would change nothing."""
SLOWEST_OF_NONE = 0.5
"""The gap that is projected with at least where there is next to nothing to project, in units of 1 / time scale."""
LEFT_OF_ERROR, LEFT_AT_MOST = 1 / 30, math.exp(-3)
"""Of the excess energy after projection, in units of the error; and of the excess itself, however small it is."""
VARIATIONAL_FINER = 4
"""The local energy is averaged until its error is so much smaller than the one asked for, or n_blocks are made."""
BLOCKS_FOR_ONE = 10
"""Blocks of correlated walkers that are worth one batch of independent samples."""
TYPICAL_UPDATES = 60
"""After which training ends by itself, roughly: to judge whether workers are worth starting."""
N_SAMPLES, N_SYMMETRIC = 1024, 256
"""Samples in a batch of a flow; of one for identical particles, each of which costs more."""
SAMPLE_STEPS, SAMPLE_MOVES = 128, 5
"""Between two batches of `GroundState.sample`: steps in a time scale, or moves of about a quarter of it."""
N_ANIMATED = 1024
"""Walkers in an animation, at most."""
N_DRAWN, N_DRAWN_LEAST, ROUNDS, ROUNDS_LEAST = 4096, 64, 48, 6
"""Numbers in a batch of samples for a figure, walkers at least, and batches, divided by the number of coordinates."""
Points = Tensor | np.ndarray | list[Any]
"""Positions as a caller may have them; see `GroundState.positions`."""


class GroundState(OfPotential):
    """The ground state of a potential, in the making or as it was found.

    Args:
        potential: the potential energy.
        settings: see `Settings`.
        start: a drift whose parameters training begins with, such as one learned from samples, of the kind and size
            that the settings name; or its state_dict.

    Raises:
        BadConfig: `start` is of another kind or size.
        InputError: a flow does not suit this potential.

    Attributes:
        system, process: what is solved, and the learned diffusion.
        asked_for: the standard error to reach: atol, or rtol of the zero-point energies 1 / (2 tau) of all coordinates,
            added up like independent errors.
        model: the drift that is trained.

    Example (a quick one: few walkers, and no projection):
        >>> quick = Settings(n_updates=5, n_walkers=64, n_blocks=10, path_step=1 / 4, project=False)
        >>> state = fk.solve("harmonic", omega=2.0, settings=quick)
        >>> state.log_psi([0.5, 1.0])                       # -omega x^2 / 2, up to a constant
        tensor([-0.2500, -1.0000])
        >>> state.sample(1000).shape
        torch.Size([1000, 1, 1])
    """

    kind = "ground state"
    settings_class = Settings
    shareable = True

    def __init__(
        self,
        potential: Potential,
        settings: Settings,
        start: Drift | Mapping[str, Tensor] | None = None,
    ) -> None:
        flow = settings.method == "flow"
        self.potential, device = potential, settings.torch_device
        self.shown_units = potential.natural_units.changed(settings.energy_unit, settings.length_unit)
        self.system = System(potential, settings.torch_dtype, device)
        if self.system.potential.free and settings.levels > 1:
            raise InputError(
                f"levels = {settings.levels} is not allowed for {potential.name}, which is free: functions that "
                "excited states are built from would move its centre of mass; use levels = 1, or fkdrift exact"
            )
        zero_point = math.sqrt(math.prod(self.system.shape)) / (2 * self.system.time_scale)
        self.asked_for = settings.atol or settings.rtol * zero_point
        generator = torch.Generator(device).manual_seed(settings.seed)
        model = _make_flow(self.system, settings) if flow else make_drift(self.system, settings)
        if start is not None:
            _take_over(model, start)
        self.process = Process(model, self.system, self.workers)
        self.n_walkers = n_walkers = settings.n_walkers or default_walkers(potential, settings)
        self._require_room(settings, n_walkers)
        walkers = self.system.initial_walkers(n_walkers, generator)
        if start is not None and not flow:
            walkers = _settled(self.process, self.system, walkers, generator)
        self.training = Training(
            method := make_method(self.process, self.system, settings, len(walkers)),
            walkers,
            n_updates=settings.n_updates,
            tolerance=self.asked_for * NEGLIGIBLE / 2 if settings.tolerance is None else settings.tolerance,
            share=TRAINING_SHARE,
            once=True,
            settled=lambda: flow and isinstance(method, NaturalGradient) and method.settled,
            workers=self.workers,
        )
        free, project = not isinstance(model, Wavefunction), settings.project and not flow
        rounding = rounding_error(walkers)
        self.trajectories = Sampling(
            "trajectories",
            self._path_sampler,
            energy=lambda sampler: sampler.energy().action,
            results=path_results,
            n_blocks=settings.n_path_blocks,
            atol=settings.atol if free else None,
            rounding=rounding,
            share=1.0 if free and not project else TRAJECTORY_SHARE,
        )
        self.observables = parse_observables(settings.observables or (), potential, walkers) if not free else ()
        self.sampling = Sampling(
            "sampling",
            self._independent_sampler if flow else self._local_energy_sampler,
            energy=lambda sampler: sampler.energy().energy,
            results=self._sampling_results,
            n_blocks=max(MINIMUM_BLOCKS, settings.n_blocks // BLOCKS_FOR_ONE) if flow else settings.n_blocks,
            atol=settings.atol or (None if flow or settings.observables else self.asked_for / VARIATIONAL_FINER),
            most=None if settings.atol else settings.n_blocks,
            rounding=rounding,
            share=SAMPLING_SHARE if project else 1.0,
        )
        self.projection = Sampling(
            "projection",
            self._projection_sampler,
            energy=lambda sampler: sampler.energy().energy,
            results=projection_results,
            n_blocks=MINIMUM_BLOCKS,
            atol=self.asked_for,
            most=None if settings.atol else MOST_BLOCKS,
            rounding=rounding,
        )
        self.excitations = Sampling(
            "excitations",
            self._excitation_sampler,
            energy=lambda sampler: self.energies.variational,
            results=lambda sampler: sampler.results(),
            n_blocks=N_EXCITATION_BLOCKS,
        )
        correlated = tuple(
            parse_observable(text, potential, walkers) for text in dict.fromkeys(settings.correlations or ())
        )
        self.correlations = Sampling(
            "correlations",
            lambda: CorrelationSampler(
                self.process,
                self.walkers[: self.workers.count(N_CORRELATION_WALKERS)],
                correlated,
                time_scale=self.time_scale,
            ),
            energy=lambda sampler: self.energies.variational,
            results=lambda sampler: sampler.results(),
            n_blocks=N_CORRELATION_WINDOWS,
        )
        self.exact = Once("exact", self._exact_results)
        self._spectrum: Spectrum | None = None
        samplers = [self.sampling] if flow else [self.trajectories] if free else [self.trajectories, self.sampling]
        samplers += [self.projection] if project else []
        samplers += [self.excitations] if settings.levels > 1 else []
        samplers += [self.correlations] if correlated else []
        super().__init__(settings, model, generator, [self.training, *samplers, self.exact])

    def _require_room(self, settings: Settings, n_walkers: int) -> None:
        """Refuse so many walkers where their first step would not fit."""
        if settings.method == "flow":
            return

        remedy = f"give fewer than n_walkers = {n_walkers} (--n-walkers), or a smaller width"
        numbers = self._numbers_per_walker(settings)
        require_first_step(self._first_step(settings), n_walkers, numbers, settings, self.system.device, remedy)

    def _first_step(self, settings: Settings) -> Callable[[int], None]:
        """Makes a first update with so many walkers, and leaves nothing behind."""

        def step(n: int) -> None:
            generator = torch.Generator(self.system.device).manual_seed(0)
            process = Process(make_drift(self.system, settings), self.system)
            walkers = self.system.initial_walkers(n, generator)
            make_method(process, self.system, settings, n).update(walkers, 0, generator)

        return step

    def _numbers_per_walker(self, settings: Settings) -> int:
        numbers = math.prod(self.system.shape) * settings.width
        return getattr(self.process.drift, "numbers_per_walker", numbers)

    def seconds_alone(self) -> float | None:
        """By a first update with a few walkers, and as many as training may take; the rest takes as long again."""
        if isinstance(self.model, FlowWavefunction):
            return None
        cost = first_step(self._first_step(self.settings), self.n_walkers, self._numbers_per_walker(self.settings))
        return 2 * cost.seconds * min(self.settings.n_updates, TYPICAL_UPDATES)

    @property
    def time_scale(self) -> float:
        """That of the system, or twice the relaxation time of the trained drift where that is shorter."""
        return min(self.system.time_scale, 2 * relaxation_time(self.process, self.training.walkers))

    def _path_sampler(self) -> PathSampler:
        """Trajectories at three step sizes: all the sampling of a free drift, a cross-check for a gradient drift."""
        walkers, n_steps = self.training.walkers, max(1, round(1 / self.settings.path_step))
        if isinstance(self.model, Wavefunction):
            walkers = walkers[: self.workers.count(N_CHECK_VALUES if self.potential.values_only else N_CHECK_WALKERS)]
        return PathSampler(
            self.process,
            walkers,
            dt=self.time_scale / n_steps,
            n_steps=n_steps,
            n_equilibration=self.settings.n_equilibration,
        )

    def _local_energy_sampler(self) -> StationarySampler:
        return StationarySampler(
            self.process,
            self.training.walkers,
            time_scale=self.time_scale,
            n_moves=self.settings.n_moves,
            n_equilibration=4 * self.settings.n_equilibration,
            observables=self.observables,
        )

    def _excitation_sampler(self) -> ExcitationSampler:
        some = self.walkers[: self.workers.count(N_EXCITATION_WALKERS)]
        return ExcitationSampler(self.process, self.system, some, levels=self.settings.levels)

    def _projection_sampler(self) -> Projection:
        tau, n_steps, gap, V = self.time_scale, STEPS_IN_BLOCK, self._gap, self.system.potential
        by_distances = V.free and V.isotropic  # of what psi can miss the sum rule knows the gap
        wanted = min(PROJECTED_MOST, PROJECTED_PER_WALKER * self.n_walkers)
        if (found := self.sampling.energy) is not None and math.isfinite(found.error):
            needed = wanted * (PROJECTED_FINER * found.error / self.asked_for) ** 2
            wanted = min(wanted, max(PROJECTED_LEAST, round(needed)))
        members = max(2, self.n_workers)
        n_populations = min(N_POPULATIONS, max(POPULATIONS_LEAST, wanted // (LEVELS * POPULATION)))
        if self._nothing_to_project:
            wanted, n_steps, gap = min(wanted, PROJECTED_FEW), PROJECTED_FEW_STEPS, max(gap, SLOWEST_OF_NONE / tau)
        return Projection(
            self.process,
            self.walkers,
            time_scale=tau,
            gap=gap,
            left=self._left_by_projection(gap),
            longest=math.inf if by_distances else MOST_SCALES,
            n_walkers=max(wanted, members * LEVELS * n_populations),
            n_populations=n_populations,
            variational=found,
            observables=self.observables,
            averages=self.sampling.sampler.observables() if found is not None and self.observables else None,
            n_steps=n_steps,
            n_settling=N_SETTLING,
        )

    @property
    def _gap(self) -> float:
        """What E_1 - E_0 is expected to be: by the f-sum rule, or the inverse time scale where that is smaller.

        Of identical particles in a trap the time scale says little: they cannot do one by one what it belongs to.
        """
        found = sum_rule_gap(self.system, self.workers.gather(self.walkers))
        identical = any(len(members) > 1 for members in self.potential.groups) and not self.potential.free
        return found if identical and math.isfinite(found) else min(found, 1 / self.time_scale)

    @property
    def _nothing_to_project(self) -> bool:
        """Whether var(E_L) tau, the size of what the projection can change, is far below the error asked for."""
        deviation = self.training.standard_deviation
        return deviation is not None and deviation**2 * self.system.time_scale < NEGLIGIBLE * self.asked_for

    def _left_by_projection(self, gap: float) -> float:
        """The part of the excess, at most var(E_L) / gap, that is negligible beside the error; LEFT where unknown."""
        if (deviation := self.training.standard_deviation) is None or (found := self.sampling.energy) is None:
            return LEFT
        error = min(self.asked_for, found.error)
        most = min(LEFT_AT_MOST, math.exp(-1.001 * SCALES_LIMIT * self.time_scale * gap))
        return min(most, max(LEFT, LEFT_OF_ERROR * error * gap / max(deviation**2, 1e-300)))

    def _independent_sampler(self) -> IndependentSampler:
        assert isinstance(self.model, FlowWavefunction)
        return IndependentSampler(self.model, self.training.walkers, self.observables, self.workers)

    # What was found

    @property
    def energies(self) -> Energies:
        """Variational and path-action energies, with the step sizes they were extrapolated from."""
        path, sampling = self.trajectories, self.sampling
        sampler = sampling.sampler if sampling.step > 0 else None
        return Energies(
            last_batch=self.training.energy or Estimate(math.nan, math.nan),
            path=path.sampler.energy() if path.step > 0 else None,
            stationary=None if sampler is None else sampler.energy(),
            projection=self.projection.sampler.energy() if self.projection.step > 0 else None,
            fisher=sampler.fisher() if isinstance(sampler, IndependentSampler) else None,
        )

    @property
    def energy(self) -> Estimate:
        """The projected energy and its standard error; without projection the variational energy, an upper bound."""
        return self.energies.best

    @property
    def spectrum(self) -> Spectrum | None:
        """scipy's exact solution where the system allows one, otherwise None."""
        if self._spectrum is None and not (self.exact.step and not self.exact.results()):
            try:
                self._spectrum = diagonalise(self.potential, levels=self.settings.levels, max_seconds=EXACT_SECONDS)
            except (InputError, ComputationError):
                return None
        return self._spectrum

    @property
    def walkers(self) -> Positions:
        """Where the walkers here are now, (batch, particle, dim); on a torus not wrapped into the box."""
        if self.sampling.sampler is not None:
            return self.sampling.sampler.walkers
        return self.training.walkers if self.trajectories.sampler is None else self.trajectories.sampler.walkers[-1]

    def drift(self, r: Points) -> Positions:
        """The whole drift sigma^2 grad log psi at r, (batch, particle, dim)."""
        with torch.no_grad():
            return self.process.velocity(self.positions(r))

    def log_psi(self, r: Points) -> PerWalker:
        """log psi(r) up to a constant, (batch,); a line integral of the drift if that is not a gradient.

        Args:
            r: positions (batch, particle, dim); for a single coordinate also (batch,), for one particle (batch, dim).
        """
        return log_psi(self.process, self.system, self.positions(r))

    def sample(self, n: int, seed: int = 0) -> Positions:
        """n positions (n, particle, dim) from |psi|^2; the run itself is not changed.

        Independent ones of a flow.  Otherwise batches of all walkers, about a time scale apart: Metropolis-adjusted
        where psi is known, along trajectories with 128 steps in a time scale for a free drift.
        """
        return self._sample(n, self.walkers, seed)

    def named_samples(self, n: int, seed: int = 0) -> Named:
        """n positions, (sample, particle, dim), and log psi there up to a constant, (sample), for a file."""
        r = self.sample(n, seed)
        return {
            "positions": (("sample", "particle", "dim"), r),
            "log_psi": (("sample",), torch.cat([self.log_psi(part) for part in r.split(self.n_walkers)])),
        }

    @torch.no_grad()
    def _sample(self, n: int, walkers: Tensor, seed: int) -> Tensor:
        """As `sample`, beginning with these walkers."""
        generator = torch.Generator(self.system.device).manual_seed(seed)
        psi = self.model if isinstance(self.model, Wavefunction) else None
        if psi is not None and (independent := psi.sample(n, generator)) is not None:
            return independent
        batches: list[Tensor] = []
        tau, sampler = self.system.time_scale, self.sampling.sampler
        chain = None
        if psi is not None:
            chain = metropolis.start(self.process, walkers, tau / 4 if sampler is None else sampler.dt)
        while sum(map(len, batches)) < n:
            if chain is not None:
                chain = metropolis.move(self.process, chain, SAMPLE_MOVES, generator)
                walkers = chain.positions
            else:
                dt = tau / SAMPLE_STEPS
                walkers = evolve(self.process, walkers, n_steps=SAMPLE_STEPS, dt=dt, generator=generator).end
            batches.append(self.system.wrap(walkers))
        return torch.cat(batches)[:n]

    def positions(self, r: Points) -> Positions:
        """r as a tensor (batch, particle, dim) of this system's dtype, from any shape that fits."""
        x = torch.as_tensor(np.asarray(r) if not isinstance(r, Tensor) else r).to(self.system.device, self.system.dtype)
        n, dim = self.system.shape
        if x.ndim == 3 and x.shape[1:] == (n, dim):
            return x
        if (x.ndim == 2 and x.shape[1] == n * dim) or (x.ndim == 1 and n * dim == 1):
            return x.reshape(-1, n, dim)
        raise InputError(
            f"positions of shape {tuple(x.shape)} do not fit: give (batch, {n}, {dim}), or (batch, {n * dim})"
        )

    # What it brings to a run

    def _exact_results(self) -> dict[str, Any]:
        found = self.spectrum
        if found is None:
            return {}
        exact = {"mean": found.ground_state, "source": f"scipy, {found.method}"}
        if len(found.energies) > 1:
            exact["levels"] = found.energies.tolist()
        return {"energies": {"exact": exact}, "observables": self._exact_densities(found)}

    def _exact_densities(self, found: Spectrum) -> dict[str, Any]:
        """What is expected of the density, where it is averaged and scipy has it."""
        if self.sampling.step == 0:
            return {}
        at = {each.name: each.centres for each in self.observables if each.name == DENSITY}
        known = {name: found.density_of_particle(centres) for name, centres in at.items()}
        return {name: {"expected": values.tolist()} for name, values in known.items() if values is not None}

    def _sampling_results(self, sampler: Any) -> dict[str, Any]:
        found = sampler.energy()
        numbers = {
            "standard_deviation": found.standard_deviation,
            "acceptance": found.acceptance,
            "time_step": found.dt,
        }
        results: dict[str, Any] = {"sampling": {name: value for name, value in numbers.items() if value is not None}}
        if isinstance(sampler, IndependentSampler):
            results["energies"] = {"fisher": sampler.fisher().plain()}
        shown = {name: each for name, each in sampler.observables().items() if name not in (ENERGY, FORCE)}
        results["observables"] = by_kind({"variational": shown})
        if "virial" in results["observables"]:
            results["observables"]["virial"]["expected"] = 1.0
        return results

    def entries(self, found: dict[str, Any]) -> dict[str, Any]:
        E, known = self.energies, self.potential.known_energy
        values: dict[str, Any] = {"variational": {**E.variational.plain(), "estimator": E.estimator}}
        if E.projection is not None:
            values["projected"] = {**E.projection.energy.plain(), "estimator": projected_by(E.projection)}
        if (bound := self._lower_bound(found.get("energies", {}).get("exact", {}))) is not None:
            values["lower_bound"] = bound
        if E.fisher is None:
            values["path_action"] = E.path_action.plain()
        if any(self.potential.tail_correction):
            values |= with_tail(self.energy, self.potential.tail_correction[0], self.potential.n_particles)
        if self.system.harmonic is not None:
            values["harmonic"] = {
                "mean": self.system.harmonic,
                "source": "V + sum of omega / 2 at the geometry at rest",
            }
        if known is not None:
            values["reference"] = {"mean": known.value, "kind": known.kind, "source": known.source}
        more = {"potential": describe(self.potential), "n_walkers": self.n_walkers, "energies": values}
        if any(natural := self.potential.natural_units):
            more["units"] = natural.plain(self.shown_units)
        if self.potential.failures is not None:
            more["repaired"] = self.potential.failures
        if E.projection is not None:
            more["trust"] = self._trust(E).plain()
        both = {n: o for n, o in found.get("observables", {}).items() if "mixed" in o and "variational" in o}
        if both:
            single = {n: o for n, o in both.items() if "centres" not in o}
            more["observables"] = {name: {"extrapolated": extrapolated(entry)} for name, entry in single.items()}
        verdict = verdict_of(self.energy, {**found.get("energies", {}), **values}, projected=E.projection is not None)
        return more if verdict is None else {**more, "deviation": verdict}

    def summary(self) -> dict[str, Any]:
        """The numbers that matter most as one flat row, see `fkdrift.runs.compare.summary`.

        Example:
            >>> quick = Settings(n_updates=5, n_walkers=64, n_blocks=10, path_step=1 / 4, project=False)
            >>> round(fk.solve("harmonic", settings=quick).summary()["energy"], 4)
            0.5
        """
        return summary(self.result)

    def _first_excited(self, E: Estimate, exact: Mapping[str, Any]) -> tuple[float, str]:
        """E_1 as far as it is known, and how; E is the variational energy."""
        if "levels" in exact:
            return exact["levels"][1], "as scipy has it"
        if self.excitations.step > 0 and (found := self.excitations.sampler.excitations()):
            return found[0].energy.mean, "as found here"
        return E.mean + self._gap, "assumed"

    def _lower_bound(self, exact: Mapping[str, Any]) -> dict[str, Any] | None:
        """Temple's bound, which needs E_1: what is taken for it is said beside it."""
        stationary = self.energies.stationary
        if stationary is None:
            return None
        E_1, known = self._first_excited(stationary.energy, exact)
        bound = lower_bound(stationary.energy, stationary.standard_deviation**2, E_1)
        return None if bound is None else {**bound.plain(), "first_excited": E_1, "source": known}

    def _trust(self, E: Energies) -> Verdict:
        """Every test that this run allows."""
        stationary, tau = E.stationary, self.time_scale
        tests = energy_tests(
            E.variational,
            projected=E.best,
            path_action=None if stationary is None or E.path is None else E.path_action,
            standard_deviation=None if stationary is None else stationary.standard_deviation,
            gap=1 / tau,
            r_hat=None if stationary is None else stationary.r_hat,
        )
        return Verdict((*tests, *(() if E.projection is None else projection_tests(E.projection, tau, self._gap))))

    def plot(self) -> dict[str, Figure]:
        """Figures by name: energy against step, the wavefunction beside the exact one, trajectories."""
        from fkdrift.figures.ground_state import draw_figures  # here: matplotlib takes a second to import

        coordinates = math.prod(self.system.shape)
        some = self.walkers[: max(N_DRAWN_LEAST, N_DRAWN // coordinates)]
        rounds = ROUNDS if isinstance(self.model, Wavefunction) else ROUNDS // 4  # that much longer takes each
        n = len(some) * max(ROUNDS_LEAST, rounds // coordinates)
        more = {"projection": self._projection_figure} if self.projection.step > 0 else {}
        more |= {"levels": self._ladder} if self.excitations.step > 0 else {}
        more |= {"observables": self._histograms} if any(each.centres for each in self.observables) else {}
        more |= {"correlations": self._correlation_figure} if self.correlations.step > 0 else {}
        return draw_figures(
            self.process,
            self.system,
            walkers=self.walkers,
            samples=torch.cat([self.system.wrap(self.walkers), self._sample(n, some, seed=1)]),
            history=self.history,
            energies=self.result["energies"],
            spectrum=self._spectrum_so_far,
            more=more,
        )

    def animate(self, path: str | Path, *, n_frames: int = 60, n_training: int = 0, seed: int = 0) -> Path:
        """Write a GIF of walkers that follow the drift: while it is learned, and afterwards in equilibrium.

        Args:
            path: of the file, such as walkers.gif.
            n_frames: how many pictures of the equilibrium, an eighth of a time scale from one to the next.
            n_training: how many of the training before, at most; it is made again for them, which takes its time.
            seed: of the noise in equilibrium; the run itself is not changed.

        Raises:
            BadConfig: the training began with a drift that the run does not know.
        """
        from fkdrift.figures.animation import animate, in_equilibrium  # here: matplotlib takes a second to import

        again = GroundState(self.potential, self.settings)

        def frames() -> Iterator[tuple[str, Positions]]:
            if n_training:
                yield from self._training_again(again, n_training)
            again.model.load_state_dict(self.model.state_dict())
            generator = torch.Generator(self.system.device).manual_seed(seed)
            scale, some = self.time_scale, self.walkers[:N_ANIMATED]
            yield from in_equilibrium(again.process, some, n_frames=n_frames, time_scale=scale, generator=generator)

        animate(again.process, self.system, self.walkers[:N_ANIMATED], path := Path(path), frames())
        return path

    def _training_again(self, again: GroundState, n_frames: int) -> Iterator[tuple[str, Positions]]:
        """Frames of the training of this run, made by an equal one."""
        made = self.training.step
        every = max(1, math.ceil(made / n_frames))
        for index in range(made):
            if index % every == 0:
                yield f"update {index}", again.training.walkers[:N_ANIMATED]
            again.training.advance(again.generator)
            E = again.training.energy
            if index == 0 and E is not None and not math.isclose(E.mean, self.history["training"][0][1], rel_tol=1e-3):
                raise BadConfig("the training began with a drift that the run does not know: animate it without it")

    @property
    def _spectrum_so_far(self) -> Spectrum | None:
        """The exact solution if its turn has come: a figure does not wait for it."""
        return self.spectrum if self.exact.step else None

    def _projection_figure(self) -> Figure:
        """The energy against projection time and against the step."""
        from fkdrift.figures.projection import projection_figure

        sampler = self.projection.sampler
        exact = None if self._spectrum_so_far is None else self._spectrum_so_far.ground_state
        return projection_figure(sampler.energy(), sampler.trace(), exact)

    def _ladder(self) -> Figure:
        """Levels beside the exact ones; on a line with psi_n."""
        from fkdrift.figures.spectrum import ladder

        sampler = self.excitations.sampler
        found = [sampler.ground_state(), *(each.energy for each in sampler.excitations())]
        exact = [] if self._spectrum_so_far is None else self._spectrum_so_far.energies.tolist()
        drawn: dict[str, Any] = {}
        if self.system.shape == (1, 1):
            reach = sampler.walkers.aminmax()
            r = torch.linspace(float(reach.min), float(reach.max), N_LINE).to(sampler.walkers)[:, None, None]
            with torch.no_grad():
                U, V = self.log_psi(r), self.potential(r)
            psi = (U - U.max()).exp()[:, None] * sampler.wavefunction_ratios(r)[:, : len(found)]
            drawn = {"x": r.flatten().cpu().numpy(), "V": V.cpu().numpy(), "wavefunctions": psi.cpu().numpy()}
        return ladder([E.mean for E in found], [E.error for E in found], exact, **drawn)

    def _histograms(self) -> Figure:
        """Densities and pair distributions, by every estimator that there is."""
        from fkdrift.figures.observables import histogram_figure

        found = [("variational", self.sampling.sampler.observables())] if self.sampling.step > 0 else []
        found += list(self.projection.sampler.averages().items()) if self.projection.step > 0 else []
        return histogram_figure(dict(found), self.result["observables"])

    def _correlation_figure(self) -> Figure:
        """C(tau) of every observable asked for."""
        from fkdrift.figures.observables import correlation_figure

        sampler = self.correlations.sampler
        names = [each.name for each in sampler.observables]
        return correlation_figure(names, {kind: sampler.correlation(kind) for kind in ("variational", "pure")})

    @staticmethod
    def block(result: Mapping[str, Any]) -> Block:
        return ground_state_block(result)


def solve(
    potential: str | Path | Potential | type[Potential] | Callable[[Tensor], Tensor],
    /,
    *,
    settings: Settings | None = None,
    seed: int | None = None,
    method: str | None = None,
    drift: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    max_seconds: float | None = None,
    atol: float | None = None,
    levels: int | None = None,
    energy_unit: str | None = None,
    length_unit: str | None = None,
    observables: Sequence[str] | None = None,
    correlations: Sequence[str] | None = None,
    workers: int | str | None = None,
    start: Drift | None = None,
    out: str | Path | None = None,
    progress: bool | None = None,
    **parameters: object,
) -> GroundState:
    """The ground state of a potential: trains a drift, samples the stationary process, compares with scipy.

    Args:
        potential: a plug-in's name, `file.py:Name`, a formula, a table, a callable (batch, particle, dim) ->
            (batch,), or a Potential.
        settings: everything adjustable; the arguments below override single ones, see `Settings`.
        method: "drift", or "flow" for a normalizing flow: independent samples, and a normalised psi where it is smooth.
        seed, drift, device, dtype, max_seconds, atol, levels, observables, correlations: see `Settings`.
        energy_unit, length_unit: to show the result in; its numbers stay in the potential's own.
        workers: processes that share the walkers, or "auto"; see docs/workers.md.
        start: a drift to begin with, such as one from `fk.drift_from_samples`; default one that does nothing.
        out: folder to save to, also now and then while running, so that nothing is lost.
        progress: show a live line; default: where someone is looking (a terminal or a notebook).
        parameters: of the potential, such as omega=2.0; for a callable n_particles, n_dims and so on.

    Returns:
        GroundState.  Ctrl-C or SIGTERM finishes the step and returns what there is, marked interrupted; a second Ctrl-C
        stops at once.

    Raises:
        InputError: the potential, a parameter or a setting is not allowed.
        DivergedPath: walkers left every finite range.

    Example (a quick one: few walkers, and no projection):
        >>> quick = Settings(n_updates=5, n_walkers=64, n_blocks=10, path_step=1 / 4, project=False)
        >>> print(fk.solve("harmonic", omega=2.0, settings=quick, seed=0).energy)
        1.0000000(2)
    """
    given: dict[str, Any] = {"seed": seed, "method": method, "drift": drift, "device": device, "dtype": dtype}
    given |= {"max_seconds": max_seconds, "atol": atol, "levels": levels}
    given |= {"energy_unit": energy_unit, "length_unit": length_unit, "workers": workers}
    given |= {"observables": None if observables is None else tuple(observables)}
    given |= {"correlations": None if correlations is None else tuple(correlations)}
    settings = (settings or Settings()).changed(**given)
    try:
        loaded = load_potential(potential, **parameters)
    except BadParameter as error:
        for name in parameters.keys() & {field.name for field in fields(Settings)}:
            raise BadParameter(f"{error} It is a setting: settings=fk.Settings({name}=...)") from None
        raise
    state = made(lambda: GroundState(loaded, settings, start), loaded.name, settings, progress)
    return drive(state, out=None if out is None else Path(out), progress=progress)


def make_drift(system: System, settings: Settings) -> Drift:
    """The drift that the settings name, started from their seed without touching torch's global generator."""
    kinds: dict[str, Callable[..., Drift]] = {"gradient": NeuralWavefunction, "mlp": NeuralVectorField}
    kind = from_file(*settings.drift.split(":")) if is_own(settings.drift) else kinds[settings.drift]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return kind(system, settings.width, settings.depth)


def make_method(process: Process, system: System, settings: Settings, n_walkers: int) -> Optimiser:
    """The training method that the settings name."""
    tau = system.time_scale
    if settings.method == "flow":
        return NaturalGradient(process, IndependentSamples(n_walkers), time_scale=tau)
    if settings.optimiser == "natural":
        if isinstance(process.drift, Wavefunction):
            return NaturalGradient(process, MetropolisSamples(settings.n_moves), time_scale=tau)
        return NaturalGradient(process, Pathwise(settings.n_steps, settings.fine_step * tau), time_scale=tau)
    dt = (settings.coarse_step * tau, settings.fine_step * tau)
    return pathwise_adam(
        process, n_steps=settings.n_steps, dt=dt, n_updates=settings.n_updates, learning_rate=settings.learning_rate
    )


def _make_flow(system: System, settings: Settings) -> Drift:
    """A flow that suits the system."""
    from fkdrift.wavefunction.flow_start import make_wavefunction  # here: other runs need no flows

    return make_wavefunction(system, width=settings.width, depth=settings.depth, seed=settings.seed)


def _take_over(drift: Drift, start: Drift | Mapping[str, Tensor]) -> None:
    """Copy the parameters of one drift to another."""
    if isinstance(drift, FlowWavefunction) and not isinstance(start, FlowWavefunction | Mapping):
        raise BadConfig("a flow cannot start from a drift: leave out `start`, or use method = 'drift'")
    if isinstance(start, FlowWavefunction) and not isinstance(drift, FlowWavefunction):
        raise BadConfig("a drift cannot start from a flow: give fk.drift_from_samples of its samples")
    try:
        drift.load_state_dict(start if isinstance(start, Mapping) else start.state_dict())
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise BadConfig(f"the drift to start from is not of the kind and size of the settings: {reason}") from None


def _settled(process: Process, system: System, walkers: Positions, generator: torch.Generator) -> Positions:
    """Walkers that have followed a given drift until they are distributed as it would have them."""
    dt, n_steps = system.time_scale / SETTLING_STEPS, SETTLING_SCALES * SETTLING_STEPS
    with torch.no_grad():
        return evolve(process, walkers, n_steps=n_steps, dt=dt, generator=generator).end


def default_walkers(potential: Potential, settings: Settings) -> int:
    """How many walkers there are unless the settings say so."""
    if settings.method == "flow":
        return N_SYMMETRIC if potential.n_particles > 1 and len(potential.groups) == 1 else N_SAMPLES
    if potential.n_particles * potential.n_dims == 1 and settings.drift == "gradient":
        return N_WALKERS_LINE
    if potential.n_particles == 1 and settings.drift == "gradient":
        return N_WALKERS_ALONE
    n_pairs = potential.n_particles * (potential.n_particles - 1) // 2
    return max(N_WALKERS_LEAST, N_WALKERS // max(1, n_pairs // PAIRS_AT_FULL_COST))
