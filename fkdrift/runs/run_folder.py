"""The folder of a run: what is written, atomically, and how it is read back.

    result.json     the result, against result.schema.json            config.toml    enough to run it again
    history.csv     energy and error at every update and block        checkpoint.pt  tensors only: weights_only=True
    figures/*.png   pictures                                          .lock          held by the process that works here

checkpoint.pt is the run; the others are views of it, and are written after it.  It holds nothing but tensors, numbers,
text, lists and dicts, and is loaded with weights_only=True: one from a stranger cannot run code.  Its SHA-256 is the
comment of its zip archive and is compared before anything in it is parsed; that of result.json is its last entry.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import filelock
import tomli_w

from fkdrift.errors import BadConfig, CannotWrite

FORMAT = 3
"""Of result.json and checkpoint.pt; docs/result.md says what changed."""
CHECKPOINT, VIEWS = "checkpoint.pt", ("config.toml", "history.csv", "result.json")
NO_COMMENT, SEAL_BYTES = b"\0\0", 64
"""The length of the comment that torch gives its archives, and the length of a SHA-256 in hexadecimal digits."""
LOCK_SECONDS = 2.0
"""How long a folder is waited for: a killed process and its children are not cleared away at once."""


def write_folder(
    folder: Path,
    checkpoint: Mapping[str, Any],
    result: Mapping[str, Any],
    config: Mapping[str, Any],
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
) -> None:
    """Write checkpoint.pt, then config.toml, history.csv and result.json; each appears whole or not at all.

    All are on the disk before the first takes its place.  Views of another run are taken away before the checkpoint is
    replaced, so that whenever the process is killed what is there belongs together.

    Args:
        folder: `locked` by whoever calls this; made if it is not there.
        checkpoint, result, config: their contents.
        columns, rows: of history.csv: a phase, a step, numbers, and seconds.

    Raises:
        CannotWrite: the disk is full, or the folder cannot be made or written to.
    """
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(columns)
    writer.writerows([phase, int(step), *map(repr, values), f"{s:.3f}"] for phase, step, *values, s in rows)
    signed = {**result, "sha256": _digest_of_result(result)}
    texts = (tomli_w.dumps(config), table.getvalue(), json.dumps(signed, indent=2, allow_nan=False) + "\n")
    contents = {CHECKPOINT: sealed(checkpoint), **{n: t.encode() for n, t in zip(VIEWS, texts, strict=True)}}
    config_now = folder / VIEWS[0]
    make_folder(folder)
    another = config_now.exists() and config_now.read_bytes() != contents[VIEWS[0]]
    replace_all(folder, contents, stale=VIEWS if another else ())


def sealed(checkpoint: Mapping[str, Any]) -> bytes:
    """A checkpoint as torch.save writes it, with its SHA-256 as the comment of the archive."""
    import torch  # here: what reads a result needs none

    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **checkpoint}, buffer)
    archive = buffer.getvalue()
    seal = hashlib.sha256(archive).hexdigest().encode()
    return archive.removesuffix(NO_COMMENT) + SEAL_BYTES.to_bytes(2, "little") + seal


def _digest_of_result(result: Mapping[str, Any]) -> str:
    """SHA-256 of a result without its own entry, whatever the order of the entries and the white space."""
    plain = {name: value for name, value in result.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def replace_all(folder: Path, contents: Mapping[str, bytes], stale: Iterable[str] = ()) -> None:
    """Write every file beside the old one and flush it to the disk, then put the new ones in their places in order.

    Args:
        folder: of the files.
        contents: by name.
        stale: names of files that are taken away before the first new one is in its place.

    Raises:
        CannotWrite: there is no room, or no permission; the old files are still there.
    """
    new = {name: folder / f"{name}.new" for name in contents}
    try:
        for name, content in contents.items():
            with new[name].open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for name in stale:
            (folder / name).unlink(missing_ok=True)
        for name, path in new.items():
            os.replace(path, folder / name)
        _flush(folder)
    except OSError as error:
        raise CannotWrite(f"cannot write to {folder}: {error}; make room, or choose another folder") from None
    finally:
        for path in new.values():
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _flush(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder for this thread alone, made if it is not there; a thread that has it already may enter again.

    The lock is the system's: it ends with its process, however that ends, once the system has cleared it and the
    children that it was just starting away.

    Raises:
        CannotWrite: another process has it, or it cannot be made or written to.
    """
    make_folder(folder)
    lock = filelock.FileLock(folder.resolve() / ".lock", timeout=LOCK_SECONDS, is_singleton=True)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise CannotWrite(
            f"another process is working in {folder}: wait for it, stop it, or choose another folder"
        ) from None
    except (OSError, NotImplementedError) as error:
        raise CannotWrite(f"cannot write to {folder}: {error}; choose another folder") from None
    try:
        yield
    finally:
        lock.release()


def make_folder(folder: Path) -> None:
    """The folder of a run, made before anything is computed.

    Raises:
        CannotWrite: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # a null byte is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise CannotWrite(f"cannot make the folder {str(folder)!r}: {reason}; choose another") from None


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The checkpoint in a run's folder, on the CPU; or in a file.

    Raises:
        BadConfig: there is none, it is damaged, it holds anything but plain data, or it is of another format.
    """
    import torch

    path = folder if folder.is_file() else folder / CHECKPOINT
    if not path.is_file():
        raise BadConfig(f"{folder} is not a saved run: it has no {CHECKPOINT}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadConfig(f"cannot read {path}: {error.strerror}") from None
    archive, seal = content[: -SEAL_BYTES - 2] + NO_COMMENT, content[-SEAL_BYTES:]
    if hashlib.sha256(archive).hexdigest().encode() != seal:
        raise BadConfig(
            f"{path} is damaged, was changed, or is not a checkpoint of format {FORMAT}: its checksum is not that of "
            "its contents; run it again, or take a copy of the folder"
        )
    try:
        checkpoint = torch.load(io.BytesIO(archive), map_location="cpu", weights_only=True)
    except Exception as error:  # a file with the right checksum that nobody here wrote
        raise BadConfig(
            f"cannot load {path}: it is not a checkpoint of plain tensors ({type(error).__name__})"
        ) from None
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise BadConfig(
            f"{path} is not a checkpoint of format {FORMAT}: it was written by something else, or another version"
        )
    return checkpoint


def read_history(folder: Path) -> tuple[str, dict[str, list[list[float]]]]:
    """What history.csv is about, such as "energy", and its rows (step, mean, error, seconds) by phase.

    Raises:
        BadConfig: there is none, or it is damaged.
    """
    path = folder / "history.csv"
    try:
        header, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
        history: dict[str, list[list[float]]] = {}
        for phase, *numbers in rows:
            history.setdefault(phase, []).append([float(each) for each in numbers])
        return header[2], history
    except (OSError, ValueError, IndexError) as error:
        raise BadConfig(f"cannot read {path}: {error}; {REWRITE}") from None


def read_result(folder: Path, force: bool = False) -> dict[str, Any]:
    """The contents of result.json.

    Args:
        folder: of the run.
        force: read it although it was changed after it was written.

    Raises:
        BadConfig: there is none, it is damaged or was changed, or it is of another format.
    """
    path = folder / "result.json"
    if not path.is_file():
        raise BadConfig(f"{folder} is not a saved run: it has no result.json")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadConfig(f"cannot read {path}: {error}; {REWRITE}") from None
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise BadConfig(f"{path} is not a result of format {FORMAT}: it was written by another version; run it again")
    if result.pop("sha256", None) != _digest_of_result(result) and not force:
        raise BadConfig(f"{path} was changed after it was written; {REWRITE}, --force shows it as it is")
    return result


def check_result(result: Mapping[str, Any]) -> None:
    """Refuse a result with an entry of another type or range than result.schema.json says.

    Entries that it does not know are not its business, and neither are kinds of run.

    Raises:
        BadConfig: with the first entry that does not fit.
        ValueError, TypeError: it cannot be written as strict JSON.
    """
    plain = json.loads(json.dumps(result, allow_nan=False))
    if (checker := _checker(plain["kind"])) is None:
        return
    for error in checker.iter_errors(plain):
        if error.validator not in ("additionalProperties", "unevaluatedProperties"):
            raise BadConfig(f"{error.json_path.removeprefix('$.')} is not that of a result: {error.message}"[:300])


@cache
def _checker(kind: str) -> Any:
    """What checks results of one kind; None where the schema does not know it."""
    from jsonschema import Draft202012Validator  # here: what is new need not be checked

    schema = json.loads((files("fkdrift.runs") / "result.schema.json").read_text(encoding="utf-8"))
    if kind not in schema["properties"]["kind"]["enum"]:
        return None
    return Draft202012Validator({**schema, "oneOf": [{}], "allOf": [{"$ref": f"#/$defs/{kind.replace(' ', '_')}"}]})


REWRITE = "fkdrift resume writes it again from checkpoint.pt"
