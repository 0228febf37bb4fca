"""One computation of a ground state that can be watched, stopped after any step, saved and resumed.

Three phases: train the drift, follow long trajectories for E[l_T] / T, and (where log psi is known) average the local
energy.  All that a phase depends on is in the run's own state, so a run that was stopped, saved and resumed takes the
same steps, bit for bit on the CPU, as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fkdrift.errors import BadConfig
from fkdrift.estimators.energies import Energies
from fkdrift.estimators.local_energy import StationarySampler
from fkdrift.estimators.path_action import PathSampler
from fkdrift.hamiltonian.potential import Potential
from fkdrift.hamiltonian.system import System
from fkdrift.numerics.estimates import Estimate
from fkdrift.paths.evolution import evolve
from fkdrift.paths.process import Process
from fkdrift.runs.run_folder import read_checkpoint
from fkdrift.runs.settings import Settings
from fkdrift.tensor_types import Positions
from fkdrift.training.energy_gradients import MetropolisSamples, Pathwise
from fkdrift.training.loop import Optimiser, fit
from fkdrift.training.natural_gradient import NaturalGradient
from fkdrift.training.pathwise import pathwise_adam
from fkdrift.wavefunction.neural import NeuralVectorField, NeuralWavefunction
from fkdrift.wavefunction.protocol import Drift, Wavefunction

TRAINING, TRAJECTORIES, SAMPLING = range(3)
MINIMUM_BLOCKS = 32
N_CHECK_WALKERS = 512
SETTLING_SCALES, SETTLING_STEPS = 4, 32
COUNTERS = ("n_updates", "trained", "finished", "wall_seconds", "cpu_seconds")


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Args:
        phase: "training", "trajectories" or "sampling".
        step, n_steps: updates or blocks made in this phase, and planned (estimated while sampling to a tolerance).
        energy: of the last batch while training; of everything sampled in this phase afterwards.
        seconds: wall time since this session began.
        spread: standard deviation of E_L (of l_T / T for a free drift) over the batch, while training.
        remaining: expected energy still to be gained by training, where known.
    """

    phase: str
    step: int
    n_steps: int
    energy: Estimate
    seconds: float
    spread: float | None = None
    remaining: float | None = None


class Run:
    """The state of one computation.

    Args:
        potential: the potential energy.
        settings: see `Settings`.
        start: a drift whose parameters training begins with, such as one learned from samples; of the kind and size
            that the settings name.

    Raises:
        BadConfig: `start` is of another kind or size.

    Attributes:
        system, process, generator, method: what training works on.
        paths, stationary: the samplers; None until they start.
        n_updates: optimiser steps made.
        history: rows (phase, step, energy, error, wall seconds).
        trained, finished: whether training, and everything, has been done.
        wall_seconds, cpu_seconds: spent, over all sessions.
    """

    def __init__(self, potential: Potential, settings: Settings, start: Drift | None = None) -> None:
        self.potential, self.settings = potential, settings
        device = settings.torch_device
        self.system = System(potential, settings.torch_dtype, device)
        self.generator = torch.Generator(device).manual_seed(settings.seed)
        self.drift = make_drift(self.system, settings)
        if start is not None:
            _take_over(self.drift, start)
        self.process = Process(self.drift, self.system)
        self.method = make_method(self.process, self.system, settings)
        n_walkers = settings.n_walkers or _n_walkers(potential, settings)
        self._walkers = self.system.initial_walkers(n_walkers, self.generator)
        if start is not None:
            self._settle()
        self.paths: PathSampler | None = None
        self.stationary: StationarySampler | None = None
        self.n_updates = 0
        self.history: list[list[float]] = []
        self.trained = self.finished = False
        self.wall_seconds = self.cpu_seconds = 0.0

    @property
    def walkers(self) -> Positions:
        """Where the walkers are now, (batch, particle, dim); on a torus not wrapped into the box."""
        if self.stationary is not None:
            return self.stationary.walkers
        return self._walkers if self.paths is None else self.paths.walkers[-1]

    @property
    def n_walkers(self) -> int:
        """How many independent walkers there are."""
        return len(self._walkers)

    @property
    def energies(self) -> Energies:
        """Everything known of the energy so far."""
        _, _, mean, error, _ = self.history[-1] if self.history else (0, 0, float("nan"), float("nan"), 0)
        return Energies(
            last_batch=Estimate(mean, error),
            path=self.paths.energy() if self.paths is not None and self.paths.n_blocks > 0 else None,
            stationary=self.stationary.energy()
            if self.stationary is not None and self.stationary.n_blocks > 0
            else None,
        )

    def advance(self) -> Iterator[Progress]:
        """Do what is left, yielding after every update and block; the state is whole and may be saved at each yield.

        With max_seconds, training gets the first half of the time, trajectories up to three quarters, sampling the
        rest.

        Raises:
            DivergedPath: walkers left every finite range.
        """
        self.finished = False
        self._tick_wall, self._tick_cpu, self._start = time.perf_counter(), time.process_time(), self.wall_seconds
        limit = self.settings.max_seconds or float("inf")
        if not self.trained:
            yield from self._until(limit / 2, self._train())
            self.method.finish()
            self.trained = True
        gradient = isinstance(self.drift, Wavefunction)
        yield from self._until(limit * (0.75 if gradient else 1), self._follow())
        if gradient:
            yield from self._until(limit, self._average())
        self.finished = True

    def _settle(self) -> None:
        """Let walkers follow the drift for a few time scales, to where it wants them."""
        dt = self.system.time_scale / SETTLING_STEPS
        n_steps = SETTLING_SCALES * SETTLING_STEPS
        with torch.no_grad():
            self._walkers = evolve(self.process, self._walkers, n_steps=n_steps, dt=dt, generator=self.generator).end

    def _until(self, limit: float, phase: Iterator[Progress]) -> Iterator[Progress]:
        """A phase, ended once this session has taken `limit` seconds."""
        for progress in phase:
            yield progress
            if self.wall_seconds - self._start > limit:
                return

    def _train(self) -> Iterator[Progress]:
        settings = self.settings
        steps = fit(
            self.method,
            self._walkers,
            n_updates=settings.n_updates,
            generator=self.generator,
            first=self.n_updates,
            tolerance=settings.training_tolerance,
        )
        for step in steps:
            self.n_updates, self._walkers = step.index, step.update.walkers
            seconds = self._record(TRAINING, step.index, step.energy)
            remaining = step.update.estimated_excess
            yield Progress(
                "training", step.index, settings.n_updates, step.energy, seconds, step.standard_deviation, remaining
            )

    def _follow(self) -> Iterator[Progress]:
        """Trajectories at three step sizes: all the sampling of a free drift, a cross-check for a gradient drift."""
        settings = self.settings
        self.paths = self.paths or self._path_sampler()
        last = isinstance(self.drift, NeuralVectorField)
        while (planned := self._planned(self.paths.n_blocks, settings.n_path_blocks, last)) > self.paths.n_blocks:
            self.paths.advance(self.generator)
            energy = self.energies.path_action
            seconds = self._record(TRAJECTORIES, self.paths.n_blocks, energy)
            yield Progress("trajectories", max(0, self.paths.n_blocks), planned, energy, seconds)

    def _average(self) -> Iterator[Progress]:
        """The local energy over |psi|^2."""
        settings = self.settings
        self.stationary = self.stationary or self._stationary_sampler()
        while (planned := self._planned(self.stationary.n_blocks, settings.n_blocks, True)) > self.stationary.n_blocks:
            self.stationary.advance(self.generator)
            energy = self.energies.variational
            seconds = self._record(SAMPLING, self.stationary.n_blocks, energy)
            yield Progress("sampling", max(0, self.stationary.n_blocks), planned, energy, seconds)

    def _path_sampler(self) -> PathSampler:
        n_steps = max(1, round(1 / self.settings.path_step))
        n_walkers = len(self._walkers) if isinstance(self.drift, NeuralVectorField) else N_CHECK_WALKERS
        return PathSampler(
            self.process,
            self._walkers[:n_walkers],
            dt=self.system.time_scale / n_steps,
            n_steps=n_steps,
            n_equilibration=self.settings.n_equilibration,
        )

    def _stationary_sampler(self) -> StationarySampler:
        return StationarySampler(
            self.process,
            self._walkers,
            self.potential,
            time_scale=self.system.time_scale,
            n_moves=self.settings.n_moves,
            n_equilibration=4 * self.settings.n_equilibration,
        )

    def _planned(self, n: int, n_blocks: int, last: bool) -> int:
        """How many blocks to sample: as set or, in the last phase, as many as the error asked for is likely to need."""
        atol = self.settings.atol
        if atol is None or not last:
            return n_blocks
        if n < MINIMUM_BLOCKS:
            return MINIMUM_BLOCKS
        error = self.energies.variational.error
        return n if error <= atol else n + max(1, round(n * ((error / atol) ** 2 - 1)))

    def _record(self, phase: int, step: int, energy: Estimate) -> float:
        """Add a row to the history (not while equilibrating), and return the seconds since this session began."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.wall_seconds += wall - self._tick_wall
        self.cpu_seconds += cpu - self._tick_cpu
        self._tick_wall, self._tick_cpu = wall, cpu
        if step > 0:
            self.history.append([phase, step, energy.mean, energy.error, self.wall_seconds])
        return self.wall_seconds - self._start

    def state_dict(self) -> dict[str, Any]:
        """The whole state as tensors, numbers, text, lists and dicts."""
        return {
            "drift": self.drift.state_dict(),
            "method": self.method.state_dict(),
            "generator": self.generator.get_state(),
            "walkers": self._walkers,
            "paths": None if self.paths is None else self.paths.state_dict(),
            "stationary": None if self.stationary is None else self.stationary.state_dict(),
            "history": torch.tensor(self.history, dtype=torch.float64).reshape(-1, 5),
            **{name: getattr(self, name) for name in COUNTERS},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state.

        Raises:
            BadConfig: it does not belong to this potential and these settings.
        """
        try:
            self.drift.load_state_dict(state["drift"])
            self.method.load_state_dict(state["method"])
            self.generator.set_state(state["generator"])
            self._walkers = state["walkers"].to(self._walkers)
            self.history = state["history"].tolist()
            for name in COUNTERS:
                setattr(self, name, state[name])
            if state["paths"] is not None:
                self.paths = self._path_sampler()
                self.paths.load_state_dict(state["paths"])
            if state["stationary"] is not None:
                self.stationary = self._stationary_sampler()
                self.stationary.load_state_dict(state["stationary"])
        except (KeyError, RuntimeError, TypeError, AttributeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise BadConfig(f"the checkpoint does not fit this potential and these settings: {reason}") from None


def load_run(folder: Path, potential: Potential, settings: Settings) -> Run:
    """The run saved in a folder, for the potential and settings in its config.toml."""
    run = Run(potential, settings)
    run.load_state_dict(read_checkpoint(folder))
    return run


def make_drift(system: System, settings: Settings) -> Drift:
    """The drift that the settings name, started from their seed without touching torch's global generator."""
    kind = {"gradient": NeuralWavefunction, "mlp": NeuralVectorField}[settings.drift]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return kind(system, settings.width, settings.depth)


def _take_over(drift: Drift, start: Drift) -> None:
    """Copy the parameters of one drift to another."""
    try:
        drift.load_state_dict(start.state_dict())
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise BadConfig(f"the drift to start from is not of the kind and size of the settings: {reason}") from None


def make_method(process: Process, system: System, settings: Settings) -> Optimiser:
    """The training method that the settings name."""
    tau = system.time_scale
    if settings.optimiser == "natural":
        if isinstance(process.drift, Wavefunction):
            return NaturalGradient(process, MetropolisSamples(settings.n_moves), time_scale=tau)
        return NaturalGradient(process, Pathwise(settings.n_steps, settings.fine_step * tau), time_scale=tau)
    dt = (settings.coarse_step * tau, settings.fine_step * tau)
    return pathwise_adam(
        process, n_steps=settings.n_steps, dt=dt, n_updates=settings.n_updates, learning_rate=settings.learning_rate
    )


def _n_walkers(potential: Potential, settings: Settings) -> int:
    """1024 for a few particles; fewer for many, as the cost of each grows with the number of pairs.

    For log psi of a single coordinate 4096, which cost little more and find the tails.
    """
    if potential.n_particles * potential.n_dims == 1 and settings.drift == "gradient":
        return 4096
    n_pairs = potential.n_particles * (potential.n_particles - 1) // 2
    return max(256, 1024 // max(1, n_pairs // 12))
