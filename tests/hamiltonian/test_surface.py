"""Potential energy surfaces that somebody else computes, and units."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

import fkdrift as fk
from fkdrift.errors import BadParameter, ComputationError, NoGradient
from fkdrift.hamiltonian.loading import describe, load_potential
from fkdrift.hamiltonian.surface import Surface, from_ase
from fkdrift.hamiltonian.units import ELECTRON, atomic_masses, hbar2_over_u
from fkdrift.runs.belonging import code_digests
from fkdrift.runs.ground_state import GroundState

BOLTZMANN = 8.617333262e-5  # eV / K
ARGON = ((0.0, 0.0, 0.0), (3.8, 0.0, 0.0), (1.9, 3.3, 0.0))


def chain(x: np.ndarray) -> np.ndarray:
    """Two springs."""
    return ((x[:, 0] - x[:, 1]) ** 2 + (x[:, 2] - x[:, 1]) ** 2).sum(1)


def fragile(x: np.ndarray) -> np.ndarray:
    """Raises far out, and has no value near."""
    if (x[:, 0, 0] > 3).any():
        raise ValueError("did not converge")
    return np.where(x[:, 0, 0] < -3, np.nan, chain(x))


def positions(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_values_masses_and_units():
    surface = Surface(chain, ("O", "H", "D"))
    r = positions(5)
    torch.testing.assert_close(surface(r), torch.from_numpy(chain(r.numpy())))
    assert surface.mass[1] == pytest.approx(1.0078250319 / 33.7152583617, rel=1e-8)
    assert surface.units == "hbar = 1, energies in cm-1, lengths in angstrom, atomic masses"
    assert hbar2_over_u("K", "angstrom") / 4.002603254 == pytest.approx(12.119296, abs=1e-6)
    assert hbar2_over_u("hartree", "bohr") == pytest.approx(ELECTRON, rel=1e-8)
    assert atomic_masses(["O"], "nuclear")[0] == pytest.approx(15.99491462 - 8 * 5.48579909e-4, abs=1e-7)


def test_one_in_a_file_can_be_loaded_again(tmp_path):
    text = "import fkdrift as fk\ndef springs(x):\n    return ((x[:, 1:] - x[:, :1]) ** 2).sum((1, 2))\n"
    file = tmp_path / "springs.py"
    file.write_text(text + "surface = fk.Surface(springs, ('O', 'H', 'H'))\n")
    surface = load_potential(f"{file}:surface")
    description = describe(surface)
    assert description["reloadable"]
    assert description["name"] == f"{file}:surface"
    assert describe(load_potential(description["name"], **description["parameters"])) == description
    assert describe(load_potential(f"{file}:surface", energy_unit="eV"))["parameters"]["energy_unit"] == "eV"
    assert code_digests({"potential": surface.source}).keys() == {surface.source}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"symbols": ("O", "H", "Hx")}, "unknown element 'Hx': did you mean H"),
        ({"energy_unit": "cm1"}, "unknown energy unit 'cm1': did you mean cm-1"),
        ({"start": ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0))}, "two atoms at one place"),
        ({"function": lambda x: x[:, 0]}, "returned shape"),
        ({"function": lambda x: chain(x), "workers": 1}, "worker processes"),
        ({"function": lambda x: 1 / 0, "start": ARGON}, "ZeroDivisionError"),
    ],
)
def test_bad_input_is_refused_in_one_line(change, said):
    with pytest.raises(BadParameter, match=said) as caught:
        Surface(**{"function": chain, "symbols": ("O", "H", "H"), **change})
    assert "\n" not in str(caught.value)


def test_geometries_without_an_energy_are_repaired_and_counted():
    r = positions(600)
    r[0, 0, 0], r[1, 0, 0] = 3.5, -3.5
    surface = Surface(fragile, ("O", "H", "H"))
    before = surface.failures
    V = surface(r)
    bad = (r[:, 0, 0].abs() > 3).numpy()
    assert surface.failures - before == bad.sum() >= 2
    assert V.isfinite().all()
    torch.testing.assert_close(V[~bad], torch.from_numpy(chain(r[~bad].numpy())))
    with pytest.raises(ComputationError, match="did not converge"):
        surface(r + 4)


def test_a_memo_computes_nothing_twice_and_survives_a_cut(tmp_path):
    path, r = tmp_path / "energies", positions(300)
    first = Surface(chain, ("O", "H", "H"), memo=str(path))
    V = first(r)
    assert first.evaluations == 300
    path.write_bytes(path.read_bytes()[:-5])
    second = Surface(chain, ("O", "H", "H"), memo=str(path))
    torch.testing.assert_close(second(r), V, rtol=0, atol=0)
    assert second.evaluations == 1


def test_worker_processes_give_the_same():
    r = positions(20)
    torch.testing.assert_close(
        Surface(chain, ("O", "H", "H"), workers=1)(r), Surface(chain, ("O", "H", "H"))(r), rtol=0, atol=0
    )


def test_a_gradient_is_refused():
    with pytest.raises(NoGradient, match="values only"):
        Surface(chain, ("O", "H", "H"))(positions(2).requires_grad_())


class Argon:
    """What `from_ase` asks of an ASE Atoms, with Lennard-Jones energies in eV as those of its calculator."""

    def __init__(self, positions: object) -> None:
        self.positions = np.array(positions, dtype=float)

    def copy(self) -> Argon:
        return Argon(self.positions)

    def get_chemical_symbols(self) -> list[str]:
        return ["Ar"] * len(self.positions)

    def get_positions(self) -> np.ndarray:
        return self.positions

    def set_positions(self, positions: np.ndarray) -> None:
        self.positions = positions

    def get_potential_energy(self) -> float:
        d = [math.dist(a, b) for a, b in combinations(self.positions.tolist(), 2)]
        return sum(4 * 119.4 * BOLTZMANN * ((3.405 / each) ** 12 - (3.405 / each) ** 6) for each in d)


@pytest.mark.slow
def test_a_calculator_and_the_formula_agree():
    """Three argon atoms, -304.876846 K by the formula; the calculator gives energies of geometries, one by one."""
    quick = fk.Settings(n_walkers=128, n_updates=4, n_blocks=20, project=False, path_step=1 / 2, n_path_blocks=1)
    run = GroundState(from_ase(object(), Argon(ARGON)), quick)
    for _ in run.advance():  # without an exact solution, which asks for hundred thousands of energies
        pass
    E = run.energy
    assert E.error / BOLTZMANN < 0.1
    assert abs(E.mean / BOLTZMANN + 304.876846) < 2 * E.error / BOLTZMANN


class TestAse:
    ase = pytest.importorskip("ase")

    def test_agrees_with_the_formula(self):
        from ase.calculators.lj import LennardJones

        atoms = self.ase.Atoms("Ar3", ARGON)
        surface = from_ase(LennardJones(sigma=3.405, epsilon=0.0103, rc=1e5, ro=0.9e5), atoms)
        r = torch.tensor([ARGON], dtype=torch.float64) * torch.linspace(0.9, 1.5, 5)[:, None, None]
        d = torch.stack([(r[:, i] - r[:, j]).norm(dim=-1) for i, j in ((0, 1), (0, 2), (1, 2))])
        expected = (4 * 0.0103 * ((3.405 / d) ** 12 - (3.405 / d) ** 6)).sum(0)
        torch.testing.assert_close(surface(r), expected, rtol=1e-9, atol=1e-12)

    def test_by_name(self, tmp_path):
        from ase.io import write

        write(tmp_path / "argon.xyz", self.ase.Atoms("Ar3", ARGON))
        given = {"atoms": str(tmp_path / "argon.xyz"), "sigma": 3.405, "epsilon": 0.0103}
        potential = load_potential("ase:ase.calculators.lj:LennardJones", **given)
        again = describe(potential)
        assert again == {"name": "ase:ase.calculators.lj:LennardJones", "parameters": given, "reloadable": True}
        assert load_potential(again["name"], **again["parameters"]).mass == potential.mass
        assert code_digests({"potential": again["name"]}) == {}  # no file of that name is looked for
        with pytest.raises(BadParameter, match="there is no ase:"):
            load_potential("ase:ase.calculators.lj:Lennard", **given)
        with pytest.raises(BadParameter, match="which atoms"):
            load_potential("ase:ase.calculators.lj:LennardJones")
