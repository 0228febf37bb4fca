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
    from fkdrift.generative.conditioned import Conditioned as Conditioned
    from fkdrift.generative.conditioned import GuidedDrift as GuidedDrift
    from fkdrift.generative.conditioned import Measurement as Measurement
    from fkdrift.generative.continuous import Continuous as Continuous
    from fkdrift.generative.continuous import Field as Field
    from fkdrift.generative.continuous import MLPField as MLPField
    from fkdrift.generative.continuous import align as align
    from fkdrift.generative.continuous import flow_matching_loss as flow_matching_loss
    from fkdrift.generative.continuous import hutchinson_log_prob as hutchinson_log_prob
    from fkdrift.generative.continuous import rk4 as rk4
    from fkdrift.generative.data import Dataset as Dataset
    from fkdrift.generative.data import dataset as dataset
    from fkdrift.generative.data import load_data as load_data
    from fkdrift.generative.density import Density as Density
    from fkdrift.generative.density import Kernel as Kernel
    from fkdrift.generative.diffusion import DDPM as DDPM
    from fkdrift.generative.diffusion import TimeNetwork as TimeNetwork
    from fkdrift.generative.diffusion import cosine_schedule as cosine_schedule
    from fkdrift.generative.diffusion import linear_schedule as linear_schedule
    from fkdrift.generative.flow_start import make_flow as make_flow
    from fkdrift.generative.flow_start import semiclassical_tails as semiclassical_tails
    from fkdrift.generative.flow_state import FlowDrift as FlowDrift
    from fkdrift.generative.flow_state import fisher_energy as fisher_energy
    from fkdrift.generative.flow_state import importance_energy as importance_energy
    from fkdrift.generative.flow_training import FlowNaturalGradient as FlowNaturalGradient
    from fkdrift.generative.flows import Coupling as Coupling
    from fkdrift.generative.flows import Elementwise as Elementwise
    from fkdrift.generative.flows import Flow as Flow
    from fkdrift.generative.flows import Layer as Layer
    from fkdrift.generative.flows import Scale as Scale
    from fkdrift.generative.flows import Tail as Tail
    from fkdrift.generative.flows import Triangular as Triangular
    from fkdrift.generative.flows import coupling_flow as coupling_flow
    from fkdrift.generative.irreversibility import entropy_production as entropy_production
    from fkdrift.generative.irreversibility import gaussian_score as gaussian_score
    from fkdrift.generative.kernels import BernoulliDecoder as BernoulliDecoder
    from fkdrift.generative.kernels import BetaBinomialDecoder as BetaBinomialDecoder
    from fkdrift.generative.kernels import CategoricalDecoder as CategoricalDecoder
    from fkdrift.generative.kernels import DiagonalGaussian as DiagonalGaussian
    from fkdrift.generative.kernels import FullGaussian as FullGaussian
    from fkdrift.generative.known_densities import Mixture as Mixture
    from fkdrift.generative.known_densities import eight_gaussians as eight_gaussians
    from fkdrift.generative.known_densities import two_moons as two_moons
    from fkdrift.generative.latent_sde import LatentSDE as LatentSDE
    from fkdrift.generative.linear import LinearChain as LinearChain
    from fkdrift.generative.linear import principal_components as principal_components
    from fkdrift.generative.markov import MarkovAutoencoder as MarkovAutoencoder
    from fkdrift.generative.networks import MLP as MLP
    from fkdrift.generative.networks import seeded as seeded
    from fkdrift.generative.reverse_diffusion import ancestral as ancestral
    from fkdrift.generative.reverse_diffusion import flow_log_prob as flow_log_prob
    from fkdrift.generative.reverse_diffusion import probability_flow as probability_flow
    from fkdrift.generative.reverse_diffusion import reverse_sde as reverse_sde
    from fkdrift.generative.score_matching import denoising_loss as denoising_loss
    from fkdrift.generative.score_matching import drift_from_samples as drift_from_samples
    from fkdrift.generative.symmetric import MessageField as MessageField
    from fkdrift.generative.symmetric import RadialField as RadialField
    from fkdrift.generative.trajectories import Trajectories as Trajectories
    from fkdrift.generative.trajectories import infer as infer
    from fkdrift.generative.transition import splitting as splitting
    from fkdrift.generative.vae import VAE as VAE
    from fkdrift.generative.zuko_density import ZukoDensity as ZukoDensity

_NAMES: dict[str, tuple[str, ...]] = {
    "adam": ("Adam",),
    "bounds": ("effective_sample_size", "elbo", "iwae", "log_variance"),
    "compression": ("Compression", "compress", "decompress"),
    "chain": ("Chain", "generate", "log_ratio"),
    "data": ("Dataset", "dataset", "load_data"),
    "density": ("Density", "Kernel"),
    "kernels": (
        "BernoulliDecoder",
        "BetaBinomialDecoder",
        "CategoricalDecoder",
        "DiagonalGaussian",
        "FullGaussian",
    ),
    "known_densities": ("Mixture", "eight_gaussians", "two_moons"),
    "linear": ("LinearChain", "principal_components"),
    "markov": ("MarkovAutoencoder",),
    "networks": ("MLP", "seeded"),
    "vae": ("VAE",),
    "continuous": ("Continuous", "Field", "MLPField", "align", "flow_matching_loss", "hutchinson_log_prob", "rk4"),
    "diffusion": ("DDPM", "TimeNetwork", "cosine_schedule", "linear_schedule"),
    "flow_start": ("make_flow", "semiclassical_tails"),
    "flow_state": ("FlowDrift", "fisher_energy", "importance_energy"),
    "flow_training": ("FlowNaturalGradient",),
    "flows": ("Coupling", "Elementwise", "Flow", "Layer", "Scale", "Tail", "Triangular", "coupling_flow"),
    "reverse_diffusion": ("ancestral", "flow_log_prob", "probability_flow", "reverse_sde"),
    "score_matching": ("denoising_loss", "drift_from_samples"),
    "symmetric": ("MessageField", "RadialField"),
    "zuko_density": ("ZukoDensity",),
    "conditioned": ("Conditioned", "GuidedDrift", "Measurement"),
    "irreversibility": ("entropy_production", "gaussian_score"),
    "latent_sde": ("LatentSDE",),
    "trajectories": ("Trajectories", "infer"),
    "transition": ("splitting",),
}
_MODULE = {name: module for module, names in _NAMES.items() for name in names}

_LEARNING = {
    "learn": "learn",
    "load": "load_learning",
    "load_model": "load_model",
    "resume": "resume_learning",
}

__all__ = sorted([*_MODULE, *_LEARNING])


def __getattr__(name: str) -> object:
    if name in _LEARNING:  # higher up in the package: they also know runs and folders
        return getattr(import_module("fkdrift.learning"), _LEARNING[name])
    if name not in _MODULE:
        raise AttributeError(f"module 'fkdrift.generative' has no attribute {name!r}")
    value = getattr(import_module(f"fkdrift.generative.{_MODULE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE, *_LEARNING])
