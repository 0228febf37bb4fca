"""The energies of several runs with their errors, beside what is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from fkdrift.figures.palette import EXACT, LEARNED, STYLE


def compare_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """One panel for each potential, since their energies have no scale in common; the first run at the top.

    Args:
        rows: of `fkdrift.runs.compare.compare`.
    """
    by_potential: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["energy"] is not None:
            by_potential.setdefault(row["potential"], []).append(row)
    heights = [len(group) for group in by_potential.values()]
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.1 * len(heights) + 0.45 * sum(heights)), layout="constrained")
        panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (name, group) in zip(panels, by_potential.items(), strict=True):
            y = np.arange(len(group))
            E, error = (np.array([row[key] for row in group], dtype=float) for key in ("energy", "error"))
            axes.errorbar(E, y, xerr=error, fmt="o", color=LEARNED, ms=4, capsize=3, label="run, one standard error")
            known = next((kind for kind in ("exact", "reference") if group[0][kind] is not None), None)
            if known:
                axes.axvline(group[0][known], color=EXACT, lw=1.3, ls=(0, (5, 2)), label=known)
            axes.set_yticks(y, [row["run"] for row in group])
            axes.set(
                title=name,
                xlabel=" in ".join(filter(None, ("energy", group[0]["unit"]))),
                ylim=(len(group) - 0.5, -0.5),
            )
            axes.margins(x=0.15)
            axes.ticklabel_format(axis="x", useOffset=False)
            axes.tick_params(axis="x", labelrotation=20)
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
