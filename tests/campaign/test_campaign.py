"""The short part of the campaign: every part with a few faults and a fixed seed."""

from __future__ import annotations

import json

import pytest

from campaign.__main__ import PARTS, pieces, run
from campaign.tally import Tally

SHORT = {
    "formulas": 150,
    "tables": 60,
    "folders": 30,
    "streams": 60,
    "SIGKILL": 1,
    "SIGTERM": 1,
    "archives": 2,
    "pathologies": 2,
    "odd_places": 12,
    "together": 1,
    "full_disk": 1,
    "global_state": 1,
}
LONGER = ("SIGKILL", "SIGTERM")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in LONGER else ()) for n in SHORT])
def test_nothing_wrong_and_nothing_lost(name: str, rough_figures: None) -> None:
    tally = run(name, SHORT[name], seed=1)
    assert tally.clean, tally.examples
    assert tally.tried >= SHORT[name]
    assert tally.counts["refused"] or name not in ("formulas", "tables", "folders", "streams", "full_disk")


def test_the_parts_have_names_of_their_own() -> None:
    assert set(SHORT) < set(PARTS)


def test_pieces_make_up_the_whole() -> None:
    for name, part in PARTS.items():
        _, sizes, seeds = zip(*pieces([name], 1.0, seed=2), strict=True)
        assert sum(sizes) == part.whole
        assert len(set(seeds)) == len(seeds)


def test_a_tally_survives_its_file() -> None:
    one, two = Tally("one", cpu_seconds=1.0), Tally("one", cpu_seconds=2.0)
    one.add("wrong", "this")
    two.add("right")
    both = Tally.total([Tally.of(json.loads(json.dumps(each.plain()))) for each in (one, two)])
    assert (both.tried, both.cpu_seconds, both.examples, both.clean) == (2, 3.0, ["wrong: this"], False)
