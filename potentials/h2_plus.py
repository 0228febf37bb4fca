"""The hydrogen molecular ion: one electron around two clamped protons."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from fkdrift.hamiltonian.potential import KnownEnergy, Potential, distance, require_positive
from fkdrift.hamiltonian.trial_function import Cusp, Envelope, LogSum, OneBody, TrialFunction
from fkdrift.hamiltonian.units import Units

COMPUTED = {2.0: -0.60263421449494646, 1.4: -0.56998352805678537}


@dataclass(frozen=True)
class H2Plus(Potential):
    """V = -1/r_A - 1/r_B + 1/R, the protons at z = -R/2 and R/2.

    The reference has the exact cusp -1 at both protons, and becomes one atom or the other far apart:

        W = -r_A - r_B + log(exp(d s_A) + exp(d s_B)),  s = sqrt(r^2 + 1/4),  d = 0.9 tanh(0.65 R),

    the numbers chosen to make E_W flat for R from 0.8 to 4; at R = 2 its energy is -0.597.

    Args:
        R: distance between the protons.

    Example:
        >>> round(H2Plus(R=2.0).known_energy.value, 6)
        -0.602634
    """

    R: float = 2.0

    n_dims = 3
    formula = "V = -1/r_A - 1/r_B + 1/R"
    units = "hartree atomic units; total energy with the repulsion of the protons"
    natural_units = Units("hartree", "bohr")
    citation = "M. M. Madsen and J. M. Peek, At. Data 2, 171 (1971)"

    def __post_init__(self) -> None:
        require_positive(R=self.R)

    def __call__(self, r: Tensor) -> Tensor:
        r_A, r_B = (distance(r[:, 0] - r.new_tensor(A)) for A in self.nuclei)
        return 1 / self.R - 1 / r_A - 1 / r_B

    @property
    def nuclei(self) -> tuple[tuple[float, ...], ...]:
        return ((0.0, 0.0, -self.R / 2), (0.0, 0.0, self.R / 2))

    @property
    def trial_function(self) -> TrialFunction:
        cusps = (OneBody(Cusp(-1.0), A) for A in self.nuclei)
        return TrialFunction((*cusps, LogSum(Envelope(-0.9 * math.tanh(0.65 * self.R), core=0.5), self.nuclei)))

    @property
    def known_energy(self) -> KnownEnergy | None:
        if self.R in COMPUTED:
            return KnownEnergy(COMPUTED[self.R], "computed", f"agrees with {self.citation}")
        return None
