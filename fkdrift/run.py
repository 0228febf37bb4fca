"""One computation of a ground state that can be watched, stopped after any step, saved and resumed.

Training and sampling are two loops over generators; all that either depends on is in the run's own state, so a run
that was stopped, saved and resumed takes the same steps, bit for bit on the CPU, as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fkdrift.archive import read_checkpoint
from fkdrift.config import Settings
from fkdrift.drift import Drift, GradientDrift, MLPDrift
from fkdrift.errors import BadConfig
from fkdrift.estimate import Accumulators, Energies, energies, sample
from fkdrift.potential import Potential
from fkdrift.process import Process
from fkdrift.stats import Estimate
from fkdrift.system import System
from fkdrift.training import adam, fit

TRAINING, SAMPLING = 0, 1
MINIMUM_BLOCKS = 8


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Args:
        phase: "training", "equilibrating" or "sampling".
        step, n_steps: updates or blocks made in this phase, and planned (estimated while sampling to a tolerance).
        energy: of the last batch while training (biased by the step size); extrapolated, of all samples, afterwards.
        seconds: wall time since this session began.
    """

    phase: str
    step: int
    n_steps: int
    energy: Estimate
    seconds: float


class Run:
    """The state of one computation.

    Args:
        potential: the potential energy.
        settings: see `Settings`.

    Attributes:
        system, process, generator, optimiser, walkers: what training works on.
        accumulators: what sampling has added up; None until it starts.
        n_updates: optimiser steps made.
        history: rows (phase, step, energy, error, wall seconds).
        finished: whether everything that was asked for has been done.
        wall_seconds, cpu_seconds: spent, over all sessions.
    """

    def __init__(self, potential: Potential, settings: Settings) -> None:
        self.potential, self.settings = potential, settings
        device = settings.torch_device
        self.system = System(potential, settings.torch_dtype, device)
        self.generator = torch.Generator(device).manual_seed(settings.seed)
        self.drift = make_drift(self.system, settings)
        self.process = Process(self.drift, self.system)
        self.optimiser = adam(self.drift, settings.learning_rate)
        self.walkers = self.system.initial_walkers(settings.n_walkers, self.generator)
        self.accumulators: Accumulators | None = None
        self.n_updates = 0
        self.history: list[list[float]] = []
        self.finished = False
        self.wall_seconds = self.cpu_seconds = 0.0

    @property
    def _grid(self) -> tuple[float, int]:
        """The coarsest sampling step and how many of them make a block of one time scale."""
        n_steps = max(1, round(1 / self.settings.sample_step))
        return self.system.time_scale / n_steps, n_steps

    @property
    def energies(self) -> Energies:
        """Extrapolated energies of everything sampled; before that, of the last training batch."""
        dt, n_steps = self._grid
        if self.accumulators is not None and self.accumulators.n_blocks > 0:
            return energies(self.process, self.accumulators, dt=dt, n_steps=n_steps)
        _, _, mean, error, _ = self.history[-1] if self.history else (0, 0, float("nan"), float("nan"), 0)
        last = Estimate(mean, error)
        return Energies(last, last, "l_T / T of the last training batch, not extrapolated", Estimate(0.0, error), (), ())

    def advance(self) -> Iterator[Progress]:
        """Do what is left, yielding after every update and block; the state is whole and may be saved at each yield.

        Raises:
            DivergedPath: walkers left every finite range.
        """
        self._tick_wall, self._tick_cpu, start = time.perf_counter(), time.process_time(), self.wall_seconds
        limit = start + (self.settings.max_seconds or float("inf"))
        if self.accumulators is None:
            for progress in self._train(start):
                yield progress
                if self.wall_seconds > (start + limit) / 2:
                    break
        for progress in self._sample(start):
            yield progress
            if self.wall_seconds > limit:
                break
        self.finished = True

    def _train(self, start: float) -> Iterator[Progress]:
        settings, tau = self.settings, self.system.time_scale
        steps = fit(
            self.process,
            self.walkers,
            n_updates=settings.n_updates,
            n_steps=settings.n_steps,
            dt=(settings.coarse_step * tau, settings.fine_step * tau),
            generator=self.generator,
            optimiser=self.optimiser,
            learning_rate=settings.learning_rate,
            first=self.n_updates,
        )
        for step in steps:
            self.n_updates, self.walkers = step.index, step.walkers
            self._record(TRAINING, step.index, step.energy)
            yield Progress("training", step.index, settings.n_updates, step.energy, self.wall_seconds - start)

    def _sample(self, start: float) -> Iterator[Progress]:
        settings = self.settings
        dt, n_steps = self._grid
        blocks = sample(
            self.process,
            self.walkers,
            dt=dt,
            n_steps=n_steps,
            generator=self.generator,
            n_equilibration=settings.n_equilibration,
            state=self.accumulators,
        )
        while (planned := self._planned()) > self._n_blocks:
            self.accumulators = next(blocks)
            if self._n_blocks <= 0:
                self._tick()
                done = settings.n_equilibration + self._n_blocks
                yield Progress("equilibrating", done, settings.n_equilibration, self.energies.variational, self.wall_seconds - start)
            else:
                energy = self.energies.variational
                self._record(SAMPLING, self._n_blocks, energy)
                yield Progress("sampling", self._n_blocks, planned, energy, self.wall_seconds - start)

    @property
    def _n_blocks(self) -> int:
        return -self.settings.n_equilibration if self.accumulators is None else self.accumulators.n_blocks

    def _planned(self) -> int:
        """How many blocks to sample: as set, or as many as the error asked for is likely to need."""
        atol, n = self.settings.atol, self._n_blocks
        if atol is None:
            return self.settings.n_blocks
        if n < MINIMUM_BLOCKS:
            return MINIMUM_BLOCKS
        error = self.energies.variational.error
        return n if error <= atol else n + max(1, round(n * ((error / atol) ** 2 - 1)))

    def _record(self, phase: int, step: int, energy: Estimate) -> None:
        self._tick()
        self.history.append([phase, step, energy.mean, energy.error, self.wall_seconds])

    def _tick(self) -> None:
        """Add the time since the last tick."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.wall_seconds += wall - self._tick_wall
        self.cpu_seconds += cpu - self._tick_cpu
        self._tick_wall, self._tick_cpu = wall, cpu

    def state_dict(self) -> dict[str, Any]:
        """The whole state as tensors, numbers, text, lists and dicts."""
        return {
            "drift": self.drift.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "walkers": self.walkers,
            "accumulators": None if self.accumulators is None else self.accumulators.state_dict(),
            "history": torch.tensor(self.history, dtype=torch.float64).reshape(-1, 5),
            "n_updates": self.n_updates,
            "finished": self.finished,
            "wall_seconds": self.wall_seconds,
            "cpu_seconds": self.cpu_seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state.

        Raises:
            BadConfig: it does not belong to this potential and these settings.
        """
        device = self.system.device
        try:
            self.drift.load_state_dict(state["drift"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.generator.set_state(state["generator"])
            self.walkers = state["walkers"].to(device)
            saved = state["accumulators"]
            moved = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in (saved or {}).items()}
            self.accumulators = Accumulators(**moved) if saved else None
            self.history = state["history"].tolist()
            self.n_updates, self.finished = state["n_updates"], state["finished"]
            self.wall_seconds, self.cpu_seconds = state["wall_seconds"], state["cpu_seconds"]
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
    kind = {"gradient": GradientDrift, "mlp": MLPDrift}[settings.drift]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return kind(system, settings.width, settings.depth)
