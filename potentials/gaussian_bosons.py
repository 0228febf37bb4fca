"""Trapped bosons that repel through a Gaussian: a smooth stand-in for a contact interaction."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from fkdrift.hamiltonian.potential import KnownEnergy, Potential, pair_vectors, require, require_count, require_positive
from fkdrift.hamiltonian.trial_function import Gaussian, Hole, Pair, TrialFunction

TWO_DIMENSIONS = {  # s = 0.5: (n_particles, g): E0
    (2, 3.0): 2.31198252,
    (2, 6.0): 2.48396643,
    (2, 15.0): 2.71532122,
    (3, 3.0): 3.8835978,
    (3, 6.0): 4.3429169,
    (3, 15.0): 4.9454492,
    (4, 3.0): 5.681667,
    (4, 6.0): 6.522425,
    (4, 15.0): 7.627215,
}


@dataclass(frozen=True)
class GaussianBosons(Potential):
    """V = sum_i |r_i|^2/2 + g/(pi s^2)^(d/2) sum_{i<j} exp(-|r_i - r_j|^2/s^2).

    For a range s of up to 1, the reference is a trap state, a little wider, with a hole around each boson,

        W = -omega/2 sum_i |r_i|^2 - sum_{i<j} depth / (1 + r_ij^2/radius^2),

    the numbers chosen to make E_W flat in two dimensions: at N = 4, g = 15, s = 0.5 its energy is 7.66 and the
    spread of E_W 0.43.  Beyond, where a boson feels the average of the others, it is the best product of Gaussians
    (Hartree).

    Args:
        n_particles: bosons.
        g: strength, the integral of the repulsion over space; zero or more.
        s: range of the repulsion.
        n_dims: dimensions of space d.

    Example:
        >>> GaussianBosons(n_particles=4, g=15.0).known_energy.value
        7.627215
    """

    n_particles: int = 4
    g: float = 15.0
    s: float = 0.5
    n_dims: int = 2

    formula = "V = sum_i |r_i|^2/2 + g/(pi s^2)^(d/2) sum_{i<j} exp(-|r_i - r_j|^2/s^2)"
    units = "hbar = m = omega = 1"
    citation = "P. Mujal et al., Phys. Rev. A 96, 043614 (2017)"

    def __post_init__(self) -> None:
        require_count(n_particles=self.n_particles, n_dims=self.n_dims)
        require_positive(s=self.s)
        require(0 <= self.g < float("inf"), "g", self.g, "a finite number of at least zero")

    def __call__(self, r: Tensor) -> Tensor:
        overlap = (-pair_vectors(r).square().sum(-1) / self.s**2).exp().sum(-1)
        return 0.5 * r.square().sum((-2, -1)) + self.g / (math.pi * self.s**2) ** (self.n_dims / 2) * overlap

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        return (tuple(range(self.n_particles)),)

    @property
    def isotropic(self) -> bool:
        return True

    @property
    def trial_function(self) -> TrialFunction:
        if self.s > 1:
            return TrialFunction((self._trap(min((0.97**k for k in range(100)), key=self._hartree_energy)),))
        x = self.g / (math.pi * self.s**2) ** (self.n_dims / 2) * self.s**2  # height of the repulsion / (1/s^2)
        omega = 1 / (1 + 0.15 * (self.n_particles - 1) ** 0.65 * x / (3 + x))
        hole = Hole(depth=0.85 * x / math.sqrt(1 + 0.42 * x), radius=1.95 * self.s * (1 + x) ** -0.15)
        return TrialFunction((self._trap(omega), Pair(hole)))

    def _trap(self, omega: float) -> Gaussian:
        """-omega/2 sum_i |r_i|^2."""
        return Gaussian(((0.0,) * self.n_dims,), ((1 / math.sqrt(2 * omega),) * self.n_dims,))

    def _hartree_energy(self, omega: float) -> float:
        """Energy per particle of the product of Gaussians exp(-omega r_i^2/2)."""
        d = self.n_dims
        repulsion = self.g * (math.pi * (self.s**2 + 2 / omega)) ** (-d / 2)
        return 0.25 * d * (omega + 1 / omega) + 0.5 * (self.n_particles - 1) * repulsion

    @property
    def known_energy(self) -> KnownEnergy | None:
        if self.g == 0 or self.n_particles == 1:
            return KnownEnergy(0.5 * self.n_dims * self.n_particles, "exact", "harmonic oscillator")
        if (self.n_dims, self.s) != (2, 0.5) or (self.n_particles, self.g) not in TWO_DIMENSIONS:
            return None
        E0 = TWO_DIMENSIONS[self.n_particles, self.g]
        if self.n_particles == 2:
            return KnownEnergy(E0, "computed", "radial diagonalisation, converged to 1e-8")
        accuracy = "3e-6" if self.n_particles == 3 else "1e-5"
        return KnownEnergy(E0, "variational", f"correlated Gaussians, converged to {accuracy}")
