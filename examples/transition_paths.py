"""How a particle crosses a barrier: transition paths of a simulation, and the same two wells in imaginary time.

    python examples/transition_paths.py [folder]

Writes transition_paths.png, bridge.png and effective_paths.png (by default to docs/figures), and prints how probable
the crossing is beside the exact number.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

import fkdrift as fk
from fkdrift.exact.propagator import Propagator
from fkdrift.figures.bridge import bridge_figure, efficiency_figure
from fkdrift.figures.ground_state import save_figures
from fkdrift.generative import Conditioned, Measurement, infer
from fkdrift.paths.feynman_kac import brownian, effective_fraction

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
T, NOISE = 4.0, 0.1


def simulation() -> Figure:
    """A particle in U = (x^2 - 1)^2, dz = -U'/2 dt + dW, that began at -1 and was seen in the other well twice."""
    one = torch.ones(1, 1, dtype=torch.float64)
    seen = (Measurement(2.5, 0.4 * one, 0.3), Measurement(T, one, NOISE))
    found = infer(
        Conditioned(fk.Overdamped(fk.load_potential("double_well"), one), -one, seen), dt=1 / 32, n_updates=80
    )

    # exactly: the diffusion is the h-transform of exp(-U/2) with V = U'^2/8 - U''/4
    line = Propagator(lambda x: 2 * x**2 * (x**2 - 1) ** 2 - 3 * x**2 + 1, -4.0, 4.0)
    h = np.exp(-((line.x**2 - 1) ** 2) / 2)
    likelihoods = [(2.5, line.gaussian(0.4, 0.3)), (T, line.gaussian(1.0, NOISE) * h)]
    times = found.path.times[1:-1].tolist()
    exact, densities = line.conditioned(-1.0, likelihoods, times)
    print(f"log p(measurements) = {found.log_evidence}, exactly {exact:.4f}; {found.efficiency:.0%} of the paths count")
    measured = [(m.time, m.value.item(), m.noise) for m in seen]
    return bridge_figure(found, "two measurements of a simulation", line.quantiles(densities, LEVELS), LEVELS, measured)


def imaginary_time() -> Figure:
    """Brownian motion killed at the rate V = (x^2 - 1)^2 between the same points: log of the propagator."""
    found = fk.bridge("double_well", -1.0, 1.0, T, noise=NOISE, dt=1 / 32, n_updates=80).trajectories
    line = Propagator(lambda x: (x**2 - 1) ** 2, -5.0, 5.0)
    exact = math.log(line.kernel(-1.0, 1.0, T, NOISE))
    print(f"log K(1, {T:g} | -1) = {found.log_evidence}, exactly {exact:.4f}")
    times = found.path.times[1:-1].tolist()
    _, densities = line.conditioned(-1.0, [(T, line.gaussian(1.0, NOISE))], times)
    return bridge_figure(found, "imaginary time", line.quantiles(densities, LEVELS), LEVELS)


def why_the_drift_matters() -> Figure:
    """The effective fraction of Brownian paths falls exponentially with T, that of the learned drift does not."""
    state = fk.solve("double_well", seed=0, settings=fk.Settings(n_updates=60, n_blocks=16), progress=False)
    process, system = state.process, state.system
    r2 = torch.full((1, 1), 1.0)

    def narrow(r: torch.Tensor) -> torch.Tensor:
        assert system.trial_function is not None
        return system.trial_function(r).exp()

    g = torch.Generator().manual_seed(0)
    samplers = {"Brownian paths": brownian(system.potential, torch.float32), "learned drift": process}
    curves = {
        name: effective_fraction(sampler, r2, 12.0, initial=narrow, n_times=48, n_paths=8192, generator=g)
        for name, sampler in samplers.items()
    }
    print(", ".join(f"{name}: {fractions[-1]:.2g} effective at T = 12" for name, (_, fractions) in curves.items()))
    return efficiency_figure(curves, r"$\psi(1, T)$ of the double well as an average over paths")


def main(folder: Path) -> None:
    figures = {
        "transition_paths": simulation(),
        "bridge": imaginary_time(),
        "effective_paths": why_the_drift_matters(),
    }
    save_figures(figures, folder)
    print(f"figures in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "figures")
