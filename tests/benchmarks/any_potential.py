"""Potentials that fkdrift has never seen, with default settings: excess, deviation, path action, verdict.

    OMP_NUM_THREADS=1 python tests/benchmarks/any_potential.py [--seeds 3] [--only ring]

The exact energies are known in closed form, or were computed by `fk.diagonalise` or an independent radial solver to the
digits that stand here.  A row passes where the variational energy is within 1e-4 of the exact one, relative to the
larger of |E_0| and the kinetic energy scale 1 / time_scale, and the path action within three of its errors and 1e-4.
"""

from __future__ import annotations

import argparse
import time

import torch

import fkdrift as fk
from fkdrift.errors import FkdriftError

ROWS: dict[str, tuple[str, dict[str, int], float | None]] = {
    "wide ring": ("4*(sqrt(x**2 + y**2) - 5)**2", {}, 1.4091032702),
    "soft ring": ("(x**2 + y**2 - 2)**2/2", {}, 1.1626610),
    "ring off the origin": ("4*(sqrt((x - 6)**2 + (y + 3)**2) - 3)**2", {}, 1.3994049),
    "ellipse": ("4*(sqrt(x**2 + 1.3*y**2) - 4)**2", {}, 1.4779879),
    "double well": ("(x**2 - 25)**2/50", {}, 0.9897630),
    "tilted double well": ("(x**2 - 9)**2/18 + (y - 0.3*x)**2", {}, 1.6909760),
    "far wells": ("minimum((x - 20)**2, (x + 20)**2)/2", {}, 0.5),
    "narrow well far away": ("x**2/800 - 10*exp(-2*(x - 40)**2)", {}, -5.2153985),
    "unequal sech wells": ("-2*sech(x - 3)**2 - 1.9*sech(x + 3)**2", {}, -1.2193604),
    "shallow well": ("-0.2*sech(x)**2", {}, -0.0468871126),
    "square well": ("where(abs(x) < 1, 0, 10)", {}, 0.8197400),
    "hard walls": ("1e6*where(abs(x) < 1, 0, 1)", {}, 1.2319576826),
    "pole at the centre": ("x**2/2 + 1/x**2", {}, 2.5),
    "poles on both sides": ("tan(x)**2", {}, 1.0),
    "cusp": ("abs(x)**0.5", {}, 0.9224505),
    "Lennard-Jones": ("20*(r**-12 - 2*r**-6)", {"n_dims": 3}, -5.9545914640),
    "Coulomb in a plane": ("-1/r", {"n_dims": 2}, -2.0),
    "pole in a trap": ("x**2/2 + y**2 + 0.5/(x**2 + y**2)", {}, 2.3666698),
    "pole beside the centre": ("(x**2 + y**2)/2 + 1/sqrt((x - 0.5)**2 + y**2)", {}, 2.1178120),
    "channels": ("x**2*y**2", {}, 0.6981368),
    "inverse square on a line": ("-1/x**2", {}, None),
    "Coulomb on a line": ("-1/abs(x) + x**2/2", {}, None),
    "cubic oscillator": ("x**2/2 + 0.03*x**3", {}, None),
    "inverted quartic": ("x**2/2 - 0.001*x**4", {}, None),
    "cosine on the open line": ("cos(x)", {}, None),
    "Henon-Heiles": ("(x**2 + y**2)/2 + 0.1118*(x**2*y - y**3/3)", {}, None),
}


def row(name: str, formula: str, parameters: dict[str, int], exact: float | None, seed: int) -> str:
    """One line of the table."""
    start = time.process_time()
    try:
        state = fk.solve(formula, seed=seed, progress=False, **parameters)
    except FkdriftError as error:
        verdict = "refused" if exact is None else f"FAILED: {type(error).__name__}"
        return f"{name:26} {seed:4}  {verdict}: {str(error)[:90]}"
    seconds = time.process_time() - start
    if exact is None:
        return f"{name:26} {seed:4}  FAILED: {state.energy} for what has no ground state"
    energies = state.result["energies"]
    E, path = energies["variational"], energies["path_action"]
    scale = max(abs(exact), 1 / state.system.time_scale)
    excess, off = E["mean"] - exact, path["mean"] - exact
    passed = abs(excess) < 1e-4 * scale and abs(off) < 3 * path["error"] + 1e-4 * scale
    return (
        f"{name:26} {seed:4}  {exact:13.7f}  {excess:+9.1e}  {E['error']:8.0e}  {off:+9.1e}  {path['error']:8.0e}  "
        f"{seconds:6.1f}  {'passes' if passed else 'FAILED'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'potential':26} seed          exact     excess     error  path off     error   CPU s")
    for name, (formula, parameters, exact) in ROWS.items():
        if options.only in name:
            for seed in range(options.seeds):
                print(row(name, formula, parameters, exact, seed), flush=True)


if __name__ == "__main__":
    main()
