"""The energy of a trained process, with its error: long stationary trajectories at three step sizes at once.

Euler-Maruyama shifts E[l_T] / T by a dt + b dt^2 + ... (harmonic, v = -x: E = 1 / (2 - dt)).  Three copies of every walker
follow the same Brownian path with steps dt, dt/2 and dt/4, and Richardson's weights

    E = E(dt) / 3 - 2 E(dt/2) + 8 E(dt/4) / 3

remove the first two orders walker by walker: the copies stay close, so the extrapolation hardly adds noise, and the
spread over independent walkers is the error of the extrapolated energy itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from fkdrift.drift import GradientDrift
from fkdrift.path import evolve
from fkdrift.process import Process
from fkdrift.shapes import Positions
from fkdrift.stats import Estimate, from_walkers

RICHARDSON = (1 / 3, -2.0, 8 / 3)


@dataclass
class Accumulators:
    """Everything sampled so far: enough to go on, and to compute the energy.

    Attributes:
        walkers: (level, batch, particle, dim) positions, one copy of each walker for each step size.
        start: (level, batch) log psi - W where the count began; 0 for a free drift.
        action: (level, batch) float64, sum of l over the counted blocks.
        squares: (batch,) float64, sum over blocks of the squared block energy at the finest step.
        n_blocks: counted blocks; negative while equilibrating.
    """

    walkers: Tensor
    start: Tensor
    action: Tensor
    squares: Tensor
    n_blocks: int

    def state_dict(self) -> dict[str, Tensor | int]:
        """Plain tensors and numbers, for a checkpoint."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def extrapolated_walkers(self) -> Positions:
        """The walkers at the finest step size."""
        return self.walkers[-1]


@dataclass(frozen=True)
class Energies:
    """Energies of a process, extrapolated to dt = 0.

    Args:
        variational: the stationary mean of (l_T + f(r_0) - f(r_T)) / T for a gradient drift (f = log psi - W), whose
            noise vanishes at the optimum; the same as path_action for a free drift.
        path_action: the stationary mean of l_T / T.
        estimator: which of the two `variational` is, in words.
        step_bias: what the finest step size still adds to the variational energy, removed by the extrapolation.
        time_steps: the step sizes, coarsest first.
        by_time_step: the variational energy at each of them.
    """

    variational: Estimate
    path_action: Estimate
    estimator: str
    step_bias: Estimate
    time_steps: tuple[float, ...]
    by_time_step: tuple[Estimate, ...]


def sample(
    process: Process,
    walkers: Positions,
    *,
    dt: float,
    n_steps: int,
    generator: torch.Generator,
    n_equilibration: int = 8,
    state: Accumulators | None = None,
) -> Iterator[Accumulators]:
    """Run the stationary process for ever, yielding the accumulators after every block of time n_steps dt.

    Args:
        process: the trained process.
        walkers: (batch, particle, dim) starting positions of independent walkers.
        dt: the coarsest step; the others are dt/2 and dt/4.
        n_steps: coarse steps in a block.
        generator: source of the noise.
        n_equilibration: blocks to discard first.
        state: go on from these accumulators, which are updated in place.

    Raises:
        DivergedPath: walkers left every finite range.
    """
    n_levels = len(RICHARDSON)
    if state is None:
        zeros = torch.zeros(n_levels, len(walkers), dtype=torch.float64, device=walkers.device)
        state = Accumulators(walkers.expand(n_levels, *walkers.shape).clone(), zeros, zeros.clone(), zeros[0].clone(), -n_equilibration)
    while True:
        noise = generator.get_state()
        for level in range(n_levels):
            generator.set_state(noise)
            refinement = 2**level
            with torch.no_grad():
                path = evolve(
                    process,
                    state.walkers[level],
                    n_steps=n_steps * refinement,
                    dt=dt / refinement,
                    substeps=2 ** (n_levels - 1 - level),
                    generator=generator,
                )
            state.walkers[level] = path.end
            if state.n_blocks >= 0:
                state.action[level] += path.action[-1]
        if state.n_blocks >= 0:
            state.squares += (path.action[-1].double() / path.duration).square()
        state.n_blocks += 1
        if state.n_blocks == 0:
            state.start = _correction(process, state.walkers)
        yield state


def energies(process: Process, state: Accumulators, *, dt: float, n_steps: int) -> Energies:
    """The energies of everything sampled so far; at least one counted block is needed.

    Args: as given to `sample`.
    """
    T = state.n_blocks * n_steps * dt
    plain = state.action / T
    corrected = plain + (state.start - _correction(process, state.walkers)) / T
    weights = plain.new_tensor(RICHARDSON)[:, None]
    mean = plain[-1].mean()
    variance = (state.squares.mean() / state.n_blocks - mean.square()).item()
    variational = from_walkers((weights * corrected).sum(0))
    path_action = from_walkers((weights * plain).sum(0), variance)
    gradient = isinstance(process.drift, GradientDrift)
    return Energies(
        variational=Estimate(variational.mean, variational.error, path_action.effective_samples),
        path_action=path_action,
        estimator="(l_T + f(r_0) - f(r_T)) / T, dt -> 0" if gradient else "l_T / T, dt -> 0",
        step_bias=from_walkers(corrected[-1] - (weights * corrected).sum(0)),
        time_steps=tuple(dt / 2**level for level in range(len(RICHARDSON))),
        by_time_step=tuple(from_walkers(level) for level in corrected),
    )


def _correction(process: Process, walkers: Tensor) -> Tensor:
    """f = log psi - W at every level's walkers, (level, batch) float64; 0 for a free drift."""
    drift = process.drift
    if not isinstance(drift, GradientDrift):
        return torch.zeros(walkers.shape[:2], dtype=torch.float64, device=walkers.device)
    with torch.no_grad():
        return torch.stack([drift.correction(level) for level in walkers]).double()
