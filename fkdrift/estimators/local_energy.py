"""The mean local energy over |psi|^2: an energy for every process whose log psi is known.

E_L = (H psi) / psi averaged over Metropolis-adjusted steps has no bias from the step, and no noise at the optimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fkdrift.estimators.controls import Controls
from fkdrift.estimators.observables import Average, Averages, Observable
from fkdrift.estimators.state import restore, saved
from fkdrift.hamiltonian.system import System
from fkdrift.numerics.estimates import Estimate, from_walkers, r_hat, rounding_error
from fkdrift.paths.process import Process
from fkdrift.tensor_types import Positions
from fkdrift.wavefunction import metropolis
from fkdrift.wavefunction.local_energy import local_energy

AXES = {"regions": 0, "sums": 1}
"""Of the walkers, in what is saved."""


@dataclass(frozen=True)
class StationaryEnergy:
    """The mean local energy over |psi|^2.

    Args:
        energy: with its error from independent walkers.
        standard_deviation: of E_L over |psi|^2; 0 at the optimum.
        acceptance: mean acceptance probability of the Metropolis-adjusted steps; None for independent samples.
        dt: the time step; None for independent samples.
        r_hat: of E_L, over walkers that started in different regions; None for independent samples.
    """

    energy: Estimate
    standard_deviation: float
    acceptance: float | None
    dt: float | None
    r_hat: float | None = None


class StationarySampler:
    """Metropolis-adjusted trajectories of independent walkers, with the local energy at the end of every block.

    Args:
        process: the trained process; its drift is a `Wavefunction`.
        walkers: (batch, particle, dim) starting positions.
        time_scale: of the system; half of it is the longest step.
        n_moves: steps in a block.
        n_equilibration: blocks to discard first; the step is tuned during these only.
        observables: averaged beside E_L.
    """

    def __init__(
        self,
        process: Process,
        walkers: Positions,
        *,
        time_scale: float,
        n_moves: int = 4,
        n_equilibration: int = 16,
        observables: Sequence[Observable] = (),
    ) -> None:
        self.process, self.time_scale, self.n_moves = process, time_scale, n_moves
        self.workers = process.workers
        self.chain, self.n_blocks = metropolis.start(process, walkers, time_scale / 4), -n_equilibration
        self.regions = self.workers.own(starting_regions(self.workers.gather(walkers)))
        self.sums = torch.zeros(3, len(walkers), dtype=torch.float64, device=walkers.device)
        system = process.reference
        self.controls = Controls(system) if observables and isinstance(system, System) else None
        self.averages = Averages(
            observables,
            len(walkers),
            walkers.device,
            self.workers,
            n_controls=self.controls.size if self.controls else 0,
            rounding=rounding_error(walkers),
        )

    @property
    def walker_steps(self) -> int:
        """In a block, of all workers."""
        return self.n_moves * len(self.walkers) * self.workers.size

    @property
    def walkers(self) -> Positions:
        """(batch, particle, dim), where the next block starts."""
        return self.chain.positions

    @property
    def dt(self) -> Tensor:
        """The time step."""
        return self.chain.dt

    def advance(self, generator: torch.Generator) -> None:
        """Run one block and, once equilibrated, add up E_L, E_L^2 and the acceptance."""
        longest = self.time_scale / 2 if self.n_blocks < 0 else None
        self.chain = metropolis.move(self.process, self.chain, self.n_moves, generator, longest=longest)
        if self.n_blocks >= 0:
            with torch.no_grad():
                E = local_energy(self.process, self.walkers).double()
            self.sums += torch.stack([E, E.square(), self.chain.acceptance.double().expand_as(E)])
            controls = self.controls(self.walkers, self.chain.velocity) if self.controls else None
            self.averages.add(self.walkers, E, controls=controls)
        self.n_blocks += 1

    def energy(self) -> StationaryEnergy:
        """The energy of all counted blocks, of which there must be at least one."""
        E, square, acceptance = self.workers.gather(self.sums, 1) / self.n_blocks
        variance = max(0.0, (square.mean() - E.mean().square()).item())
        return StationaryEnergy(
            from_walkers(E, variance, rounding_error(self.walkers)),
            variance**0.5,
            acceptance.mean().item(),
            self.dt.item(),
            r_hat(E, variance, self.workers.gather(self.regions)),
        )

    def observables(self) -> dict[str, Average]:
        """The variational mean of every observable over all counted blocks, by name."""
        return self.averages.estimates()

    def state_dict(self) -> dict[str, Any]:
        own = saved(self, ("regions", "sums", "n_blocks"), AXES, self.workers)
        whole = {
            name: self.workers.gather(value) if value.ndim else self.workers.first(value)
            for name, value in self.chain.state_dict().items()
        }
        return {**own, "chain": whole, "averages": self.averages.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.averages.load_state_dict(state["averages"])
        device, own = self.walkers.device, self.workers.own
        chain = {name: own(value) if value.ndim else value for name, value in state["chain"].items()}
        self.chain = metropolis.MetropolisState(**{name: value.to(device) for name, value in chain.items()})
        restore(self, {name: state[name] for name in ("regions", "sums", "n_blocks")}, AXES, self.workers)


def starting_regions(r: Positions) -> Tensor:
    """In which of up to four regions each walker is, (batch,): the quadrants of the two directions in which they differ
    most.

    Args:
        r: positions (batch, particle, dim).
    """
    x = r.flatten(1).double()
    x = x - x.mean(0)
    _, directions = torch.linalg.eigh(x.T @ x)  # by increasing variance
    return ((x @ directions[:, -2:]) > 0).long() @ torch.tensor([2, 1], device=r.device)[-min(2, x.shape[1]) :]
