"""The quartic anharmonic oscillator, whose perturbation series in lam diverges for every lam > 0."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fkdrift.hamiltonian.potential import KnownEnergy, Potential, require

COMPUTED = {0.1: 0.5591463271835, 1.0: 0.8037706512342, 10.0: 1.5049724077799}


@dataclass(frozen=True)
class Anharmonic(Potential):
    """V = x^2/2 + lam x^4.

    Args:
        lam: strength of the quartic term, zero or more.

    Example:
        >>> Anharmonic(lam=1.0).known_energy.value
        0.8037706512342
    """

    lam: float = 1.0

    formula = "V = x^2/2 + lam x^4"
    units = "hbar = m = omega = 1"
    citation = "C. M. Bender and T. T. Wu, Phys. Rev. 184, 1231 (1969)"

    def __post_init__(self) -> None:
        require(0 <= self.lam < float("inf"), "lam", self.lam, "a finite number of at least zero")

    def __call__(self, r: Tensor) -> Tensor:
        x2 = r[:, 0, 0].square()
        return x2 * (0.5 + self.lam * x2)

    @property
    def isotropic(self) -> bool:
        return True

    @property
    def known_energy(self) -> KnownEnergy | None:
        if self.lam == 0:
            return KnownEnergy(0.5, "exact", "harmonic oscillator")
        if self.lam in COMPUTED:
            return KnownEnergy(
                COMPUTED[self.lam], "computed", "numerical diagonalisation, converged to the digits given"
            )
        return None
