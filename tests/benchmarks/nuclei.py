"""Quantum nuclei: energies of `fkdrift solve` of clusters, a liquid and molecules against known ones.

    python tests/benchmarks/nuclei.py                      all rows, as a markdown table
    python tests/benchmarks/nuclei.py --only Ne            rows whose name has "Ne" in it

Each row is a process of its own with default settings but for `max_seconds`.  The projected energy has to be within two
of its standard errors of the reference, or as near as that is known, and these below a limit; where max_seconds ended
the projection it is missing.  CPU seconds are shown beside wall seconds, which mean little on a machine that is busy
with something else.
"""

from __future__ import annotations

import argparse
import json
import resource
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """A system and what is required of it.

    Args:
        name: of the row.
        options: of `fkdrift solve`, in one string.
        reference: E_0 in the unit of the potential; None where nothing is known.
        variational: largest relative excess of the variational energy.
        error: largest relative standard error of the projected energy.
        seconds: wall time on two quiet cores.
        known_to: relative accuracy of the reference.
        each: number of particles by which energies, with what the cut of V leaves out, are divided.
    """

    name: str
    options: str
    reference: float | None
    variational: float
    error: float
    seconds: float
    known_to: float = 0.0
    each: int = 1


def _helium(n: int, reference: float, potential: str = "LM2M2", variational: float = 0.02, error: float = 0.01) -> Row:
    options = f"-p noble_gas -P n_particles={n} -P 'potential={potential}'"
    seconds, known_to = (600, 0.0) if n < 5 else (900, 0.01)  # those of N > 4 are of diffusion Monte Carlo
    return Row(f"4He{n} {potential}", options, reference, variational, error, seconds, known_to)


SURFACE = Path(__file__).parents[2] / "examples" / "own_surface.py"
ARGON = Path(__file__).with_name("argon.xyz")
CALCULATOR = f"ase:ase.calculators.lj:LennardJones -P atoms={ARGON} -P sigma=3.405 -P epsilon=0.010289096 -P rc=100"

# fmt: off
ROWS = (
    Row("40Ar3", "-p noble_gas -P element=Ar -P n_particles=3", -304.876846, 5e-4, 1e-4, 120),
    Row("20Ne3", "-p noble_gas -P element=Ne -P n_particles=3", -61.0381,    5e-4, 1e-4, 120),
    _helium(3, -0.132986, "HFD-B(HE)", 0.05),
    _helium(3, -0.126407, variational=0.05),
    _helium(4, -0.55898, error=5e-3),
    _helium(5, -1.2963), _helium(6, -2.3092), _helium(7, -3.5653),
    _helium(8, -5.0199), _helium(9, -6.6774), _helium(10, -8.4945),
    Row("4He20 HFD-B(HE)", "-p noble_gas -P n_particles=20 -P 'potential=HFD-B(HE)'", None, 0, 0.01, 1800),
    Row("liquid 4He, 64 atoms", "-p helium_liquid --atol 3", -7.1, 0.5 / 7.1, 0.1 / 7.1, 3600, 0.1 / 7.1, 64),
    Row("H2O", "-p water --atol 0.2", 4609.865, 2 / 4610, 0.25 / 4610, 300),
    Row("H2O by values", f"-p {SURFACE}:surface --atol 0.3", 4609.865, 2 / 4610, 0.5 / 4610, 600),
    Row("(H2O)2", "-p water -P n_molecules=2 --atol 2.5", None, 0, 5 / 8000, 1800),
    Row("40Ar3 by a calculator", f"-p {CALCULATOR} --energy-unit K", -304.876846, 5e-4, 1e-4, 900),
)
# fmt: on


def run(row: Row) -> dict[str, Any]:
    """The numbers of a row."""
    words = ["solve", *shlex.split(row.options), "--max-seconds", f"{row.seconds:g}", "--json"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "fkdrift", *words], check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result = json.loads(done.stdout)
    energies = result["energies"]
    tail = energies.get("tail", {"mean": 0.0})["mean"]
    found = {
        name: {"mean": (E["mean"] + tail) / row.each, "error": E["error"] / row.each}
        for name, E in energies.items()
        if name in ("variational", "projected")
    }
    trusted = result.get("trust", {}).get("trusted", False)
    return {"energies": found, "trusted": trusted, "wall": time.perf_counter() - start, "cpu": cpu}


def verdict(row: Row, energies: dict[str, Any]) -> str:
    """Whether the row is within its limits, in words."""
    projected, missed = energies.get("projected"), []
    size = abs(row.reference or energies["variational"]["mean"])
    if row.reference is not None and energies["variational"]["mean"] - row.reference > row.variational * size:
        missed.append("variational")
    if projected is None:
        missed.append("not projected")
    elif projected["error"] > row.error * size:
        missed.append("error bar")
    elif (E := row.reference) is not None and abs(projected["mean"] - E) > 2 * projected["error"] + row.known_to * size:
        missed.append("projected")
    return "pass" if not missed else "MISSED: " + ", ".join(missed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    chosen = [row for row in ROWS if parser.parse_args().only in row.name]
    print("| system | E_0 | variational | projected | error | wall s | CPU s | trusted | |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in chosen:
        found = run(row)
        E = found["energies"]
        projected = E.get("projected", {"mean": float("nan"), "error": float("nan")})
        known = "" if row.reference is None else f"{row.reference:.7g}"
        cells = [row.name, known, f"{E['variational']['mean']:.6g} +- {E['variational']['error']:.2g}"]
        cells += [
            f"{projected['mean']:.6g}",
            f"{projected['error']:.2g}",
            f"{found['wall']:.0f}",
            f"{found['cpu']:.0f}",
            "yes" if found["trusted"] else "no",
        ]
        print(f"| {' | '.join([*cells, verdict(row, E)])} |", flush=True)


if __name__ == "__main__":
    main()
