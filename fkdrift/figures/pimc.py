"""Path integral Monte Carlo as a picture: the energy from block to block, and where the particles are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from fkdrift.estimators.observables import Average
from fkdrift.figures.observables import draw_histogram
from fkdrift.figures.palette import DASHED, LEARNED, WALKERS
from fkdrift.numerics.estimates import Estimate


def pimc_figure(
    trace: Sequence[float],
    energy: Estimate,
    observables: Mapping[str, Average],
    title: str,
    exact: float | None = None,
) -> Figure:
    """The mean energy of each block with the running mean, and every histogram with a band of one standard error.

    Args:
        trace: energy of each block, averaged over the chains.
        energy: of all of them.
        observables: those with bins are drawn.
        title: what was sampled.
        exact: the energy where it is known.
    """
    histograms = [each for each in observables.values() if each.centres]
    figure = Figure(figsize=(3.6 * (1 + len(histograms)), 3.2), layout="constrained")
    panels = figure.subplots(1, 1 + len(histograms), squeeze=False)[0]
    figure.suptitle(title)
    blocks, values = np.arange(1, len(trace) + 1), np.asarray(trace)
    panels[0].plot(blocks, values, ".", color=WALKERS, ms=3, label="block")
    panels[0].plot(blocks, values.cumsum() / blocks, color=LEARNED, label="mean so far")
    panels[0].axhspan(energy.mean - energy.error, energy.mean + energy.error, color=WALKERS, alpha=0.4, lw=0)
    if exact is not None:
        panels[0].axhline(exact, label="exact", **DASHED)
    panels[0].set(xlabel="block", ylabel="energy", title=f"energy {energy}")
    panels[0].legend()
    for axes, each in zip(panels[1:], histograms, strict=True):
        draw_histogram(axes, each)
    return figure
