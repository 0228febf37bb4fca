"""The Morse oscillator: a model of the stretching of a diatomic molecule, with a finite depth."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from fkdrift.hamiltonian.potential import KnownEnergy, Potential, require, require_positive


@dataclass(frozen=True)
class Morse(Potential):
    """V = D (1 - exp(-a x))^2, bound below the dissociation energy D if D > a^2/8.

    Args:
        D: depth of the well.
        a: inverse width of the well.

    Example:
        >>> round(Morse(D=10.0, a=1.0).known_energy.value, 6)
        2.111068
    """

    D: float = 10.0
    a: float = 1.0

    formula = "V = D (1 - exp(-a x))^2"
    units = "hbar = m = 1"
    citation = "P. M. Morse, Phys. Rev. 34, 57 (1929)"

    def __post_init__(self) -> None:
        require_positive(D=self.D, a=self.a)
        require(self.a**2 / 8 < self.D, "D", self.D, f"above a^2/8 = {self.a**2 / 8:g}, or there is no bound state")

    def __call__(self, r: Tensor) -> Tensor:
        return self.D * (-self.a * r[:, 0, 0]).expm1().square()

    @property
    def known_energy(self) -> KnownEnergy:
        return KnownEnergy(self.a * math.sqrt(self.D / 2) - self.a**2 / 8, "exact", "a sqrt(D/2) - a^2/8")
