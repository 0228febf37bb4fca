"""Observables and excited states of a whole run: in its result, its schema, its block, and after a round trip."""

import json
import math
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from typer.testing import CliRunner

import fkdrift as fk
from fkdrift.cli import main as cli
from fkdrift.errors import BadConfig, BadFormula
from fkdrift.figures.compare import compare_figure
from fkdrift.runs.compare import compare, densities, levels

SCHEMA = json.loads((Path(fk.__file__).parent / "runs" / "result.schema.json").read_text())


def solve(**options):
    settings = fk.Settings(n_walkers=128, n_updates=2, n_path_blocks=1, n_blocks=32, n_equilibration=1, path_step=0.25)
    return fk.solve("harmonic", settings=settings, progress=False, **options)


def test_result_has_levels_and_observables(tmp_path, monkeypatch):
    monkeypatch.setattr("fkdrift.runs.ground_state.N_EXCITATION_BLOCKS", 16)
    state = solve(levels=3, observables=["x**2", "dE/domega", "density"])
    result = state.result
    jsonschema.validate(result, SCHEMA)
    assert [level["gap"] for level in result["excitations"]] == pytest.approx([1, 2], abs=1e-3)
    assert [level["symmetry"] for level in result["excitations"]] == ["odd", "even"]
    found = {name: entry["variational"] for name, entry in result["observables"].items()}
    for name, exact in {"V": 0.25, "T": 0.25, "x**2": 0.5, "dE/domega": 0.5, "virial": 1.0}.items():
        assert abs(found[name]["mean"] - exact) < 4 * found[name]["error"], name
    density = result["observables"]["density"]
    x = np.array(density["centres"])
    np.testing.assert_allclose(density["expected"], np.exp(-(x**2)) / math.sqrt(math.pi), atol=1e-9)
    assert len(found["density"]["mean"]) == len(x)
    assert result["energies"]["exact"]["levels"] == pytest.approx([0.5, 1.5, 2.5])
    assert "level 1" in str(state)
    assert len(state._ladder().axes) == 2
    state.save(tmp_path / "run", figures=False)
    again = fk.load(tmp_path / "run").result
    assert again["observables"] == result["observables"]
    assert again["excitations"] == result["excitations"]
    shown = CliRunner().invoke(cli.app, ["compare", str(tmp_path / "run"), "--figure", str(tmp_path / "both.png")])
    assert shown.exit_code == 0, shown.output
    assert "deviation" in shown.stdout.splitlines()[-4]
    assert [(row["level"], round(row["exact"], 9)) for row in levels([tmp_path / "run"])] == [
        (0, 0.5),
        (1, 1.5),
        (2, 2.5),
    ]
    assert all(abs(row["deviation"]) < 4 for row in levels([tmp_path / "run"]))
    (row,) = json.loads(CliRunner().invoke(cli.app, ["compare", str(tmp_path / "run"), "--json"]).stdout)
    assert [level["exact"] for level in row["levels"]] == result["energies"]["exact"]["levels"]
    drawn = compare_figure(compare([tmp_path / "run"]), densities([tmp_path / "run"]), levels([tmp_path / "run"]))
    titles = [axes.get_title().partition("  ")[0] for axes in drawn.axes]
    assert titles == ["harmonic", "levels of harmonic", "density of harmonic"]


def test_bad_requests_are_refused_before_anything_runs():
    with pytest.raises(BadFormula, match="cannot read the formula"):
        solve(observables=["x**"])
    with pytest.raises(BadConfig, match="levels = 0 is not allowed"):
        solve(levels=0)
    with pytest.raises(BadConfig, match="levels is not used with"):
        fk.solve("harmonic", drift="mlp", levels=2)


def test_result_has_correlations_with_their_figure(tmp_path, monkeypatch):
    """x and H + lam x = a shifted oscillator: E_0 - lam^2 / 2, so that chi = 1; C = exp(-tau) / 2."""
    monkeypatch.setattr("fkdrift.runs.ground_state.N_CORRELATION_WINDOWS", 2)
    state = solve(correlations=["x"], observables=["density"])
    result = state.result
    jsonschema.validate(result, SCHEMA)
    found = result["correlations"]["x"]
    for kind in ("variational", "pure"):
        chi = found[kind]["susceptibility"]
        assert abs(chi["mean"] - 1) < 4 * chi["error"] + 0.02, kind
        assert abs(found[kind]["mean"][4] - 0.5 * math.exp(-found["times"][4])) < 4 * found[kind]["error"][4] + 0.01
    assert "chi(x)" in str(state)
    assert len(state._correlation_figure().axes) == len(state._histograms().axes) == 1
    state.save(tmp_path / "run", figures=False)
    assert fk.load(tmp_path / "run").result["correlations"] == result["correlations"]
    with pytest.raises(BadConfig, match="correlations is not used with"):
        fk.solve("harmonic", drift="mlp", correlations=["x"])
    with pytest.raises(BadFormula):
        solve(correlations=["x +* 2"])
