"""Trainings from the call to the folder and back: what is saved, what is resumed, what is refused."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
import tomllib

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import fkdrift as fk
from fkdrift.cli import main as cli
from fkdrift.errors import BadConfig, BadParameter, DivergedPath
from fkdrift.generative.chain import log_ratio
from fkdrift.generative.data.datasets import dataset
from fkdrift.generative.linear import principal_components
from fkdrift.generative.refinement import refined
from fkdrift.numerics.estimates import from_walkers
from fkdrift.numerics.log_weights import iwae
from fkdrift.runs.driver import load, resume
from fkdrift.runs.learning import Learning, learn, load_model
from fkdrift.runs.recipes import MODELS
from fkdrift.runs.run_folder import sealed

TINY = {"latents": 3, "width": 16, "depth": 1, "n_updates": 30, "batch_size": 32, "progress": False}


@pytest.fixture(scope="module")
def saved():
    """A tiny VAE of digits."""
    return learn("vae", "digits", **TINY)


@pytest.fixture
def place(saved, tmp_path):
    """A folder with that training."""
    saved.save(tmp_path / "run", figures=False)
    return tmp_path / "run"


def command(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def test_result_has_the_bounds_and_what_the_latents_carry(saved):
    result = saved.result
    assert result["status"] == "finished"
    assert result["n_updates"] == 30
    test = result["free_energy"]["test"]
    assert test["bits_per_component"] == pytest.approx(test["mean"] / (64 * np.log(2)))
    assert result["importance_weighted"]["mean"] < test["mean"]
    assert len(result["latents"]["unit_kl"]) == 3
    assert sum(result["kl_by_latent"]) + result["reconstruction"] == pytest.approx(test["mean"], abs=1.0)
    json.dumps(result, allow_nan=False)
    assert "-ELBO, test" in str(saved)
    assert "bits per component" in str(saved)


def test_training_lowers_the_free_energy(saved):
    F = [row[1] for row in saved.history["training"]]
    assert len(F) == 30
    assert np.mean(F[-5:]) < np.mean(F[:5]) - 5


def test_files(place, saved):
    assert json.loads((place / "result.json").read_text())["model"] == "vae"
    config = tomllib.loads((place / "config.toml").read_text())
    assert config["model"] == "vae"
    assert config["data"]["name"] == "digits"
    assert config["settings"]["latents"] == 3
    rows = list(csv.DictReader((place / "history.csv").open()))
    training = [row for row in rows if row["phase"] == "training"]
    assert [int(row["step"]) for row in training] == list(range(1, 31))
    assert float(training[-1]["free_energy"]) == saved.history["training"][-1][1]
    assert [int(row["step"]) for row in rows if row["phase"] == "validation"] == [25, 30]


def test_figures(saved):
    figures = saved.plot()
    assert set(figures) == {"loss", "reconstructions", "samples", "latents", "traversals"}


def test_a_model_comes_back_from_its_folder_or_its_checkpoint_alone(place, saved, tmp_path):
    x = saved.data.test[:5]
    expected = log_ratio(saved.model, x, torch.Generator().manual_seed(0))
    (place / "checkpoint.pt").rename(tmp_path / "vae.pt")
    model = load_model(tmp_path / "vae.pt")
    assert torch.equal(log_ratio(model, x, torch.Generator().manual_seed(0)), expected)
    (tmp_path / "vae.pt").rename(place / "checkpoint.pt")
    again = fk.generative.load(place)
    assert again.result["free_energy"] == saved.result["free_energy"]
    assert again.data.digest == saved.data.digest


@pytest.mark.parametrize("model", ["vae", "markov"])
@pytest.mark.usefixtures("no_figures")
def test_an_interrupted_training_ends_where_it_would_have(model, tmp_path):
    options = {**TINY, "seed": 3}
    if model == "markov":
        options["upper"] = (2, 2)
    whole = learn(model, "digits", **options)
    del options["progress"]
    recipe = MODELS.find(model)
    stopped = Learning(recipe, recipe.settings_class(**options), whole.data)
    for step in stopped.advance():
        if step.step == 13:
            break
    stopped.save(tmp_path, figures=False)
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "interrupted"
    resumed = resume(tmp_path, progress=False)
    assert resumed.n_updates == 30
    assert [row[1] for row in resumed.history["training"]] == [row[1] for row in whole.history["training"]]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "finished"


def test_two_trainings_are_the_same_and_another_seed_is_not(saved):
    before = torch.get_rng_state()
    again = learn("vae", "digits", **TINY)
    assert torch.equal(before, torch.get_rng_state())
    assert [row[1] for row in again.history["training"]] == [row[1] for row in saved.history["training"]]
    other = learn("vae", "digits", **{**TINY, "n_updates": 2}, seed=1)
    assert other.history["training"][0][1] != saved.history["training"][0][1]


@pytest.mark.usefixtures("no_figures")
def test_a_finished_training_goes_further(place):
    further = resume(place, n_updates=40, progress=False)
    assert further.n_updates == 40
    assert further.finished


@pytest.mark.usefixtures("no_figures")
def test_bounds_are_computed_once_and_anew_after_more_training(place, saved, monkeypatch):
    evaluated = []
    bounds = Learning._bounds
    monkeypatch.setattr(Learning, "_bounds", lambda self: evaluated.append(self.n_updates) or bounds(self))
    assert resume(place, progress=False).result == saved.result
    assert evaluated == []
    assert resume(place, n_updates=31, progress=False).result["free_energy"] != saved.result["free_energy"]
    assert evaluated == [31]


def test_an_interrupted_training_shows_its_last_batch(saved):
    stopped = Learning(saved.recipe, saved.settings, saved.data)
    next(stopped.advance())
    assert set(stopped.result["free_energy"]) == {"batch"}
    assert "-ELBO, batch" in str(stopped)
    assert "loss" in stopped.plot()


@pytest.mark.usefixtures("no_figures")
def test_other_data_are_noticed(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 4))
    learn("vae", x, out=tmp_path / "run", **TINY)
    alone = load(tmp_path / "run")
    assert torch.equal(alone.bound(x), load(tmp_path / "run", x).bound(x))
    with pytest.raises(BadConfig, match=r"data 'array' are not where they were.*fk.resume\(DIR, data\)"):
        fk.resume(tmp_path / "run", n_updates=40, progress=False)
    with pytest.raises(BadConfig, match="not those"):
        load(tmp_path / "run", x + 1)
    assert load(tmp_path / "run", x).n_updates == 30


def test_a_refined_posterior_tightens_the_bound(saved, place):
    x = saved.data.test[:100]
    rough, fine = (saved.bound(x, n_draws=20, refine=refine) for refine in (0, 6))
    assert from_walkers(fine - rough).deviation(0.0) > 5
    evidence = iwae(log_ratio(refined(saved.model, 6), x, torch.Generator().manual_seed(0), n_samples=50)).double()
    assert from_walkers(evidence - fine).deviation(0.0) > -3
    np.save(place / "x.npy", x.numpy())
    done = command("score", place, place / "x.npy", "--refine", 6, "--json")
    assert json.loads(done.stdout)["mean"] == pytest.approx(fine.mean().item(), abs=1.0)


def test_data_of_another_size_are_refused(saved):
    for x in (torch.zeros(3, 63), torch.zeros(3, 8, 8)):
        with pytest.raises(BadParameter, match=r"\(batch, 64\)"):
            saved.free_energy(x)


def test_files_that_are_no_models(place, tmp_path):
    with pytest.raises(BadConfig, match="there is no"):
        load_model(tmp_path / "nothing")
    (place / "checkpoint.pt").write_bytes((place / "checkpoint.pt").read_bytes()[:500])
    with pytest.raises(BadConfig, match="damaged"):
        load_model(place)
    (place / "checkpoint.pt").write_bytes(sealed({"kind": "other"}))
    with pytest.raises(BadConfig, match="no generative model"):
        load_model(place)


@pytest.mark.parametrize("name", MODELS.names())
def test_every_recipe_has_what_it_needs(name):
    recipe = MODELS.find(name)
    assert recipe.name == name
    assert recipe.settings_class().seed == 0


def test_unknown_names_are_refused_with_a_hint():
    with pytest.raises(BadParameter, match=r"choose from .*markov, vae"):
        learn("gan", "digits")
    with pytest.raises(BadConfig, match="did you mean latents"):
        learn("vae", "digits", latent=3)


def test_a_free_energy_that_diverges_is_an_error():
    x = np.random.default_rng(0).normal(size=(60, 4)) * 1e30
    with pytest.raises(DivergedPath):
        learn("vae", x, **{**TINY, "noise": 1e-30, "n_updates": 5})


def test_max_seconds_ends_training():
    started = time.monotonic()
    learned = learn("vae", "digits", **{**TINY, "n_updates": 1_000_000}, max_seconds=0.5)
    assert learned.finished
    assert 1 < learned.n_updates < 1_000_000
    assert time.monotonic() - started < 20


# -- what is learned ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["diagonal", "full"])
@pytest.mark.usefixtures("no_figures")
def test_a_linear_vae_finds_the_principal_components(encoder):
    """It reaches the exact evidence, and its units are the modes above the noise of the decoder."""
    g = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=g)).Q
    widths = torch.tensor([2.0, 1.2, 0.8, 0.3, 0.3], dtype=torch.float64)
    data = dataset(torch.randn(2000, 5, dtype=torch.float64, generator=g) * widths @ turn.T)
    options = {"latents": 4, "network": "linear", "noise": 0.3**0.5, "batch_size": 400, "learning_rate": 0.02}
    learned = learn("vae", data, encoder=encoder, dtype="float64", n_updates=1500, progress=False, **options)
    exact = principal_components(data.train, 4, noise=0.3)
    gap = learned.free_energy(data.train).mean() + exact.log_prob(data.train).mean()
    assert -0.01 < gap < 0.05
    kl = exact.unit_kl.sum().item()
    assert learned.result["latents"]["joint_kl"]["mean"] == pytest.approx(kl, abs=0.15)
    assert learned.result["latents"]["active"] == (3 if encoder == "diagonal" else learned.result["latents"]["active"])


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_samples_of_a_ground_state_are_data(tmp_path):
    settings = fk.Settings(n_walkers=64, n_updates=10, n_blocks=10, project=False)
    fk.solve("harmonic", n_dims=2, settings=settings, out=tmp_path / "run", progress=False)
    learned = learn("vae", f"run:{tmp_path / 'run'}", **{**TINY, "latents": 1})
    assert learned.data.size == 2
    assert learned.data.n_levels is None
    assert (learned.data.train.var(0) - 0.5).abs().max() < 0.06


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_learns_shows_and_goes_on(tmp_path):
    options = ["--latents", 3, "--width", 16, "--updates", 10, "--out", tmp_path / "run"]
    done = command("learn", "vae", "--data", "digits", *options)
    assert done.exit_code == 0, done.output
    assert "-ELBO, test" in done.stdout
    assert (tmp_path / "run" / "figures" / "traversals.png").stat().st_size > 1000
    refused = command("learn", "vae", "--data", "digits", *options)
    assert refused.exit_code == 2
    assert "fkdrift resume" in refused.stderr
    further = command("resume", tmp_path / "run", "--n-updates", 12, "--quiet")
    assert further.exit_code == 0
    assert 50 < float(further.stdout) < 400
    shown = command("show", tmp_path / "run")
    assert shown.exit_code == 0, shown.output
    assert "12 updates" in shown.stdout


@pytest.mark.usefixtures("no_figures")
def test_the_command_learns_a_chain(tmp_path):
    options = ["--latents", 3, "--upper", 2, "--upper", 2, "--width", 16, "--updates", 5, "--out", tmp_path / "run"]
    done = command("learn", "markov", "--data", "digits", *options)
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["settings"]["upper"] == [2, 2]
    assert len(result["kl_by_latent"]) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["vae", "--data", "nothing"], "choose from digits"),
        (["vae", "--data", "digits", "--encoder", "big"], "diagonal, full"),
        (["vae", "--data", "digits", "--decoder", "bernoulli"], "Bernoulli"),
        (["vae", "--data", "digits", "--latents", "0"], "above 0"),
        (["markov", "--data", "digits", "--latents", "7", "--decay", "0.5"], "set every upper to latents"),
        (["vae", "--data", "run:nowhere"], "nowhere"),
    ],
)
def test_bad_requests_are_one_line(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command("learn", *arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith("fkdrift: ")
    assert words in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    arguments = ["learn", "vae", "--data", "digits", "--updates", "1000000", "--width", "32", "--out", "run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "fkdrift", *arguments], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "run").exists():
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "fkdrift resume run" in said
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "interrupted"
    assert result["n_updates"] > 0
    assert load(tmp_path / "run").n_updates == result["n_updates"]
