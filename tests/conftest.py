"""Shapes are checked in tests: jaxtyping's annotations are enforced on every call inside fkdrift.

Not in the formula parser, which recurses, and whose depth limit is itself under test.
"""

from __future__ import annotations

from pathlib import Path

import jaxtyping

PACKAGE = Path(__file__).parents[1] / "fkdrift"
CHECKED = [f"fkdrift.{file.stem}" for file in sorted(PACKAGE.glob("*.py")) if file.stem not in ("__init__", "expression")]
jaxtyping.install_import_hook(CHECKED, "shape_checks.check_shapes")
