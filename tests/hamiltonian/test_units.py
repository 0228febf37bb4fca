"""Units of energy and length, and what is shown in them."""

from __future__ import annotations

import typing

import pytest
from scipy import constants

from fkdrift.errors import BadParameter
from fkdrift.hamiltonian.loading import available
from fkdrift.hamiltonian.units import ENERGIES, LENGTHS, Units
from fkdrift.runs.settings import ENERGY_UNITS, LENGTH_UNITS

HARTREE = Units("hartree", "bohr")


@pytest.mark.parametrize(
    ("unit", "to", "expected"),
    [
        ("energy", "eV", constants.value("Hartree energy in eV")),
        ("energy", "K", constants.value("hartree-kelvin relationship")),
        ("energy", "mK", 1e3 * constants.value("hartree-kelvin relationship")),
        ("energy", "meV", 1e3 * constants.value("hartree-electron volt relationship")),
        ("energy", "cm-1", constants.value("hartree-inverse meter relationship") / 100),
        ("energy", "kJ/mol", constants.value("Hartree energy") * constants.N_A / 1e3),
        ("energy", "kcal/mol", constants.value("Hartree energy") * constants.N_A / 4184),
    ],
)
def test_energies_are_those_of_codata(unit, to, expected):
    factor, name = HARTREE.convert(unit, Units(to, "bohr"))
    assert factor == pytest.approx(expected, rel=1e-11)
    assert name == to


@pytest.mark.parametrize(
    ("unit", "power", "name"),
    [
        ("length^2", 2, "angstrom^2"),
        ("1 / length^3", -3, "1 / angstrom^3"),
        ("1 / length", -1, "1 / angstrom"),
        ("energy / length", -1, "hartree / angstrom"),
        ("energy / omega", 0, "hartree / omega"),
        ("of the formula, lengths in the units of V", 0, "of the formula, lengths in the units of V"),
        ("", 0, ""),
    ],
)
def test_what_is_made_of_them_is_converted(unit, power, name):
    bohr = constants.value("Bohr radius") / constants.angstrom
    assert HARTREE.convert(unit, Units("hartree", "angstrom")) == (pytest.approx(bohr**power, rel=1e-12), name)
    assert Units().convert(unit, Units()) == (1.0, unit)


def test_refusals():
    assert HARTREE.changed("eV") == Units("eV", "bohr")
    assert Units("cm-1").changed("eV").convert("energy / length", Units("eV"))[1] == "eV / length"
    with pytest.raises(BadParameter, match="unknown energy unit 'ev': did you mean eV"):
        HARTREE.changed("ev")
    with pytest.raises(BadParameter, match=r"nothing can be shown in mK: .* hbar = m = 1; leave the energy unit out"):
        Units().changed("mK")
    with pytest.raises(BadParameter, match="leave the length unit out"):
        Units("cm-1").changed("eV", "bohr")


def test_the_settings_have_the_same_names():
    assert tuple(ENERGIES) == ENERGY_UNITS
    assert tuple(LENGTHS) == LENGTH_UNITS


def test_what_plug_ins_say_fits_their_description():
    words = {"K": "kelvin", "cm-1": "cm^-1", "hartree": "hartree", None: ""}
    for plug_in in available().values():
        if plug_in.distribution == "fkdrift" and isinstance(found := plug_in.potential.natural_units, Units):
            assert words[typing.cast("str", found.energy)] in plug_in.potential.units
            assert (found.energy is None) == ("hbar = m" in plug_in.potential.units)
