"""What a name of a potential can mean, as far as that shows without importing anything heavy: plug-in, file or formula.

`fkdrift solve --potential harmonc` is refused here, before torch is imported.
"""

from __future__ import annotations

import difflib
import re
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from fkdrift.errors import UnknownPotential

GROUP = "fkdrift.potentials"
VARIABLES = ("x", "y", "z", "r")
"""Of a formula."""

_WAYS = "a file.py:Name, a formula such as 'x**2/2', a table.csv or table.npz, or ase:module:Class"


def installed() -> dict[str, EntryPoint]:
    """Entry points, sorted by name; where two distributions use one name, fkdrift's own is kept."""
    found = sorted(entry_points(group=GROUP), key=_priority)
    first = {entry.name: entry for entry in reversed(found)}
    return dict(sorted(first.items()))


def distribution(entry: EntryPoint) -> str:
    """The package that a plug-in comes from."""
    return entry.dist.name if entry.dist else "unknown"


def refuse_unknown(text: str) -> None:
    """Raise unless the text can name a potential: a plug-in, a class in a file, a table or a formula.

    Raises:
        UnknownPotential: it cannot; the message has the closest names.
    """
    text = text.strip()
    if text in installed() or code_file(text) is not None or text.endswith((".csv", ".npz")):
        return
    if text.endswith(".py"):
        raise UnknownPotential(f"{text!r} is a file: say which potential in it, as {text}:Name")
    if text and (found := file_called(text)) is not None and found.exists():
        raise UnknownPotential(f"{text!r} exists, but is not of a kind that can be read: give {_WAYS}")
    if not is_formula(text):
        raise UnknownPotential(_unknown(text))


def code_file(text: str) -> str | None:
    """What would be executed for a name: the file of file.py:Name, or the whole of ase:module:Class; otherwise None."""
    text = text.strip()
    path, colon, _ = text.rpartition(":")
    return text if text.startswith("ase:") else path if colon and path.endswith(".py") else None


def file_called(text: str) -> Path | None:
    """The absolute path of a file by a name that somebody gave; None where no file can have that name."""
    try:
        file = Path(text).expanduser().absolute()
        file.stat()
    except FileNotFoundError:
        return file
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, ~ of nobody
        return None
    return file


def is_formula(text: str) -> bool:
    """Whether the text is meant as a formula: it has a variable in it, or more than letters."""
    words = set(re.findall(r"[^\W\d]\w*", text))
    return bool(words & set(VARIABLES)) or not re.fullmatch(r"[\w\s.+-]*[^\W\d][\w\s.+-]*|", text)


def _priority(entry: EntryPoint) -> tuple[bool, str]:
    return distribution(entry) != "fkdrift", distribution(entry)


def _unknown(text: str) -> str:
    entries = installed()
    close = difflib.get_close_matches(text.lower().replace("-", "_"), entries, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"unknown potential {text[:80]!r}: {hint}Installed: {', '.join(entries)}. Or give {_WAYS}."
