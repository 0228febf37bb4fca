"""The harmonic oscillator: particles that do not interact, in an isotropic trap."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fkdrift.hamiltonian.potential import KnownEnergy, Potential, require_count, require_positive


@dataclass(frozen=True)
class Harmonic(Potential):
    """V = omega^2/2 sum_i |r_i|^2.

    Args:
        omega: angular frequency of the trap.
        n_dims: dimensions of space.
        n_particles: particles, all alike.

    Example:
        >>> Harmonic(omega=2.0, n_dims=3).known_energy.value
        3.0
    """

    omega: float = 1.0
    n_dims: int = 1
    n_particles: int = 1

    formula = "V = omega^2/2 sum_i |r_i|^2"
    units = "hbar = m = 1"
    citation = "textbook: N d omega/2"

    def __post_init__(self) -> None:
        require_positive(omega=self.omega)
        require_count(n_dims=self.n_dims, n_particles=self.n_particles)

    def __call__(self, r: Tensor) -> Tensor:
        return 0.5 * self.omega**2 * r.square().sum((-2, -1))

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        return (tuple(range(self.n_particles)),)

    @property
    def isotropic(self) -> bool:
        return True

    @property
    def known_energy(self) -> KnownEnergy:
        return KnownEnergy(0.5 * self.omega * self.n_dims * self.n_particles, "exact", "N d omega/2")
