"""Small runs for the tests of everything around the physics, and the ways to compare two of them."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from fkdrift.runs.settings import Settings

SMALL: dict[str, Any] = {
    "width": 8,
    "n_walkers": 32,
    "n_updates": 8,
    "path_step": 0.25,
    "n_equilibration": 1,
    "n_path_blocks": 2,
    "n_blocks": 8,
    "project": False,
}
COMMAND = [sys.executable, "-m", "fkdrift"]

SIGNALLING = '''
"""A quartic oscillator that sends its own process a signal at the AT-th evaluation of V inside the run."""
import os, signal
from dataclasses import dataclass

from fkdrift.hamiltonian.potential import Potential

CALLS = [0]

@dataclass(frozen=True)
class Quartic(Potential):
    formula = "V = x^4/2"

    def __call__(self, r):
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            CALLS[0] += 1
        if CALLS[0] == int(os.environ.get("AT", -1)):
            CALLS[0] += 1
            os.kill(os.getpid(), getattr(signal, os.environ["SIGNAL"]))
        return r.pow(4).sum((-2, -1)) / 2
'''


def fkdrift(*arguments: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def small(**options: Any) -> Settings:
    """Settings of a small run by the method, drift and optimiser among the options."""
    chosen = Settings(**{name: options[name] for name in ("method", "drift", "optimiser") if name in options})
    return chosen.changed(**{name: value for name, value in {**SMALL, "n_steps": 8}.items() if chosen.uses(name)})


def write_small_config(folder: Path, **settings: object) -> Path:
    """A config file with the settings of a small run."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in {**SMALL, **settings}.items()]
    path = folder / "small.toml"
    path.write_text("[settings]\n" + "\n".join(lines) + "\n")
    return path


def history(folder: Path) -> list[list[str]]:
    """The rows of history.csv without the seconds, which differ between runs."""
    with (folder / "history.csv").open() as file:
        return [row[:-1] for row in csv.reader(file)]


def checkpoint(folder: Path) -> dict[str, Any]:
    """The checkpoint without what depends on the clock."""
    return without_clock(torch.load(folder / "checkpoint.pt", weights_only=True))


def without_clock(state: Any) -> Any:
    """A state, and all states inside of it, without seconds and speeds."""
    clock = ("seconds", "per_second")
    if isinstance(state, list):
        return [without_clock(each) for each in state]
    if not isinstance(state, dict):
        return state
    rest = {name: without_clock(value) for name, value in state.items() if not str(name).endswith(clock)}
    if isinstance(table := state.get("history"), dict):
        rest["history"] = {phase: rows[:, :-1] for phase, rows in table.items()}
    if isinstance(curve := state.get("curve"), torch.Tensor):
        rest["curve"] = curve[:, :-1]
    return rest


def assert_same(a: Any, b: Any, where: str = "checkpoint") -> None:
    """Equal to the last bit, all the way down."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for k, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{k}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where
