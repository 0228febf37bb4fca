"""Tests run on one thread, and check shapes: jaxtyping's annotations are enforced on every call inside fkdrift.

Not in the formula parser, which recurses, and whose depth limit is itself under test.
"""

from __future__ import annotations

from pathlib import Path

import jaxtyping
import torch

PACKAGE = Path(__file__).parents[1] / "fkdrift"
NAMES = sorted({file.stem for file in PACKAGE.glob("*.py")} - {"__init__", "expression"})
jaxtyping.install_import_hook([f"fkdrift.{name}" for name in NAMES], "shape_checks.check_shapes")

torch.set_num_threads(1)
