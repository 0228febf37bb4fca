"""Whether a saved state belongs to the run that is to take it over: the same subject, settings, sources and shapes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from fkdrift.errors import BadConfig
from fkdrift.hamiltonian.names import code_file, file_called
from fkdrift.settings import RunSettings, fields_of

State = dict[str, Any]
"""Tensors, numbers, text, lists and dicts: what a checkpoint may hold."""


def code_in(config: Mapping[str, Any]) -> list[str]:
    """What a configuration names that would be executed: file.py:Name, ase:module:Class."""
    return sorted({text for _, text in leaves(config) if isinstance(text, str) and code_file(text) is not None})


def code_digests(config: Mapping[str, Any]) -> dict[str, str]:
    """The SHA-256 of every Python file that a configuration names."""
    files = {text: file_called(code_file(text) or "") for text in code_in(config)}
    there = {text: file for text, file in files.items() if file is not None and file.is_file()}
    return {text: hashlib.sha256(file.read_bytes()).hexdigest() for text, file in there.items()}


def differences(
    saved: Mapping[str, Any], now: Mapping[str, Any], settings: type[RunSettings] | None = None
) -> list[str]:
    """How two configurations or fingerprints differ, name by name, for a message; nothing where they agree.

    Args:
        saved, now: nested plain values.
        settings: those of them that take a run further may differ.
    """
    free = (
        {f"settings.{name}" for name, field in fields_of(settings).items() if field.about.extends} if settings else ()
    )
    old, new = dict(leaves(saved)), dict(leaves(now))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name) and name not in free]
    return [f"{name} = {_short(new.get(name))} (it was {_short(old.get(name))})" for name in names]


def leaves(values: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is not a dict or a list, with the path to it."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from leaves(value, f"{where}.{name}" if where else str(name))
    elif isinstance(values, list | tuple):
        for k, value in enumerate(values):
            yield from leaves(value, f"{where}[{k}]")
    else:
        yield where, values


def check_state(value: Any, like: Any, where: str = "") -> None:
    """Refuse a saved state whose names, types, dtypes or shapes are not those of the state that it is to replace.

    What is not yet known in `like` (None, an empty list or dict, a size of 0 in a tensor) may be anything plain, and
    lists of numbers may have any length.

    Raises:
        BadConfig: with the name of the first entry that does not fit.
    """
    if isinstance(like, Tensor):
        fits = isinstance(value, Tensor) and value.dtype == like.dtype and value.ndim == like.ndim
        fits = fits and all(a == b for a, b in zip(value.shape, like.shape, strict=True) if b)
    elif isinstance(like, Mapping):
        fits = isinstance(value, Mapping) and (not like or like.keys() == value.keys())
    elif isinstance(like, list | tuple):
        some = isinstance(like, list) and all(type(each) in (int, float) for each in like)  # any number of numbers
        fits = isinstance(value, list | tuple) and (some or len(like) == len(value))
    elif isinstance(like, bool) or not isinstance(like, int | float):
        fits = like is None or type(value) is type(like)
    else:
        fits = type(value) in ((int,) if isinstance(like, int) else (int, float))
    if not fits:
        raise BadConfig(f"{where or 'the state'} is {_kind(value)}, not {_kind(like)}")
    if isinstance(like, Mapping):
        for name, inner in like.items():
            check_state(value[name], inner, f"{where}.{name}".lstrip("."))
    elif isinstance(like, list | tuple) and like:
        for k, inner in enumerate(value):
            check_state(inner, like[min(k, len(like) - 1)], f"{where}[{k}]")


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a table of {', '.join(map(str, value)) or 'nothing'}"[:120]
    return f"a list of {len(value)}" if isinstance(value, list | tuple) else type(value).__name__


def _short(value: object) -> str:
    return "missing" if value is None else f"{value!r}"[:60]
