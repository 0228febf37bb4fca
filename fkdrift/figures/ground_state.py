"""Pictures of a run, with matplotlib's object interface: nothing global is set, no window is opened.

    energy          the mean of each training batch, then the running estimate with its error, and the exact line
    wavefunction    density, log psi and drift beside the exact ones; maps for two coordinates; radial and pair
                    densities for more
    trajectories    walkers against time beside V, paths over the contours of V, or world lines of the particles

Samples are drawn with a generator of their own: making a picture does not change the run.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from fkdrift.exact.spectrum import Spectrum
from fkdrift.figures.palette import DPI, EXACT, LEARNED, STYLE, WALKERS
from fkdrift.figures.trajectories import trajectory_figure
from fkdrift.figures.wavefunction import wavefunction_figure
from fkdrift.paths.evolution import evolve
from fkdrift.wavefunction import metropolis
from fkdrift.wavefunction.protocol import Wavefunction


def draw_figures(run: Any, spectrum: Spectrum | None, result: dict[str, Any]) -> dict[str, Figure]:
    """Figures by name: energy, wavefunction, trajectories.

    Args:
        run: the run, finished or not; it is left as it is.
        spectrum: the exact solution, or None.
        result: the contents of result.json.
    """
    with rc_context(STYLE), torch.no_grad():
        figures = {
            "energy": _energy(run, result),
            "wavefunction": wavefunction_figure(run, spectrum, _samples(run)),
            "trajectories": trajectory_figure(run, result["energies"]["variational"]["mean"]),
        }
        for figure in figures.values():
            figure.suptitle(_title(run), fontsize=9.5, x=0.01, ha="left", color="#444444")
    return figures


def save_figures(figures: dict[str, Figure], folder: Path) -> None:
    """Write each figure to folder/name.png, in 256 colours: a third of the size, and no difference to see."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        raw = BytesIO()
        figure.savefig(raw, format="png", dpi=DPI, facecolor="white")
        Image.open(raw).convert("RGB").quantize(256).save(folder / f"{name}.png", optimize=True)


def _title(run: Any) -> str:
    """The potential, its parameters and its units."""
    potential = run.potential
    values = ", ".join(f"{k} = {v:.6g}" for k, v in potential.parameters.items() if isinstance(v, int | float))
    return "   ".join(filter(None, (potential.name, values, potential.units.partition(";")[0])))


def _samples(run: Any) -> Tensor:
    """Some thousand positions (sample, particle, dim): of |psi|^2 where psi is known, of the process otherwise."""
    coordinates = run.system.shape[0] * run.system.shape[1]
    r, rounds = run.walkers[: max(64, 4096 // coordinates)], max(6, 48 // coordinates)
    generator = torch.Generator(run.system.device).manual_seed(1)
    if not isinstance(run.drift, Wavefunction):
        dt = run.system.time_scale / 64
        path = evolve(run.process, r, n_steps=32 * rounds, dt=dt, generator=generator, n_saved=rounds)
        return run.system.wrap(torch.cat([run.walkers, path.positions[1:].flatten(0, 1)]))
    batches = [run.walkers]
    chain = metropolis.start(run.process, r, run.system.time_scale / 4 if run.stationary is None else run.stationary.dt)
    for _ in range(rounds):
        chain = metropolis.move(run.process, chain, 4, generator)
        batches.append(chain.positions)
    return run.system.wrap(torch.cat(batches))


PHASES = (
    (0, "training", "update", "batch mean"),
    (1, r"trajectories: $E[\ell_T]\,/\,T$, $dt \to 0$", r"length of the paths / $\tau$", "running mean"),
    (2, r"sampling: $\langle E_L \rangle$", "block", "running mean"),
)


def _energy(run: Any, result: dict[str, Any]) -> Figure:
    """Energy against step, one panel for each phase, each at its own scale."""
    history = np.asarray(run.history, dtype=float).reshape(-1, 5)
    rows = {phase: history[history[:, 0] == phase] for phase, *_ in PHASES}
    shown = [phase for phase in PHASES if len(rows[phase[0]])] or [PHASES[0]]
    figure = Figure(figsize=(3.5 * len(shown), 3.3), layout="constrained")
    energies = result["energies"]
    known = next((name for name in ("exact", "reference") if name in energies), None)
    for axes, (phase, title, xlabel, label) in zip(
        figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True
    ):
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
    axes.set_ylim(low - margin, high + 4 * margin)  # room for the legend
