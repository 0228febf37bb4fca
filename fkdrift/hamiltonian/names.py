"""What a name of a potential can mean, as far as that shows without importing anything heavy: plug-in, file or formula.

`fkdrift solve --potential harmonc` is refused here, before torch is imported.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from fkdrift.errors import BadParameter, UnknownPotential, did_you_mean

GROUP = "fkdrift.potentials"
VARIABLES = ("x", "y", "z", "r")
"""Of a formula."""

_WAYS = "a file.py:Name, a formula such as 'x**2/2', a table.csv or table.npz, or ase:module:Class"


def installed() -> dict[str, EntryPoint]:
    """Entry points, sorted by name; where two distributions use one name, fkdrift's own is kept."""
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        other = found.get(entry.name)
        if other is None or _priority(entry) < _priority(other):  # whose package it is takes long to read
            found[entry.name] = entry
    return dict(sorted(found.items()))


def distribution(entry: EntryPoint) -> str:
    """The package that a plug-in comes from."""
    return entry.dist.name if entry.dist else "unknown"


def refuse_unknown(text: str) -> None:
    """Raise unless the text can name a potential: a plug-in, a class in a file that is there, a table or a formula.

    Raises:
        UnknownPotential: it cannot; the message has the closest names.
    """
    text = text.strip()
    named = text if text.endswith((".csv", ".npz")) else code_file(text)
    if (
        named is not None
        and not named.startswith("ase:")
        and ((file := file_called(named)) is None or not file.is_file())
    ):
        raise UnknownPotential(f"there is no file {named[:200]!r}; check the path")
    if text in installed() or named is not None:
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


def parse_parameters(assignments: Iterable[str]) -> dict[str, object]:
    """Parameters from the command line: ["omega=2", "n_dims=3"] to {"omega": 2, "n_dims": 3}.

    Values are Python literals (numbers, true/false, tuples); anything else stays a string.

    Raises:
        BadParameter: an assignment has no `=`, no name, or a name given before.
    """
    parameters: dict[str, object] = {}
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not (equals and name.isidentifier() and text):
            raise BadParameter(f"cannot read the parameter {assignment!r}: write name=value, such as omega=2")
        if name in parameters:
            raise BadParameter(f"the parameter {name} was given twice: {parameters[name]!r} and {text}; keep one")
        parameters[name] = _literal(text)
    return parameters


def refuse_unknown_parameters(text: str, names: Iterable[str]) -> None:
    """Raise where a plug-in or a class in a file has no parameter of one of these names.

    The fields are read from the source, which is not imported; where that does not say all of them, because the class
    inherits some or is no dataclass, nothing is refused here.

    Raises:
        BadParameter: it has no such parameter; the message has the closest.
    """
    path, colon, name = text.strip().rpartition(":")
    if entry := installed().get(text.strip()):
        module, _, name = entry.value.partition(":")
        spec = find_spec(module)
        path, colon = (spec.origin if spec and spec.origin else ""), ":"
    if colon and path.endswith(".py") and Path(path).is_file():
        for node in ast.parse(Path(path).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name == name and _says_all(node):
                fields = [
                    ast.unparse(line.target)
                    for line in node.body
                    if isinstance(line, ast.AnnAssign) and _is_field(line)
                ]
                refuse_unknown_names(name, names, fields)


def refuse_unknown_names(label: str, names: Iterable[str], allowed: Iterable[str]) -> None:
    """Raise BadParameter, with the closest, where a name is not allowed."""
    allowed = list(allowed)
    for name in names:
        if name not in allowed:
            hint = did_you_mean(name, allowed)
            raise BadParameter(f"{label} has no parameter {name!r}: {hint}It has {', '.join(allowed) or 'none'}.")


def _says_all(node: ast.ClassDef) -> bool:
    """Whether all parameters of a class are fields that are written in it: a dataclass, and nothing but a Potential."""
    bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
    return bases == ["Potential"] and any("dataclass" in ast.unparse(each) for each in node.decorator_list)


def _is_field(line: ast.AnnAssign) -> bool:
    """Whether an annotated line of a dataclass is a field."""
    return isinstance(line.target, ast.Name) and "ClassVar" not in ast.unparse(line.annotation)


def _literal(text: str) -> object:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text) if len(text) <= 1000 else text
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def is_formula(text: str) -> bool:
    """Whether the text is meant as a formula: it has a variable in it, or more than letters."""
    words = set(re.findall(r"[^\W\d]\w*", text))
    return bool(words & set(VARIABLES)) or not re.fullmatch(r"[\w\s.+-]*[^\W\d][\w\s.+-]*|", text)


def _priority(entry: EntryPoint) -> tuple[bool, str]:
    return distribution(entry) != "fkdrift", distribution(entry)


def _unknown(text: str) -> str:
    entries = installed()
    hint = did_you_mean(text.lower().replace("-", "_"), entries, n=3)
    return f"unknown potential {text[:80]!r}: {hint}Installed: {', '.join(entries)}. Or give {_WAYS}."
