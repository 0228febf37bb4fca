"""`fkdrift learn diffusion`: settings, saving and loading, dithered data, figures, and coding with the model."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import fkdrift as fk
from fkdrift.cli import main as cli
from fkdrift.errors import BadConfig, BadParameter
from fkdrift.generative import compress, decompress
from fkdrift.generative.diffusion import DDPM
from fkdrift.runs.learning import learn, load_model

SMALL = {"n_updates": 30, "steps": 8, "width": 16, "depth": 2, "batch_size": 64}


def plane(n: int = 400) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 2)) * [1.0, 0.3]


def levels(n: int = 400) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, size=(n, 16)).reshape(n, 4, 4)


@pytest.mark.parametrize(
    "data", [plane(), levels(), np.random.default_rng(0).normal(size=(200, 5))], ids=["plane", "images", "vectors"]
)
def test_saved_and_loaded(tmp_path, data):
    learned = learn("diffusion", data, out=tmp_path, progress=False, **SMALL)
    model = load_model(tmp_path)
    assert isinstance(model, DDPM)
    x = learned.data.test[:10]
    bounds = [m.bound(x, torch.Generator().manual_seed(0)) for m in (learned.model, model)]
    assert torch.equal(*bounds)
    assert (tmp_path / "figures" / "samples.png").exists()
    assert "prior_term" in learned.result
    assert ("bits_per_component" in learned.result["free_energy"]["test"]) == (data.dtype != float)


@pytest.mark.usefixtures("no_figures")
def test_resumed_training_ends_where_it_would_have(tmp_path):
    whole = learn("diffusion", plane(), progress=False, **SMALL)
    part = learn("diffusion", plane(), out=tmp_path, progress=False, **{**SMALL, "max_seconds": 1e-9})
    assert part.n_updates < 30
    rest = fk.generative.resume(tmp_path, plane(), progress=False, max_seconds=100.0)
    for a, b in zip(whole.model.parameters(), rest.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_whole_numbers_are_dithered():
    """Three levels, equally likely: no bound may be below log2(3) bits for each component."""
    learned = learn("diffusion", levels(2000), progress=False, **{**SMALL, "n_updates": 300, "learning_rate": 1e-2})
    bits = learned.result["free_energy"]["test"]
    assert learned.model.dither == 1
    assert bits["bits_per_component"] > math.log2(3) - 4 * bits["error"] / (16 * math.log(2))
    assert bits["bits_per_component"] < math.log2(3) + 0.6


@pytest.mark.parametrize(("variance", "name"), [("beta", "b"), ("beta-tilde", "b_tilde")])
def test_fixed_widths(variance, name):
    model = learn("diffusion", plane(), progress=False, variance=variance, **SMALL).model
    assert torch.allclose(model.log_variance.exp(), getattr(model, name))


def test_settings_that_are_not_allowed():
    with pytest.raises(BadConfig, match="schedule"):
        learn("diffusion", plane(), progress=False, **{**SMALL, "schedule": "square"})


def test_data_are_coded_with_a_diffusion_model(tmp_path):
    learned = learn("diffusion", plane(), progress=False, **SMALL)
    x = learned.data.test.numpy()
    compress(x, learned.model, tmp_path / "x.fkdz", step=2.0**-6)
    assert np.array_equal(decompress(tmp_path / "x.fkdz", learned.model), np.rint(x * 64) / 64)


def test_whole_numbers_are_coded_at_the_dithered_bound(tmp_path):
    """300 images are a smaller file, at the rate of the bound, with the noise that dithers them back as bits."""
    learned = learn("diffusion", levels(1500), progress=False, **{**SMALL, "n_updates": 300, "learning_rate": 1e-2})
    x = learned.data.test.numpy().astype(np.uint8)
    result = compress(x, learned.model, tmp_path / "x.fkdz")
    assert np.array_equal(decompress(tmp_path / "x.fkdz", learned.model), x)
    bits = learned.result["free_energy"]["test"]["bits_per_component"]
    assert result.net_rate == pytest.approx(bits, rel=0.04)
    assert result.file_bytes < x.nbytes / 2
    with pytest.raises(BadParameter, match="leave the step out"):
        compress(x, learned.model, tmp_path / "x.fkdz", step=1.0)
    assert (learned.sample(20) == learned.sample(20).round()).all()


@pytest.mark.usefixtures("no_figures")
def test_commands(tmp_path):
    """learn, compress, decompress; a model of other data, a file that is there, and a missing step are refused."""
    np.save(tmp_path / "x.npy", plane())
    run = CliRunner().invoke
    paths = {name: str(tmp_path / name) for name in ("x.npy", "run", "x.fkdz", "y.npy", "other", "z.fkdz")}
    options = ["--data", paths["x.npy"], "--updates", "20", "--steps", "8", "--width", "16", "--depth", "2"]
    assert run(cli.app, ["learn", "diffusion", *options, "--out", paths["run"]]).exit_code == 0
    assert run(cli.app, ["learn", "diffusion", *options, "--seed", "1", "--out", paths["other"]]).exit_code == 0
    pack = ["compress", paths["x.npy"], "--model", paths["run"], "-o", paths["x.fkdz"]]
    done = run(cli.app, [*pack, "--step", "0.01"])
    assert done.exit_code == 0, done.output
    assert "400 data of 2 components" in done.output
    unpack = ["decompress", paths["x.fkdz"], "-o", paths["y.npy"], "--model"]
    assert run(cli.app, [*unpack, paths["other"]]).exit_code == 2
    assert run(cli.app, [*unpack, str(tmp_path / "run" / "checkpoint.pt")]).exit_code == 0
    assert np.allclose(np.load(paths["y.npy"]), plane(), rtol=0, atol=0.005 + 1e-12)
    assert run(cli.app, [*unpack, paths["run"]]).exit_code == 2, "y.npy is there"
    assert run(cli.app, [*unpack, paths["run"], "--overwrite"]).exit_code == 0
    assert run(cli.app, [*pack, "--overwrite"]).exit_code == 2, "no step"
    assert run(cli.app, ["compress", "nothing.npy", "--model", paths["run"], "-o", paths["z.fkdz"]]).exit_code == 2
    assert not (tmp_path / "z.fkdz").exists()
