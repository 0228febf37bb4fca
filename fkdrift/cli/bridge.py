"""Bridges on the command line: `fkdrift bridge --potential NAME --from X --to Y --time T`.

Everything that the command does is in `fkdrift.runs.bridge`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fkdrift.cli.console import errors, finish, only_given, refuse_to_replace
from fkdrift.errors import BadConfig


def bridge(
    potential: Annotated[str | None, typer.Option("--potential", "-p", help="As for solve.", metavar="NAME")] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Where the paths begin: numbers, with commas.", metavar="X[,Y...]")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Where they end.", metavar="X[,Y...]")] = None,
    time: Annotated[float | None, typer.Option("--time", "-T", help="How long they take.")] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", "-P", help="A parameter of the potential; repeatable.", metavar="K=V")
    ] = None,
    noise: Annotated[
        float | None, typer.Option(help="Standard deviation of the end; 0 pins it.", show_default="0")
    ] = None,
    dynamics: Annotated[
        str | None,
        typer.Option(
            help="imaginary (log of the propagator) or overdamped (transition paths).", show_default="imaginary"
        ),
    ] = None,
    loss: Annotated[str | None, typer.Option(help="kl or log_variance.", show_default="kl")] = None,
    dt: Annotated[float | None, typer.Option(help="The longer of two time steps.", show_default="time / 128")] = None,
    updates: Annotated[int | None, typer.Option(help="Steps of the optimiser.", show_default="200")] = None,
    paths: Annotated[int | None, typer.Option(help="Weighted paths at the end.", show_default="8192")] = None,
    width: Annotated[int | None, typer.Option(help="Units in a hidden layer.", show_default="48")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the network and the noise.", show_default="0")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the result, checkpoint and figures.", metavar="DIR")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the bridge that --out holds.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the logarithm only, as -4.750(3).")] = False,
) -> None:
    """Paths between two points in a given time, and how probable they are: a learned Feynman-Kac bridge."""
    given = only_given(
        {"noise": noise, "dynamics": dynamics, "loss": loss, "dt": dt, "n_updates": updates, "n_paths": paths,
         "width": width, "seed": seed}
    )  # fmt: skip
    with errors():
        needed = {"--potential": potential, "--from": start, "--to": end, "--time": time}
        from fkdrift.hamiltonian.loading import load_potential, parse_parameters
        from fkdrift.runs.bridge import Bridge
        from fkdrift.runs.driver import drive
        from fkdrift.runs.settings import BridgeSettings

        if potential is None or start is None or end is None or time is None:
            missing = [name for name, value in needed.items() if value is None]
            raise BadConfig(f"{', '.join(missing)} missing: a bridge needs a potential, both ends, and a time")
        if out is not None:
            refuse_to_replace(out, overwrite)
        loaded = load_potential(potential, **parse_parameters(param or []))
        ends = (_numbers("--from", start), _numbers("--to", end))
        run = Bridge(loaded, BridgeSettings(start=ends[0], end=ends[1], time=time, **given))
        finish(drive(run, out=out, progress=False if quiet else None), out, quiet)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    """Numbers with commas between them."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise BadConfig(f"{option} {text} is not allowed: give numbers, such as -1 or 0.5,0.5") from None
