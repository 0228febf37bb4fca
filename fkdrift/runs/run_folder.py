"""The folder of a run: what is written, atomically, and how it is read back.

    result.json     the result, against result.schema.json            config.toml    enough to run it again
    history.csv     energy and error at every update and block        checkpoint.pt  tensors only: weights_only=True
    figures/*.png   pictures (written by the report)

A checkpoint holds nothing but tensors, numbers, text, lists and dicts, and is loaded with weights_only=True: one from
a stranger cannot run code.
"""

from __future__ import annotations

import csv
import json
import os
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fkdrift.errors import BadConfig, CannotWrite
from fkdrift.runs.settings import Settings, write_config

FORMAT = 1
HISTORY_COLUMNS = ("phase", "step", "energy", "error", "seconds")
PHASES = ("training", "trajectories", "sampling")


def write_run(
    folder: Path,
    *,
    potential: dict[str, Any],
    settings: Settings,
    result: dict[str, Any],
    history: list[list[float]],
    checkpoint: dict[str, Any],
) -> None:
    """Write result.json, config.toml, history.csv and checkpoint.pt; each appears whole or not at all.

    Raises:
        CannotWrite: the disk is full, or the folder cannot be made or written to.
    """
    others = {
        "config.toml": lambda path: write_config(path, settings, potential=potential),
        "history.csv": lambda path: write_history(path, HISTORY_COLUMNS, ([PHASES[int(p)], *r] for p, *r in history)),
    }
    write_folder(folder, checkpoint, result, others)


def write_folder(
    folder: Path,
    checkpoint: dict[str, Any],
    result: dict[str, Any],
    others: Mapping[str, Callable[[Path], object]],
) -> None:
    """Write checkpoint.pt, result.json and other files by what writes them; each appears whole or not at all.

    Raises:
        CannotWrite: the disk is full, or the folder cannot be made or written to.
    """
    make_folder(folder)
    _replace(folder / "checkpoint.pt", lambda path: torch.save({"format": FORMAT, **checkpoint}, path))
    text = json.dumps(result, indent=2, allow_nan=False) + "\n"
    _replace(folder / "result.json", lambda path: path.write_text(text, encoding="utf-8"))
    for name, write in others.items():
        _replace(folder / name, write)


def make_folder(folder: Path) -> None:
    """The folder of a run, made before anything is computed.

    Raises:
        CannotWrite: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"cannot make the folder {folder}: {error.strerror}; choose another") from None


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The checkpoint in a run's folder, on the CPU; or in a file.

    Raises:
        BadConfig: there is none, it is damaged, it holds anything but plain data, or it is of another format.
    """
    path = folder if folder.is_file() else folder / "checkpoint.pt"
    if not path.is_file():
        raise BadConfig(f"{folder} is not a saved run: it has no checkpoint.pt")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BadConfig(
            f"cannot load {path}: it is damaged or is not a checkpoint of plain tensors ({reason})"
        ) from None
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise BadConfig(
            f"{path} is not a checkpoint of format {FORMAT}: it was written by something else, or another version"
        )
    return checkpoint


def read_result(folder: Path) -> dict[str, Any]:
    """The contents of result.json.

    Raises:
        BadConfig: there is none, or it is damaged.
    """
    path = folder / "result.json"
    if not path.is_file():
        raise BadConfig(f"{folder} is not a saved run: it has no result.json")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadConfig(f"cannot read {path}: {error}") from None


def write_history(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table of progress: a phase, a step, numbers, and seconds."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for phase, step, *values, seconds in rows:
            writer.writerow([phase, int(step), *map(repr, values), f"{seconds:.3f}"])


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the file, then put the new one in its place."""
    temporary = path.with_name(path.name + ".new")
    try:
        write(temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CannotWrite(f"cannot write {path}: {reason}; make room, or choose another folder") from None
    finally:
        temporary.unlink(missing_ok=True)
