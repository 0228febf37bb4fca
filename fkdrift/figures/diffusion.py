"""Pictures of a diffusion model: what it draws beside the data, and how noise becomes a datum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fkdrift.figures.latent import pixels
from fkdrift.figures.palette import DASHED, EXACT, LEARNED, PARTICLES, POTENTIAL, WALKERS
from fkdrift.generative.chain import generate
from fkdrift.generative.data.datasets import Dataset
from fkdrift.generative.diffusion import DDPM
from fkdrift.generative.reverse_diffusion import ancestral, probability_flow
from fkdrift.numerics.estimates import Estimate

N_POINTS, N_BINS = 20_000, 90
ROWS, COLUMNS = 6, 12
SHOWN = (1.0, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1, 0.0)
"""Noise levels of the reverse trajectories, as fractions of the chain."""


def diffusion_figures(model: DDPM, data: Dataset, generator: torch.Generator) -> dict[str, Figure]:
    """Figures by name: samples and reverse trajectories, as images, as a plane, or component by component."""
    if data.is_image:
        return {"samples": _images(model, data, generator), "reverse": _reverse_images(model, data, generator)}
    if model.size == 2:
        return {"samples": _plane(model, data, generator), "reverse": _reverse_plane(model, data, generator)}
    return {"samples": _marginals(model, data, generator)}


def samplers_figure(distances: Mapping[str, Sequence[tuple[int, Estimate]]], drawn: Tensor, data: Dataset) -> Figure:
    """How far samples are from the data against the evaluations of the network that they took, and images of few.

    Args:
        distances: (evaluations, energy distance) of each way to draw them.
        drawn: (row, column, size), images of one of them.
        data: what is drawn.
    """
    figure = Figure(figsize=(8.8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    for colour, (name, points) in zip(PARTICLES, distances.items(), strict=False):
        calls, found = [n for n, _ in points], [distance for _, distance in points]
        means, errors = [d.mean for d in found], [d.error for d in found]
        left.errorbar(calls, means, errors, color=colour, marker="o", ms=3.5, lw=1.2, elinewidth=0.8, label=name)
    left.axhline(0, color=POTENTIAL, lw=0.8)
    left.set(xscale="log", xlabel="evaluations of the network", ylabel="energy distance to the data")
    left.legend()
    _tiles(right, drawn, data)
    return figure


def _images(model: DDPM, data: Dataset, generator: torch.Generator) -> Figure:
    """Test data beside samples of the chain, of the same classes where it is told classes."""
    figure = Figure(figsize=(8.4, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.08})
    n = ROWS * COLUMNS // 2
    drawn = ancestral(_as_in(model, data, n, "test"), n, generator)
    for axes, images, title in (
        (left, data.test[torch.arange(n) % len(data.test)], "test data"),
        (right, drawn, f"drawn from the chain, {model.n_steps} steps"),
    ):
        _tiles(axes, images.unflatten(0, (ROWS, COLUMNS // 2)), data)
        axes.set_title(title)
    return figure


def _reverse_images(model: DDPM, data: Dataset, generator: torch.Generator) -> Figure:
    """Some chains from noise to image: what the network believes of z_0 on the way."""
    model = model.given(torch.arange(ROWS) % max(1, data.n_classes))
    states = generate(model, ROWS, generator)
    scale, mean = model.standardise.scale, model.standardise.mean
    columns, levels = [], []
    for fraction in SHOWN[:-1]:
        t = max(1, round(fraction * model.n_steps))
        phi = model.phi[t - 1].expand(ROWS)
        columns.append(model.parts(states[model.n_steps - t], phi)[0] * scale + mean)
        levels.append(str(t))
    columns.append(states[-1])
    figure = Figure(figsize=(8.4, 6.2), layout="constrained")
    axes = figure.subplots()
    _tiles(axes, torch.stack(columns, 1), data)
    side = data.shape[1] + 1
    axes.set_xticks([(k + 0.5) * side for k in range(len(columns))], [*levels, "datum"])
    axes.set_xlabel("steps from the datum")
    axes.set_title(r"the image expected at each step, $E[z_0\,|\,z_t]$, in six draws")
    return figure


def _tiles(axes: Axes, images: Tensor, data: Dataset) -> None:
    """Images (row, column, size) as one picture."""
    rows, columns = images.shape[:2]
    high, wide = data.shape[:2]
    top = (data.n_levels or 2) - 1 if data.n_levels else float(data.test.max())
    low = 0.0 if data.n_levels else float(data.test.min())
    colours = (3,) if data.shape[2:] == (3,) else ()
    sheet = np.full((rows * (high + 1) - 1, columns * (wide + 1) - 1, *colours), 1.0 if colours else np.nan)
    for row in range(rows):
        for column in range(columns):
            tile = pixels(images[row, column].reshape(data.shape), low, top)
            sheet[row * (high + 1) :, column * (wide + 1) :][:high, :wide] = tile
    axes.imshow(sheet, cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _plane(model: DDPM, data: Dataset, generator: torch.Generator) -> Figure:
    """The density of the data beside that of the samples, and both along each axis."""
    drawn = ancestral(_as_in(model, data, N_POINTS), N_POINTS, generator).double().numpy()
    real = data.train.double().numpy()
    box = _box(real)
    figure = Figure(figsize=(9.6, 3.3), layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=(1, 1, 1.1))
    counts = [np.histogram2d(x[:, 0], x[:, 1], bins=N_BINS, range=box, density=True)[0].T for x in (real, drawn)]
    for axes, count, title in zip(
        panels, counts, ("data", f"drawn from the chain, {model.n_steps} steps"), strict=False
    ):
        axes.imshow(count, origin="lower", extent=[*box[0], *box[1]], vmin=0, vmax=counts[0].max(), aspect="equal")
        axes.grid(visible=False)
        axes.set(title=title, xlabel=r"$x_1$", ylabel=r"$x_2$")
    _curves(panels[2], real[:, 0], drawn[:, 0], box[0])
    panels[2].set(title="along the first axis", xlabel=r"$x_1$", ylabel="density")
    panels[2].legend()
    return figure


def _reverse_plane(model: DDPM, data: Dataset, generator: torch.Generator) -> Figure:
    """The cloud at several noise levels on the way back, and some lines of the probability flow."""
    scale, mean = model.standardise.scale, model.standardise.mean
    states = [z * scale + mean for z in generate(_as_in(model, data, 3000), 3000, generator)[:-1]]
    box = _box(np.concatenate([data.train.double().numpy(), states[0].double().numpy()]))
    times = (1.0, 0.6, 0.3, 0.0)
    figure = Figure(figsize=(9.6, 2.9), layout="constrained")
    panels = figure.subplots(1, 4, sharex=True, sharey=True)
    start, model = states[0][:40], _as_in(model, data, 40)
    lines = [start, *(_flow_to(model, (start - mean) / scale, t) * scale + mean for t in np.linspace(0.95, 0, 20))]
    path = torch.stack(lines).double().numpy()
    for axes, time in zip(panels, times, strict=True):
        cloud = states[round((1 - time) * (len(states) - 1))].double().numpy()
        axes.plot(*cloud.T, ".", ms=1.2, color=WALKERS, alpha=0.5, zorder=1)
        length = round((1 - time) * (len(path) - 1)) + 1
        axes.plot(path[:length, :, 0], path[:length, :, 1], color=LEARNED, lw=0.7, zorder=2)
        axes.plot(path[length - 1, :, 0], path[length - 1, :, 1], ".", ms=4, color=EXACT, zorder=3)
        axes.set(
            title=rf"$t = {round(time * model.n_steps)}$", xlabel=r"$x_1$", xlim=box[0], ylim=box[1], aspect="equal"
        )
    panels[0].set_ylabel(r"$x_2$")
    return figure


def _flow_to(model: DDPM, z: Tensor, fraction: float) -> Tensor:
    """Noise carried by the probability flow to the noise level at this fraction of the chain."""
    last = max(0, round(fraction * model.n_steps) - 1)
    return probability_flow(model, z, until=float(model.phi[last]))


def _marginals(model: DDPM, data: Dataset, generator: torch.Generator) -> Figure:
    """Histograms of the first components."""
    drawn, real = ancestral(_as_in(model, data, 5000), 5000, generator).double().numpy(), data.train.double().numpy()
    n = min(8, model.size)
    rows = (n + 3) // 4
    figure = Figure(figsize=(min(n, 4) * 2.3, 2.2 * rows), layout="constrained")
    for k, axes in enumerate(figure.subplots(rows, min(n, 4), squeeze=False).flat):
        if k >= n:
            axes.remove()
            continue
        _curves(axes, real[:, k], drawn[:, k], _box(real[:, k : k + 1])[0])
        axes.set(xlabel=rf"$x_{{{k + 1}}}$", yticks=[])
    figure.axes[0].legend(fontsize=7.5)
    return figure


def _as_in(model: DDPM, data: Dataset, n: int, part: str = "train") -> DDPM:
    """The model, told n classes as they come in the data, if it is told any."""
    classes = data.labels(part)
    return model.given(classes.repeat(-(-n // len(classes)))[:n])


def _curves(axes: Axes, real: np.ndarray, drawn: np.ndarray, limits: tuple[float, float]) -> None:
    """Two histograms as lines."""
    for x, style in ((drawn, {"color": LEARNED, "label": "samples"}), (real, {**DASHED, "label": "data"})):
        heights, edges = np.histogram(x, bins=60, range=limits, density=True)
        axes.plot((edges[1:] + edges[:-1]) / 2, heights, **style)
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])


def _box(x: np.ndarray) -> list[tuple[float, float]]:
    """Limits that hold nearly all of (n, dim)."""
    low, high = np.quantile(x, [0.001, 0.999], axis=0)
    margin = 0.12 * (high - low)
    return [(float(a), float(b)) for a, b in zip(low - margin, high + margin, strict=True)]
