"""`fkdrift potentials`: what is installed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from fkdrift.cli.console import console, errors, text
from fkdrift.cli.options import Json

if TYPE_CHECKING:
    from fkdrift.hamiltonian.loading import PlugIn


def potentials(as_json: Json = False) -> None:
    """List the installed potentials: formula, parameters and known energy."""
    with errors():
        from fkdrift.hamiltonian.loading import available

        plug_ins = available().values()
        if as_json:
            typer.echo(json.dumps([_row(plug_in) for plug_in in plug_ins], indent=2))
            return
        out = console()
        width = max(len(plug_in.name) for plug_in in plug_ins) + 2
        for plug_in in plug_ins:
            package = "" if plug_in.distribution == "fkdrift" else f"   from {plug_in.distribution}"
            name = text(f"{plug_in.name:<{width}}", "bold")
            if plug_in.broken:
                out.print(name + text(f"cannot be used: {plug_in.broken}{package}", "red"))
                continue
            out.print(name + text(plug_in.formula + package))
            for line in (_parameters(plug_in), _known(plug_in), plug_in.citation):
                if line:
                    out.print(text(" " * width + line, "dim"))


def _row(plug_in: PlugIn) -> dict[str, Any]:
    """One plug-in as JSON values."""
    known = plug_in.known_energy
    return {
        "name": plug_in.name,
        "formula": plug_in.formula,
        "units": plug_in.potential.units if plug_in.potential else "",
        "parameters": {k: _json(v) for k, v in plug_in.parameters.items()},
        "known_energy": None if known is None else {"value": known.value, "kind": known.kind, "source": known.source},
        "citation": plug_in.citation,
        "distribution": plug_in.distribution,
        "broken": plug_in.broken,
    }


def _json(value: object) -> object:
    """A default as JSON; None where there is none."""
    if isinstance(value, bool | int | float | str):
        return value
    return list(value) if isinstance(value, tuple | list) else None


def _parameters(plug_in: PlugIn) -> str:
    """Parameters with their defaults."""
    values = {name: _json(value) for name, value in plug_in.parameters.items()}
    shown = {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in values.items()}
    return ", ".join(f"{name} = {'(required)' if value is None else value}" for name, value in shown.items())


def _known(plug_in: PlugIn) -> str:
    """The known energy at the default parameters."""
    known = plug_in.known_energy
    return "" if known is None else f"E0 = {known.value:.10g}  ({known.kind}: {known.source})"
