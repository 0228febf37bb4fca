"""`fkdrift learn flow`: a density from data, its integral, dithering, and kinds that come from zuko."""

from __future__ import annotations

import math

import pytest
import torch

from fkdrift.densities.known_densities import eight_gaussians
from fkdrift.errors import BadConfig
from fkdrift.runs.learning import learn, load_model
from fkdrift.runs.recipes.flow import integral
from tests.systems import generator

SMALL = {"n_updates": 60, "batch_size": 128, "width": 16, "couplings": 2, "progress": False}


def test_a_flow_learns_a_ring(tmp_path):
    exact = eight_gaussians()
    data = exact.sample(3000, generator()).float()
    learned = learn("flow", data, out=tmp_path, learning_rate=1e-2, **{**SMALL, "n_updates": 250})
    test = learned.result["free_energy"]["test"]
    entropy = -float(exact.log_prob(exact.sample(20_000, generator(1))).mean())
    gaussian = 1 + math.log(2 * math.pi) + float(data.std(0).log().sum())
    assert entropy - 4 * test["error"] < test["mean"] < entropy + 0.5 * (gaussian - entropy)
    assert learned.result["integral"] == pytest.approx(1, abs=1e-3)
    assert sorted(path.stem for path in (tmp_path / "figures").glob("*.png")) == ["density", "loss"]
    again = load_model(tmp_path / "checkpoint.pt")
    x = data[:5]
    assert torch.equal(again.flow.log_prob(x), learned.model.flow.log_prob(x))


def test_discrete_data_are_dithered():
    """Dithered levels are a density: its bound on the entropy of a fair die is near log 6 and not below."""
    data = torch.randint(6, (2000, 1), generator=generator()).numpy()
    learned = learn("flow", data, **{**SMALL, "n_updates": 150})
    x = torch.randint(6, (4000, 1), generator=generator(2)).float()
    free_energy = learned.model.free_energy(x, generator(1)).detach()
    assert learned.data.n_levels == 6
    assert math.log(6) - 0.02 < float(free_energy.mean()) < math.log(6) + 0.4


def test_a_kind_from_zuko():
    pytest.importorskip("zuko")
    data = eight_gaussians().sample(500, generator()).float()
    learned = learn("flow", data, kind="NSF", **SMALL)
    assert learned.result["smoothness"] == 0
    assert integral(learned.model.flow, data) == pytest.approx(1, abs=5e-3)
    with pytest.raises(BadConfig, match="choose from"):
        learn("flow", data, kind="GF", **SMALL)
