"""A run in words and pictures: what is said, what is drawn, and that drawing changes nothing."""

from __future__ import annotations

import copy
import io
import json
import sys
import types
from itertools import islice

import pytest
import torch
from PIL import Image
from runs import SMALL, assert_same, small

import fkdrift as fk
from fkdrift.errors import BadParameter
from fkdrift.figures.files import save_figures
from fkdrift.runs import driver, run_folder
from fkdrift.runs.ground_state import GroundState
from fkdrift.runs.report import Progress, progress_line

RESULT = {
    "potential": {"name": "morse", "parameters": {"D": 10.0, "a": 1.0}, "reloadable": True},
    "seed": 4,
    "status": "finished",
    "settings": {"drift": "gradient", "dtype": "float32"},
    "versions": {},
    "device": "cpu",
    "wall_seconds": 8.04,
    "cpu_seconds": 7.9,
    "n_parameters": 1153,
    "n_walkers": 1024,
    "n_updates": 150,
    "energies": {
        "variational": {"mean": 2.11119, "error": 0.00012, "effective_samples": 81234.5, "estimator": "mean of E_L"},
        "path_action": {"mean": 2.1101, "error": 0.0031},
        "exact": {"mean": 2.1110679775, "source": "scipy, elements on a line"},
        "reference": {"mean": 2.1110679775, "kind": "exact", "source": "a sqrt(D/2) - a^2/8"},
    },
    "step_bias": {
        "removed": {"mean": 0.0123, "error": 0.0021},
        "time_steps": [0.0625, 0.03125, 0.015625],
        "by_time_step": [],
    },
    "sampling": {"standard_deviation": 0.16, "acceptance": 0.9, "time_step": 0.119},
    "deviation": {"standard_errors": 1.0, "difference": 1.2e-4, "against": "exact", "verdict": "agrees"},
}


def summary(result):
    return str(GroundState.block(result))


def words(result):
    return " ".join(summary(result).split())


# Words


@pytest.mark.parametrize(
    "said",
    [
        "morse D = 10, a = 1",
        "variational 2.11119(12) mean of E_L; 81,234 effective samples",
        "path action 2.110(3) E[l_T]/T, extrapolated to dt = 0",
        "exact 2.111067977 scipy, elements on a line",
        "reference 2.111067977 exact: a sqrt(D/2) - a^2/8",
        "+1.0 standard errors from the exact energy (+1.2e-04, relative +5.7e-05): agrees",
        "dt = 0.0625, 0.0312, 0.0156 to dt = 0; removed 0.012(2) from the finest",
        "standard deviation of E_L 0.16; acceptance 90% at dt = 0.119",
        "150 updates, 1,024 walkers, gradient drift with 1,153 parameters, seed 4",
        "8.0 s wall, 7.9 s CPU on cpu in float32",
    ],
)
def test_summary_says(said):
    assert said in words(RESULT)
    assert max(map(len, summary(RESULT).splitlines())) < 100


def test_summary_needs_only_what_is_always_there():
    result = {k: v for k, v in RESULT.items() if k not in ("step_bias", "sampling", "deviation")}
    result["energies"] = {
        "variational": {"mean": None, "error": None, "estimator": "last batch"},
        "path_action": {"mean": 1.5, "error": None},
    }
    result["status"] = "interrupted"
    text = words({**result, "a key of tomorrow": 3})
    assert "variational ? last batch" in text
    assert "1.5(?) last training batch" in text
    assert "interrupted" in text
    assert "exact" not in text


def test_observables_are_shown_whatever_they_are():
    x2 = {"unit": "length^2", "mixed": {"mean": 0.51, "error": 0.01}, "pure": {"mean": 0.5, "error": 0.01}}
    text = words({**RESULT, "observables": {"x^2": x2, "<V>": {"unit": "", "mixed": {"mean": 1.0, "error": None}}}})
    assert "x^2 0.500(10) pure estimator, length^2; mixed 0.510(10)" in text
    assert "<V> 1(?) mixed estimator" in text


def in_units(**shown):
    """A result in kelvin and angstrom, with one of everything that has a unit."""
    kelvin = {"energy": "K", "length": "angstrom"}
    energies = {
        **RESULT["energies"],
        "lower_bound": {"mean": 2.1, "error": 0.001, "first_excited": 4.25, "source": "assumed"},
        "tail": {"mean": -0.25, "each": -0.125, "source": "left out"},
        "with_tail": {"mean": 1.86119, "error": 0.00012, "each": {"mean": 0.93, "error": 0.01}, "estimator": "both"},
    }
    more = {
        "kind": "ground state",
        "format": 2,
        "energies": energies,
        "settings": {**RESULT["settings"], "atol": 1e-5},
        "excitations": [{"gap": 2.5, "error": 0.1, "energy": {"mean": 4.6, "error": 0.1}, "symmetry": "odd"}],
        "observables": {
            "x^2": {"unit": "length^2", "pure": {"mean": 0.5, "error": 0.01}, "expected": 0.51},
            "P": {"unit": "energy / length^3", "mixed": {"mean": 0.002, "error": 0.001}},
            "virial": {"unit": "", "mixed": {"mean": 1.0, "error": 0.1}, "expected": 1.0},
        },
        "repaired": 3,
        "units": {"natural": kelvin, "shown": {**kelvin, **shown}},
    }
    return {**RESULT, **more}


@pytest.mark.parametrize(
    "said",
    [
        "variational 2111.19(12) mK mean of E_L; 81,234 effective samples",
        "lower bound 2100.0(10) mK Temple, with E_1 = 4250, assumed",
        "tail -250 mK left out; -125 for each particle",
        "with tail 1861.19(12) mK both; 930(10) for each particle",
        "reference 2111.06797",
        "mK scipy, elements on a line",
        "level 1 4600(100) mK gap 2500(100) mK; odd",
        "x^2 0.500(10) pure estimator, angstrom^2; expected 0.51",
        "P 2.0(10) mixed estimator, mK / angstrom^3",
        "virial 1.00(10) mixed estimator; expected 1",
        "+1.0 standard errors from the exact energy (+1.2e-01 mK, relative +5.7e-05): agrees",
        "path action fitted over dt = 6.25e-05,",
        "to dt = 0; removed 12(2) mK from the finest",
        "atol = 0.01 mK cannot be reached in float32",
        "standard deviation of E_L 1.6e+02 mK; acceptance 90% at dt = 0.000119",
        "repaired 3 geometries without an energy",
    ],
)
def test_a_result_is_shown_in_other_units(said):
    assert said in words(in_units(energy="mK"))


def test_units_change_what_is_shown_only():
    result = in_units(energy="mK", length="bohr")
    before = copy.deepcopy(result)
    assert "x^2 1.79(4) pure estimator, bohr^2" in words(result)
    assert result == before
    assert GroundState.block(result).headline == "2111.19(12) mK"
    assert GroundState.block(in_units()).headline == "2.11119(12) K"


def test_a_saved_result_is_shown_in_other_units(tmp_path):
    result = {**in_units(), "format": run_folder.FORMAT}
    signed = {**result, "sha256": run_folder._digest_of_result(result)}
    (tmp_path / "result.json").write_text(json.dumps(signed))
    assert str(driver.show(tmp_path, energy_unit="mK")) == summary(in_units(energy="mK"))
    assert str(driver.show(tmp_path)) == summary(in_units())
    with pytest.raises(BadParameter, match="unknown length unit 'inch'"):
        driver.show(tmp_path, length_unit="inch")


def test_headline():
    assert GroundState.block(RESULT).headline == "2.11119(12)"


def test_html_escapes_everything():
    result = copy.deepcopy(RESULT)
    result["potential"]["name"] = "<script>x</script>"
    result["energies"]["exact"]["source"] = "a < b & c"
    text = GroundState.block(result).html()
    assert "<script>" not in text
    assert "a &lt; b &amp; c" in text
    assert "2.11119(12)" in text
    assert text.count("<tr>") == text.count("</tr>") == 4


def test_progress_line_draws_to_stderr_only_when_asked(capsys):
    steps = [Progress("training", k, 30, fk.Estimate(0.5, 0.01), 0.1 * k) for k in range(1, 31)]
    for show in (False, None):  # nobody is looking at the stderr of a test
        with progress_line("harmonic", show) as line:
            for step in steps:
                line(step)
        assert capsys.readouterr() == ("", "")
    with progress_line("harmonic", True) as line:
        for step in steps:
            line(step)
    out, err = capsys.readouterr()
    assert out == ""
    assert "harmonic" in err


def test_progress_line_shows_phase_energy_and_speed(monkeypatch):
    from rich.console import Console

    from fkdrift.runs import report

    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, color_system=None)
    monkeypatch.setattr(report, "Console", lambda **options: console)
    monkeypatch.setattr(report, "REFRESH_SECONDS", 0.0)
    with progress_line("harmonic", True) as line:
        for k in range(1, 4):
            line(Progress("training", k, 30, fk.Estimate(0.5, 0.01), 0.1 * k))
        line(Progress("sampling", 7, 9, fk.Estimate(0.50003, 0.00008), 1.0))
    shown = screen.getvalue()
    for text in ("training", " 3/30", "E = 0.500(10)", "steps/s", "sampling", "7/9", "E = 0.50003(8)"):
        assert text in shown


def test_a_notebook_has_a_plain_line_that_is_gone_at_the_end(monkeypatch, capsys):
    shown = []
    handle = types.SimpleNamespace(update=lambda data, raw: shown.append(data["text/plain"]))
    display = types.SimpleNamespace(display=lambda data, raw, display_id: shown.append(data["text/plain"]) or handle)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    shell = types.SimpleNamespace(kernel=None)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    with progress_line("harmonic") as line:  # a shell in a terminal
        line(Progress("training", 1, 30, fk.Estimate(0.5, 0.01), 0.1))
    assert shown == []
    shell.kernel = object()
    with progress_line("harmonic") as line:
        line(Progress("training", 3, 30, fk.Estimate(0.5, 0.01), 0.1))
    assert shown == ["harmonic", "harmonic: training 3/30   E = 0.500(10)", ""]
    assert capsys.readouterr() == ("", "")


# Pictures


@pytest.fixture(scope="module")
def drawn(rough_figures):
    """States and figures by name; each system is solved once."""
    cases = {
        "line": ("anharmonic", {}),
        "ring": ("cosine", {}),
        "plane": ("henon_heiles", {}),
        "free drift": ("harmonic", {"n_particles": 2, "drift": "mlp"}),
        "central": ("hydrogen", {}),
        "molecule": ("h2", {}),
        "chain": ("calogero", {"n_particles": 3}),
    }
    found = {}
    for label, (name, options) in cases.items():
        settings = small(**options).changed(project=label == "line")
        state = fk.solve(name, settings=settings, progress=False, **options)
        found[label] = (state, state.plot())
    return found


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def labels(axes):
    return [text.get_text() for text in (axes.get_legend().get_texts() if axes.get_legend() else [])]


def test_every_figure_is_titled_and_labelled(drawn):
    for label, (state, figures) in drawn.items():
        expected = ["energy", "wavefunction", "trajectories"] + ["projection"] * (label == "line")
        assert list(figures) == expected
        for name, figure in figures.items():
            assert figure.get_suptitle().startswith(state.potential.name), (label, name)
            assert titles(figure), (label, name)
            panels = [axes for axes in figure.axes if axes.get_title()]
            bottom = [axes for axes in panels if axes.get_xlabel()]
            assert bottom, (label, name)
            assert any(axes.get_ylabel() for axes in panels), (label, name)


def test_energy_has_a_panel_for_each_phase(drawn):
    state, figures = drawn["line"]
    axes = figures["energy"].axes
    assert len(axes) == 4
    assert axes[0].get_title() == "training"
    for panel in axes:
        assert panel.get_ylabel() == "energy $E$"
        low, high = panel.get_ylim()
        assert low < state.spectrum.ground_state < high
        assert f"exact {state.spectrum.ground_state:.7g}" in labels(panel)
    assert len(drawn["free drift"][1]["energy"].axes) == 2
    assert any("reference" in text for text in labels(drawn["molecule"][1]["energy"].axes[0]))


def test_a_line_has_density_log_psi_and_drift(drawn):
    for label in ("line", "ring"):
        state, figures = drawn[label]
        density, log, drift = figures["wavefunction"].axes
        assert [axes.get_xlabel() for axes in (density, log, drift)] == ["$x$"] * 3
        assert labels(log) == labels(drift) == ["learned", "exact"]
        assert len(labels(density)) == 3
        x, exact = log.lines[1].get_data()
        expected = state.spectrum.log_psi(x)
        assert abs((exact - exact.max()) - (expected - expected.max())).max() < 1e-9
        x, learned = drift.lines[0].get_data()
        assert torch.allclose(torch.as_tensor(learned).float(), state.drift(x)[:, 0, 0], atol=1e-4)


def test_two_coordinates_have_maps(drawn):
    names = {"plane": ("$x$", "$y$"), "free drift": ("$x_1$", "$x_2$")}
    for label, (x, y) in names.items():
        panels = [axes for axes in drawn[label][1]["wavefunction"].axes if axes.get_title()]
        assert len(panels) == 4
        assert {axes.get_xlabel() for axes in panels[2:]} == {x}
        assert panels[0].get_ylabel() == y
        assert "exact" in panels[1].get_title()


def test_more_coordinates_have_distributions(drawn):
    assert titles(drawn["molecule"][1]["wavefunction"]) == ["one-body density", "pair distances", "density, projected"]
    assert titles(drawn["chain"][1]["wavefunction"]) == ["one-body density", "pair distances"]
    assert "wavefunction" in titles(drawn["central"][1]["wavefunction"])
    assert "pair distances" not in titles(drawn["central"][1]["wavefunction"])
    assert drawn["molecule"][1]["wavefunction"].axes[2].get_xlabel() == "$z$"  # along the bond


def test_trajectories(drawn):
    time, V = drawn["line"][1]["trajectories"].axes
    assert time.get_xlabel() == "time $t$"
    assert labels(V) == ["$V(x)$", "$E$"]
    assert len(time.lines) == 24 + 3
    assert "contours: $V$" in titles(drawn["plane"][1]["trajectories"])[0]
    (chain,) = drawn["chain"][1]["trajectories"].axes
    assert len(chain.lines) == 3
    assert len(drawn["molecule"][1]["trajectories"].axes) == 2


def test_drawing_leaves_the_run_alone(drawn):
    state, _ = drawn["plane"]
    before = copy.deepcopy(state.state_dict())
    state.plot()
    assert_same(before, state.state_dict())


def test_an_interrupted_run_can_be_drawn(rough_figures):
    state = GroundState(fk.load_potential("harmonic"), fk.Settings(**SMALL))
    list(islice(state.advance(), 2))
    assert len(state.plot()["energy"].axes) == 1
    assert "interrupted" in str(state)


def test_files_are_small_pictures(drawn, tmp_path):
    _, figures = drawn["plane"]
    save_figures(figures, tmp_path / "figures")
    assert sorted(file.name for file in (tmp_path / "figures").iterdir()) == [
        "energy.png",
        "trajectories.png",
        "wavefunction.png",
    ]
    for file in (tmp_path / "figures").iterdir():
        assert 5_000 < file.stat().st_size < 150_000
        with Image.open(file) as image:
            assert 500 < image.width < 2000
            assert len(image.convert("RGB").getcolors(1 << 20)) > 20


def test_repr_in_a_notebook(drawn):
    state, _ = drawn["line"]
    assert state._repr_html_() == GroundState.block(state.result).html()
    assert str(state.energy) in repr(state)
    assert summary(state.result) == str(state)
