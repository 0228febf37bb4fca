"""Transitions of a double well against the exact Fokker-Planck solution."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fkdrift as fk
from fkdrift.errors import BadParameter
from fkdrift.exact.committor import committor
from fkdrift.paths.evolution import evolve
from fkdrift.paths.process import Overdamped, Process
from fkdrift.paths.transitions import transitions
from tests.systems import generator

A, B, KT, DT = -0.8, 0.8, 0.5, 1 / 128


def test_of_a_double_well():
    one = torch.ones(1, 1, dtype=torch.float64)
    simulation = Process(torch.zeros_like, Overdamped(fk.load_potential("double_well"), one, KT))
    start = torch.where(torch.rand(1200, generator=generator()) < 0.5, -1.0, 1.0).double()[:, None, None]
    burnt = evolve(simulation, start, n_steps=400, dt=DT, generator=generator(1)).positions[-1]
    path = evolve(simulation, burnt, n_steps=1600, n_saved=1600, dt=DT, generator=generator(2))
    found = transitions(path.positions[:, :, 0, 0], DT, A, B, sigma=1.0, n_bins=8)
    exact = committor(lambda x: (x**2 - 1) ** 2, A, B, -3.0, 3.0, temperature=KT)
    for measured, known in ((found.duration, exact.duration), (found.flux, exact.flux)):
        assert measured.error < 0.05 * known
        assert abs(measured.deviation(known)) < 3
    edges = np.linspace(A, B, 9)
    for k, q in enumerate(found.committor):
        inside = (exact.x >= edges[k]) & (exact.x <= edges[k + 1])
        weight = np.exp(-((exact.x[inside] ** 2 - 1) ** 2) / KT)
        assert abs(q.mean - np.average(exact.q[inside], weights=weight)) < 4 * q.error + 0.01


def test_what_has_no_transitions():
    x = torch.zeros(10, 3)
    with pytest.raises(BadParameter, match="no transition"):
        transitions(x, 0.1, -1.0, 1.0)
    with pytest.raises(BadParameter, match="nothing between"):
        transitions(x, 0.1, 1.0, 1.0)
