"""The campaign: `cd tests && python -m campaign [--scale 0.1] [--seed 0] [--only formulas,tables]` prints a table."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")  # before numpy: children are forked

import torch

from campaign.folders import folders
from campaign.inputs import formulas, streams, tables
from campaign.kills import full_disk, kills, odd_places, together
from campaign.physics import coverage, global_state, pathologies, warnings_as_errors
from campaign.tally import Tally, table

Part = Callable[[int, int, Path], Tally]
PARTS: dict[str, tuple[Part, int]] = {
    "formulas": (formulas, 10_000),
    "tables": (tables, 5_000),
    "folders": (folders, 5_000),
    "streams": (streams, 10_000),
    "SIGKILL": (partial(kills, number=signal.SIGKILL), 100),
    "SIGTERM": (partial(kills, number=signal.SIGTERM), 100),
    "SIGINT": (partial(kills, number=signal.SIGINT), 100),
    "together": (together, 20),
    "full_disk": (full_disk, 50),
    "odd_places": (odd_places, 60),
    "pathologies": (pathologies, 60),
    "coverage": (coverage, 100),
    "global_state": (global_state, 9),
    "warnings": (warnings_as_errors, 6),
}
"""Parts by name, and how many faults of each a whole campaign has; kills are of each kind of run."""


def run(name: str, n: int, seed: int) -> Tally:
    """One part in a folder of its own."""
    part, _ = PARTS[name]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tally = part(n, seed, Path(folder))
    tally.seconds = time.monotonic() - started
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="part of the whole campaign")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between them")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for name in given.only.split(","):
        found.append(run(name, max(1, round(given.scale * PARTS[name][1])), given.seed))
        print(table(found[-1:]).splitlines()[-1], *found[-1].examples, sep="\n    ", file=sys.stderr, flush=True)
    print(table(found))
    return 0 if all(tally.clean for tally in found) else 1


if __name__ == "__main__":
    sys.exit(main())
