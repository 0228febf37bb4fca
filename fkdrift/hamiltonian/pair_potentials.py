"""Pair potentials of rare-gas atoms and of para-hydrogen molecules, in kelvin, of distances in angstrom.

    HFD              V = eps [ A exp(-alpha x + beta x^2) - F(x) sum_n C_n / x^n ],  x = r / r_m,  n = 6, 8, 10,
                     F = exp(-(D / x - 1)^2) for x < D, else 1
    TTY              V = A [ D x^p exp(-2 b x) - sum_{n=3}^{12} C_2n f_2n(x) / x^2n ],  x in bohr,  p = 7 / (2 b) - 1,
                     C_2n = (C_{2n-2} / C_{2n-4})^3 C_{2n-6},  f_2n = P(2n + 1, 2 b x - p)
    Lennard-Jones    V = 4 eps [ (sigma / r)^12 - (sigma / r)^6 ]
    Silvera-Goldman  V = exp(a - b r - c r^2) - F(r) sum_n C_n / r^n,  in atomic units

References: R. A. Aziz et al., J. Chem. Phys. 70, 4330 (1979), HFDHE2, and Mol. Phys. 61, 1487 (1987), HFD-B(HE); R.
A. Aziz and M. J. Slaman, J. Chem. Phys. 94, 8047 (1991), LM2M2; R. A. Aziz et al., Mol. Phys. 77, 321 (1992), HFD-B2;
R. A. Aziz, A. R. Janzen and M. R. Moldover, Phys. Rev. Lett. 74, 1586 (1995), HFD-B3-FCI1; K. T. Tang, J. P. Toennies
and C. L. Yiu, Phys. Rev. Lett. 74, 1546 (1995), TTY; J. de Boer and A. Michels, Physica 5, 945 (1938), Lennard-Jones
helium; I. F. Silvera and V. V. Goldman, J. Chem. Phys. 69, 4209 (1978).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BOHR = 0.529177210903
"""Angstrom."""
HARTREE = 315775.02480407
"""Kelvin."""
SMALLEST = 0.05
"""Of x where powers of it are taken: what is nearer feels the same, and never happens."""


class PairPotential:
    """v(r) of two atoms."""

    @property
    def minimum(self) -> tuple[float, float]:
        """(r_m, eps): where v is lowest and how deep, from its parameters or found numerically."""
        raise NotImplementedError

    def __call__(self, r: Tensor) -> Tensor:
        """v in kelvin at distances in angstrom, of any shape."""
        raise NotImplementedError


@dataclass(frozen=True)
class HFD(PairPotential):
    """Hartree-Fock and damped dispersion.

    Args:
        eps, r_m, A, alpha, beta, C, D: as above.
        bump: (height, x1, x2) of eps height [sin(2 pi (x - x1) / (x2 - x1) - pi / 2) + 1] between x1 and x2 (LM2M2).
    """

    eps: float
    r_m: float
    A: float
    alpha: float
    beta: float
    C: tuple[float, float, float]
    D: float
    bump: tuple[float, float, float] | None = None

    @property
    def minimum(self) -> tuple[float, float]:
        return self.r_m, self.eps

    def __call__(self, r: Tensor) -> Tensor:
        x = r / self.r_m
        far = x.clamp_min(SMALLEST)
        damping = (-(self.D / far - 1).clamp_min(0).square()).exp()
        square = far.square().reciprocal()
        dispersion = square.pow(3) * (self.C[0] + square * (self.C[1] + square * self.C[2]))
        v = self.A * (-self.alpha * x + self.beta * x.square()).exp() - damping * dispersion
        if self.bump is not None:
            height, x1, x2 = self.bump
            phase = 2 * math.pi * ((x - x1) / (x2 - x1)).clamp(0, 1)
            v = v + height * (1 - phase.cos())
        return self.eps * v


@dataclass(frozen=True)
class TangToennies(PairPotential):
    """The potential of Tang, Toennies and Yiu for helium; constant within 0.35 angstrom, where it would fall."""

    A: float = 315766.2067
    b: float = 1.3443
    D: float = 7.449
    C: tuple[float, float, float] = (1.461, 14.11, 183.5)
    bohr: float = 0.52917
    shortest: float = 0.35

    @property
    def minimum(self) -> tuple[float, float]:
        return 2.9720344, 10.984412

    def __call__(self, r: Tensor) -> Tensor:
        x = r.clamp_min(self.shortest) / self.bohr
        p = 7 / (2 * self.b) - 1
        z = 2 * self.b * x - p
        C = list(self.C)
        for _ in range(7):
            C.append((C[-1] / C[-2]) ** 3 * C[-3])
        v = self.D * x.pow(p) * (-2 * self.b * x).exp()
        for n, c in enumerate(C, 3):
            v = v - c * torch.special.gammainc(z.new_tensor(2.0 * n + 1), z) / x.pow(2 * n)
        return self.A * v


@dataclass(frozen=True)
class LennardJones(PairPotential):
    """4 eps [(sigma/r)^12 - (sigma/r)^6]."""

    eps: float
    sigma: float

    @property
    def minimum(self) -> tuple[float, float]:
        return 2 ** (1 / 6) * self.sigma, self.eps

    def __call__(self, r: Tensor) -> Tensor:
        power = (self.sigma / r.clamp_min(SMALLEST * self.sigma)).pow(6)
        return 4 * self.eps * (power.square() - power)


@dataclass(frozen=True)
class SilveraGoldman(PairPotential):
    """Para-hydrogen molecules as spheres."""

    a: float = 1.713
    b: float = 1.5671
    c: float = 0.00993
    C: tuple[float, float, float, float] = (12.14, 215.2, -143.1, 4813.9)
    D: float = 8.32

    @property
    def minimum(self) -> tuple[float, float]:
        return 3.4509294, 31.763413

    def __call__(self, r: Tensor) -> Tensor:
        x = r / BOHR
        far = x.clamp_min(SMALLEST * self.D)
        damping = (-(self.D / far - 1).clamp_min(0).square()).exp()
        dispersion = sum(c / far.pow(n) for n, c in zip((6, 8, 9, 10), self.C, strict=True))
        return HARTREE * ((self.a - self.b * x - self.c * x.square()).exp() - damping * dispersion)


HELIUM: dict[str, PairPotential] = {
    "HFDHE2": HFD(10.8, 2.9673, 544850.4, 13.353384, 0.0, (1.3732412, 0.4253785, 0.1781), 1.241314),
    "HFD-B(HE)": HFD(10.948, 2.963, 184431.01, 10.43329537, -2.27965105, (1.36745214, 0.42123807, 0.17473318), 1.4826),
    "LM2M2": HFD(
        10.97,
        2.9695,
        189635.353,
        10.70203539,
        -1.90740649,
        (1.34687065, 0.41308398, 0.17060159),
        1.4088,
        (0.0026, 1.003535949, 1.454790369),
    ),
    "TTY": TangToennies(),
    "HFD-B2": HFD(10.94, 2.970, 192215.29, 10.73520708, -1.89296514, (1.34920045, 0.41365922, 0.17078164), 1.4132),
    "HFD-B3-FCI1": HFD(10.956, 2.9683, 186924.404, 10.5717543, -2.07758779, (1.35186623, 0.4149514, 0.17151143), 1.438),
    "Lennard-Jones": LennardJones(10.22, 2.556),
}
NEON: dict[str, PairPotential] = {"Lennard-Jones": LennardJones(35.6, 2.749)}
ARGON: dict[str, PairPotential] = {"Lennard-Jones": LennardJones(119.4, 3.405)}
PARA_HYDROGEN: dict[str, PairPotential] = {"Silvera-Goldman": SilveraGoldman()}


@dataclass(frozen=True)
class Truncated:
    """A pair potential that is 0 from a distance on.

    Args:
        v: the pair potential.
        cut: the distance.
    """

    v: PairPotential
    cut: float

    def __call__(self, r: Tensor) -> Tensor:
        return torch.where(r < self.cut, self.v(r), 0.0)
