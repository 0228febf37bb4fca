"""The Calogero model: particles on a line in a trap, repelling as the inverse square of their distance."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from fkdrift.hamiltonian.potential import KnownEnergy, Potential, distance, pair_vectors, require, require_count
from fkdrift.hamiltonian.trial_function import Gaussian, Logarithm, Pair, TrialFunction


@dataclass(frozen=True)
class Calogero(Potential):
    """V = sum_i x_i^2/2 + lam (lam - 1) sum_{i<j} 1/x_ij^2, whose ground state is the Jastrow product

        phi0 = prod_{i<j} |x_i - x_j|^lam exp(-sum_i x_i^2/2).

    The reference is that state, so this is a test of the machinery: E_W is the same number everywhere.

    Args:
        n_particles: particles, all alike; they never pass each other.
        lam: exponent with which the state vanishes where two particles meet, above 1.

    Example:
        >>> Calogero(n_particles=5, lam=2.0).known_energy.value
        22.5
    """

    n_particles: int = 5
    lam: float = 2.0

    formula = "V = sum_i x_i^2/2 + lam (lam - 1) sum_{i<j} 1/x_ij^2"
    units = "hbar = m = omega = 1"
    citation = "F. Calogero, J. Math. Phys. 12, 419 (1971)"

    def __post_init__(self) -> None:
        require_count(n_particles=self.n_particles)
        require(1 < self.lam < float("inf"), "lam", self.lam, "a finite number above 1")

    def __call__(self, r: Tensor) -> Tensor:
        repulsion = distance(pair_vectors(r)).pow(-2).sum(-1)
        return 0.5 * r.square().sum((-2, -1)) + self.lam * (self.lam - 1) * repulsion

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        return (tuple(range(self.n_particles)),)

    @property
    def isotropic(self) -> bool:
        return True

    @property
    def coalescence(self) -> bool:
        return self.n_particles > 1

    @property
    def trial_function(self) -> TrialFunction:
        return TrialFunction((Pair(Logarithm(self.lam)), Gaussian(((0.0,),), ((math.sqrt(0.5),),))))

    @property
    def known_energy(self) -> KnownEnergy:
        N = self.n_particles
        return KnownEnergy(0.5 * N + 0.5 * self.lam * N * (N - 1), "exact", "N/2 + lam N (N - 1)/2, Calogero 1971")
