"""A hydrogen-like ion: one electron around a clamped nucleus of charge Z."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fkdrift.hamiltonian.potential import KnownEnergy, Potential, distance, require_positive
from fkdrift.hamiltonian.trial_function import Cusp, OneBody, TrialFunction
from fkdrift.hamiltonian.units import Units


@dataclass(frozen=True)
class Hydrogen(Potential):
    """V = -Z/r; the reference exp(-Z r) is the ground state itself.

    Args:
        Z: nuclear charge.

    Example:
        >>> Hydrogen(Z=2.0).known_energy.value
        -2.0
    """

    Z: float = 1.0

    n_dims = 3
    formula = "V = -Z/r"
    units = "hartree atomic units"
    natural_units = Units("hartree", "bohr")
    citation = "textbook: -Z^2/2"

    def __post_init__(self) -> None:
        require_positive(Z=self.Z)

    def __call__(self, r: Tensor) -> Tensor:
        return -self.Z / distance(r[:, 0])

    @property
    def isotropic(self) -> bool:
        return True

    @property
    def nuclei(self) -> tuple[tuple[float, ...], ...]:
        return ((0.0, 0.0, 0.0),)

    @property
    def trial_function(self) -> TrialFunction:
        return TrialFunction((OneBody(Cusp(-self.Z), (0.0, 0.0, 0.0)),))

    @property
    def known_energy(self) -> KnownEnergy:
        return KnownEnergy(-0.5 * self.Z**2, "exact", "-Z^2/2")
