"""What `fkdrift learn NAME` has to know: settings, how to build a model, what to minimise, what to report.

A recipe is all that a new model has to bring; data, training, checkpoints, resuming, the progress line and the folder
of results are `fkdrift.runs.learning`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fkdrift.generative.data.datasets import Dataset
from fkdrift.runs.recipes.learning_settings import LearningSettings
from fkdrift.training.adam import FreeEnergy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Recipe:
    """A model that `fkdrift learn` can train.

    Args:
        name: on the command line.
        settings_class: its dataclass of settings, a `LearningSettings` with fields of its own.
        resolve: settings and data to settings in which every choice left open is made, so that they can be saved;
            checks that the data fit.
        build: settings and data to a module.  It is also called with `blank` data, when a model is loaded from a file:
            nothing but their shape and number of levels may decide on the architecture.
        objective: model, settings and data to what is minimised, a function of rows of `data.originals`; called for
            every update, with `settings.at` of how much of the training is over.
        evaluate: model, data (batch, size) and generator to the free energy F = -ELBO of each (batch,), nats: what is
            reported for the training and the test set.
        entries: model, settings, data and generator to more entries of result.json, plain values.
        figures: model, settings, data and generator to figures by name.
        sample: model, number and generator to data that the model makes, (n, size).
        samplers: such functions by name, where there are several; `sample` is one of them.
        encode: model and data (batch, size) to a code (batch, n) without noise, such as the mean of q(z | x); None if
            there is none.
        decode: model and code to the data (batch, size) that are expected of it.
        conditional: whether its model can be told the classes of the data, as `Conditional` is; model is one that has
            been told them, but in entries and figures.
        missing: whether data may have NaN where something was not observed.
        exact: whether the free energy is -log p(x) itself, of a model that is asked; a bound elsewhere.

    Example:
        >>> from fkdrift.runs.recipes import MODELS
        >>> MODELS.find("vae").settings_class(latents=8).latents
        8
    """

    name: str
    settings_class: type[LearningSettings]
    resolve: Callable[[Any, Dataset], Any]
    build: Callable[[Any, Dataset], nn.Module]
    objective: Callable[[nn.Module, Any, Dataset], FreeEnergy]
    evaluate: Callable[[nn.Module, Tensor, torch.Generator], Tensor]
    entries: Callable[[nn.Module, Any, Dataset, torch.Generator], dict[str, Any]]
    figures: Callable[[nn.Module, Any, Dataset, torch.Generator], dict[str, Figure]]
    sample: Callable[[nn.Module, int, torch.Generator], Tensor]
    encode: Callable[[nn.Module, Tensor], Tensor] | None = None
    decode: Callable[[nn.Module, Tensor], Tensor] | None = None
    samplers: Mapping[str, Callable[[nn.Module, int, torch.Generator], Tensor]] = field(default_factory=dict)
    conditional: bool = False
    missing: bool = False
    exact: Callable[[nn.Module], bool] = lambda model: False
