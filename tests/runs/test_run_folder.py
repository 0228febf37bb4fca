"""The folder of a run: round trips, damage, strangers' files, and writes that fail half-way."""

from __future__ import annotations

import json
import os
import pickle

import pytest
import torch
from runs import SMALL

from fkdrift.errors import BadConfig, CannotWrite
from fkdrift.runs import run_folder as archive
from fkdrift.runs.run_folder import FORMAT, read_checkpoint, read_result, write_folder
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
    assert sorted(os.listdir(folder)) == ["checkpoint.pt", "config.toml", "history.csv", "result.json"]


@pytest.mark.parametrize(
    "settings", [Settings(), Settings(atol=1e-3, max_seconds=5.0, drift="mlp", seed=7, dtype="float64")]
)
def test_settings_survive_toml(tmp_path, settings):
    save(tmp_path, config={"potential": POTENTIAL, "settings": settings.to_dict()})
    potential, values = read_config(tmp_path / "config.toml")
    assert Settings.from_values(values).to_dict() == settings.to_dict()
    assert potential == POTENTIAL


# Checkpoints that cannot be trusted


@pytest.mark.parametrize("save_evil", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_checkpoint_cannot_run_code(tmp_path, save_evil):
    victim = tmp_path / "created by the pickle"
    save_evil({"format": archive.FORMAT, "drift": Evil(victim)}, tmp_path / "checkpoint.pt")
    with pytest.raises(BadConfig, match="plain tensors"):
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


@pytest.mark.parametrize("value", [{"format": archive.FORMAT + 1}, {}, [1, 2], torch.zeros(3)])
def test_foreign_checkpoints_are_refused(tmp_path, value):
    torch.save(value, tmp_path / "checkpoint.pt")
    with pytest.raises(BadConfig, match="another version"):
        read_checkpoint(tmp_path)


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

    def full(value, path):
        path.write_bytes(b"half of it")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CannotWrite, match=r"cannot write .*checkpoint\.pt.*make room"):
        save(tmp_path, result={"other": 1})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="choose another"):
        save(tmp_path / "file" / "run")


def test_results_are_standard_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        save(tmp_path, result={"mean": float("nan")})
    save(tmp_path, result={"mean": None})
    assert json.loads((tmp_path / "result.json").read_text(), parse_constant=pytest.fail) == {"mean": None}


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
