"""Pictures of a run, with matplotlib's object interface: nothing global is set, no window is opened.

    energy          the mean of each training batch, then the running estimate with its error, and the exact line
    wavefunction    density, log psi and drift beside the exact ones; maps for two coordinates; radial and pair
                    densities for more
    trajectories    walkers against time beside V, paths over the contours of V, or world lines of the particles

Samples are drawn with a generator of their own: making a picture does not change the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fkdrift.drift import GradientDrift
from fkdrift.geometry import pair_vectors
from fkdrift.levels import Spectrum
from fkdrift.path import Path, evolve
from fkdrift.run import SAMPLING, TRAINING, TRAJECTORIES, Run
from fkdrift.wavefunction import log_psi

LEARNED, EXACT, WALKERS, POTENTIAL = "#1b5e9e", "#c8500f", "#9dbfdd", "#6b6b6b"
PARTICLES = ("#1b5e9e", "#c8500f", "#2e7d4f", "#8a4b9e", "#b08a1e", "#3a9ea5", "#a53a5b", "#555555")
STYLE = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "savefig.dpi": 120,
    "image.cmap": "Blues",
}
STEPS_PER_TIME = 64
TAIL = 1e-4  # plots of one coordinate reach to this fraction of the largest density


def draw_figures(run: Run, spectrum: Spectrum | None, result: dict[str, Any]) -> dict[str, Figure]:
    """Figures by name: energy, wavefunction, trajectories.

    Args:
        run: the run, finished or not; it is left as it is.
        spectrum: the exact solution, or None.
        result: the contents of result.json.
    """
    with rc_context(STYLE), torch.no_grad():
        samples = _samples(run)
        figures = {
            "energy": _energy(run, result),
            "wavefunction": _wavefunction(run, spectrum, samples),
            "trajectories": _trajectories(run, result),
        }
        for figure in figures.values():
            potential = run.potential
            values = ", ".join(f"{k} = {v:g}" for k, v in potential.parameters.items() if isinstance(v, int | float))
            title = f"{potential.name}   {values}" if values else potential.name
            figure.suptitle(f"{title}   ({potential.units})", fontsize=10, x=0.01, ha="left", color="#444444")
    return figures


def save_figures(figures: dict[str, Figure], folder: FilePath) -> None:
    """Write each figure to folder/name.png."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=STYLE["savefig.dpi"], facecolor="white")


# Energy


PHASES = (
    (TRAINING, "training", "update", "batch mean"),
    (TRAJECTORIES, r"trajectories: $E[\ell_T]\,/\,T$, $dt \to 0$", r"length of the paths / $\tau$", "running mean"),
    (SAMPLING, r"sampling: $\langle E_L \rangle$", "block", "running mean"),
)


def _energy(run: Run, result: dict[str, Any]) -> Figure:
    """Energy against step, one panel for each phase, each at its own scale."""
    history = np.asarray(run.history, dtype=float).reshape(-1, 5)
    rows = {phase: history[history[:, 0] == phase] for phase, *_ in PHASES}
    shown = [phase for phase in PHASES if len(rows[phase[0]])] or [PHASES[0]]
    figure = Figure(figsize=(3.5 * len(shown), 3.3), layout="constrained")
    energies = result["energies"]
    known = next((name for name in ("exact", "reference") if name in energies), None)
    for axes, (phase, title, xlabel, label) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        _band(axes, rows[phase], label)
        value = None if known is None else energies[known]["mean"]
        if value is not None:
            axes.axhline(value, color=EXACT, lw=1.3, ls=(0, (5, 2)), label=f"{known} {value:.7g}")
        _limit(axes, rows[phase], value)
        axes.set(title=title, xlabel=xlabel, ylabel=r"energy $E$")
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.legend(loc="upper right")
    return figure


def _band(axes: Axes, rows: np.ndarray, label: str) -> None:
    """Energy against step with one standard error."""
    _, x, mean, error, _ = rows.T
    axes.fill_between(x, mean - error, mean + error, color=WALKERS, alpha=0.7, lw=0, label="standard error")
    axes.plot(x, mean, color=LEARNED, lw=1.0 if len(x) > 100 else 1.6, label=label)


def _limit(axes: Axes, rows: np.ndarray, value: float | None) -> None:
    """A range that shows the bulk of the points and the exact line, whatever the first few were."""
    if not len(rows):
        return
    settled = rows[len(rows) // 10 :]
    low, high = np.quantile(settled[:, 2] - settled[:, 3], 0.02), np.quantile(settled[:, 2] + settled[:, 3], 0.98)
    if value is not None:
        low, high = min(low, value), max(high, value)
    margin = 0.15 * (high - low) or 1e-6 * max(1.0, abs(high))
    axes.set_ylim(low - margin, high + 2 * margin)


# Wavefunction


@dataclass(frozen=True)
class _Curves:
    """What is drawn along one coordinate; the exact ones are None where not known."""

    x: np.ndarray
    log_psi: np.ndarray
    drift: np.ndarray
    exact: np.ndarray | None
    exact_drift: np.ndarray | None


def _wavefunction(run: Run, spectrum: Spectrum | None, samples: Tensor) -> Figure:
    exact = spectrum if spectrum is not None and spectrum.ground is not None else None
    coordinates = samples.shape[1] * samples.shape[2]
    if coordinates == 1:
        return _line(run, exact, samples[:, 0, 0].double().cpu().numpy())
    if coordinates == 2:
        return _maps(run, exact, samples)
    return _distributions(run, exact, samples)


def _line(run: Run, exact: Spectrum | None, x: np.ndarray) -> Figure:
    """Density, log psi and drift of a single coordinate."""
    curves = _curves(run, exact, x)
    figure = Figure(figsize=(10.2, 3.3), layout="constrained")
    density, log, drift = figure.subplots(1, 3)
    bins = min(80, max(20, int(len(x) ** 0.5 / 2)))
    density.hist(x, bins=bins, range=(curves.x[0], curves.x[-1]), density=True, color=WALKERS, label="walkers")
    p = np.exp(2 * (curves.log_psi - curves.log_psi.max()))
    density.plot(curves.x, p / np.trapezoid(p, curves.x), color=LEARNED, label=r"$|\psi|^2$ learned")
    log.plot(curves.x, curves.log_psi - curves.log_psi.max(), color=LEARNED, label="learned")
    drift.plot(curves.x, curves.drift, color=LEARNED, label="learned")
    if curves.exact is not None and curves.exact_drift is not None:
        dashed = {"color": EXACT, "ls": (0, (4, 2)), "lw": 1.4}
        density.plot(curves.x, np.exp(2 * curves.exact), label=r"$|\phi_0|^2$ exact", **dashed)
        log.plot(curves.x, curves.exact - np.nanmax(curves.exact), label="exact", **dashed)
        drift.plot(curves.x, curves.exact_drift, label="exact", **dashed)
    density.set(xlabel=r"$x$", ylabel=r"$|\psi(x)|^2$", title="density")
    log.set(xlabel=r"$x$", ylabel=r"$\log\,\psi(x)$  (largest value 0)", title="wavefunction")
    drift.set(xlabel=r"$x$", ylabel=r"$\sigma^2\,d\log\psi/dx$", title="drift")
    density.set_ylim(top=1.3 * density.get_ylim()[1])
    for axes in (density, log, drift):
        axes.legend(loc="best")
    return figure


def _curves(run: Run, exact: Spectrum | None, x: np.ndarray) -> _Curves:
    """Everything along one coordinate, over the range that the walkers visit."""
    box = run.potential.box
    low, high = (0.0, box[0]) if box is not None else np.quantile(x, [TAIL, 1 - TAIL])
    margin = 0.0 if box is not None else 0.08 * (high - low)
    grid = np.linspace(low - margin, high + margin, 401)
    r = torch.as_tensor(grid[:, None, None]).to(run.system.device, run.system.dtype)
    psi, drift = log_psi(run.process, run.system, r), run.process.velocity(r)[:, 0, 0]
    known = None if exact is None else exact.log_psi(grid[:, None, None])
    slope = None if known is None else np.gradient(known, grid) / run.potential.mass[0]
    return _Curves(grid, psi.double().cpu().numpy(), drift.double().cpu().numpy(), known, slope)


def _maps(run: Run, exact: Spectrum | None, samples: Tensor) -> Figure:
    """Density and log psi over two coordinates, learned on the left and exact on the right."""
    r = samples.reshape(-1, 2).double().cpu().numpy()
    x, y = _axes_of_map(run, r)
    points = np.stack(np.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
    positions = torch.as_tensor(points).to(run.system.device, run.system.dtype).reshape(-1, *run.system.shape)
    shape = (len(y), len(x))
    learned = log_psi(run.process, run.system, positions).double().cpu().numpy().reshape(shape)
    columns = [("learned", learned)]
    if exact is not None:
        columns.append(("exact", exact.log_psi(points.reshape(-1, *run.system.shape)).reshape(shape)))
    figure = Figure(figsize=(3.9 * len(columns) + 0.9, 6.6), layout="constrained")
    panels = figure.subplots(2, len(columns), sharex=True, sharey=True, squeeze=False)
    area = (x[1] - x[0]) * (y[1] - y[0])
    densities = [np.exp(2 * (psi - np.nanmax(psi))) for _, psi in columns]
    densities = [p / (np.nansum(p) * area) for p in densities]
    top = max(np.nanmax(p) for p in densities)
    names = ("$x$", "$y$") if run.system.shape[0] == 1 else ("$x_1$", "$x_2$")
    for k, (name, psi) in enumerate(columns):
        colours = panels[0, k].pcolormesh(x, y, densities[k], vmin=0, vmax=top, rasterized=True)
        panels[0, k].set_title(rf"$|\psi|^2$ {name}")
        levels = panels[1, k].contourf(x, y, psi - np.nanmax(psi), levels=np.arange(-9, 0.5, 1), extend="min")
        panels[1, k].set(title=rf"$\log\,\psi$ {name}  (largest value 0)", xlabel=names[0])
    panels[0, 0].plot(*r[:: max(1, len(r) // 600)].T, ".", ms=1.2, color=EXACT, alpha=0.5, label="walkers")
    panels[0, 0].legend(loc="upper right", markerscale=5)
    for axes in panels.flat:
        axes.grid(False)
        axes.set_aspect("equal" if run.system.shape[0] == 1 else "auto")
    for row in panels:
        row[0].set_ylabel(names[1])
    figure.colorbar(colours, ax=panels[0], label=r"$|\psi|^2$", shrink=0.85)
    figure.colorbar(levels, ax=panels[1], label=r"$\log\,\psi$", shrink=0.85)
    return figure


def _axes_of_map(run: Run, r: np.ndarray, n: int = 121) -> tuple[np.ndarray, np.ndarray]:
    """Two axes that cover the walkers, or the periodic box."""
    box = run.potential.box
    if box is not None:
        lengths = box if len(box) == 2 else (box[0], box[0])
        return np.linspace(0, lengths[0], n), np.linspace(0, lengths[1], n)
    low, high = np.quantile(r, [TAIL, 1 - TAIL], axis=0)
    margin = 0.1 * (high - low)
    x, y = (np.linspace(a, b, n) for a, b in zip(low - margin, high + margin, strict=True))
    return x, y


def _distributions(run: Run, exact: Spectrum | None, samples: Tensor) -> Figure:
    """Radial and pair densities of more coordinates, the density seen along an axis, and log psi against the exact one."""
    n, dim = run.system.shape
    panels = [_radial]
    panels += [_pairs] if n > 1 else []
    panels += [_projection] if dim > 1 and run.potential.box is None else []
    panels += [_scatter] if exact is not None else []
    figure = Figure(figsize=(3.5 * len(panels), 3.3), layout="constrained")
    weights = None if exact is None else _exact_weights(run, exact, samples)
    for axes, panel in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        panel(axes, run, exact, samples, weights)
    return figure


def _radial(axes: Axes, run: Run, exact: Spectrum | None, samples: Tensor, weights: np.ndarray | None) -> None:
    """How far particles are from the centre (where they are, for particles on a line)."""
    if run.system.shape[1] == 1 or run.potential.box is not None:
        values, symbol = samples[..., 0], "x"
    else:
        values, symbol = (samples - run.system.centre.mean(0)).norm(dim=-1), "r"
    _histogram(axes, values, weights)
    axes.set(xlabel=f"${symbol}$", ylabel=f"$P({symbol})$, one particle", title="one-body density")


def _pairs(axes: Axes, run: Run, exact: Spectrum | None, samples: Tensor, weights: np.ndarray | None) -> None:
    """Distances of pairs of particles, the nearest image in a periodic box."""
    vectors = pair_vectors(samples)
    if run.potential.box is not None:
        box = torch.as_tensor(run.potential.box).to(vectors)
        vectors = vectors - box * (vectors / box).round()
    _histogram(axes, vectors.norm(dim=-1), weights)
    axes.set(xlabel=r"$r_{12}$", ylabel=r"$P(r_{12})$", title="pair distances")


def _projection(axes: Axes, run: Run, exact: Spectrum | None, samples: Tensor, weights: np.ndarray | None) -> None:
    """The one-body density in the plane of the nuclei, or of the first two axes."""
    nuclei = np.asarray(run.potential.nuclei, dtype=float)
    a, b = _plane(nuclei, run.system.shape[1])
    r = samples.flatten(0, 1).double().cpu().numpy()
    reach = np.quantile(np.abs(r[:, [a, b]]), 0.995)
    bins = min(80, max(24, int(len(r) ** 0.5 / 4)))
    axes.hist2d(r[:, a], r[:, b], bins=bins, range=[[-reach, reach]] * 2, density=True, rasterized=True)
    if len(nuclei):
        axes.plot(nuclei[:, a], nuclei[:, b], "+", color=EXACT, ms=9, mew=1.8, label="nuclei")
        axes.legend(loc="upper right")
    axes.grid(False)
    axes.set(xlabel=f"${'xyz'[a]}$", ylabel=f"${'xyz'[b]}$", title="density, projected", aspect="equal")


def _plane(nuclei: np.ndarray, dim: int) -> tuple[int, int]:
    """The axis along which the nuclei lie, if they lie along one, and another."""
    spread = nuclei.std(0) if len(nuclei) > 1 else np.zeros(dim)
    first = int(spread.argmax())
    return (first, 0 if first else 1) if dim <= 3 else (0, 1)


def _scatter(axes: Axes, run: Run, exact: Spectrum | None, samples: Tensor, weights: np.ndarray | None) -> None:
    """log psi against the exact one at the walkers: a line of slope 1."""
    assert exact is not None
    r = samples[:: max(1, len(samples) // 1500)]
    known, learned = exact.log_psi(r), log_psi(run.process, run.system, r).double().cpu().numpy()
    good = np.isfinite(known)
    known, learned = known[good] - known[good].mean(), learned[good] - learned[good].mean()
    axes.plot(known, learned, ".", color=LEARNED, ms=2, alpha=0.5, label="walkers")
    ends = np.array([known.min(), known.max()])
    axes.plot(ends, ends, color=EXACT, ls=(0, (4, 2)), lw=1.4, label="exact")
    axes.set(xlabel=r"$\log\,\phi_0$ exact  (mean 0)", ylabel=r"$\log\,\psi$ learned", title="wavefunction")
    axes.legend(loc="upper left", markerscale=4)


def _histogram(axes: Axes, values: Tensor, weights: np.ndarray | None) -> None:
    """Histogram of (sample, entry) values; reweighted to the exact density where weights (sample,) are known."""
    x = values.double().cpu().numpy()
    bins = min(70, max(20, int(x.size**0.5 / 3)))
    reach = tuple(np.quantile(x, [0.0005, 0.9995]))
    axes.hist(x.ravel(), bins=bins, range=reach, density=True, color=WALKERS, label="walkers")
    if weights is not None:
        spread = np.broadcast_to(weights[:, None], x.shape).ravel()
        height, edges = np.histogram(x.ravel(), bins=bins, range=reach, density=True, weights=spread)
        axes.plot((edges[1:] + edges[:-1]) / 2, height, color=EXACT, lw=1.3, label="reweighted to exact")
    axes.set_ylim(bottom=0, top=1.25 * axes.get_ylim()[1])
    axes.legend(loc="upper right")


def _exact_weights(run: Run, exact: Spectrum, samples: Tensor) -> np.ndarray | None:
    """phi_0^2 / psi^2 at the samples; None where psi^2 is not their density, or the overlap is poor."""
    if not isinstance(run.drift, GradientDrift):
        return None
    log = 2 * (exact.log_psi(samples) - log_psi(run.process, run.system, samples).double().cpu().numpy())
    log = np.where(np.isfinite(log), log, -np.inf)
    weights = np.exp(log - log.max())
    return weights if weights.sum() ** 2 > 0.2 * len(weights) * np.square(weights).sum() else None


# Trajectories


def _trajectories(run: Run, result: dict[str, Any]) -> Figure:
    n, dim = run.system.shape
    if n * dim == 1:
        return _against_time(run, result)
    if n * dim == 2:
        return _over_contours(run)
    return _world_lines(run)


def _against_time(run: Run, result: dict[str, Any]) -> Figure:
    """Walkers of one coordinate against time, with V along the same axis."""
    path = _follow(run, n_walkers=24, times=30, n_saved=480)
    t, x = path.times.numpy(), path.positions[:, :, 0, 0].double().cpu().numpy()
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    right, left = figure.subplots(1, 2, sharey=True, width_ratios=(3.4, 1))
    if run.potential.box is not None:
        x = x % run.potential.box[0]
        x[1:][np.abs(np.diff(x, axis=0)) > run.potential.box[0] / 2] = np.nan
    right.plot(t, x, color=WALKERS, lw=0.6, alpha=0.8)
    right.plot(t, x[:, :3], lw=1.1)
    for line, colour in zip(right.lines[-3:], PARTICLES, strict=False):
        line.set_color(colour)
    right.set(xlabel=r"time $t$", ylabel=r"$x(t)$", title=f"{x.shape[1]} walkers", xlim=(t[0], t[-1]))
    low, high = np.nanmin(x), np.nanmax(x)
    grid = np.linspace(low, high, 400)
    V = run.potential(torch.as_tensor(grid[:, None, None]).to(run.system.device, run.system.dtype)).double().cpu().numpy()
    E = result["energies"]["variational"]["mean"]
    left.plot(V, grid, color=POTENTIAL, label=r"$V(x)$")
    left.axvline(E, color=LEARNED, lw=1.2, label=r"$E$")
    bottom = V.min()
    left.set(xlabel="energy", xlim=(bottom - 0.15 * abs(E - bottom), bottom + 5 * abs(E - bottom)), title="potential")
    left.legend(loc="upper right")
    right.set_ylim(low, high)
    return figure


def _over_contours(run: Run) -> Figure:
    """Paths of two coordinates over the contours of V."""
    path = _follow(run, n_walkers=6, times=12, n_saved=768)
    r = path.positions.flatten(2).double().cpu().numpy()
    figure = Figure(figsize=(5.4, 4.8), layout="constrained")
    axes = figure.subplots()
    reach = np.abs(run.walkers.flatten(1).double().cpu().numpy()).max(0) * 1.15
    low, high = np.minimum(r.min((0, 1)), -reach), np.maximum(r.max((0, 1)), reach)
    if run.potential.box is not None:
        low, high = r.min((0, 1)), r.max((0, 1))
    x, y = (np.linspace(a, b, 161) for a, b in zip(low, high, strict=True))
    points = torch.as_tensor(np.stack(np.meshgrid(x, y, indexing="xy"), -1)).to(run.system.device, run.system.dtype)
    V = run.potential(points.reshape(-1, *run.system.shape)).double().cpu().numpy().reshape(len(y), len(x))
    seen = run.potential(run.walkers).double().cpu().numpy()
    levels = np.unique(np.linspace(V.min(), np.quantile(seen, 0.98) + np.ptp(seen) * 0.5, 14))
    lines = axes.contour(x, y, V, levels=levels, colors=POTENTIAL, linewidths=0.7, alpha=0.7)
    axes.clabel(lines, levels[1::4], fontsize=7, fmt="%.3g")
    for k in range(r.shape[1]):
        axes.plot(*r[:, k].T, color=PARTICLES[k], lw=0.6, alpha=0.85)
        axes.plot(*r[-1, k], "o", color=PARTICLES[k], ms=4)
    names = ("$x$", "$y$") if run.system.shape[0] == 1 else ("$x_1$", "$x_2$")
    axes.set(xlabel=names[0], ylabel=names[1], title=f"{r.shape[1]} walkers for {path.duration:.3g} time units; contours: $V$")
    axes.grid(False)
    axes.set_aspect("equal")
    return figure


def _world_lines(run: Run) -> Figure:
    """One walker's particles against time; in two or more dimensions also projected on a plane."""
    n, dim = run.system.shape
    path = _follow(run, n_walkers=1, times=16, n_saved=512)
    t, r = path.times.numpy(), path.positions[:, 0].double().cpu().numpy()
    shown = range(min(n, 24))
    figure = Figure(figsize=(8.8, 3.8), layout="constrained")
    if dim == 1:
        axes = figure.subplots()
        for i in shown:
            axes.plot(t, r[:, i, 0], color=PARTICLES[i % len(PARTICLES)], lw=1)
        axes.set(xlabel=r"time $t$", ylabel=r"$x_i(t)$", title=f"world lines of {len(shown)} of {n} particles, one walker")
        return figure
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    nuclei = np.asarray(run.potential.nuclei, dtype=float)
    a, b = _plane(nuclei, dim)
    radius = np.linalg.norm(r - run.system.centre.mean(0).double().cpu().numpy(), axis=-1)
    for i in shown:
        colour = PARTICLES[i % len(PARTICLES)]
        left.plot(r[:, i, a], r[:, i, b], color=colour, lw=0.7, alpha=0.85)
        left.plot(r[-1, i, a], r[-1, i, b], "o", color=colour, ms=4)
        right.plot(t, radius[:, i], color=colour, lw=0.9)
    if len(nuclei):
        left.plot(nuclei[:, a], nuclei[:, b], "+", color="black", ms=9, mew=1.8)
    left.set(xlabel=f"${'xyz'[a]}_i$", ylabel=f"${'xyz'[b]}_i$", title="projected on a plane")
    left.set_aspect("equal", adjustable="datalim")
    right.set(xlabel=r"time $t$", ylabel=r"$r_i(t)$", title=f"{len(shown)} of {n} particles of one walker", xlim=(0, t[-1]))
    return figure


# Samples


def _samples(run: Run) -> Tensor:
    """A few thousand positions (sample, particle, dim) from the stationary density of the process."""
    coordinates = run.system.shape[0] * run.system.shape[1]
    walkers = run.walkers[: max(64, 4096 // coordinates)]
    times = max(4, 48 // coordinates)
    path = _evolve(run, walkers, times, n_saved=2 * times, seed=1)
    return run.system.wrap(torch.cat([run.walkers, path.positions[1:].flatten(0, 1)]))


def _follow(run: Run, *, n_walkers: int, times: int, n_saved: int) -> Path:
    """A path of some walkers over `times` time scales."""
    return _evolve(run, run.walkers[:n_walkers], times, n_saved, seed=2)


def _evolve(run: Run, walkers: Tensor, times: int, n_saved: int, seed: int) -> Path:
    generator = torch.Generator(run.system.device).manual_seed(seed)
    dt = run.system.time_scale / STEPS_PER_TIME
    return evolve(run.process, walkers, n_steps=times * STEPS_PER_TIME, dt=dt, generator=generator, n_saved=n_saved)


