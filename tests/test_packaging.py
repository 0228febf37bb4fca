"""What pyproject.toml says is what is in the folders; the slow test builds and installs it for real."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import fkdrift

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PLUG_INS = sorted(file.stem for file in (ROOT / "potentials").glob("*.py") if file.stem != "__init__")


def folder_of(package: str) -> Path:
    parent, _, rest = package.partition(".")
    top = PROJECT["tool"]["setuptools"]["package-dir"].get(parent, parent)
    return ROOT / top / rest.replace(".", "/")


def test_packages_are_the_folders():
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    found = set()
    for package in ("fkdrift", "fkdrift_potentials"):
        for file in folder_of(package).rglob("__init__.py"):
            inner = file.parent.relative_to(folder_of(package)).as_posix()
            found.add(package if inner == "." else f"{package}.{inner.replace('/', '.')}")
    assert listed == found


def test_entry_points_are_the_plug_ins():
    declared = PROJECT["project"]["entry-points"]["fkdrift.potentials"]
    assert sorted(declared) == PLUG_INS
    for name, target in declared.items():
        assert target.startswith(f"fkdrift_potentials.{name}:")


def test_installed_entry_points_are_the_declared_ones():
    declared = PROJECT["project"]["entry-points"]["fkdrift.potentials"]
    installed = {entry.name: entry.value for entry in entry_points(group="fkdrift.potentials")}
    assert declared.items() <= installed.items(), "install again: pip install -e . -c constraints.txt"


def test_package_data_exists():
    for package, names in PROJECT["tool"]["setuptools"]["package-data"].items():
        for name in names:
            assert (folder_of(package) / name).is_file()


def test_every_dependency_is_pinned_in_the_constraints():
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, pin = line.partition("==")
            assert pin, line
            pins[re.sub(r"[-_.]+", "-", name).lower()] = pin
    assert pins["torch"] == "2.13.0"
    optional = PROJECT["project"]["optional-dependencies"]
    own = f"fkdrift[{','.join(extras := ['ase', 'compress', 'flows', 'data', 'report', 'tables', 'symbolic'])}]"
    tested = [requirement for requirement in optional["test"] if requirement != own]
    assert len(tested) == len(optional["test"]) - 1
    named = [requirement for extra in extras for requirement in optional[extra]]
    for requirement in [*PROJECT["project"]["dependencies"], *tested, *named, *optional["dev"]]:
        name = re.match(r"[\w.-]+", requirement)
        assert name is not None
        assert re.sub(r"[-_.]+", "-", name.group()).lower() in pins, requirement


def test_install_commands_use_the_constraints():
    files = [ROOT / "README.md", ROOT / ".ci" / "run", *sorted((ROOT / "docs").glob("*.md"))]
    commands = [line for file in files for line in file.read_text().splitlines() if "pip install -" in line]
    assert len(commands) >= 2
    for command in commands:
        assert "-c constraints.txt" in command, command


def test_public_names_resolve():
    assert len(fkdrift.__all__) > 20
    for name in fkdrift.__all__:
        assert getattr(fkdrift, name) is not None
        assert name in dir(fkdrift)
    with pytest.raises(AttributeError, match="no attribute 'solv'"):
        fkdrift.solv  # noqa: B018


@pytest.mark.slow
def test_wheel_and_sdist_work_from_another_folder(tmp_path, monkeypatch):
    pytest.importorskip("build")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    source = tmp_path / "source"  # a copy: a build folder left in the checkout would ship deleted modules for ever
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ("fkdrift", "potentials"):
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "build", "--no-isolation", "-o", tmp_path, source]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,), (sdist,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {f"fkdrift/{file.name}" for file in (ROOT / "fkdrift").glob("*.py")}
    expected |= {f"fkdrift_potentials/{stem}.py" for stem in PLUG_INS}
    expected |= {"fkdrift/py.typed", "fkdrift/runs/result.schema.json", "fkdrift_potentials/py.typed"}
    assert expected <= names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"fkdrift", "fkdrift_potentials"}
    with tarfile.open(sdist) as archive:
        assert any(name.endswith("/potentials/harmonic.py") for name in archive.getnames())
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python]  # pip is not installed once more
    subprocess.run([*pip, "install", "-q", "--no-deps", wheel], check=True, capture_output=True)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    borrowed = [path for path in sys.path if path.endswith("site-packages")]  # the dependencies, not installed twice
    (site / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    code = (
        "import json, fkdrift, fkdrift_potentials; from fkdrift.hamiltonian.loading import available;"
        "plug_ins = available().values();"
        "print(json.dumps([fkdrift.__file__, fkdrift_potentials.__file__, [p.name for p in plug_ins if not p.broken],"
        "[p.broken for p in plug_ins if p.broken]]))"
    )
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    package, potentials, usable, broken = json.loads(done.stdout)
    assert str(tmp_path / "venv") in package
    assert str(tmp_path / "venv") in potentials
    assert (set(PLUG_INS) <= set(usable), broken) == (True, [])
    command = subprocess.run(
        [tmp_path / "venv" / "bin" / "fkdrift", "--version"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert command.stdout.split() == ["fkdrift", PROJECT["project"]["version"]]
