"""The command `fkdrift`: one small file for each group of commands, put together here.

Names and numbers from the command line become objects at this door; the physics is imported only by the commands that
need it, so that `--help` and a refusal are instant.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from fkdrift.cli.compress import compress, decompress
from fkdrift.cli.desk import animate, compare, report, sample, score
from fkdrift.cli.doctor import doctor
from fkdrift.cli.exact import exact
from fkdrift.cli.ground_state import solve
from fkdrift.cli.learn import learn
from fkdrift.cli.methods import method_command
from fkdrift.cli.new_potential import new_potential
from fkdrift.cli.options import CONTEXT, made_on_demand
from fkdrift.cli.potentials import potentials
from fkdrift.cli.saved import RESUME, resume_command, show
from fkdrift.cli.scan import scan
from fkdrift.runs.methods import METHODS

app = typer.Typer(
    cls=made_on_demand(
        lambda: {"resume": RESUME, **METHODS.summaries()},
        lambda name: resume_command(name) if name == "resume" else method_command(name),
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=CONTEXT,
)
app.command()(solve)
app.command()(scan)
app.command()(show)
app.command()(report)
app.command()(animate)
app.command()(sample)
app.command()(score)
app.command()(compare)
app.add_typer(learn, name="learn", context_settings=CONTEXT)
app.command()(compress)
app.command()(decompress)
app.command()(exact)
app.command()(potentials)
app.command()(new_potential)
app.command()(doctor)


def main() -> None:
    """The entry point of the command."""
    app(prog_name="fkdrift")


def _version(show: bool) -> None:
    if show:
        typer.echo(f"fkdrift {version('fkdrift')}")
        raise typer.Exit


@app.callback()
def _options(
    show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Quantum ground states by stochastic control: an energy with an honest error bar."""
