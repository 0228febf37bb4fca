"""A chain of latents x -> z_1 -> ... -> z_T, each step with a kernel of its own.

Data, decoder and report are those of a VAE; between latents there are Gaussian steps with a width and a kernel each,
whose q is fixed, learned, or held between the two by a penalty,

    F + hold sum_{t > 1} KL( q(z_t | z_{t-1}) || N(a z_{t-1}, 1 - a^2) ).

F does not choose between laws of the latents that generate the same data: the penalty does.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from fkdrift.densities.kernels import DiagonalGaussian, DistributionKernel
from fkdrift.generative.chain import draw_posterior, terms, transition_log_ratio
from fkdrift.generative.data.datasets import Dataset
from fkdrift.generative.markov import MarkovAutoencoder, fixed_kernel
from fkdrift.numerics.networks import MLP, seeded
from fkdrift.runs.recipes.markov_settings import MarkovSettings
from fkdrift.runs.recipes.recipe import Recipe
from fkdrift.runs.recipes.vae import (
    GAIN,
    GAUSSIANS,
    data_decoder,
    decode,
    encode,
    entries,
    evaluate,
    figures,
    first_encoder,
    resolve,
    sample,
)
from fkdrift.runs.recipes.vae import objective as free_objective
from fkdrift.training.adam import FreeEnergy


def build(settings: MarkovSettings, data: Dataset) -> MarkovAutoencoder:
    """The Markov autoencoder of these settings, started from their seed."""
    sizes = (settings.latents, *settings.upper)
    units, kinds = (_of_each(values, len(sizes) - 1) for values in (settings.upper_width, settings.kernels))
    learned = settings.decay is None or settings.hold is not None
    with seeded(settings.seed):
        encoders: list[DistributionKernel] = [first_encoder(settings, data)]
        decoders: list[DistributionKernel] = [data_decoder(settings, data)]
        for (below, above), width, kind in zip(pairwise(sizes), units, kinds, strict=True):
            widths = (width,) * settings.depth
            encoders.append(_step(kind, below, widths, above) if learned else _fixed(settings))
            decoders.append(_step(kind, above, widths, below))
        return MarkovAutoencoder(encoders, decoders, sizes[-1], data.class_shares)


def _of_each(values: tuple[Any, ...], n: int) -> tuple[Any, ...]:
    """One value for each of n steps."""
    return values if len(values) == n else values * n


def _step(kind: str, n_in: int, widths: Sequence[int], size: int) -> DistributionKernel:
    """A Gaussian step between latents."""
    make = GAUSSIANS[kind]
    return make(MLP(n_in, widths, make.n_outputs(size), GAIN), size)


def _fixed(settings: MarkovSettings) -> DiagonalGaussian:
    """The step that a decay asks for."""
    assert settings.decay is not None
    return fixed_kernel(settings.latents, settings.decay)


def objective(model: nn.Module, settings: MarkovSettings, data: Dataset) -> FreeEnergy:
    """F of distorted rows, and what holds the steps."""
    chain, hold = cast(MarkovAutoencoder, model), settings.hold
    if hold is None:
        return free_objective(model, settings, data)
    kernels = [_fixed(settings).to(data.train)] * len(settings.upper)

    def free_energy(originals: Tensor, generator: torch.Generator) -> Tensor:
        path, log_q = draw_posterior(chain, data.prepare(originals, generator, settings.distort or 0.0), generator)
        held = transition_log_ratio(list(chain.encoders)[1:], kernels, path[1:])  # type: ignore[arg-type]
        reconstruction, *latents = terms(chain, path, log_q)
        return reconstruction + settings.beta * torch.stack(latents).sum(0) + hold * held

    return free_energy


RECIPE = Recipe(
    "markov",
    MarkovSettings,
    resolve,
    build,
    objective,
    evaluate,
    entries,
    figures,
    sample,
    encode,
    decode,
    conditional=True,
)
