"""Pictures of a ground state, with matplotlib's object interface: nothing global is set, no window is opened.

    energy          the mean of each training batch, then the running estimate with its error, and the exact line
    wavefunction    density, log psi and drift beside the exact ones; maps for two coordinates; radial and pair
                    densities for more
    trajectories    walkers against time beside V, paths over the contours of V, or world lines of the particles

Everything comes in as plain objects, and trajectories have a generator of their own: a picture changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fkdrift.exact.spectrum import Spectrum
from fkdrift.figures.palette import EXACT, LEARNED, STYLE, WALKERS
from fkdrift.figures.trajectories import trajectory_figure
from fkdrift.figures.wavefunction import wavefunction_figure
from fkdrift.hamiltonian.potential import Potential
from fkdrift.hamiltonian.system import System
from fkdrift.paths.process import Process
from fkdrift.tensor_types import Positions

TrainingHistory = Mapping[str, Sequence[Sequence[float]]]
"""Rows (step, energy, error, seconds) by the name of the phase."""


def draw_figures(
    process: Process,
    system: System,
    *,
    walkers: Positions,
    samples: Tensor,
    history: TrainingHistory,
    energies: Mapping[str, Any],
    spectrum: Spectrum | None = None,
    more: Mapping[str, Callable[[], Figure]] | None = None,
) -> dict[str, Figure]:
    """Figures by name: energy, wavefunction, trajectories, and more.

    Args:
        process, system: the learned diffusion and its system.
        walkers: (batch, particle, dim) where trajectories start.
        samples: (sample, particle, dim) of the stationary density, in the periodic box if there is one.
        history: how the energy came about.
        energies: of result.json: a mean for each name.
        spectrum: the exact solution, or None.
        more: what draws the figures of further phases, by name.
    """
    with rc_context(STYLE), torch.no_grad():
        figures = {
            "energy": energy_figure(history, energies),
            "wavefunction": wavefunction_figure(process, system, samples, spectrum),
            "trajectories": trajectory_figure(process, system, walkers, energies["variational"]["mean"]),
            **{name: draw() for name, draw in (more or {}).items()},
        }
        for figure in figures.values():
            figure.suptitle(_title(system.potential), fontsize=9.5, x=0.01, ha="left", color="#444444")
    return figures


def _title(potential: Potential) -> str:
    """The potential, its parameters and its units."""
    values = ", ".join(f"{k} = {v:.6g}" for k, v in potential.parameters.items() if isinstance(v, int | float))
    return "   ".join(filter(None, (potential.name, values, potential.units.partition(";")[0])))


PANELS = {
    "training": ("training", "update", "batch mean"),
    "trajectories": (r"trajectories: $E[\ell_T]\,/\,T$, $dt \to 0$", r"length of the paths / $\tau$", "running mean"),
    "sampling": (r"sampling: $\langle E_L \rangle$", "block", "running mean"),
}
"""Title, horizontal axis and label of the panel of each phase; of others, their names."""


def energy_figure(history: TrainingHistory, energies: Mapping[str, Any], quantity: str = r"energy $E$") -> Figure:
    """Energy against step, one panel for each phase, each at its own scale; see `draw_figures`."""
    rows = {name: np.asarray(found, dtype=float).reshape(-1, 4) for name, found in history.items() if len(found)}
    rows = rows or {"training": np.empty((0, 4))}
    figure = Figure(figsize=(3.5 * len(rows), 3.3), layout="constrained")
    known, value = known_energy(energies)
    for axes, (name, table) in zip(figure.subplots(1, len(rows), squeeze=False)[0], rows.items(), strict=True):
        title, xlabel, label = PANELS.get(name, (name.replace("_", " "), "block", "running mean"))
        _band(axes, table, label)
        if value is not None:
            axes.axhline(value, color=EXACT, lw=1.3, ls=(0, (5, 2)), label=f"{known} {value:.7g}")
        axes.set_ylim(settled_range(table, value))
        axes.set(title=title, xlabel=xlabel, ylabel=quantity)
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.legend(loc="upper right")
    return figure


def _band(axes: Axes, rows: np.ndarray, label: str) -> None:
    """Energy against step with one standard error."""
    x, mean, error, _ = rows.T
    axes.fill_between(x, mean - error, mean + error, color=WALKERS, alpha=0.7, lw=0, label="standard error")
    axes.plot(x, mean, color=LEARNED, lw=1.0 if len(x) > 100 else 1.6, label=label)


def known_energy(energies: Mapping[str, Any]) -> tuple[str, float | None]:
    """Name and value of the exact energy, or of the reference; no value where there is neither."""
    return next(((name, energies[name]["mean"]) for name in ("exact", "reference") if name in energies), ("", None))


def settled_range(rows: np.ndarray, value: float | None) -> tuple[float, float] | None:
    """A range that shows the bulk of the points and the exact value, whatever the first few were; with room on top."""
    if not len(rows):
        return None
    settled = rows[len(rows) // 10 :]
    low, high = np.quantile(settled[:, 1] - settled[:, 2], 0.02), np.quantile(settled[:, 1] + settled[:, 2], 0.98)
    if value is not None:
        low, high = min(low, value), max(high, value)
    margin = 0.15 * (high - low) or 1e-6 * max(1.0, abs(high))
    return float(low - margin), float(high + 4 * margin)
