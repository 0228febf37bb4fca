"""How the energy came about, to hover over and zoom into: part of the page of a run, with Bokeh's script in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from bokeh.embed import components
from bokeh.layouts import column
from bokeh.models import ColumnDataSource, HoverTool
from bokeh.models.annotations import Span
from bokeh.plotting import figure
from bokeh.resources import Resources

from fkdrift.figures.ground_state import settled_range
from fkdrift.figures.palette import EXACT, LEARNED, WALKERS

HEIGHT = 260  # pixels of a panel


class Interactive(NamedTuple):
    """HTML: scripts for the head of a page, and what stands in its body."""

    head: str
    body: str


def convergence(
    history: Mapping[str, Sequence[Sequence[float]]], quantity: str, known: tuple[str, float] | None = None
) -> Interactive:
    """The mean against the step with one standard error, a panel for each phase.

    Args:
        history: rows (step, mean, error, seconds) by the name of the phase.
        quantity: what the mean is of.
        known: name and value of the energy that it should come to.
    """
    panels = []
    for phase, rows in history.items():
        table = np.asarray(rows, dtype=float).reshape(-1, 4)
        step, mean, error, seconds = table.T
        band = {"low": mean - error, "high": mean + error}
        source = ColumnDataSource({"step": step, "mean": mean, "error": error, "seconds": seconds, **band})
        panel = figure(
            title=phase.replace("_", " "),
            height=HEIGHT,
            sizing_mode="stretch_width",
            tools="pan,wheel_zoom,box_zoom,reset",
            active_scroll=None,
            x_axis_label="step",
            y_axis_label=quantity,
        )
        value = None if known is None else known[1]
        if found := settled_range(table, value):
            panel.y_range.start, panel.y_range.end = found  # type: ignore[attr-defined]
        panel.varea("step", "low", "high", source=source, fill_color=WALKERS, fill_alpha=0.7)
        line = panel.line("step", "mean", source=source, line_color=LEARNED, line_width=1.5)
        dots = panel.scatter("step", "mean", source=source, fill_color=LEARNED, line_color=None, size=3)
        panel.add_tools(
            HoverTool(
                renderers=[dots if len(table) < 200 else line],
                mode="vline",
                tooltips=[
                    ("step", "@step{0,0}"),
                    (quantity, "@mean{0.00000000}"),
                    ("error", "@error{0.0e+0}"),
                    ("seconds", "@seconds{0.0}"),
                ],
            )
        )
        if value is not None:
            panel.add_layout(Span(location=value, dimension="width", line_color=EXACT, line_dash="dashed"))
        panels.append(panel)
    script, body = components(column(*panels, sizing_mode="stretch_width"))
    head = Resources(mode="inline", components=["bokeh"], log_level="error").render_js()
    return Interactive(f"{head}\n{script}", body)
