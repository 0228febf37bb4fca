"""zuko's flows behind the protocol, and the refusal of those that do not work."""

from __future__ import annotations

import sys

import pytest
import torch

from fkdrift.densities.density import Density
from fkdrift.densities.zuko_density import BROKEN, SMOOTHNESS, ZukoDensity
from fkdrift.errors import BadParameter, InputError, MissingExtra
from fkdrift.wavefunction.flow import refuse_kinks
from tests.systems import generator

pytest.importorskip("zuko")


def double(kind: str) -> ZukoDensity:
    ones = torch.ones(2, dtype=torch.float64)
    return ZukoDensity(kind, 2, centre=0.5 * ones, spread=2 * ones)


@pytest.mark.parametrize("kind", SMOOTHNESS)
def test_normalised_and_consistent(kind):
    flow = double(kind)
    assert isinstance(flow, Density)
    x, log_p = flow.sample_and_log_prob(7, generator())
    assert log_p.shape == (7,)
    assert flow.score(x.detach()).shape == (7, 2)
    side = torch.linspace(-20, 20, 201, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    with torch.no_grad():
        mass = float(flow.log_prob(grid).exp().sum()) * 0.2**2
    assert abs(mass - 1) < (2e-2 if kind == "NAF" else 1e-4)  # NAF: a random one has peaks narrower than the grid


def test_samples_depend_on_the_generator_alone():
    flow = double("MAF")
    before = torch.get_rng_state()
    first, again = flow.sample(5, generator(1)), flow.sample(5, generator(1))
    assert torch.equal(first, again)
    assert not torch.equal(first, flow.sample(5, generator(2)))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_flows_are_refused_with_the_reason(kind):
    with pytest.raises(BadParameter, match=kind):
        ZukoDensity(kind, 2)


def test_unknown_flow_is_refused():
    with pytest.raises(BadParameter, match="choose from"):
        ZukoDensity("XYZ", 2)


def test_kinks_are_declared():
    assert double("NSF").smoothness == 0
    assert ZukoDensity("MAF", 2, activation=torch.nn.ReLU).smoothness == 0
    refuse_kinks(double("MAF"))
    with pytest.raises(InputError, match="falls below E_0"):
        refuse_kinks(double("NSF"))


def test_missing_zuko_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(MissingExtra, match="flows"):
        ZukoDensity("MAF", 2)
