"""Several runs in one figure: energies and levels beside what is known, and densities on top of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fkdrift.figures.palette import DASHED, EXACT, LEARNED, PARTICLES, STYLE, labelled

Row = Mapping[str, Any]
OTHERS = tuple(colour for colour in PARTICLES if colour != EXACT)


def compare_figure(rows: Sequence[Row], densities: Sequence[Row] = (), levels: Sequence[Row] = ()) -> Figure:
    """One panel for each potential, since their energies have no scale in common, one for each spectrum and density.

    Args:
        rows: of `fkdrift.runs.compare.compare`; the first run is at the top.
        densities, levels: of the functions of that name there.
    """
    rows, densities, levels = (_with_short_names(each) for each in (rows, densities, levels))
    energies = _grouped([row for row in rows if row["energy"] is not None], "potential")
    overlays = _grouped(densities, "potential", "name")
    spectra = _grouped([row for row in levels if row["energy"] is not None], "potential")
    heights = [0.5 * len(group) + 1 for group in energies.values()] + [3.0] * len(spectra) + [2.6] * len(overlays)
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, sum(heights)), layout="constrained")
        panels = iter(figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
        for (potential,), group in energies.items():
            _energies(next(panels), potential, group)
        for (potential,), group in spectra.items():
            _ladders(next(panels), potential, group)
        for (potential, name), group in overlays.items():
            _overlay(next(panels), f"{name} of {potential}", group)
    return figure


def _with_short_names(rows: Sequence[Row]) -> list[Row]:
    """Runs by the last part of their folders, where that tells them apart: a long name would leave no room."""
    runs = {row["run"] for row in rows}
    short = {run: Path(run).name for run in runs}
    return [{**row, "run": short[row["run"]]} if len({*short.values()}) == len(runs) else row for row in rows]


def _grouped(rows: Sequence[Row], *names: str) -> dict[tuple[str, ...], list[Row]]:
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def _energies(axes: Axes, title: str, group: Sequence[Row]) -> None:
    """Each run on a line of its own, and the exact or reference energy."""
    y = np.arange(len(group))
    E, error = (np.array([row[key] for row in group], dtype=float) for key in ("energy", "error"))
    axes.errorbar(E, y, xerr=error, fmt="o", color=LEARNED, ms=4, capsize=3, label="run, one standard error")
    known = next((kind for kind in ("exact", "reference") if group[0][kind] is not None), None)
    if known:
        axes.axvline(group[0][known], color=EXACT, lw=1.3, ls=(0, (5, 2)), label=known)
    axes.set_yticks(y, [row["run"] for row in group])
    axes.set(title=title, xlabel=labelled("energy", group[0]["unit"]), ylim=(len(group) - 0.5, -0.5))
    axes.margins(x=0.15)
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.tick_params(axis="x", labelrotation=20)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _ladders(axes: Axes, title: str, group: Sequence[Row]) -> None:
    """The levels of each run in a column of its own, exact ones across all of them."""
    runs = list(dict.fromkeys(row["run"] for row in group))
    for k, E in enumerate(sorted({row["exact"] for row in group if row["exact"] is not None})):
        axes.axhline(E, label=None if k else "exact", **DASHED)
    x = [runs.index(row["run"]) for row in group]
    E, error = (np.array([row[key] for row in group], dtype=float) for key in ("energy", "error"))
    axes.errorbar(x, E, error, fmt="_", color=LEARNED, ms=28, mew=2.0, capsize=4, label="run, one standard error")
    axes.set_xticks(range(len(runs)), runs)
    axes.set(title=f"levels of {title}", ylabel=labelled("energy", group[0]["unit"]), xlim=(-0.6, len(runs) - 0.4))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), markerscale=0.4)


def _overlay(axes: Axes, title: str, group: Sequence[Row]) -> None:
    """The densities of all runs, each with a band of one standard error, and the exact one."""
    for k, row in enumerate(group):
        x, mean, error = (np.array(row[key], dtype=float) for key in ("centres", "mean", "error"))
        colour = OTHERS[k % len(OTHERS)]
        axes.plot(x, mean, color=colour, lw=1.2, label=row["run"])
        axes.fill_between(x, mean - error, mean + error, color=colour, alpha=0.2, lw=0)
    known = next((row for row in group if "expected" in row), None)
    if known:
        axes.plot(known["centres"], known["expected"], label="exact", **DASHED)
    axes.set(title=title, xlabel=f"${group[0]['axis']}$", ylabel=labelled(group[0]["name"], group[0]["unit"]))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
