"""Liquid helium in a periodic box."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fkdrift.hamiltonian.identical_atoms import IdenticalAtoms
from fkdrift.hamiltonian.pair_potentials import HELIUM, Truncated
from fkdrift.hamiltonian.potential import require, require_count, require_positive
from fkdrift.hamiltonian.trial_function import Pair, Radial, TrialFunction


@dataclass(frozen=True)
class McMillan(Radial):
    """w = -u(d) - u(L - d) + 2 u(L / 2), u = (b / d)^5 / 2: smooth where it ends, at half a period.

    Reference: W. L. McMillan, Phys. Rev. 138, A442 (1965).
    """

    b: float
    period: float

    def __call__(self, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        half = self.period / 2
        x = d.clamp_max(half)
        y = self.period - x
        u, v = (0.5 * (self.b / each).pow(5) for each in (x, y))
        inside = d < half
        slope = torch.where(inside, 5 * u / x - 5 * v / y, 0.0)
        curvature = torch.where(inside, -30 * u / x.square() - 30 * v / y.square(), 0.0)
        return (self.b / half) ** 5 - u - v, slope, curvature


@dataclass(frozen=True)
class HeliumLiquid(IdenticalAtoms):
    """V = sum_{i<j} v(r_ij) of 4He in a periodic cube, distances to the nearest image, v cut at half a period.

    What the cut leaves out, if the liquid is uniform beyond it, is `tail_correction`:

        E_tail = N 2 pi rho int_{L/2}^inf v r^2 dr,      P_tail = -(2 pi / 3) rho^2 int_{L/2}^inf v' r^3 dr

    Args:
        n_particles: atoms, 8 or more.
        density: rho, atoms for each cubic angstrom; by default that of the liquid at zero pressure.
        potential: of two atoms, as for `NobleGas`.
        mcmillan: b in angstrom of McMillan's trial function exp(-sum (b / r)^5 / 2), which is then used in place of the
            solution of the two-body problem; 3.07 is the best for the liquid.
        hbar2_over_m: hbar^2 / m in kelvin angstrom^2.

    Example:
        >>> liquid = HeliumLiquid(64)
        >>> round(liquid.box[0], 3), round(liquid.tail_correction[0] / 64, 3)
        (14.306, -1.309)
    """

    n_particles: int = 64
    density: float = 0.02186
    potential: str = "HFDHE2"
    mcmillan: float | None = None
    hbar2_over_m: float = 12.1193

    formula = "V = sum_{i<j} v(r_ij) in a periodic cube"
    citation = "R. A. Aziz et al., J. Chem. Phys. 70, 4330 (1979), and others: fkdrift.hamiltonian.pair_potentials"

    def __post_init__(self) -> None:
        require_count(n_particles=self.n_particles)
        require(self.n_particles >= 8, "n_particles", self.n_particles, "8 or more")
        require_positive(density=self.density, hbar2_over_m=self.hbar2_over_m)
        require(self.potential in HELIUM, "potential", self.potential, f"one of {', '.join(HELIUM)}")
        if self.mcmillan is not None:
            require_positive(mcmillan=self.mcmillan)
        shortest = 2 * HELIUM[self.potential].minimum[0]
        require(
            self.box[0] > shortest, "density", self.density, f"so low that a period is above {shortest:.3g} angstrom"
        )

    @property
    def box(self) -> tuple[float, ...]:
        return ((self.n_particles / self.density) ** (1 / 3),) * 3

    @property
    def pair_potential(self) -> Truncated:
        return Truncated(HELIUM[self.potential], self.box[0] / 2)

    @property
    def tail_correction(self) -> tuple[float, float]:
        v, cut = HELIUM[self.potential], self.box[0] / 2
        x = torch.linspace(0, 1, 4001, dtype=torch.float64)[1:]  # cut / r
        r = cut / x
        u = v(r) * cut**3 / x.pow(4)  # v r^2 dr = u dx
        integral = float(torch.trapezoid(torch.cat([u[:1] * 0, u]), torch.cat([x[:1] * 0, x])))
        edge = float(v(r[-1:])) * cut**3
        virial = -edge - 3 * integral  # of v' r^3
        rho = self.density
        return 2 * math.pi * rho * self.n_particles * integral, -2 * math.pi / 3 * rho**2 * virial

    @property
    def trial_function(self) -> TrialFunction | None:
        if self.mcmillan is None:
            return None
        return TrialFunction((Pair(McMillan(self.mcmillan, self.box[0]), self.box),))
