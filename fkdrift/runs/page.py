"""A saved run as one HTML page that needs nothing else: the result, its error budget, figures, and how to repeat it."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from fkdrift.errors import BadConfig
from fkdrift.runs.driver import show
from fkdrift.runs.report import Row, number
from fkdrift.runs.run_folder import read_history, read_result, replace_all

ROUNDING = 1e-14  # errors below it are not of statistics
COMMANDS = {"ground state": "solve", "learned model": "learn MODEL"}
"""Kinds of run whose command has another name."""


def write_page(folder: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of a run; returns its path.

    Args:
        folder: of the run.
        out: the file; default report.html in the folder.

    Raises:
        BadConfig: the folder is not a saved run.
        CannotWrite: the file cannot be written.
    """
    folder = Path(folder)
    path = folder / "report.html" if out is None else Path(out)
    replace_all(path.parent, {path.name: page(folder).encode()})
    return path


def page(folder: Path) -> str:
    """The page as text; everything in it is escaped, and figures are part of it.

    Raises:
        BadConfig: the folder is not a saved run.
    """
    result, block = read_result(folder), show(folder)
    try:
        config = (folder / "config.toml").read_text(encoding="utf-8")
    except OSError as error:
        raise BadConfig(f"cannot read {folder / 'config.toml'}: {error.strerror}") from None
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(
        (files("fkdrift.runs") / "page.html").read_text(encoding="utf-8")
    )
    kind = str(result["kind"])
    interactive = _interactive(folder, result)
    return template.render(
        block=block,
        budget=error_budget(result),
        unit=result.get("units", {}).get("natural", {}).get("energy"),
        tests=[{"remedy": "", **test} for test in result.get("trust", {}).get("tests", [])],
        head=Markup(interactive[0]),
        convergence=Markup(interactive[1]),
        figures=[(file.stem.replace("_", " "), _encoded(file)) for file in sorted((folder / "figures").glob("*.png"))],
        command=f"fkdrift {COMMANDS.get(kind, kind)} --config config.toml",
        config=config,
        versions=result["versions"],
    )


def _interactive(folder: Path, result: Mapping[str, Any]) -> tuple[str, str]:
    """Head and body of the figure of convergence; empty where Bokeh is not installed or the run has no history."""
    if find_spec("bokeh") is None:
        return "", ""
    from fkdrift.figures.interactive import convergence

    quantity, history = read_history(folder)
    return convergence(history, result.get("energies", {}), quantity.replace("_", " ")) if history else ("", "")


def error_budget(result: Mapping[str, Any]) -> list[Row]:
    """What the energy of a ground state is uncertain by, each part from the run itself; empty for other runs.

    noise: one standard error.  step: what the extrapolation to dt = 0 took off the energy at the finest step.
    population: what a finite number of walkers does to their weights, taken off and left.  trend: the second half of
    the projection less the first.  ansatz: the variational energy less the projected one, what the network misses.
    """
    energies = result.get("energies", {})
    best = energies.get("projected", energies.get("variational"))
    if result["kind"] != "ground state" or best is None or best["mean"] is None:
        return []
    rows = [Row("noise", "one standard error of the energy", f"{best['error']:.1e}" if best["error"] else "?")]
    if projection := result.get("projection"):
        finest, zero = projection["by_time_step"][-1], projection["mixed"]
        step = {"mean": zero["mean"] - finest["mean"], "error": abs(zero["error"] - finest["error"])}
        rows.append(Row("step", f"from dt = {projection['time_steps'][-1]:.3g} to dt = 0; taken off", _signed(step)))
        if projection["independent"]:
            rows.append(Row("population", "walkers carry their own weights: none", "0"))
        else:
            removed, left = (projection["population_bias"][name] for name in ("removed", "left"))
            text = f"of {projection['n_walkers']:,} walkers, taken off; {_signed(left)} left"
            rows.append(Row("population", text, _signed(removed)))
        rows.append(Row("trend", "second half of the projection less the first", _signed(projection["trend"])))
        variational = energies["variational"]
        apart = {"mean": variational["mean"] - best["mean"], "error": math.hypot(variational["error"], best["error"])}
        rows.append(Row("ansatz", "variational less projected energy: what the network misses", _signed(apart)))
    elif bias := result.get("step_bias"):
        rows.append(Row("step", "of the path action, taken off its finest step", _signed(bias["removed"])))
    if deviation := result.get("deviation"):
        text = f"from the {deviation['against']} energy, {deviation['standard_errors']:+.1f} standard errors"
        rows.append(Row("in fact", text, f"{deviation['difference']:+.1e}"))
    return rows


def _signed(entry: Mapping[str, Any]) -> str:
    """A small difference with its error."""
    return number(entry) if (entry["error"] or 0.0) > ROUNDING else f"{entry['mean'] or 0.0:+.1e}"


def _encoded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode("ascii")
