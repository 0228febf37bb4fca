"""CPU time of the hot loop on one core: local energy, Metropolis step, projection step, training update.

    python tests/benchmarks/hot_loop.py                                  this checkout alone
    python tests/benchmarks/hot_loop.py --against DIR                    in pairs with another checkout
    python tests/benchmarks/hot_loop.py --against DIR --only helium --repeat 9

Each checkout has a process of its own, on one thread, and the two measure in turn, so that what else the machine does
falls on both alike.  Times are CPU seconds (user and system) per walker, the ratio is the median over pairs.  GFLOP/s
are those of the matrix products alone; beside them is what the core reaches in a product of the same shape, of as many
rows as a cache-sized part of the walkers has with the layers' square matrix.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SYSTEMS: dict[str, tuple[str, dict[str, Any], int]] = {
    "helium": ("helium", {}, 1024),
    "4 bosons": ("gaussian_bosons", {"n_particles": 4, "g": 15.0}, 1024),
    "20 bosons": ("harmonic_bosons", {"n_particles": 20, "n_dims": 3, "k": 0.05}, 256),
    "well": ("anharmonic", {"lam": 1.0}, 4096),
    "H2": ("h2", {"R": 1.401}, 1024),
}
"""Potential, parameters and walkers by name."""
KERNELS = ("local energy", "Metropolis step", "projection step", "update")
MOVES = STEPS = 4
"""In one call."""
ROWS = 2**14
"""Of a matrix product with 32 x 32 numbers: what a part of the walkers that fits the cache has."""
LEAST_SECONDS = 0.2
"""Of one measurement."""


def kernels(name: str) -> dict[str, tuple[Callable[[], object], int]]:
    """What is timed, and how many steps of the walkers each call makes."""
    import torch

    import fkdrift as fk
    from fkdrift.estimators.projection import Projection
    from fkdrift.numerics.allocator import keep_freed_memory
    from fkdrift.paths.process import Process
    from fkdrift.training.energy_gradients import MetropolisSamples
    from fkdrift.training.natural_gradient import NaturalGradient
    from fkdrift.wavefunction import metropolis
    from fkdrift.wavefunction.local_energy import local_energy

    torch.set_num_threads(1)
    keep_freed_memory()
    potential, parameters, n = SYSTEMS[name]
    system, g = fk.System(fk.load_potential(potential, **parameters)), torch.Generator().manual_seed(0)
    psi = fk.NeuralWavefunction(system)
    with torch.no_grad():
        for parameter in psi.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=g), alpha=0.05)
    process, tau = Process(psi, system), system.time_scale
    r = system.initial_walkers(n, g)
    chain = metropolis.start(process, r, tau / 8)
    projection = Projection(process, r, time_scale=tau, n_walkers=3 * n, n_steps=STEPS, n_settling=10**9)
    method = NaturalGradient(process, MetropolisSamples(5), time_scale=tau)

    def square() -> None:
        torch.mm(x, weight)

    x, weight = torch.randn(ROWS, 32), torch.randn(32, 32)
    return {
        "local energy": (lambda: local_energy(process, r), n),
        "Metropolis step": (lambda: metropolis.move(process, chain, MOVES, g), n * MOVES),
        "projection step": (lambda: projection.advance(g), 3 * n * STEPS),
        "update": (lambda: method.update(r, 0, g), n),
        "matrix product": (square, ROWS),
    }


def serve() -> None:
    """Answer a system and a kernel on the input with CPU seconds, flops of matrix products, and steps."""
    from torch.utils.flop_counter import FlopCounterMode

    made: dict[str, dict[str, tuple[Callable[[], object], int]]] = {}
    for line in sys.stdin:
        system, kernel = line.rstrip("\n").split("\t")
        if system not in made:
            made = {system: kernels(system)}
        call, units = made[system][kernel]
        call()
        seconds, n = 0.0, 0
        while seconds < LEAST_SECONDS:
            start = cpu()
            call()
            seconds, n = seconds + cpu() - start, n + 1
        with FlopCounterMode(display=False) as counter:
            call()
        print(f"{seconds / n}\t{counter.get_total_flops()}\t{units}", flush=True)


def cpu() -> float:
    """User and system seconds of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Checkout:
    """A process that measures the fkdrift of a checkout."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment,
        )

    def measure(self, system: str, kernel: str) -> tuple[float, float]:
        """Microseconds per step of a walker, and GFLOP/s of the matrix products."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(system, kernel, sep="\t", file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline().split()
        if not answer:
            raise SystemExit(f"the process that measures {system} ended: see its message above")
        seconds, flops, units = map(float, answer)
        return 1e6 * seconds / units, flops / seconds / 1e9

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout of fkdrift")
    parser.add_argument("--only", action="append", choices=SYSTEMS, help="systems; repeatable")
    parser.add_argument("--repeat", type=int, default=5, help="pairs of measurements")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return
    here = Checkout(Path(__file__).parents[2])
    other = None if arguments.against is None else Checkout(arguments.against.resolve())
    print("| system | kernel | us / step | before | ratio | GFLOP/s | product alone |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for system in arguments.only or SYSTEMS:
        for kernel in KERNELS:
            rows = []
            for _ in range(arguments.repeat):
                alone = here.measure(system, "matrix product")[1]
                before = float("nan") if other is None else other.measure(system, kernel)[0]
                now, rate = here.measure(system, kernel)
                rows.append((now, before, before / now, rate, alone))
            cells = [f"{statistics.median(column):.3g}" for column in zip(*rows, strict=True)]
            print("|", " | ".join([system, kernel, *cells]), "|", flush=True)
    for checkout in filter(None, (here, other)):
        checkout.close()


if __name__ == "__main__":
    main()
