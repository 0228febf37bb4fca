"""Folders in which every file brings one command, found by the file's name."""

from __future__ import annotations

import ast
import pkgutil
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fkdrift.errors import BadParameter

BESIDE = "_settings"
"""How a file beside that of a thing ends, with its settings alone."""


@dataclass(frozen=True)
class Folder:
    """The modules of a package that hold one thing each, such as a model in `my_model.py`, called `my-model`.

    Args:
        package: its full name.
        attribute: what each module calls the thing.
        noun: what it is.
        others: modules of the package that hold something else.
    """

    package: str
    attribute: str
    noun: str
    others: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """What there is; nothing is imported."""
        return [
            file.name.replace("_", "-")
            for file in pkgutil.iter_modules(import_module(self.package).__path__)
            if file.name not in self.others and not file.name.endswith(BESIDE)
        ]

    def summary(self, name: str) -> str:
        """The first line of a module's docstring, read without importing it."""
        spec = find_spec(self._module(name))
        source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
        return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]

    def summaries(self) -> dict[str, str]:
        """The names, each with its line."""
        return {name: self.summary(name) for name in self.names()}

    def find(self, name: object) -> Any:
        """The thing of this name.

        Raises:
            BadParameter: nothing goes by it.
        """
        if name not in self.names():
            raise BadParameter(f"there is no {self.noun} called {name!r}: choose from {', '.join(self.names())}")
        return getattr(import_module(self._module(str(name))), self.attribute)

    def settings(self, name: str) -> Any:
        """The class of settings of this name: the `SETTINGS` of my_model_settings.py, where there is one to be read
        without what my_model.py needs, else the `settings_class` of the thing itself.

        Raises:
            BadParameter: nothing goes by it.
        """
        beside = self._module(name) + BESIDE
        if name in self.names() and find_spec(beside) is not None:
            return import_module(beside).SETTINGS
        return self.find(name).settings_class

    def _module(self, name: str) -> str:
        return f"{self.package}.{name.replace('-', '_')}"
