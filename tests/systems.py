"""Exact systems that tests use as oracles, and small drifts whose path functionals are known in closed form."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.preparation import gaussian
from fkdrift.hamiltonian.system import System
from fkdrift.hamiltonian.trial_function import Derivatives
from fkdrift.paths.process import FeynmanKac, Process
from fkdrift.wavefunction.neural import NeuralWavefunction
from fkdrift.wavefunction.protocol import Drift


class LinearDrift(Drift):
    """v = -k r with one parameter k: on V = r^2 / 2 the exact drift is k = 1."""

    def __init__(self, k: float) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.tensor(k, dtype=torch.float64))

    def forward(self, r: Tensor) -> Tensor:
        return -self.k * r


class Stretched(Drift):
    """psi = trial function times exp(-c |r|^2 / 2), a `Wavefunction` with derivatives in closed form."""

    def __init__(self, system: System, c: float) -> None:
        super().__init__()
        self.c, self.trial_function, self.numbers_per_walker = c, system.trial_function, 1
        self.variance = system.sigma.square()

    def forward(self, r: Tensor) -> Tensor:
        return self.variance * -self.c * r

    def log_jastrow(self, r: Tensor) -> Tensor:
        return -self.c / 2 * r.square().sum((-2, -1))

    def log_psi(self, r: Tensor) -> Tensor:
        return self.log_jastrow(r) + self.trial_function(r)

    def value_and_gradient(self, r: Tensor) -> tuple[Tensor, Tensor]:
        return self.log_jastrow(r), -self.c * r

    def derivatives(self, r: Tensor) -> Derivatives:
        laplacian = (-self.c * r.shape[-1] * self.variance[:, 0]).expand(r.shape[:2])
        return Derivatives(*self.value_and_gradient(r), laplacian)

    def sample(self, n: int, generator: torch.Generator) -> None:
        return None


@cache
def system_of(name: str, dtype: torch.dtype = torch.float64, **parameters: float) -> System:
    """The system of a named potential; its trial function is prepared once."""
    return System(load_potential(name, **parameters), dtype)


def oscillator(n_dims: int = 1) -> FeynmanKac:
    """Brownian motion killed at the rate r^2 / 2: E_0 = n_dims / 2."""
    return FeynmanKac(lambda r: r.square().sum((-2, -1)) / 2, torch.ones(1, 1, dtype=torch.float64))


def euler_energy(k: float, dt: float) -> float:
    """E[l_T] / T of the stationary Euler chain with v = -k x on V = x^2 / 2, where <x^2> = 1 / (k (2 - k dt))."""
    return (k**2 + 1) / (2 * k * (2 - k * dt))


def stationary(k: float, dt: float, n: int, generator: torch.Generator) -> Tensor:
    """Draws from the stationary law of that chain, (n, 1, 1) float64."""
    return torch.randn(n, 1, 1, generator=generator, dtype=torch.float64) / (k * (2 - k * dt)) ** 0.5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def gaussian_start(name: str) -> System:
    """A system whose trial function is the Gaussian of lowest energy: training has something left to do."""
    potential = load_potential(name)
    return System(potential, torch.float64, prepared=gaussian(potential))


def random_state(name: str, spread: float) -> tuple[System, Process]:
    """A potential and the process of a network with random parameters: a psi that is wrong on purpose."""
    system = system_of(name)
    drift = NeuralWavefunction(system, width=6)
    for parameter in drift.parameters():
        torch.nn.init.normal_(parameter, std=spread, generator=generator())
    return system, Process(drift, system)
