"""How the energy came about, to hover over and zoom into: part of the page of a run, with Bokeh's script in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from bokeh.embed import components
from bokeh.layouts import column
from bokeh.models import ColumnDataSource, HoverTool
from bokeh.models.annotations import Span
from bokeh.plotting import figure
from bokeh.resources import Resources

from fkdrift.figures.ground_state import known_energy, settled_range
from fkdrift.figures.palette import EXACT, LEARNED, WALKERS

HEIGHT = 260  # pixels of a panel


class Interactive(NamedTuple):
    """HTML: scripts for the head of a page, and what stands in its body."""

    head: str
    body: str


def convergence(
    history: Mapping[str, Sequence[Sequence[float]]], energies: Mapping[str, Any], quantity: str
) -> Interactive:
    """The mean against the step with one standard error, a panel for each phase.

    Args:
        history: rows (step, mean, error, seconds) by the name of the phase.
        energies: of result.json; the exact or reference one is drawn.
        quantity: what the mean is of.
    """
    _, value = known_energy(energies)
    panels = [_panel(phase, np.asarray(rows, dtype=float), value, quantity) for phase, rows in history.items()]
    script, body = components(column(*panels, sizing_mode="stretch_width"))
    head = Resources(mode="inline", components=["bokeh"], log_level="error").render_js()
    return Interactive(f"{head}\n{script}", body)


def _panel(phase: str, table: np.ndarray, value: float | None, quantity: str) -> Any:
    """One phase: rows (step, mean, error, seconds), and the value that they should come to."""
    step, mean, error, seconds = table.reshape(-1, 4).T
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
    if found := settled_range(table, value):
        panel.y_range.start, panel.y_range.end = found  # type: ignore[attr-defined]
    panel.varea("step", "low", "high", source=source, fill_color=WALKERS, fill_alpha=0.7)
    line = panel.line("step", "mean", source=source, line_color=LEARNED, line_width=1.5)
    dots = panel.scatter("step", "mean", source=source, fill_color=LEARNED, line_color=None, size=3)
    numbers = [("step", "@step{0,0}"), (quantity, "@mean{0.00000000}"), ("error", "@error{0.0e+0}")]
    panel.add_tools(
        HoverTool(
            renderers=[dots if len(table) < 200 else line],
            mode="vline",
            tooltips=[*numbers, ("seconds", "@seconds{0.0}")],
        )
    )
    if value is not None:
        panel.add_layout(Span(location=value, dimension="width", line_color=EXACT, line_dash="dashed"))
    return panel
