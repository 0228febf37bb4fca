"""The layout that docs/architecture.md describes is the one in the code: imports between packages go down only."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "fkdrift").rglob("*.py"))
ORDER = re.findall(r"^\| `(\w+)/?` \|", (ROOT / "docs" / "architecture.md").read_text(), flags=re.MULTILINE)
"""The packages, lowest first, as the table of docs/architecture.md has them."""


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def package_of(module: str) -> str:
    """The package of fkdrift that a module is in; "root" for the modules beside the packages."""
    part = module.split(".")[1] if "." in module else ""
    return part if (ROOT / "fkdrift" / part).is_dir() and part else "root"


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


@cache
def imports(file: Path) -> set[str]:
    """Full names of what a file imports, lazily and for type checking too."""
    found = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def packages(file: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(file)}


def test_the_table_names_every_package():
    folders = {file.parent.name for file in (ROOT / "fkdrift").glob("*/__init__.py")}
    assert len(ORDER) == len(set(ORDER))
    assert set(ORDER) == folders | {"root"}


@pytest.mark.parametrize("file", [file for file in FILES if file.parent != ROOT / "fkdrift"], ids=name_of)
def test_imports_go_down(file):
    allowed = ORDER[: ORDER.index(package_of(name_of(file))) + 1]
    used = {package_of(name) for name in imports(file) if name.startswith("fkdrift.")}
    assert used <= set(allowed)


def test_only_evolution_imports_torchsde():
    assert {name_of(file) for file in FILES if "torchsde" in packages(file)} == {"fkdrift.paths.evolution"}


def test_matplotlib_is_imported_by_figures_alone():
    for file in FILES:
        if "figures" not in file.parts:
            top = {node.module or "" for node in tree(file).body if isinstance(node, ast.ImportFrom)}
            assert not any(name.startswith(("matplotlib", "fkdrift.figures")) for name in top), file


def test_exact_solutions_know_potentials_only():
    for file in (ROOT / "fkdrift" / "exact").glob("*.py"):
        used = {package_of(name) for name in imports(file) if name.startswith("fkdrift.")}
        assert used <= {"root", "exact", "hamiltonian"}


def test_nothing_imports_a_plug_in_and_plug_ins_import_the_hamiltonian():
    for file in FILES:
        assert not packages(file) & {"fkdrift_potentials", "potentials"}
    for file in (ROOT / "potentials").glob("*.py"):
        assert packages(file) <= {*sys.stdlib_module_names, "torch", "fkdrift"}
        used = {package_of(name) for name in imports(file) if name.startswith("fkdrift")}
        assert used <= {"hamiltonian"}


def test_a_class_has_its_name_to_itself():
    """One name, one meaning: no two modules define public classes of one name."""
    seen: dict[str, str] = {}
    for file in FILES:
        for node in tree(file).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                assert node.name not in seen, f"{node.name} is in {seen[node.name]} and {name_of(file)}"
                seen[node.name] = name_of(file)


def test_nothing_prints_or_seeds_at_import():
    for file in FILES:
        for node in tree(file).body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                registers = ast.unparse(node.value.func).startswith("app.")  # a command, as by a decorator
                assert registers, f"{file.name} line {node.lineno} does something when imported"
