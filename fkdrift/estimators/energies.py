"""The energy of a trained process, with its error, in two ways.

`PathSampler`, for every drift: long Euler-Maruyama trajectories at three step sizes at once.  The step shifts E[l_T]
/ T by a dt + b dt^2 + ... (harmonic, v = -x: E = 1 / (2 - dt)).  Three copies of every walker follow the same
Brownian path with steps dt, dt/2 and dt/4, and Richardson's weights

    E = E(dt) / 3 - 2 E(dt/2) + 8 E(dt/4) / 3

remove the first two orders walker by walker: the copies stay close, so the extrapolation adds little noise, and the
spread over independent walkers is the error of the extrapolated energy itself.

`StationarySampler`, where log psi is known: the mean of the local energy over Metropolis-adjusted steps, without any
bias from the step, and without noise at the optimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fkdrift.numerics.estimates import Estimate, from_walkers
from fkdrift.paths.evolution import evolve
from fkdrift.paths.process import Process
from fkdrift.tensor_types import Positions
from fkdrift.wavefunction import metropolis
from fkdrift.wavefunction.local_energy import local_energy
from fkdrift.wavefunction.neural import NeuralWavefunction

RICHARDSON = (1 / 3, -2.0, 8 / 3)


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
        n_levels = len(RICHARDSON)
        self.walkers = walkers.expand(n_levels, *walkers.shape).clone()
        self.action = torch.zeros(n_levels, len(walkers), dtype=torch.float64, device=walkers.device)
        self.squares = torch.zeros_like(self.action[0])
        self.start = self._correction()

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
                    substeps=2 ** (n_levels - 1 - level),
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
        plain = self.action / T
        corrected = plain + (self.start - self._correction()) / T
        weights = plain.new_tensor(RICHARDSON)[:, None]
        variance = (self.squares.mean() / self.n_blocks - plain[-1].mean().square()).item()
        extrapolated = (weights * corrected).sum(0)
        return PathEnergy(
            action=from_walkers((weights * plain).sum(0), variance, _rounding(self.walkers)),
            corrected=from_walkers(extrapolated, variance, _rounding(self.walkers)),
            step_bias=from_walkers(corrected[-1] - extrapolated),
            time_steps=tuple(self.dt / 2**level for level in range(len(RICHARDSON))),
            by_time_step=tuple(from_walkers(level) for level in corrected),
        )

    def _correction(self) -> Tensor:
        """f = log psi - W at every level's walkers, (level, batch) float64; 0 for a free drift."""
        drift = self.process.drift
        if not isinstance(drift, NeuralWavefunction):
            return torch.zeros_like(self.action)
        with torch.no_grad():
            return torch.stack([drift.log_jastrow(level) for level in self.walkers]).double()

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("walkers", "action", "squares", "start", "n_blocks")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        _load(self, state)


@dataclass(frozen=True)
class StationaryEnergy:
    """The mean local energy over |psi|^2.

    Args:
        energy: with its error from independent walkers.
        spread: standard deviation of E_L over |psi|^2; 0 at the optimum.
        acceptance: mean acceptance probability of the Metropolis-adjusted steps; None for independent samples.
        potential: mean of V.
        dt: the time step; None for independent samples.
    """

    energy: Estimate
    spread: float
    acceptance: float | None
    potential: Estimate
    dt: float | None


class StationarySampler:
    """Metropolis-adjusted trajectories of independent walkers, with the local energy at the end of every block.

    Args:
        process: the trained process; its drift must be a NeuralWavefunction.
        walkers: (batch, particle, dim) starting positions.
        potential: V(r), averaged beside E_L.
        time_scale: of the system; half of it is the longest step.
        n_moves: steps in a block.
        n_equilibration: blocks to discard first; the step is tuned during these only.
    """

    def __init__(
        self,
        process: Process,
        walkers: Positions,
        potential: Any,
        *,
        time_scale: float,
        n_moves: int = 4,
        n_equilibration: int = 16,
    ) -> None:
        self.process, self.potential, self.time_scale, self.n_moves = process, potential, time_scale, n_moves
        self.walkers, self.n_blocks = walkers, -n_equilibration
        self.dt = walkers.new_tensor(time_scale / 4)
        self.sums = torch.zeros(4, len(walkers), dtype=torch.float64, device=walkers.device)

    def advance(self, generator: torch.Generator) -> None:
        """Run one block and, once equilibrated, add up E_L, E_L^2, V and the acceptance."""
        longest = self.time_scale / 2 if self.n_blocks < 0 else None
        chain = metropolis.start(self.process, self.walkers, self.dt)
        chain = metropolis.move(self.process, chain, self.n_moves, generator, longest=longest)
        self.walkers, self.dt = chain.positions, chain.dt
        if self.n_blocks >= 0:
            with torch.no_grad():
                E = local_energy(self.process, self.walkers).double()
                V = self.potential(self.walkers).double()
            self.sums += torch.stack([E, E.square(), V, chain.acceptance.double().expand_as(E)])
        self.n_blocks += 1

    def energy(self) -> StationaryEnergy:
        """The energy of all counted blocks, of which there must be at least one."""
        E, square, V, acceptance = self.sums / self.n_blocks
        variance = max(0.0, (square.mean() - E.mean().square()).item())
        return StationaryEnergy(
            from_walkers(E, variance, _rounding(self.walkers)),
            variance**0.5,
            acceptance.mean().item(),
            from_walkers(V),
            self.dt.item(),
        )

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("walkers", "dt", "sums", "n_blocks")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        _load(self, state)


def _rounding(walkers: Tensor) -> float:
    """Relative rounding error of an energy computed in the walkers' dtype."""
    return 2 * torch.finfo(walkers.dtype).eps


def _load(sampler: PathSampler | StationarySampler, state: dict[str, Any]) -> None:
    """Set the saved attributes, on the sampler's own device."""
    for name, value in state.items():
        like = getattr(sampler, name)
        setattr(sampler, name, value.to(like) if isinstance(value, Tensor) else value)


@dataclass(frozen=True)
class Energies:
    """What is known of the energy of one process.

    Args:
        last_batch: mean over the last training batch: all there is if a run is interrupted early.
        path: from long trajectories, or None.
        stationary: from the local energy over |psi|^2, or None.
        fisher: E[sum_i sigma_i^2 |grad_i log p|^2 / 8 + V], of a flow.
    """

    last_batch: Estimate
    path: PathEnergy | None = None
    stationary: StationaryEnergy | None = None
    fisher: Estimate | None = None

    @property
    def variational(self) -> Estimate:
        """The best estimate of the stationary energy of the process, an upper bound on E_0 within its error."""
        if self.stationary is not None:
            return self.stationary.energy
        return self.path_action

    @property
    def path_action(self) -> Estimate:
        """E[l_T] / T."""
        return self.last_batch if self.path is None else self.path.action

    @property
    def estimator(self) -> str:
        """How `variational` was estimated, in words."""
        if self.stationary is not None:
            independent = self.stationary.dt is None
            return f"mean of E_L over |psi|^2, {'independent samples' if independent else 'Metropolis-adjusted'}"
        if self.path is not None:
            return "E[l_T]/T, extrapolated to dt = 0"
        return "last training batch, not extrapolated"
