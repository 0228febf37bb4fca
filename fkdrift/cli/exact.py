"""`fkdrift exact`: energy levels from scipy, where the system allows it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from fkdrift.cli.console import console, errors, text
from fkdrift.cli.options import EnergyUnit, Json, LengthUnit, Parameters
from fkdrift.cli.subject import load


def exact(
    potential: Annotated[str, typer.Option("--potential", "-p", help="As for solve.", metavar="NAME")],
    param: Parameters = None,
    levels: Annotated[int, typer.Option("--levels", "-n", help="How many energy levels.", min=1)] = 5,
    max_seconds: Annotated[
        float, typer.Option("--max-seconds", help="Stop after this many seconds; raise it for hard potentials.", min=0)
    ] = 60.0,
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnit = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not say on stderr what is being done.")] = False,
    as_json: Json = False,
) -> None:
    """Solve the Schroedinger equation on a grid with scipy, where the system allows it."""
    with errors():
        loaded = load(potential, param)
        natural = loaded.natural_units
        units = natural.changed(energy_unit, length_unit)
        from rich.table import Table

        from fkdrift.exact.diagonalisation import diagonalise

        say = None if quiet else lambda stage: typer.echo(stage, err=True)
        spectrum = diagonalise(loaded, levels, max_seconds=max_seconds, progress=say)
        if as_json:
            from fkdrift.hamiltonian.loading import describe

            numbers = {"energies": list(map(float, spectrum.energies)), "errors": list(map(float, spectrum.errors))}
            about = {"potential": describe(loaded), "units": natural.plain(units), "method": spectrum.method}
            typer.echo(json.dumps({**about, **numbers, "labels": list(spectrum.labels)}, indent=2))
            return
        spectrum = spectrum.scaled(natural.convert("energy", units)[0], natural.convert("length", units)[0])
        table = Table(box=None, pad_edge=False)
        for column in ("n", "energy", "gap", "error"):
            table.add_column(column, justify="right")
        table.add_column("state")
        for n, (E, error) in enumerate(zip(spectrum.energies, spectrum.errors, strict=True)):
            label = spectrum.labels[n] if n < len(spectrum.labels) else ""
            gap = f"{E - spectrum.energies[0]:.10g}" if n else ""
            table.add_row(str(n), f"{E:.12g}", gap, f"{error:.0e}", label)
        remarks = str(spectrum).splitlines()[len(spectrum.energies) + 1 :]
        out = console()
        shown = "" if units == natural else f"; shown in {', '.join(filter(None, units))}"
        out.print(text(f"{loaded.name}   {loaded.formula}   ({loaded.units}{shown})", "bold"))
        out.print(table)
        out.print(text("\n".join(remarks), "dim"))
