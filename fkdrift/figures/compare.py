"""Several runs in one figure: energies beside what is known, and densities on top of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fkdrift.figures.palette import EXACT, LEARNED, PARTICLES, STYLE

Row = Mapping[str, Any]


def compare_figure(rows: Sequence[Row], densities: Sequence[Row] = ()) -> Figure:
    """One panel for each potential, since their energies have no scale in common, and one for each density.

    Args:
        rows: of `fkdrift.runs.compare.compare`; the first run is at the top.
        densities: of `fkdrift.runs.compare.densities`.
    """
    known = [row for row in rows if row["energy"] is not None]
    energies = _grouped(known, "potential")
    overlays = _grouped(densities, "potential", "name")
    heights = [0.5 * len(group) + 1 for group in energies.values()] + [2.6] * len(overlays)
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, sum(heights)), layout="constrained")
        panels = iter(figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
        for (potential,), group in energies.items():
            _energies(next(panels), potential, group)
        for (potential, name), group in overlays.items():
            _overlay(next(panels), f"{name} of {potential}", group)
    return figure


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
    xlabel = " in ".join(filter(None, ("energy", group[0]["unit"])))
    axes.set(title=title, xlabel=xlabel, ylim=(len(group) - 0.5, -0.5))
    axes.margins(x=0.15)
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.tick_params(axis="x", labelrotation=20)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _overlay(axes: Axes, title: str, group: Sequence[Row]) -> None:
    """The densities of all runs, each with a band of one standard error."""
    for k, row in enumerate(group):
        x, mean, error = (np.array(row[key], dtype=float) for key in ("centres", "mean", "error"))
        colour = PARTICLES[k % len(PARTICLES)]
        axes.plot(x, mean, color=colour, lw=1.2, label=row["run"])
        axes.fill_between(x, mean - error, mean + error, color=colour, alpha=0.2, lw=0)
    axes.set(title=title, xlabel="length", ylabel=" in ".join(filter(None, (group[0]["name"], group[0]["unit"]))))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
