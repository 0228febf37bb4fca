"""Before the first block: a start that ends, and a first step that is measured before it is made."""

from __future__ import annotations

import os
import signal
import time
from contextlib import nullcontext

import pytest
import torch
from campaign.kinds import small_runs

import fkdrift as fk
from fkdrift.errors import OutOfTime, TooLarge
from fkdrift.runs.ground_state import GroundState
from fkdrift.runs.methods.bridge import Bridge
from fkdrift.runs.methods.bridge_settings import BridgeSettings
from fkdrift.runs.methods.pimc import Pimc
from fkdrift.runs.methods.pimc_settings import PimcSettings
from fkdrift.runs.starting import OVERHEAD, Cost, available_memory, first_step, require_room, starting

CPU = torch.device("cpu")


def start(max_seconds, act):
    with starting("wells", max_seconds):
        act()


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["heard", "ignored"])
def handler(request):
    """What SIGINT does: it is ignored in the background of a shell."""
    before = signal.signal(signal.SIGINT, request.param)
    yield request.param
    assert signal.getsignal(signal.SIGINT) is request.param
    signal.signal(signal.SIGINT, before)


def test_a_start_ends_after_max_seconds(monkeypatch, handler):
    monkeypatch.setattr("fkdrift.runs.starting.LEAST", 0.0)
    began = time.monotonic()
    with pytest.raises(OutOfTime, match=r"wells was not ready to begin after max_seconds = 0\.1: give it more time"):
        start(0.1, lambda: [time.sleep(0.01) for _ in range(2000)])
    assert time.monotonic() < began + 10
    start(60.0, lambda: None)


def test_ctrl_c_is_what_it_was(handler):
    heard = handler is not signal.SIG_IGN
    with pytest.raises(KeyboardInterrupt) if heard else nullcontext():
        start(60.0, lambda: [os.kill(os.getpid(), signal.SIGINT), time.sleep(10 if heard else 0.2)])


def test_memory_of_a_first_step_is_in_proportion_to_the_walkers():
    """Two tensors of n x 1000 numbers in float64, of which one is given back before the second is made."""

    def step(n):
        torch.ones(n, 1000, dtype=torch.float64).sum()
        return torch.ones(n, 1000, dtype=torch.float64).sum()

    for n in (100, 10**9):
        assert first_step(step, n, 1000).bytes == pytest.approx(OVERHEAD * 8000 * n, rel=0.01)


def test_what_does_not_fit_is_refused():
    with pytest.raises(TooLarge, match=r"about 1e\+06 GB of memory and 1 s, and .* GB are free: fewer walkers"):
        require_room(Cost(1e15, 1.0), CPU, None, "fewer walkers")
    with pytest.raises(TooLarge, match="far longer than max_seconds = 2"):
        require_room(Cost(1e6, 1e3), CPU, 2.0, "fewer walkers")
    require_room(Cost(1e6, 1.0), CPU, 2.0, "")
    assert 1e7 < available_memory(CPU) < 1e15


@pytest.mark.parametrize("kind", ["ground state", "bridge", "pimc", "learned model, vae"])
def test_every_kind_of_run_is_tried_before_it_is_made(monkeypatch, kind):
    make = small_runs()[kind]
    monkeypatch.setattr("fkdrift.runs.starting.WORTH_A_TRIAL", 0)
    monkeypatch.setattr("fkdrift.runs.starting.NUMBERS_AT_ONCE", 2**10)
    make()  # it fits
    monkeypatch.setattr("fkdrift.runs.starting.available_memory", lambda device: 1e3)
    with pytest.raises(TooLarge, match=r"the first step would take about .* GB of memory"):
        make()


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"dt": 1e-9, "max_seconds": 5.0}, "give a longer dt than 1e-09"),
        ({"n_paths": 10**12}, "the paths would take .* give fewer than n_paths = 1000000000000"),
    ],
)
def test_bridges_of_too_many_steps_or_paths(options, remedy):
    settings = BridgeSettings(start=(-1.0,), end=(1.0,), time=1.0, **options)
    with pytest.raises(TooLarge, match=remedy):
        Bridge(fk.load_potential("harmonic"), settings)


def test_chains_beyond_memory_are_refused_before_they_are_made():
    with pytest.raises(TooLarge, match="give fewer than n_chains = 1000000000000"):
        Pimc(fk.load_potential("harmonic"), PimcSettings(temperature=1.0, n_chains=10**12))


def test_walkers_beyond_memory_are_refused_before_they_are_made():
    with pytest.raises(TooLarge, match="fewer than n_walkers = 1000000000000"):
        GroundState(fk.load_potential("harmonic"), fk.Settings(n_walkers=10**12, width=8))
