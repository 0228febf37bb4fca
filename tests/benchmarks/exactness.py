"""Does the printed error bar cover?  Many seeds of the whole computation, with default settings, against E_0.

    OMP_NUM_THREADS=1 python tests/benchmarks/exactness.py [--only ring] [--seeds 12] [--processes 2]

Of each system: how often E_0 lies within 1.96 standard errors of the headline energy (95 % of 40 is 38, and 36 to 40
are within chance), the mean of z = (E - E_0) / error, its root mean square, the error bar, the verdicts of trust, and
seconds of CPU; each seed on standard error.  H2 and four bosons take about a minute for each seed.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from multiprocessing import get_context

import torch

import fkdrift as fk

ROWS: dict[str, tuple[str, dict[str, float], float, int]] = {
    "quartic": ("anharmonic", {}, 0.8037706512342, 40),
    "asymmetric double well": ("(x**2 - 2)**2/2 + x/5", {}, math.nan, 40),
    "ring": ("(x**2 + y**2 - 2)**2/2", {}, 1.1626610, 40),
    "wide ring": ("4*(sqrt(x**2 + y**2) - 5)**2", {}, 1.4091032702, 12),
    "helium": ("helium", {}, -2.9037243770341, 40),
    "h2": ("h2", {}, -1.17447593012, 12),
    "four bosons": ("gaussian_bosons", {"n_particles": 4, "g": 15.0}, 7.627215, 12),
}
"""Potential, parameters, E_0 (nan: of `fk.diagonalise`; four bosons: of correlated_gaussians.py) and how many seeds."""


def one(task: tuple[str, int]) -> tuple[float, float, float, bool, float]:
    """z, the deviation and the error of a seed, whether it was trusted, and its CPU seconds."""
    name, seed = task
    potential, parameters, exact, _ = ROWS[name]
    torch.set_num_threads(1)
    start = time.process_time()
    state = fk.solve(potential, seed=seed, progress=False, **parameters)
    if math.isnan(exact):
        exact = fk.diagonalise(fk.load_potential(potential, **parameters)).ground_state
    E, spent = state.energy, time.process_time() - start
    return E.deviation(exact), E.mean - exact, E.error, bool(state.result["trust"]["trusted"]), spent


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", metavar="NAME", help="rows whose name contains this; repeatable")
    parser.add_argument("--seeds", type=int, help="for each row, instead of its own number")
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    names = [name for name in ROWS if not given.only or any(part in name for part in given.only)]
    print("| system | seeds | within 1.96 | mean z | rms z | error bar | median deviation | trusted | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|")
    with get_context("spawn").Pool(given.processes) as pool:
        for name in names:
            n = given.seeds or ROWS[name][-1]
            found = []
            for k, each in enumerate(pool.imap(one, [(name, k) for k in range(n)])):
                found.append(each)
                print(
                    f"{name}, seed {k}: z {each[0]:+.2f}, error {each[2]:.1e}, trusted {each[3]}",
                    file=sys.stderr,
                    flush=True,
                )
            z, deviation, error, trusted, seconds = zip(*found, strict=True)
            cells = [
                name,
                str(n),
                str(sum(abs(each) < 1.96 for each in z)),
                f"{statistics.mean(z):+.2f}",
                f"{math.sqrt(statistics.mean(each**2 for each in z)):.2f}",
                f"{statistics.median(error):.1e}",
                f"{statistics.median(deviation):+.1e}",
                f"{sum(trusted)}",
                f"{statistics.median(seconds):.0f}",
            ]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
