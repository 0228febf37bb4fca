"""The training loop: evolve, differentiate the free energy, step the optimiser, carry the walkers over.

`fit` is a generator: the caller decides when to log, save and stop.  Everything needed to go on later is in the
drift, the optimiser, the walkers and the random generator, so a saved and resumed run takes the same steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from fkdrift.drift import Drift
from fkdrift.errors import DivergedPath
from fkdrift.objective import FreeEnergy, Objective, path_kl
from fkdrift.path import evolve
from fkdrift.process import Process
from fkdrift.shapes import Positions
from fkdrift.stats import Estimate, from_walkers


@dataclass(frozen=True)
class Step:
    """What one update did.

    Args:
        index: number of updates made so far.
        energy: E[l_T] / T over this batch (biased by the step size; before the update).
        terms: the parts of the free energy, detached.
        walkers: (batch, particle, dim), where the next path starts.
    """

    index: int
    energy: Estimate
    terms: FreeEnergy
    walkers: Positions


def fit(
    process: Process,
    walkers: Positions,
    *,
    n_updates: int,
    n_steps: int,
    dt: tuple[float, float],
    generator: torch.Generator,
    optimiser: torch.optim.Optimizer | None = None,
    learning_rate: float = 1e-2,
    objective: Objective = path_kl,
    first: int = 0,
) -> Iterator[Step]:
    """Train process.drift in place, yielding a `Step` after every update.

    The learning rate follows half a cosine from learning_rate to a hundredth of it.  The time step shrinks geometrically
    from dt[0], which finds the shape of the state with long paths, to dt[1], which removes the bias that the step size
    leaves in the trained drift.

    Args:
        process: its drift must be a `Drift` with parameters.
        walkers: starting positions (batch, particle, dim).
        n_updates: length of the schedule; `first` updates of it have been made already.
        n_steps: Euler-Maruyama steps of the path in each update.
        dt: time step at the first and at the last update.
        generator: source of the noise.
        optimiser: continues with this one; default Adam.
        objective: the loss; default the path relative entropy.

    Raises:
        DivergedPath: walkers left every finite range.

    Example:
        >>> for step in fit(process, walkers, n_updates=200, n_steps=16, dt=(0.1, 0.02), generator=g):
        ...     print(step.index, step.energy)
    """
    drift = process.drift
    if not isinstance(drift, Drift):
        raise TypeError(f"process.drift must be a Drift with parameters to be trained, not {type(drift).__name__}")
    optimiser = optimiser or adam(drift, learning_rate)
    for index in range(first, n_updates):
        fraction = index / n_updates
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * _schedule(fraction)
        step = dt[0] * (dt[1] / dt[0]) ** fraction
        path = evolve(process, walkers, n_steps=n_steps, dt=step, generator=generator)
        terms = objective(path, process)
        optimiser.zero_grad(set_to_none=True)
        terms.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(drift.parameters(), max_norm=10.0)
        if not bool(torch.isfinite(norm)):
            raise DivergedPath(f"the gradient of update {index} is not finite with dt = {step:.3g}: halve the time step", path)
        optimiser.step()
        walkers = path.end
        energy = from_walkers(path.action[-1].detach() / path.duration)
        yield Step(index + 1, energy, FreeEnergy(*(term.detach() for term in terms)), walkers)


def adam(drift: Drift, learning_rate: float) -> torch.optim.Optimizer:
    """The optimiser that `fit` uses by default."""
    return torch.optim.Adam(drift.parameters(), lr=learning_rate, betas=(0.9, 0.99))


def _schedule(fraction: float) -> float:
    """Half a cosine from 1 to 0.01."""
    return 0.01 + 0.99 * (1 + math.cos(math.pi * fraction)) / 2
