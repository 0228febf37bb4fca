"""How the cost of one walker grows with the number of particles, and what the forward Laplacian is worth.

    python tests/benchmarks/scaling.py                 2 to 64 bosons, the Laplacian, the figure
    python tests/benchmarks/scaling.py --laplacian     the Laplacian only

For N bosons in two dimensions with Gaussian repulsion (g = 1), one process for each N so that its peak memory is its
own: seconds for each walker of a Metropolis-adjusted step, of a local energy, and of a whole update of
NaturalGradient (5 such steps, a local energy, the gradient, 20 conjugate-gradient steps on half of the walkers).
CPU time on one core.

The Laplacian: f, grad f and sum_i sigma_i^2 lap_i f by the layers' own forward rules (NeuralWavefunction.derivatives),
against the diagonal of the Hessian by torch.func (jvp of grad along each coordinate, vmapped over coordinates and
walkers).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.style import context
from torch import Tensor

from fkdrift.figures.palette import DPI, PARTICLES, POTENTIAL, STYLE
from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.system import System
from fkdrift.paths.process import Process
from fkdrift.training.energy_gradients import MetropolisSamples
from fkdrift.training.natural_gradient import NaturalGradient
from fkdrift.wavefunction import metropolis
from fkdrift.wavefunction.local_energy import local_energy
from fkdrift.wavefunction.neural import NeuralWavefunction

FIGURE = Path(__file__).parents[2] / "docs/figures/scaling.png"
SIZES = (2, 4, 8, 16, 32, 64)
PARTS = {"step": "Metropolis step", "energy": "local energy", "update": "natural-gradient update"}
FIT_FROM = 8


def n_walkers(n_particles: int) -> int:
    """1024, and fewer from 32 particles on: an update keeps some tens of numbers for each pair, walker and unit."""
    return min(1024, 2**19 // n_particles**2)


def prepare(name: str, n_walkers: int, **parameters: object) -> tuple[System, Process, Tensor, torch.Generator]:
    """A process with random weights, and walkers."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    system = System(load_potential(name, **parameters))
    drift = NeuralWavefunction(system)
    with torch.no_grad():
        drift.readout.weight.normal_(std=0.05)
    return system, Process(drift, system), system.initial_walkers(n_walkers, generator), generator


def seconds(work: Callable[[], object], at_least: float = 1.0) -> float:
    """The median CPU time of a call, after one to warm up."""
    work()
    times: list[float] = []
    while len(times) < 3 or sum(times) < at_least:
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return float(np.median(times))


def measure(n_particles: int) -> dict[str, float]:
    """Cost for each walker, and peak memory, of N bosons."""
    batch = n_walkers(n_particles)
    system, process, r, generator = prepare("gaussian_bosons", batch, n_particles=n_particles, g=1.0)
    idle = peak()
    chain = metropolis.start(process, r, system.time_scale / 8)
    method = NaturalGradient(process, MetropolisSamples(5), time_scale=system.time_scale)
    with torch.no_grad():
        costs = {
            "step": seconds(lambda: metropolis.move(process, chain, 1, generator)),
            "energy": seconds(lambda: local_energy(process, r)),
        }
    costs["update"] = seconds(lambda: method.update(r, 0, generator))
    return {
        "n": n_particles, "walkers": batch, "idle": idle, "memory": peak(), "parameters": len(method.delta),
        **{part: cost / batch for part, cost in costs.items()},
    }  # fmt: skip


def peak() -> float:
    """Peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def exponent(sizes: list[float], costs: list[float]) -> float:
    """The slope of log cost against log N from FIT_FROM particles on."""
    chosen = [(n, cost) for n, cost in zip(sizes, costs, strict=True) if n >= FIT_FROM]
    return float(np.polyfit(*np.log(np.array(chosen)).T, 1)[0])


def hessian_diagonal(drift: NeuralWavefunction, r: Tensor) -> tuple[Tensor, Tensor]:
    """grad f and sum_i sigma_i^2 lap_i f by automatic differentiation of f alone, walker by walker under vmap."""
    shape = r.shape[1:]
    basis = torch.eye(shape.numel(), dtype=r.dtype).reshape(-1, *shape)
    variance = drift.variance.expand(shape)

    def one_walker(x: Tensor) -> tuple[Tensor, Tensor]:
        gradient = torch.func.grad(lambda y: drift.log_jastrow(y[None])[0])

        def along(e: Tensor) -> Tensor:
            return (torch.func.jvp(gradient, (x,), (e,))[1] * e * variance).sum()

        return gradient(x), torch.func.vmap(along)(basis).sum()

    return torch.func.vmap(one_walker)(r)


def compare_laplacians(name: str, batch: int, **parameters: object) -> str:
    """One row: milliseconds of both, their ratio, and the largest difference relative to the largest value."""
    _, process, r, _ = prepare(name, batch, **parameters)
    drift = process.drift
    assert isinstance(drift, NeuralWavefunction)
    with torch.no_grad():
        forward, automatic = drift.derivatives(r).laplacian.sum(-1), hessian_diagonal(drift, r)[1]
        fast, slow = seconds(lambda: drift.derivatives(r)), seconds(lambda: hessian_diagonal(drift, r))
    difference = ((forward - automatic).abs().max() / automatic.abs().max()).item()
    n, dim = r.shape[1:]
    times = f"{1e3 * fast:.1f} | {1e3 * slow:.1f} | {slow / fast:.1f}"
    return f"| {name} | {n} x {dim} | {batch} | {times} | {difference:.0e} |"


def draw(rows: list[dict[str, float]]) -> None:
    """Cost of a walker on the left, memory on the right."""
    sizes = [row["n"] for row in rows]
    with context(STYLE):
        figure = Figure(figsize=(9.0, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        for (part, label), colour in zip(PARTS.items(), PARTICLES, strict=False):
            costs = [1e6 * row[part] for row in rows]
            slope = exponent(sizes, costs)
            left.plot(sizes, costs, "o-", color=colour, ms=4, label=f"{label}, N$^{{{slope:.2f}}}$ from {FIT_FROM} on")
        left.set(ylabel="CPU microseconds for each walker, one core", title="cost of a walker")
        left.legend(loc="upper left")
        memory = [row["memory"] - row["idle"] for row in rows]
        right.plot(sizes, memory, "o-", color=PARTICLES[0], ms=4)
        for n, size, row in zip(sizes, memory, rows, strict=True):
            right.annotate(f"{row['walkers']:.0f}", (n, size), (0, 7), textcoords="offset points", ha="center",
                           fontsize=8.5, color=POTENTIAL)  # fmt: skip
        right.set(ylabel="MiB beyond start-up", title="peak memory of an update (numbers: walkers)")
        right.set_ylim(min(memory) / 2, 2 * max(memory))
        for axes in (left, right):
            axes.set(xscale="log", yscale="log", xlabel="bosons N")
            axes.set_xticks(sizes, [f"{n:.0f}" for n in sizes])
            axes.minorticks_off()
        figure.savefig(FIGURE, dpi=DPI)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--laplacian", action="store_true", help="compare the Laplacians only")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    if not arguments.laplacian:
        print("| N | walkers | step, us | local energy, us | update, us | peak MiB | of it start-up |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        rows = []
        for n in SIZES:
            done = subprocess.run(
                [sys.executable, __file__, "--one", str(n)], check=True, stdout=subprocess.PIPE, text=True
            )
            row = json.loads(done.stdout)
            rows.append(row)
            costs = " | ".join(f"{1e6 * row[part]:.3g}" for part in PARTS)
            print(f"| {n} | {row['walkers']} | {costs} | {row['memory']:.0f} | {row['idle']:.0f} |", flush=True)
        slopes = [exponent([row["n"] for row in rows], [row[part] for row in rows]) for part in PARTS]
        print(f"| exponent from N = {FIT_FROM} | | " + " | ".join(f"{slope:.2f}" for slope in slopes) + " | | |\n")
        draw(rows)
    print("| system | N x d | walkers | forward Laplacian, ms | vmapped Hessian diagonal, ms | ratio | difference |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    print(compare_laplacians("helium", 1024))
    print(compare_laplacians("gaussian_bosons", 512, n_particles=8, g=15.0))


if __name__ == "__main__":
    main()
