"""Tests run on one thread, and check shapes: jaxtyping enforces the annotations of every module that has any.

Not in the formula parser, which recurses, and whose depth limit is itself under test.
"""

from __future__ import annotations

import os

os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")  # before numpy, and for every worker
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each process that a test starts would compile all of fkdrift again

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import shape_checks
import torch

PACKAGE = Path(__file__).parents[1] / "fkdrift"
UNCHECKED = {"fkdrift.hamiltonian.formula"}


def checked() -> list[str]:
    """The modules with shapes to check."""
    sources = {name: PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py") for name in modules()}
    return [name for name, file in sources.items() if name not in UNCHECKED and "tensor_types" in file.read_text()]


def modules() -> list[str]:
    """Every module of fkdrift, in every package."""
    files = (file for file in PACKAGE.rglob("*.py") if file.stem != "__init__")
    return sorted(".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in files)


sys.dont_write_bytecode = False
shape_checks.install(checked())
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def rough_figures() -> Iterator[None]:
    """Figures of a run are drawn from short paths and few samples."""
    from fkdrift.figures import trajectories

    follow = trajectories._follow
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            trajectories, "_follow", lambda *of, times, n_saved: follow(*of, times=times, n_saved=n_saved // 8)
        )
        patch.setattr(trajectories, "FINER", 1)
        patch.setattr("fkdrift.runs.ground_state.ROUNDS", 4)
        patch.setattr("fkdrift.runs.ground_state.ROUNDS_LEAST", 2)
        yield


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are saved without figures, which take longer than a small run."""
    from fkdrift.runs.run import Run

    save = Run.save
    monkeypatch.setattr(Run, "save", lambda run, folder, figures=False, **held: save(run, folder, False, **held))
