"""The ladder of levels beside the exact one and, in one dimension, the wavefunctions psi_n on V."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from fkdrift.figures.palette import EXACT, LEARNED, POTENTIAL

HEIGHT = 0.35  # of a wavefunction, in units of the mean spacing of the levels


def ladder(
    energies: Sequence[float],
    errors: Sequence[float],
    exact: Sequence[float] = (),
    *,
    x: np.ndarray | None = None,
    V: np.ndarray | None = None,
    wavefunctions: np.ndarray | None = None,
) -> Figure:
    """Levels with their errors, exact ones beside them, and psi_n drawn at the height of E_n where x is given.

    Args:
        energies, errors: (level,), the ground state first, in the unit of V.
        exact: (level,), as far as known.
        x: (point,) positions on a line.
        V: (point,) the potential there.
        wavefunctions: (point, level), of any norm.

    Returns:
        Figure.
    """
    on_a_line = x is not None and V is not None and wavefunctions is not None
    figure = Figure(figsize=(8 if on_a_line else 4, 4), layout="constrained")
    columns = figure.subplots(1, 2 if on_a_line else 1, squeeze=False, sharey=True)[0]
    levels = columns[-1]
    for k, (E, error) in enumerate(zip(energies, errors, strict=True)):
        levels.errorbar([0.3], [E], [error], fmt="none", ecolor=LEARNED)
        levels.plot([0.0, 0.6], [E, E], color=LEARNED, label="sampled" if k == 0 else None)
    for k, E in enumerate(exact):
        levels.plot([0.8, 1.4], [E, E], color=EXACT, label="exact" if k == 0 else None)
    levels.set_xlim(-0.2, 1.6)
    levels.set_xticks([])
    levels.set_ylabel("energy")
    levels.legend(frameon=False, loc="upper left")
    if on_a_line:
        assert x is not None
        assert V is not None
        assert wavefunctions is not None
        spacing = (max(energies) - min(energies)) / max(1, len(energies) - 1)
        wells = columns[0]
        wells.plot(x, V, color=POTENTIAL)
        for E, psi in zip(energies, wavefunctions.T, strict=True):
            wells.plot(x, E + HEIGHT * spacing * psi / np.abs(psi).max(), color=LEARNED)
            wells.axhline(E, color=POTENTIAL, linewidth=0.5)
        wells.set_ylim(min(V.min(), min(energies)), max(energies) + spacing)
        wells.set_xlabel("x")
        wells.set_ylabel("V and psi_n at the height of E_n")
    return figure
