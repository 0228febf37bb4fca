"""Pictures of trajectories: bands of conditioned paths beside exact ones, and how many paths still count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from fkdrift.bridges.trajectories import Trajectories
from fkdrift.figures.palette import DASHED, LEARNED, PARTICLES, POTENTIAL, STYLE, WALKERS
from fkdrift.generative.latent_sde import LatentSDE
from fkdrift.numerics.log_weights import effective_sample_size

N_PATHS = 24
N_PANELS = 6


def bridge_figure(
    found: Trajectories,
    title: str,
    exact: NDArray[np.float64] | None = None,
    levels: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95),
    measured: Sequence[tuple[float, float, float]] = (),
) -> Figure:
    """Quantile bands of each coordinate with some paths of equal weight.

    Args:
        found: the weighted trajectories.
        title: above the figure.
        exact: quantiles (level, time) of the first coordinate at all times but the first and last.
        levels: of the quantiles, an odd number of them, the middle one the median.
        measured: (time, value, noise) of measurements of the first coordinate, drawn with error bars.
    """
    t = found.path.times.numpy()
    names = [(i, d) for i in range(found.path.positions.shape[2]) for d in range(found.path.positions.shape[3])]
    shown = names[:N_PANELS]
    bands = found.quantiles(levels).double().cpu().numpy()
    paths = found.sample(N_PATHS, torch.Generator().manual_seed(0)).double().cpu().numpy()
    with rc_context(STYLE):
        n_columns = min(2, len(shown))
        n_rows = -(-len(shown) // n_columns)
        size = (7.4, 3.8) if len(shown) == 1 else (8.6, 2.7 * n_rows + 0.4)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(n_rows, n_columns, sharex=True, squeeze=False).flatten()
        for axes, (i, d) in zip(panels, shown, strict=False):
            _bands(axes, t, bands[:, :, i, d], paths[:, :, i, d], levels)
            label = "$x(t)$" if len(names) == 1 else f"${'xyz'[d]}_{{{i + 1}}}(t)$"
            axes.set(xlabel="time $t$", ylabel=label, xlim=(t[0], t[-1]))
        for axes in panels[len(shown) :]:
            axes.remove()
        first = panels[0]
        if exact is not None:
            for k, row in enumerate(exact):
                first.plot(t[1:-1], row, **DASHED, label="exact" if k == 0 else None)
        for k, (at, value, noise) in enumerate(measured):
            shown_as = {"label": "measured"} if k == 0 else {}
            first.errorbar(at, value, 2 * noise, fmt="o", color="#222222", ms=4, capsize=3, zorder=5, **shown_as)
        first.legend(loc="best", framealpha=0.85, frameon=True, edgecolor="none")
        figure.suptitle(
            f"{title}   log evidence {found.log_evidence}", fontsize=9.5, x=0.01, ha="left", color="#444444"
        )
    return figure


def _bands(axes: Axes, t: np.ndarray, bands: np.ndarray, paths: np.ndarray, levels: Sequence[float]) -> None:
    """Nested bands around the median, and paths."""
    axes.plot(t, paths, color=WALKERS, lw=0.5, alpha=0.7)
    middle = len(levels) // 2
    for k in range(middle):
        share = f"{100 * (levels[-1 - k] - levels[k]):.0f} %"
        axes.fill_between(t, bands[k], bands[-1 - k], color=LEARNED, alpha=0.16 + 0.1 * k, lw=0, label=share)
    axes.plot(t, bands[middle], color=LEARNED, label="median")


def efficiency_figure(curves: Mapping[str, tuple[Tensor, Tensor]], title: str) -> Figure:
    """The effective fraction of paths against the time, one curve for each way to sample them.

    Args:
        curves: (times, fractions) by label, from `fkdrift.paths.feynman_kac.effective_fraction`.
        title: above the figure.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.6), layout="constrained")
        axes = figure.subplots()
        for colour, (label, (times, fractions)) in zip(PARTICLES, curves.items(), strict=False):
            axes.semilogy(times.numpy(), fractions.numpy(), color=colour, label=label)
        axes.set(xlabel="imaginary time $T$", ylabel="effective fraction of the paths", title=title)
        axes.set_ylim(top=1.15)
        axes.legend(loc="lower left")
    return figure


def series_figure(model: LatentSDE, x: Tensor, data: Tensor, generator: torch.Generator, n_paths: int = 512) -> Figure:
    """Series explained by hidden paths, and series that the model makes.

    Left: the first observed component of a few series, with bands of what their hidden paths would show without noise.
    Right: series of the model over those of the data.

    Args:
        model: a trained latent SDE.
        x: the few series (n, time * observed).
        data: more of them.
        generator: source of the noise.
        n_paths: weighted hidden paths behind each band; how many of them count is in the title.
    """
    effective = []
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for colour, series in zip(PARTICLES, x, strict=False):
        path, log_weight = model.posterior(series, n_paths, generator)
        effective.append(n_paths * effective_sample_size(log_weight.double()).item())
        shown = model.decoder(path.positions[..., 0].flatten(0, 1)).mean[:, 0].unflatten(0, path.positions.shape[:2])
        values, order = shown.sort(1)
        cumulative = log_weight.softmax(0)[order].cumsum(1)
        low, middle, high = (
            values.gather(1, (cumulative < level).sum(1, keepdim=True).clamp_max(values.shape[1] - 1))[:, 0].cpu()
            for level in (0.05, 0.5, 0.95)
        )
        left.fill_between(path.times, low, high, color=colour, alpha=0.2, lw=0)
        left.plot(path.times, middle, color=colour, lw=1.1)
        left.plot(model.times, series.unflatten(0, (len(model.times), -1))[:, 0].cpu(), "o", color=colour, ms=3.5)
    _, made = model.generate(12, generator)
    others = data[:12].unflatten(1, (len(model.times), -1))[..., 0].T.cpu()
    right.plot(model.times, others, color=POTENTIAL, lw=0.8, alpha=0.6)
    right.plot(model.times, made[..., 0].T.cpu(), color=LEARNED, lw=0.9, alpha=0.8)
    right.lines[0].set_label("data")
    right.lines[-1].set_label("model")
    right.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none")
    left.set(
        xlabel="time $t$",
        ylabel="observed",
        title=f"90 % bands of hidden paths; {min(effective):.0f} to {max(effective):.0f} count",
    )
    right.set(xlabel="time $t$", title="series of the data and of the model")
    return figure
