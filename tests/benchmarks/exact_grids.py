"""Product grids on coupled oscillators in one to five dimensions: error, seconds, peak memory.

    OMP_NUM_THREADS=1 python tests/benchmarks/exact_grids.py

Each row is a process of its own, so that the peak memory is that of one calculation, without what importing takes.
The exact energy is that of the normal modes.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import numpy as np
import torch

from fkdrift.exact.product_grid import solve_grid
from fkdrift.exact.separability import landscape
from fkdrift.hamiltonian.potential import FunctionPotential


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(n: int, levels: int, tolerance: float) -> None:
    """Solve x K x / 2 with a fixed random K on a product grid and print one row."""
    A = np.random.default_rng(0).normal(size=(n, n))
    K = np.eye(n) + 0.3 * A @ A.T / n
    matrix = torch.tensor(K)
    potential = FunctionPotential(
        lambda r: 0.5 * (r[:, 0] @ matrix.to(r) * r[:, 0]).sum(1) if len(r) else r.new_zeros(0), n_dims=n
    )
    exact = np.sqrt(np.linalg.eigvalsh(K)).sum() / 2
    before, start = peak_mib(), time.perf_counter()
    states = solve_grid(
        landscape(potential), levels, tolerance=tolerance, points=None, max_memory_gib=4.0, max_seconds=600
    )
    seconds = time.perf_counter() - start
    shape = "x".join(str(axis.n) for axis in states.axes)
    error = states.energies[0] - exact
    print(
        f"{n}  {levels:6d}  {tolerance:9.0e}  {shape:>16}  {error:12.1e}  {states.errors[0]:9.0e}  {seconds:7.2f}  "
        f"{peak_mib() - before:9.0f}"
    )


def main() -> None:
    torch.set_num_threads(1)
    if len(sys.argv) == 4:
        measure(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
        return
    print("d  levels  tolerance        grid points  E0 - exact  estimate  seconds  peak MiB")
    rows = [
        (1, 1, 1e-8),
        (2, 1, 1e-8),
        (3, 1, 1e-8),
        (4, 1, 1e-6),
        (5, 1, 1e-6),
        (5, 1, 1e-8),
        (3, 5, 1e-8),
        (4, 5, 1e-6),
    ]
    for row in rows:
        subprocess.run([sys.executable, __file__, *map(str, row)], check=True)


if __name__ == "__main__":
    main()
