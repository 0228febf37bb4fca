"""A chain of latents x -> z_1 -> ... -> z_T, each step with a kernel of its own.

Data, decoder, objective and report are those of a VAE; between latents there are Gaussian steps, learned or fixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from fkdrift.densities.kernels import DistributionKernel
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
    objective,
    resolve,
    sample,
)


def build(settings: MarkovSettings, data: Dataset) -> MarkovAutoencoder:
    """The Markov autoencoder of these settings, started from their seed."""
    sizes = (settings.latents, *settings.upper)
    widths = (settings.upper_width,) * settings.depth
    with seeded(settings.seed):
        encoders: list[DistributionKernel] = [first_encoder(settings, data)]
        decoders: list[DistributionKernel] = [data_decoder(settings, data)]
        for below, above in pairwise(sizes):
            if settings.decay is None:
                encoders.append(_step(settings.encoder, MLP, below, widths, above))
            else:
                encoders.append(fixed_kernel(below, settings.decay))
            decoders.append(_step("diagonal", MLP, above, widths, below))
        return MarkovAutoencoder(encoders, decoders, sizes[-1], data.class_shares)


def _step(kind: str, network: type[MLP], n_in: int, widths: Sequence[int], size: int) -> DistributionKernel:
    """A Gaussian step between latents."""
    make = GAUSSIANS[kind]
    return make(network(n_in, widths, make.n_outputs(size), GAIN), size)


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
