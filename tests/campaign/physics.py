"""Potentials of every pathology with their exact energies, coverage of the error bar over seeds, and global state."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from runs import small

import fkdrift as fk
from campaign.tally import Tally

AIRY = 0.808616516506535  # |a_1'| / 2^(1/3), of |x|
QUARTIC = 0.667986259155777  # of x^4, p^2 / 2
NOTHING = None
PATHOLOGIES: list[tuple[str, float | None]] = [
    ("x**2/2", 0.5), ("x**2/2 + 1e6", 1000000.0 + 0.5), ("x**2/2 - 1e4", -10000.0 + 0.5), ("(x - 100)**2/2", 0.5),
    ("(x + 1000)**2/2", 0.5), ("1e-6*x**2/2", 0.0005), ("1e6*x**2/2", 500.0), ("1e8*x**2/2", 5000.0),
    ("abs(x)", AIRY), ("abs(x - 3)", AIRY), ("x**4", QUARTIC), ("16*x**4", QUARTIC * 16 ** (1 / 3)),
    ("x**4/10", QUARTIC * 10 ** (-1 / 3)), ("-1/r", -0.5), ("-2/r", -2.0), ("r**2/2", 1.5),
    ("x**2/2 + y**2/2", 1.0), ("x**2/2 + 2*y**2 + 9*z**2/2", 3.0), ("x**2/2 + 50*y**2", 5.5),
    ("x**2/2 + 5000*y**2", 50.5), ("x**2/2 + y**2/2 + 0.5*x*y", (1.5 ** 0.5 + 0.5 ** 0.5) / 2),
    ("-sech(x)**2", -0.5), ("-3*sech(x)**2", -2.0), ("-6*sech(x)**2", -4.5), ("-6*sech(x-40)**2", -4.5),
    ("10*(1 - exp(-(x - 1)))**2", 10 - (20 ** 0.5 - 0.5) ** 2 / 2), ("where(x < 0, x**2/2, 2*x**2)", NOTHING),
    ("where(abs(x) < 1, 0, x**2)", NOTHING), ("minimum(x**2/2, 8)", NOTHING), ("maximum(x**2/2, 0.1)", NOTHING),
    ("x**2/2 + 1/x**2", NOTHING), ("(x**2 - 4)**2/8", NOTHING), ("sqrt(1 + x**2)", NOTHING), ("x**6", NOTHING),
    ("1", NOTHING), ("0*x", NOTHING), ("x", NOTHING), ("-x", NOTHING), ("x**3", NOTHING), ("-x**2/2", NOTHING),
    ("-x**4", NOTHING), ("x**2/2 - x**4/1000", NOTHING), ("-1/x**2", NOTHING), ("-1/r**2", NOTHING),
    ("-1/r**3", NOTHING), ("log(x)", NOTHING), ("sqrt(x)", NOTHING), ("1/(x - 1)", NOTHING), ("exp(x)", NOTHING),
    ("exp(-x**2)", NOTHING), ("sin(x)", NOTHING), ("tan(x)", NOTHING), ("-0.01*exp(-r**2)", NOTHING),
    ("exp(x**2)", NOTHING), ("1e30*x**2", NOTHING), ("1e-30*x**2", NOTHING), ("x**100", NOTHING),
    ("abs(x)**0.5", NOTHING), ("where(x > 0, x, 1e9)", NOTHING), ("x**2*y**2", NOTHING),
]  # fmt: skip


def pathologies(n: int, seed: int, folder: Path) -> Tally:
    """Refused, or within five standard errors of the exact energy (where there is none of scipy's) or not trusted.

    A warning is an error, as under python -W error.
    """
    tally = Tally("pathological potentials")
    order = random.Random(seed).sample(PATHOLOGIES, len(PATHOLOGIES))
    settings = fk.Settings(n_walkers=256, n_updates=40, n_blocks=40, n_path_blocks=2)
    with warnings.catch_warnings(action="error"):
        for text, exact in (order * (1 + n // len(order)))[:n]:
            solve = partial(fk.solve, text, settings=settings, progress=False)
            tally.attempt(text, solve, partial(_good, exact=exact))
    return tally


def _good(state: Any, exact: float | None) -> bool:
    energies = state.result["energies"]
    known = exact if exact is not None else energies.get("exact", {}).get("mean")
    trusted = state.result.get("trust", {}).get("trusted", True)
    if known is None or not trusted:
        return True
    rounding = 1e-6 * abs(state.energy.mean) + 1e-6
    return abs(state.energy.mean - known) < 5 * state.energy.error + rounding


def coverage(n: int, seed: int, folder: Path) -> Tally:
    """The path action, n seeds: the bias left after ten updates is far below its error; |z| < 2 in 95 of 100."""
    tally = Tally("coverage over seeds")
    settings = fk.Settings(n_walkers=256, n_updates=10, n_blocks=40, project=False)
    exact = fk.diagonalise(fk.load_potential("x**2/2 + x**4/4")).ground_state
    z = []
    for k in range(n):
        state = fk.solve("x**2/2 + x**4/4", settings=settings, seed=seed + k, progress=False)
        E = state.energies.path_action
        z.append((E.mean - exact) / E.error)
    for value in z:
        tally.add("right" if abs(value) < 6 else "wrong", f"z = {value:.2f}")
    outside, p = sum(abs(value) > 2 for value in z), 0.0455
    if outside > n * p + 4 * math.sqrt(n * p * (1 - p)) + 1:
        tally.add("wrong", f"|z| > 2 in {outside} of {n}")
    return tally


def global_state(n: int, seed: int, folder: Path) -> Tally:
    """What a run may not touch: generators, threads, dtype, device, signal handlers, the working directory."""
    tally = Tally("global state")

    def seen() -> tuple[Any, ...]:
        return (
            torch.random.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist(),  # noqa: NPY002
            torch.get_num_threads(), torch.get_default_dtype(), str(torch.get_default_device()), np.geterr(),
            os.getcwd(),
            [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)], sorted(os.environ.items()), sys.path[:],
            torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(),
        )  # fmt: skip

    for k in range(n):
        before = seen()
        out = folder / f"state {k}"
        options: dict[str, Any] = {"method": "flow"} if k % 3 == 2 else {"drift": ("gradient", "mlp")[k % 3]}
        fk.solve("x**2/2 + x**4/9", settings=small(**options), seed=k, out=out, progress=False)
        fk.load(out)
        changed = [i for i, (a, b) in enumerate(zip(before, seen(), strict=True)) if a != b]
        tally.add("wrong" if changed else "right", f"entries {changed} after {options}")
    return tally


def warnings_as_errors(n: int, seed: int, folder: Path) -> Tally:
    """The command under python -W error, by every kind of potential."""
    tally = Tally("python -W error")
    (folder / "w.csv").write_text("x,V\n" + "\n".join(f"{x / 4},{x * x / 32}" for x in range(-40, 41)))
    texts = ("harmonic", "x**4", "w.csv", "where(x < 0, x**2, sqrt(x))", "helium", "harmonic_bosons")
    for k, text in enumerate(texts[:n]):
        code = [sys.executable, "-W", "error", "-m", "fkdrift", "solve", "-p", text, "--no-project", "--quiet"]
        code += ["--n-walkers", "64", "--n-updates", "5", "--n-blocks", "5", "--out", f"out {k}"]
        done = subprocess.run(code, cwd=folder, capture_output=True, text=True, check=False)
        outcome = {0: "right", 2: "refused"}.get(done.returncode, "wrong")
        tally.add(outcome, f"{text}: {done.stderr[-300:]}")
    return tally
