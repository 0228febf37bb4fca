"""A chain of latents x -> z_1 -> ... -> z_T, each step with a kernel of its own.

Data, decoder, objective and report are those of a VAE; between latents there are Gaussian steps, learned or fixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from fkdrift.densities.kernels import DistributionKernel
from fkdrift.errors import BadConfig
from fkdrift.generative.data.datasets import Dataset
from fkdrift.generative.markov import MarkovAutoencoder, fixed_kernel
from fkdrift.numerics.networks import MLP, seeded
from fkdrift.runs.recipes.recipe import Recipe
from fkdrift.runs.recipes.vae import (
    GAIN,
    GAUSSIANS,
    AutoencoderSettings,
    data_decoder,
    entries,
    evaluate,
    figures,
    first_encoder,
    objective,
    resolve,
)
from fkdrift.settings import setting


@dataclass(frozen=True, kw_only=True)
class MarkovSettings(AutoencoderSettings):
    """Settings of a Markov autoencoder: those of a VAE, with z_1 as its `latents`."""

    depth: int = setting(2, "Hidden layers.")
    upper: tuple[int, ...] = setting((20,), "Components of z_2, z_3, ...")
    upper_width: int = setting(200, "Units in a hidden layer of the networks between latents.")
    decay: float | None = setting(
        None, "a of fixed steps q(z_t | z_{t-1}) = N(a z, 1 - a^2) above the first.", adopted="learned steps", below=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay is not None and set(self.upper) != {self.latents}:
            raise BadConfig("fixed steps (decay) keep the number of components: set every upper to latents")


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
        return MarkovAutoencoder(encoders, decoders, sizes[-1])


def _step(kind: str, network: type[MLP], n_in: int, widths: Sequence[int], size: int) -> DistributionKernel:
    """A Gaussian step between latents."""
    make = GAUSSIANS[kind]
    return make(network(n_in, widths, make.n_outputs(size), GAIN), size)


RECIPE = Recipe("markov", MarkovSettings, resolve, build, objective, evaluate, entries, figures)
