"""Pages, comparisons and new plug-ins."""

from __future__ import annotations

import html
import importlib.util
import json
import pickle
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from runs import small
from scipy.io import netcdf_file
from typer.testing import CliRunner

import fkdrift as fk
from fkdrift.cli import main as cli
from fkdrift.cli.new_potential import write_plug_in
from fkdrift.errors import BadConfig, BadParameter
from fkdrift.figures.animation import animate, in_equilibrium
from fkdrift.figures.compare import compare_figure
from fkdrift.figures.live import live_figure
from fkdrift.hamiltonian.conformance import check_potential
from fkdrift.hamiltonian.potential import FunctionPotential
from fkdrift.runs.compare import compare
from fkdrift.runs.ground_state import GroundState
from fkdrift.runs.page import error_budget, page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def invoke(*arguments: object):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two runs, the first with a figure, and the second with a name that HTML has to escape."""
    folders = [tmp_path_factory.mktemp("desk") / name for name in ("one", "two")]
    settings = small().changed(project=True, n_walkers=256)
    state = fk.solve("x**2/2", settings=settings, progress=False)
    state.save(folders[0], figures=False)
    (folders[0] / "figures").mkdir()
    (folders[0] / "figures" / "energy.png").write_bytes(b"\x89PNG of nothing")
    other = fk.solve("x**2/2 + where(x < 0, 0, 0)", settings=small(), seed=1, progress=False)
    other.save(folders[1], figures=False)
    return state, folders


class Page(HTMLParser):
    """What a page refers to, and whether its tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        self.open += [] if tag in ("meta", "img", "input", "br", "link") else [tag]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_page_needs_nothing_else(saved):
    state, (one, two) = saved
    parsed = Page(text := page(one))
    assert parsed.open == []
    assert [link.partition(",")[0] for link in parsed.links] == ["data:image/png;base64"]
    assert str(state.energy) in text
    assert "Error budget" in text
    assert "BokehJS" in text
    assert "fkdrift solve --config config.toml" in text
    assert "x &lt; 0" in page(two)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_shows_the_page_without_complaint(saved, tmp_path, width):
    """In a frame of this width nothing sticks out, and the console stays empty."""
    _, (one, _) = saved
    measure = "onload = () => { document.title = frames[0].document.documentElement.scrollWidth }"
    frame = f'<iframe srcdoc="{html.escape(page(one))}" style="width: {width}px; border: 0"></iframe>'
    (tmp_path / "frame.html").write_text(f"<title></title>{frame}<script>{measure}</script>")
    options = (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path}",
    )
    command = [CHROMIUM, *options, "--dump-dom", f"file://{tmp_path}/frame.html"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    said = [line for line in shown.stderr.splitlines() if "CONSOLE" in line]
    assert all("setting log level" in line for line in said)  # which Bokeh says of itself
    assert "Bokeh" in shown.stdout
    assert int(shown.stdout.partition("<title>")[2].partition("<")[0]) <= width


def test_the_report_is_a_file(saved, tmp_path):
    _, (one, _) = saved
    result = invoke("report", one, "--out", tmp_path / "page.html")
    assert result.exit_code == 0
    texts = ((tmp_path / "page.html").read_text(), page(one))
    first, second = (re.sub(r"[0-9a-f-]{36}|\bp\d+\b", "", text) for text in texts)  # Bokeh numbers what it draws
    assert first == second
    assert invoke("report", tmp_path).exit_code == 2


def test_the_budget_adds_up(saved):
    state, _ = saved
    result = state.result
    rows = {row.label: row for row in error_budget(result)}
    assert list(rows) == ["noise", "step", "population", "trend", "ansatz", "in fact"]
    assert rows["noise"].number == f"{state.energy.error:.1e}"
    assert error_budget({**result, "kind": "pimc"}) == []


def test_runs_are_compared(saved, tmp_path):
    state, folders = saved
    rows = compare(folders)
    assert rows[0] == {"run": str(folders[0]), **state.summary(), "from_first": None}
    assert rows[1]["from_first"] is None  # of another potential
    assert compare([folders[0], folders[0]])[1]["from_first"] == 0
    result = invoke("compare", *folders, "--figure", tmp_path / "energies.png")
    assert result.exit_code == 0
    assert str(state.energy) in result.stdout
    assert (tmp_path / "energies.png").stat().st_size > 1000
    assert json.loads(invoke("compare", folders[0], "--json").stdout) == json.loads(json.dumps(rows[:1]))
    assert invoke("compare", tmp_path).exit_code == 2


def test_a_run_is_pickled(saved):
    state, _ = saved
    again = pickle.loads(pickle.dumps(state))
    assert again.result == state.result
    assert torch.equal(again.sample(10), state.sample(10))


def test_densities_lie_on_top_of_each_other():
    density = {"potential": "well", "name": "density", "unit": "1 / length", "axis": "x"}
    density |= {"centres": [0.0, 1.0], "expected": [1.0, 2.1], "mean": [1.0, 2.0], "error": [0.1, 0.1]}
    row = {"run": "a", "potential": "well", "energy": 1.0, "error": 0.1, "exact": 1.0, "reference": None, "unit": None}
    figure = compare_figure([row, {**row, "run": "b"}], [{"run": "a", **density}, {"run": "b", **density}])
    assert [len(axes.lines) for axes in figure.axes] == [4, 3]  # points with caps, two curves, and the exact ones
    assert figure.axes[1].get_ylabel() == "density in 1 / length"


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".nc"])
def test_samples_are_a_file(saved, tmp_path, suffix):
    state, (one, _) = saved
    file = tmp_path / f"x{suffix}"
    assert invoke("sample", one, "-n", 10, "-o", file).exit_code == 0
    if suffix == ".nc":
        with netcdf_file(file, mmap=False) as found:
            assert found.variables["positions"].dimensions == ("sample", "particle", "dim")
            r = torch.as_tensor(found.variables["positions"][:].astype("float32"))
    else:
        loaded = np.load(file)
        r = torch.as_tensor(loaded if suffix == ".npy" else loaded["positions"])
    assert torch.equal(r, state.sample(10))
    assert invoke("sample", one, "-o", tmp_path / "x.txt").exit_code == 2


@pytest.mark.parametrize("name", ["double_well", "henon_heiles", "helium", "cosine", "hydrogen"])
def test_walkers_are_animated(name, tmp_path):
    system = fk.System(fk.load_potential(name))
    process = fk.Process(fk.NeuralWavefunction(system, width=4), system)
    generator = torch.Generator().manual_seed(0)
    walkers = system.initial_walkers(64, generator)
    frames = in_equilibrium(process, walkers, n_frames=2, time_scale=1.0, generator=generator)
    animate(process, system, walkers, tmp_path / "w.gif", frames)
    with Image.open(tmp_path / "w.gif") as picture:
        assert picture.n_frames == 2
        assert picture.width > 300


def test_a_saved_run_is_animated(saved, tmp_path):
    _, (one, _) = saved
    assert invoke("animate", one, "--frames", 2, "--out", tmp_path / "w.gif").exit_code == 0
    with Image.open(tmp_path / "w.gif") as picture:
        assert picture.n_frames == 2


def test_the_training_is_animated_as_it_was(saved, tmp_path, monkeypatch):
    state, _ = saved
    again = GroundState(state.potential, state.settings)
    walkers = [now for _, now in state._training_again(again, 100)]
    assert len(walkers) == state.n_updates
    assert torch.equal(again.training.walkers, state.training.walkers)
    state.animate(tmp_path / "w.gif", n_frames=1, n_training=2)
    with Image.open(tmp_path / "w.gif") as picture:
        assert picture.n_frames == 3
    monkeypatch.setitem(state.history, "training", [[1, 9.0, 0.1, 0.0]])
    with pytest.raises(BadConfig, match="began with a drift"):
        state.animate(tmp_path / "w.gif", n_frames=1, n_training=1)


def test_a_live_figure_is_replaced_in_its_place(saved, monkeypatch):
    monkeypatch.setattr("fkdrift.figures.live.REFRESH_SECONDS", 0.0)
    monkeypatch.setattr("fkdrift.figures.live.SHARE", 1e9)
    shown, replaced = [], []
    history: dict[str, list[list[float]]] = {"training": []}
    step = live_figure(history, "energy", lambda figure: shown.append(figure) or replaced.append)
    for k in range(3):
        step()
        history["training"].append([k, 0.5, 0.1, 0.0])
    assert (len(shown), len(replaced)) == (1, 1)
    assert replaced[0].axes[0].get_ylabel() == "energy"


def test_the_history_is_a_frame(saved):
    state, _ = saved
    frame = state.to_dataframe()
    assert list(frame) == ["phase", "step", "energy", "error", "seconds"]
    assert len(frame) == sum(map(len, state.history.values()))


def test_a_new_plug_in_passes_its_own_test(tmp_path, monkeypatch):
    folder = write_plug_in("two_wells", tmp_path / "new")
    assert '"fkdrift_two_wells:TwoWells"' in (folder / "pyproject.toml").read_text()
    monkeypatch.syspath_prepend(folder)
    spec = importlib.util.spec_from_file_location("test_two_wells", folder / "test_two_wells.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.test_it_is_a_potential(2.0)
    module.test_its_exact_energy()
    sys.modules.pop("fkdrift_two_wells")


@pytest.mark.parametrize("name", ["Two", "2wells", "two-wells", "class", "harmonic"])
def test_names_that_a_plug_in_cannot_have(name, tmp_path):
    with pytest.raises(BadParameter):
        write_plug_in(name, tmp_path / "new")
    with pytest.raises(BadConfig, match="already"):
        write_plug_in("two_wells", tmp_path)


WRONG = {
    "alone": lambda r: r.square().sum((-2, -1)) - r.mean(),
    "symmetric": lambda r: r[:, 0, 0] ** 2 + 2 * r[:, 1, 0] ** 2,
}


@pytest.mark.parametrize("words", ["alone", "symmetric"])
def test_what_is_no_potential_is_said(words):
    with pytest.raises(AssertionError, match=words):
        check_potential(FunctionPotential(WRONG[words], n_particles=2, identical=True))


@pytest.mark.parametrize("name", ["helium", "henon_heiles", "cosine", "gaussian_bosons", "noble_gas"])
def test_plug_ins_conform(name):
    check_potential(fk.load_potential(name), spread=3.0)
