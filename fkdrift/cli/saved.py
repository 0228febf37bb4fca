"""`fkdrift resume DIR` and `fkdrift show DIR`: runs of any kind, from their folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from fkdrift.cli.console import errors, finish
from fkdrift.cli.options import Json, Request, computing
from fkdrift.runs.settings import BridgeSettings, PimcSettings, Settings
from fkdrift.settings import extensible

Folder = Annotated[Path, typer.Argument(help="Folder of a saved run.", metavar="DIR")]


@computing(extensible(Settings, BridgeSettings, PimcSettings), common=("quiet", "json"))
def resume(request: Request, folder: Folder) -> None:
    """Go on with an interrupted run of any kind, or take a finished one further.

    On the CPU an interrupted run ends, bit for bit, where it would have ended without the interruption.
    """
    from fkdrift.runs.driver import resume as run

    finish(run(folder, progress=request.progress, **request.given), replace(request, out=folder))


def show(folder: Folder, as_json: Json = False) -> None:
    """Print the result of a saved run of any kind."""
    with errors():
        from fkdrift.runs.driver import show as block
        from fkdrift.runs.run_folder import read_result

        typer.echo(json.dumps(read_result(folder), indent=2) if as_json else str(block(folder)))
