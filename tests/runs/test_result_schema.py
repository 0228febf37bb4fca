"""result.json against result.schema.json, for every kind of run, and against docs/result.md."""

from __future__ import annotations

import copy
import json
from importlib.resources import files
from itertools import islice
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from runs import SMALL, small

import fkdrift as fk
from fkdrift.generative.data.datasets import dataset, load_data
from fkdrift.runs.driver import KINDS
from fkdrift.runs.ground_state import GroundState
from fkdrift.runs.learning import Learning, find_data
from fkdrift.runs.methods import METHODS
from fkdrift.runs.methods.bridge import Bridge, BridgeSettings
from fkdrift.runs.methods.pimc import Pimc, PimcSettings
from fkdrift.runs.recipes import MODELS
from fkdrift.runs.scan import ParameterScan
from fkdrift.runs.scan_settings import ScanSettings

SCHEMA = json.loads((files("fkdrift.runs") / "result.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
SETTINGS = small()


def finished(name, **options):
    return fk.solve(name, settings=small(**options), progress=False, **options).result


def excited(name, levels, *observables):
    settings = SETTINGS.changed(n_walkers=128, levels=levels, observables=observables or None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fkdrift.runs.ground_state.N_EXCITATION_BLOCKS", 16)
        return fk.solve(name, settings=settings, progress=False).result


def interrupted(name, n_steps):
    state = GroundState(fk.load_potential(name), SETTINGS)
    list(islice(state.advance(), n_steps))
    return state.result


def in_a_box():
    """A liquid with a cut, without a correlation of three particles, which takes seconds to prepare."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fkdrift.hamiltonian.pair_reference.MOST_CORRELATED", 2)
        return finished("helium_liquid", n_particles=8)


def bridged(potential, n_steps=None, **options):
    settings = BridgeSettings(time=1.0, n_updates=2, n_paths=64, dt=0.25, width=4, **options)
    run = Bridge(fk.load_potential(potential), settings)
    list(islice(run.advance(), n_steps))
    return run.result


def learned(model, data="digits", n_steps=None, **options):
    recipe = MODELS.find(model)
    run = Learning(recipe, recipe.settings_class(n_updates=2, width=8, **options), find_data(data))
    list(islice(run.advance(), n_steps))
    return run.result


def warmed(potential, n_steps=None, **parameters):
    settings = PimcSettings(temperature=0.5, n_slices=4, n_chains=4, n_blocks=2, n_equilibration=2)
    run = Pimc(fk.load_potential(potential, **parameters), settings)
    list(islice(run.advance(), n_steps))
    return run.result


def scanned(name, over, n_steps=None):
    run = ParameterScan(fk.load_potential(name), over, ScanSettings.from_values(SMALL))
    list(islice(run.advance(), n_steps))
    return run.result


def a_surface():
    """Of three atoms, with a trial function that is made in no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fkdrift.hamiltonian.molecular_reference.DEGREES", ((0, 0),))
        return interrupted(fk.Surface(springs, ("H", "H", "H"), TRIANGLE), 0)


def springs(x):
    """Of three atoms, in cm-1 and angstrom."""
    bonds = ((x[:, (0, 0, 1)] - x[:, (1, 2, 2)]) ** 2).sum(-1) ** 0.5
    return 1e5 * ((bonds - 1.0) ** 2).sum(1)


TRIANGLE = ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.5, 0.87, 0.0))
PLANE = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)).numpy()


CASES = {
    "harmonic": lambda: finished("harmonic", n_dims=2),
    "out of time": lambda: finished("harmonic", max_seconds=1e-9),
    "free drift": lambda: finished("harmonic", drift="mlp"),
    "flow": lambda: finished("harmonic", method="flow"),
    "levels and observables": lambda: excited("harmonic", 2, "x**2"),
    "too many levels": lambda: excited("-1/cosh(x)**2", 3),
    "adam": lambda: finished("harmonic", seed=3, atol=0.1),
    "formula": lambda: finished("x**4/4"),
    "callable": lambda: finished(lambda r: r.square().sum((-2, -1)), n_dims=2),
    "what a cut leaves out": in_a_box,
    "a surface": a_surface,
    "no exact energy": lambda: finished("calogero", n_particles=4),
    "interrupted at once": lambda: interrupted("harmonic", 0),
    "interrupted in training": lambda: interrupted("harmonic", 3),
    "interrupted later": lambda: interrupted("x**4", SMALL["n_updates"] + 3),
    "bridge": lambda: bridged("double_well", start=(-1.0,), end=(1.0,)),
    "bridge without exact value": lambda: bridged("henon_heiles", start=(0.0, 0.0), end=(0.5, 0.0), noise=0.1),
    "interrupted bridge": lambda: bridged("double_well", 1, start=(-1.0,), end=(1.0,)),
    "warm oscillator": lambda: warmed("harmonic"),
    "warm bosons": lambda: warmed("harmonic", n_particles=2, n_dims=2),
    "interrupted pimc": lambda: warmed("harmonic", 1),
    "scan": lambda: scanned("harmonic", {"omega": [1.0, 2.0]}),
    "interrupted scan": lambda: scanned("hydrogen", {"Z": [1.0, 2.0]}, 1),
    "vae": lambda: learned("vae", latents=2, depth=1),
    "markov": lambda: learned("markov", latents=2, upper=(2,), upper_width=(8,), depth=1),
    "diffusion": lambda: learned("diffusion", steps=4),
    "flow of data": lambda: learned("flow", PLANE, couplings=2),
    "latent sde": lambda: learned("latent-sde", dataset(PLANE, times=np.array([0.0, 0.7])), latents=1),
    "told classes": lambda: learned("diffusion", load_data(PLANE, (PLANE[:, 0] > 0).astype(int)), steps=4),
    "interrupted training": lambda: learned("vae", n_steps=1, latents=2, depth=1),
}


@pytest.fixture(scope="module")
def projected():
    return fk.solve("harmonic", settings=SETTINGS.changed(project=True), progress=False, seed=1)


@pytest.fixture(scope="module")
def results(projected):
    """As other tools will read them: after a round trip through strict JSON."""
    found = {name: make() for name, make in CASES.items()} | {"projected": projected.result}
    return {name: json.loads(json.dumps(result, allow_nan=False)) for name, result in found.items()}


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", [*CASES, "projected"])
def test_results_are_valid(results, name):
    assert [error.message for error in VALIDATOR.iter_errors(results[name])] == []


PARTS = {
    "ground state": "ground_state",
    "learned model": "learned_model",
    "bridge": "bridge",
    "pimc": "pimc",
    "scan": "scan",
}


def test_the_cases_cover_the_schema(results):
    assert {*KINDS, *METHODS.names()} == set(PARTS) == set(SCHEMA["properties"]["kind"]["enum"])
    for kind, part in PARTS.items():
        keys = set().union(*(result for result in results.values() if result["kind"] == kind))
        may = {"observables", "correlations", "out_of_time", "forced", "sha256", "remark_on_workers"}
        assert keys | may == set(SCHEMA["properties"]) | set(SCHEMA["$defs"][part]["properties"]) | may
    for kind, part in PARTS.items():
        energies = set().union(*(result.get("energies", {}) for result in results.values() if result["kind"] == kind))
        assert energies == set(SCHEMA["$defs"][part]["properties"].get("energies", {}).get("properties", {}))
    assert {result["status"] for result in results.values()} == {"finished", "interrupted"}
    assert results["interrupted at once"]["energies"]["variational"]["mean"] is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_its_own_entries_only(results, kind):
    own = next(result for result in results.values() if result["kind"] == kind)
    for other in set(KINDS) - {kind}:
        assert not VALIDATOR.is_valid({**own, "kind": other})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: r.pop("seed"),
        lambda r: r.pop("kind"),
        lambda r: r.update(format=1),
        lambda r: r.update(observables={"x": {"unit": "length"}}),
        lambda r: r.update(observables={"x": {"unit": "length", "pure": {"mean": 1.0}}}),
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
    for part in PARTS.values():
        properties = SCHEMA["$defs"][part]["properties"]
        names |= set(properties).union(*(entry.get("properties", ()) for entry in properties.values()))
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_the_numbers_are_those_of_the_state(projected, results):
    state, result = projected, results["projected"]
    assert result["energies"]["projected"]["mean"] == state.energy.mean
    assert result["energies"]["variational"]["mean"] == state.energies.variational.mean
    assert result["trust"]["trusted"] == all(test["passed"] for test in result["trust"]["tests"])
    assert result["energies"]["exact"]["mean"] == pytest.approx(0.5, abs=1e-9)
    assert result["seed"] == result["settings"]["seed"] == 1
    assert result["n_updates"] == state.n_updates
    difference = state.energy.mean - result["energies"]["exact"]["mean"]
    assert result["deviation"]["difference"] == difference
    assert result["n_parameters"] == sum(p.numel() for p in state.model.parameters())
