"""Pictures of a flow: its density beside the data, or histograms of its samples over those of the data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fkdrift.densities.density import Density
from fkdrift.figures.palette import DASHED, LEARNED

N_GRID, N_BINS, N_SAMPLES = 201, 70, 5000
LARGEST = 8


def flow_figures(
    flow: Density, data: Tensor, generator: torch.Generator, exact: Callable[[Tensor], Tensor] | None = None
) -> dict[str, Figure]:
    """Figures by name.

    Args:
        flow: the density.
        data: (n, size) what it was fitted to.
        generator: of the samples.
        exact: log p of the data where it is known, (batch, 2) to (batch,); only for data in the plane.
    """
    with torch.no_grad():
        if data.shape[1] == 2:
            return {"density": density_figure(flow, data, exact)}
        return {"samples": _marginals(flow, data, generator)}


def density_figure(flow: Density, data: Tensor, exact: Callable[[Tensor], Tensor] | None = None) -> Figure:
    """The density of data in the plane, exact or counted, that of the flow, and both along the first axis."""
    x = data.double().numpy()
    low, high = np.quantile(x, [0.001, 0.999], axis=0)
    low, high = low - 0.15 * (high - low), high + 0.15 * (high - low)
    sides = [torch.linspace(float(a), float(b), N_GRID, dtype=data.dtype) for a, b in zip(low, high, strict=True)]
    grid = torch.stack(torch.meshgrid(*sides, indexing="ij"), -1).reshape(-1, 2)
    learned = _on_grid(flow.log_prob, grid)
    if exact is None:
        known = np.histogram2d(x[:, 0], x[:, 1], bins=N_BINS, range=list(zip(low, high, strict=True)), density=True)[0]
    else:
        known = _on_grid(exact, grid)
    figure = Figure(figsize=(9.8, 3.3), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.1))
    for axes, p, title in ((left, known, "data" if exact is None else "exact"), (middle, learned, "flow")):
        axes.imshow(p.T, origin="lower", extent=(low[0], high[0], low[1], high[1]), vmin=0, vmax=known.max())
        axes.grid(visible=False)
        axes.set(title=title, xlabel=r"$x_1$", ylabel=r"$x_2$")
    side = sides[0].double().numpy()
    step = (high[1] - low[1]) / (N_GRID - 1)
    right.plot(side, learned.sum(1) * step, color=LEARNED, label="flow")
    if exact is None:
        _histogram(right, x[:, 0], (low[0], high[0]), "data")
    else:
        right.plot(side, known.sum(1) * step, label="exact", **DASHED)
    right.set(title="along the first axis", xlabel=r"$x_1$", ylabel="density")
    right.set_ylim(0, 1.3 * right.get_ylim()[1])
    right.legend()
    return figure


def _on_grid(log_p: Callable[[Tensor], Tensor], grid: Tensor) -> np.ndarray:
    p = torch.cat([log_p(part).exp() for part in grid.split(10_000)])
    return p.reshape(N_GRID, N_GRID).double().numpy()


def _marginals(flow: Density, data: Tensor, generator: torch.Generator) -> Figure:
    """Histograms of the first components of samples and data."""
    drawn, real = flow.sample(N_SAMPLES, generator).double().numpy(), data.double().numpy()
    n = min(LARGEST, data.shape[1])
    rows, columns = (n + 3) // 4, min(n, 4)
    figure = Figure(figsize=(max(3.4, 2.3 * columns), 2.3 * rows), layout="constrained")
    for k, axes in enumerate(list(figure.subplots(rows, columns, squeeze=False).flat)):
        if k >= n:
            axes.remove()
            continue
        low, high = np.quantile(real[:, k], [0.001, 0.999])
        limits = (low - 0.15 * (high - low) - 1e-9, high + 0.15 * (high - low) + 1e-9)
        heights, edges = np.histogram(drawn[:, k], bins=N_BINS, range=limits, density=True)
        axes.plot((edges[1:] + edges[:-1]) / 2, heights, color=LEARNED, label="flow")
        _histogram(axes, real[:, k], limits, "data")
        axes.set(xlabel=rf"$x_{{{k + 1}}}$", yticks=[])
    figure.axes[0].legend(fontsize=7.5)
    return figure


def _histogram(axes: Axes, x: np.ndarray, limits: tuple[float, float], label: str) -> None:
    """A histogram as a line."""
    heights, edges = np.histogram(x, bins=N_BINS, range=limits, density=True)
    axes.plot((edges[1:] + edges[:-1]) / 2, heights, label=label, **DASHED)
