"""A hidden diffusion that explains series (n, time, observed) in FILE.npy or FILE.npz.

Data are series (n, time, observed), or (n, time) for one quantity, with NaN where nothing was observed; at the times
0, spacing, 2 spacing, ..., or at any that increase, which are the array `times` of FILE.npz.
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
from fkdrift.numerics.log_weights import effective_sample_size
from fkdrift.runs.recipes.latent_sde_settings import LatentSDESettings
from fkdrift.runs.recipes.recipe import Recipe
from fkdrift.training.adam import FreeEnergy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N_IMPORTANCE = 64
"""Paths for the importance-weighted bound that is reported."""

N_REPORTED = 200
"""Test series it is computed for, at most."""

N_SHOWN, N_BAND = 4, 512
"""Test series whose hidden paths are drawn as bands, and paths of each."""


def resolve(settings: LatentSDESettings, data: Dataset) -> LatentSDESettings:
    """Settings with the step chosen: an eighth of the mean time between observations.

    Raises:
        BadConfig: data that are no series of numbers, or with a component that was never observed.
    """
    if data.n_levels is not None:
        raise BadConfig(
            f"{data.name} has whole numbers: a latent SDE explains series of real numbers (n, time, observed)"
        )
    if len(data.shape) not in (1, 2) or data.shape[0] < 2:
        raise BadConfig(f"{data.name} has data of shape {data.shape}: series have to be (time,) or (time, observed)")
    unseen = data.train.isnan().reshape(-1, *(*data.shape, 1)[:2]).all((0, 1)).nonzero().flatten().tolist()
    if unseen:
        raise BadConfig(f"component {unseen[0]} of {data.name} was never observed: leave it out")
    moments = _times(settings, data)
    dt = moments[-1] / (len(moments) - 1) / 8 if settings.dt is None else settings.dt
    return dataclasses.replace(settings, dt=dt)


def _times(settings: LatentSDESettings, data: Dataset) -> list[float]:
    """When the series were observed, from 0 on."""
    return [t - data.times[0] for t in data.times] or [k * settings.spacing for k in range(data.shape[0])]


def build(settings: LatentSDESettings, data: Dataset) -> LatentSDE:
    """The latent SDE of these settings, started from their seed and the scales of the data."""
    n_observed = (*data.shape, 1)[1]
    seen = data.train.reshape(-1, n_observed).float()
    centre = seen.nanmean(0)
    spread = (seen - centre).square().nanmean(0).sqrt()
    assert settings.dt is not None
    return LatentSDE(
        _times(settings, data),
        n_observed,
        settings.latents,
        dt=settings.dt,
        width=settings.width,
        n_context=settings.context,
        scales=(centre, torch.where(spread > 0, spread, torch.ones_like(spread))),
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
    weights = torch.stack([latent.posterior(series, N_BAND, generator)[1] for series in x[:N_SHOWN]], 1)
    effective = N_BAND * effective_sample_size(weights.double())
    bound = from_walkers(-torch.cat([latent.log_evidence(part, N_IMPORTANCE, generator) for part in x.split(50)]))
    found: dict[str, Any] = {
        "importance_weighted": {"mean": bound.mean, "error": bound.error, "samples": N_IMPORTANCE},
        "paths": {"effective": effective.tolist(), "samples": N_BAND},
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

    shown = data.test[:N_SHOWN]
    return {"series": series_figure(cast(LatentSDE, model), shown, data.test, generator, N_BAND)}


def sample(model: nn.Module, n: int, generator: torch.Generator) -> Tensor:
    """n data, (n, size)."""
    return cast(LatentSDE, model).generate(n, generator)[1].flatten(1)


RECIPE = Recipe(
    "latent-sde", LatentSDESettings, resolve, build, objective, evaluate, entries, figures, sample, missing=True
)
