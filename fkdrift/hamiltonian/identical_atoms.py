"""What clusters and liquids of identical atoms have in common."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from fkdrift.hamiltonian.pair_potentials import PairPotential, Truncated
from fkdrift.hamiltonian.potential import Potential, distance, nearest_image, pair_vectors
from fkdrift.hamiltonian.units import Units


class IdenticalAtoms(Potential):
    """V = sum_{i<j} v(r_ij) of identical bosons that nothing else holds, free in space or in a periodic box.

    Attributes:
        hbar2_over_m: hbar^2 / m in kelvin angstrom^2; with hbar = 1 the mass is its inverse.
    """

    hbar2_over_m: float | None

    n_dims = 3
    units = "kelvin, angstrom; hbar = 1, so that masses are 1 / (K A^2)"
    natural_units = Units("K", "angstrom")

    @property
    @abstractmethod
    def pair_potential(self) -> PairPotential | Truncated:
        """v, of two atoms."""

    def __call__(self, r: Tensor) -> Tensor:
        return self.pair_potential(distance(nearest_image(pair_vectors(r), self.box))).sum(-1)

    @property
    def mass(self) -> tuple[float, ...]:
        assert self.hbar2_over_m is not None
        return (1 / self.hbar2_over_m,) * self.n_particles

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        return (tuple(range(self.n_particles)),)

    @property
    def free(self) -> bool:
        return True

    @property
    def isotropic(self) -> bool:
        return self.box is None

    @property
    def coalescence(self) -> bool:
        return True
