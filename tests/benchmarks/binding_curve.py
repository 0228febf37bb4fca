"""The binding curve of H2 by `fk.scan`: seventeen points that start warm, beside cold points of the same work.

    OMP_NUM_THREADS=1 python tests/benchmarks/binding_curve.py                 17 points, every fourth one cold as well
    OMP_NUM_THREADS=1 python tests/benchmarks/binding_curve.py --cold 1        every one cold as well

Warm and cold points have the same settings and are sampled to the same standard error; a cold one is trained from the
start.  CPU seconds are those of a point as result.json has them, training, sampling and projection together.  The
limits: 8 minutes of wall time for the curve with two jobs, 0.3 mHa from the literature, warm points 3 times cheaper.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

import fkdrift as fk

R = [round(0.8 + 0.2 * k, 1) for k in range(17)]
SETTINGS = fk.ScanSettings(rtol=1.5e-4, n_blocks=50)
WALL, DEVIATION, CHEAPER = 480.0, 3e-4, 3.0


def curve(radii: list[float], jobs: int, cold: int) -> tuple[list[dict[str, Any]], float]:
    """Rows of a scan over radii with so many cold points, and wall seconds."""
    started = time.perf_counter()
    scan = fk.scan("h2", {"R": radii}, jobs=jobs, settings=SETTINGS.changed(cold=cold), progress=False)
    return scan.records(), time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--cold", type=int, default=4, help="every so many points are made cold as well")
    options = parser.parse_args()

    warm, wall = curve(R, options.jobs, 1)
    again = [row["R"] for row in warm if row["warm"]][:: options.cold]
    cold = {row["R"]: row for row in curve(again, options.jobs, len(again))[0]}
    print("| R | E | error | E - literature, mHa | start | CPU s | CPU s, cold | error, cold |\n|" + " --- |" * 8)
    for row in warm:
        beside = cold.get(row["R"], {})
        away = "" if row["reference"] is None else f"{1000 * (row['energy'] - row['reference']):+.3f}"
        start = "warm" if row["warm"] else "cold"
        other = [f"{beside[name]:.3g}" if beside else "" for name in ("cpu_seconds", "error")]
        numbers = f"{row['R']} | {row['energy']:.6f} | {row['error']:.1e} | {away} | {start} | {row['cpu_seconds']:.1f}"
        print(f"| {numbers} | {other[0]} | {other[1]} |")

    both = [(row, cold[row["R"]]) for row in warm if row["R"] in cold]
    seconds = np.array([[row["cpu_seconds"] for row in pair] for pair in both]).mean(0)
    away = max(abs(row["energy"] - row["reference"]) for row in warm if row["reference"] is not None)
    cpu = sum(row["cpu_seconds"] for row in warm)
    print(f"\nwall seconds of the curve: {wall:.0f} (<= {WALL:.0f}: {wall <= WALL}); CPU seconds: {cpu:.0f}")
    print(f"largest deviation: {1000 * away:.2f} mHa (<= {1000 * DEVIATION:g}: {away <= DEVIATION})")
    print(f"CPU seconds of a point, same {len(both)} points: warm {seconds[0]:.1f}, cold {seconds[1]:.1f}, ratio "
          f"{seconds[1] / seconds[0]:.2f} (>= {CHEAPER:g}: {seconds[1] >= CHEAPER * seconds[0]})")  # fmt: skip


if __name__ == "__main__":
    main()
