"""A run whose |phi_0|^2 is a normalizing flow: `method="flow"`.

It trains by natural gradient on independent samples, then averages the local energy and the Fisher form over new ones:
no walkers, no time step, no equilibration, and a psi that is normalised.  Everything around it, saving, resuming,
reports and figures, is that of any other `Run`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from fkdrift.estimators.energies import Energies
from fkdrift.estimators.local_energy import StationaryEnergy
from fkdrift.hamiltonian.potential import Potential
from fkdrift.hamiltonian.system import System
from fkdrift.numerics.estimates import Estimate
from fkdrift.paths.process import Process
from fkdrift.runs.run import MINIMUM_BLOCKS, SAMPLING, TRAINING, Progress, Run
from fkdrift.runs.settings import Settings
from fkdrift.training.energy_gradients import IndependentSamples
from fkdrift.training.loop import fit
from fkdrift.training.natural_gradient import NaturalGradient
from fkdrift.wavefunction.flow import FlowWavefunction, fisher_energy
from fkdrift.wavefunction.flow_start import make_flow
from fkdrift.wavefunction.local_energy import local_energy

N_SAMPLES = 1024
N_SYMMETRIC = 256
BLOCKS_FOR_ONE = 10


class FlowRun(Run):
    """The state of one computation with a flow, always in float64.

    Args:
        potential: the potential energy, in open space.
        settings: see `Settings`; n_walkers is the number of samples in a batch, and as batches are independent, one is
            drawn for every ten of n_blocks.

    Raises:
        InputError: a flow does not suit this potential.
    """

    def __init__(self, potential: Potential, settings: Settings) -> None:
        self.potential, self.settings = potential, replace(settings, dtype="float64")
        device = settings.torch_device
        self.system = System(potential, torch.float64, device)
        self.generator = torch.Generator(device).manual_seed(settings.seed)
        flow = make_flow(self.system, width=settings.width, depth=settings.depth, seed=settings.seed)
        self.flow = FlowWavefunction(flow, self.system)
        self.drift = self.flow
        self.process = Process(self.drift, self.system)
        symmetric = potential.n_particles > 1 and len(potential.groups) == 1
        n_samples = settings.n_walkers or (N_SYMMETRIC if symmetric else N_SAMPLES)
        source = IndependentSamples(n_samples)
        self.method = self.natural = NaturalGradient(self.process, source, time_scale=self.system.time_scale)
        self._walkers = self.system.initial_walkers(n_samples, self.generator)
        self.paths, self.stationary = None, None
        self.samples = Samples(self.flow)
        self.n_updates = 0
        self.history: list[list[float]] = []
        self.trained = self.finished = False
        self.wall_seconds = self.cpu_seconds = 0.0

    @property
    def energies(self) -> Energies:
        """The mean local energy and the Fisher form over independent samples."""
        known = super().energies
        if self.samples.n_blocks == 0:
            return known
        return replace(known, stationary=self.samples.energy(), fisher=self.samples.fisher())

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
        if self.natural.settled:
            return
        for step in steps:
            self.n_updates, self._walkers = step.index, step.update.walkers.detach()
            seconds = self._record(TRAINING, step.index, step.energy)
            remaining = step.update.estimated_excess
            yield Progress(
                "training", step.index, settings.n_updates, step.energy, seconds, step.standard_deviation, remaining
            )
            if self.natural.settled:
                return

    def _follow(self) -> Iterator[Progress]:
        """Independent samples need no trajectories."""
        yield from ()

    def _average(self) -> Iterator[Progress]:
        samples = self.samples
        n_blocks = max(MINIMUM_BLOCKS, self.settings.n_blocks // BLOCKS_FOR_ONE)
        while (planned := self._planned(samples.n_blocks, n_blocks, True)) > samples.n_blocks:
            self._walkers = samples.advance(self.n_walkers, self.generator)
            energy = self.energies.variational
            seconds = self._record(SAMPLING, samples.n_blocks, energy)
            yield Progress("sampling", samples.n_blocks, planned, energy, seconds)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "samples": self.samples.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.samples.load_state_dict(state["samples"])


class Samples:
    """Sums of E_L, the Fisher form and V over independent samples of a flow.

    Args:
        drift: the flow and its system.

    Attributes:
        n_blocks: batches drawn.
        sums: (2, 3) float64, of E_L, Fisher form and V, and of their squares.
    """

    def __init__(self, drift: FlowWavefunction) -> None:
        self.drift, self.n_blocks, self.n_samples = drift, 0, 0
        self.sums = torch.zeros(2, 3, dtype=torch.float64, device=drift.variance.device)

    def advance(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Draw n more and add them up; returns them, (n, particle, dim)."""
        r = self.drift.sample(n, generator)
        with torch.no_grad():
            V = self.drift.system.potential(r)
            values = torch.stack(
                [local_energy(Process(self.drift, self.drift.system), r), fisher_energy(self.drift, r), V]
            )
        self.sums += torch.stack([values.sum(-1), values.square().sum(-1)])
        self.n_blocks, self.n_samples = self.n_blocks + 1, self.n_samples + n
        return r

    def energy(self) -> StationaryEnergy:
        """The mean local energy, its spread, and the mean of V."""
        E, _, V = self._estimates()
        return StationaryEnergy(E, E.error * self.n_samples**0.5, None, V, None)

    def fisher(self) -> Estimate:
        """The Fisher form of the energy."""
        return self._estimates()[1]

    def _estimates(self) -> list[Estimate]:
        mean, square = self.sums / self.n_samples
        error = ((square - mean.square()).clamp_min(0) / self.n_samples).sqrt()
        return [Estimate(m, e, self.n_samples) for m, e in zip(mean.tolist(), error.tolist(), strict=True)]

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums, "n_blocks": self.n_blocks, "n_samples": self.n_samples}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums = state["sums"].to(self.sums)
        self.n_blocks, self.n_samples = state["n_blocks"], state["n_samples"]
