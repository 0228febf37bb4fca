"""The training loop: a generator that drives one way of improving a model, physical or generative.

The caller decides when to log, save and stop.  All that training depends on is in the model, the method's state, the
walkers and the random generator, so a saved and resumed run takes the same steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fkdrift.errors import DivergedPath, InputError
from fkdrift.numerics.estimates import Estimate, from_walkers
from fkdrift.paths.process import Process
from fkdrift.tensor_types import PerWalker

MINIMUM_UPDATES = 20  # before training may stop on the estimated excess: its running mean needs some
NEGLIGIBLE, FEWEST_UPDATES = 1e-2, 5  # an excess so far below the tolerance needs fewer: psi was exact from the start


@dataclass(frozen=True)
class Update:
    """What one optimiser step saw and did.

    Args:
        energies: (batch,) of all workers, before the step: E_L or l_T / T of each walker, the free energy -ELBO of each
            datum.
        walkers: (batch, particle, dim), where the next step starts; for a model of data, what was passed in.
        estimated_excess: of the energy over E_0, see `Optimiser`.
        acceptance: of Metropolis moves; None without them.
    """

    energies: PerWalker
    walkers: Tensor
    estimated_excess: float | None = None
    acceptance: Tensor | None = None


@runtime_checkable
class Optimiser(Protocol):
    """One way to improve a model.

    Attributes:
        estimated_excess: of the energy over E_0, smoothed over updates; None if not known.
    """

    estimated_excess: float | None

    def update(self, walkers: Tensor, index: int, generator: torch.Generator) -> Update:
        """Change the model's parameters once; `index` counts from 0."""

    def finish(self) -> None:
        """Called once after the last update."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Step:
    """Progress of `fit`.

    Args:
        index: number of updates made so far.
        energy: mean of the batch, before the update, with its error; of l_T / T it includes the step bias.
        standard_deviation: over the batch; 0 at the optimum when it is that of E_L.
        update: the rest, see `Update`.
    """

    index: int
    energy: Estimate
    standard_deviation: float
    update: Update


def fit(
    method: Optimiser,
    walkers: Tensor,
    *,
    n_updates: int,
    generator: torch.Generator,
    first: int = 0,
    tolerance: float = 0.0,
) -> Iterator[Step]:
    """Train a model in place, yielding a `Step` after every update.

    Args:
        method: how to improve it, such as NaturalGradient(process, time_scale=...).
        walkers: starting positions (batch, particle, dim); for a model of data an empty tensor.
        n_updates: how many updates at most; `first` of them have been made already.
        generator: source of the noise.
        tolerance: stop once the estimated excess falls below this.

    Raises:
        DivergedPath: walkers left every finite range.

    Example (the trial function is a Gaussian, so that something is left to learn; E_0 = 0.667986):
        >>> from fkdrift.hamiltonian.preparation import gaussian
        >>> potential = fk.load_potential("x**4")
        >>> system = fk.System(potential, prepared=gaussian(potential))
        >>> method = fk.NaturalGradient(fk.Process(fk.NeuralWavefunction(system, width=8), system),
        ...                             time_scale=system.time_scale)
        >>> for step in fit(method, system.initial_walkers(512, g), n_updates=10, generator=g):
        ...     if step.index % 5 == 0:
        ...         print(step.index, step.energy, round(step.standard_deviation, 3))
        5 0.670(9) 0.202
        10 0.6669(15) 0.034
    """
    for index in range(first, n_updates):
        if converged(method, tolerance, index):
            return
        update = method.update(walkers, index, generator)
        walkers = update.walkers
        energies = update.energies.double()
        if not bool(torch.isfinite(energies).all()):
            raise DivergedPath(
                f"energies are no longer finite in update {index}: use smaller steps, or a trial_function"
            )
        yield Step(index + 1, from_walkers(energies), energies.std().item(), update)


def converged(method: Optimiser, tolerance: float, n_made: int) -> bool:
    """Whether the estimated excess energy is below the tolerance, after enough updates to be believed."""
    excess = math.inf if method.estimated_excess is None else method.estimated_excess
    return excess < tolerance and n_made >= (FEWEST_UPDATES if excess < NEGLIGIBLE * tolerance else MINIMUM_UPDATES)


def parameters_of(process: Process) -> list[torch.nn.Parameter]:
    """What can be trained of a process: the parameters of its drift.

    Raises:
        InputError: the drift is not a module with parameters.
    """
    drift = process.drift
    trained = drift.parameters() if isinstance(drift, torch.nn.Module) else ()
    parameters = [each for each in trained if each.requires_grad]
    if not parameters:
        raise InputError(
            f"the drift, a {type(drift).__name__}, has no parameters to train: give a torch.nn.Module with some, such "
            "as a NeuralWavefunction or a NeuralVectorField"
        )
    return parameters
