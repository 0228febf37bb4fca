"""Trajectories as a picture: walkers against time beside V, paths over the contours of V, or particles' world lines."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

from fkdrift.figures.palette import LEARNED, PARTICLES, POTENTIAL, WALKERS
from fkdrift.figures.wavefunction import plane
from fkdrift.hamiltonian.system import System
from fkdrift.paths.evolution import Path, evolve
from fkdrift.paths.process import Process
from fkdrift.tensor_types import Positions

FINER = 4
"""Steps for each point that is drawn, where particles repel at short range."""


def trajectory_figure(process: Process, system: System, walkers: Positions, energy: float | None) -> Figure:
    """Where some walkers go.

    Args:
        process, system: the diffusion and its system.
        walkers: (batch, particle, dim) where they start.
        energy: marked beside V for a single coordinate; None if not known.
    """
    coordinates = system.shape[0] * system.shape[1]
    if coordinates == 1:
        return _against_time(process, system, walkers, energy)
    return (_over_contours if coordinates == 2 else _world_lines)(process, system, walkers)


def _against_time(process: Process, system: System, walkers: Positions, E: float | None) -> Figure:
    """Walkers of one coordinate against time, with V along the same axis."""
    path = _follow(process, system, walkers[:24], times=30, n_saved=480)
    t, x = path.times.numpy(), path.positions[:, :, 0, 0].double().cpu().numpy()
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    right, left = figure.subplots(1, 2, sharey=True, width_ratios=(3.4, 1))
    if system.potential.box is not None:
        x = x % system.potential.box[0]
        x[1:][np.abs(np.diff(x, axis=0)) > system.potential.box[0] / 2] = np.nan
    right.plot(t, x, color=WALKERS, lw=0.6, alpha=0.8)
    right.plot(t, x[:, :3], lw=1.1)
    for line, colour in zip(right.lines[-3:], PARTICLES, strict=False):
        line.set_color(colour)
    right.set(xlabel=r"time $t$", ylabel=r"$x(t)$", title=f"{x.shape[1]} walkers", xlim=(t[0], t[-1]))
    low, high = np.nanmin(x), np.nanmax(x)
    grid = np.linspace(low, high, 400)
    V = system.potential(torch.as_tensor(grid[:, None, None]).to(system.device, system.dtype)).double().cpu().numpy()
    left.plot(V, grid, color=POTENTIAL, label=r"$V(x)$")
    left.set(xlabel="energy", title="potential")
    if E is not None:
        left.axvline(E, color=LEARNED, lw=1.2, label=r"$E$")
        height = abs(E - V.min())
        left.set_xlim(V.min() - 0.15 * height, V.min() + 5 * height)
    left.legend()
    right.set_ylim(low, high)
    return figure


def _over_contours(process: Process, system: System, walkers: Positions) -> Figure:
    """Paths of two coordinates over the contours of V."""
    path = _follow(process, system, walkers[:6], times=12, n_saved=512)
    r = path.positions.flatten(2).double().cpu().numpy()
    figure = Figure(figsize=(5.4, 4.8), layout="constrained")
    axes = figure.subplots()
    reach = np.abs(walkers.flatten(1).double().cpu().numpy()).max(0) * 1.15
    low, high = np.minimum(r.min((0, 1)), -reach), np.maximum(r.max((0, 1)), reach)
    if system.potential.box is not None:
        low, high = r.min((0, 1)), r.max((0, 1))
    x, y = (np.linspace(a, b, 161) for a, b in zip(low, high, strict=True))
    points = torch.as_tensor(np.stack(np.meshgrid(x, y, indexing="xy"), -1)).to(system.device, system.dtype)
    V = system.potential(points.reshape(-1, *system.shape)).double().cpu().numpy().reshape(len(y), len(x))
    seen = system.potential(walkers).double().cpu().numpy()
    levels = np.unique(np.linspace(V.min(), np.quantile(seen, 0.98) + np.ptp(seen) * 0.5, 14))
    lines = axes.contour(x, y, V, levels=levels, colors=POTENTIAL, linewidths=0.7, alpha=0.7)
    axes.clabel(lines, levels[1::4], fontsize=7, fmt="%.3g")
    for k in range(r.shape[1]):
        axes.plot(*r[:, k].T, color=PARTICLES[k], lw=0.6, alpha=0.85)
        axes.plot(*r[-1, k], "o", color=PARTICLES[k], ms=4)
    names = ("$x$", "$y$") if system.shape[0] == 1 else ("$x_1$", "$x_2$")
    axes.set(
        xlabel=names[0],
        ylabel=names[1],
        title=f"{r.shape[1]} walkers for {path.duration:.3g} time units; contours: $V$",
    )
    axes.grid(False)
    axes.set_aspect("equal")
    return figure


def _world_lines(process: Process, system: System, walkers: Positions) -> Figure:
    """One walker's particles against time; in two or more dimensions also projected on a plane."""
    n, dim = system.shape
    path = _follow(process, system, walkers[:1], times=4, n_saved=256)
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
    nuclei = np.asarray(system.potential.nuclei, dtype=float)
    a, b = plane(nuclei, dim)
    radius = np.linalg.norm(r - system.centre.mean(0).double().cpu().numpy(), axis=-1)
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


def _follow(process: Process, system: System, walkers: Positions, *, times: int, n_saved: int) -> Path:
    """A path of some walkers over `times` time scales, with finer steps where particles repel at short range."""
    n_steps = n_saved * (FINER if system.potential.coalescence else 1)
    generator = torch.Generator(system.device).manual_seed(2)
    dt = times * system.time_scale / n_steps
    return evolve(process, walkers, n_steps=n_steps, dt=dt, generator=generator, n_saved=n_saved)
