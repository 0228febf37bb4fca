"""Two ground states as normalizing flows: a double well, and four bosons in a trap.

    python examples/flow_ground_state.py [folder]

Writes flow_ground_state.png (by default to docs/figures): the density of the well beside the exact one, and how far
apart the bosons are, from independent samples, beside bosons that do not interact.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

import fkdrift as fk
from fkdrift.figures.palette import DASHED, DPI, LEARNED, POTENTIAL, STYLE, WALKERS
from fkdrift.numerics.geometry import distance, pair_vectors

N_SAMPLES = 8000


def main(folder: Path) -> None:
    well = fk.solve("(x**2-1.5)**2", method="flow", seed=0)
    print(well, "\n")
    quick = fk.Settings(method="flow", seed=0, n_updates=20, n_blocks=80)
    bosons = fk.solve("gaussian_bosons", settings=quick, n_particles=4, g=6.0)
    print(bosons)

    with rc_context(STYLE), torch.no_grad():
        figure = Figure(figsize=(8.6, 3.3), layout="constrained")
        left, right = figure.subplots(1, 2)

        x = np.linspace(-2.6, 2.6, 401)
        samples = well.sample(N_SAMPLES, seed=1)[:, 0, 0].numpy()
        left.hist(samples, bins=70, range=(-2.6, 2.6), density=True, color=WALKERS, label="independent samples")
        left.plot(x, np.exp(2 * well.log_psi(x).numpy()), color=LEARNED, label=r"flow, $|\psi|^2 = p$")
        exact = np.exp(2 * well.spectrum.log_psi(x))
        left.plot(x, exact / (exact.sum() * (x[1] - x[0])), label=r"exact, $|\phi_0|^2$", **DASHED)
        left.set(xlabel="$x$", ylabel="density", title=rf"$(x^2-1.5)^2$:  $E = {well.energy}$", ylim=(0, 0.62))
        left.legend(ncols=1, loc="upper center")

        r = bosons.sample(N_SAMPLES, seed=1)
        d = distance(pair_vectors(r)).flatten().numpy()
        right.hist(d, bins=70, range=(0, 5), density=True, color=WALKERS, label="flow, $g = 6$")
        s = np.linspace(0, 5, 200)
        right.plot(s, s * np.exp(-(s**2) / 2), color=POTENTIAL, label="exact, $g = 0$")
        right.set(xlabel="distance of two bosons", title=rf"four bosons in a trap:  $E = {bosons.energy}$")
        right.legend()
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / "flow_ground_state.png", dpi=DPI)
    print(f"figure in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "figures")
