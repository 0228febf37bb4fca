"""Every example of docs/extending.md: the files are written, the commands are run, the numbers are right."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import fkdrift as fk
from fkdrift.cli.main import app
from fkdrift.runs import methods, recipes

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"^```python\n# file: (\S+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))
COMMANDS = dict(zip(FILES, re.findall(r"^```bash\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL), strict=True))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """All files of the page; those of the package are in folders that the package looks into as well."""
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for package in (recipes, methods):
        inside = tmp_path / package.__name__.replace(".", "/")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(inside)])
    np.save(tmp_path / "points.npy", np.random.default_rng(0).normal([1.0, -2.0], 1.0, (400, 2)))
    monkeypatch.setattr("fkdrift.runs.learning.Learning.plot", lambda learned: {})
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("fkdrift.runs.recipes.point", "fkdrift.runs.methods.trial"):
        sys.modules.pop(name, None)


QUICK = {"solve": ["--no-project", "--path-step", "0.25"]}


def run(name: str) -> list[str]:
    """What the commands below a file print; a ground state is neither projected nor followed along many paths."""
    printed = []
    for line in COMMANDS[name].splitlines():
        words = shlex.split(line)[1:]
        result = CliRunner().invoke(app, words + QUICK.get(words[0], []))
        assert result.exit_code == 0, result.output
        printed.append(result.output)
    return printed


def energy(text: str) -> tuple[float, float]:
    """A number such as 0.50003(8) with its error."""
    mean, digits = re.search(r"(-?[\d.]+)\((\d+)\)", text).groups()
    return float(mean), int(digits) * 10.0 ** -len(mean.partition(".")[2])


@pytest.mark.slow
def test_a_potential_and_a_network(folder):
    (quiet,), (own,) = run("wells.py"), run("networks.py")
    exact = fk.diagonalise(fk.load_potential("wells.py:tilted"), 1).ground_state
    for printed in (quiet, own):
        mean, error = energy(printed)
        assert abs(mean - exact) < 4 * error + 2e-6


def test_an_observable(folder):
    (printed,) = run("measures.py")
    exact = fk.diagonalise(fk.load_potential("wells.py:tilted"), 1)
    x = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    density = exact.density(x.numpy()[:, None, None])
    share = density[x.numpy() > 0].sum() / density.sum()
    mean, error = energy(next(line for line in printed.splitlines() if line.strip().startswith("right")))
    assert abs(mean - share) < 4 * error


def test_a_model(folder):
    trained, shown = run("fkdrift/runs/recipes/point.py")
    assert "point of points.npy" in trained
    assert "point of points.npy" in shown
    learned = fk.generative.load("runs/point")
    first, second = learned.result["mean"]
    expected = np.load("points.npy").mean(0)
    assert second / first == pytest.approx(expected[1] / expected[0], rel=0.1)


def test_a_method(folder):
    first, further, shown = run("fkdrift/runs/methods/trial.py")
    assert energy(further)[1] < energy(first)[1]
    assert further.split()[:3] == shown.split()[:3]
    mean, error = energy(shown)
    exact = fk.diagonalise(fk.load_potential("x**4/2"), 1).ground_state
    assert abs(mean - exact) < 4 * error + 1e-5
