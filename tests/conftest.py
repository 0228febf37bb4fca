"""Tests run on one thread, and check shapes: jaxtyping's annotations are enforced on every call inside fkdrift.

Not in the formula parser, which recurses, and whose depth limit is itself under test.
"""

from __future__ import annotations

from pathlib import Path

import jaxtyping
import pytest
import torch

PACKAGE = Path(__file__).parents[1] / "fkdrift"
UNCHECKED = {"fkdrift.hamiltonian.formula"}


def modules() -> list[str]:
    """Every module of fkdrift, in every package."""
    files = (file for file in PACKAGE.rglob("*.py") if file.stem != "__init__")
    return sorted(".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in files)


jaxtyping.install_import_hook([name for name in modules() if name not in UNCHECKED], "shape_checks.check_shapes")

torch.set_num_threads(1)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are saved without figures, which take longer than a small run."""
    from fkdrift.runs.run import Run

    save = Run.save
    monkeypatch.setattr(Run, "save", lambda run, folder, figures=False: save(run, folder, figures=False))
