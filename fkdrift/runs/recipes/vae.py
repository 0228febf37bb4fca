"""A variational autoencoder: one latent, p(z) = N(0, 1).

The decoder follows from the data unless it is named: Bernoulli for bits, beta-binomial for whole numbers, Gaussian for
continuous data.  Networks read standardised data; decoders start from the mean of each component.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from fkdrift.densities.kernels import (
    BernoulliDecoder,
    BetaBinomialDecoder,
    CategoricalDecoder,
    DiagonalGaussian,
    DistributionKernel,
    FullGaussian,
    LaplaceDecoder,
    Rescaled,
    expectation,
)
from fkdrift.errors import BadConfig, BadParameter
from fkdrift.generative.chain import Chain, draw_posterior, generate, log_ratio, terms
from fkdrift.generative.data.datasets import Dataset, check_range, chosen_scaling
from fkdrift.generative.diagnostics import ACTIVE_VARIANCE, latent_use
from fkdrift.generative.markov import MarkovAutoencoder
from fkdrift.generative.vae import VAE
from fkdrift.numerics.estimates import from_walkers
from fkdrift.numerics.log_weights import iwae
from fkdrift.numerics.networks import MLP, ConvolutionalDecoder, ConvolutionalEncoder, Standardise, seeded
from fkdrift.runs.recipes.markov_settings import MarkovSettings
from fkdrift.runs.recipes.recipe import Recipe
from fkdrift.runs.recipes.vae_settings import AutoencoderSettings
from fkdrift.training.adam import FreeEnergy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N_IMPORTANCE = 64
"""Draws for the importance-weighted bound that is reported."""

GAUSSIANS: dict[str, type[DiagonalGaussian] | type[FullGaussian]] = {"diagonal": DiagonalGaussian, "full": FullGaussian}
WARM_UP = 0.3
"""Of a chain: without it the upper latents say nothing in the beginning, and are never used."""
GAIN = 0.1
"""Of the last layer of an encoder: it starts close to its prior."""


def resolve(settings: Any, data: Dataset) -> Any:
    """Settings with the decoder, the scaling and the distortions chosen.

    Raises:
        BadConfig: options that do not fit the data or each other.
        BadParameter: data that the decoder gives no probability to.
    """
    decoder, distort, levels = settings.decoder, settings.distort, settings.levels
    if decoder == "auto":
        n_levels = data.n_levels
        decoder = "gaussian" if n_levels is None else "bernoulli" if n_levels <= 2 else "beta-binomial"
    if decoder != "gaussian":
        levels = check_range(data, decoder, levels)
    if distort is None:
        distort = 0.0 if data.brightness is None else 1.0
    if not data.is_image and (distort > 0 or settings.network == "conv"):
        raise BadConfig(f"{data.name} has data of shape {data.shape}, no images: use network mlp and distort 0")
    if settings.covariance != "isotropic":
        if decoder != "gaussian":
            raise BadConfig(f"covariance = {settings.covariance} is for a Gaussian decoder, not for {decoder}")
        constant = (data.train == data.train[0]).all(0).nonzero().flatten().tolist()
        if constant:
            raise BadParameter(
                f"column {constant[0]} of {data.name} is constant, so that a width of its own has no limit: leave it "
                "out, or use --covariance isotropic"
            )
    for name, none in (("beta", 1.0), ("warm_up", 0.0)):
        value = getattr(settings, name)
        if settings.samples > 1 and value not in (none, None):
            raise BadConfig(f"{name} = {value} does not go with samples = {settings.samples}: use one of them")
    scaling, warm_up = chosen_scaling(settings.scaling, data), settings.warm_up
    if warm_up is None:
        warm_up = WARM_UP if isinstance(settings, MarkovSettings) and settings.samples == 1 else 0.0
    chosen = {"decoder": decoder, "distort": distort, "levels": levels, "scaling": scaling, "warm_up": warm_up}
    return dataclasses.replace(settings, **chosen)


def build(settings: AutoencoderSettings, data: Dataset) -> VAE:
    """The VAE of these settings, started from their seed."""
    with seeded(settings.seed):
        return VAE(first_encoder(settings, data), data_decoder(settings, data), settings.latents, data.class_shares)


def first_encoder(settings: AutoencoderSettings, data: Dataset) -> DistributionKernel:
    """q(z_1 | x), of standardised data; the linear one has a constant covariance."""
    n, size, standardise = data.size, settings.latents, _standardise(settings, data)
    make = GAUSSIANS[settings.encoder]
    if settings.network == "linear":
        read = nn.Sequential(standardise, MLP(n, (), size))
        if settings.encoder == "full":
            return FullGaussian(read, size, scale_tril=torch.eye(size))
        return DiagonalGaussian(read, size, scale=torch.ones(size))
    n_out = make.n_outputs(size)
    if settings.network == "conv":
        network: nn.Module = ConvolutionalEncoder(data.shape, _channels(data), settings.width, n_out, GAIN)
    else:
        network = MLP(n, (settings.width,) * settings.depth, n_out, GAIN)
    return make(nn.Sequential(standardise, network), size)


def _standardise(settings: AutoencoderSettings, data: Dataset) -> Standardise:
    return Standardise(data.train, settings.scaling == "column")


def data_decoder(settings: AutoencoderSettings, data: Dataset) -> DistributionKernel:
    """p(x | z_1), or p(x | z_1, c)."""
    n = data.size
    if settings.decoder == "gaussian":
        network, units = _writer(settings, data, 1), _standardise(settings, data)
        kernel: DiagonalGaussian | FullGaussian
        if settings.covariance == "full":
            kernel = FullGaussian(network, n, scale_tril=torch.eye(n))
        elif settings.noise is not None:
            kernel = DiagonalGaussian(network, n, scale=settings.noise / units.scale, learn_scale=False)
        else:
            kernel = DiagonalGaussian(network, n, scale=torch.ones(n if settings.covariance == "diagonal" else ()))
        return Rescaled(kernel, units.mean, units.scale)
    if settings.decoder == "bernoulli":
        return BernoulliDecoder(_writer(settings, data, 1), n)
    n_levels = settings.levels or check_range(data, settings.decoder)
    if settings.decoder == "categorical":
        return CategoricalDecoder(_writer(settings, data, n_levels), n, n_levels)
    if settings.decoder == "laplace":
        return LaplaceDecoder(_writer(settings, data, 2), n, n_levels)
    return BetaBinomialDecoder(_writer(settings, data, 2), n, n_levels)


def _writer(settings: AutoencoderSettings, data: Dataset, n_planes: int) -> nn.Module:
    """A network from z_1, and c, to n_planes numbers for each component."""
    by_component, n_in = settings.decoder == "categorical", settings.latents + data.n_classes
    if settings.network == "conv":
        channels = _channels(data)[::-1]
        return ConvolutionalDecoder(n_in, settings.width, channels, data.shape, n_planes, last_axis=by_component)
    widths = () if settings.network == "linear" else (settings.width,) * settings.depth
    network = MLP(n_in, widths, n_planes * data.size)
    with torch.no_grad():
        if settings.decoder == "bernoulli":
            network.last.bias.copy_(torch.logit(data.train.mean(0).clamp(1e-3, 1 - 1e-3)))
        elif settings.decoder == "laplace":
            network.last.bias[: data.size].copy_(2 * data.train.mean(0) / ((settings.levels or 2) - 1) - 1)
    return network


def _channels(data: Dataset) -> tuple[int, ...]:
    """Of two convolutions, or three for larger images."""
    return (32, 64) if max(data.shape[:2]) < 32 else (32, 64, 64)


def objective(model: nn.Module, settings: Any, data: Dataset) -> FreeEnergy:
    """F of distorted rows."""
    chain = cast(VAE | MarkovAutoencoder, model)

    def free_energy(originals: Tensor, generator: torch.Generator) -> Tensor:
        x = data.prepare(originals, generator, settings.distort)
        return chain.free_energy(x, generator, beta=settings.beta, n_samples=settings.samples)

    return free_energy


def evaluate(model: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
    """-ELBO of each datum, (batch,), with beta = 1."""
    return cast(VAE | MarkovAutoencoder, model).free_energy(x, generator)


def entries(model: nn.Module, settings: Any, data: Dataset, generator: torch.Generator) -> dict[str, Any]:
    """The importance-weighted bound of the test data, and what each latent carries."""
    chain, x, classes = cast(VAE | MarkovAutoencoder, model), data.test, data.labels("test")
    with torch.no_grad():
        pieces = zip(x.split(100), classes.split(100), strict=True)
        bound = torch.cat([iwae(log_ratio(chain.given(c), part, generator, N_IMPORTANCE)) for part, c in pieces])
        told = chain.given(classes)
        parts = terms(told, *draw_posterior(told, x, generator)).mean(1)
    estimate = from_walkers(-bound)
    found: dict[str, Any] = {
        "importance_weighted": {"mean": estimate.mean, "error": estimate.error, "samples": N_IMPORTANCE},
        "reconstruction": parts[0].item(),
        "kl_by_latent": parts[1:].tolist(),
    }
    if isinstance(model, VAE):
        use = latent_use(model, x, generator)
        order = use.unit_kl.argsort(descending=True)
        found["latents"] = {
            "joint_kl": {"mean": use.joint_kl.mean, "error": use.joint_kl.error},
            "unit_kl": use.unit_kl[order].tolist(),
            "unit": order.tolist(),
            "active": use.n_active,
            "active_above": ACTIVE_VARIANCE,
            "mutual_information": use.information,
            "mutual_information_limit": math.log(min(len(x), 2048)),
        }
    return found


def figures(model: nn.Module, settings: Any, data: Dataset, generator: torch.Generator) -> dict[str, Figure]:
    """Reconstructions, samples, traversals, KL of each unit."""
    from fkdrift.figures.latent import latent_figures  # here: matplotlib takes a second to import

    return latent_figures(cast(VAE | MarkovAutoencoder, model), data, generator)


def sample(model: nn.Module, n: int, generator: torch.Generator) -> Tensor:
    """n data, (n, size)."""
    return generate(cast(Chain, model), n, generator)[-1]


def encode(model: nn.Module, x: Tensor) -> Tensor:
    """The mean of q(z_1 | x), (batch, latents)."""
    return cast(Chain, model).posterior(1, x).mean


def decode(model: nn.Module, z: Tensor) -> Tensor:
    """The mean of p(x | z_1), (batch, size)."""
    return expectation(cast(Chain, model).generative(1, z))


RECIPE = Recipe(
    "vae",
    AutoencoderSettings,
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
