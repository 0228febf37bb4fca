"""The layout that docs/architecture.md describes is the one in the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {
    ".".join(file.relative_to(ROOT / "fkdrift").with_suffix("").parts): file
    for file in sorted((ROOT / "fkdrift").rglob("*.py"))
    if file.stem != "__init__"
}
GENERATIVE = [name for name in MODULES if name.startswith("generative.")]
PLUG_INS = [file for file in sorted((ROOT / "potentials").glob("*.py")) if file.stem != "__init__"]
PICTURES = {
    "figures",
    "wavefunction_figure",
    "trajectory_figure",
    "generative.latent_figure",
    "generative.path_figure",
    "generative.diffusion_figure",
    "generative.flow_figure",
}
NAMING_FIGURES = {
    "ground_state",
    "learning",
    "generative.recipe",
    "generative.autoencoders",
    "generative.latent_series",
    "generative.diffusion_learning",
    "generative.flow_learning",
}
"""Modules that name matplotlib's Figure in annotations, and import it for the type checker only."""


def read_floors() -> list[list[str]]:
    """The modules of each floor, lowest first, in the order of the table."""
    text = (ROOT / "docs" / "architecture.md").read_text().replace("\\_", "_")
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", text, flags=re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(len(rows)))
    return [[name.strip() for name in names.split(",")] for _, names in rows]


ORDER = [name for floor in read_floors() for name in floor]
EXACT = ORDER[ORDER.index("survey") : ORDER.index("exact") + 1]


def imports(file: Path, top_level: bool = False) -> set[str]:
    """Full names of what a file imports, for type checking too; `top_level`: only what importing the file imports."""
    tree = ast.parse(file.read_text())
    nodes = tree.body if top_level else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def packages(file: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(file)}


def siblings(file: Path, top_level: bool = False) -> set[str]:
    """Modules of fkdrift that a file imports."""
    paths = [name.split(".")[1:] for name in imports(file, top_level) if name.startswith("fkdrift.")]
    return {".".join(path[:2]) if path[0] == "generative" else path[0] for path in paths}


def test_every_module_has_a_floor():
    assert len(ORDER) == len(set(ORDER))
    assert set(ORDER) == set(MODULES), "enter new modules in the table of docs/architecture.md"


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name):
    below = ORDER[: ORDER.index(name)]
    assert siblings(MODULES[name]) <= set(below)


def test_generative_models_use_the_shared_floors_only():
    shared = {name for floor in read_floors()[:5] for name in floor}
    for name in GENERATIVE:
        assert siblings(MODULES[name]) <= shared | set(GENERATIVE)


def test_the_rule_would_notice():
    assert "run" in siblings(MODULES["solver"])
    assert "ground_state" not in ORDER[: ORDER.index("run")]


def test_only_path_imports_torchsde():
    assert {name for name, file in MODULES.items() if "torchsde" in packages(file)} == {"path"}


def test_only_figures_import_matplotlib():
    users = {name for name, file in MODULES.items() if "matplotlib" in packages(file)}
    assert users - NAMING_FIGURES == PICTURES
    for naming in NAMING_FIGURES:
        assert not any(name.startswith("matplotlib") for name in imports(MODULES[naming], top_level=True))
    assert not {name for name, file in MODULES.items() if siblings(file, top_level=True) & PICTURES} - PICTURES


def test_exact_solutions_stand_alone():
    physics = set(ORDER[ORDER.index("features") :]) - set(EXACT)
    for name in EXACT:
        assert not siblings(MODULES[name]) & physics
        assert "torchsde" not in packages(MODULES[name])


def test_nothing_imports_a_plug_in():
    for file in MODULES.values():
        assert not packages(file) & {"fkdrift_potentials", "potentials"}


@pytest.mark.parametrize("file", PLUG_INS, ids=lambda file: file.stem)
def test_plug_ins_import_the_protocol_only(file):
    assert siblings(file) <= {"potential", "reference"}
    assert packages(file) <= {"__future__", "dataclasses", "math", "torch", "fkdrift"}


def test_nothing_prints_or_seeds_at_import():
    for file in MODULES.values():
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                if ast.unparse(node.value.func).startswith("app."):  # commands are registered, as by a decorator
                    continue
                pytest.fail(f"{file.name} line {node.lineno} does something when imported")
