"""Models that `fkdrift learn` can train: one file each, found by its name.

A file `my_model.py` here, with a `RECIPE` (see `fkdrift.runs.recipes.recipe`), is the command `fkdrift learn my-model`;
the first line of its docstring is the command's help.
"""

from __future__ import annotations

import ast
import pkgutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fkdrift.errors import BadParameter

if TYPE_CHECKING:  # imported where it is used, so that the names are known without torch
    from fkdrift.runs.recipes.recipe import Recipe


def names() -> list[str]:
    """The models' names."""
    return [file.name.replace("_", "-") for file in pkgutil.iter_modules(__path__) if file.name != "recipe"]


def summary(name: str) -> str:
    """The first line of a model's file, read without importing it."""
    spec = find_spec(_module(name))
    source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def find_recipe(name: object) -> Recipe:
    """The recipe of a model.

    Raises:
        BadParameter: nothing goes by this name.
    """
    if name not in names():
        raise BadParameter(f"there is no model called {name!r}: choose from {', '.join(names())}")
    return import_module(_module(str(name))).RECIPE


def _module(name: str) -> str:
    return f"{__name__}.{name.replace('-', '_')}"
