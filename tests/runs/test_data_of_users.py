"""Data as users have them: classes, colours, gaps in series; and models whose data are gone."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import fkdrift as fk
from fkdrift.cli import main as cli
from fkdrift.errors import BadConfig, BadParameter
from fkdrift.generative import compress
from fkdrift.runs.learning import learn

SMALL = {"n_updates": 3, "width": 16, "depth": 1, "batch_size": 32, "progress": False}
OPTIONS = {"vae": {"latents": 2}, "markov": {"latents": 2, "upper": (1,)}, "diffusion": {"steps": 8}}
CENTRES = np.array([[-3.0, 0.0], [3.0, 1.0], [0.0, 4.0]])


def clusters(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Three clusters in the plane, and which one each point is of."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, n)
    return CENTRES[classes] + 0.3 * rng.normal(size=(n, 2)), classes


def command(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("model", OPTIONS)
def test_a_model_that_is_told_classes(model, tmp_path):
    x, classes = clusters(100)
    learned = learn(model, x, labels=classes, out=tmp_path / "run", **SMALL, **OPTIONS[model])
    assert learned.result["data"]["n_classes"] == 3
    bound = learned.bound(x[:20], classes[:20])
    assert torch.equal(learned.bound(x[:20], 1), learned.bound(x[:20], np.ones(20)))
    assert not torch.equal(learned.bound(x[:20], 1), bound)
    code = learned.encode(x[:20], classes[:20])
    assert not torch.equal(learned.decode(code, 0), learned.decode(code, 2))
    assert learned.sample(5, label=1).shape == (5, 2)
    drawn = learned.named_samples(400)["labels"][1]
    assert abs((drawn == 0).double().mean() - (classes == 0).mean()) < 0.1
    alone = fk.load(tmp_path / "run")
    assert alone.absent
    assert torch.equal(alone.bound(x[:20], classes[:20]), bound)
    assert torch.equal(alone.sample(7, seed=2, label=1), learned.sample(7, seed=2, label=1))
    for call, words in [
        (lambda: learned.bound(x), "give the labels of the 100 data, 0 ... 2"),
        (lambda: learned.bound(x, classes[:7]), r"labels of shape \(7,\) do not match 100 data"),
        (lambda: learned.sample(3, label=3), "go from 0 to 2"),
        (lambda: compress(x, learned.model, tmp_path / "x.fkdz", step=0.1), "cannot code: train one without labels"),
    ]:
        with pytest.raises(BadParameter, match=words):
            call()


def test_what_is_drawn_is_of_its_class():
    x, classes = clusters()
    learned = learn(
        "vae", x, labels=classes, latents=2, width=32, depth=1, n_updates=200, learning_rate=0.02, progress=False
    )
    for k, centre in enumerate(CENTRES):
        assert np.abs(learned.sample(200, label=k).mean(0).numpy() - centre).max() < 0.5


def test_models_without_classes():
    x, classes = clusters(40)
    with pytest.raises(BadConfig, match="flow takes no labels"):
        learn("flow", x, labels=classes, progress=False)
    learned = learn("vae", x, latents=1, **SMALL)
    for call in (lambda: learned.bound(x, classes), lambda: learned.sample(3, label=0)):
        with pytest.raises(BadParameter, match="told no classes"):
            call()
    with pytest.raises(BadConfig, match="vae takes no missing values"):
        learn("vae", fk.generative.load_data(np.where(x > 3, np.nan, x), missing=True), latents=1, **SMALL)


@pytest.mark.usefixtures("no_figures")
def test_classes_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, classes = clusters()
    np.savez("points.npz", data=x, kind=classes)
    learning = ["learn", "vae", "--data", "points.npz", "--latents", 1, "--width", 8, "--updates", 2]
    done = command(*learning, "--labels", "kind", "--out", "run")
    assert done.exit_code == 0, done.output
    assert command("resume", "run", "--updates", 4).exit_code == 0
    (tmp_path / "points.npz").rename(tmp_path / "new.npz")
    assert command("sample", "run", "--label", 2, "-n", 5, "-o", "drawn.npz").exit_code == 0
    with np.load("drawn.npz") as drawn:
        assert drawn["data"].shape == (5, 2)
        assert drawn["labels"].tolist() == [2] * 5
    found = command("score", "run", "new.npz", "--labels", "kind", "--json")
    assert json.loads(found.stdout)["n_data"] == 300
    for arguments, words in [
        (("score", "run", "new.npz"), "give the labels of the 300 data"),
        (("sample", "run", "--label", 3, "-o", "x.npy"), "go from 0 to 2"),
        (("resume", "run", "--updates", 6), "'points.npz' are not where they were"),
        ([*learning[:3], "new.npz", "--labels", "sort"], "new.npz has no array 'sort', but data, kind"),
    ]:
        refused = command(*arguments)
        assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
        assert words in refused.stderr


@pytest.mark.parametrize(
    ("model", "shape", "options"),
    [
        ("vae", (6, 8, 3), {"network": "conv", "latents": 2, "distort": 1.0, "decoder": "laplace"}),
        ("vae", (5, 9), {"network": "conv", "latents": 2, "distort": 1.0, "decoder": "categorical"}),
        ("diffusion", (6, 8, 3), {"steps": 4}),
    ],
)
def test_pictures_in_colour_and_of_any_sides(model, shape, options):
    x = np.random.default_rng(0).integers(0, 8, (40, *shape)).astype(np.uint8)
    learned = learn(model, x, labels=np.arange(40) % 3, n_updates=2, width=8, progress=False, **options)
    assert learned.sample(3, label=1).shape == (3, *shape)
    assert "samples" in learned.plot()


@pytest.mark.usefixtures("no_figures")
def test_series_with_gaps_at_their_own_times(tmp_path):
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.normal(size=(40, 5)), axis=1)
    x[rng.random(x.shape) < 0.2] = np.nan
    x[:, 0] = 1.0 + rng.normal(size=40)
    np.savez(tmp_path / "walks.npz", data=x, times=[1990.0, 1990.5, 1991.5, 1993.0, 1994.0])
    options = {"n_updates": 2, "width": 8, "context": 4, "latents": 1, "dt": 0.5, "progress": False}
    learned = learn("latent-sde", tmp_path / "walks.npz", out=tmp_path / "run", **options)
    assert learned.model.times == [0.0, 0.5, 1.5, 3.0, 4.0]
    assert learned.bound(x[:7]).isfinite().all()
    paths = learned.result["paths"]
    assert len(paths["effective"]) == 4
    assert all(1 <= n <= paths["samples"] for n in paths["effective"])
    assert "count in each band" in str(learned)
    empty = x.copy()
    empty[3] = np.nan
    with pytest.raises(BadParameter, match="1 of 40 data have infinite entries, or none at all, item 3 first"):
        learn("latent-sde", empty, **options)
    pair = np.stack([x, np.full_like(x, np.nan)], -1)
    with pytest.raises(BadConfig, match="component 1 of array was never observed"):
        learn("latent-sde", pair, **options)
