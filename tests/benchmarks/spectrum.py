"""Gaps and observables of whole computations with default settings, beside what is known exactly.

    OMP_NUM_THREADS=1 python tests/benchmarks/spectrum.py [--only helium] [--seed 0]

A gap is to be within 1 % and three standard errors of the exact one, a pure estimator within 0.3 % and three.  Exact
are the levels of `fk.diagonalise`, its slope by a difference of 1e-4, and for helium the literature: C. W. Drake, ed.,
Springer Handbook of Atomic, Molecular, and Optical Physics (2006), chapter 11.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch

import fkdrift as fk
from fkdrift.numerics.estimates import Estimate

WELLS: dict[str, tuple[str, dict[str, Any], int]] = {
    "quartic oscillator": ("anharmonic", {}, 4),
    "Morse, D = 10": ("morse", {"D": 10.0}, 4),
    "double well, a = 1/8, b = 4": ("double_well", {"a": 0.125, "b": 4.0}, 4),
    "oscillator in the plane": ("harmonic", {"n_dims": 2}, 6),
    "two bosons in a trap": ("gaussian_bosons", {"n_particles": 2}, 2),
}
"""Potential, parameters and levels whose gaps are compared."""
HELIUM_GAPS = {1: 0.757750, 2: 0.779881}
HELIUM = {"1/r": 1.68831680, "r**2": 1.19348300, "r12": 1.42207026}
FAIR, FAIR_PURE = 0.01, 0.003
STEP = 1e-4


def rows(title: str, seed: int) -> Iterator[tuple[str, Estimate, float, float]]:
    """What was found, what is exact, and how far they may be apart relatively."""
    settings = fk.Settings(seed=seed)
    if title == "helium":
        state = fk.solve("helium", levels=3, observables=list(HELIUM), settings=settings, progress=False)
        for level, gap in HELIUM_GAPS.items():
            yield f"gap {level}", _gap(state, level), gap, 0.011
        for name, exact in HELIUM.items():
            yield name, _pure(state, name), exact, FAIR_PURE
        return
    potential, parameters, levels = WELLS[title]
    observables = ["x**2", "V", "dE/dlam"] if potential == "anharmonic" else None
    state = fk.solve(potential, levels=levels, observables=observables, settings=settings, progress=False, **parameters)
    spectrum = fk.diagonalise(state.potential, levels)
    for level in range(1, levels):
        yield f"gap {level}", _gap(state, level), spectrum.energies[level] - spectrum.energies[0], FAIR
    if observables:  # V = x^2 / 2 + lam x^4, so that by the virial theorem E = <x^2> + 3 <x^4>
        E = spectrum.ground_state
        low, high = (fk.diagonalise(fk.load_potential(potential, lam=1 + h)).ground_state for h in (-STEP, STEP))
        slope = (high - low) / (2 * STEP)
        yield "x**2", _pure(state, "x**2"), E - 3 * slope, FAIR_PURE
        yield "dE/dlam", _pure(state, "dE/dlam"), slope, FAIR_PURE
        yield "V", _pure(state, "V"), (E - slope) / 2, FAIR_PURE
        yield "T", _of(state.result["observables"]["T"]["variational"]), (E + slope) / 2, FAIR_PURE


def _of(value: dict[str, float]) -> Estimate:
    return Estimate(value["mean"], value["error"])


def _gap(state: fk.GroundState, level: int) -> Estimate:
    found = state.result["excitations"][level - 1]
    return Estimate(found["gap"], found["error"])


def _pure(state: fk.GroundState, name: str) -> Estimate:
    return _of(state.result["observables"][name]["pure"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", metavar="NAME", help="systems whose name contains this; repeatable")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| system | what | found | exact | deviation | z | CPU s of the run | verdict |")
    print("|---|---|---|---|---|---|---|---|")
    for title in (*WELLS, "helium"):
        if given.only and not any(part in title for part in given.only):
            continue
        start = time.process_time()
        for what, found, exact, fair in rows(title, given.seed):
            apart, z = found.mean / exact - 1, found.deviation(exact)
            verdict = "pass" if abs(apart) <= fair and abs(z) <= 3 else "MISS"
            spent = time.process_time() - start
            print(f"| {title} | {what} | {found} | {exact:.8g} | {apart:+.1e} | {z:+.1f} | {spent:.0f} | {verdict} |")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
