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
    from fkdrift.estimators.energies import Energies as Energies
    from fkdrift.estimators.local_energy import StationarySampler as StationarySampler
    from fkdrift.estimators.path_action import PathSampler as PathSampler
    from fkdrift.exact.diagonalisation import diagonalise as diagonalise
    from fkdrift.exact.spectrum import Spectrum as Spectrum
    from fkdrift.hamiltonian.loading import available as available
    from fkdrift.hamiltonian.loading import load_potential as load_potential
    from fkdrift.hamiltonian.potential import FunctionPotential as FunctionPotential
    from fkdrift.hamiltonian.potential import KnownEnergy as KnownEnergy
    from fkdrift.hamiltonian.potential import Potential as Potential
    from fkdrift.hamiltonian.surface import Surface as Surface
    from fkdrift.hamiltonian.surface import from_ase as from_ase
    from fkdrift.hamiltonian.symbolic import from_sympy as from_sympy
    from fkdrift.hamiltonian.system import System as System
    from fkdrift.numerics.estimates import Estimate as Estimate
    from fkdrift.paths.evolution import Path as Path
    from fkdrift.paths.evolution import evolve as evolve
    from fkdrift.paths.feynman_kac import feynman_kac as feynman_kac
    from fkdrift.paths.process import FeynmanKac as FeynmanKac
    from fkdrift.paths.process import Overdamped as Overdamped
    from fkdrift.paths.process import Process as Process
    from fkdrift.paths.process import TimedProcess as TimedProcess
    from fkdrift.runs.driver import load as load
    from fkdrift.runs.driver import resume as resume
    from fkdrift.runs.ground_state import GroundState as GroundState
    from fkdrift.runs.ground_state import solve as solve
    from fkdrift.runs.methods.bridge import Bridge as Bridge
    from fkdrift.runs.methods.bridge import bridge as bridge
    from fkdrift.runs.methods.bridge_settings import BridgeSettings as BridgeSettings
    from fkdrift.runs.methods.pimc import Pimc as Pimc
    from fkdrift.runs.methods.pimc import pimc as pimc
    from fkdrift.runs.methods.pimc_settings import PimcSettings as PimcSettings
    from fkdrift.runs.scan import ParameterScan as ParameterScan
    from fkdrift.runs.scan import scan as scan
    from fkdrift.runs.scan_settings import ScanSettings as ScanSettings
    from fkdrift.runs.settings import Settings as Settings
    from fkdrift.training.energy_gradients import IndependentSamples as IndependentSamples
    from fkdrift.training.energy_gradients import MetropolisSamples as MetropolisSamples
    from fkdrift.training.energy_gradients import Pathwise as Pathwise
    from fkdrift.training.loop import Step as Step
    from fkdrift.training.loop import fit as fit
    from fkdrift.training.natural_gradient import NaturalGradient as NaturalGradient
    from fkdrift.training.objectives import path_kl as path_kl
    from fkdrift.training.pathwise import pathwise_adam as pathwise_adam
    from fkdrift.training.score_matching import drift_from_samples as drift_from_samples
    from fkdrift.wavefunction.neural import NeuralVectorField as NeuralVectorField
    from fkdrift.wavefunction.neural import NeuralWavefunction as NeuralWavefunction
    from fkdrift.wavefunction.protocol import AutogradWavefunction as AutogradWavefunction
    from fkdrift.wavefunction.protocol import Drift as Drift
    from fkdrift.wavefunction.protocol import Wavefunction as Wavefunction

_NAMES = {
    "runs.settings": ("Settings",),
    "runs.scan": ("ParameterScan", "scan"),
    "runs.scan_settings": ("ScanSettings",),
    "runs.methods.bridge": ("Bridge", "bridge"),
    "runs.methods.bridge_settings": ("BridgeSettings",),
    "runs.methods.pimc": ("Pimc", "pimc"),
    "runs.methods.pimc_settings": ("PimcSettings",),
    "wavefunction.neural": ("NeuralWavefunction", "NeuralVectorField"),
    "wavefunction.protocol": ("AutogradWavefunction", "Drift", "Wavefunction"),
    "estimators.energies": ("Energies",),
    "estimators.local_energy": ("StationarySampler",),
    "estimators.path_action": ("PathSampler",),
    "exact.diagonalisation": ("diagonalise",),
    "training.loop": ("Step", "fit"),
    "paths.feynman_kac": ("feynman_kac",),
    "training.score_matching": ("drift_from_samples",),
    "runs.ground_state": ("GroundState", "solve"),
    "exact.spectrum": ("Spectrum",),
    "training.objectives": ("path_kl",),
    "paths.evolution": ("Path", "evolve"),
    "hamiltonian.potential": ("FunctionPotential", "KnownEnergy", "Potential"),
    "paths.process": ("FeynmanKac", "Overdamped", "Process", "TimedProcess"),
    "hamiltonian.loading": ("available", "load_potential"),
    "runs.driver": ("load", "resume"),
    "numerics.estimates": ("Estimate",),
    "hamiltonian.surface": ("Surface", "from_ase"),
    "hamiltonian.symbolic": ("from_sympy",),
    "hamiltonian.system": ("System",),
    "training.energy_gradients": ("IndependentSamples", "MetropolisSamples", "Pathwise"),
    "training.natural_gradient": ("NaturalGradient",),
    "training.pathwise": ("pathwise_adam",),
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
