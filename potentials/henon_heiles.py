"""The Henon-Heiles system: two oscillators coupled by a cubic term, chaotic in classical mechanics."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from fkdrift.hamiltonian.potential import KnownEnergy, Potential, require, require_finite

LAM = math.sqrt(0.0125)
METASTABLE = 0.99859477260462
CONFINED = 0.9986140702239  # lam = sqrt(0.0125), confinement = 0.02


@dataclass(frozen=True)
class HenonHeiles(Potential):
    """V = (x^2 + y^2)/2 + lam (x^2 y - y^3/3) + confinement lam^4 (x^2 + y^2)^3.

    The cubic term alone is unbounded below: the level quoted in the literature is that of the metastable
    state inside the barrier of height 1/(6 lam^2).  The last term makes it a ground state.  In units of
    lam, it keeps V >= 0 if confinement >= 1/96, and leaves no other minimum if confinement >= 9/512.
    It raises the energy by about 6 confinement lam^4, which is 1.9e-5 for the default parameters.

    Args:
        lam: strength of the cubic coupling.
        confinement: strength of the confining term, at least 1/96.

    Example:
        >>> HenonHeiles().known_energy.value
        0.9986140702239
    """

    lam: float = LAM
    confinement: float = 0.02

    n_dims = 2
    formula = "V = (x^2 + y^2)/2 + lam (x^2 y - y^3/3) + confinement lam^4 (x^2 + y^2)^3"
    units = "hbar = m = omega = 1"
    citation = "M. Henon and C. Heiles, Astron. J. 69, 73 (1964)"

    def __post_init__(self) -> None:
        require_finite(lam=self.lam, confinement=self.confinement)
        lowest = "at least 1/96 = 0.0104, or the lowest point of V lies outside the barrier"
        require(self.confinement >= 1 / 96, "confinement", self.confinement, lowest)

    def __call__(self, r: Tensor) -> Tensor:
        x, y = r[:, 0, 0], r[:, 0, 1]
        r2 = x.square() + y.square()
        return 0.5 * r2 + self.lam * y * (x.square() - y.square() / 3) + self.confinement * self.lam**4 * r2.pow(3)

    @property
    def known_energy(self) -> KnownEnergy | None:
        if self.lam == 0:
            return KnownEnergy(1.0, "exact", "harmonic oscillator")
        if (self.lam, self.confinement) == (LAM, 0.02):
            source = f"oscillator basis; the metastable state without confinement has {METASTABLE}"
            return KnownEnergy(CONFINED, "computed", source)
        return None
