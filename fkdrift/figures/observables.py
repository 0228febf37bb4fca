"""Densities, pair distributions and correlation functions by every kind of estimator, with their standard errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fkdrift.estimators.correlation import Correlation
from fkdrift.estimators.observables import Average
from fkdrift.figures.palette import DASHED, LEARNED, POTENTIAL, WALKERS

COLOURS = {"pure": LEARNED, "mixed": POTENTIAL, "variational": WALKERS}


def histogram_figure(
    averages: Mapping[str, Mapping[str, Average]], known: Mapping[str, Mapping[str, Any]] | None = None
) -> Figure:
    """One panel for each histogram, the pure estimator above the mixed and the variational one, the exact one dashed.

    Args:
        averages: kind of estimator to name to Average; those with bins are drawn.
        known: `result["observables"]`, in which the exact values are `expected`.
    """
    names = list({name for of_kind in averages.values() for name, each in of_kind.items() if each.centres})
    figure = Figure(figsize=(4.2 * len(names), 3.3), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], sorted(names), strict=True):
        for kind, colour in reversed(COLOURS.items()):
            if name in averages.get(kind, {}):
                draw_histogram(axes, averages[kind][name], colour, kind)
        if "expected" in (entry := (known or {}).get(name, {})):
            axes.plot(entry["centres"], entry["expected"], label="exact", **DASHED)
        axes.legend()
    return figure


def draw_histogram(axes: Axes, average: Average, colour: str = LEARNED, label: str | None = None) -> None:
    """A histogram with its band."""
    mean, error = average.mean.cpu().numpy(), average.error.cpu().numpy()
    _band(axes, np.asarray(average.centres), mean, error, colour, label)
    axes.set(xlabel=f"${average.axis}$", ylabel=average.unit, title=average.name, ylim=(0, None))


def correlation_figure(names: Sequence[str], found: Mapping[str, Correlation]) -> Figure:
    """C(tau) of each observable with itself, on a logarithmic scale as far as it is above its error.

    Args:
        names: of the observables.
        found: kind of estimator to Correlation.
    """
    figure = Figure(figsize=(4.2 * len(names), 3.3), layout="constrained")
    for i, (axes, name) in enumerate(zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True)):
        for kind, each in found.items():
            mean, error = each.mean[:, i, i].cpu().numpy(), each.error[:, i, i].cpu().numpy()
            below = ~(mean > 2 * error)
            n = int(np.argmax(below)) if below.any() else len(mean)
            _band(axes, each.times.cpu().numpy()[:n], mean[:n], error[:n], COLOURS[kind], kind)
        axes.set(xlabel=r"imaginary time $\tau$", ylabel=r"$C(\tau)$", title=f"correlation of {name}", yscale="log")
        axes.legend()
    return figure


def _band(axes: Axes, x: np.ndarray, mean: np.ndarray, error: np.ndarray, colour: str, label: str | None) -> None:
    axes.fill_between(x, mean - error, mean + error, color=colour, alpha=0.3, lw=0)
    axes.plot(x, mean, color=colour, lw=1.2, label=label)
