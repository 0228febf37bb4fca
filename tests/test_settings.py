"""Fields that carry their help, range and use: what they refuse, and the tables made from them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import MISSING, dataclass

import pytest

from fkdrift.errors import BadConfig
from fkdrift.settings import RunSettings, default, extensible, fields_of, markdown_table, setting


@dataclass(frozen=True, kw_only=True)
class Walk(RunSettings):
    """Of a walk."""

    ends: tuple[float, ...] = setting(MISSING, "Where it ends.", above=float("-inf"), flags=("--to",))
    how: str = setting("slow", "Its pace.", choices=("slow", "fast"))
    style: str = setting("light", "Of a fast one.", only={"how": "fast"})
    height: float = setting(1.0, "Of a jump.", below=2, only=({"how": "slow"}, {"style": "high"}))
    n_stops: int | None = setting(None, "On the way.", least=0, adopted="as many as needed", extends=True)
    wide: bool = setting(False, "On a|b.")
    threads: int = default(RunSettings, "threads", 2)


def test_fields_know_their_type_and_default():
    fields = fields_of(Walk)
    assert list(fields)[:5] == ["seed", "max_seconds", "device", "dtype", "threads"]
    assert (fields["ends"].kind, fields["ends"].many, fields["ends"].required) == (float, True, True)
    assert (fields["n_stops"].kind, fields["n_stops"].optional) == (int, True)
    assert fields["n_stops"].shown_default == "as many as needed"
    assert fields["ends"].flags == ("--to",)
    assert fields["n_stops"].flags == ("--n-stops",)
    assert fields["threads"].default == 2
    assert fields["threads"].about == fields_of(RunSettings)["threads"].about
    assert list(extensible(Walk, RunSettings)) == list(extensible(Walk))
    assert "n_stops" in extensible(Walk)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "--to missing"),
        ({"ends": [1.0], "hov": "fast"}, "'hov'; did you mean how?"),
        ({"ends": []}, r"ends = \[\] .* one or more"),
        ({"ends": [1.0, "x"]}, r"ends = \[1.0, 'x'\] .* a number"),
        ({"ends": [1.0, float("nan")]}, "finite"),
        ({"ends": 1.0}, "a list"),
        ({"ends": [1.0], "how": "calm"}, "choose from slow, fast"),
        ({"ends": [1.0], "height": 2.0}, "finite and above 0 and below 2"),
        ({"ends": [1.0], "n_stops": -1}, "at least 0"),
        ({"ends": [1.0], "n_stops": 1.5}, "whole number"),
        ({"ends": [1.0], "wide": 1}, "true or false"),
        ({"ends": [1.0], "style": "light"}, "style is not used with how = slow: .* it is for how fast"),
        ({"ends": [1.0], "how": "fast", "height": 1.5}, "height is not used .* how slow, or style high"),
    ],
)
def test_refusals_name_the_value_and_what_is_allowed(values, words):
    with pytest.raises(BadConfig, match=words):
        Walk.from_values(values)


def test_conditions_need_their_own_conditions():
    assert Walk(ends=(1.0,), how="fast", style="high").uses("height")
    with pytest.raises(BadConfig, match="style is not used"):  # also where nobody says that it was given
        Walk(ends=(1.0,), style="high")


def test_a_dict_holds_what_is_used_and_gives_the_settings_back():
    walk = Walk(ends=[1, -2.5], how="fast", n_stops=0)
    assert walk.ends == (1, -2.5)
    values = walk.to_dict()
    assert values["ends"] == [1, -2.5]
    assert "height" not in values
    assert Walk.from_values(values) == walk


def test_changes_leave_the_rest_and_skip_none():
    walk = Walk(ends=(1.0,), height=1.5, seed=3)
    changed = walk.changed(n_stops=4, seed=None)
    assert (changed.seed, changed.height, changed.n_stops) == (3, 1.5, 4)
    with pytest.raises(BadConfig, match="height is not used"):
        walk.changed(how="fast")


def test_a_table_for_the_documentation():
    assert markdown_table(Walk, RunSettings).splitlines() == [
        "| option | default | meaning |",
        "|---|---|---|",
        "| `--threads` | 2 | Of the CPU; one is fastest for small arrays, and repeatable. |",
        "| `--to` | (required) | Where it ends. |",
        "| `--how` | slow | `slow`, `fast`: Its pace. |",
        "| `--style` | light | Of a fast one. Only with how fast. |",
        "| `--height` | 1 | Of a jump. Only with how slow, or style high. |",
        "| `--n-stops` | as many as needed | On the way. |",
        "| `--wide` | no | On a\\|b. |",
    ]


def test_no_torch_is_needed_to_read_settings():
    code = "import sys, fkdrift.runs.settings; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
