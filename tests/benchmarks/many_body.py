"""Energies, error bars and wall time of the command `fkdrift solve`, for every system the engine is held to.

    python tests/benchmarks/many_body.py                           all rows, as a markdown table
    python tests/benchmarks/many_body.py --only helium --repeat 3  one row, seeds 0, 1, 2

Each row is a process of its own, timed from outside: start-up, training, sampling, comparison and figures are all in
it.  The limits are those of two CPU cores without an accelerator; wall seconds mean little on a machine that is busy
with something else, so what counts are CPU seconds, of one thread.  A row passes if the error bar, the deviation from
the reference and the CPU seconds are all within their limits.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

C10 = (0.162944737278636, 0.181158387415124, 0.025397363258701, 0.182675171227804, 0.126471849245082,
       0.019508080999882, 0.055699643773410, 0.109376303840997, 0.191501367086860, 0.192977707039855)  # fmt: skip
V0 = "(" + ", ".join(str(c / 2) for c in C10) + ")"  # the published -lap + sum_k c_k cos x_k is twice this H


@dataclass(frozen=True)
class Row:
    """A system, what is required of it, and the options its command is given.

    Args:
        system, parameters: what `--potential` and `--param` are given.
        reference: E_0.
        error, deviation, seconds: the limits.
    """

    system: str
    parameters: str
    reference: float
    error: float
    deviation: float
    seconds: float

    @property
    def title(self) -> str:
        """The name and the parameters, without long tuples."""
        return f"{self.system} {self.parameters if len(self.parameters) < 40 else 'd=10'}".strip()

    def command(self, seed: int, out: Path | str = "DIR") -> list[str]:
        """The whole command as a list of words."""
        words = ["solve", "-p", self.system]
        for parameter in shlex.split(self.parameters):
            words += ["--param", parameter]
        return [*words, "--quiet", "--seed", str(seed), "--out", str(out)]


def _well(system: str, parameters: str, reference: float, error: float = 1e-5, seconds: float = 15) -> Row:
    return Row(system, parameters, reference, error, error, seconds)


# fmt: off
ROWS = (
    #   system             parameters                  E_0                error  deviation  s
    Row("helium",          "",                         -2.9037243770341,  5e-5,  5e-5,      90),
    Row("h2",              "R=1.401",                  -1.17447593012,    5e-5,  5e-5,      90),
    Row("h2",              "R=2.8",                    -1.07068323348,    5e-5,  5e-5,      90),
    Row("hydrogen",        "",                         -0.5,              1e-5,  1e-5,      30),
    Row("h2_plus",         "R=2.0",                    -0.60263421449495, 1e-5,  1e-5,      45),
    Row("gaussian_bosons", "n_particles=4 g=15.0",     7.627215,           3e-4,  3e-4,      120),
    Row("gaussian_bosons", "n_particles=3 g=6.0",      4.3429169,         3e-4,  3e-4,      90),
    Row("harmonium",       "omega=0.5",                2.0,               1e-4,  1e-4,      60),
    Row("calogero",        "n_particles=5 lam=2.0",    12.5 + 10.0,       1e-3,  1e-3,      120),
    Row("harmonic_bosons", "n_particles=20 n_dims=3 k=0.05", 41.805086528, 1e-3, 1e-3,      240),
    Row("cosine",          f"'V0={V0}'",               -0.0980874488651 / 2, 5e-5, 5e-5,    60),
    _well("anharmonic",    "lam=1.0",                  0.8037706512342),
    _well("double_well",   "a=1.0 b=1.0",              0.8695809189),
    _well("double_well",   "a=0.125 b=4.0",            0.9004067473),
    _well("morse",         "D=10.0 a=1.0",             2.11106797749979),
    _well("poschl_teller", "l=1.0",                    -0.5),
    _well("(x**2 - 2)**2/2 + x/5", "",                 0.9996392302),
    _well("(x**2 + y**2 - 2)**2/2", "",                1.1626610,         3e-5,  30),
    _well("4*(sqrt(x**2 + 1.3*y**2) - 4)**2", "",      1.4779879,         3e-5,  30),
    _well("(x**2 - 9)**2/18 + (y - 0.3*x)**2", "",     1.6909760,         3e-5,  30),
)
# fmt: on


@dataclass(frozen=True)
class Outcome:
    """What one command gave; nan where it failed."""

    row: Row
    seed: int
    seconds: float
    cpu_seconds: float
    result: dict[str, Any]
    complaint: str = ""

    @property
    def energy(self) -> float:
        return self._of("energies", "projected", "mean")

    @property
    def error(self) -> float:
        return self._of("energies", "projected", "error")

    @property
    def deviation(self) -> float:
        return self.energy - self.row.reference

    @property
    def standard_deviation(self) -> float:
        return self._of("sampling", "standard_deviation")

    @property
    def misses(self) -> list[str]:
        """What is beyond its limit, and by how much; empty for a pass."""
        if self.complaint:
            return [self.complaint]
        rounding = 2e-12 * abs(self.row.reference)
        limits = {
            "error bar": (self.error, self.row.error),
            "deviation": (abs(self.deviation), self.row.deviation + rounding),
            "CPU seconds": (self.cpu_seconds, self.row.seconds),
        }
        return [f"{name} x{value / limit:.2g}" for name, (value, limit) in limits.items() if not value <= limit]

    def _of(self, *path: str) -> float:
        value: Any = self.result
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return float("nan") if value is None else float(value)

    def cells(self) -> list[str]:
        z = 0.0 if abs(self.deviation) < 1e-12 else self.deviation / self.error if self.error else float("inf")
        return [
            self.row.title,
            str(self.seed),
            f"{self.energy:.7g}",
            f"{self.error:.1e}",
            f"{self.row.error:.1e}",
            f"{self.deviation:+.1e}",
            f"{self.row.deviation:.1e}",
            f"{z:+.1f}",
            f"{self.standard_deviation:.2g}",
            f"{self._of('n_updates'):.0f}",
            f"{self.seconds:.0f}",
            f"{self.cpu_seconds:.0f}",
            f"{self.row.seconds:.0f}",
            "pass" if not self.misses else "MISS: " + ", ".join(self.misses),
        ]


HEADINGS = (
    "system", "seed", "E", "error bar", "<=", "deviation", "<=", "z", "s.d. of E_L",
    "updates", "wall s", "CPU s", "<=", "verdict",
)  # fmt: skip


def solve(row: Row, seed: int, program: list[str], threads: int) -> Outcome:
    """Run one command and read what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(threads)}
        start, cpu = time.perf_counter(), children_cpu()
        done = subprocess.run([*program, *row.command(seed, out)], capture_output=True, text=True, env=environment)
        seconds, cpu = time.perf_counter() - start, children_cpu() - cpu
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return Outcome(row, seed, seconds, cpu, {}, f"exit {done.returncode}: {last[:120]}")
        return Outcome(row, seed, seconds, cpu, json.loads((out / "result.json").read_text()))


def children_cpu() -> float:
    """CPU seconds of all finished child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def line(cells: Iterable[str]) -> str:
    """A row of a markdown table."""
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", metavar="NAME", help="rows whose title contains this; repeatable")
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    parser.add_argument("--repeat", type=int, default=1, help="how many seeds for each row")
    parser.add_argument("--threads", type=int, default=1, help="OMP_NUM_THREADS of the command")
    parser.add_argument("--commands", action="store_true", help="print the commands only")
    arguments = parser.parse_args()
    rows = [row for row in ROWS if not arguments.only or any(name in row.title for name in arguments.only)]
    if not rows:
        parser.error(f"no row is called {arguments.only}: choose from {', '.join(row.title for row in ROWS)}")
    if arguments.commands:
        print("\n".join(shlex.join(["fkdrift", *row.command(arguments.seed)]) for row in rows))
        return
    program = [sys.executable, "-m", "fkdrift"]
    print(line(HEADINGS), line("---" for _ in HEADINGS), sep="\n", flush=True)
    missed = 0
    for row in rows:
        for seed in range(arguments.seed, arguments.seed + arguments.repeat):
            outcome = solve(row, seed, program, arguments.threads)
            missed += bool(outcome.misses)
            print(line(outcome.cells()), flush=True)
    print(f"\n{missed} of {len(rows) * arguments.repeat} runs missed a limit")


if __name__ == "__main__":
    main()
