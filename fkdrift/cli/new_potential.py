"""`fkdrift new-potential NAME`: a plug-in package to start from, with a test that passes as it is written."""

from __future__ import annotations

import keyword
from pathlib import Path
from typing import Annotated

import typer

from fkdrift.cli.console import errors
from fkdrift.errors import BadConfig, BadParameter
from fkdrift.hamiltonian.names import installed

PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "fkdrift-{dashed}"
version = "0.1.0"
description = "The potential {name} for fkdrift"
requires-python = ">=3.11"
dependencies = ["fkdrift"]

[project.entry-points."fkdrift.potentials"]
{name} = "fkdrift_{name}:{title}"

[tool.setuptools]
py-modules = ["fkdrift_{name}"]
"""
MODULE = '''\
"""The potential {name}."""

from dataclasses import dataclass

from torch import Tensor

from fkdrift.hamiltonian.potential import KnownEnergy, Potential, require_positive


@dataclass(frozen=True)
class {title}(Potential):
    """V = k r^2 / 2: replace it by your own.

    Args:
        k: stiffness.
    """

    k: float = 1.0

    n_particles = 1
    n_dims = 1
    formula = "V = k r^2 / 2"
    units = "hbar = m = 1"

    def __post_init__(self) -> None:
        require_positive(k=self.k)

    def __call__(self, r: Tensor) -> Tensor:
        """V of positions (batch, particle, dim), as (batch,)."""
        return self.k * r.square().sum((-2, -1)) / 2

    @property
    def known_energy(self) -> KnownEnergy:
        """Leave it out where none is known."""
        return KnownEnergy(self.k**0.5 / 2, "exact", "harmonic oscillator")
'''
TEST = '''\
"""`python -m pytest` in this folder, after `python -m pip install -e .`."""

import pytest

import fkdrift as fk
from fkdrift.hamiltonian.conformance import check_potential
from fkdrift_{name} import {title}


@pytest.mark.parametrize("k", [0.5, 1.0, 4.0])
def test_it_is_a_potential(k):
    check_potential({title}(k=k))


def test_its_exact_energy():
    potential = {title}(k=4.0)
    assert abs(fk.diagonalise(potential, levels=1).ground_state - potential.known_energy.value) < 1e-8
'''
README = """\
# fkdrift-{dashed}

```bash
python -m pip install -e .
python -m pytest
fkdrift solve -p {name} -P k=2
```

What a potential can say about itself (masses, identical particles, a trial function, units) is in
fkdrift's docs/potentials.md.
"""
FILES = {
    "pyproject.toml": PYPROJECT,
    "README.md": README,
    "fkdrift_{name}.py": MODULE,
    "test_{name}.py": TEST,
}


def new_potential(
    name: Annotated[str, typer.Argument(help="Of the potential, such as two_wells.", metavar="NAME")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The folder; default fkdrift-NAME.", metavar="DIR")
    ] = None,
) -> None:
    """Write a plug-in package with a potential to replace by your own, and its test."""
    with errors():
        folder = write_plug_in(name, out)
        typer.echo(f"{folder} is written.  Install and try it:\n")
        typer.echo(f"  cd {folder} && python -m pip install -e . && python -m pytest && fkdrift solve -p {name}")


def write_plug_in(name: str, out: Path | None = None) -> Path:
    """The folder of a new plug-in package.

    Raises:
        BadParameter: the name is no name of Python's, or is taken.
        BadConfig: the folder is there already.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        raise BadParameter(f"{name!r} cannot be the name of a module: use small letters, digits and _, as in two_wells")
    if name in installed():
        raise BadParameter(f"there is a potential called {name} already: choose another name")
    words = {"name": name, "dashed": name.replace("_", "-"), "title": name.title().replace("_", "")}
    folder = out or Path(f"fkdrift-{words['dashed']}")
    if folder.exists():
        raise BadConfig(f"{folder} is there already: choose another --out")
    folder.mkdir(parents=True)
    for file, text in FILES.items():
        (folder / file.format(**words)).write_text(text.format(**words), encoding="utf-8")
    return folder
