"""The path action E[l_T] / T of a process, extrapolated to zero step: an energy for every drift.

Long Euler-Maruyama trajectories at three step sizes at once.  The step shifts E[l_T] / T by a dt + b dt^2 + ...
(harmonic, v = -x: E = 1 / (2 - dt)).  Three copies of every walker follow the same Brownian path with steps dt, dt/2
and dt/4, and Richardson's weights

    E = E(dt) / 3 - 2 E(dt/2) + 8 E(dt/4) / 3

remove the first two orders walker by walker: the copies stay close, so the extrapolation adds little noise, and the
spread over independent walkers is the error of the extrapolated energy itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fkdrift.estimators.state import restore, saved
from fkdrift.numerics.estimates import Estimate, from_walkers, rounding_error
from fkdrift.paths.evolution import Shared, evolve
from fkdrift.paths.process import Process
from fkdrift.tensor_types import Positions
from fkdrift.wavefunction.protocol import Wavefunction

RICHARDSON = (1 / 3, -2.0, 8 / 3)
AXES = {"walkers": 1, "action": 1, "squares": 0, "start": 1}
"""Of the walkers, in what is saved."""


@dataclass(frozen=True)
class PathEnergy:
    """E[l_T] / T extrapolated to dt = 0.

    Args:
        action: the stationary mean of l_T / T.
        corrected: the mean of (l_T + f(r_0) - f(r_T)) / T, f = log psi - W: the same energy with less noise.  The
            same as `action` for a free drift.
        step_bias: what the finest step still adds, removed by the extrapolation.
        time_steps: the step sizes, coarsest first.
        by_time_step: the corrected energy at each of them.
    """

    action: Estimate
    corrected: Estimate
    step_bias: Estimate
    time_steps: tuple[float, ...]
    by_time_step: tuple[Estimate, ...]


class PathSampler:
    """Stationary trajectories of independent walkers at three step sizes that share their Brownian paths.

    Args:
        process: the trained process.
        walkers: (batch, particle, dim) starting positions.
        dt: the coarsest step; the others are dt/2 and dt/4.
        n_steps: coarse steps in a block.
        n_equilibration: blocks to discard first.

    Attributes:
        n_blocks: counted blocks; negative while equilibrating.
    """

    def __init__(
        self, process: Process, walkers: Positions, *, dt: float, n_steps: int, n_equilibration: int = 4
    ) -> None:
        self.process, self.dt, self.n_steps, self.n_blocks = process, dt, n_steps, -n_equilibration
        self.workers = process.workers
        n_levels = len(RICHARDSON)
        self.walkers = walkers.expand(n_levels, *walkers.shape).clone()
        self.action = torch.zeros(n_levels, len(walkers), dtype=torch.float64, device=walkers.device)
        self.squares = torch.zeros_like(self.action[0])
        self.start = self._correction()

    @property
    def walker_steps(self) -> int:
        """In a block, of all workers."""
        return self.n_steps * (2 ** len(RICHARDSON) - 1) * self.walkers.shape[1] * self.workers.size

    def advance(self, generator: torch.Generator) -> None:
        """Run one block at every step size, along the same Brownian paths.

        Raises:
            DivergedPath: walkers left every finite range.
        """
        noise = generator.get_state()
        n_levels = len(RICHARDSON)
        if self.n_blocks == 0:
            self.start = self._correction()
        for level in range(n_levels):
            generator.set_state(noise)
            refinement = 2**level
            with torch.no_grad():
                path = evolve(
                    self.process,
                    self.walkers[level],
                    n_steps=self.n_steps * refinement,
                    dt=self.dt / refinement,
                    noise=Shared(2 ** (n_levels - 1 - level)),
                    generator=generator,
                )
            self.walkers[level] = path.end
            if self.n_blocks >= 0:
                self.action[level] += path.action[-1]
        if self.n_blocks >= 0:
            self.squares += (path.action[-1].double() / path.duration).square()
        self.n_blocks += 1

    def energy(self) -> PathEnergy:
        """The energy of all counted blocks, of which there must be at least one."""
        T = self.n_blocks * self.n_steps * self.dt
        gather = self.workers.gather
        plain = gather(self.action, 1) / T
        corrected = plain + gather(self.start - self._correction(), 1) / T
        weights = plain.new_tensor(RICHARDSON)[:, None]
        variance = (gather(self.squares).mean() / self.n_blocks - plain[-1].mean().square()).item()
        extrapolated = (weights * corrected).sum(0)
        rounding = rounding_error(self.walkers) * float(weights.abs().sum())  # each level's sum is rounded on its own
        return PathEnergy(
            action=from_walkers((weights * plain).sum(0), variance, rounding),
            corrected=from_walkers(extrapolated, variance, rounding),
            step_bias=from_walkers(corrected[-1] - extrapolated),
            time_steps=tuple(self.dt / 2**level for level in range(len(RICHARDSON))),
            by_time_step=tuple(from_walkers(level) for level in corrected),
        )

    def _correction(self) -> Tensor:
        """f = log psi - W at every level's walkers, (level, batch) float64; 0 for a free drift."""
        drift = self.process.drift
        if not isinstance(drift, Wavefunction):
            return torch.zeros_like(self.action)
        with torch.no_grad():
            return torch.stack([drift.log_jastrow(level) for level in self.walkers]).double()

    def state_dict(self) -> dict[str, Any]:
        return saved(self, ("walkers", "action", "squares", "start", "n_blocks"), AXES, self.workers)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        restore(self, state, AXES, self.workers)
