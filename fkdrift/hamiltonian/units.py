"""Units and masses: from what is written at the door to the natural units of a potential, hbar = 1.

    mass in natural units = (mass in u) / (hbar^2 / u),      hbar^2 / u in (energy unit) (length unit)^2

Constants are CODATA's, from scipy.  Masses are those of neutral atoms of the most abundant isotope (AME 2020), or of
the isotope named, such as D, T, 3He or 13C; nuclear masses are less by Z electrons.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from scipy import constants

from fkdrift.errors import BadParameter, did_you_mean

ENERGIES = {
    "K": constants.k,
    "mK": constants.k * 1e-3,
    "cm-1": constants.h * constants.c * 100,
    "meV": constants.e * 1e-3,
    "eV": constants.e,
    "hartree": constants.value("Hartree energy"),
    "kcal/mol": constants.calorie * 1e3 / constants.N_A,
    "kJ/mol": 1e3 / constants.N_A,
}
"""Joules."""
LENGTHS = {"angstrom": constants.angstrom, "bohr": constants.value("Bohr radius")}
"""Metres."""
ELECTRON = constants.m_e / constants.atomic_mass

_MASSES = {
    "H": (1, 1.00782503190), "D": (1, 2.01410177784), "T": (1, 3.01604928132), "3He": (2, 3.01602932197),
    "He": (2, 4.00260325413), "6Li": (3, 6.01512288742), "Li": (3, 7.01600343426), "Be": (4, 9.01218306),
    "B": (5, 11.00930517), "C": (6, 12.0), "13C": (6, 13.00335483534), "N": (7, 14.00307400425),
    "15N": (7, 15.00010889827), "O": (8, 15.99491461926), "18O": (8, 17.99915961214), "F": (9, 18.99840316207),
    "Ne": (10, 19.99244017525), "Na": (11, 22.98976928195), "Mg": (12, 23.98504169), "Al": (13, 26.98153841),
    "Si": (14, 27.97692653442), "P": (15, 30.97376199768), "S": (16, 31.97207117354), "Cl": (17, 34.96885269),
    "37Cl": (17, 36.96590257), "Ar": (18, 39.96238312204), "K": (19, 38.96370648482), "Ca": (20, 39.962590850),
    "Ti": (22, 47.94794093), "Cr": (24, 51.94050471), "Fe": (26, 55.93493554), "Ni": (28, 57.93534165),
    "Cu": (29, 62.92959712), "Zn": (30, 63.92914178), "Br": (35, 78.91833764), "Kr": (36, 83.91149773),
    "Pd": (46, 105.9034803), "Ag": (47, 106.9050915), "I": (53, 126.9044719), "Xe": (54, 131.90415508),
    "Pt": (78, 194.9647917), "Au": (79, 196.96657011),
}  # fmt: skip


class Units(NamedTuple):
    """Units of energy and of length; None where it is not known which, as with hbar = m = 1.

    Args:
        energy: one of `ENERGIES`.
        length: one of `LENGTHS`.
    """

    energy: str | None = None
    length: str | None = None

    def changed(self, energy: str | None = None, length: str | None = None) -> Units:
        """These, with others in the place of those that are given.

        Raises:
            BadParameter: a unit is not known, or there is none to convert from.
        """
        for own, asked, table, what in (
            (self.energy, energy, ENERGIES, "energy unit"),
            (self.length, length, LENGTHS, "length unit"),
        ):
            if asked is not None and known(asked, table, what) and own is None:
                raise BadParameter(
                    f"nothing can be shown in {asked}: what the numbers are in is not known, as with hbar = m = 1; "
                    f"leave the {what} out"
                )
        return Units(energy or self.energy, length or self.length)

    def convert(self, unit: str, to: Units) -> tuple[float, str]:
        """What numbers in a unit that is made of the words "energy" and "length" are multiplied by, and their new unit.

        Words without a unit, and any others, stay.

        Example:
            >>> Units("K", "angstrom").convert("energy / length^3", Units("mK", "angstrom"))[1]
            'mK / angstrom^3'
        """
        factor, names = 1.0, []
        for part, power in zip(parts := unit.split(" / "), [1] + [-1] * (len(parts) - 1), strict=True):
            word, _, exponent = part.partition("^")
            table = {"energy": ENERGIES, "length": LENGTHS}.get(word)
            own, other = (getattr(self, word), getattr(to, word)) if table else (None, None)
            if table and own and other:
                factor *= (table[own] / table[other]) ** (power * int(exponent or 1))
                part = other + part.removeprefix(word)
            names.append(part)
        return factor, " / ".join(names)

    def plain(self, shown: Units) -> dict[str, Any]:
        """`result["units"]`: these are the natural ones, which all numbers there are in; `shown` are for people."""
        return {"natural": self._asdict(), "shown": shown._asdict()}


def hbar2_over_u(energy: str, length: str) -> float:
    """hbar^2 / u in an energy unit times the square of a length unit.

    Example:
        >>> round(hbar2_over_u("cm-1", "angstrom"), 6)
        33.715258
    """
    E, L = known(energy, ENERGIES, "energy unit"), known(length, LENGTHS, "length unit")
    return float(constants.hbar**2 / constants.atomic_mass / (ENERGIES[E] * LENGTHS[L] ** 2))


def atomic_masses(symbols: Sequence[str], kind: Literal["atomic", "nuclear"] = "atomic") -> tuple[float, ...]:
    """Masses in u.

    Args:
        symbols: of the elements, or isotopes such as D and 13C.
        kind: with the electrons or without.

    Raises:
        BadParameter: an element is not known.

    Example:
        >>> atomic_masses(["O", "H"])[1]
        1.0078250319
    """
    if kind not in ("atomic", "nuclear"):
        raise BadParameter(f"masses = {kind!r} is not allowed: masses must be 'atomic' or 'nuclear'")
    found = [_MASSES[known(symbol, _MASSES, "element")] for symbol in symbols]
    return tuple(mass - (Z * ELECTRON if kind == "nuclear" else 0.0) for Z, mass in found)


def known(name: str, table: dict, what: str) -> str:
    """The name, if the table has it.

    Raises:
        BadParameter: it has not.
    """
    if name in table:
        return name
    hint = did_you_mean(name, table, cutoff=0.5)
    raise BadParameter(f"unknown {what} {name!r}: {hint}Known are {', '.join(table)}")
