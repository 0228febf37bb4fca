"""A small run of every kind, each of about a second: what is killed, damaged and resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
from runs import small

import fkdrift as fk
from fkdrift.runs import ground_state, phases
from fkdrift.runs.ground_state import GroundState
from fkdrift.runs.learning import Learning, find_data
from fkdrift.runs.methods.bridge import Bridge, BridgeSettings
from fkdrift.runs.methods.pimc import Pimc, PimcSettings
from fkdrift.runs.recipes import MODELS
from fkdrift.runs.run import Run
from fkdrift.runs.scan import ParameterScan
from fkdrift.runs.scan_settings import ScanSettings

MODEL_SIZES: dict[str, dict[str, Any]] = {
    "vae": {"latents": 1, "width": 8},
    "markov": {"latents": 2, "width": 8, "upper": (2,), "upper_width": (8,)},
    "flow": {"couplings": 2, "bumps": 4, "width": 8},
    "diffusion": {"steps": 10, "width": 8, "depth": 1},
    "latent-sde": {"latents": 1, "width": 8, "context": 4, "batch_size": 8, "dt": 0.5},
}
"""Settings that make each model small; one that is not named here is as large as it is by default."""


@contextmanager
def shorter() -> Iterator[None]:
    """With fewer blocks and walkers where there would be more than settings can ask for."""
    few = {"N_EXCITATION_WALKERS": 256, "N_EXCITATION_BLOCKS": 4, "MINIMUM_BLOCKS": 8, "N_SETTLING": 1}
    with patch.multiple(ground_state, **few), patch.multiple(phases, MINIMUM_BLOCKS=8):
        yield


def small_runs() -> dict[str, Callable[[], Run]]:
    """A small run of every kind, "kind" or "kind, variant": of every way to a ground state, of every model."""
    well = fk.load_potential("x**2/2 + x**4/10")
    points = ScanSettings.from_values({**small().to_dict(), "warm_updates": 2})
    bridge = BridgeSettings(start=(-1.0,), end=(1.0,), time=1.0, dt=1 / 4, n_updates=8, n_paths=64)
    thermal = PimcSettings(temperature=0.5, n_chains=8, n_blocks=6, n_equilibration=2, n_slices=4, check_slices=False)
    runs: dict[str, Callable[[], Run]] = {
        "ground state": lambda: GroundState(well, small()),
        "scan": lambda: ParameterScan(fk.load_potential("harmonic"), {"omega": [1.0, 1.5]}, points),
        "bridge": lambda: Bridge(well, bridge),
        "pimc": lambda: Pimc(well, thermal),
        "ground state, projected": lambda: GroundState(well, small().changed(project=True, rtol=0.1)),
        "ground state, levels": lambda: GroundState(
            well, small().changed(n_walkers=64, levels=2, observables=("x**2",))
        ),
        "ground state, free drift": lambda: GroundState(well, small(drift="mlp")),
        "ground state, flow": lambda: GroundState(well, small(method="flow")),
    }
    return runs | {f"learned model, {name}": _learning(name) for name in MODELS.names()}


def _learning(name: str) -> Callable[[], Run]:
    def make() -> Run:
        recipe = MODELS.find(name)
        settings = recipe.settings_class(n_updates=10, **MODEL_SIZES.get(name, {}))
        return Learning(recipe, settings, find_data(DATA.get(name, _file(200, 2))))

    return make


def _file(*shape: int) -> str:
    """A file of random walks of this shape."""
    path = Path(FOLDER.name) / f"walks {shape}.npy"
    if not path.exists():
        np.save(path, np.random.default_rng(0).normal(size=shape).cumsum(1))
    return str(path)


FOLDER = TemporaryDirectory()
DATA = {"vae": "digits", "latent-sde": _file(40, 4, 1)}
"""What models learn from that are not of points in a plane."""
