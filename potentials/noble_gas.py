"""Clusters of rare-gas atoms or para-hydrogen molecules, free in space."""

from __future__ import annotations

from dataclasses import dataclass

from fkdrift.hamiltonian.identical_atoms import IdenticalAtoms
from fkdrift.hamiltonian.pair_potentials import ARGON, HELIUM, NEON, PARA_HYDROGEN, PairPotential
from fkdrift.hamiltonian.potential import KnownEnergy, require, require_count, require_positive

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
class NobleGas(IdenticalAtoms):
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

    formula = "V = sum_{i<j} v(r_ij), v of two atoms"
    citation = "R. A. Aziz and M. J. Slaman, J. Chem. Phys. 94, 8047 (1991); others in hamiltonian/pair_potentials.py"

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
    def pair_potential(self) -> PairPotential:
        assert self.potential is not None
        return ELEMENTS[self.element][1][self.potential]

    @property
    def known_energy(self) -> KnownEnergy | None:
        assert self.potential is not None
        found = KNOWN.get((self.element, self.potential, self.n_particles))
        if found is None or self.hbar2_over_m != ELEMENTS[self.element][0]:
            return None
        return KnownEnergy(found[0], "computed" if found[1] == COMPUTED else "literature", found[1])
