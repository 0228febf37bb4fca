"""Generative models on the same processes, paths and log ratios as the ground-state solver.

    import fkdrift as fk
    model = fk.generative.VAE(...)

Every model here is a pair of measures, a forward one q and a generative one p, and everything is written on
log_ratio = log q - log p: the ELBO, importance-weighted bounds, effective sample sizes and coding lengths.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fkdrift.generative.adam import Adam as Adam
    from fkdrift.generative.bounds import effective_sample_size as effective_sample_size
    from fkdrift.generative.bounds import elbo as elbo
    from fkdrift.generative.bounds import iwae as iwae
    from fkdrift.generative.bounds import log_variance as log_variance
    from fkdrift.generative.chain import Chain as Chain
    from fkdrift.generative.chain import generate as generate
    from fkdrift.generative.chain import log_ratio as log_ratio
    from fkdrift.generative.compression import Compression as Compression
    from fkdrift.generative.compression import compress as compress
    from fkdrift.generative.compression import decompress as decompress
    from fkdrift.generative.density import Density as Density
    from fkdrift.generative.density import Kernel as Kernel
    from fkdrift.generative.kernels import BernoulliDecoder as BernoulliDecoder
    from fkdrift.generative.kernels import BetaBinomialDecoder as BetaBinomialDecoder
    from fkdrift.generative.kernels import CategoricalDecoder as CategoricalDecoder
    from fkdrift.generative.kernels import DiagonalGaussian as DiagonalGaussian
    from fkdrift.generative.kernels import FullGaussian as FullGaussian
    from fkdrift.generative.linear import LinearChain as LinearChain
    from fkdrift.generative.linear import principal_components as principal_components
    from fkdrift.generative.markov import MarkovAutoencoder as MarkovAutoencoder
    from fkdrift.generative.networks import MLP as MLP
    from fkdrift.generative.networks import seeded as seeded
    from fkdrift.generative.vae import VAE as VAE

_NAMES: dict[str, tuple[str, ...]] = {
    "adam": ("Adam",),
    "bounds": ("effective_sample_size", "elbo", "iwae", "log_variance"),
    "compression": ("Compression", "compress", "decompress"),
    "chain": ("Chain", "generate", "log_ratio"),
    "density": ("Density", "Kernel"),
    "kernels": (
        "BernoulliDecoder",
        "BetaBinomialDecoder",
        "CategoricalDecoder",
        "DiagonalGaussian",
        "FullGaussian",
    ),
    "linear": ("LinearChain", "principal_components"),
    "markov": ("MarkovAutoencoder",),
    "networks": ("MLP", "seeded"),
    "vae": ("VAE",),
}
_MODULE = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_MODULE)


def __getattr__(name: str) -> object:
    if name not in _MODULE:
        raise AttributeError(f"module 'fkdrift.generative' has no attribute {name!r}")
    value = getattr(import_module(f"fkdrift.generative.{_MODULE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE])
