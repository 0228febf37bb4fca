"""Damaged, edited and forged run folders of every kind: refused in one line, or the numbers are the same."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from campaign.inputs import damaged
from campaign.kinds import shorter, small_runs
from campaign.tally import Tally
from fkdrift.runs.driver import drive, load, show
from fkdrift.runs.run import Run
from fkdrift.runs.run_folder import read_checkpoint, sealed

FILES = ("checkpoint.pt", "config.toml", "result.json")


def folders(n: int, seed: int, folder: Path) -> Tally:
    """Random damage and edits; few faults are of few kinds of run."""
    tally, rng, runs = Tally("run folders"), random.Random(seed), small_runs()
    whole: dict[str, tuple[Path, dict[str, Any], str]] = {}
    names, work = rng.sample(list(runs), min(len(runs), 1 + n // 20)), folder / "work"
    for k, name in enumerate(names):
        with shorter():
            place = drive(runs[name](), progress=False).save(folder / str(k), figures=False)
        whole[name] = place, _numbers(load(place)), str(show(place))
    for k in range(n):
        name = rng.choice(names)
        origin, result, block = whole[name]
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(origin, work)
        what = _spoil(work, rng, [place for place, _, _ in whole.values()])
        what = f"folder {k}, a {name} with {what}"
        tally.attempt(what, lambda: _numbers(load(work)), lambda found, result=result: found == result)
        tally.attempt(what, lambda: str(show(work)), lambda found, block=block: found == block)
    return tally


def _numbers(run: Run) -> dict[str, Any]:
    """What the result says, without the clock and the settings that may be changed."""
    return {name: value for name, value in run.result.items() if name not in ("settings", "status")}


def _spoil(work: Path, rng: random.Random, others: list[Path]) -> str:
    """Do something to a folder; returns what."""
    file = work / rng.choice(FILES)
    kind = rng.randrange(6)
    if kind == 0:
        file.unlink()
        return f"no {file.name}"
    if kind == 1:
        other = rng.choice(others)
        shutil.copy(other / file.name, file)
        return f"the {file.name} of {other.name}"
    if kind == 2:
        return _edit(work / "config.toml", rng)
    if kind == 3:
        return _forge(work, rng)
    file.write_bytes(damaged(file.read_bytes(), rng))
    return f"a damaged {file.name}"


def _edit(config: Path, rng: random.Random) -> str:
    """Another number or word in config.toml."""
    text = config.read_text()
    values = list(re.finditer(r"= (.+)", text))
    chosen = rng.choice(values)
    new = rng.choice(("3", "-1", '"x**4"', "true", "[1, 2]", "0.5", '"/etc/passwd"', '"own.py:X"', "{}", "1e400", '""'))
    config.write_text(text[: chosen.start(1)] + new + text[chosen.end(1) :])
    return f"{text[max(0, chosen.start() - 20) : chosen.end()]!r} set to {new}"


def _forge(work: Path, rng: random.Random) -> str:
    """A checkpoint with one entry of another type or shape, under a checksum that fits."""
    state = read_checkpoint(work)
    table, path = state, []
    while True:
        key = rng.choice(list(table))
        path.append(str(key))
        if not isinstance(table[key], dict) or not table[key]:
            break
        table = table[key]
    old = table[key]
    new: list[Any] = [None, "text", [1, 2, 3], {"a": 1}, torch.zeros(2, 5, dtype=torch.float16), 2**70, -1, b"bytes"]
    new += (
        [old.unsqueeze(0), old[..., :-1] if old.ndim else old] if isinstance(old, torch.Tensor) else [[old], str(old)]
    )
    if "found" in path and isinstance(old, float):  # a number like any other, of which nothing else is kept
        new = [value for value in new if not isinstance(value, int)]
    table[key] = rng.choice(new)
    (work / "checkpoint.pt").write_bytes(sealed({k: v for k, v in state.items() if k != "format"}))
    return f"{'.'.join(path)} set to {type(table[key]).__name__}"
