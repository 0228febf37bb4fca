"""`fkdrift learn latent-sde`: series in a file to a trained model and its folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import fkdrift as fk
from fkdrift.cli import main as cli
from fkdrift.errors import BadConfig
from fkdrift.generative.latent_sde import LatentSDE
from fkdrift.runs.learning import learn, load_model

QUICK = {"n_updates": 4, "width": 8, "context": 4, "dt": 0.25, "latents": 1, "spacing": 0.5, "batch_size": 16}


def series(shape: tuple[int, ...] = (40, 4)) -> np.ndarray:
    """Random walks around 5 with steps of 2: neither centred nor of unit width."""
    rng = np.random.default_rng(0)
    return 5 + 2 * np.cumsum(rng.normal(size=shape), axis=1)


def test_learning_and_its_folder(tmp_path: Path) -> None:
    learned = learn("latent-sde", series(), out=tmp_path, progress=False, **QUICK)
    assert isinstance(learned.model, LatentSDE)
    assert learned.model.times == [0, 0.5, 1, 1.5]
    assert (tmp_path / "figures" / "series.png").stat().st_size > 5000
    result = learned.result
    assert result["importance_weighted"]["mean"] < result["free_energy"]["test"]["mean"] + 0.1
    assert len(result["volatility"]) == 1
    assert result["noise"][0] > 0
    again = load_model(tmp_path)
    x = learned.data.test
    first, second = (m.free_energy(x, torch.Generator().manual_seed(0)) for m in (learned.model, again))
    assert torch.equal(first, second)


def test_scales_come_from_the_data() -> None:
    """The decoder starts at the mean of the data, and the encoder sees them standardised."""
    learned = learn("latent-sde", series((60, 3, 2)), progress=False, **{**QUICK, "n_updates": 0})
    seen = learned.fitted.train.reshape(-1, 2)
    torch.testing.assert_close(learned.model.centre, seen.mean(0))
    torch.testing.assert_close(learned.model.spread, seen.std(0, correction=0))
    torch.testing.assert_close(learned.model.decoder.network.last.bias, seen.mean(0))


def test_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole = learn("latent-sde", series(), progress=False, **QUICK)
    part = learn("latent-sde", series(), progress=False, **QUICK)
    part = type(part)(part.recipe, part.settings, part.data)
    for step in part.advance():
        if step.step == 2:
            break
    part.save(tmp_path, figures=False)
    assert fk.generative.load(tmp_path, part.data).n_updates == 2
    again = fk.generative.resume(tmp_path, part.data, progress=False)
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("changes", [{"loss": "log_variance"}, {"adjoint": True}])
def test_options(changes: dict[str, object]) -> None:
    learned = learn("latent-sde", series(), progress=False, **{**QUICK, **changes})
    assert learned.finished
    assert np.isfinite(learned.result["free_energy"]["test"]["mean"])


@pytest.mark.parametrize(
    ("data", "changes", "why"),
    [
        (np.abs(series()).astype(int), {}, "real numbers"),
        (series((20, 1)), {}, "series"),
        (series((20, 2, 2, 2)), {}, "series"),
        (series(), {"loss": "log_variance", "adjoint": True}, "adjoint"),
        (series(), {"loss": "mse"}, "loss"),
        (series(), {"spacing": 0.0}, "spacing"),
    ],
)
def test_bad_input(data: np.ndarray, changes: dict[str, object], why: str) -> None:
    with pytest.raises(BadConfig, match=why):
        learn("latent-sde", data, progress=False, **{**QUICK, **changes})


def test_command(tmp_path: Path) -> None:
    np.save(tmp_path / "walks.npy", series())
    words = ["learn", "latent-sde", "--data", str(tmp_path / "walks.npy"), "--latents", "1", "--width", "8"]
    words += ["--updates", "2", "--spacing", "0.5", "--dt", "0.25", "--out", str(tmp_path / "out")]
    shown = CliRunner().invoke(cli.app, words)
    assert shown.exit_code == 0, shown.stdout
    assert "importance weighted" in shown.stdout
