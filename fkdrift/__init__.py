"""fkdrift: quantum ground states by stochastic control.

    import fkdrift as fk
    state = fk.solve("helium", seed=0)
    print(state)

A neural drift steers dr = v dt + sigma dB; the path action of the trajectories is an upper bound on the ground-state
energy, and equals it when v = sigma^2 grad log phi_0.

Names are imported when they are first used: `fkdrift --help` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fkdrift.config import Settings as Settings
    from fkdrift.drift import Drift as Drift
    from fkdrift.drift import GradientDrift as GradientDrift
    from fkdrift.drift import MLPDrift as MLPDrift
    from fkdrift.estimate import Energies as Energies
    from fkdrift.estimate import PathSampler as PathSampler
    from fkdrift.estimate import StationarySampler as StationarySampler
    from fkdrift.exact import diagonalise as diagonalise
    from fkdrift.fitting import Step as Step
    from fkdrift.fitting import fit as fit
    from fkdrift.generative.feynman_kac import feynman_kac as feynman_kac
    from fkdrift.generative.score_matching import drift_from_samples as drift_from_samples
    from fkdrift.generative.transition import bridge as bridge
    from fkdrift.ground_state import GroundState as GroundState
    from fkdrift.levels import Spectrum as Spectrum
    from fkdrift.objective import path_kl as path_kl
    from fkdrift.path import Path as Path
    from fkdrift.path import evolve as evolve
    from fkdrift.potential import FunctionPotential as FunctionPotential
    from fkdrift.potential import KnownEnergy as KnownEnergy
    from fkdrift.potential import Potential as Potential
    from fkdrift.process import FeynmanKac as FeynmanKac
    from fkdrift.process import Overdamped as Overdamped
    from fkdrift.process import Process as Process
    from fkdrift.process import TimedProcess as TimedProcess
    from fkdrift.registry import available as available
    from fkdrift.registry import load_potential as load_potential
    from fkdrift.solver import load as load
    from fkdrift.solver import resume as resume
    from fkdrift.solver import solve as solve
    from fkdrift.stats import Estimate as Estimate
    from fkdrift.system import System as System
    from fkdrift.training import PathNaturalGradient as PathNaturalGradient
    from fkdrift.training import PathwiseAdam as PathwiseAdam

_NAMES = {
    "config": ("Settings",),
    "drift": ("Drift", "GradientDrift", "MLPDrift"),
    "estimate": ("Energies", "PathSampler", "StationarySampler"),
    "exact": ("diagonalise",),
    "fitting": ("Step", "fit"),
    "generative.feynman_kac": ("feynman_kac",),
    "generative.score_matching": ("drift_from_samples",),
    "generative.transition": ("bridge",),
    "ground_state": ("GroundState",),
    "levels": ("Spectrum",),
    "objective": ("path_kl",),
    "path": ("Path", "evolve"),
    "potential": ("FunctionPotential", "KnownEnergy", "Potential"),
    "process": ("FeynmanKac", "Overdamped", "Process", "TimedProcess"),
    "registry": ("available", "load_potential"),
    "solver": ("load", "resume", "solve"),
    "stats": ("Estimate",),
    "system": ("System",),
    "training": ("PathNaturalGradient", "PathwiseAdam"),
}
_MODULE = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_MODULE)


def __getattr__(name: str) -> object:
    if name == "generative":
        return import_module("fkdrift.generative")
    if name not in _MODULE:
        raise AttributeError(f"module 'fkdrift' has no attribute {name!r}")
    value = getattr(import_module(f"fkdrift.{_MODULE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE, "generative"])
