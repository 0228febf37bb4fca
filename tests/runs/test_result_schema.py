"""result.json against result.schema.json, for every kind of run, and against docs/result.md."""

from __future__ import annotations

import copy
import json
from importlib.resources import files
from itertools import islice
from pathlib import Path

import jsonschema
import pytest
from runs import SMALL, small

import fkdrift as fk
from fkdrift.runs.run import Run

SCHEMA = json.loads((files("fkdrift.runs") / "result.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
SETTINGS = fk.Settings(**SMALL)


def finished(name, **options):
    return fk.solve(name, settings=small(**options), progress=False, **options).result


def interrupted(name, n_steps):
    run = Run(fk.load_potential(name), SETTINGS)
    list(islice(run.advance(), n_steps))
    return fk.GroundState(run).result


CASES = {
    "harmonic": lambda: finished("harmonic", n_dims=2),
    "free drift": lambda: finished("harmonic", drift="mlp"),
    "flow": lambda: finished("harmonic", method="flow"),
    "adam": lambda: finished("harmonic", seed=3, atol=0.1),
    "formula": lambda: finished("x**4/4"),
    "callable": lambda: finished(lambda r: r.square().sum((-2, -1)), n_dims=2),
    "no exact energy": lambda: finished("helium"),
    "interrupted at once": lambda: interrupted("harmonic", 0),
    "interrupted in training": lambda: interrupted("harmonic", 3),
    "interrupted later": lambda: interrupted("helium", SMALL["n_updates"] + 3),
}


@pytest.fixture(scope="module")
def results():
    """As other tools will read them: after a round trip through strict JSON."""
    return {name: json.loads(json.dumps(make(), allow_nan=False)) for name, make in CASES.items()}


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", CASES)
def test_results_are_valid(results, name):
    assert [error.message for error in VALIDATOR.iter_errors(results[name])] == []


def test_the_cases_cover_the_schema(results):
    keys = set().union(*results.values())
    assert keys == set(SCHEMA["properties"])
    energies = set().union(*(result["energies"] for result in results.values()))
    assert energies == set(SCHEMA["properties"]["energies"]["properties"])
    assert {result["status"] for result in results.values()} == {"finished", "interrupted"}
    assert results["interrupted at once"]["energies"]["variational"]["mean"] is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: r.pop("seed"),
        lambda r: r.update(extra=1),
        lambda r: r["energies"].pop("path_action"),
        lambda r: r["energies"]["variational"].pop("estimator"),
        lambda r: r["energies"]["variational"].update(error=-1.0),
        lambda r: r["energies"]["exact"].update(mean="0.5"),
        lambda r: r["potential"].update(parameters=[1.0]),
        lambda r: r.update(status="maybe"),
        lambda r: r["step_bias"]["time_steps"].append(0.0),
        lambda r: r["versions"].pop("torch"),
    ],
)
def test_the_schema_notices(results, spoil):
    result = copy.deepcopy(results["harmonic"])
    assert VALIDATOR.is_valid(result)
    spoil(result)
    assert not VALIDATOR.is_valid(result)


def test_every_field_is_documented():
    text = (Path(__file__).parents[2] / "docs" / "result.md").read_text()
    names = set(SCHEMA["properties"])
    for part in ("energies", "step_bias", "sampling", "virial", "deviation", "potential"):
        names |= set(SCHEMA["properties"][part]["properties"])
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_the_numbers_are_those_of_the_state():
    state = fk.solve("harmonic", settings=SETTINGS, progress=False, seed=1)
    result = state.result
    assert result["energies"]["variational"]["mean"] == state.energy.mean
    assert result["energies"]["exact"]["mean"] == pytest.approx(0.5, abs=1e-9)
    assert result["seed"] == result["settings"]["seed"] == 1
    assert result["n_updates"] == SMALL["n_updates"]
    difference = state.energy.mean - result["energies"]["exact"]["mean"]
    assert result["deviation"]["difference"] == difference
    assert result["n_parameters"] == sum(p.numel() for p in state.run.drift.parameters())
