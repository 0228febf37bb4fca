"""Harmonium: two electrons in a three-dimensional harmonic trap, repelling each other (Hooke's atom)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from fkdrift.hamiltonian.potential import KnownEnergy, Potential, distance, require_positive
from fkdrift.hamiltonian.trial_function import Cusp, Gaussian, Pair, TrialFunction
from fkdrift.hamiltonian.units import Units


@dataclass(frozen=True)
class Harmonium(Potential):
    """V = omega^2 (r_1^2 + r_2^2)/2 + 1/r_12, in the singlet state.

    The reference is the trap's Gaussian times exp(r_12/2 / (1 + b r_12)), with the cusp 1/2 exact and
    b = 0.29 sqrt(omega) chosen to make E_W flat: its energy is 2.0001 at omega = 1/2.

    Args:
        omega: frequency of the trap; the closed forms are at omega = 1/2 and 1/10.

    Example:
        >>> Harmonium(omega=0.5).known_energy.value
        2.0
    """

    omega: float = 0.5

    n_particles = 2
    n_dims = 3
    formula = "V = omega^2 (r_1^2 + r_2^2)/2 + 1/r_12"
    units = "hartree atomic units"
    natural_units = Units("hartree", "bohr")
    citation = "M. Taut, Phys. Rev. A 48, 3561 (1993)"

    def __post_init__(self) -> None:
        require_positive(omega=self.omega)

    def __call__(self, r: Tensor) -> Tensor:
        return 0.5 * self.omega**2 * r.square().sum((-2, -1)) + 1 / distance(r[:, 0] - r[:, 1])

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        return ((0, 1),)

    @property
    def isotropic(self) -> bool:
        return True

    @property
    def coalescence(self) -> bool:
        return True

    @property
    def trial_function(self) -> TrialFunction:
        width = 1 / math.sqrt(2 * self.omega)
        trap = Gaussian(((0.0,) * 3,), ((width,) * 3,))
        return TrialFunction((trap, Pair(Cusp(0.5, 0.29 * math.sqrt(self.omega)))))

    @property
    def known_energy(self) -> KnownEnergy | None:
        if self.omega in (0.5, 0.1):
            return KnownEnergy({0.5: 2.0, 0.1: 0.5}[self.omega], "exact", self.citation)
        if self.omega == 0.25:
            return KnownEnergy(1.08926205628733, "computed", "radial equation, converged to the digits given")
        return None
