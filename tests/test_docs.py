"""What the documentation shows is what happens: docs/library.md runs, options exist, links lead somewhere."""

from __future__ import annotations

import doctest
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from settings_tables import PAGE, current, shown
from typer.testing import CliRunner

import fkdrift as fk
from fkdrift.bridges.trajectories import infer
from fkdrift.cli import main as cli
from fkdrift.runs.ground_state import solve
from fkdrift.runs.methods.bridge import bridge
from fkdrift.runs.methods.pimc import pimc
from fkdrift.runs.recipes import MODELS
from fkdrift.runs.scan import scan

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def quick_solve(potential, /, *, settings=None, **options):
    """`fk.solve` with fewer walkers and updates, and without projection; no figures."""
    chosen = settings or fk.Settings(method=options.get("method", "drift"))
    few = {"n_walkers": 64, "n_updates": 3, "n_blocks": 20, "path_step": 0.25, "project": False}
    few |= {"n_walkers": 512} if chosen.method == "flow" else {}
    return solve(potential, settings=chosen.changed(**{n: few[n] for n in few if chosen.uses(n)}), **options)


def quick_pimc(potential, *, temperature, **options):
    """`fk.pimc` with fewer chains."""
    settings = fk.PimcSettings(temperature=temperature, n_chains=64, n_equilibration=5)
    return pimc(potential, settings=settings, **options)


def quick_scan(*what, settings, **options):
    """`fk.scan` without projection."""
    return scan(*what, settings=settings.changed(n_walkers=64, n_updates=3, n_blocks=20, project=False), **options)


QUICK = {"n_updates": 5, "n_paths": 256}


RUN = [page for page in PAGES if page.name not in ("exact.md", "extending.md", "result.md", "settings.md")]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in RUN if blocks(page, "python")], ids=lambda page: page.name)
def test_pages_run(page, tmp_path, monkeypatch):
    """All Python of a page, in one piece and from top to bottom, with less of everything that takes time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fkdrift.runs.ground_state.GroundState.plot", lambda state: {})
    monkeypatch.setattr("fkdrift.estimators.correlation.STEPS_IN_SCALE", 8)
    monkeypatch.setattr("fkdrift.hamiltonian.three_body.N_ROUNDS", 1)
    monkeypatch.setattr("fkdrift.runs.ground_state.N_EXCITATION_WALKERS", 256)
    monkeypatch.setattr("fkdrift.runs.ground_state.N_EXCITATION_BLOCKS", 16)
    monkeypatch.setattr(fk, "solve", quick_solve)
    monkeypatch.setattr(fk, "pimc", quick_pimc)
    monkeypatch.setattr(fk, "scan", quick_scan)
    monkeypatch.setattr(fk, "bridge", lambda *where, **options: bridge(*where, **options | QUICK))
    monkeypatch.setattr(fk.generative, "infer", lambda problem, **options: infer(problem, **options | QUICK))
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(block, names)


class Roughly(doctest.OutputChecker):
    """Numbers with an exponent are errors of the order of rounding, or ends of grids: they may differ."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        want, got = (re.sub(r"[\d.]+e[-+]\d+", "#", text) for text in (want, got))
        return super().check_output(want, got, optionflags)


@pytest.mark.slow
def test_examples_of_exact_levels():
    """docs/exact.md is written as a session, with what is printed."""
    page = ROOT / "docs" / "exact.md"
    session = doctest.DocTestParser().get_doctest(page.read_text(), {}, page.name, str(page), 0)
    report: list[str] = []
    runner = doctest.DocTestRunner(Roughly(), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    failed, tried = runner.run(session, out=report.append)
    assert tried >= 5
    assert not failed, "".join(report)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@cache
def help_of(*command: str) -> str:
    """What a command says of itself."""
    shown = CliRunner().invoke(cli.app, [*command, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, command
    return shown.stdout


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "extending.md"], ids=lambda page: page.name)
def test_options_in_the_pages_exist(page):
    for block in blocks(page, "bash"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] != ["fkdrift"] or len(words) < 2:
                continue
            shown = help_of(*(words[1:3] if words[1] == "learn" else words[1:2]))
            for word in words[2:]:
                if re.match(r"-+[a-zA-Z]", word):
                    assert re.search(rf"(^|\W){re.escape(word)}\W", shown), f"{page.name}: {line}"


def test_the_readme_begins_with_two_commands():
    first, second = "".join(blocks(ROOT / "README.md", "bash")).splitlines()[:2]
    assert "-c constraints.txt" in first
    assert first.endswith("fkdrift solve --potential harmonic")
    assert second.endswith("pytest")
    assert all(line.count(".venv") >= 1 for line in (first, second))


def test_the_tables_of_settings_are_those_of_the_code():
    page = PAGE.read_text()
    assert page == current(page), "run: python tests/settings_tables.py"
    assert shown() >= {MODELS.settings(name) for name in MODELS.names()}


def test_the_site_loads_nothing_from_the_network():
    """The plug-in `offline` adds a script of another site unless there is one of this name already."""
    paths = re.findall(r"- path: (\S*iframe-worker\S*)", (ROOT / "mkdocs.yml").read_text())
    assert [(ROOT / "docs" / path).is_file() for path in paths] == [True]


def test_the_site_has_every_page_and_every_public_name():
    nav = (ROOT / "mkdocs.yml").read_text().partition("nav:")[2]
    assert sorted(re.findall(r"(\w+\.md)", nav)) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))
    described = re.findall(r"^::: fkdrift\.(\S+)\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), flags=re.MULTILINE)
    names = [name for _, name in described]
    assert len(names) == len(set(names))
    assert {*fk.__all__, *fk.generative.__all__} - {*names} == set()
