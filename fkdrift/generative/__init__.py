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
    from fkdrift.bridges.conditioned import Conditioned as Conditioned
    from fkdrift.bridges.conditioned import GuidedDrift as GuidedDrift
    from fkdrift.bridges.conditioned import Measurement as Measurement
    from fkdrift.bridges.trajectories import Trajectories as Trajectories
    from fkdrift.bridges.trajectories import infer as infer
    from fkdrift.bridges.transition import splitting as splitting
    from fkdrift.densities.continuous import Continuous as Continuous
    from fkdrift.densities.continuous import Field as Field
    from fkdrift.densities.continuous import MLPField as MLPField
    from fkdrift.densities.continuous import align as align
    from fkdrift.densities.continuous import flow_matching_loss as flow_matching_loss
    from fkdrift.densities.continuous import hutchinson_log_prob as hutchinson_log_prob
    from fkdrift.densities.continuous import match as match
    from fkdrift.densities.coupling import Coupling as Coupling
    from fkdrift.densities.coupling import Elementwise as Elementwise
    from fkdrift.densities.coupling import Flow as Flow
    from fkdrift.densities.coupling import Layer as Layer
    from fkdrift.densities.coupling import Scale as Scale
    from fkdrift.densities.coupling import Tail as Tail
    from fkdrift.densities.coupling import Triangular as Triangular
    from fkdrift.densities.coupling import coupling_flow as coupling_flow
    from fkdrift.densities.density import Density as Density
    from fkdrift.densities.density import Kernel as Kernel
    from fkdrift.densities.kernels import BernoulliDecoder as BernoulliDecoder
    from fkdrift.densities.kernels import BetaBinomialDecoder as BetaBinomialDecoder
    from fkdrift.densities.kernels import CategoricalDecoder as CategoricalDecoder
    from fkdrift.densities.kernels import DiagonalGaussian as DiagonalGaussian
    from fkdrift.densities.kernels import FullGaussian as FullGaussian
    from fkdrift.densities.known_densities import Mixture as Mixture
    from fkdrift.densities.known_densities import eight_gaussians as eight_gaussians
    from fkdrift.densities.known_densities import two_moons as two_moons
    from fkdrift.densities.symmetric import FadingField as FadingField
    from fkdrift.densities.symmetric import GraphField as GraphField
    from fkdrift.densities.symmetric import RadialField as RadialField
    from fkdrift.densities.symmetric import RadialTail as RadialTail
    from fkdrift.densities.zuko_density import ZukoDensity as ZukoDensity
    from fkdrift.generative.chain import Chain as Chain
    from fkdrift.generative.chain import generate as generate
    from fkdrift.generative.chain import log_ratio as log_ratio
    from fkdrift.generative.coding.compression import Compression as Compression
    from fkdrift.generative.coding.compression import compress as compress
    from fkdrift.generative.coding.compression import decompress as decompress
    from fkdrift.generative.data.datasets import Dataset as Dataset
    from fkdrift.generative.data.datasets import dataset as dataset
    from fkdrift.generative.data.datasets import load_data as load_data
    from fkdrift.generative.diagnostics import energy_distance as energy_distance
    from fkdrift.generative.diffusion import DDPM as DDPM
    from fkdrift.generative.diffusion import TimeNetwork as TimeNetwork
    from fkdrift.generative.diffusion import cosine_schedule as cosine_schedule
    from fkdrift.generative.diffusion import linear_schedule as linear_schedule
    from fkdrift.generative.latent_sde import LatentSDE as LatentSDE
    from fkdrift.generative.linear import LinearChain as LinearChain
    from fkdrift.generative.linear import principal_components as principal_components
    from fkdrift.generative.markov import MarkovAutoencoder as MarkovAutoencoder
    from fkdrift.generative.reverse_diffusion import ancestral as ancestral
    from fkdrift.generative.reverse_diffusion import flow_log_prob as flow_log_prob
    from fkdrift.generative.reverse_diffusion import multistep as multistep
    from fkdrift.generative.reverse_diffusion import probability_flow as probability_flow
    from fkdrift.generative.reverse_diffusion import reverse_sde as reverse_sde
    from fkdrift.generative.vae import VAE as VAE
    from fkdrift.numerics.integration import rk4 as rk4
    from fkdrift.numerics.log_weights import effective_sample_size as effective_sample_size
    from fkdrift.numerics.log_weights import elbo as elbo
    from fkdrift.numerics.log_weights import iwae as iwae
    from fkdrift.numerics.log_weights import log_variance as log_variance
    from fkdrift.numerics.networks import MLP as MLP
    from fkdrift.numerics.networks import seeded as seeded
    from fkdrift.paths.entropy_production import entropy_production as entropy_production
    from fkdrift.paths.entropy_production import gaussian_score as gaussian_score
    from fkdrift.paths.transitions import Transitions as Transitions
    from fkdrift.paths.transitions import transitions as transitions
    from fkdrift.training.adam import minibatch_adam as minibatch_adam
    from fkdrift.training.score_matching import denoising_loss as denoising_loss
    from fkdrift.training.score_matching import drift_from_samples as drift_from_samples
    from fkdrift.wavefunction.flow import FlowWavefunction as FlowWavefunction
    from fkdrift.wavefunction.flow import fisher_energy as fisher_energy
    from fkdrift.wavefunction.flow import importance_energy as importance_energy
    from fkdrift.wavefunction.flow_start import make_flow as make_flow
    from fkdrift.wavefunction.flow_start import make_wavefunction as make_wavefunction
    from fkdrift.wavefunction.flow_start import semiclassical_tails as semiclassical_tails

_NAMES: dict[str, tuple[str, ...]] = {
    "training.adam": ("minibatch_adam",),
    "numerics.integration": ("rk4",),
    "numerics.log_weights": ("effective_sample_size", "elbo", "iwae", "log_variance"),
    "generative.coding.compression": ("Compression", "compress", "decompress"),
    "generative.chain": ("Chain", "generate", "log_ratio"),
    "generative.data.datasets": ("Dataset", "dataset", "load_data"),
    "densities.density": ("Density", "Kernel"),
    "densities.kernels": (
        "BernoulliDecoder",
        "BetaBinomialDecoder",
        "CategoricalDecoder",
        "DiagonalGaussian",
        "FullGaussian",
    ),
    "densities.known_densities": ("Mixture", "eight_gaussians", "two_moons"),
    "generative.linear": ("LinearChain", "principal_components"),
    "generative.markov": ("MarkovAutoencoder",),
    "numerics.networks": ("MLP", "seeded"),
    "generative.vae": ("VAE",),
    "densities.continuous": (
        "Continuous",
        "Field",
        "MLPField",
        "align",
        "flow_matching_loss",
        "hutchinson_log_prob",
        "match",
    ),
    "generative.diagnostics": ("energy_distance",),
    "generative.diffusion": ("DDPM", "TimeNetwork", "cosine_schedule", "linear_schedule"),
    "wavefunction.flow_start": ("make_flow", "make_wavefunction", "semiclassical_tails"),
    "wavefunction.flow": ("FlowWavefunction", "fisher_energy", "importance_energy"),
    "densities.coupling": ("Coupling", "Elementwise", "Flow", "Layer", "Scale", "Tail", "Triangular", "coupling_flow"),
    "generative.reverse_diffusion": ("ancestral", "flow_log_prob", "multistep", "probability_flow", "reverse_sde"),
    "training.score_matching": ("denoising_loss", "drift_from_samples"),
    "densities.symmetric": ("FadingField", "GraphField", "RadialField", "RadialTail"),
    "densities.zuko_density": ("ZukoDensity",),
    "bridges.conditioned": ("Conditioned", "GuidedDrift", "Measurement"),
    "paths.entropy_production": ("entropy_production", "gaussian_score"),
    "paths.transitions": ("Transitions", "transitions"),
    "generative.latent_sde": ("LatentSDE",),
    "bridges.trajectories": ("Trajectories", "infer"),
    "bridges.transition": ("splitting",),
}
_MODULE = {name: module for module, names in _NAMES.items() for name in names}

_RUNS = {
    "learn": "fkdrift.runs.learning",
    "load": "fkdrift.runs.driver",
    "load_model": "fkdrift.runs.learning",
    "resume": "fkdrift.runs.driver",
}
"""Higher up in the package: what also knows runs and folders."""

__all__ = sorted([*_MODULE, *_RUNS])


def __getattr__(name: str) -> object:
    if name in _RUNS:
        return getattr(import_module(_RUNS[name]), name)
    if name not in _MODULE:
        raise AttributeError(f"module 'fkdrift.generative' has no attribute {name!r}")
    value = getattr(import_module(f"fkdrift.{_MODULE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE, *_RUNS])
