"""What `fkdrift learn NAME` has to know: settings, how to build a model, what to minimise, what to report.

A recipe is all that a new model has to bring; data, training, checkpoints, resuming, the progress line and the folder
of results are `fkdrift.runs.learning`'s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from fkdrift.generative.data.datasets import Dataset
from fkdrift.runs.settings import check_setting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FreeEnergy = Callable[[Tensor, torch.Generator], Tensor]
"""Maps a minibatch (batch, size) and a generator to the free energy of each datum (batch,)."""


@dataclass(frozen=True, kw_only=True)
class LearningSettings:
    """What training depends on, whatever the model; recipes extend it with fields of their own.

    Args:
        seed: of the network's start, the minibatches and the noise.
        n_updates: optimiser steps; the learning rate falls to a hundredth over all of them.
        batch_size: of a minibatch.
        learning_rate: of Adam, at its highest.
        weight_decay: how much of a weight is lost with a step, times the learning rate.
        max_seconds: stop training after this wall time.
        dtype: "float32" or "float64".
        threads: of the CPU.

    Raises:
        BadConfig: a value is out of range; the message says what is allowed.
    """

    seed: int = 0
    n_updates: int = 3000
    batch_size: int = 100
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    max_seconds: float | None = None
    dtype: str = "float32"
    threads: int = 1

    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {"dtype": ("float32", "float64")}
    ZERO: ClassVar[tuple[str, ...]] = ("seed", "n_updates", "weight_decay")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_setting(field, getattr(self, field.name), self.CHOICES, self.ZERO)

    @property
    def torch_dtype(self) -> torch.dtype:
        return {"float32": torch.float32, "float64": torch.float64}[self.dtype]

    def to_dict(self) -> dict[str, Any]:
        """Every setting that is not None, for JSON and TOML."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Recipe:
    """A model that `fkdrift learn` can train.

    Args:
        name: on the command line.
        settings: its dataclass of settings, a `LearningSettings` with fields of its own.
        resolve: settings and data to settings in which every choice left open is made, so that they can be saved;
            checks that the data fit.
        build: settings and data to a module.  It is also called with `blank` data, when a model is loaded from a file:
            nothing but their shape and number of levels may decide on the architecture.
        objective: model, settings and data to what is minimised, a function of rows of `data.originals`.
        evaluate: model, data (batch, size) and generator to the free energy F = -ELBO of each (batch,), nats: what is
            reported for the training and the test set.
        entries: model, settings, data and generator to more entries of result.json, plain values.
        figures: model, settings, data and generator to figures by name.

    Example:
        >>> recipe = Recipe("vae", AutoencoderSettings, resolve, build_vae, objective, evaluate, entries, figures)
    """

    name: str
    settings: type[LearningSettings]
    resolve: Callable[[Any, Dataset], Any]
    build: Callable[[Any, Dataset], nn.Module]
    objective: Callable[[nn.Module, Any, Dataset], FreeEnergy]
    evaluate: Callable[[nn.Module, Tensor, torch.Generator], Tensor]
    entries: Callable[[nn.Module, Any, Dataset, torch.Generator], dict[str, Any]]
    figures: Callable[[nn.Module, Any, Dataset, torch.Generator], dict[str, Figure]]
