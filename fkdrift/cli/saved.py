"""`fkdrift resume DIR` and `fkdrift show DIR`: runs of any kind, from their folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from fkdrift.cli.console import errors, finish, refuse_no_run
from fkdrift.cli.options import EnergyUnit, Json, LengthUnit, Request, computing, made_command
from fkdrift.runs.methods import METHODS
from fkdrift.runs.scan_settings import ScanSettings
from fkdrift.settings import extensible

RESUME = "Go on with an interrupted run of any kind, or take a finished one further."
Trust = Annotated[bool, typer.Option(help="Execute the code that the folder names, such as wells.py:Quartic.")]
Force = Annotated[bool, typer.Option(help="Accept what was changed since the run was saved; the result says so.")]
Folder = Annotated[Path, typer.Argument(help="Folder of a saved run.", metavar="DIR")]


def resume_command(name: str) -> Any:
    """`fkdrift resume`, with the settings of every kind of run that may be changed; made when it is asked for."""
    kinds = [ScanSettings, *(METHODS.settings(method) for method in METHODS.names())]

    @computing(extensible(*kinds), common=("quiet", "json"))
    def resume(request: Request, folder: Folder, trust: Trust = False, force: Force = False) -> None:
        refuse_no_run(folder, "checkpoint.pt")
        from fkdrift.runs.driver import resume as run

        found = run(folder, trust=trust, force=force, progress=request.progress, **request.given)
        finish(found, replace(request, out=folder))

    return made_command(
        name,
        resume,
        RESUME + "\n\nOn the CPU an interrupted run ends, bit for bit, where it would have ended uninterrupted.",
    )


def show(
    folder: Folder,
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnit = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Print the result of a saved run of any kind, and where its figures are: of a learned model what it makes."""
    with errors():
        refuse_no_run(folder)
        from fkdrift.runs.driver import show as block
        from fkdrift.runs.run_folder import read_result

        shown = block(folder, energy_unit=energy_unit, length_unit=length_unit, force=force)
        if as_json:
            typer.echo(json.dumps(read_result(folder, force), indent=2))
            return
        typer.echo(str(shown))
        if figures := sorted((folder / "figures").glob("*.png")):
            typer.echo("\n  figures in " + f"{figures[0].parent}: {', '.join(figure.stem for figure in figures)}")
