"""Runs side by side: one row each, from their result.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fkdrift.errors import BadConfig
from fkdrift.runs.report import named
from fkdrift.runs.run_folder import read_result


def summary(result: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a ground state's result.json that matter most, as one flat row of plain values.

    `energy` and `error` are of the headline, projected where it was projected; `deviation` is in standard errors, from
    the exact energy or else the reference.

    Raises:
        BadConfig: the run has no ground-state energy.
    """
    energies = result.get("energies", {})
    best = energies.get("projected", energies.get("variational"))
    if result["kind"] != "ground state" or best is None:
        raise BadConfig(f"a {result['kind']} has no ground-state energy: give runs of fkdrift solve")
    row = {"potential": named(result["potential"]), "energy": best["mean"], "error": best["error"]}
    for name in ("variational", "path_action", "exact", "reference"):
        row[name] = energies.get(name, {}).get("mean")
    return {
        **row,
        "deviation": result.get("deviation", {}).get("standard_errors"),
        "trusted": result.get("trust", {}).get("trusted"),
        "standard_deviation": result.get("sampling", {}).get("standard_deviation"),
        "unit": result.get("units", {}).get("natural", {}).get("energy"),
        **{
            name: result[name]
            for name in ("status", "seed", "n_updates", "n_parameters", "wall_seconds", "cpu_seconds")
        },
    }


def compare(folders: Sequence[str | Path]) -> list[dict[str, Any]]:
    """A row for each saved run: its `summary`, the folder, and how far it is from the first run.

    `from_first` is the difference of the energies in standard errors of it; None for other potentials or units.

    Raises:
        BadConfig: a folder is not a saved ground state.
    """
    rows = [{"run": str(folder), **summary(read_result(Path(folder)))} for folder in folders]
    return [{**row, "from_first": _apart(rows[0], row) if k else None} for k, row in enumerate(rows)]


def densities(folders: Sequence[str | Path]) -> list[dict[str, Any]]:
    """The densities and pair distributions that saved runs have averaged, one entry for each run and each of them.

    Each has `run`, `potential`, `name` such as "density" or "g(r)", `unit`, and lists `centres`, `mean` and `error`: of
    phi_0^2 where there is a pure estimate; and `expected`, scipy's, where that is known.
    """
    found = []
    for folder in folders:
        result = read_result(Path(folder))
        for name, entry in result.get("observables", {}).items():
            if "centres" in entry:
                best = next(entry[kind] for kind in ("pure", "mixed", "variational") if kind in entry)
                about = {"run": str(folder), "potential": named(result["potential"]), "name": name}
                about |= {key: entry[key] for key in ("unit", "axis", "centres", "expected") if key in entry}
                found.append({**about, **best})
    return found


def levels(folders: Sequence[str | Path]) -> list[dict[str, Any]]:
    """The levels of saved runs with excited states: a row for each, with scipy's where it has them.

    Each has `run`, `potential`, `level`, `energy`, `error`, `exact`, `deviation`, in standard errors, and `unit`.
    """
    found = []
    for folder in folders:
        result = read_result(Path(folder))
        if "excitations" not in result:
            continue
        about, row = {"run": str(folder), "potential": named(result["potential"])}, summary(result)
        energies = [row, *({"energy": E["mean"], "error": E["error"]} for E in _excited(result))]
        exact = [*result["energies"].get("exact", {}).get("levels", []), *[None] * len(energies)]
        for n, (E, known) in enumerate(zip(energies, exact, strict=False)):
            both = {"energy": E["energy"], "error": E["error"], "exact": known}
            z = _apart({"potential": None, "energy": known, "error": 0.0}, {"potential": None, **both})
            found.append({**about, "level": n, **both, "deviation": z, "unit": row["unit"]})
    return found


def _excited(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [level["energy"] for level in result["excitations"]]


def _apart(a: Mapping[str, Any], b: Mapping[str, Any]) -> float | None:
    """(E_b - E_a) / error of the difference, of two runs of one potential."""
    known = None not in (a["energy"], b["energy"], a["error"], b["error"])
    if not known or a["potential"] != b["potential"]:
        return None
    error = math.hypot(a["error"], b["error"])
    return (b["energy"] - a["energy"]) / error if error else None
