"""Walkers that follow the drift while it is learned and afterwards, as a GIF.

1 coordinate      walkers on V, their histogram beside |psi|^2, and the drift
2 coordinates     walkers over the contours of V, with the drift as arrows
more              the first two particles in the plane of the nuclei, and the distances of all pairs, or from the centre
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.animation import PillowWriter
from matplotlib.figure import Figure
from torch import Tensor

from fkdrift.figures.palette import EXACT, LEARNED, PARTICLES, POTENTIAL, STYLE, WALKERS
from fkdrift.figures.wavefunction import plane as axes_to_see
from fkdrift.hamiltonian.system import System
from fkdrift.numerics.geometry import nearest_image, pair_vectors
from fkdrift.paths.evolution import evolve
from fkdrift.paths.process import Process
from fkdrift.tensor_types import Positions
from fkdrift.wavefunction.local_energy import log_psi

N_DRAWN, N_ARROWS, N_GRID, TAIL = 300, 17, 161, 1e-3
FRAMES_IN_SCALE, STEPS_IN_FRAME = 8, 8
FPS, DPI = 12, 80

Draw = Callable[[Tensor], None]
"""Puts walkers (batch, particle, dim) into the figure."""


def animate(
    process: Process,
    system: System,
    walkers: Positions,
    path: Path,
    frames: Iterable[tuple[str, Positions]],
) -> None:
    """Write a GIF.

    Args:
        process, system: the diffusion, whose drift may change from frame to frame, and its system.
        walkers: (batch, particle, dim) in the stationary state: what the axes have to show.
        path: of the GIF.
        frames: what is written above each picture, and its walkers.
    """
    coordinates = walkers.shape[1] * walkers.shape[2]
    with rc_context(STYLE):
        with torch.no_grad():
            figure, draw = {1: _line, 2: _plane}.get(coordinates, _particles)(process, system, walkers)
        figure.suptitle(system.potential.name, fontsize=9.5, x=0.01, ha="left", color="#444444")
        stamp = figure.text(0.99, 0.985, "", ha="right", va="top", fontsize=9.5, color="#444444")
        writer = PillowWriter(fps=FPS)
        with writer.saving(figure, str(path), dpi=DPI):
            for label, now in frames:
                with torch.no_grad():
                    draw(system.wrap(now))
                stamp.set_text(label)
                writer.grab_frame(facecolor="white")


def in_equilibrium(
    process: Process, walkers: Positions, *, n_frames: int, time_scale: float, generator: torch.Generator
) -> Iterator[tuple[str, Positions]]:
    """Frames of walkers that follow the drift, an eighth of a time scale from one to the next.

    Args:
        process: the diffusion.
        walkers: (batch, particle, dim) where they are at first.
        n_frames: how many.
        time_scale: of the motion.
        generator: of the noise.
    """
    for frame in range(n_frames):
        yield rf"$t = {frame / FRAMES_IN_SCALE:.1f}\,\tau$", walkers
        dt = time_scale / FRAMES_IN_SCALE / STEPS_IN_FRAME
        with torch.no_grad():
            walkers = evolve(process, walkers, n_steps=STEPS_IN_FRAME, dt=dt, generator=generator).end


def _line(process: Process, system: System, walkers: Tensor) -> tuple[Figure, Draw]:
    """V with walkers on it, their density, and the drift."""
    x = _reach(system, system.wrap(walkers)[:, 0, 0])
    r = torch.as_tensor(x[:, None, None]).to(walkers)
    V = system.potential(r).double().cpu().numpy()
    edges = np.linspace(x[0], x[-1], 41)
    here = system.wrap(walkers)[:, 0, 0].double().cpu().numpy()
    top = np.histogram(here, edges, density=True)[0].max()
    figure = Figure(figsize=(10.2, 3.2), layout="constrained")
    well, density, field = figure.subplots(1, 3)
    well.plot(x, V, color=POTENTIAL, label="$V$")
    (points,) = well.plot([], [], "o", ms=3, color=LEARNED, alpha=0.35, label="walkers")
    spread = 1.5 * (np.quantile(np.interp(here, x, V), 1 - TAIL) - V.min())
    well.set(xlabel="$x$", ylabel="$V(x)$", title="walkers", xlim=(x[0], x[-1]))
    well.set_ylim(V.min() - 0.08 * spread, V.min() + 1.25 * spread)
    (p_line,) = density.plot(x, 0 * x, color=LEARNED, label=r"$|\psi|^2$ learned")
    bars = density.bar(edges[:-1], 0 * edges[1:], np.diff(edges), align="edge", color=WALKERS, label="walkers")
    density.set(xlabel="$x$", ylabel=r"$|\psi(x)|^2$", title="density", ylim=(0, 1.6 * top))
    (v_line,) = field.plot(x, 0 * x, color=LEARNED, label="learned")
    steepest = np.abs(process.velocity(r).double().cpu().numpy()).max()
    field.set(xlabel="$x$", ylabel="$v(x)$", title="drift", ylim=(-1.3 * steepest - TAIL, 1.3 * steepest + TAIL))
    for axes in (well, density, field):
        axes.legend(loc="upper right")

    def draw(now: Tensor) -> None:
        values = now[:, 0, 0].double().cpu().numpy()
        points.set_data(values[:N_DRAWN], np.interp(values[:N_DRAWN], x, V))
        for bar, height in zip(bars, np.histogram(values, edges)[0] / (len(values) * np.diff(edges)), strict=True):
            bar.set_height(height)
        psi = log_psi(process, system, r).double().cpu().numpy()
        p = np.exp(2 * (psi - psi.max()))
        p_line.set_ydata(p / np.trapezoid(p, x))
        v_line.set_ydata(process.velocity(r).flatten().double().cpu().numpy())

    return figure, draw


def _plane(process: Process, system: System, walkers: Tensor) -> tuple[Figure, Draw]:
    """The contours of V, the drift as arrows, and walkers."""
    flat = system.wrap(walkers).flatten(1)
    x, y = (_reach(system, flat[:, k], N_GRID // 2) for k in (0, 1))
    names = ("$x$", "$y$") if system.shape[0] == 1 else ("$x_1$", "$x_2$")
    figure = Figure(figsize=(5.2, 4.9), layout="constrained")
    axes = figure.subplots()
    V = system.potential(_grid(x, y, walkers)).double().cpu().numpy().reshape(len(y), len(x))
    levels = np.quantile(V[np.isfinite(V)], np.linspace(0.02, 0.9, 12))
    axes.contour(x, y, V, levels=np.unique(levels), colors=POTENTIAL, linewidths=0.7, alpha=0.7)
    few = [np.linspace(each[0], each[-1], N_ARROWS) for each in (x, y)]

    def arrows() -> np.ndarray:
        v = process.velocity(_grid(few[0], few[1], walkers)).flatten(1).double().cpu().numpy()
        v /= np.quantile(np.linalg.norm(v, axis=1), 0.9) or 1.0
        return v / np.maximum(1, np.linalg.norm(v, axis=1, keepdims=True))

    field = axes.quiver(*np.meshgrid(*few), *arrows().T, color=EXACT, alpha=0.55, width=0.003, scale=22, label="drift")
    (points,) = axes.plot([], [], "o", ms=2.5, color=LEARNED, alpha=0.5, label="walkers")
    axes.set(xlabel=names[0], ylabel=names[1], xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), aspect="equal")
    axes.grid(False)
    axes.legend(loc="upper right", framealpha=0.9, frameon=True)

    def draw(now: Tensor) -> None:
        field.set_UVC(*arrows().T)
        points.set_data(*now[:N_DRAWN].flatten(1).T.double().cpu().numpy())

    return figure, draw


def _particles(process: Process, system: System, walkers: Tensor) -> tuple[Figure, Draw]:
    """The first particles of some walkers in the plane of the first axes, and distances over all walkers."""
    n, dim = system.shape
    now = system.wrap(walkers)
    figure = Figure(figsize=(8.2, 3.9), layout="constrained")
    plane, lengths = figure.subplots(1, 2)
    nuclei = np.asarray(system.potential.nuclei, dtype=float)
    a, b = axes_to_see(nuclei, dim) if dim > 1 else (0, 0)
    reach = [_reach(system, now[..., k].flatten(), 2) for k in (a, b)]
    points = []
    for k in range(min(n, 2)):
        label = "particle" if n == 1 else f"particle {k + 1}"
        points += plane.plot([], [], "o", ms=3, color=PARTICLES[k], alpha=0.5, label=label)
    if len(nuclei):
        plane.plot(nuclei[:, a], nuclei[:, b], "+", color=POTENTIAL, ms=10, mew=2, label="nuclei")
    plane.set(xlabel=f"${'xyz'[a]}$", ylabel=f"${'xyz'[b]}$", title="walkers", xlim=reach[0], ylim=reach[1])
    plane.set_aspect("equal")
    plane.legend(loc="upper right", framealpha=0.9, frameon=True)

    def measure(r: Tensor) -> np.ndarray:
        vectors = nearest_image(pair_vectors(r), system.potential.box) if n > 1 else r - system.centre.mean(0)
        return vectors.norm(dim=-1).flatten().double().cpu().numpy()

    edges = np.linspace(0, np.quantile(measure(now), 1 - TAIL) * 1.1, 41)
    bars = lengths.bar(edges[:-1], 0 * edges[1:], np.diff(edges), align="edge", color=WALKERS, label="walkers")
    symbol = "r_{ij}" if n > 1 else "r"
    top = np.histogram(measure(now), edges, density=True)[0].max()
    title = "pair distances" if n > 1 else "distance from the centre"
    lengths.set(xlabel=f"${symbol}$", ylabel=f"$P({symbol})$", title=title, ylim=(0, 1.4 * top))

    def draw(r: Tensor) -> None:
        for k, each in enumerate(points):
            each.set_data(*r[:N_DRAWN, k, [a, b]].T.double().cpu().numpy())
        values = measure(r)
        for bar, height in zip(bars, np.histogram(values, edges)[0] / (len(values) * np.diff(edges)), strict=True):
            bar.set_height(height)

    return figure, draw


def _reach(system: System, values: Tensor, n: int = N_GRID) -> np.ndarray:
    """An axis that covers the walkers, or the periodic box."""
    if system.potential.box is not None:
        return np.linspace(0, system.potential.box[0], n)
    low, high = np.quantile(values.double().cpu().numpy(), [TAIL, 1 - TAIL])
    margin = 0.15 * (high - low)
    return np.linspace(low - margin, high + margin, n)


def _grid(x: np.ndarray, y: np.ndarray, like: Tensor) -> Tensor:
    """Two coordinates as positions (batch, particle, dim), y slowest."""
    points = np.stack(np.meshgrid(x, y), -1).reshape(-1, *like.shape[1:])
    return torch.as_tensor(points).to(like)
