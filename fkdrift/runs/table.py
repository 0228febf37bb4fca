"""Rows of plain values as files and as a pandas DataFrame."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fkdrift.errors import require_extra
from fkdrift.runs.run_folder import replace_all


def columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names that any of the rows has, in the order in which they appear."""
    return list(dict.fromkeys(name for row in rows for name in row))


def plain_table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write path.csv and path.json, a list of objects; each appears whole or not at all.

    Raises:
        CannotWrite: there is no room, or no permission.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns(rows))
    writer.writeheader()
    writer.writerows(rows)
    texts = {".csv": text.getvalue(), ".json": json.dumps(rows, indent=2, allow_nan=False) + "\n"}
    replace_all(path.parent, {path.stem + suffix: each.encode() for suffix, each in texts.items()})


def as_frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A pandas DataFrame with a line for each row.

    Raises:
        MissingExtra: pandas is not installed.
    """
    return require_extra("pandas", "tables").DataFrame(rows, columns=columns(rows))
