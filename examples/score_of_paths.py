"""A starting drift from path-integral samples: where it saves work, and where it does not.

    python examples/score_of_paths.py

Paths of a double well at low temperature are samples of |phi_0|^2.  A drift is learned from them by denoising score
matching, and two kinds of drift are then trained on, from there and from nothing: a free vector field, by gradients of
its trajectories, and the gradient of log psi, by local energies.  On a line the energy of both is known by quadrature.
The reference is a Gaussian, as where no better trial function is known.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

import fkdrift as fk
from fkdrift.hamiltonian.preparation import gaussian
from fkdrift.wavefunction.protocol import Drift

EXCESSES = (1e-1, 1e-2, 3e-3, 1e-3)
N_UPDATES = 60


class Counter:
    """The double well (x^2 - 1)^2, counting how often it is asked for V."""

    n = 0

    def __call__(self, r: Tensor) -> Tensor:
        self.n += len(r)
        return WELL(r)


WELL, COUNTER = fk.load_potential("double_well"), Counter()
POTENTIAL = fk.FunctionPotential(COUNTER)
SYSTEM = fk.System(POTENTIAL, torch.float64, prepared=gaussian(POTENTIAL))
GRID = torch.linspace(-3.5, 3.5, 2001, dtype=torch.float64)[:, None, None]


def energy(drift: Drift) -> float:
    """E of psi with sigma^2 d log psi / dx = h + v, by the trapezoidal rule."""
    with torch.no_grad():
        v = fk.Process(drift, SYSTEM).velocity(GRID)[:, 0, 0]
        step = float(GRID[1, 0, 0] - GRID[0, 0, 0])
        log_psi = torch.cat([torch.zeros(1).double(), (v[1:] + v[:-1]).cumsum(0) * step / 2])
        weight = (2 * log_psi).softmax(0)
        return float((weight * (v.square() / 2 + WELL(GRID))).sum())


def new(kind: type[Drift]) -> Drift:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(SYSTEM)


def history(drift: Drift, walkers: Tensor, exact: float) -> list[tuple[int, int, float, float]]:
    """Updates, evaluations of V, CPU seconds and (E - E_0) / E_0, before the first update and after each."""
    method = fk.NaturalGradient(fk.Process(drift, SYSTEM), time_scale=SYSTEM.time_scale)
    found = [(0, 0, 0.0, energy(drift) / exact - 1)]
    before, began = COUNTER.n, time.process_time()
    for step in fk.fit(method, walkers, n_updates=N_UPDATES, generator=torch.Generator().manual_seed(1)):
        found.append((step.index, COUNTER.n - before, time.process_time() - began, energy(drift) / exact - 1))
        if found[-1][3] < EXCESSES[-1]:
            break
    return found


def reached(found: list[tuple[int, int, float, float]], excess: float) -> str:
    first = next((each for each in found if each[3] < excess), None)
    return "-" if first is None else f"{first[0]}: {first[1] / 1000:.0f}k, {first[2]:.1f} s"


def main() -> None:
    exact = fk.diagonalise(WELL, 1).energies[0]
    before, began = COUNTER.n, time.process_time()
    paths = fk.pimc(POTENTIAL, temperature=0.1, n_blocks=20, seed=0, progress=False)
    samples = paths.beads().double()
    print(f"E = {paths.energy} of paths, E_0 = {exact:.6f}; {len(samples):,} beads", end="")
    print(f" for {(COUNTER.n - before) / 1000:,.0f}k evaluations of V and {time.process_time() - began:.0f} CPU s\n")
    chosen = samples[torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))[:20_000]]
    print("updates: evaluations of V, CPU s".ljust(34) + "".join(f"{excess:<18g}" for excess in EXCESSES))
    for kind in (fk.NeuralVectorField, fk.NeuralWavefunction):
        cold = history(new(kind), SYSTEM.initial_walkers(1024, torch.Generator().manual_seed(2)), exact)
        began = time.process_time()
        warm = fk.drift_from_samples(chosen, SYSTEM, drift=new(kind))
        seconds = time.process_time() - began
        for name, found in (("from nothing", cold), ("from samples", history(warm, chosen[:1024], exact))):
            line = "".join(f"{reached(found, excess):<18}" for excess in EXCESSES)
            print(f"{kind.__name__:<20}{name:<14}{line}")
        print(f"{'':<20}learned from samples in {seconds:.1f} CPU s, without V\n")


if __name__ == "__main__":
    main()
