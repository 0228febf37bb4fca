"""Pictures of a model with latents: loss, reconstructions, samples, traversals, and how much each latent carries."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fkdrift.densities.kernels import expectation
from fkdrift.figures.palette import DASHED, EXACT, LEARNED, STYLE, WALKERS
from fkdrift.generative.chain import Chain, draw_posterior, generate
from fkdrift.generative.data.datasets import Dataset
from fkdrift.generative.diagnostics import ACTIVE_VARIANCE, latent_use
from fkdrift.generative.markov import MarkovAutoencoder
from fkdrift.generative.vae import VAE

N_SHOWN, N_TRAVERSED, REACH = 12, 8, 2.5
N_DOTS, MOST_CLASSES = 1000, 10
SMOOTHING = 50


@contextmanager
def styled() -> Iterator[None]:
    """The look of fkdrift's figures."""
    with rc_context(STYLE):
        yield


def loss_figure(history: np.ndarray, bounds: dict[str, dict[str, Any]], curve: np.ndarray) -> Figure:
    """F of the minibatches against updates, its running mean, F of the data held back, and the bounds reached.

    Args:
        history: rows (update, F, error, seconds).
        bounds: mean for "train" and "test"; empty if they are not known.
        curve: rows of the same for the data held back.
    """
    figure = Figure(figsize=(6.0, 3.4), layout="constrained")
    axes = figure.subplots()
    x, F = history[:, 0], history[:, 1]
    axes.plot(x, F, color=WALKERS, lw=0.7, label="minibatch")
    if len(F) > 2 * SMOOTHING:
        kernel = np.ones(SMOOTHING) / SMOOTHING
        axes.plot(
            x[SMOOTHING // 2 : len(x) - (SMOOTHING - 1) // 2],
            np.convolve(F, kernel, "valid"),
            color=LEARNED,
            label="running mean",
        )
    if len(curve):
        axes.errorbar(*curve[:, :3].T, color=EXACT, marker=".", lw=1.0, elinewidth=0.6, label="data held back")
        best = curve[curve[:, 1].argmin()]
        axes.plot(*best[:2], "o", ms=7, mfc="none", color=EXACT)
    reached = bounds.get("test", {}).get("mean")
    if reached is not None:
        axes.axhline(reached, **DASHED, label=f"test data: {reached:.2f}")
    settled = F[len(F) // 10 :]
    if len(settled):
        values = [
            *np.quantile(settled, [0.005, 0.995]),
            *curve[len(curve) // 10 :, 1],
            settled.mean() if reached is None else reached,
        ]
        margin = 0.08 * (max(values) - min(values)) or 1.0
        axes.set_ylim(min(values) - margin, max(values) + 3 * margin)
    axes.set(xlabel="update", ylabel=r"$F = -\mathrm{ELBO}$ (nats per datum)", title="training")
    axes.legend(loc="upper right")
    return figure


def latent_figures(chain: VAE | MarkovAutoencoder, data: Dataset, generator: torch.Generator) -> dict[str, Figure]:
    """Figures by name: reconstructions and samples; for one latent also traversals and the KL of each unit."""
    figures = {"reconstructions": _reconstructions(chain, data, generator), "samples": _samples(chain, data, generator)}
    if chain.n_steps == 1:
        use = latent_use(chain, data.test, generator)
        order = use.unit_kl.argsort(descending=True)
        figures["latents"] = _latents(use.unit_kl[order], use.variance[order] > ACTIVE_VARIANCE, order)
        figures["traversals"] = _traversals(chain, data, order[:N_TRAVERSED], use.unit_kl)
    return figures


def _reconstructions(chain: VAE | MarkovAutoencoder, data: Dataset, generator: torch.Generator) -> Figure:
    """Test data, and the mean of p(x | z_1) at a draw of z_1."""
    shown = _spread(data, N_DOTS if _in_plane(data) else N_SHOWN)
    x = data.test[shown]
    path, _ = draw_posterior(chain, x, generator)
    mean = expectation(chain.given(data.labels("test")[shown]).generative(1, path[1]))
    if not data.is_image:
        return _beside([("data", x), ("reconstruction", mean)])
    return gallery(torch.stack([x, mean]), data, "data, and what one draw of the latents gives back", ("data", "mean"))


def _samples(chain: VAE | MarkovAutoencoder, data: Dataset, generator: torch.Generator) -> Figure:
    """What the model makes of its prior, each class in a row where it is told classes."""
    if not data.is_image:
        shown = _spread(data, N_DOTS if _in_plane(data) else N_SHOWN)
        told = chain.given(data.labels("test")[shown])
        return _beside([("data", data.test[shown]), ("samples", generate(told, len(shown), generator)[-1])])
    rows = min(data.n_classes, MOST_CLASSES) or 4
    told = chain.given(torch.arange(rows).repeat_interleave(N_SHOWN))
    mean = expectation(told.generative(1, generate(told, rows * N_SHOWN, generator)[-2]))
    names = tuple(map(str, range(rows))) if data.n_classes else ()
    return gallery(mean.unflatten(0, (rows, N_SHOWN)), data, "drawn from the model (means of the pixels)", names)


def _traversals(chain: VAE | MarkovAutoencoder, data: Dataset, units: Tensor, kl: Tensor) -> Figure:
    """Each leading unit moved from -2.5 to 2.5, the others at 0; of the first class where it is told classes."""
    values = torch.linspace(-REACH, REACH, N_SHOWN - 1, dtype=kl.dtype)
    z = torch.zeros(len(units), len(values), len(kl), dtype=kl.dtype)
    for row, unit in enumerate(units):
        z[row, :, unit] = values
    told = chain.given(torch.zeros(1, dtype=torch.long))
    mean = expectation(told.generative(1, z.flatten(0, 1))).unflatten(0, z.shape[:2])
    names = tuple(f"$z_{{{int(unit)}}}$  {kl[unit]:.2f}" for unit in units)
    title = rf"one latent from ${-REACH}$ to ${REACH}$, the others 0; KL in nats" + "; class 0" * (data.n_classes > 0)
    if data.is_image:
        return gallery(mean, data, title, names)
    figure = Figure(figsize=(8.4, 1.9 * math.ceil(len(units) / 4)), layout="constrained")
    panels = figure.subplots(math.ceil(len(units) / 4), min(4, len(units)), squeeze=False, sharex=True, sharey=True)
    for axes in panels.flat[len(units) :]:
        axes.remove()
    for axes, curves, name in zip(panels.flat, mean, names, strict=False):
        if _in_plane(data):
            axes.plot(*curves.double().numpy().T, ".-", color=LEARNED, lw=1.0)
            axes.plot(*data.test[:N_DOTS].double().numpy().T, ".", ms=1.5, color=WALKERS, zorder=0)
            axes.set_title(name, fontsize=9)
            continue
        for shade, curve in zip(np.linspace(0.15, 1.0, len(curves)), curves, strict=True):
            axes.plot(curve.numpy(), color=LEARNED, alpha=shade, lw=1.0)
        axes.set_title(name, fontsize=9)
    figure.supxlabel(r"$x_1$" if _in_plane(data) else "component", fontsize=9)
    figure.supylabel(r"$x_2$" if _in_plane(data) else r"mean of $p(x\,|\,z)$", fontsize=9)
    figure.suptitle(title, fontsize=9.5)
    return figure


def _latents(kl: Tensor, active: Tensor, order: Tensor) -> Figure:
    """Bars of the KL of each unit, largest first."""
    n = len(kl)
    figure = Figure(figsize=(min(9.0, 3.2 + 0.22 * n), 3.2), layout="constrained")
    axes = figure.subplots()
    colours = [LEARNED if on else WALKERS for on in active]
    axes.bar(range(n), kl.numpy(), color=colours, width=0.75)
    for label, colour in ((f"{int(active.sum())} active", LEARNED), (f"{n - int(active.sum())} collapsed", WALKERS)):
        axes.bar(0, 0, color=colour, label=label)
    axes.set(xlabel="latent unit", ylabel=r"KL of the unit (nats)", title="what each latent carries")
    axes.set_xticks(range(n), [str(int(k)) for k in order], fontsize=7 if n > 16 else 9)
    axes.grid(axis="x", visible=False)
    axes.legend()
    return figure


def gallery(images: Tensor, data: Dataset, title: str, names: tuple[str, ...] = ()) -> Figure:
    """Rows of images (row, column, size), with the name of each row."""
    rows, columns = images.shape[:2]
    left = 0.9 if names else 0.05
    figure = Figure(figsize=(left + 0.62 * columns + 0.05, 0.4 + 0.62 * rows))
    top = (data.n_levels or 2) - 1 if data.n_levels else float(data.test.max())
    low = 0.0 if data.n_levels else float(data.test.min())
    width, height = figure.get_size_inches()
    for row in range(rows):
        for column in range(columns):
            box = (left + 0.62 * column + 0.02, height - 0.33 - 0.62 * (row + 1), 0.58, 0.58)
            axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
            _picture(axes, images[row, column].reshape(data.shape), low, top)
            if column == 0 and names:
                axes.set_ylabel(names[row], rotation=0, ha="right", va="center", fontsize=8)
    figure.text(0.02 / width + left / width, 1 - 0.2 / height, title, fontsize=9.5, color="#444444")
    return figure


def _picture(axes: Axes, image: Tensor, low: float, top: float) -> None:
    axes.imshow(pixels(image, low, top), cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_visible(True)
        side.set_color("#dddddd")


def laws_figure(chains: Mapping[str, Chain], x: Tensor, colours: Tensor, generator: torch.Generator) -> Figure:
    """The law of every latent of some chains, a row for each: draws of q(z_t) = E_x q(z_t | x), first two components.

    Args:
        chains: by what is said of them.
        x: data (batch, size).
        colours: a number of each datum, (batch,), which its latents are coloured by.
        generator: of the draws.
    """
    n = max(chain.n_steps for chain in chains.values())
    figure = Figure(figsize=(2.1 * (n + 1), 2.1 * len(chains)), layout="constrained")
    panels = figure.subplots(len(chains), n + 1, squeeze=False)
    for row, (name, chain) in zip(panels, chains.items(), strict=True):
        with torch.no_grad():
            path, _ = draw_posterior(chain, x, generator)
        for t, axes in enumerate(row):
            if t > chain.n_steps:
                axes.remove()
                continue
            axes.scatter(*path[t][:, :2].double().numpy().T, s=2, c=colours.numpy(), cmap="twilight", linewidths=0)
            limit = 1.1 * float(path[t][:, :2].abs().max())
            axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", title=f"$z_{t}$" if t else "data")
        row[0].set_ylabel(name)
    return figure


def pixels(image: Tensor, low: float, top: float) -> np.ndarray:
    """An image (height, width), or with colours, as numbers from 0 to 1."""
    shades = ((image.double() - low) / ((top - low) or 1.0)).clamp(0, 1)
    return (shades[..., 0] if image.shape[2:] == (1,) else shades).numpy()


def _in_plane(data: Dataset) -> bool:
    """Whether data are points in a plane."""
    return data.shape == (2,)


def _beside(parts: list[tuple[str, Tensor]]) -> Figure:
    """Data that are no images: points in a plane, or curves over their components."""
    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    plane = parts[0][1].shape[1] == 2
    panels = figure.subplots(1, len(parts), sharex=True, sharey=True)
    for axes, (title, curves), colour in zip(panels, parts, (EXACT, LEARNED), strict=True):
        if plane:
            axes.plot(*curves.double().numpy().T, ".", ms=2.5, color=colour, alpha=0.6)
            axes.set(title=title, xlabel=r"$x_1$", ylabel=r"$x_2$")
        else:
            axes.plot(curves.double().numpy().T, color=colour, lw=1.0, alpha=0.6)
            axes.set(title=title, xlabel="component", ylabel=r"$x$")
    return figure


def _spread(data: Dataset, n: int) -> Tensor:
    """Indices of n test data, one from each class in turn where there are classes."""
    if data.test_labels is None:
        return torch.arange(min(n, len(data.test)))
    labels = data.test_labels
    ranks = torch.stack([(labels[: k + 1] == labels[k]).sum() - 1 for k in range(len(labels))])
    return (ranks * (int(labels.max()) + 1) + labels).argsort()[:n]
