"""Models are files: one that is added is a command with its options, help, checks and result."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from fkdrift.cli.main import app
from fkdrift.errors import BadParameter
from fkdrift.runs import recipes
from fkdrift.runs.recipes import MODELS

ONE_FILE = '''
"""A Gaussian of width 1 whose mean is learned."""

from dataclasses import dataclass

import torch
from torch import nn

from fkdrift.runs.recipes.recipe import LearningSettings, Recipe
from fkdrift.settings import default, setting


@dataclass(frozen=True, kw_only=True)
class PointSettings(LearningSettings):
    first: float = setting(0.0, "Where the mean starts.", above=float("-inf"))
    learning_rate: float = default(LearningSettings, "learning_rate", 0.3)


class Point(nn.Module):
    def __init__(self, first, size):
        super().__init__()
        self.mean = nn.Parameter(torch.full((size,), first))

    def forward(self, x):
        return ((x - self.mean).square() / 2 + 0.5 * torch.log(torch.tensor(2 * torch.pi))).sum(-1)


RECIPE = Recipe(
    "point",
    PointSettings,
    resolve=lambda settings, data: settings,
    build=lambda settings, data: Point(settings.first, data.size),
    objective=lambda model, settings, data: lambda x, generator: model(data.prepare(x, generator)),
    evaluate=lambda model, x, generator: model(x),
    entries=lambda model, settings, data, generator: {"mean": model.mean.tolist()},
    figures=lambda model, settings, data, generator: {},
    sample=lambda model, n, generator: model.mean.expand(n, -1),
)
'''


@pytest.fixture
def point(tmp_path, monkeypatch):
    """A folder with one more model in it."""
    (tmp_path / "point.py").write_text(ONE_FILE)
    monkeypatch.setattr(recipes, "__path__", [*recipes.__path__, str(tmp_path)])
    yield tmp_path
    sys.modules.pop("fkdrift.runs.recipes.point", None)


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_models():
    assert {"vae", "markov", "diffusion", "flow", "latent-sde"} == set(MODELS.names())
    for name in MODELS.names():
        assert MODELS.find(name).name == name
        assert MODELS.summary(name).endswith(".")
    with pytest.raises(BadParameter, match=r"'vea': choose from .*vae"):
        MODELS.find("vea")


def test_a_model_in_one_file_is_a_command(point):
    shown = " ".join(invoke("learn", "--help").stdout.split())
    assert "point A Gaussian of width 1 whose mean is learned." in shown
    assert "Where the mean starts. [default: 0]" in " ".join(invoke("learn", "point", "--help").stdout.split())
    x = np.random.default_rng(0).normal(1.5, 1.0, (400, 2))
    np.save(point / "x.npy", x)
    given = ["learn", "point", "-d", point / "x.npy", "--first", "0.5", "--n-updates", "150", "--json"]
    result = json.loads(invoke(*given).stdout)
    assert result["settings"]["first"] == 0.5
    assert np.allclose(result["mean"], x[:320].mean(0), atol=0.15)
    assert "first = inf" in invoke(*given[:-1], "--first", "inf").stderr
