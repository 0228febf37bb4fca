"""The hydrogen molecule: two electrons around two clamped protons, in the singlet state."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from fkdrift.hamiltonian.potential import KnownEnergy, Potential, distance, require_positive
from fkdrift.hamiltonian.trial_function import Cusp, Envelope, LogSum, OneBody, Pair, TrialFunction
from fkdrift.hamiltonian.units import Units

LITERATURE = {1.0: -1.1245397195, 1.4: -1.17447571422, 1.401: -1.17447593012, 2.0: -1.1381329571, 2.8: -1.07068323348}


@dataclass(frozen=True)
class H2(Potential):
    """V = -sum_i (1/r_iA + 1/r_iB) + 1/r_12 + 1/R, the protons at z = -R/2 and R/2.

    The reference has the exact cusps -1 at both protons and 1/2 between the electrons:

        W = sum_i [-r_iA - r_iB + log(exp(d s_iA) + exp(d s_iB))] + r_12/2 / (1 + b r_12),
        s = sqrt(r^2 + c^2),  d = 0.88 tanh R,  c = 0.8 tanh(0.85 R),  b = 1/2 / (1 + 0.42 R),

    the numbers chosen to make E_W flat for R from 0.8 to 4; at R = 1.4 its energy is -1.167.

    Args:
        R: distance between the protons; equilibrium is near 1.401.

    Example:
        >>> H2(R=1.401).known_energy.value
        -1.17447593012
    """

    R: float = 1.401

    n_particles = 2
    n_dims = 3
    formula = "V = -sum_i (1/r_iA + 1/r_iB) + 1/r_12 + 1/R"
    units = "hartree atomic units; total energy with the repulsion of the protons"
    natural_units = Units("hartree", "bohr")
    citation = "J. S. Sims and S. A. Hagstrom, J. Chem. Phys. 124, 094101 (2006)"

    def __post_init__(self) -> None:
        require_positive(R=self.R)

    def __call__(self, r: Tensor) -> Tensor:
        r_A, r_B = (distance(r - r.new_tensor(A)) for A in self.nuclei)
        attraction = (1 / r_A + 1 / r_B).sum(-1)
        return 1 / distance(r[:, 0] - r[:, 1]) + 1 / self.R - attraction

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        return ((0, 1),)

    @property
    def nuclei(self) -> tuple[tuple[float, ...], ...]:
        return ((0.0, 0.0, -self.R / 2), (0.0, 0.0, self.R / 2))

    @property
    def coalescence(self) -> bool:
        return True

    @property
    def trial_function(self) -> TrialFunction:
        R = self.R
        cusps = (OneBody(Cusp(-1.0), A) for A in self.nuclei)
        bond = LogSum(Envelope(-0.88 * math.tanh(R), core=0.8 * math.tanh(0.85 * R)), self.nuclei)
        return TrialFunction((*cusps, bond, Pair(Cusp(0.5, 0.5 / (1 + 0.42 * R)))))

    @property
    def known_energy(self) -> KnownEnergy | None:
        if self.R in LITERATURE:
            note = "; interpolated" if self.R == 1.401 else ""
            return KnownEnergy(LITERATURE[self.R], "literature", self.citation + note)
        return None
