"""Adam on a free energy, as an `Optimiser` that `fkdrift.training.loop.fit` drives.

The free energy of a model is a number per datum or per path, F = E_q[log q - log p] = -ELBO; its mean over a minibatch
is minimised.  Minibatches are consecutive slices of a shuffled epoch, and the shuffle depends on the epoch's number and
a seed only, so a resumed run sees the same batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fkdrift.training.loop import Update


class Adam:
    """Adam with a warm-up, a learning rate that falls on half a cosine, and clipped gradients.

    Args:
        model: its parameters are trained.
        free_energy: maps a batch of data and a generator to the free energy of each datum, (batch,), differentiable.
        data: (n, ...) to draw minibatches from; None: free_energy makes its own, and gets an
            empty tensor.
        n_updates: length of the schedule.
        batch_size: of a minibatch.
        learning_rate: at its highest.
        final: last learning rate as a fraction of the first.
        max_norm: of the gradient.
        weight_decay: how much of a weight is lost with a step, times the learning rate.
        seed: of the shuffles.

    Example:
        >>> method = Adam(model, model.free_energy, data, n_updates=1000)
        >>> for step in fit(method, torch.empty(0), n_updates=1000, generator=g):
        ...     print(step.index, step.energy)
    """

    def __init__(
        self,
        model: nn.Module,
        free_energy: Callable[[Tensor, torch.Generator], Tensor],
        data: Tensor | None = None,
        *,
        n_updates: int,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        final: float = 0.01,
        max_norm: float = 10.0,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.remaining: float | None = None
        self.free_energy, self.data, self.n_updates = free_energy, data, n_updates
        self.batch_size = batch_size if data is None else min(batch_size, len(data))
        self.learning_rate, self.final, self.max_norm, self.seed = learning_rate, final, max_norm, seed
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.adam = torch.optim.AdamW(self.parameters, lr=learning_rate, weight_decay=weight_decay)

    def batch(self, index: int) -> Tensor:
        """The minibatch of an update, (batch_size, ...)."""
        if self.data is None:
            return torch.empty(0)
        per_epoch = len(self.data) // self.batch_size
        epoch, k = divmod(index, per_epoch)
        shuffle = torch.randperm(len(self.data), generator=torch.Generator().manual_seed(self.seed + epoch))
        return self.data[shuffle[k * self.batch_size : (k + 1) * self.batch_size].to(self.data.device)]

    def update(self, walkers: Tensor, index: int, generator: torch.Generator) -> Update:
        cosine = (1 + math.cos(math.pi * index / self.n_updates)) / 2
        rate = self.learning_rate * (self.final + (1 - self.final) * cosine)
        for group in self.adam.param_groups:
            group["lr"] = rate * min(1.0, (index + 1) / 20)
        free_energy = self.free_energy(self.batch(index), generator)
        self.adam.zero_grad(set_to_none=True)
        free_energy.mean().backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.max_norm)
        self.adam.step()
        return Update(free_energy.detach(), walkers)

    def finish(self) -> None:
        """Nothing to do."""

    def state_dict(self) -> dict[str, Any]:
        return {"adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state["adam"])
