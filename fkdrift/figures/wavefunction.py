"""The wavefunction as a picture, beside the exact one where it is known.

1 coordinate      density, log psi, and the drift sigma^2 d log psi / dx
2 coordinates     maps of |psi|^2 and log psi
more              one-body and pair densities, the density seen along an axis, log psi against the exact one
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter
from torch import Tensor

from fkdrift.exact.spectrum import Spectrum
from fkdrift.figures.palette import DASHED, EXACT, LEARNED, WALKERS
from fkdrift.hamiltonian.pair_state import lowest_distance
from fkdrift.hamiltonian.system import System
from fkdrift.numerics.geometry import nearest_image, pair_vectors
from fkdrift.paths.process import Process
from fkdrift.wavefunction.local_energy import log_psi
from fkdrift.wavefunction.protocol import Wavefunction

TAIL = 1e-4  # curves and maps reach to these quantiles of the walkers


def wavefunction_figure(process: Process, system: System, samples: Tensor, spectrum: Spectrum | None = None) -> Figure:
    """A learned wavefunction.

    Args:
        process, system: the diffusion and its system.
        samples: (sample, particle, dim) positions from its stationary density.
        spectrum: the exact solution, or None.
    """
    exact = spectrum if spectrum is not None and spectrum.ground is not None else None
    coordinates = samples.shape[1] * samples.shape[2]
    if coordinates == 1:
        return _line(process, system, exact, samples[:, 0, 0].double().cpu().numpy())
    if coordinates == 2:
        return _maps(process, system, exact, samples)
    weights = None if exact is None else _exact_weights(process, system, exact, samples)
    return _distributions(_Samples(process, system, exact, samples, weights))


# One coordinate


def _line(process: Process, system: System, exact: Spectrum | None, values: np.ndarray) -> Figure:
    """Density, log psi and drift over the range that the walkers visit."""
    box = system.potential.box
    low, high = (0.0, box[0]) if box is not None else np.quantile(values, [TAIL, 1 - TAIL])
    margin = 0.0 if box is not None else 0.08 * (high - low)
    x = np.linspace(low - margin, high + margin, 401)
    r = torch.as_tensor(x[:, None, None]).to(system.device, system.dtype)
    psi = log_psi(process, system, r).double().cpu().numpy()
    p = np.exp(2 * (psi - psi.max()))
    figure = Figure(figsize=(10.2, 3.3), layout="constrained")
    density, log, drift = figure.subplots(1, 3)
    bins = min(80, max(20, int(len(values) ** 0.5 / 2)))
    density.hist(values, bins=bins, range=(x[0], x[-1]), density=True, color=WALKERS, label="walkers")
    density.plot(x, p / np.trapezoid(p, x), color=LEARNED, label=r"$|\psi|^2$ learned")
    log.plot(x, psi - psi.max(), color=LEARNED, label="learned")
    drift.plot(x, process.velocity(r)[:, 0, 0].double().cpu().numpy(), color=LEARNED, label="learned")
    if exact is not None:
        known = exact.log_psi(x)
        density.plot(x, np.exp(2 * known), label=r"$|\phi_0|^2$ exact", **DASHED)
        log.plot(x, known - np.nanmax(known), label="exact", **DASHED)
        drift.plot(x, np.gradient(known, x) / system.potential.mass[0], label="exact", **DASHED)
    density.set(xlabel="$x$", ylabel=r"$|\psi(x)|^2$", title="density", ylim=(0, 1.3 * density.get_ylim()[1]))
    log.set(xlabel="$x$", ylabel=r"$\log\,\psi(x)$  (largest value 0)", title="wavefunction")
    drift.set(xlabel="$x$", ylabel=r"$\sigma^2\,d\log\psi/dx$", title="drift")
    for axes in (density, log, drift):
        axes.legend()
    return figure


# Two coordinates


def _maps(process: Process, system: System, exact: Spectrum | None, samples: Tensor) -> Figure:
    """Density and log psi over two coordinates, learned on the left and exact on the right."""
    r = samples.reshape(-1, 2).double().cpu().numpy()
    x, y = _axes_of_map(system, r)
    points = np.stack(np.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
    positions = torch.as_tensor(points).to(system.device, system.dtype).reshape(-1, *system.shape)
    shape = (len(y), len(x))
    learned = log_psi(process, system, positions).double().cpu().numpy().reshape(shape)
    columns = [("learned", learned)]
    if exact is not None:
        columns.append(("exact", exact.log_psi(points.reshape(-1, *system.shape)).reshape(shape)))
    figure = Figure(figsize=(3.9 * len(columns) + 0.9, 6.6), layout="compressed")
    panels = figure.subplots(2, len(columns), sharex=True, sharey=True, squeeze=False)
    area = (x[1] - x[0]) * (y[1] - y[0])
    densities = [np.exp(2 * (psi - np.nanmax(psi))) for _, psi in columns]
    densities = [p / (np.nansum(p) * area) for p in densities]
    top = max(np.nanmax(p) for p in densities)
    names = ("$x$", "$y$") if system.shape[0] == 1 else ("$x_1$", "$x_2$")
    for k, (name, psi) in enumerate(columns):
        colours = panels[0, k].pcolormesh(x, y, densities[k], vmin=0, vmax=top, rasterized=True)
        panels[0, k].set_title(rf"$|\psi|^2$ {name}")
        levels = panels[1, k].contourf(x, y, psi - np.nanmax(psi), levels=np.arange(-9, 0.5, 1), extend="min")
        panels[1, k].set(title=rf"$\log\,\psi$ {name}  (largest value 0)", xlabel=names[0])
    panels[0, 0].plot(*r[:: max(1, len(r) // 600)].T, ".", ms=1.2, color=EXACT, alpha=0.5, label="walkers")
    panels[0, 0].legend(loc="upper right", markerscale=5)
    for axes in panels.flat:
        axes.grid(False)
        axes.set_aspect("equal")
    for row in panels:
        row[0].set_ylabel(names[1])
    figure.colorbar(colours, ax=panels[0], label=r"$|\psi|^2$", shrink=0.85)
    figure.colorbar(levels, ax=panels[1], label=r"$\log\,\psi$", shrink=0.85)
    return figure


def _axes_of_map(system: System, r: np.ndarray, n: int = 121) -> tuple[np.ndarray, np.ndarray]:
    """Two axes that cover the walkers, or the periodic box."""
    box = system.potential.box
    if box is not None:
        lengths = box if len(box) == 2 else (box[0], box[0])
        return np.linspace(0, lengths[0], n), np.linspace(0, lengths[1], n)
    low, high = np.quantile(r, [TAIL, 1 - TAIL], axis=0)
    margin = 0.1 * (high - low)
    x, y = (np.linspace(a, b, n) for a, b in zip(low - margin, high + margin, strict=True))
    return x, y


# More coordinates


class _Samples(NamedTuple):
    """What the panels are drawn from; weights (sample,) turn the learned density into the exact one, where known."""

    process: Process
    system: System
    exact: Spectrum | None
    positions: Tensor
    weights: np.ndarray | None


def _distributions(samples: _Samples) -> Figure:
    """Whichever of the panels below make sense for the system."""
    n, dim = samples.system.shape
    panels = [_one_body]
    panels += [_pairs] if n > 1 else []
    panels += [_projection] if dim > 1 and samples.system.potential.box is None else []
    panels += [_against_exact] if samples.exact is not None else []
    figure = Figure(figsize=(3.5 * len(panels), 3.3), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        panel(axes, samples)
    return figure


def _one_body(axes: Axes, samples: _Samples) -> None:
    """How far particles are from the centre; where they are, if on a line or in a periodic box."""
    system, r = samples.system, samples.positions
    on_axis = system.shape[1] == 1 or samples.system.potential.box is not None
    values, symbol = (r[..., 0], "x") if on_axis else ((r - system.centre.mean(0)).norm(dim=-1), "r")
    _histogram(axes, values, samples.weights)
    about = "density about the centre of mass" if system.potential.free and not on_axis else "one-body density"
    axes.set(xlabel=f"${symbol}$", ylabel=f"$P({symbol})$", title=about)


def _pairs(axes: Axes, samples: _Samples) -> None:
    """Distances of pairs of particles, to the nearest image in a periodic box, and the classical minimum."""
    vectors = nearest_image(pair_vectors(samples.positions), samples.system.potential.box)
    _histogram(axes, vectors.norm(dim=-1), samples.weights)
    v = samples.system.potential.pair_potential
    if v is not None and 0 < (minimum := lowest_distance(v)) < np.inf:
        axes.axvline(minimum, color=EXACT, lw=1.2, ls=":", label="$v$ lowest")
        axes.legend(loc="upper right")
    axes.set(xlabel="$r_{ij}$", ylabel="$P(r_{ij})$", title="pair distances")


def _projection(axes: Axes, samples: _Samples) -> None:
    """The one-body density in the plane of the nuclei, or of the first two axes."""
    nuclei = np.asarray(samples.system.potential.nuclei, dtype=float)
    a, b = plane(nuclei, samples.system.shape[1])
    r = samples.positions.flatten(0, 1)[:, [a, b]].double().cpu().numpy()
    reach = np.quantile(np.abs(r), 0.997)
    edges = np.linspace(-reach, reach, 101)
    height = np.histogram2d(r[:, 0], r[:, 1], bins=[edges, edges], density=True)[0].T
    axes.pcolormesh(edges, edges, gaussian_filter(height, 1.8), rasterized=True)
    if len(nuclei):
        axes.plot(nuclei[:, a], nuclei[:, b], "+", color=EXACT, ms=9, mew=1.8, ls="none", label="nuclei")
        axes.legend(loc="upper right")
    axes.grid(False)
    axes.set(xlabel=f"${'xyz'[a]}$", ylabel=f"${'xyz'[b]}$", title="density, projected", aspect="equal")


def plane(nuclei: np.ndarray, dim: int) -> tuple[int, int]:
    """Two axes to look at: first the one along which the nuclei are spread, if any."""
    spread = nuclei.std(0) if len(nuclei) > 1 else np.zeros(dim)
    first = int(spread.argmax())
    return first, (0 if first else 1)


def _against_exact(axes: Axes, samples: _Samples) -> None:
    """log psi against the exact one at the walkers: a line of slope 1."""
    assert samples.exact is not None
    r = samples.positions[:: max(1, len(samples.positions) // 1500)]
    known = samples.exact.log_psi(r)
    learned = log_psi(samples.process, samples.system, r).double().cpu().numpy()
    good = np.isfinite(known)
    known, learned = known[good] - known[good].mean(), learned[good] - learned[good].mean()
    axes.plot(known, learned, ".", color=LEARNED, ms=2, alpha=0.5, label="walkers")
    ends = np.array([known.min(), known.max()])
    axes.plot(ends, ends, label="exact", **DASHED)
    axes.set(xlabel=r"$\log\,\phi_0$ exact  (mean 0)", ylabel=r"$\log\,\psi$ learned", title="wavefunction")
    axes.legend(loc="upper left", markerscale=4)


def _histogram(axes: Axes, values: Tensor, weights: np.ndarray | None) -> None:
    """Histogram of (sample, entry) values, and the same reweighted to the exact density."""
    x = values.double().cpu().numpy()
    bins = min(60, max(20, int(x.size**0.5 / 3)))
    low, high = np.quantile(x, [0.001, 0.999])
    axes.hist(x.ravel(), bins=bins, range=(low, high), density=True, color=WALKERS, label="walkers")
    if weights is not None:
        spread = np.broadcast_to(weights[:, None], x.shape).ravel()
        height, edges = np.histogram(x.ravel(), bins=bins, range=(low, high), density=True, weights=spread)
        axes.plot((edges[1:] + edges[:-1]) / 2, height, label="reweighted to exact", **DASHED)
    axes.set_ylim(bottom=0, top=1.25 * axes.get_ylim()[1])
    axes.legend(loc="upper right")


def _exact_weights(process: Process, system: System, exact: Spectrum, samples: Tensor) -> np.ndarray | None:
    """phi_0^2 / psi^2 at the samples; None where psi^2 is not their density, or the overlap is poor."""
    if not isinstance(process.drift, Wavefunction):
        return None
    log = 2 * (exact.log_psi(samples) - log_psi(process, system, samples).double().cpu().numpy())
    log = np.where(np.isfinite(log), log, -np.inf)
    weights = np.exp(log - log.max())
    return weights if weights.sum() ** 2 > 0.2 * len(weights) * np.square(weights).sum() else None
