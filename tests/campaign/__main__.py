"""The campaign: `cd tests && python -m campaign [--scale 0.1] [--seed 0] [--only formulas,tables]` prints a table.

It is made in pieces, each with a seed of its own.  A campaign that was stopped goes on with the pieces that are left.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")  # before numpy: children are forked

import torch

from campaign.folders import folders
from campaign.inputs import formulas, streams, tables
from campaign.kills import archives, commands, full_disk, kills, odd_places, together
from campaign.physics import coverage, global_state, pathologies, warnings_as_errors
from campaign.tally import Tally, table


@dataclass(frozen=True)
class Part:
    """One kind of fault.

    Args:
        faults: makes so many, from a seed, in a folder.
        whole: how many a whole campaign has; signals are sent to each kind of run.
        piece: how many are made at a time; None for all.
    """

    faults: Callable[[int, int, Path], Tally]
    whole: int
    piece: int | None = None


PARTS: dict[str, Part] = {
    "SIGKILL": Part(partial(kills, number=signal.SIGKILL), 34, 4),
    "SIGTERM": Part(partial(kills, number=signal.SIGTERM), 33, 4),
    "SIGINT": Part(partial(kills, number=signal.SIGINT), 33, 4),
    "commands": Part(commands, 8),
    "archives": Part(archives, 60),
    "pathologies": Part(pathologies, 60),
    "coverage": Part(coverage, 100),
    "folders": Part(folders, 5_000, 500),
    "formulas": Part(formulas, 10_000, 1_000),
    "tables": Part(tables, 5_000, 1_000),
    "streams": Part(streams, 10_000),
    "together": Part(together, 20),
    "full_disk": Part(full_disk, 50),
    "odd_places": Part(odd_places, 60),
    "global_state": Part(global_state, 9),
    "warnings": Part(warnings_as_errors, 6),
}
"""Parts by name, those that take longest first."""


def run(name: str, n: int, seed: int) -> Tally:
    """One part, or a piece of it, in a folder of its own."""
    torch.set_num_threads(1)
    started = cpu_seconds()
    with tempfile.TemporaryDirectory() as folder:
        tally = PARTS[name].faults(n, seed, Path(folder))
    tally.cpu_seconds = cpu_seconds() - started
    return tally


def cpu_seconds() -> float:
    """Of this process and its children that have ended."""
    return sum(os.times()[:4])


def pieces(names: list[str], scale: float, seed: int) -> Iterator[tuple[str, int, int]]:
    """Name, number of faults and seed of every piece."""
    for name in names:
        left, k = max(1, round(scale * PARTS[name].whole)), 0
        while left > 0:
            n = min(left, PARTS[name].piece or left)
            yield name, n, 1000 * seed + k
            left, k = left - n, k + 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="part of the whole campaign")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between them")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--log", type=Path, help="file that keeps what is done, and that is gone on with")
    given = parser.parse_args()
    wanted = list(pieces(given.only.split(","), given.scale, given.seed))
    lines = given.log.read_text().splitlines() if given.log and given.log.exists() else []
    done = {tuple(piece): Tally.of(values) for piece, values in map(json.loads, lines)}
    started = time.monotonic()
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("fork")) as pool:
        working = {pool.submit(run, *piece): piece for piece in wanted if piece not in done}
        for future in as_completed(working):
            piece, tally = working[future], future.result()
            done[piece] = tally
            if given.log:
                with given.log.open("a") as file:
                    file.write(json.dumps([piece, tally.plain()]) + "\n")
            print(piece, table([tally]).splitlines()[-1], *tally.examples, sep="\n    ", file=sys.stderr, flush=True)
    found = [Tally.total([done[p] for p in wanted if p[0] == name]) for name in dict.fromkeys(p[0] for p in wanted)]
    print(table(found))
    print(f"\n{time.monotonic() - started:.0f} s with {given.jobs} processes, {len(working)} of {len(wanted)} pieces")
    return 0 if all(tally.clean for tally in found) else 1


if __name__ == "__main__":
    sys.exit(main())
