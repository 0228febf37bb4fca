"""The hydrogen molecule: two electrons around two clamped protons, in the singlet state."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from fkdrift.hamiltonian.potential import KnownEnergy, Potential, distance, require_positive
from fkdrift.hamiltonian.trial_function import Cusp, Envelope, LogSum, OneBody, Pair, TrialFunction
from fkdrift.hamiltonian.units import Units

LITERATURE = {
    0.4: -0.12023034118, 0.5: -0.52663875874, 0.6: -0.76963542949, 0.7: -0.92202746153, 0.8: -1.02005666636,
    0.9: -1.08364323996, 1.0: -1.12453971955, 1.1: -1.15005736774, 1.2: -1.16493524344, 1.3: -1.17234714904,
    1.4: -1.17447571422, 1.401: -1.17447593012, 1.5: -1.17285507958, 1.6: -1.16858337337, 1.7: -1.16245872690,
    1.8: -1.15506873761, 1.9: -1.14685069703, 2.0: -1.13813295713, 2.1: -1.12916383610, 2.2: -1.12013211685,
    2.3: -1.11118176520, 2.4: -1.10242260601, 2.5: -1.09393812995, 2.6: -1.08579123739, 2.7: -1.07802848418,
    2.8: -1.07068323348, 2.9: -1.06377800880, 3.0: -1.05732626887, 3.1: -1.05133377226, 3.2: -1.04579966143,
    3.3: -1.04071736535, 3.4: -1.03607539519, 3.5: -1.03185808485, 3.6: -1.02804630838, 3.7: -1.02461818841,
    3.8: -1.02154979553, 3.9: -1.01881582769, 4.0: -1.01639025295, 4.2: -1.01235995968, 4.4: -1.00925651626,
    4.6: -1.00689522382, 4.8: -1.00511600610, 5.0: -1.00378565858, 5.2: -1.00279681631, 5.4: -1.00206505721,
    5.6: -1.00152525189, 5.8: -1.00112788085, 6.0: -1.00083570765,
}  # fmt: skip
"""Table VI of the citation; 1.401 interpolated."""
DIGITS = 9
"""Of R that are compared with those of the table: what a range adds up to is off by rounding."""


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
        R = round(self.R, DIGITS)
        note = "; interpolated" if R == 1.401 else ""
        return KnownEnergy(LITERATURE[R], "literature", self.citation + note) if R in LITERATURE else None
