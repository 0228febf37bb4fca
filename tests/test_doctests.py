"""Every example in a docstring runs, and shows the number it really gives.

The examples find `fk`, `torch`, `np`, `math` and `os` imported, the names of their own module, and a generator `g` with
seed 0; what a docstring needs beyond these it makes itself.  Runs that are saved draw no figures.
"""

from __future__ import annotations

import doctest
import importlib
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import modules

import fkdrift as fk

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples() -> list[doctest.DocTest]:
    """The docstrings with examples, of every module."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    tests = [test for name in modules() for test in finder.find(importlib.import_module(name), name)]
    return [test for test in tests if test.examples]


@pytest.mark.parametrize("test", examples(), ids=lambda test: test.name.removeprefix("fkdrift."))
def test_example(test, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "96")
    for kind in ("ground_state.GroundState", "learning.Learning", "methods.bridge.Bridge", "methods.pimc.Pimc"):
        monkeypatch.setattr(f"fkdrift.runs.{kind}.plot", lambda run: {})
    test.globs |= {"fk": fk, "torch": torch, "np": np, "math": math, "os": os}
    test.globs["g"] = torch.Generator().manual_seed(0)
    torch.manual_seed(0)  # weights of networks
    report: list[str] = []
    failed, _ = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.append)
    assert not failed, "".join(report)
