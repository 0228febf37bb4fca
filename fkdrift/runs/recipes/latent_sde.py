"""A hidden diffusion that explains series (n, time, observed) in FILE.npy.

Data are series (n, time, observed), or (n, time) for one quantity, observed at the times 0, spacing, 2 spacing, ...
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from fkdrift.errors import BadConfig
from fkdrift.generative.data.datasets import Dataset
from fkdrift.generative.latent_sde import LatentSDE
from fkdrift.numerics.estimates import from_walkers
from fkdrift.runs.recipes.latent_sde_settings import LatentSDESettings
from fkdrift.runs.recipes.recipe import FreeEnergy, Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N_IMPORTANCE = 64
"""Paths for the importance-weighted bound that is reported."""

N_REPORTED = 200
"""Test series it is computed for, at most."""


def resolve(settings: LatentSDESettings, data: Dataset) -> LatentSDESettings:
    """Settings with the step chosen.

    Raises:
        BadConfig: data that are no series of numbers.
    """
    if data.n_levels is not None:
        raise BadConfig(
            f"{data.name} has whole numbers: a latent SDE explains series of real numbers (n, time, observed)"
        )
    if len(data.shape) not in (1, 2) or data.shape[0] < 2:
        raise BadConfig(f"{data.name} has data of shape {data.shape}: series have to be (time,) or (time, observed)")
    dt = settings.spacing / 8 if settings.dt is None else settings.dt
    return dataclasses.replace(settings, dt=dt)


def build(settings: LatentSDESettings, data: Dataset) -> LatentSDE:
    """The latent SDE of these settings, started from their seed and the scales of the data."""
    n_times, n_observed = (*data.shape, 1)[:2]
    seen = data.train.reshape(-1, n_observed).float()
    spread = seen.std(0, correction=0)
    assert settings.dt is not None
    return LatentSDE(
        [k * settings.spacing for k in range(n_times)],
        n_observed,
        settings.latents,
        dt=settings.dt,
        width=settings.width,
        n_context=settings.context,
        scales=(seen.mean(0), torch.where(spread > 0, spread, torch.ones_like(spread))),
        adjoint=settings.adjoint,
        seed=settings.seed,
    )


def objective(model: nn.Module, settings: LatentSDESettings, data: Dataset) -> FreeEnergy:
    """The free energy of each series, with the gradient of the loss."""
    latent = cast(LatentSDE, model)
    return lambda x, generator: latent.free_energy(x, generator, loss=settings.loss)


def evaluate(model: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
    """-ELBO of each series at one path, (batch,), nats."""
    return cast(LatentSDE, model).log_ratio(x, generator)[0]


def entries(model: nn.Module, settings: LatentSDESettings, data: Dataset, generator: torch.Generator) -> dict[str, Any]:
    """The importance-weighted bound of the test data, and the volatility and noise that were found."""
    latent = cast(LatentSDE, model)
    x = data.test[:N_REPORTED]
    bound = from_walkers(-torch.cat([latent.log_evidence(part, N_IMPORTANCE, generator) for part in x.split(50)]))
    found: dict[str, Any] = {
        "importance_weighted": {"mean": bound.mean, "error": bound.error, "samples": N_IMPORTANCE},
        "volatility": latent.prior.sigma.detach().flatten().tolist(),
    }
    width = getattr(latent.decoder, "log_scale", None)
    if width is not None:
        found["noise"] = width.detach().exp().flatten().tolist()
    return found


def figures(
    model: nn.Module, settings: LatentSDESettings, data: Dataset, generator: torch.Generator
) -> dict[str, Figure]:
    """Test series with the bands of their hidden paths, and series made by the model."""
    from fkdrift.figures.bridge import series_figure

    return {"series": series_figure(cast(LatentSDE, model), data.test[:4], data.test, generator)}


def sample(model: nn.Module, n: int, generator: torch.Generator) -> Tensor:
    """n data, (n, size)."""
    return cast(LatentSDE, model).generate(n, generator)[1].flatten(1)


RECIPE = Recipe("latent-sde", LatentSDESettings, resolve, build, objective, evaluate, entries, figures, sample)
