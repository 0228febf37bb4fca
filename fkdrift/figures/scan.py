"""Energies along a parameter with their errors, what they should be, and their slope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fkdrift.figures.palette import EXACT, LEARNED, PARTICLES, STYLE, labelled

MOST_CURVES = 8
LABEL = "learned, one standard error"
KNOWN: dict[str, dict[str, Any]] = {
    "exact": {"marker": "_", "ms": 11, "mew": 1.6},
    "reference": {"marker": "x", "ms": 6, "mew": 1.4},
}
"""How energies that are known are marked."""

Rows = Sequence[Mapping[str, Any]]
"""Of `fkdrift.runs.scan.records`."""


def scan_figure(rows: Rows, over: Sequence[str], title: str, units: Mapping[str, str]) -> Figure:
    """Energy against the parameter with more values, a curve for each combination of the others; below it the errors.

    Args:
        rows: one for each point.
        over: the names of the scanned parameters.
        title: what was computed.
        units: of the energy and of the observables, where they are known.
    """
    along = max(over, key=lambda name: len({row[name] for row in rows}))
    known = next((name for name in KNOWN if any(row[name] is not None for row in rows)), None)
    panels = [("energy", _label("$E_0$", units["energy"]))]
    panels += [("deviation", _label(rf"$E - E_\mathrm{{{known}}}$", units["energy"]))] if known else []
    slope = f"dE/d{along}"
    panels += [(slope, _label(slope, units[slope]))] if any(row.get(slope) is not None for row in rows) else []
    with rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(panels), 3.7), layout="constrained")
        for axes, (name, label) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for colour, words, curve in _curves(rows, over, along):
                _draw(axes, curve, along, name, known, colour, words)
            axes.set(xlabel=along, ylabel=label)
            axes.ticklabel_format(axis="y", useOffset=False)
            axes.margins(y=0.12)
            axes.legend()
        figure.suptitle(title, fontsize=9.5, x=0.01, ha="left", color="#444444")
    return figure


def _label(name: str, unit: str) -> str:
    """Of an axis; energies that are in no unit have none."""
    return labelled(name, None if "energy" in unit else unit)


def _curves(rows: Rows, over: Sequence[str], along: str) -> list[tuple[str, str, Rows]]:
    """A colour, words and the rows of each curve; of many, evenly chosen ones."""
    others = [name for name in over if name != along]
    curves: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["energy"] is not None:
            curves.setdefault(tuple(row[name] for name in others), []).append(row)
    keys = list(curves)
    keys = [keys[k] for k in np.unique(np.linspace(0, len(keys) - 1, min(len(keys), MOST_CURVES)).round().astype(int))]
    named = [", ".join(f"{name} = {value}" for name, value in zip(others, key, strict=True)) for key in keys]
    colours = (LEARNED, *PARTICLES[2:], PARTICLES[1]) if others else (LEARNED,)
    return [(colours[k % len(colours)], named[k], curves[key]) for k, key in enumerate(keys)]


def _draw(axes: Axes, rows: Rows, along: str, name: str, known: str | None, colour: str, words: str) -> None:
    """One curve in one panel."""
    x = np.array([row[along] for row in rows])
    error = f"{name}_error" if name not in ("energy", "deviation") else "error"
    rows = [{**row, "deviation": _difference(row, known)} for row in rows]
    y, bars = (np.array([row.get(key) for row in rows], dtype=float) for key in (name, error))
    axes.errorbar(x, y, bars, fmt="o-", color=colour, ms=3.5, lw=1.2, capsize=2.5, label=words or LABEL)
    if name == "energy":
        for kind, mark in KNOWN.items():
            values = np.array([row[kind] for row in rows], dtype=float)
            if np.isfinite(values).any():
                axes.plot(x, values, ls="none", color=EXACT, label="" if words else kind, zorder=4, **mark)
    if name == "deviation":
        axes.axhline(0, color=EXACT, lw=1.0, ls=(0, (5, 2)))


def _difference(row: Mapping[str, Any], known: str | None) -> float | None:
    """The energy less the one that is known."""
    return None if known is None or row[known] is None else row["energy"] - row[known]
