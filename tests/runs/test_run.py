"""Runs: how many walkers, when training stops, and what a wrong checkpoint is told."""

import pytest
import torch

import fkdrift as fk
from fkdrift.errors import BadConfig
from fkdrift.runs.run import Run, load_run

TINY = {"width": 4, "n_updates": 2, "n_equilibration": 1, "n_path_blocks": 1, "n_blocks": 2}


def test_number_of_walkers_follows_the_system() -> None:
    """More for one coordinate, fewer where each costs more, and the summary of a default run says how many."""
    state = fk.solve("harmonic", settings=fk.Settings(**TINY), progress=False)
    assert state.result["n_walkers"] == 4096
    assert "4,096 walkers" in str(state)
    assert Run(fk.load_potential("harmonic"), fk.Settings(drift="mlp", **TINY)).n_walkers == 1024
    assert Run(fk.load_potential("helium"), fk.Settings(**TINY)).n_walkers == 1024
    many = Run(fk.load_potential("harmonic_bosons"), fk.Settings(**TINY))
    assert many.n_walkers == 256
    assert Run(fk.load_potential("helium"), fk.Settings(n_walkers=16, **TINY)).n_walkers == 16


def test_training_ends_where_nothing_is_left_to_gain() -> None:
    """Hydrogen's reference is exact: training stops by itself, and the energy is exact."""
    run = Run(fk.load_potential("hydrogen"), fk.Settings(n_walkers=32, n_blocks=8, dtype="float64"))
    phases = [progress.phase for progress in run.advance()]
    assert phases.count("training") < 40
    assert abs(run.energies.variational.mean + 0.5) < 1e-9


def test_global_random_state_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    for _ in Run(fk.load_potential("double_well"), fk.Settings(n_walkers=8, **TINY)).advance():
        pass
    assert torch.equal(torch.random.get_rng_state(), before)


def test_checkpoint_of_another_system_is_refused(tmp_path) -> None:
    fk.solve("harmonic", settings=fk.Settings(n_walkers=8, **TINY), progress=False).save(tmp_path, figures=False)
    with pytest.raises(BadConfig, match="does not fit"):
        load_run(tmp_path, fk.load_potential("helium"), fk.Settings(n_walkers=8, **TINY))
