"""Trajectories as a picture: walkers against time beside V, paths over the contours of V, or particles' world lines."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from fkdrift.figures.palette import LEARNED, PARTICLES, POTENTIAL, WALKERS
from fkdrift.figures.wavefunction import plane
from fkdrift.paths.evolution import Path, evolve


def trajectory_figure(run: Any, energy: float) -> Figure:
    """Where some walkers go; `energy` is marked beside V for a single coordinate."""
    coordinates = run.system.shape[0] * run.system.shape[1]
    if coordinates == 1:
        return _against_time(run, energy)
    return _over_contours(run) if coordinates == 2 else _world_lines(run)


def _against_time(run: Any, E: float) -> Figure:
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
    V = (
        run.potential(torch.as_tensor(grid[:, None, None]).to(run.system.device, run.system.dtype))
        .double()
        .cpu()
        .numpy()
    )
    left.plot(V, grid, color=POTENTIAL, label=r"$V(x)$")
    left.axvline(E, color=LEARNED, lw=1.2, label=r"$E$")
    bottom = V.min()
    left.set(xlabel="energy", xlim=(bottom - 0.15 * abs(E - bottom), bottom + 5 * abs(E - bottom)), title="potential")
    left.legend()
    right.set_ylim(low, high)
    return figure


def _over_contours(run: Any) -> Figure:
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
    axes.set(
        xlabel=names[0],
        ylabel=names[1],
        title=f"{r.shape[1]} walkers for {path.duration:.3g} time units; contours: $V$",
    )
    axes.grid(False)
    axes.set_aspect("equal")
    return figure


def _world_lines(run: Any) -> Figure:
    """One walker's particles against time; in two or more dimensions also projected on a plane."""
    n, dim = run.system.shape
    path = _follow(run, n_walkers=1, times=4, n_saved=256)
    t, r = path.times.numpy(), path.positions[:, 0].double().cpu().numpy()
    shown = range(min(n, 24))
    figure = Figure(figsize=(8.8, 3.8), layout="constrained")
    title = f"{len(shown)} of the {n} particles of one walker" if n > 1 else "one walker"
    if dim == 1:
        axes = figure.subplots()
        for i in shown:
            axes.plot(t, r[:, i, 0], color=PARTICLES[i % len(PARTICLES)], lw=1)
        axes.set(
            xlabel=r"time $t$",
            ylabel=r"$x_i(t)$",
            title=f"world lines of {len(shown)} of the {n} particles of one walker",
        )
        return figure
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    nuclei = np.asarray(run.potential.nuclei, dtype=float)
    a, b = plane(nuclei, dim)
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
    right.set(
        xlabel=r"time $t$",
        ylabel=r"$r_i(t)$",
        title=title,
        xlim=(0, t[-1]),
    )
    return figure


def _follow(run: Any, *, n_walkers: int, times: int, n_saved: int) -> Path:
    """A path of some walkers over `times` time scales, with finer steps where particles repel at short range."""
    n_steps = n_saved * (8 if run.potential.coalescence else 2)
    generator = torch.Generator(run.system.device).manual_seed(2)
    dt = times * run.system.time_scale / n_steps
    return evolve(run.process, run.walkers[:n_walkers], n_steps=n_steps, dt=dt, generator=generator, n_saved=n_saved)
