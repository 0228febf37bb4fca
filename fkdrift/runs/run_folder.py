"""The folder of a run: what is written, atomically, and how it is read back.

    result.json     the result, against result.schema.json            config.toml    enough to run it again
    history.csv     energy and error at every update and block        checkpoint.pt  tensors only: weights_only=True
    figures/*.png   pictures

A checkpoint holds nothing but tensors, numbers, text, lists and dicts, and is loaded with weights_only=True: one from
a stranger cannot run code.
"""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w

from fkdrift.errors import BadConfig, CannotWrite

FORMAT = 2
"""Of result.json and checkpoint.pt; docs/result.md says what changed."""


def write_folder(
    folder: Path,
    checkpoint: Mapping[str, Any],
    result: Mapping[str, Any],
    config: Mapping[str, Any],
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
) -> None:
    """Write checkpoint.pt, result.json, config.toml and history.csv; each appears whole or not at all.

    Args:
        folder: made if it is not there.
        checkpoint, result, config: their contents.
        columns, rows: of history.csv: a phase, a step, numbers, and seconds.

    Raises:
        CannotWrite: the disk is full, or the folder cannot be made or written to.
    """
    import torch  # here: what reads a result needs none

    make_folder(folder)
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(columns)
    writer.writerows([phase, int(step), *map(repr, values), f"{s:.3f}"] for phase, step, *values, s in rows)
    texts = {
        "result.json": json.dumps(result, indent=2, allow_nan=False) + "\n",
        "config.toml": tomli_w.dumps(config),
        "history.csv": table.getvalue(),
    }
    replace(folder / "checkpoint.pt", lambda path: torch.save({"format": FORMAT, **checkpoint}, path))
    for name, text in texts.items():
        replace(folder / name, partial(write_text, text))


def write_text(text: str, path: Path) -> None:
    """Write text with the line ends that it has."""
    path.write_text(text, encoding="utf-8", newline="")


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the file, then put the new one in its place.

    Raises:
        CannotWrite: there is no room, or no permission.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        write(temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CannotWrite(f"cannot write {path}: {reason}; make room, or choose another folder") from None
    finally:
        temporary.unlink(missing_ok=True)


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
    import torch

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
        BadConfig: there is none, it is damaged, or it is of another format.
    """
    path = folder / "result.json"
    if not path.is_file():
        raise BadConfig(f"{folder} is not a saved run: it has no result.json")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadConfig(f"cannot read {path}: {error}") from None
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise BadConfig(f"{path} is not a result of format {FORMAT}: it was written by another version; run it again")
    return result
