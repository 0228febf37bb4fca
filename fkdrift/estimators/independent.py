"""The energy of a flow from independent samples: no walkers, no time step, no equilibration.

    E = E_p[E_L] = E_p[ sum_i sigma_i^2 |grad_i log p|^2 / 8 + V ]

E_L has no noise at the optimum; the second, the Fisher form, keeps its noise but bounds E_0 for every density.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fkdrift.estimators.local_energy import StationaryEnergy
from fkdrift.estimators.observables import Average, Averages, Observable
from fkdrift.numerics.estimates import Estimate
from fkdrift.numerics.workers import ALONE, Workers
from fkdrift.paths.process import Process
from fkdrift.tensor_types import Positions
from fkdrift.wavefunction.flow import FlowWavefunction, fisher_energy
from fkdrift.wavefunction.local_energy import local_energy


class IndependentSampler:
    """Sums of E_L and the Fisher form over independent samples of a flow.

    Args:
        wavefunction: the flow and its system.
        walkers: (batch, particle, dim), as many as a block is to have; replaced by every block's own.
        observables: averaged beside E_L.
        workers: that share the samples of every batch.

    Attributes:
        n_blocks: batches drawn.
        sums: (2, 2) float64, of E_L and the Fisher form, and of their squares.
    """

    def __init__(
        self,
        wavefunction: FlowWavefunction,
        walkers: Positions,
        observables: Sequence[Observable] = (),
        workers: Workers = ALONE,
    ) -> None:
        self.wavefunction, self.walkers, self.n_blocks, self.workers = wavefunction, walkers, 0, workers
        self.process = Process(wavefunction, wavefunction.system)
        self.sums = torch.zeros(2, 2, dtype=torch.float64, device=walkers.device)
        self.batch = int(workers.sum(torch.tensor(len(walkers))))
        self.averages = Averages(observables, len(walkers), walkers.device, workers)

    @torch.no_grad()
    def advance(self, generator: torch.Generator) -> None:
        """Draw a batch and add it up."""
        self.walkers = r = self.wavefunction.sample(len(self.walkers), generator)
        values = torch.stack([local_energy(self.process, r), fisher_energy(self.wavefunction, r)])
        self.sums += self.workers.sum(torch.stack([values.sum(-1), values.square().sum(-1)]).to(self.sums))
        self.averages.add(r, values[0])
        self.n_blocks += 1

    def energy(self) -> StationaryEnergy:
        """The mean local energy, and its standard deviation."""
        E, _ = self._estimates()
        return StationaryEnergy(E, E.error * self._n_samples**0.5, None, None)

    def observables(self) -> dict[str, Average]:
        """The mean of every observable over all samples, by name."""
        return self.averages.estimates()

    def fisher(self) -> Estimate:
        """The Fisher form of the energy."""
        return self._estimates()[1]

    @property
    def _n_samples(self) -> int:
        return self.n_blocks * self.batch

    def _estimates(self) -> list[Estimate]:
        mean, square = self.sums / self._n_samples
        error = ((square - mean.square()).clamp_min(0) / self._n_samples).sqrt()
        return [Estimate(m, e, self._n_samples) for m, e in zip(mean.tolist(), error.tolist(), strict=True)]

    def state_dict(self) -> dict[str, Any]:
        return {
            "walkers": self.workers.gather(self.walkers),
            "sums": self.sums,
            "n_blocks": self.n_blocks,
            "averages": self.averages.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.walkers, self.sums = self.workers.own(state["walkers"]).to(self.walkers), state["sums"].to(self.sums)
        self.n_blocks = state["n_blocks"]
        self.averages.load_state_dict(state["averages"])
