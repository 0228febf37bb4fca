"""A diffusion model: fixed noise one way, learned steps back the other.

Discrete data are dithered: uniform noise one level wide is added to them, and since

    -log P(x) <= -E_u log p(x + u),        u uniform in a cube of volume 1,

the bound on the density is one on the probability of the levels, to be compared with those of discrete decoders.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from fkdrift.generative.data.datasets import Dataset, chosen_scaling
from fkdrift.generative.diffusion import DDPM, TimeNetwork, cosine_schedule, linear_schedule
from fkdrift.generative.reverse_diffusion import ancestral, flow_log_prob, multistep, probability_flow
from fkdrift.numerics.estimates import from_walkers
from fkdrift.numerics.networks import seeded
from fkdrift.runs.recipes.diffusion_settings import FEW, DiffusionSettings
from fkdrift.runs.recipes.recipe import Recipe
from fkdrift.training.adam import FreeEnergy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEDULES = {"cosine": cosine_schedule, "linear": linear_schedule}
N_TERMS = 20
N_CALLS = 20
"""Evaluations of the network for a sample."""
N_FLOW, N_FLOW_STEPS = 200, 20
"""Test data that the probability flow is asked for, and its Runge-Kutta steps."""


def resolve(settings: DiffusionSettings, data: Dataset) -> DiffusionSettings:
    """Settings with the waves and the scaling chosen."""
    waves = (3 if data.size <= FEW else 0) if settings.waves is None else settings.waves
    return dataclasses.replace(settings, waves=waves, scaling=chosen_scaling(settings.scaling, data))


def build(settings: DiffusionSettings, data: Dataset) -> DDPM:
    """The model of these settings, started from their seed."""
    with seeded(settings.seed):
        network = TimeNetwork(data.size, (settings.width,) * settings.depth, settings.waves or 0, data.n_classes)
    model = DDPM(
        network,
        data.train,
        n_steps=settings.steps,
        schedule=SCHEDULES[settings.schedule],
        learn_variance=settings.variance == "learned",
        dither=0.0 if data.n_levels is None else 1.0,
        by_column=settings.scaling == "column",
        class_shares=data.class_shares,
    )
    if settings.variance == "beta-tilde":
        model.use_variance(model.b_tilde)
    return model


def objective(model: nn.Module, settings: DiffusionSettings, data: Dataset) -> FreeEnergy:
    """F with one step drawn for each datum."""

    def free_energy(originals: Tensor, generator: torch.Generator) -> Tensor:
        return cast(DDPM, model).free_energy(data.prepare(originals, generator), generator)

    return free_energy


def evaluate(model: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
    """F with twenty of its terms, drawn for each datum, standing for all, (batch,), nats."""
    return cast(DDPM, model).bound(x, generator, N_TERMS)


def entries(model: nn.Module, settings: DiffusionSettings, data: Dataset, generator: torch.Generator) -> dict[str, Any]:
    """Where the bound comes from, its first and its last term, and -log p of the probability flow; of test data."""
    x = data.test[:500]
    diffusion = cast(DDPM, model).given(data.labels("test")[:500])
    with torch.no_grad():
        dithered = diffusion.dithered(x, generator)
        first = torch.zeros(len(x), dtype=torch.long, device=x.device)
        few = diffusion.given(data.labels("test")[:N_FLOW])
        each = -flow_log_prob(few, dithered[:N_FLOW], N_FLOW_STEPS, generator)
        flow = from_walkers(each)
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return {
            "probability_flow": {"mean": flow.mean, "error": flow.error, "median": each.median().item()},
            "prior_term": diffusion.prior_term(dithered).mean().item(),
            "reconstruction": diffusion.term(dithered, first, noise).mean().item(),
        }


def figures(model: nn.Module, settings: Any, data: Dataset, generator: torch.Generator) -> dict[str, Figure]:
    """Samples beside data, and the way back from noise."""
    from fkdrift.figures.diffusion import diffusion_figures  # here: matplotlib takes a second to import

    return diffusion_figures(cast(DDPM, model), data, generator)


def sample(model: nn.Module, n: int, generator: torch.Generator) -> Tensor:
    """n data by a few evaluations of the network, (n, size); discrete ones are rounded."""
    diffusion = cast(DDPM, model)
    like = diffusion.origin
    noise = torch.randn((n, len(like)), generator=generator, dtype=like.dtype, device=like.device)
    return _whole(diffusion, multistep(diffusion, noise, N_CALLS))


def sample_chain(model: nn.Module, n: int, generator: torch.Generator) -> Tensor:
    """n data of the chain, one evaluation for each of its steps, (n, size); discrete ones are rounded."""
    return _whole(cast(DDPM, model), ancestral(cast(DDPM, model), n, generator))


def _whole(model: DDPM, x: Tensor) -> Tensor:
    return x.round() if model.dither else x


def encode(model: nn.Module, x: Tensor) -> Tensor:
    """The noise that the probability flow takes x to, (batch, size)."""
    return probability_flow(cast(DDPM, model), x, backwards=True)


def decode(model: nn.Module, z: Tensor) -> Tensor:
    """What the probability flow makes of noise, (batch, size)."""
    return probability_flow(cast(DDPM, model), z)


RECIPE = Recipe(
    "diffusion",
    DiffusionSettings,
    resolve,
    build,
    objective,
    evaluate,
    entries,
    figures,
    sample,
    encode,
    decode,
    samplers={"multistep": sample, "chain": sample_chain},
    conditional=True,
)
