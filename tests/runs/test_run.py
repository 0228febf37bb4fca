"""Runs: how many walkers, when training stops, and what a wrong checkpoint is told."""

import time

import pytest
import torch

import fkdrift as fk
from fkdrift.errors import BadConfig
from fkdrift.exact.diagonalisation import diagonalise
from fkdrift.runs.driver import load
from fkdrift.runs.ground_state import GroundState
from fkdrift.runs.phases import Sampling

TINY = {"width": 4, "n_updates": 2, "n_equilibration": 1, "n_path_blocks": 1, "n_blocks": 2, "project": False}


def test_number_of_walkers_follows_the_system() -> None:
    """More for one coordinate, fewer where each costs more, and the summary of a default run says how many."""
    state = fk.solve("harmonic", settings=fk.Settings(**TINY), progress=False)
    assert state.result["n_walkers"] == 4096
    assert "4,096 walkers" in str(state)
    assert GroundState(fk.load_potential("harmonic"), fk.Settings(drift="mlp", width=4, n_updates=2)).n_walkers == 1024
    assert GroundState(fk.load_potential("helium"), fk.Settings(**TINY)).n_walkers == 1024
    many = GroundState(fk.load_potential("harmonic_bosons"), fk.Settings(**TINY))
    assert many.n_walkers == 256
    assert GroundState(fk.load_potential("helium"), fk.Settings(n_walkers=16, **TINY)).n_walkers == 16


def test_the_error_asked_for_grows_with_the_coordinates() -> None:
    """rtol of 1 / (2 tau), the zero-point energy of each coordinate; omega = 1."""
    one = GroundState(fk.load_potential("harmonic"), fk.Settings(rtol=1e-3))
    four = GroundState(fk.load_potential("harmonic_bosons", n_particles=2, n_dims=2, k=0.0), fk.Settings(rtol=1e-3))
    assert one.asked_for == pytest.approx(5e-4, rel=1e-3)
    assert four.asked_for == pytest.approx(1e-3 / four.system.time_scale)
    assert GroundState(fk.load_potential("harmonic"), fk.Settings(atol=1e-6)).asked_for == 1e-6


def test_training_ends_where_nothing_is_left_to_gain() -> None:
    """Hydrogen's reference is exact: training stops by itself, and the energy is exact."""
    run = GroundState(fk.load_potential("hydrogen"), fk.Settings(n_walkers=32, n_blocks=8, dtype="float64"))
    phases = [progress.phase for progress in run.advance()]
    assert phases.count("training") < 40
    assert abs(run.energies.variational.mean + 0.5) < 1e-9


def test_global_random_state_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    for _ in GroundState(fk.load_potential("double_well"), fk.Settings(n_walkers=8, **TINY)).advance():
        pass
    assert torch.equal(torch.random.get_rng_state(), before)


def test_checkpoint_of_another_system_is_refused(tmp_path) -> None:
    fk.solve("harmonic", settings=fk.Settings(n_walkers=8, **TINY), progress=False).save(tmp_path, figures=False)
    with pytest.raises(BadConfig, match="does not fit"):
        load(tmp_path, fk.load_potential("helium"))


@pytest.mark.usefixtures("no_figures")
def test_the_exact_solution_is_computed_once_and_not_charged(tmp_path, monkeypatch) -> None:
    """Not at checkpoints, not when loaded or resumed; and its seconds are not the run's."""
    calls = []

    def slow(potential, **options):
        calls.append(time.sleep(0.5))
        return diagonalise(potential, **options)

    monkeypatch.setattr("fkdrift.runs.ground_state.diagonalise", slow)
    monkeypatch.setattr("fkdrift.runs.following.CHECKPOINT_SECONDS", 0.0)
    settings = fk.Settings(n_walkers=8, max_seconds=60.0, **TINY)
    state = fk.solve("harmonic", settings=settings, out=tmp_path, progress=False)
    assert len(calls) == 1
    assert state.result["energies"]["exact"]["mean"] == pytest.approx(0.5, abs=1e-9)
    assert state.wall_seconds == state.history["sampling"][-1][-1]
    again = fk.load(tmp_path, n_blocks=4)
    assert [progress.phase for progress in again.advance()] == ["sampling"] * 2
    assert again.result["energies"]["exact"] == state.result["energies"]["exact"]
    assert len(calls) == 1


def test_a_phase_is_one_more_item_in_the_list() -> None:
    """A later phase reads what an earlier one left; its estimates are in the result, the history and the picture."""
    state = GroundState(fk.load_potential("harmonic"), fk.Settings(n_walkers=16, **TINY))

    class Radius:
        n_blocks = 0

        def __init__(self, walkers):
            self.walkers, self.total = walkers, 0.0

        def advance(self, generator):
            self.total, self.n_blocks = self.total + self.walkers.square().mean().item(), self.n_blocks + 1

        def state_dict(self):
            return {"total": self.total, "n_blocks": self.n_blocks}

        def load_state_dict(self, state):
            self.total, self.n_blocks = state["total"], state["n_blocks"]

    radius = Sampling(
        "radius",
        lambda: Radius(state.walkers),
        energy=lambda sampler: fk.Estimate(sampler.total / sampler.n_blocks, 0.1),
        results=lambda sampler: {"observables": {"x^2": {"unit": "", "mixed": {"mean": sampler.total, "error": 0.1}}}},
        n_blocks=3,
    )
    state.phases.insert(3, radius)
    state.history["radius"] = []
    assert [progress.phase for progress in state.advance()].count("radius") == 3
    assert len(state.history["radius"]) == 3
    assert state.result["observables"]["x^2"]["mixed"]["mean"] == radius.sampler.total
    assert "x^2" in str(state)
    assert [axes.get_title() for axes in state.plot()["energy"].axes][-1] == "radius"
