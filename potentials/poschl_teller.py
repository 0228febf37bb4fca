"""The Poeschl-Teller well: bound states below a continuum that starts at zero."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fkdrift.hamiltonian.potential import KnownEnergy, Potential, require_positive


@dataclass(frozen=True)
class PoschlTeller(Potential):
    """V = -l (l + 1)/2 sech^2 x, with ground state sech^l x.

    Args:
        l: depth parameter, any number above zero; a small l means a long tail, exp(-l x).

    Example:
        >>> PoschlTeller(l=2.0).known_energy.value
        -2.0
    """

    l: float = 1.0  # noqa: E741  the name used in every textbook

    formula = "V = -l (l + 1)/2 sech^2 x"
    units = "hbar = m = 1"
    citation = "G. Poeschl and E. Teller, Z. Phys. 83, 143 (1933)"

    def __post_init__(self) -> None:
        require_positive(l=self.l)

    def __call__(self, r: Tensor) -> Tensor:
        sech2 = 1 - r[:, 0, 0].tanh().square()  # 1/cosh^2 would overflow, and its gradient be NaN, beyond |x| = 88
        return -0.5 * self.l * (self.l + 1) * sech2

    @property
    def isotropic(self) -> bool:
        return True

    @property
    def known_energy(self) -> KnownEnergy:
        return KnownEnergy(-0.5 * self.l**2, "exact", "-l^2/2")
