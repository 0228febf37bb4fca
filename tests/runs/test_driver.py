"""fk.solve, fk.load and fk.resume: every way in, when a run ends, and that nothing is lost on the way."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
import tomllib
import types
from itertools import islice

import numpy as np
import pytest
import tomli_w
import torch
from runs import SMALL, assert_same, checkpoint, history, small

import fkdrift as fk
from fkdrift.errors import BadConfig, BadParameter, UnknownPotential
from fkdrift.runs.driver import drive, show
from fkdrift.runs.following import interruptible
from fkdrift.runs.ground_state import GroundState
from fkdrift.runs.run_folder import read_checkpoint, sealed

pytestmark = pytest.mark.usefixtures("no_figures")


def solve(potential="harmonic", **options):
    return fk.solve(potential, settings=small(**options), progress=False, **options)


def bowl(r):
    return r.square().sum((-2, -1))


def rows(state):
    """The history without its seconds."""
    return [(phase, *row[:-1]) for phase, rows in state.history.items() for row in rows]


def agrees(state, exact):
    return abs(state.energy.mean - exact) < 4 * state.energy.error + 1e-5


def test_a_name_with_parameters():
    state = solve(omega=2.0)
    assert agrees(state, 1.0)
    assert state.result["energies"]["exact"]["mean"] == pytest.approx(1.0, abs=1e-9)


def test_a_callable():
    state = solve(bowl, n_particles=2, n_dims=2)  # 4 oscillators of frequency sqrt(2)
    assert agrees(state, 2 * 2**0.5)
    assert state.result["potential"] == {
        "name": "bowl",
        "parameters": {"n_particles": 2, "n_dims": 2, "identical": False},
        "reloadable": False,
    }


def test_a_potential_and_its_class():
    harmonic = fk.load_potential("harmonic", n_dims=2)
    first, second = solve(harmonic), solve(type(harmonic), n_dims=2)
    assert first.energy == second.energy
    assert agrees(first, 1.0)


def test_a_formula():
    assert agrees(solve("x**2/2 + y**2/2"), 1.0)


def test_seeds_decide_everything():
    first, again, other = solve("anharmonic", seed=1), solve("anharmonic", seed=1), solve("anharmonic", seed=2)
    assert first.energy == again.energy
    assert rows(first) == rows(again) != rows(other)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    state = solve("anharmonic")
    state.sample(5)
    assert torch.equal(torch.rand(4), expected)


def test_arguments_win_over_settings():
    state = solve(seed=9, dtype="float64", drift="mlp")
    assert (state.settings.seed, state.settings.dtype, state.settings.drift) == (9, "float64", "mlp")
    assert state.settings.n_walkers == SMALL["n_walkers"]
    assert state.walkers.dtype == torch.float64


def test_bad_requests():
    with pytest.raises(UnknownPotential, match="did you mean harmonic"):
        solve("harmonics")
    with pytest.raises(BadParameter, match="omega"):
        solve("harmonic", omega=-1.0)
    with pytest.raises(BadConfig, match="spline"):
        solve(drift="spline")


# The end of a run


def test_atol_is_reached():
    loose = solve("helium", atol=0.1)
    tight = solve("helium", atol=loose.energy.error / 1.4)
    assert loose.energy.error <= 0.1
    assert tight.energy.error <= loose.energy.error / 1.4
    assert len(rows(tight)) > len(rows(loose))


def test_an_accuracy_below_rounding_ends_the_run_and_is_said():
    state = solve("anharmonic", atol=1e-12)
    assert state.energy.error > 1e-12
    assert "atol = 1e-12 cannot be reached in float32 (try float64)" in " ".join(str(state).split())


def test_max_seconds_ends_a_run():
    endless = dict.fromkeys(("n_updates", "n_path_blocks", "n_blocks"), 10**7)
    state = fk.solve("harmonium", settings=fk.Settings(**{**SMALL, **endless}), max_seconds=1.5)
    assert state.finished
    assert 1.0 < state.wall_seconds < 6.0
    assert 0 < state.n_updates < 10**7
    assert state.result["status"] == "finished"
    assert state.result["out_of_time"] == ["training", "trajectories", "sampling"]
    assert "max_seconds ended training and trajectories and sampling" in " ".join(str(state).split())


def test_wall_and_cpu_time_add_up(tmp_path):
    state = solve("anharmonic", out=tmp_path)
    first = state.wall_seconds
    again = fk.resume(tmp_path, n_blocks=SMALL["n_blocks"] + 5, progress=False)
    assert first < again.wall_seconds < first + 60
    assert again.cpu_seconds > state.cpu_seconds > 0


# Saved runs


@pytest.mark.parametrize(("potential", "options"), [("anharmonic", {}), ("harmonic", {"drift": "mlp"}), ("x**4", {})])
def test_load_gives_the_same_state(tmp_path, potential, options):
    state = solve(potential, out=tmp_path, **options)
    loaded = fk.load(tmp_path)
    assert loaded.energy == state.energy
    assert loaded.result["energies"] == state.result["energies"]
    x = torch.linspace(-1, 1, 5)
    assert torch.equal(loaded.log_psi(x), state.log_psi(x))
    assert torch.equal(loaded.sample(7), state.sample(7))
    assert loaded.potential == state.potential


def test_load_needs_the_callable_again(tmp_path):
    state = solve(bowl, n_dims=2, out=tmp_path)
    with pytest.raises(BadConfig, match="pass it again"):
        fk.load(tmp_path)
    assert fk.load(tmp_path, bowl).energy == state.energy


@pytest.fixture(scope="module")
def anharmonic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("anharmonic") / "run"
    return solve("anharmonic").save(folder, figures=False)


@pytest.fixture
def saved(anharmonic, tmp_path):
    """A finished run in a folder of its own."""
    return shutil.copytree(anharmonic, tmp_path / "saved")


def test_load_refuses_what_does_not_fit(saved, tmp_path):
    with pytest.raises(BadConfig, match="no folder"):
        fk.load(tmp_path / "nowhere")
    config = saved / "config.toml"
    config.write_text(config.read_text().replace(f"width = {SMALL['width']}", "width = 5"))
    with pytest.raises(BadConfig, match="does not fit"):
        fk.load(saved)
    written = config.read_text()
    for lost, words in (("potential", "which potential"), ("kind", "kind None"), ("settings", "does not fit")):
        document = {name: value for name, value in tomllib.loads(written).items() if name != lost}
        config.write_text(tomli_w.dumps(document))
        with pytest.raises(BadConfig, match=words):
            fk.load(saved)
    config.write_text(tomli_w.dumps({**tomllib.loads(written), "potential": "harmonic"}))
    with pytest.raises(BadConfig, match="must be a table"):
        fk.load(saved)
    config.write_text("[potential")
    with pytest.raises(BadConfig, match="as TOML"):
        fk.load(saved)
    config.unlink()  # the checkpoint has it too
    assert fk.load(saved).potential == fk.load_potential("anharmonic")


def test_the_result_of_another_run_is_not_shown(saved, tmp_path):
    other = fk.solve("anharmonic", settings=small(), seed=1, progress=False).save(tmp_path / "other", figures=False)
    shutil.copy(other / "result.json", saved)
    with pytest.raises(BadConfig, match=r"are not of one run: settings\.seed = 1 \(it was 0\)"):
        show(saved)
    assert str(show(saved, force=True)) == str(show(other))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seed = 0", "seed = 1", r"settings\.seed = 1 \(it was 0\)"),
        ("n_walkers = 32", "n_walkers = 31", r"settings\.n_walkers = 31 \(it was 32\)"),
        ("lam = 1.0", "lam = 1.5", r"potential\.parameters\.lam = 1\.5 \(it was 1\.0\)"),
    ],
)
def test_an_edited_configuration_is_refused_by_name(saved, old, new, words):
    config = saved / "config.toml"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(BadConfig, match=words):
        fk.resume(saved, progress=False)
    if old.startswith("n_walkers"):
        with pytest.raises(BadConfig, match=r"phases\.training\.walkers is float32 of shape \(32, 1, 1\), not"):
            fk.load(saved, force=True)
        return
    forced = fk.resume(saved, progress=False, force=True, n_blocks=10)
    assert re.fullmatch(words, forced.result["forced"][0])
    assert fk.load(saved, n_blocks=12).result["forced"] == forced.result["forced"]  # for good
    assert f"not one computation: {forced.result['forced'][0][:20]}" in " ".join(str(show(saved)).split())


def test_settings_that_shape_a_run_cannot_be_changed(saved):
    with pytest.raises(BadConfig, match=r"settings\.seed = 1"):
        fk.load(saved, seed=1)
    assert fk.load(saved, n_blocks=50).settings.n_blocks == 50


QUARTIC = """
from dataclasses import dataclass
from fkdrift import Potential

@dataclass(frozen=True)
class Quartic(Potential):
    formula = "V = x^4"

    def __call__(self, r):
        return r.pow(4).sum((-2, -1))
"""


def test_an_edited_source_is_refused_by_name(tmp_path):
    """The file of a class, a table, and a Python callable."""
    file, table = tmp_path / "own.py", tmp_path / "well.csv"
    file.write_text(QUARTIC)
    solve(f"{file}:Quartic", out=tmp_path / "class")
    assert fk.load(tmp_path / "class", trust=True).finished
    file.write_text(QUARTIC.replace("4)", "6)"))
    with pytest.raises(BadConfig, match=rf"{file.name}:Quartic = .*potential = .*accept it by --force"):
        fk.load(tmp_path / "class", trust=True)
    x = np.linspace(-8, 8, 81)
    np.savetxt(table, np.stack([x, x**2], 1), delimiter=",", header="x,V", comments="")
    solve(str(table), out=tmp_path / "table")
    np.savetxt(table, np.stack([x, x**2 + 1e-9 * x], 1), delimiter=",", header="x,V", comments="")
    with pytest.raises(BadConfig, match="potential = "):
        fk.load(tmp_path / "table")
    solve(bowl, n_dims=2, out=tmp_path / "callable")
    steeper = types.FunctionType((lambda r: 2 * r.square().sum((-2, -1))).__code__, globals(), "bowl")
    with pytest.raises(BadConfig, match="potential = "):
        fk.load(tmp_path / "callable", steeper)


def test_code_that_a_folder_names_is_not_executed_unasked(tmp_path):
    victim = tmp_path / "executed"
    file = tmp_path / "own.py"
    file.write_text(QUARTIC)
    solve(f"{file}:Quartic", out=tmp_path / "run")
    file.write_text(f"open({str(victim)!r}, 'w')\n{QUARTIC}")
    for read in (fk.load, fk.resume):
        with pytest.raises(BadConfig, match=r"names code, .*own\.py:Quartic.*add --trust"):
            read(tmp_path / "run")
    config = tmp_path / "run" / "config.toml"
    written = config.read_text()
    for name in ("ase:os:system", f" {file}:Quartic "):
        config.write_text(written.replace(f"{file}:Quartic", name))
        with pytest.raises(BadConfig, match="names code"):
            fk.load(tmp_path / "run")
    config.write_text(written.replace('drift = "gradient"', f'drift = "{file}:Quartic"'))
    with pytest.raises(BadConfig, match="names code"):
        fk.load(tmp_path / "run", fk.load_potential("harmonic"))
    assert not victim.exists()


@pytest.mark.parametrize("entry", ["walkers", "n_updates", "ended", "method", "generator", "seconds", "history"])
def test_a_forged_checkpoint_is_refused_in_one_line(saved, tmp_path, entry):
    """One entry of another type or shape, under a checksum that fits."""
    for value in (None, "text", [], {}, 1.5, torch.zeros(3, 2), torch.zeros(2, dtype=torch.uint8)):
        state = read_checkpoint(saved)
        place = state["phases"]["training"] if entry in state["phases"]["training"] else state
        place[entry] = value
        folder = tmp_path / "forged"
        folder.mkdir(exist_ok=True)
        (folder / "checkpoint.pt").write_bytes(sealed(state))
        with pytest.raises(BadConfig, match="does not fit") as refusal:
            fk.load(folder)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("forced", "text"),
        ("forced", [1, 2]),
        ("out_of_time", [["training"]]),
        ("of", {"a": 1}),
        ("of", None),
        ("of", -1),
        ("found", {"energies": {"exact": {"mean": "text"}}}),
        ("found", {"energies": {"exact": {"mean": b"bytes"}}}),
        ("found", {"energies": {"exact": {"mean": 0.5, "source": 3}}}),
        ("found", {"energies": {"exact": {"mean": float("nan"), "source": "scipy"}}}),
    ],
)
def test_what_is_not_a_tensor_is_checked_too(saved, tmp_path, entry, value):
    state = read_checkpoint(saved)
    place = state if entry in state else state["phases"]["exact"]
    assert entry in place
    place[entry] = value
    (tmp_path / "checkpoint.pt").write_bytes(sealed(state))
    with pytest.raises(BadConfig, match="does not fit"):
        fk.load(tmp_path)


@pytest.mark.parametrize("options", [{}, {"drift": "mlp"}, {"optimiser": "adam"}])
def test_stopping_anywhere_changes_nothing(tmp_path, options):
    settings = small(**options)
    potential = fk.load_potential("anharmonic")
    whole = drive(GroundState(potential, settings), out=tmp_path / "whole", progress=False)
    part, n = tmp_path / "part", len(rows(whole))
    run = GroundState(potential, settings)
    for _ in range(4 * n):  # three steps in each session
        list(islice(run.advance(), 3))
        run.save(part)
        if run.finished:
            break
        run = fk.load(part)
    assert run.result["status"] == "finished"
    assert history(part) == history(tmp_path / "whole")
    assert_same(checkpoint(part), checkpoint(tmp_path / "whole"))


def test_a_finished_run_stays_as_it_is(tmp_path):
    state = solve("anharmonic", out=tmp_path)
    again = fk.resume(tmp_path, progress=False)
    assert again.energy == state.energy
    assert rows(again) == rows(state)


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_flag_and_the_second_acts(number):
    seen = []
    before = signal.signal(number, lambda *arguments: seen.append(arguments))
    try:
        with interruptible() as interrupted:
            assert not interrupted()
            os.kill(os.getpid(), number)
            assert interrupted()
            assert seen == []
            os.kill(os.getpid(), number)
            assert len(seen) == 1
        os.kill(os.getpid(), number)
        assert len(seen) == 2
    finally:
        signal.signal(number, before)


def test_other_threads_leave_signals_alone():
    results = []
    thread = threading.Thread(target=lambda: results.append(solve("anharmonic").energy))
    thread.start()
    thread.join()
    assert results == [solve("anharmonic").energy]
