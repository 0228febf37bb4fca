"""Trapped bosons joined by springs: an interacting many-body system with a closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from fkdrift.hamiltonian.potential import KnownEnergy, Potential, require, require_count, require_finite
from fkdrift.hamiltonian.trial_function import Gaussian, TrialFunction


@dataclass(frozen=True)
class HarmonicBosons(Potential):
    """V = sum_i |r_i|^2/2 + (k/2) sum_{i<j} |r_i - r_j|^2.

    The centre of mass oscillates with frequency 1, the other modes with sqrt(1 + N k).  The reference is
    the best product of Gaussians (Hartree): each particle feels the frequency sqrt(1 + (N - 1) k).

    Args:
        n_particles: bosons.
        n_dims: dimensions of space.
        k: spring constant; below zero the bosons repel, and stay trapped if 1 + N k > 0.

    Example:
        >>> round(HarmonicBosons(n_particles=20, n_dims=3, k=0.05).known_energy.value, 6)
        41.805087
    """

    n_particles: int = 20
    n_dims: int = 3
    k: float = 0.05

    formula = "V = sum_i |r_i|^2/2 + (k/2) sum_{i<j} |r_i - r_j|^2"
    units = "hbar = m = omega = 1"
    citation = "L. Cohen and C. Lee, J. Math. Phys. 26, 3105 (1985)"

    def __post_init__(self) -> None:
        require_count(n_particles=self.n_particles, n_dims=self.n_dims)
        require_finite(k=self.k)
        bound = 1 + self.n_particles * self.k > 0
        require(
            bound,
            "k",
            self.k,
            f"above -1/n_particles = {-1 / self.n_particles:g}, or the springs push the bosons apart",
        )

    def __call__(self, r: Tensor) -> Tensor:
        trap = r.square().sum((-2, -1))
        springs = self.n_particles * trap - r.sum(-2).square().sum(-1)  # = sum_{i<j} |r_i - r_j|^2
        return 0.5 * (trap + self.k * springs)

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        return (tuple(range(self.n_particles)),)

    @property
    def isotropic(self) -> bool:
        return True

    @property
    def trial_function(self) -> TrialFunction:
        omega = math.sqrt(1 + (self.n_particles - 1) * self.k)
        width = 1 / math.sqrt(2 * omega)
        return TrialFunction((Gaussian(((0.0,) * self.n_dims,), ((width,) * self.n_dims,)),))

    @property
    def known_energy(self) -> KnownEnergy:
        N, d = self.n_particles, self.n_dims
        E0 = 0.5 * d * (1 + (N - 1) * math.sqrt(1 + N * self.k))
        return KnownEnergy(E0, "exact", "d/2 (1 + (N - 1) sqrt(1 + N k)), normal modes")
