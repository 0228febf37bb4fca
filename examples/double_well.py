"""Tunnelling: the drift learned in a double well beside sigma^2 d log phi_0 / dx from scipy.

    python examples/double_well.py [folder]

Writes wavefunction.png and trajectories.png (by default to docs/figures), and prints how far the drifts are apart where
the particle is.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import fkdrift as fk
from fkdrift.figures.ground_state import save_figures


def main(folder: Path) -> None:
    state = fk.solve("double_well", a=0.5, b=2.0, seed=0)
    print(state)

    spectrum = state.spectrum
    assert spectrum is not None
    x = np.linspace(-2.5, 2.5, 501)
    exact = np.gradient(spectrum.log_psi(x), x)
    learned = state.drift(x)[:, 0, 0].numpy()
    density = np.exp(2 * spectrum.log_psi(x))
    apart = np.sqrt(np.average((learned - exact) ** 2, weights=density))
    size = np.sqrt(np.average(exact**2, weights=density))
    print(f"\nroot mean square of the drift: {size:.3f}; of its error: {apart:.4f}")

    figures = state.plot()
    save_figures({name: figures[name] for name in ("wavefunction", "trajectories")}, folder)
    print(f"figures in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "figures")
