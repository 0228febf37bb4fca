"""Scans: points that follow their neighbours, fail alone, and go on where they were."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from runs import SMALL, assert_same

import fkdrift as fk
from fkdrift.cli.scan import read_values
from fkdrift.errors import BadConfig, BadParameter
from fkdrift.hamiltonian import units
from fkdrift.hamiltonian.potential import Potential
from fkdrift.runs.driver import drive, show
from fkdrift.runs.scan import ParameterScan, Points
from fkdrift.runs.scan_settings import ScanSettings

SCHEMA = json.loads((Path(fk.__file__).parent / "runs" / "result.schema.json").read_text())
SETTINGS = ScanSettings.from_values({**SMALL, "n_updates": 10})


@dataclass(frozen=True)
class Spring(Potential):
    """Of stiffness k, which must not be 3; at k = 2 a signal is sent once in a run, after so many calls."""

    k: float = 1.0
    formula = "V = k x^2 / 2 + x^4 / 10"
    pending = []
    """The signal, and calls to go."""

    def __call__(self, r):
        if self.k == 3.0:
            raise ZeroDivisionError("no such spring")
        if self.k == 2.0 and self.pending and signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            self.pending[1] -= 1
            if not self.pending[1]:
                signal.raise_signal(self.pending[0])
                self.pending.clear()
        return self.k * r.square().sum((-2, -1)) / 2 + r.pow(4).sum((-2, -1)) / 10


def springs(*values, **changes):
    return ParameterScan(Spring(), {"k": list(values)}, SETTINGS.changed(**changes))


def test_points_follow_their_neighbours(no_figures, tmp_path):
    scan = fk.scan("harmonic", {"omega": [1.0, 1.5, 2.0]}, settings=SETTINGS, out=tmp_path, progress=False)
    frame = scan.to_dataframe()
    assert frame["omega"].tolist() == [1.0, 1.5, 2.0]
    assert frame["warm"].tolist() == [True, False, True]
    assert frame["energy"].tolist() == pytest.approx([0.5, 0.75, 1.0], abs=1e-5)
    assert frame["exact"].tolist() == pytest.approx([0.5, 0.75, 1.0], abs=1e-8)
    with (tmp_path / "scan.csv").open() as file:
        assert [float(row["energy"]) for row in csv.DictReader(file)] == frame["energy"].tolist()
    assert json.loads((tmp_path / "scan.json").read_text()) == scan.records()
    again = fk.load(tmp_path)
    assert again.records() == scan.records()
    assert again.state(0).energy == scan.state(0).energy
    assert again.state(0).energy.mean == frame["energy"][0]
    assert again.finished
    assert "omega = 1.5   0.7500" in str(again)


def test_energies_and_slopes_in_another_unit(tmp_path):
    """E = -Z^2 / 2 hartree and dE/dZ = -Z; the rows, the block and the figure are in eV, result.json is not."""
    settings = SETTINGS.changed(energy_unit="eV", observables=("dE/dZ",), n_blocks=64)
    scan = fk.scan("hydrogen", {"Z": [1.0, 2.0]}, settings=settings, progress=False)
    hartree = units.ENERGIES["hartree"] / units.ENERGIES["eV"]
    for row in scan.records():
        assert row["unit"] == "eV"
        assert row["energy"] == pytest.approx(-hartree * row["Z"] ** 2 / 2, rel=1e-4)
        assert row["exact"] == pytest.approx(-hartree * row["Z"] ** 2 / 2, rel=1e-6)
        assert abs(row["dE/dZ"] + hartree * row["Z"]) < 4 * row["dE/dZ_error"]
    assert scan.result["points"][0]["energies"]["variational"]["mean"] == pytest.approx(-0.5, rel=1e-4)
    assert "eV / Z" in " ".join(str(scan).split())
    assert " eV at Z = 2" in scan.block(scan.result).headline
    assert [axes.get_ylabel() for axes in scan.plot()["scan"].axes] == [
        "$E_0$ in eV",
        r"$E - E_\mathrm{exact}$ in eV",
        "dE/dZ in eV / Z",
    ]
    jsonschema.validate(scan.result, SCHEMA)
    scan.save(tmp_path, figures=False)
    assert "hartree  exact -0.5;" in str(show(tmp_path, energy_unit="hartree"))
    with pytest.raises(BadParameter, match="nothing can be shown in eV"):
        fk.scan("harmonic", {"omega": [1.0]}, settings=settings)


def test_a_warm_point_begins_with_its_neighbours_network():
    scan = springs(1.0, 1.1, n_walkers=512, warm_updates=0)
    list(scan.advance())
    warm, cold = scan.points
    assert (warm.start, cold.start) == (1, None)
    assert warm.result["n_updates"] == 0 < cold.result["n_updates"]
    assert_same(warm.state["model"], cold.state["model"])
    assert warm.result["seed"] != cold.result["seed"]


def test_the_points_of_a_grid_come_in_waves():
    places = [(a, b) for a in range(3) for b in range(3)]
    points = Points([Spring()] * 9, places, SETTINGS)
    assert points.cold == [4]
    assert points._next_wave() == [4]
    points.points[4].status = "finished"
    assert points._next_wave() == [1, 3, 5, 7]
    assert Points([Spring()] * 9, places, SETTINGS.changed(cold=3)).cold == [1, 4, 7]


def test_a_point_that_fails_is_written_down_and_tried_again(no_figures, tmp_path):
    scan = springs(2.0, 3.0, 4.0)
    list(scan.advance())
    assert [point.status for point in scan.points] == ["finished", "failed", "finished"]
    assert "ZeroDivisionError: no such spring" in scan.records()[1]["message"]
    assert [point.start for point in scan.points] == [None, None, None]  # the cold one was the one to fail
    assert "1 of 3 points" in str(scan)
    with pytest.raises(BadConfig, match="no such spring"):
        scan.state(1)
    scan.save(tmp_path)
    assert [point.status for point in fk.load(tmp_path, Spring()).points] == ["finished", "waiting", "finished"]


@pytest.fixture(scope="module")
def whole():
    """A scan that is left alone."""
    return drive(springs(1.0, 2.0), progress=False)


@pytest.mark.parametrize(("n", "status"), [(20, "waiting"), (120, "interrupted")], ids=["making", "training"])
def test_an_interrupted_scan_ends_where_it_would_have_ended(n, status, whole, no_figures, tmp_path):
    Spring.pending[:] = [signal.SIGINT, n]
    stopped = drive(springs(1.0, 2.0), out=tmp_path, progress=False)
    assert not Spring.pending
    assert [point.status for point in stopped.points] == ["waiting", status]
    assert not stopped.finished
    resumed = fk.resume(tmp_path, Spring(), progress=False)
    for a, b in zip(whole.points, resumed.points, strict=True):
        assert_same(a.state["model"], b.state["model"])
        assert a.energy == b.energy
    assert [row[:-1] for row in resumed.history["points"]] == [row[:-1] for row in whole.history["points"]]


def test_a_damaged_configuration_is_refused(no_figures, tmp_path):
    fk.scan("harmonic", {"n_dims": [1, 2]}, settings=SETTINGS, out=tmp_path, progress=False)
    config = tmp_path / "config.toml"
    config.write_text(config.read_text().replace("n_dims = [\n    1,\n    2,\n]", "n_dims = 3"))
    assert "n_dims = 3" in config.read_text()
    with pytest.raises(BadConfig, match="no list of values"):
        fk.load(tmp_path)


KILLED = """
import fkdrift as fk
from fkdrift.runs import following

following.CHECKPOINT_SECONDS = 0.0
settings = fk.ScanSettings(jobs=2, n_updates=10, n_walkers=64, n_blocks=10, path_step=1 / 4, project=False)
fk.scan("r**4", {{"n_dims": [1, 2, 3]}}, settings=settings, out={out!r})
"""


@pytest.mark.slow
def test_a_killed_scan_with_workers_goes_on(no_figures, tmp_path):
    """All of its processes are killed once there is a checkpoint; what was done then is not done again."""
    out = tmp_path / "scan"
    scan = subprocess.Popen([sys.executable, "-c", KILLED.format(out=str(out))], start_new_session=True)
    try:
        while not ((out / "result.json").exists() and '"finished"' in (out / "result.json").read_text()):
            assert scan.poll() is None
            time.sleep(0.02)
    finally:
        os.killpg(scan.pid, signal.SIGKILL)
        scan.wait()
    before = [point.status for point in fk.load(out).points]
    resumed = fk.resume(out, progress=False)
    assert [point.status for point in resumed.points] == ["finished"] * 3
    assert "finished" in before
    assert np.isfinite([row["energy"] for row in resumed.records()]).all()


@pytest.mark.slow
def test_workers_give_what_one_process_gives():
    one, two = (fk.scan("r**4", {"n_dims": [2, 3]}, settings=SETTINGS.changed(jobs=j, cold=j)) for j in (1, 2))
    assert [point.energy for point in one.points] == [point.energy for point in two.points]
    assert [point.start for point in one.points] == [None, None]  # a network of another size does not fit


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("R=0.8:1.4:0.2", [0.8, 1.0, 1.2, 1.4]),
        ("R=1:0:-0.5", [1.0, 0.5, 0.0]),
        ("R=0:1:0.4", [0.0, 0.4, 0.8]),
        ("R=1,1.4, 2", [1, 1.4, 2]),
        ("n=1:3:1", [1, 2, 3]),
    ],
)
def test_values_on_the_command_line(text, values):
    assert read_values([text, "a=2", "v=(1,2)"]) == (["a=2", "v=(1,2)"], {text[0]: values})


@pytest.mark.parametrize("text", ["R=0:1:0", "R=0:1:-1", "R=a:b:c", "R=1,x"])
def test_values_that_are_none(text):
    with pytest.raises(BadParameter, match="R="):
        read_values([text])


def test_what_cannot_be_scanned_is_refused():
    with pytest.raises(BadParameter, match="omegaa"):
        fk.scan("harmonic", {"omegaa": [1.0]})
    with pytest.raises(BadParameter, match="no values of omega"):
        fk.scan("harmonic", {"omega": []})
    with pytest.raises(BadParameter, match="1 to 10,000 points"):
        fk.scan("harmonic", {})
