"""Adam on the path free energy, backpropagated through the trajectory: for every drift."""

from __future__ import annotations

from typing import Any

import torch

from fkdrift.paths.evolution import ScoreFree, evolve
from fkdrift.paths.process import Process
from fkdrift.tensor_types import Positions
from fkdrift.training.adam import Adam, Evaluation
from fkdrift.training.loop import parameters_of
from fkdrift.training.objectives import Objective, path_kl

BETAS = (0.9, 0.99)  # a gradient of a trajectory forgets its scale faster than Adam's usual 0.999


def pathwise_adam(
    process: Process,
    *,
    n_steps: int,
    dt: tuple[float, float],
    n_updates: int,
    learning_rate: float = 0.02,
    objective: Objective = path_kl,
) -> Adam:
    """Adam for the drift of a process, with new paths in every update.

    The learning rate follows half a cosine to a hundredth of its start.  The time step shrinks geometrically from
    dt[0], which finds the shape of the state with long paths, to dt[1], which removes the bias it leaves in the
    drift.

    Args:
        process: its drift is trained.
        n_steps: Euler-Maruyama steps of the path in each update.
        dt: time step at the first and at the last update.
        n_updates: length of both schedules.
        learning_rate: at the start.
        objective: maps path and process to a loss; default the path relative entropy.

    Raises:
        InputError: the drift has no parameters.

    Example (in the potential x^4, E_0 = 0.667986):
        >>> system = fk.System(fk.load_potential("x**4"))
        >>> process = Process(fk.NeuralVectorField(system, width=8), system)
        >>> method = pathwise_adam(process, n_steps=8, dt=(0.1, 0.02), n_updates=10)
        >>> steps = list(fk.fit(method, system.initial_walkers(512, g), n_updates=10, generator=g))
        >>> abs(steps[-1].energy.deviation(0.667986)) < 4
        True
    """

    def evaluate(walkers: Positions, index: int, generator: torch.Generator) -> Evaluation:
        step = dt[0] * (dt[1] / dt[0]) ** (index / n_updates)
        path = evolve(process, walkers, n_steps=n_steps, dt=step, generator=generator, gradient=ScoreFree())
        return Evaluation(objective(path, process).loss, path.action[-1].detach() / path.duration, path.end)

    options: dict[str, Any] = {"betas": BETAS, "warm_up": 1, "workers": process.workers}
    return Adam(parameters_of(process), evaluate, n_updates=n_updates, learning_rate=learning_rate, **options)
