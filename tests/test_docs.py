"""What the documentation shows is what happens: docs/library.md runs, options exist, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from settings_tables import PAGE, current, shown
from typer.testing import CliRunner

from fkdrift.cli import main as cli
from fkdrift.runs.recipes import MODELS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "page", ["library.md", "paths.md", "generative.md", "flows.md", "pimc.md", "observables.md", "spectrum.md"]
)
def test_pages_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fkdrift.runs.ground_state.GroundState.plot", lambda state: {})
    names: dict[str, object] = {}
    code = blocks(ROOT / "docs" / page, "python")
    assert len(code) >= 2
    for block in code:
        exec(block, names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_in_the_pages_exist(page):
    for block in blocks(page, "bash"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] != ["fkdrift"] or len(words) < 2:
                continue
            command = words[1:3] if words[1] == "learn" else words[1:2]
            shown = CliRunner().invoke(cli.app, [*command, "--help"], env={"COLUMNS": "200"})
            assert shown.exit_code == 0, line
            for word in words[2:]:
                if re.match(r"-+[a-zA-Z]", word):
                    assert re.search(rf"(^|\W){re.escape(word)}\W", shown.stdout), f"{page.name}: {line}"


def test_the_readme_begins_with_two_commands():
    first, second = "".join(blocks(ROOT / "README.md", "bash")).splitlines()[:2]
    assert "-c constraints.txt" in first
    assert first.endswith("fkdrift solve --potential harmonic")
    assert second.endswith("pytest")
    assert all(line.count(".venv") >= 1 for line in (first, second))


def test_the_tables_of_settings_are_those_of_the_code():
    page = PAGE.read_text()
    assert page == current(page), "run: python tests/settings_tables.py"
    assert shown() >= {MODELS.find(name).settings for name in MODELS.names()}
