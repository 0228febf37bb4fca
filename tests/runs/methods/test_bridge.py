"""`fkdrift bridge`: what it prints and writes, and that an interrupted bridge ends where it would have ended."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import fkdrift as fk
from fkdrift.bridges.trajectories import infer
from fkdrift.bridges.transition import bridge_problem
from fkdrift.cli import main as cli
from fkdrift.errors import BadConfig, BadParameter, OutOfTime, TooLarge
from fkdrift.hamiltonian.loading import load_potential
from fkdrift.numerics.estimates import Estimate
from fkdrift.runs.driver import load
from fkdrift.runs.methods.bridge import Bridge, BridgeSettings
from fkdrift.runs.report import Progress

QUICK = {"n_updates": 6, "n_paths": 512, "dt": 0.25, "width": 8}


def small(**changes: object) -> Bridge:
    settings = BridgeSettings(**{"start": (-1.0,), "end": (1.0,), "time": 2.0, **QUICK, **changes})
    return Bridge(load_potential("double_well"), settings)


def finish(run: Bridge) -> Bridge:
    for _ in run.advance():
        pass
    return run


@pytest.fixture
def no_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the propagator on a grid, where nobody looks at it."""
    monkeypatch.setattr(Bridge, "_exact_results", lambda run: {})


@pytest.mark.usefixtures("no_exact")
@pytest.mark.parametrize("stop", [3, 6])
def test_a_resumed_bridge_ends_where_it_would_have(tmp_path: Path, stop: int) -> None:
    whole = finish(small())
    part = small()
    for step in part.advance():
        if step.step == stop:
            break
    assert not part.finished
    part.save(tmp_path)
    again = finish(load(tmp_path))
    assert whole.trajectories is not None
    assert again.trajectories is not None
    assert torch.equal(whole.trajectories.log_weight, again.trajectories.log_weight)
    assert whole.result["log_evidence"] == again.result["log_evidence"]


def test_files(tmp_path: Path) -> None:
    finish(small()).save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        ".lock", "result.json", "config.toml", "history.csv", "checkpoint.pt", "figures",
    }  # fmt: skip
    assert (tmp_path / "figures" / "trajectories.png").stat().st_size > 5000
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["status"] == "finished"
    assert 0 < result["efficiency"] <= 1
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 8  # names, six updates, one batch of paths


def test_the_exact_propagator_stands_beside_it() -> None:
    """In one coordinate the result has the grid's log K; the drift learned in six updates already agrees with it."""
    run = finish(small(n_paths=8192, dt=0.125, noise=0.3))
    found, exact = run.result["log_evidence"], run.result["exact"]["mean"]
    assert found["error"] < 0.15
    assert abs(Estimate(found["mean"], found["error"]).deviation(exact)) < 4
    times = [0.5, 1.0, 1.5]
    bands = run.exact_quantiles(times)
    assert bands is not None
    assert bands.shape == (5, 3)
    assert abs(bands[2, 1]) < 0.05  # half way, by symmetry but for the noisy end


def test_transition_paths_of_a_simulation_have_no_propagator() -> None:
    run = small(dynamics="overdamped")
    assert run.propagator is None
    assert run.exact_quantiles([1.0]) is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"dynamics": "quantum"}, "dynamics"),
        ({"loss": "mse"}, "loss"),
        ({"time": -1.0}, "time"),
        ({"time": math.nan}, "time"),
        ({"noise": -0.1}, "noise"),
        ({"n_paths": 1}, "at least 2"),
        ({"dt": 3.0}, "longer"),
    ],
)
def test_bad_settings(changes: dict[str, object], why: str) -> None:
    with pytest.raises(BadConfig, match=why):
        small(**changes)


def test_the_function_is_the_command(tmp_path: Path) -> None:
    """The paths are those of `infer`, and what it saves is gone on with."""
    problem = bridge_problem(fk.load_potential("harmonic", omega=2.0), 0.1, 1.0, 1.0)
    expected = infer(problem, n_updates=2, n_paths=64, dt=0.25, seed=3)
    options = {"n_updates": 2, "n_paths": 64, "dt": 0.25, "seed": 3, "omega": 2.0}
    found = fk.bridge("harmonic", [[0.1]], torch.tensor(1.0), 1.0, out=tmp_path, progress=False, **options)
    assert torch.equal(found.trajectories.log_weight, expected.log_weight)
    assert found.log_evidence == expected.log_evidence
    assert fk.load(tmp_path).log_evidence == found.log_evidence


def test_the_function_heeds_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooLarge, match="give a longer dt than 1e-09"):
        fk.bridge("harmonic", -1.0, 1.0, 1.0, dt=1e-9, max_seconds=5.0)
    with pytest.raises(BadParameter, match="start = 'here' is not a position"):
        fk.bridge("harmonic", "here", 1.0, 1.0)
    monkeypatch.setattr("fkdrift.runs.starting.LEAST", 0.0)
    monkeypatch.setattr(Bridge, "_require_room", lambda *_: [time.sleep(0.01) for _ in range(2000)])
    with pytest.raises(OutOfTime, match=r"harmonic was not ready to begin after max_seconds = 0\.1"):
        fk.bridge("harmonic", -1.0, 1.0, 1.0, max_seconds=0.1)


def test_ends_have_to_fit_the_potential() -> None:
    with pytest.raises(BadParameter, match="start"):
        small(start=(0.0, 1.0))
    with pytest.raises(BadConfig, match=r"end = \[inf\] .* finite"):
        small(end=(math.inf,))


@pytest.mark.usefixtures("no_exact")
def test_a_finished_bridge_comes_back_with_its_paths(tmp_path: Path) -> None:
    run = finish(small(n_paths=6000))
    run.save(tmp_path, figures=False)
    again = load(tmp_path)
    assert again.finished
    assert torch.equal(again.trajectories.log_weight, run.trajectories.log_weight)
    assert again.result == run.result


@pytest.mark.usefixtures("no_exact")
def test_more_paths_can_be_asked_for(tmp_path: Path) -> None:
    """A finished bridge goes on to a larger number, as one that had been asked for it at first."""
    finish(small(n_paths=4096)).save(tmp_path, figures=False)
    more = finish(load(tmp_path, n_paths=5000))
    assert more.result["n_paths"] == 5000
    assert more.result["log_evidence"] == finish(small(n_paths=5000)).result["log_evidence"]


def test_command(tmp_path: Path) -> None:
    words = [
        "bridge",
        "-p",
        "double_well",
        "--from",
        "-1",
        "--to",
        "1",
        "--time",
        "2",
        "--noise",
        "0.3",
        "--updates",
        "4",
    ]
    words += ["--paths", "256", "--dt", "0.25", "--width", "8"]
    shown = CliRunner().invoke(cli.app, [*words, "--out", str(tmp_path / "b")])
    assert shown.exit_code == 0
    assert "log K" in shown.stdout
    assert "exact" in shown.stdout
    again = CliRunner().invoke(cli.app, [*words, "--out", str(tmp_path / "b")])
    assert again.exit_code == 2
    assert "fkdrift resume" in again.stderr
    told = CliRunner().invoke(cli.app, ["show", str(tmp_path / "b")])
    assert told.exit_code == 0
    block, figures = told.stdout.split("\n\n  figures in ")
    assert block.strip() in shown.stdout
    assert figures.strip() == f"{tmp_path / 'b' / 'figures'}: trajectories"
    quiet = CliRunner().invoke(cli.app, [*words, "--quiet"])
    assert quiet.stdout.strip() in shown.stdout
    over = CliRunner().invoke(cli.app, ["resume", str(tmp_path / "b")])
    assert over.exit_code == 0


@pytest.mark.usefixtures("no_exact")
def test_an_interruption_is_saved_and_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGINT after the third update: exit code 130, a folder, and a resumed run that equals an uninterrupted one."""

    @contextmanager
    def press_control_c(title: str, show: bool | None, symbol: str) -> Iterator[Callable[[Progress], None]]:
        yield lambda progress: signal.raise_signal(signal.SIGINT) if progress.step == 3 else None

    words = ["bridge", "-p", "double_well", "--from", "-1", "--to", "1", "-T", "2", "--updates", "6", "--paths", "256"]
    words += ["--dt", "0.25", "--width", "8"]
    whole = CliRunner().invoke(cli.app, [*words, "--quiet"]).stdout
    with monkeypatch.context() as patch:
        patch.setattr("fkdrift.runs.following.progress_line", press_control_c)
        shown = CliRunner().invoke(cli.app, [*words, "--out", str(tmp_path / "b")])
    assert shown.exit_code == 130
    assert "interrupted" in shown.stdout
    assert f"fkdrift resume {tmp_path / 'b'}" in shown.stderr
    assert CliRunner().invoke(cli.app, ["resume", str(tmp_path / "b"), "--quiet"]).stdout == whole


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--from", "-1"], "--potential"),
        (["-p", "double_well", "--from", "left", "--to", "1", "--time", "1"], "numbers"),
    ],
)
def test_bad_commands(words: list[str], why: str) -> None:
    shown = CliRunner().invoke(cli.app, ["bridge", *words])
    assert shown.exit_code == 2
    assert why in shown.stderr
