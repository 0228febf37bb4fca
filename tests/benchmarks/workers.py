"""Two workers against one with the same total of walkers, the same walkers each, and what they send.

    python tests/benchmarks/workers.py             three times each in turn, the total of walkers held fixed
    python tests/benchmarks/workers.py --weak      1, 2 and 4 workers with as many walkers each
    python tests/benchmarks/workers.py --once      one time each, for a busy machine

Wall time of natural-gradient updates and of blocks of the local energy, 5 moves of every walker each, without what it
takes to start: workers are forked from a process that has the run already.  A wall time says something on quiet cores
only, so that the load is printed beside it, and the CPU time of the slowest worker, which does not wait.  Messages and
bytes are those that one worker hands to torch.distributed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from forked import with_workers

import fkdrift as fk
from fkdrift.numerics.allocator import keep_freed_memory
from fkdrift.numerics.workers import Workers
from fkdrift.runs.ground_state import GroundState

SYSTEMS = {
    "helium, 4096 walkers": ("helium", {}, 4096),
    "16 bosons in 2D, 1024 walkers": ("gaussian_bosons", {"n_particles": 16}, 1024),
    "20 bosons in 3D, 512 walkers": ("gaussian_bosons", {"n_particles": 20, "n_dims": 3}, 512),
}
N_BLOCKS = 10
Times = dict[str, float]


def made(system: str, times: int = 1) -> GroundState:
    """A run that does not end by itself."""
    name, parameters, n_walkers = SYSTEMS[system]
    settings = fk.Settings(n_walkers=times * n_walkers, n_updates=1 + N_BLOCKS, tolerance=1e-12)
    return GroundState(fk.load_potential(name, **parameters), settings)


def measured(run: GroundState) -> Callable[[Workers], Times]:
    """What one worker measures: seconds, CPU seconds, messages and bytes of an update and of a block."""

    def work(workers: Workers) -> Times:
        torch.set_num_threads(1)
        if workers.size > 1:
            assert workers.group is not None
            run.distribute(workers.group)
        found: Times = {}
        for phase in (run.training, run.sampling):
            phase.advance(run.generator)  # the first one is for what is done once
            before = time.perf_counter(), time.process_time(), run.workers.messages, run.workers.bytes
            for _ in range(N_BLOCKS):
                phase.advance(run.generator)
                if phase is run.sampling and phase.step > 0:
                    phase.energy  # as a run asks for it  # noqa: B018
            after = time.perf_counter(), time.process_time(), run.workers.messages, run.workers.bytes
            for name, a, b in zip(("wall", "cpu", "messages", "bytes"), before, after, strict=True):
                found[f"{phase.name} {name}"] = (b - a) / N_BLOCKS
        return found

    return work


def together(run: GroundState, n: int) -> Times:
    """The slowest of n workers."""
    found = with_workers(n, measured(run))
    return {name: max(each[name] for each in found) for name in found[0]}


def strong(system: str, times: int) -> None:
    """Two workers against one, in turn."""
    run = made(system)
    pairs = [(together(run, 1), together(run, 2)) for _ in range(times)]
    for phase in ("training", "sampling"):
        ratios = {
            kind: [one[f"{phase} {kind}"] / two[f"{phase} {kind}"] for one, two in pairs] for kind in ("wall", "cpu")
        }
        two, alone = pairs[-1][1], median(one[f"{phase} wall"] for one, _ in pairs)
        print(
            f"{system:<32} {phase:<9} wall 1/2 {', '.join(f'{r:.2f}' for r in ratios['wall'])}   "
            f"CPU of a worker 1/2 {median(ratios['cpu']):.2f}   {alone:.3f} s alone "
            f"  {two[f'{phase} messages']:.0f} messages, {two[f'{phase} bytes'] / 1e3:.0f} kB   "
            f"load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


def weak(system: str) -> None:
    """As many walkers in each of 1, 2 and 4 workers."""
    for n in (1, 2, 4):
        found, cores = together(made(system, n), n), os.cpu_count() or 1
        ideal = max(1.0, n / cores)
        if n == 1:
            alone = found
        for phase in ("training", "sampling"):
            wall, cpu = (found[f"{phase} {kind}"] / alone[f"{phase} {kind}"] for kind in ("wall", "cpu"))
            print(
                f"{system:<32} {phase:<9} {n} workers   wall {wall / ideal:.2f} of the ideal on {cores} cores   "
                f"CPU of a worker {cpu:.2f}   load {os.getloadavg()[0]:.1f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weak", action="store_true")
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--only", default="", help="systems whose name begins with this")
    given = parser.parse_args()
    keep_freed_memory()  # as a run does, and its workers with it
    for system in SYSTEMS:
        if system.startswith(given.only):
            weak(system) if given.weak else strong(system, 1 if given.once else 3)


if __name__ == "__main__":
    main()
