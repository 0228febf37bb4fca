"""The folder of a run: round trips, damage, strangers' files, and writes that fail half-way."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import tomllib
import zipfile

import pytest
import torch
from runs import SMALL

from fkdrift.errors import BadConfig, CannotWrite
from fkdrift.runs import run_folder as archive
from fkdrift.runs.run_folder import FORMAT, locked, read_checkpoint, read_result, write_folder
from fkdrift.runs.settings import Settings, read_config

POTENTIAL = {"name": "gaussian_bosons", "parameters": {"n_particles": 3, "g": 1.5}, "reloadable": True}


def save(folder, **changes):
    contents = {
        "config": {"kind": "ground state", "potential": POTENTIAL, "settings": Settings(**SMALL).to_dict()},
        "result": {"format": FORMAT, "energies": {"variational": {"mean": 1.0 / 3.0}}},
        "columns": ("phase", "step", "energy", "error", "seconds"),
        "rows": [("training", 1, 0.1, 0.2, 0.3), ("sampling", 7.0, -1.0 / 3.0, 1e-9, 4.0)],
        "checkpoint": {"walkers": torch.arange(6.0), "n_updates": 3, "none": None, "name": "ä", "list": [1, 2.5]},
    }
    with locked(folder):
        write_folder(folder, **{**contents, **changes})
    return contents


class Evil:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_round_trip(tmp_path):
    written = save(tmp_path / "a" / "b")
    folder = tmp_path / "a" / "b"
    state = read_checkpoint(folder)
    assert torch.equal(state["walkers"], written["checkpoint"]["walkers"])
    assert {k: v for k, v in state.items() if k not in ("walkers", "format")} == {
        k: v for k, v in written["checkpoint"].items() if k != "walkers"
    }
    assert read_result(folder) == written["result"]
    assert read_config(folder / "config.toml") == (POTENTIAL, Settings(**SMALL).to_dict())
    rows = (folder / "history.csv").read_text().splitlines()
    assert rows[0] == "phase,step,energy,error,seconds"
    assert rows[2].split(",")[:2] == ["sampling", "7"]
    assert float(rows[2].split(",")[2]) == -1.0 / 3.0
    assert sorted(os.listdir(folder)) == [".lock", "checkpoint.pt", "config.toml", "history.csv", "result.json"]


@pytest.mark.parametrize(
    "settings", [Settings(), Settings(atol=1e-3, max_seconds=5.0, drift="mlp", seed=7, dtype="float64")]
)
def test_settings_survive_toml(tmp_path, settings):
    save(tmp_path, config={"potential": POTENTIAL, "settings": settings.to_dict()})
    potential, values = read_config(tmp_path / "config.toml")
    assert Settings.from_values(values).to_dict() == settings.to_dict()
    assert potential == POTENTIAL


# Checkpoints that cannot be trusted


@pytest.mark.parametrize(
    ("evil_bytes", "words"), [(archive.sealed, "plain tensors"), (pickle.dumps, "not a checkpoint")]
)
def test_a_checkpoint_cannot_run_code(tmp_path, evil_bytes, words):
    victim = tmp_path / "created by the pickle"
    (tmp_path / "checkpoint.pt").write_bytes(evil_bytes({"drift": Evil(victim)}))
    with pytest.raises(BadConfig, match=words):
        read_checkpoint(tmp_path)
    assert not victim.exists()


def test_the_evil_checkpoint_is_evil(tmp_path):
    victim = tmp_path / "created by the pickle"
    pickle.loads(pickle.dumps(Evil(victim))).close()
    assert victim.exists()


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_truncated_checkpoints_are_refused(tmp_path, length):
    save(tmp_path)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(BadConfig, match=r"damaged|not a checkpoint"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("value", [{}, {"format": archive.FORMAT}, [1, 2], torch.zeros(3)])
def test_foreign_checkpoints_are_refused(tmp_path, value):
    """What torch.save alone has written has no checksum, and a format of the future is not guessed at."""
    torch.save(value, tmp_path / "checkpoint.pt")
    with pytest.raises(BadConfig, match="not a checkpoint of format"):
        read_checkpoint(tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(archive.sealed({"format": archive.FORMAT + 1}))
    with pytest.raises(BadConfig, match="another version"):
        read_checkpoint(tmp_path)


def test_a_checkpoint_is_still_what_torch_saves(tmp_path):
    """The checksum is the comment of the archive: torch and unzip read it as it is."""
    save(tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["n_updates"] == 3
    with zipfile.ZipFile(tmp_path / "checkpoint.pt") as file:
        assert file.testzip() is None
        assert len(file.comment) == 64


def test_every_changed_byte_is_noticed(tmp_path):
    """Not only those that the archive's own checksums cover."""
    save(tmp_path)
    path = tmp_path / "checkpoint.pt"
    content = path.read_bytes()
    for k in range(0, len(content), 7):
        path.write_bytes(content[:k] + bytes([content[k] ^ 1]) + content[k + 1 :])
        with pytest.raises(BadConfig, match="damaged"):
            read_checkpoint(tmp_path)


def test_a_changed_result_is_refused(tmp_path):
    save(tmp_path)
    path = tmp_path / "result.json"
    path.write_text(path.read_text().replace("0.333", "0.332"))
    with pytest.raises(BadConfig, match="was changed after it was written; fkdrift resume writes it again"):
        read_result(tmp_path)
    assert read_result(tmp_path, force=True)["energies"]["variational"]["mean"] < 0.333
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sha256": 3}))
    with pytest.raises(BadConfig, match="was changed"):
        read_result(tmp_path)


def test_missing_files(tmp_path):
    for read in (read_checkpoint, read_result):
        with pytest.raises(BadConfig, match="not a saved run"):
            read(tmp_path)
    (tmp_path / "result.json").write_text('{"energies": ')
    with pytest.raises(BadConfig, match=r"cannot read .*result\.json"):
        read_result(tmp_path)
    (tmp_path / "result.json").write_text('{"energies": {}}')
    with pytest.raises(BadConfig, match="another version"):
        read_result(tmp_path)


# Writing


def test_a_failed_write_leaves_the_old_run(tmp_path, monkeypatch):
    save(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotWrite, match=r"cannot write to .*No space left.*make room"):
        save(tmp_path, result={"other": 1})
    monkeypatch.undo()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="choose another"):
        save(tmp_path / "file" / "run")


def test_results_are_standard_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        save(tmp_path, result={"mean": float("nan")})
    save(tmp_path, result={"mean": None})
    written = json.loads((tmp_path / "result.json").read_text(), parse_constant=pytest.fail)
    assert written.keys() == {"mean", "sha256"}
    assert written["mean"] is None


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("at", range(9))
def test_a_kill_at_any_moment_of_a_save_leaves_one_whole_run(tmp_path, monkeypatch, at):
    """Another run takes the folder of a first: the checkpoint is whole, and no view of the other is beside it."""
    old, new = {"which": "first"}, {"which": "second"}
    save(tmp_path, checkpoint=old, config=old, result={"format": FORMAT, **old})
    calls = iter(range(100))

    def until(function):
        def call(*arguments, **options):
            if next(calls) == at:
                raise Killed
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(os, "replace", until(os.replace))
    monkeypatch.setattr(os, "fsync", until(os.fsync))
    with contextlib.suppress(Killed):
        save(tmp_path, checkpoint=new, config=new, result={"format": FORMAT, **new})
    monkeypatch.undo()
    which = read_checkpoint(tmp_path)["which"]
    config, result = tmp_path / "config.toml", tmp_path / "result.json"
    assert not config.exists() or tomllib.loads(config.read_text()) == {"which": which}
    assert not result.exists() or read_result(tmp_path)["which"] == which
    assert which == ("first" if at < 5 else "second")


def test_a_folder_belongs_to_one_process(tmp_path):
    """Another one is refused, the same thread may come again, and the lock ends with its process."""
    code = "import sys, time; from pathlib import Path; from fkdrift.runs.run_folder import locked\n"
    code += "with locked(Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(CannotWrite, match="another process is working in"):
            save(tmp_path)
        other.kill()
    with locked(tmp_path), locked(tmp_path):
        save(tmp_path)


# Settings


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"n_walker": 3}, "did you mean n_walkers"),
        ({"zzz": 3}, "Known settings: seed"),
        ({"n_walkers": 1}, "at least 2"),
        ({"n_walkers": 2.5}, "whole number"),
        ({"seed": -1}, "at least 0"),
        ({"seed": True}, "whole number"),
        ({"atol": 0.0}, "above 0"),
        ({"atol": "small"}, "a number"),
        ({"max_seconds": float("inf")}, "finite"),
        ({"drift": "spline"}, "gradient, mlp"),
        ({"dtype": "float16"}, "float32, float64"),
        ({"device": 3}, "text"),
    ],
)
def test_settings_out_of_range(values, words):
    with pytest.raises(BadConfig, match=words):
        Settings.from_values(values)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed = ", "as TOML"),
        ("[sittings]\nseed = 1", "unknown tables"),
        ("settings = 3", "must be a table"),
        ("[settings]\nseed = 1\nseed = 2", "as TOML"),
    ],
)
def test_config_files_that_cannot_be_read(tmp_path, text, words):
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(BadConfig, match=words):
        read_config(tmp_path / "config.toml")


def test_unknown_devices():
    with pytest.raises(BadConfig, match="not a device"):
        _ = Settings(device="abacus").torch_device
    with pytest.raises(BadConfig, match="--device cpu"):
        _ = Settings(device="cuda:99").torch_device
    assert Settings(device="cpu").torch_device == torch.device("cpu")
