"""Adam, as an `Optimiser` that `fkdrift.training.loop.fit` drives: on data, or on paths of a process.

What is minimised is a free energy, a number per datum or per path, F = E_q[log q - log p] = -ELBO.  Where it comes
from is an argument: `minibatch_adam` draws data, `fkdrift.training.pathwise.pathwise_adam` runs paths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fkdrift.errors import DivergedPath
from fkdrift.numerics.workers import ALONE, Workers
from fkdrift.tensor_types import PerWalker
from fkdrift.training.loop import Update

WARM_UP = 20  # updates until the learning rate is reached: Adam's own second moments are known by then


class Evaluation(NamedTuple):
    """A loss (a scalar to differentiate), its terms (batch,) and where the next update starts."""

    loss: Tensor
    energies: PerWalker
    walkers: Tensor


Evaluate = Callable[[Tensor, int, torch.Generator], Evaluation]
"""Maps walkers, the index of the update and a generator to an `Evaluation`."""


class Adam:
    """Adam with a warm-up, a learning rate that falls on half a cosine, and clipped gradients.

    The cosine is one of the updates made or, where that is more, of `spent`, the part of the time allowed that is gone:
    a training that the clock ends has been annealed too.

    Args:
        parameters: what is trained.
        evaluate: makes the loss of an update.
        n_updates: length of the schedule.
        learning_rate: at its highest.
        final: last learning rate as a fraction of the first.
        max_norm: of the gradient.
        weight_decay: how much of a weight is lost with a step, times the learning rate.
        betas: of the running moments of the gradient.
        warm_up: updates over which the learning rate rises.
        workers: that share the batch; gradients are means over all of it.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        evaluate: Evaluate,
        *,
        n_updates: int,
        learning_rate: float = 1e-3,
        final: float = 0.01,
        max_norm: float = 10.0,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        warm_up: int = WARM_UP,
        workers: Workers = ALONE,
    ) -> None:
        self.estimated_excess: float | None = None
        self.spent = 0.0
        self.evaluate, self.n_updates, self.warm_up, self.workers = evaluate, n_updates, warm_up, workers
        self.learning_rate, self.final, self.max_norm = learning_rate, final, max_norm
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.adam = torch.optim.AdamW(self.parameters, lr=learning_rate, betas=betas, weight_decay=weight_decay)

    def update(self, walkers: Tensor, index: int, generator: torch.Generator) -> Update:
        """One step: evaluate, differentiate, clip, move.

        Args:
            walkers: passed to `evaluate`; for a model of data an empty tensor.
            index: of the update, from 0.
            generator: source of the noise.
        """
        cosine = (1 + math.cos(math.pi * self.progress(index))) / 2
        rate = self.learning_rate * (self.final + (1 - self.final) * cosine)
        for group in self.adam.param_groups:
            group["lr"] = rate * min(1.0, (index + 1) / self.warm_up)
        evaluation = self.evaluate(walkers, index, generator)
        self.adam.zero_grad(set_to_none=True)
        evaluation.loss.backward()
        self._share_gradients(len(evaluation.energies))
        torch.nn.utils.clip_grad_norm_(self.parameters, self.max_norm)
        self.adam.step()
        return Update(self.workers.gather(evaluation.energies), evaluation.walkers)

    def progress(self, index: int) -> float:
        """How much of the schedule is over before an update, from 0 to 1."""
        return min(1.0, max(index / self.n_updates, self.spent))

    def _share_gradients(self, n: int) -> None:
        """Put the mean over the batches of all workers, of n each, in place of the gradient of this one."""
        if self.workers.size > 1:
            gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
            mean = self.workers.average(torch.nn.utils.parameters_to_vector(gradients), n)
            for parameter, part in zip(self.parameters, mean.split([p.numel() for p in self.parameters]), strict=True):
                parameter.grad = part.view_as(parameter)

    def finish(self) -> None:
        """Nothing to do."""

    def state_dict(self) -> dict[str, Any]:
        return {"adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state["adam"])


FreeEnergy = Callable[[Tensor, torch.Generator], Tensor]
"""Maps a minibatch (batch, ...) and a generator to the free energy of each datum (batch,), differentiable."""


def minibatch_adam(model: nn.Module, free_energy: FreeEnergy, data: Tensor | None = None, **options: Any) -> Adam:
    """Adam on the mean free energy of minibatches.

    Minibatches are consecutive slices of a shuffled epoch, and the shuffle depends on the epoch's number and a seed
    only, so that a resumed run sees the same batches.

    Args:
        model: its parameters are trained.
        free_energy: maps a batch of data and a generator to the free energy of each datum, (batch,), differentiable.
        data: (n, ...) to draw minibatches from; None: free_energy makes its own, and gets an empty tensor.
        options: of `scheduled_adam`, among them n_updates.

    Raises:
        DivergedPath: on an update, when the free energy of its batch is not finite.

    Example (a mean is learned):
        >>> data, model = 3 + torch.randn(200, 1, generator=g), torch.nn.Linear(1, 1)
        >>> options = {"n_updates": 200, "learning_rate": 0.1}
        >>> method = minibatch_adam(model, lambda x, g: (x - model.bias).square().sum(-1) / 2, data, **options)
        >>> steps = list(fk.fit(method, torch.empty(0), n_updates=200, generator=g))
        >>> bool((model.bias - data.mean()).abs() < 0.1)
        True
    """
    return scheduled_adam(model, lambda _: free_energy, data, **options)


def scheduled_adam(
    model: nn.Module,
    free_energy: Callable[[float], FreeEnergy],
    data: Tensor | None = None,
    *,
    n_updates: int,
    batch_size: int = 128,
    seed: int = 0,
    workers: Workers = ALONE,
    **options: float,
) -> Adam:
    """`minibatch_adam` on a free energy that changes while the model is trained.

    Args:
        model: its parameters are trained.
        free_energy: maps how much of the schedule is over, from 0 to 1, to a free energy.
        data: (n, ...) to draw minibatches from, or None.
        n_updates: length of the schedule.
        batch_size: of a minibatch.
        seed: of the shuffles.
        workers: that share every minibatch.
        options: learning_rate, final, max_norm, weight_decay of `Adam`.
    """

    def evaluate(walkers: Tensor, index: int, generator: torch.Generator) -> Evaluation:
        batch = torch.empty(0) if data is None else workers.own(minibatch(data, batch_size, index, seed))
        F = free_energy(method.progress(index))(batch, generator)
        if not bool(F.detach().isfinite().all()):
            raise DivergedPath(
                f"the free energy is no longer finite in update {index + 1}: use a smaller learning_rate, rescale the "
                "data, or take constant and repeated values out of them"
            )
        return Evaluation(F.mean(), F.detach(), walkers)

    method = Adam(model.parameters(), evaluate, n_updates=n_updates, workers=workers, **options)  # type: ignore[arg-type]
    return method


def minibatch(data: Tensor, batch_size: int, index: int, seed: int) -> Tensor:
    """The minibatch of an update, (batch_size, ...), or all data if there are fewer."""
    size = min(batch_size, len(data))
    epoch, k = divmod(index, len(data) // size)
    shuffle = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed + epoch))
    return data[shuffle[k * size : (k + 1) * size].to(data.device)]
