"""fk.solve(..., method="flow"): the result, its file, its figures, and resuming."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
import torch

import fkdrift as fk
from fkdrift.errors import BadConfig, InputError
from fkdrift.runs.driver import load, resume
from fkdrift.runs.ground_state import GroundState
from fkdrift.wavefunction.flow import FlowWavefunction
from fkdrift.wavefunction.flow_start import make_wavefunction

SMALL = fk.Settings(method="flow", n_walkers=128, n_updates=12, n_blocks=80, width=8)


def test_harmonic_result(tmp_path: Path):
    state = fk.solve("harmonic", omega=2.0, settings=SMALL, out=tmp_path, progress=False)
    assert isinstance(state.model, FlowWavefunction)
    assert abs(state.energy.deviation(1.0)) < 4
    result = json.loads((tmp_path / "result.json").read_text())
    assert set(result["energies"]) == {"variational", "lower_bound", "fisher", "exact", "reference"}
    assert "independent samples" in result["energies"]["variational"]["estimator"]
    assert set(result["sampling"]) == {"standard_deviation"}
    assert result["settings"]["method"] == "flow"
    assert result["status"] == "finished"
    assert "flow with" in str(state)
    assert "fisher" in str(state)
    assert sorted(path.stem for path in (tmp_path / "figures").glob("*.png")) == [
        "energy",
        "trajectories",
        "wavefunction",
    ]
    density = (2 * state.log_psi(torch.linspace(-6, 6, 1201)[:, None, None])).exp()
    assert float(density.sum()) * 0.01 == pytest.approx(1, abs=1e-6)  # psi is normalised
    independent = state.sample(2000)
    assert torch.equal(independent, state.model.sample(2000, torch.Generator().manual_seed(0)))
    again = load(tmp_path)
    assert isinstance(again.model, FlowWavefunction)
    assert again.energy == state.energy


@pytest.mark.usefixtures("no_figures")
def test_interrupted_run_ends_where_it_would_have(tmp_path: Path):
    potential = fk.load_potential("anharmonic")
    settings = SMALL.changed(n_walkers=32, n_updates=4)
    whole = GroundState(potential, settings)
    for _ in whole.advance():
        pass
    for stop in (2, 7):
        run = GroundState(potential, settings)
        for _ in islice(run.advance(), stop):
            pass
        run.save(tmp_path / str(stop), figures=False)
        resumed = resume(tmp_path / str(stop), progress=False)
        assert resumed.energies == whole.energies
        for a, b in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
            assert torch.equal(a, b)


def test_method_is_checked():
    with pytest.raises(BadConfig, match="method = 'other'"):
        fk.Settings(method="other")
    with pytest.raises(InputError, match="method='drift'"):
        fk.solve("cosine", method="flow", progress=False)


@pytest.mark.usefixtures("no_figures")
def test_a_flow_on_the_trial_function(tmp_path: Path):
    """Hydrogen, whose trial function is exact: no noise in either energy, and independent samples of exp(-2 r)."""
    settings = SMALL.changed(n_updates=3)
    state = fk.solve("hydrogen", settings=settings, out=tmp_path, progress=False)
    assert abs(state.energy.mean + 0.5) < 1e-9
    assert state.energies.fisher is not None
    assert abs(state.energies.fisher.mean + 0.5) < 1e-5
    r = state.sample(4000).norm(dim=-1).flatten()
    assert abs(float(r.mean()) - 1.5) < 4 * 0.75**0.5 / 4000**0.5
    assert torch.equal(load(tmp_path).sample(50), state.sample(50))


def test_drifts_and_flows_do_not_start_each_other():
    system = fk.System(fk.load_potential("harmonic"), torch.float64)
    with pytest.raises(BadConfig, match="a drift cannot start from a flow"):
        fk.solve("harmonic", start=make_wavefunction(system), progress=False)
    with pytest.raises(BadConfig, match="a flow cannot start from a drift"):
        fk.solve("harmonic", settings=SMALL, start=fk.NeuralWavefunction(system), progress=False)
