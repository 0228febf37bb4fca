"""fkdrift: quantum ground states by stochastic control.

    import fkdrift as fk
    state = fk.solve("helium", seed=0)
    print(state)

A neural drift steers dr = v dt + sigma dB; the path action of the trajectories is an upper bound on the ground-state
energy, and equals it when v = sigma^2 grad log phi_0.
"""

from fkdrift.drift import Drift, GradientDrift, MLPDrift
from fkdrift.estimate import Energies, energies, sample
from fkdrift.exact import diagonalise
from fkdrift.ground_state import GroundState
from fkdrift.levels import Spectrum
from fkdrift.objective import path_kl
from fkdrift.path import Path, evolve
from fkdrift.potential import FunctionPotential, KnownEnergy, Potential
from fkdrift.process import FeynmanKac, Process
from fkdrift.registry import available, load_potential
from fkdrift.solver import load, resume, solve
from fkdrift.config import Settings
from fkdrift.stats import Estimate
from fkdrift.system import System
from fkdrift.training import Step, fit

__all__ = [
    "Drift",
    "Energies",
    "Estimate",
    "FeynmanKac",
    "FunctionPotential",
    "GradientDrift",
    "GroundState",
    "KnownEnergy",
    "MLPDrift",
    "Path",
    "Potential",
    "Process",
    "Settings",
    "Spectrum",
    "Step",
    "System",
    "available",
    "diagonalise",
    "energies",
    "evolve",
    "fit",
    "load",
    "load_potential",
    "path_kl",
    "resume",
    "sample",
    "solve",
]
