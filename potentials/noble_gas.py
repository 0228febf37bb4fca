"""Rare-gas atoms and para-hydrogen molecules: free clusters, and the liquid in a periodic box.

Pair potentials, in kelvin, of distances in angstrom:

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

from fkdrift.hamiltonian.potential import (
    KnownEnergy,
    Potential,
    distance,
    nearest_image,
    pair_vectors,
    require,
    require_count,
    require_positive,
)
from fkdrift.hamiltonian.trial_function import Pair, Radial, TrialFunction

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

ELEMENTS: dict[str, tuple[float, dict[str, PairPotential], str]] = {
    "He": (12.12, HELIUM, "LM2M2"),
    "3He": (16.08369, HELIUM, "LM2M2"),
    "Ne": (2.4263538, NEON, "Lennard-Jones"),
    "Ar": (1.2138599, ARGON, "Lennard-Jones"),
    "H2": (24.06330, PARA_HYDROGEN, "Silvera-Goldman"),
}
"""hbar^2 / m in kelvin angstrom^2 (of 4He as in the literature on its clusters), pair potentials, the default one."""

COMPUTED = "two- and three-body problem at J = 0 to all digits given"
DMC = "diffusion Monte Carlo, D. Blume and C. H. Greene, J. Chem. Phys. 112, 8053 (2000)"
KNOWN: dict[tuple[str, str, int], tuple[float, str]] = {
    ("He", "HFDHE2", 2): (-0.830125e-3, COMPUTED),
    ("He", "HFD-B(HE)", 2): (-1.685411e-3, COMPUTED),
    ("He", "HFD-B2", 2): (-1.648853e-3, COMPUTED),
    ("He", "LM2M2", 2): (-1.303481e-3, COMPUTED),
    ("He", "TTY", 2): (-1.309619e-3, COMPUTED),
    ("He", "HFDHE2", 3): (-0.117122, COMPUTED),
    ("He", "HFD-B(HE)", 3): (-0.132986, COMPUTED),
    ("He", "LM2M2", 3): (-0.126407, COMPUTED),
    ("He", "LM2M2", 4): (-0.55898, "E. Hiyama and M. Kamimura, Phys. Rev. A 85, 022502 (2012)"),
    **{
        ("He", "LM2M2", n): (-E, DMC)
        for n, E in zip(range(5, 11), (1.2963, 2.3092, 3.5653, 5.0199, 6.6774, 8.4945), strict=True)
    },
    ("Ne", "Lennard-Jones", 2): (-20.117154, COMPUTED),
    ("Ne", "Lennard-Jones", 3): (-61.0381, COMPUTED),
    ("Ar", "Lennard-Jones", 3): (-304.876846, COMPUTED),
    ("H2", "Silvera-Goldman", 2): (-3.710571, COMPUTED),
}


@dataclass(frozen=True)
class NobleGas(Potential):
    """V = sum_{i<j} v(r_ij) of n_particles bosons, free in space.

    Args:
        element: He (the isotope 4), 3He (two atoms only: more of them are fermions in space too), Ne (20), Ar (40), or
            H2 (para-hydrogen molecules).
        n_particles: atoms, 2 or more.
        potential: of two atoms: for helium HFDHE2, HFD-B(HE), LM2M2, TTY, HFD-B2, HFD-B3-FCI1 or Lennard-Jones; by
            default LM2M2 for helium, Silvera-Goldman for hydrogen and Lennard-Jones for others.
        hbar2_over_m: hbar^2 / m in kelvin angstrom^2; by default 12.12 for 4He, as in the literature on its clusters
            (the mass of the atom gives 12.1193), 16.0837 for 3He, 2.42635 for 20Ne, 1.21386 for 40Ar, 24.0633 for H2.

    Example:
        >>> NobleGas("Ne", 3).known_energy.value
        -61.0381
    """

    element: str = "He"
    n_particles: int = 3
    potential: str | None = None
    hbar2_over_m: float | None = None

    n_dims = 3
    formula = "V = sum_{i<j} v(r_ij), v of two atoms"
    units = "kelvin, angstrom; hbar = 1, so that masses are 1 / (K A^2)"
    citation = "R. A. Aziz and M. J. Slaman, J. Chem. Phys. 94, 8047 (1991), and others: fkdrift_potentials.noble_gas"

    def __post_init__(self) -> None:
        require(self.element in ELEMENTS, "element", self.element, f"one of {', '.join(ELEMENTS)}")
        require_count(n_particles=self.n_particles)
        most = 2 if self.element == "3He" else 10_000
        words = "2: three and more atoms of 3He are fermions in space" if most == 2 else "2 or more"
        require(2 <= self.n_particles <= most, "n_particles", self.n_particles, words)
        choice = ELEMENTS[self.element][1]
        if self.potential is None:
            object.__setattr__(self, "potential", ELEMENTS[self.element][2])
        require(self.potential in choice, "potential", self.potential, f"one of {', '.join(choice)} for {self.element}")
        if self.hbar2_over_m is None:
            object.__setattr__(self, "hbar2_over_m", ELEMENTS[self.element][0])
        assert self.hbar2_over_m is not None
        require_positive(hbar2_over_m=self.hbar2_over_m)

    @property
    def name(self) -> str:
        return "noble_gas"

    @property
    def pair_potential(self) -> PairPotential:
        assert self.potential is not None
        return ELEMENTS[self.element][1][self.potential]

    def __call__(self, r: Tensor) -> Tensor:
        return self.pair_potential(distance(pair_vectors(r))).sum(-1)

    @property
    def mass(self) -> tuple[float, ...]:
        assert self.hbar2_over_m is not None
        return (1 / self.hbar2_over_m,) * self.n_particles

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        return (tuple(range(self.n_particles)),)

    @property
    def free(self) -> bool:
        return True

    @property
    def isotropic(self) -> bool:
        return True

    @property
    def coalescence(self) -> bool:
        return True

    @property
    def known_energy(self) -> KnownEnergy | None:
        assert self.potential is not None
        found = KNOWN.get((self.element, self.potential, self.n_particles))
        if found is None or self.hbar2_over_m != ELEMENTS[self.element][0]:
            return None
        return KnownEnergy(found[0], "computed" if found[1] == COMPUTED else "literature", found[1])


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
class HeliumLiquid(Potential):
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

    n_dims = 3
    formula = "V = sum_{i<j} v(r_ij) in a periodic cube"
    units = "kelvin, angstrom; hbar = 1, so that masses are 1 / (K A^2)"
    citation = "R. A. Aziz et al., J. Chem. Phys. 70, 4330 (1979), and others: fkdrift_potentials.noble_gas"

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
    def name(self) -> str:
        return "helium_liquid"

    @property
    def box(self) -> tuple[float, ...]:
        return ((self.n_particles / self.density) ** (1 / 3),) * 3

    @property
    def pair_potential(self) -> Truncated:
        return Truncated(HELIUM[self.potential], self.box[0] / 2)

    def __call__(self, r: Tensor) -> Tensor:
        return self.pair_potential(distance(nearest_image(pair_vectors(r), self.box))).sum(-1)

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
    def mass(self) -> tuple[float, ...]:
        return (1 / self.hbar2_over_m,) * self.n_particles

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        return (tuple(range(self.n_particles)),)

    @property
    def free(self) -> bool:
        return True

    @property
    def coalescence(self) -> bool:
        return True

    @property
    def trial_function(self) -> TrialFunction | None:
        if self.mcmillan is None:
            return None
        return TrialFunction((Pair(McMillan(self.mcmillan, self.box[0]), self.box),))
