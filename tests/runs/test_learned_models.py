"""What can be asked of a trained model, whatever it is; data held back; and what is refused, in one line."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import fkdrift as fk
from fkdrift.cli import main as cli
from fkdrift.errors import BadConfig, BadParameter, DivergedPath
from fkdrift.figures.files import save_figures
from fkdrift.generative import compress
from fkdrift.runs.learning import Learning, learn
from fkdrift.runs.recipes import MODELS

pytestmark = pytest.mark.usefixtures("no_figures")
SMALL = {"n_updates": 25, "width": 16, "depth": 1, "batch_size": 64, "progress": False}
MODEL_OPTIONS = {
    "vae": {"latents": 2},
    "markov": {"latents": 2, "upper": (1,)},
    "diffusion": {"steps": 8},
    "flow": {"couplings": 2},
}


def plane(n: int = 300) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 2)) @ np.array([[1.0, 0.5], [0.0, 0.8]])


def images(n: int = 200) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, (n, 4, 4)).astype(np.uint8)


def command(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.mark.parametrize("model", MODEL_OPTIONS)
def test_every_model_codes_and_scores_arrays(model):
    x = plane()
    learned = learn(model, x, **SMALL, **MODEL_OPTIONS[model])
    z = learned.encode(x[:7])
    assert z.shape == (7, learned.encode(torch.from_numpy(x[:1])).shape[1])
    assert learned.decode(z).shape == (7, 2)
    bound = learned.bound(x[:50])
    assert bound.shape == (50,)
    assert bound.mean() < -1.0
    if model == "flow":
        assert torch.equal(learned.log_prob(x[:50]), bound)
        assert torch.allclose(learned.decode(z), torch.from_numpy(x[:7]).float(), atol=1e-4)
    else:
        with pytest.raises(BadConfig, match="use bound"):
            learned.log_prob(x)
    if model == "diffusion":
        assert torch.allclose(learned.decode(z), torch.from_numpy(x[:7]).float(), atol=0.05)


def test_what_does_not_fit_is_refused():
    learned = learn("vae", images(), **SMALL, latents=2)
    x = images(5)
    assert learned.bound(x).shape == learned.bound(x.reshape(5, 16)).shape == (5,)
    assert learned.decode(learned.encode(x)).shape == (5, 4, 4)
    bad = x.astype(float)
    bad[3, 0, 0] = np.nan
    for wrong, words in [
        (x.reshape(10, 8), r"\(10, 8\) do not fit: .*\(batch, 16\) or \(batch, 4, 4\)"),
        (bad, "item 3"),
        (x + 1, "0 ... 3"),
        (x + 0.5, "whole numbers"),
        (x.astype(str), "dtype"),
    ]:
        with pytest.raises(BadParameter, match=words):
            learned.bound(wrong)
    with pytest.raises(BadParameter, match=r"\(batch, 2\)"):
        learned.decode(np.zeros((3, 5)))
    series = np.random.default_rng(0).normal(size=(40, 4))
    sde = learn("latent-sde", series, latents=1, width=8, context=4, dt=0.5, n_updates=1, progress=False)
    with pytest.raises(BadConfig, match="no codes"):
        sde.encode(series)


def test_a_flow_of_images_shows_samples_and_where_they_are(tmp_path):
    learned = learn("flow", images(), out=tmp_path / "run", **SMALL, couplings=2)
    figures = learned.plot()
    assert sorted(figures) == ["loss", "samples"]
    assert len(figures["samples"].axes) == 48
    save_figures(figures, tmp_path / "run" / "figures")
    shown = command("show", tmp_path / "run").stdout
    assert shown.splitlines()[-1] == f"  figures in {tmp_path / 'run' / 'figures'}: loss, samples"


def test_score_from_the_command_line(tmp_path):
    np.save(tmp_path / "train.npy", plane())
    np.save(tmp_path / "new.npy", plane(40))
    options = {**SMALL, "n_updates": 2, "couplings": 2}
    learned = learn("flow", tmp_path / "train.npy", out=tmp_path / "file", **options)
    shown = command("score", tmp_path / "file", tmp_path / "new.npy", "-o", tmp_path / "each.npy")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("log_prob -")
    found = json.loads(command("score", tmp_path / "file", tmp_path / "new.npy", "--json").stdout)
    assert found["n_data"] == 40
    assert found["mean"] == pytest.approx(np.load(tmp_path / "each.npy").mean(), rel=1e-6)
    refused = command("score", tmp_path / "file", tmp_path / "nothing.npy")
    assert (refused.exit_code, refused.stderr.startswith("fkdrift: there is no file")) == (2, True)
    assert learned.finished


@pytest.mark.usefixtures("no_figures")
def test_samplers_of_a_diffusion_model(tmp_path):
    """The default is a few evaluations of the network; the chain is there when it is asked for."""
    learned = learn("diffusion", plane(), out=tmp_path / "run", steps=50, **SMALL)
    assert torch.equal(learned.sample(9), learned.sample(9, sampler="multistep"))
    assert not torch.equal(learned.sample(9), learned.sample(9, sampler="chain"))
    drawn = command("sample", tmp_path / "run", "--sampler", "chain", "-n", 9, "-o", tmp_path / "x.npy")
    assert drawn.exit_code == 0, drawn.output
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), learned.sample(9, sampler="chain").numpy())
    refused = command("sample", tmp_path / "run", "--sampler", "fast", "-o", tmp_path / "x.npy")
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "no sampler 'fast': give multistep or chain" in refused.stderr
    with pytest.raises(BadConfig, match="no sampler 'chain': leave it out"):
        learn("vae", plane(), latents=1, **SMALL).sample(2, sampler="chain")


def test_data_are_found_from_another_folder(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", plane())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    learn("vae", "x.npy", out="run", **SMALL, latents=1)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert fk.resume(tmp_path / "run", n_updates=30, progress=False).n_updates == 30
    monkeypatch.chdir(tmp_path)
    (tmp_path / "moved").mkdir()
    (tmp_path / "x.npy").rename(tmp_path / "moved" / "x.npy")
    monkeypatch.chdir(tmp_path / "moved")
    assert fk.load(tmp_path / "run").data.name == "x.npy"


# -- data held back ----------------------------------------------------------------------------------------------------

FEW = {"latents": 4, "width": 128, "n_updates": 600, "batch_size": 40, "learning_rate": 5e-3, "progress": False}


@pytest.fixture(scope="module")
def stopped():
    """A VAE that learns 60 random images by heart, unless it is stopped."""
    return learn("vae", images(75), patience=3, **FEW)


def test_training_stops_and_keeps_the_best_state(stopped):
    found = stopped.result["validation"]
    assert found["stopped"]
    assert found["n_updates"] < stopped.n_updates < 600
    assert found["mean"] == min(row[1] for row in stopped.history["validation"])
    assert stopped._validate().mean == pytest.approx(found["mean"])
    assert "best at update" in str(stopped)
    free = learn("vae", images(75), validation=0.0, **FEW)
    assert "validation" not in free.result
    assert stopped.result["free_energy"]["test"]["mean"] < free.result["free_energy"]["test"]["mean"] - 1


def test_what_is_held_back_is_not_learned_from(stopped):
    held = {tuple(row.tolist()) for row in stopped._held_back}
    assert len(stopped._held_back) == 6
    assert not held & {tuple(row.tolist()) for row in stopped.fitted.train}
    assert len(stopped.fitted.train) == 54
    with pytest.raises(BadParameter, match="leaves none"):
        learn("vae", images(3), validation=0.9, **SMALL)


def test_a_stopped_training_is_the_same_when_it_was_interrupted(stopped, tmp_path):
    recipe = MODELS.find("vae")
    options = {name: value for name, value in FEW.items() if name != "progress"}
    part = Learning(recipe, recipe.settings_class(patience=3, **options), stopped.data)
    for step in part.advance():
        if step.step == 60:
            break
    part.save(tmp_path, figures=False)
    rest = fk.resume(tmp_path, stopped.data, progress=False)
    assert rest.n_updates == stopped.n_updates
    for a, b in zip(rest.model.state_dict().values(), stopped.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_an_average_of_the_weights(tmp_path):
    learned = learn("vae", plane(), average=0.9, validation=0.0, out=tmp_path, **SMALL, latents=1)
    last = learned.training.last
    weights = dict(learned.model.named_parameters())
    assert any(not torch.equal(last[name], value) for name, value in weights.items())
    again = fk.load(tmp_path, plane(), n_updates=26)
    for step in again.advance():
        if step.phase == "training":
            break
    assert all(torch.isfinite(value).all() for value in again.model.parameters())


def test_the_clock_anneals():
    learned = learn("vae", plane(), max_seconds=0.4, latents=1, **{**SMALL, "n_updates": 10**6})
    rates = learned.training.method.adam.param_groups[0]["lr"]
    assert learned.n_updates < 10**6
    assert rates < 0.3 * learned.settings.learning_rate


# -- scales and data ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_columns_in_units_of_their_own():
    """Three independent columns of widths 1, 1000 and 0.001: all models are within 0.3 nats of the entropy."""
    widths = np.array([1.0, 1000.0, 1e-3])
    x = np.random.default_rng(0).normal(size=(1000, 3)) * widths
    entropy = 1.5 * math.log(2 * math.pi * math.e) + math.log(widths.prod())
    options = {**SMALL, "n_updates": 200, "learning_rate": 0.01}
    for model, more in (("vae", {"latents": 1}), ("diffusion", {"steps": 20}), ("flow", {"couplings": 2})):
        learned = learn(model, x, **{**options, **more})
        test = learned.result["free_energy"]["test"]
        assert test["mean"] < entropy + 0.3 + 4 * test["error"], model
        assert test["mean"] > entropy - 4 * test["error"] - 0.1, model
    common = learn("vae", x, scaling="common", latents=1, **options)
    assert common.result["free_energy"]["test"]["mean"] > entropy + 3


@pytest.mark.slow
def test_the_decoder_learns_its_covariance():
    """Without a useful latent p(x) is the decoder's Gaussian: a full covariance is that of the data."""
    x = plane(4000)
    options = {**SMALL, "n_updates": 800, "learning_rate": 0.01, "latents": 1, "network": "linear"}
    del options["width"], options["depth"]
    found = {}
    for covariance in ("isotropic", "full"):
        learned = learn("vae", x, covariance=covariance, **options)
        found[covariance] = learned.result["free_energy"]["test"]["mean"]
    weight = learned.model.decoder.scale * learned.model.decoder.kernel.network.last.weight[:, 0]
    total = learned.model.decoder(torch.zeros(1, 1)).covariance_matrix[0] + torch.outer(weight, weight)
    assert torch.allclose(total.detach().double(), torch.from_numpy(np.cov(x[:3200].T)), atol=0.1)
    assert found["full"] < found["isotropic"] + 0.05


@pytest.mark.parametrize(
    ("model", "data", "options", "words"),
    [
        ("flow", np.c_[plane(), np.ones(300)], {}, "column 2 of array is constant"),
        ("flow", np.round(plane() * 2) / 2, {}, "--dither 0.5"),
        ("vae", np.c_[plane(), np.ones(300)], {"covariance": "diagonal"}, "column 2 of array is constant"),
    ],
)
def test_data_without_a_density_are_refused(model, data, options, words):
    with pytest.raises(BadParameter, match=words):
        learn(model, data, **SMALL, **options)


def test_covariances_are_for_gaussians():
    with pytest.raises(BadConfig, match="Gaussian decoder"):
        learn("vae", images(), covariance="full", **SMALL)
    with pytest.raises(BadConfig, match="noise is not used"):
        learn("vae", plane(), covariance="full", noise=0.1, **SMALL)


def test_repeated_values_are_dithered():
    learned = learn("flow", np.round(plane() * 4) / 4, dither=0.25, couplings=2, **SMALL)
    assert np.isfinite(learned.result["free_energy"]["test"]["mean"])


def test_bytes_have_256_levels():
    bright, dark = images(50) * 84, images(50)
    assert learn("vae", bright, **{**SMALL, "n_updates": 1}).settings.levels == 256
    assert learn("vae", dark, **{**SMALL, "n_updates": 1}).settings.levels == 4


def test_tails_stay_near_the_data():
    """Of 25,000 samples none is beyond 1.5 times the reach of the data."""
    learned = learn("flow", plane(1000), **{**SMALL, "n_updates": 100, "learning_rate": 0.02, "couplings": 2})
    tails = learned.result["tails"]
    assert tails["samples"] == 25_000
    assert tails["outside"] == 0
    assert "tails" not in str(learned)


def test_messages_speak_of_the_model():
    with pytest.raises(DivergedPath, match=r"update 1: use a smaller learning_rate"):
        learn("vae", plane() * 1e30, noise=1e-30, **SMALL)


def test_negative_zeros_are_refused(tmp_path):
    learned = learn("vae", images(), **{**SMALL, "n_updates": 1})
    x = images(3).astype(np.float32)
    x[0, 0, 0] = -0.0
    with pytest.raises(BadParameter, match="minus sign"):
        compress(x, learned.model, tmp_path / "x.fkdz")
