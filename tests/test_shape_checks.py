"""The tests' own checks of shapes refuse what does not fit, in whatever is imported through them."""

from __future__ import annotations

import importlib

import pytest
import shape_checks
import torch
from beartype.roar import BeartypeCallHintViolation

from fkdrift.wavefunction.local_energy import local_energy
from tests.systems import random_state

SHAPED = """
from __future__ import annotations

from dataclasses import dataclass

from fkdrift.tensor_types import PerWalker, Positions


def energy(r: Positions, n: int) -> PerWalker:
    def inside(r: Positions) -> PerWalker:
        return r[:n, 0, 0]

    return inside(r)


def plain(n: int) -> str:
    return n


@dataclass(frozen=True)
class Walkers:
    r: Positions
    E: PerWalker

    @property
    def first(self) -> PerWalker:
        return self.E[0]
"""


@pytest.fixture
def shaped(tmp_path, monkeypatch):
    (tmp_path / "shaped.py").write_text(SHAPED)
    monkeypatch.syspath_prepend(tmp_path)
    shape_checks.install(["shaped"])
    return importlib.import_module("shaped")


def test_what_does_not_fit_is_refused(shaped):
    r, E = torch.zeros(3, 2, 1), torch.zeros(3)
    assert shaped.energy(r, 3).shape == (3,)
    walkers = shaped.Walkers(r, E)
    for wrong in (
        lambda: shaped.energy(r[0], 3),
        lambda: shaped.energy(r.long(), 3),
        lambda: shaped.energy(r, 2),  # another batch in what is returned
        lambda: shaped.Walkers(r, E[:2]),
        lambda: shaped.Walkers(r[0], E),
        lambda: walkers.first,
    ):
        with pytest.raises(BeartypeCallHintViolation):
            wrong()


def test_only_shapes_are_checked(shaped):
    assert shaped.plain(3) == 3
    assert shaped.plain.__annotations__ == {"n": "int", "return": "str"}
    assert shaped.energy.__annotations__ == {"r": "Positions", "n": "int", "return": "PerWalker"}


def test_the_package_is_checked():
    _, process = random_state("harmonic", 0.1)
    with pytest.raises(BeartypeCallHintViolation):
        local_energy(process, torch.zeros(3, dtype=torch.float64))
