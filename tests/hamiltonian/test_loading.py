"""The five ways to name a potential, plug-ins of other distributions, parameters, and the way back."""

from __future__ import annotations

import json
import textwrap
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from fkdrift.errors import BadFormula, BadParameter, BadTable, InputError, UnknownPotential
from fkdrift.hamiltonian.loading import available, describe, digest, load_potential
from fkdrift.hamiltonian.names import parse_parameters
from fkdrift.hamiltonian.potential import FunctionPotential, Potential

OWN = """
    from __future__ import annotations
    from dataclasses import dataclass
    import torch
    from fkdrift.hamiltonian.potential import Potential

    @dataclass(frozen=True)
    class Quartic(Potential):
        strength: float = 1.0
        shifts: tuple[float, ...] = (0.0,)
        formula = "V = strength x^4"

        def __call__(self, r):
            return self.strength * (r - self.shifts[0]).pow(4).sum((-2, -1))

    class Abstract(Potential):
        pass

    def bowl(r):
        return r.square().sum((-2, -1))

    def wrong(r):
        return r

    READY = Quartic(3.0)
"""


@pytest.fixture
def own_file(tmp_path) -> Path:
    path = tmp_path / "wells.py"
    path.write_text(textwrap.dedent(OWN))
    return path


def square(r):
    return r.square().sum((-2, -1))


# The five ways


def test_plug_in_by_name():
    assert load_potential("harmonic", omega=2, n_dims=3).known_energy.value == 3.0
    assert load_potential(" harmonic ") == load_potential("harmonic")


def test_class_in_a_file(own_file):
    V = load_potential(f"{own_file}:Quartic", strength=2, shifts=[1, 2])
    assert V.parameters == {"strength": 2.0, "shifts": (1.0, 2.0)}
    assert V.name == "wells"
    assert V(torch.full((1, 1, 1), 3.0)).item() == 32.0
    assert load_potential(f"{own_file}:READY").strength == 3.0
    assert load_potential(f"{own_file}:READY", strength=4).strength == 4.0


def test_function_in_a_file(own_file):
    V = load_potential(f"{own_file}:bowl", n_particles=2, n_dims=3, identical=True)
    assert V(torch.ones(4, 2, 3)).tolist() == [6.0] * 4
    assert V.groups == ((0, 1),)


def test_a_changed_file_is_read_again(own_file):
    before = load_potential(f"{own_file}:Quartic")
    assert type(load_potential(f"{own_file}:Quartic")) is type(before)
    own_file.write_text(textwrap.dedent(OWN).replace("strength: float = 1.0", "strength: float = 7.0"))
    assert load_potential(f"{own_file}:Quartic").strength == 7.0
    assert before.strength == 1.0


def test_formula():
    V = load_potential("x**2/2 + 0.1*x**4")
    assert V(torch.full((1, 1, 1), 2.0)).item() == pytest.approx(3.6)
    assert load_potential("r**2", n_dims=2).n_dims == 2
    with pytest.raises(BadFormula, match="instead"):
        load_potential("x^2")
    for text in ("foo(x)", "__import__('os')", "9**9**9**9", "3", "2*w"):
        with pytest.raises(BadFormula):
            load_potential(text)


@pytest.mark.parametrize("as_path", [False, True])
def test_table(tmp_path, as_path):
    x = np.linspace(-5, 5, 51)
    np.savez(tmp_path / "well.npz", x=x, V=x**2 / 2)
    path = tmp_path / "well.npz"
    assert load_potential(path if as_path else str(path)).domain == ((-5.0, 5.0),)
    with pytest.raises(BadTable, match="there is no table"):
        load_potential(str(tmp_path / "absent.csv"))


def test_callable_class_and_instance():
    V = load_potential(square, n_particles=2, n_dims=2)
    assert isinstance(V, FunctionPotential)
    assert V.n_particles == 2
    assert load_potential(V) is V
    assert load_potential(V, n_particles=3).n_particles == 3
    harmonic = load_potential("harmonic")
    assert load_potential(type(harmonic), omega=2) == load_potential(harmonic, omega=2.0)
    assert load_potential(lambda r: r.sum((-2, -1))).n_particles == 1


# Errors


@pytest.mark.parametrize(
    ("text", "close"),
    [
        ("harmonc", "harmonic"),
        ("double-well", "double_well"),
        ("Helium", "helium"),
        ("h2+", "h2"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_unknown_names(text, close):
    with pytest.raises(
        UnknownPotential, match=f"did you mean .*{close}" if close else "Installed: anharmonic"
    ) as caught:
        load_potential(text)
    assert "table.csv" in str(caught.value)
    assert "poschl_teller" in str(caught.value)


def test_files_that_cannot_be_used(tmp_path, own_file):
    cases = {
        f"{tmp_path}/absent.py:Name": "there is no file",
        f"{own_file}:Quartc": "it defines Quartic, Abstract, bowl",
        f"{own_file}": "wells.py:Name",
        f"{tmp_path}": "not of a kind that can be read",
    }
    for text, message in cases.items():
        with pytest.raises(UnknownPotential, match=message):
            load_potential(text)
    with pytest.raises(BadParameter, match="cannot be made"):
        load_potential(f"{own_file}:Abstract")
    with pytest.raises(BadParameter, match=r"takes \(batch, particle, dim\) to \(batch,\)"):
        load_potential(f"{own_file}:wrong")
    (tmp_path / "broken.py").write_text("import absent_module")
    with pytest.raises(UnknownPotential, match="ModuleNotFoundError"):
        load_potential(f"{tmp_path}/broken.py:V")
    (tmp_path / "syntax.py").write_text("def f(:")
    with pytest.raises(UnknownPotential, match="SyntaxError"):
        load_potential(f"{tmp_path}/syntax.py:V")


def test_other_objects():
    with pytest.raises(UnknownPotential, match="cannot make a potential from 3"):
        load_potential(3)
    with pytest.raises(BadParameter, match="raised ZeroDivisionError"):
        load_potential(lambda r: 1 / 0)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("harmonic", {"omegaa": 1.0}, "no parameter 'omegaa': did you mean omega.*omega, n_dims, n_particles"),
        ("harmonic", {"foo": 1.0}, "It has omega"),
        ("harmonic", {"omega": "two"}, "omega = 'two' .* a finite number"),
        ("harmonic", {"omega": True}, "omega = True"),
        ("harmonic", {"omega": None}, "omega = None"),
        ("harmonic", {"omega": float("nan")}, "omega = nan"),
        ("harmonic", {"omega": float("inf")}, "omega = inf"),
        ("harmonic", {"omega": 10**400}, "finite number"),
        ("harmonic", {"omega": 1e300}, r"finite number up to 3.4e\+38"),
        ("harmonic", {"omega": (1, 2)}, "a finite number"),
        ("harmonic", {"n_dims": 2.5}, "n_dims = 2.5 .* a whole number"),
        ("harmonic", {"n_dims": "2"}, "a whole number"),
        ("x**2", {"omega": 1}, "no parameter 'omega'"),
        ("x**2", {"expression": "y"}, "no parameter 'expression'"),
    ],
)
def test_bad_parameters(name, parameters, message):
    with pytest.raises(BadParameter, match=message):
        load_potential(name, **parameters)


def test_values_are_converted_where_nothing_is_lost():
    V = load_potential("harmonic", omega=2, n_dims=3.0)
    assert (type(V.omega), V.omega, type(V.n_dims), V.n_dims) == (float, 2.0, int, 3)
    assert load_potential(square, masses=[1, 2], n_particles=2).mass == (1.0, 2.0)


def test_missing_parameters():
    @dataclass(frozen=True)
    class Needs(Potential):
        depth: float

        def __call__(self, r):
            return self.depth * square(r)

    with pytest.raises(BadParameter, match="Needs needs a value for depth: add --param depth=VALUE"):
        load_potential(Needs)
    assert load_potential(Needs, depth=1).depth == 1


def test_parse_parameters():
    texts = ["omega=2", "a = -1.5e3", "flag=true", "b=(1, 2)", "name=abc", "x=1=2", "c='1'", "d=None"]
    assert parse_parameters(texts) == {
        "omega": 2, "a": -1500.0, "flag": True, "b": (1, 2), "name": "abc", "x": "1=2", "c": "1", "d": None
    }  # fmt: skip
    for bad in ("omega", "=2", "omega=", "2=3", "a b=3", ""):
        with pytest.raises(BadParameter, match="write name=value"):
            parse_parameters([bad])
    with pytest.raises(BadParameter, match="given twice"):
        parse_parameters(["a=1", "a=2"])
    hostile = "(" * 5000
    assert parse_parameters([f"a={hostile}", "b=__import__('os')"]) == {"a": hostile, "b": "__import__('os')"}
    with pytest.raises(BadParameter, match="finite"):
        load_potential("harmonic", **parse_parameters(["omega=nan"]))
    with pytest.raises(BadParameter, match="finite"):
        load_potential("harmonic", **parse_parameters(["omega=1e999"]))


# Plug-ins


def test_available_lists_every_plug_in():
    plug_ins = available()
    assert list(plug_ins) == sorted(plug_ins)
    files = {path.stem for path in (Path(__file__).parents[2] / "potentials").glob("[a-z]*.py")}
    assert {name for name, plug_in in plug_ins.items() if plug_in.distribution == "fkdrift"} == files
    helium = plug_ins["helium"]
    assert helium.parameters == {"Z": 2.0}
    assert helium.formula == "V = -Z/r_1 - Z/r_2 + 1/r_12"
    assert helium.known_energy.value == -2.9037243770341
    assert helium.citation
    assert not helium.broken


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    """A distribution with a good plug-in, one that fails to import, one of the wrong kind, and a taken name."""
    site = tmp_path / "site"
    info = site / "dummy_wells-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dummy-wells\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[fkdrift.potentials]\nsextic = dummy_wells:Sextic\nabsent = dummy_wells_absent:Absent\n"
        "wrong = dummy_wells:NUMBER\nraises = dummy_wells_raises:Any\nharmonic = dummy_wells:Sextic\n"
    )
    (site / "dummy_wells.py").write_text(
        textwrap.dedent(
            """
            from dataclasses import dataclass
            from fkdrift.hamiltonian.potential import Potential

            NUMBER = 3

            @dataclass(frozen=True)
            class Sextic(Potential):
                depth: float
                formula = "V = depth x^6"

                def __call__(self, r):
                    return self.depth * r.pow(6).sum((-2, -1))
            """
        )
    )
    (site / "dummy_wells_raises.py").write_text("raise RuntimeError('no licence')")
    monkeypatch.syspath_prepend(str(site))


@pytest.mark.usefixtures("third_party")
def test_third_party_distribution():
    plug_ins = available()
    assert plug_ins["sextic"].distribution == "dummy-wells"
    assert plug_ins["sextic"].formula == "V = depth x^6"
    assert plug_ins["sextic"].known_energy is None
    assert list(plug_ins["sextic"].parameters) == ["depth"]
    assert "ModuleNotFoundError" in plug_ins["absent"].broken
    assert plug_ins["raises"].broken == "RuntimeError: no licence"
    assert "not a class that inherits" in plug_ins["wrong"].broken
    assert plug_ins["harmonic"].distribution == "fkdrift"
    V = load_potential("sextic", depth=2)
    assert load_potential(describe(V)["name"], **describe(V)["parameters"]) == V
    with pytest.raises(UnknownPotential, match="'raises' of dummy-wells cannot be used: RuntimeError: no licence"):
        load_potential("raises")


# The way back


def test_describe_and_load_again(tmp_path, own_file, monkeypatch):
    x = np.linspace(-5, 5, 51)
    np.savez(tmp_path / "well.npz", x=x, V=x**2 / 2)
    monkeypatch.chdir(tmp_path)
    potentials = [
        load_potential("helium", Z=3),
        load_potential("wells.py:Quartic", strength=2, shifts=(1.0, 2.0)),
        load_potential("wells.py:bowl", n_particles=2),
        load_potential("x**2/2"),
        load_potential("r**2", n_dims=2),
        load_potential("well.npz"),
    ]
    monkeypatch.chdir("/")
    for potential in potentials:
        description = json.loads(json.dumps(describe(potential)))
        assert description["reloadable"]
        assert load_potential(description["name"], **description["parameters"]) == potential


def test_a_bare_callable_cannot_be_loaded_from_its_name():
    assert describe(load_potential(square, n_dims=2)) == {
        "name": "square",
        "parameters": {"n_particles": 1, "n_dims": 2, "identical": False},
        "reloadable": False,
    }


LONG = "a" * 5000


@pytest.mark.parametrize(
    "text", [LONG, "x" * 5000, f"{LONG}.csv", f"{LONG}.py:X", "~x.csv", "~x.py:X", "x\0.csv", "x\0", "\0.py:X"]
)
def test_names_that_no_file_can_have(text):
    with pytest.raises(InputError) as refusal:
        load_potential(text)
    assert len(str(refusal.value)) < 700


def test_a_digest_follows_what_a_potential_is_made_from(tmp_path):
    x = np.linspace(-4, 4, 40)
    for k, V in enumerate((x**2, x**2, x**2 + 1e-12 * x)):
        np.savez(tmp_path / f"{k}.npz", x=x, V=V)
    first, same, other = (digest(load_potential(tmp_path / f"{k}.npz")) for k in range(3))
    assert first == same != other
    one, two = lambda r: r.sum((1, 2)) ** 2, lambda r: r.sum((1, 2)) ** 4
    again = types.FunctionType(one.__code__.replace(co_firstlineno=1, co_filename="other.py"), globals())
    assert digest(load_potential(one)) == digest(load_potential(again)) != digest(load_potential(two))
