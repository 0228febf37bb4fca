"""The tables of settings in docs/settings.md, made from the fields: `python tests/settings_tables.py` writes them."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from fkdrift.settings import RunSettings, markdown_table

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
MARKED = re.compile(r"(<!-- settings (\S+?)(?: without (\S+))? -->\n)(.*?)(<!-- end -->)", flags=re.DOTALL)


def current(page: str) -> str:
    """The page with every marked table as the code has it now."""

    def table(found: re.Match[str]) -> str:
        base = None if found[3] is None else _class(found[3])
        return f"{found[1]}{markdown_table(_class(found[2]), base)}\n{found[5]}"

    return MARKED.sub(table, page)


def shown() -> set[type[RunSettings]]:
    """The classes that the page has a table of."""
    return {_class(found[2]) for found in MARKED.finditer(PAGE.read_text())}


def _class(name: str) -> type[RunSettings]:
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


if __name__ == "__main__":
    PAGE.write_text(current(PAGE.read_text()))
