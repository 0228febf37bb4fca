"""The options of a command, made from the fields of its settings, and those that every computing command has.

    @app.command()
    @computing(fields_of(Settings))
    def solve(request: Request, potential: Potential = None) -> None: ...

gives `solve` an option for each field beside its own parameters, and puts what was given into `request`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fkdrift.cli.console import errors
from fkdrift.errors import BadConfig
from fkdrift.hamiltonian.names import installed
from fkdrift.runs.settings import ENERGY_UNITS, LENGTH_UNITS
from fkdrift.settings import SettingField

Potential = Annotated[
    str | None,
    typer.Option(
        "--potential",
        "-p",
        help="A plug-in's name, file.py:Name, a formula, or a table.",
        metavar="NAME",
        autocompletion=lambda incomplete: [name for name in installed() if name.startswith(incomplete)],
    ),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--param", "-P", help="A parameter of the potential; repeatable.", metavar="K=V"),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress line, and the headline number only.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, as result.json has it.")]
Refine = Annotated[
    int,
    typer.Option("--refine", help="Steps to refine the posterior of each datum: better bounds, more time.", min=0),
]
EnergyUnit = Annotated[
    str | None, typer.Option("--energy-unit", help="Show energies in this unit.", metavar="|".join(ENERGY_UNITS))
]
LengthUnit = Annotated[
    str | None, typer.Option("--length-unit", help="Show lengths in this unit.", metavar="|".join(LENGTH_UNITS))
]
Config = Annotated[
    Path | None, typer.Option("--config", help="TOML file with any of the settings; options win.", metavar="FILE")
]


def _folder(text: str) -> Path:
    """A folder by its name; the empty name, which a shell makes of a variable that is not set, would be this one."""
    if not text.strip():
        raise typer.BadParameter("it is empty: give the name of a folder, . for this one")
    return Path(text)


Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Folder for the result, checkpoint and figures.", metavar="DIR", parser=_folder),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run that --out holds.")]


@dataclass(frozen=True)
class Request:
    """What was asked for beside the subject.

    Args:
        given: settings by name, those only that were given on the command line.
        config: file with more of them.
        out: folder to save to.
        overwrite: whether it may hold a run.
        quiet: print the headline number only.
        json: print the contents of result.json instead.
    """

    given: dict[str, Any]
    config: Path | None = None
    out: Path | None = None
    overwrite: bool = False
    quiet: bool = False
    json: bool = False

    @property
    def progress(self) -> bool | None:
        """Whether to show a live line; None where someone is looking."""
        return False if self.quiet else None


COMMON: dict[str, tuple[Any, Any]] = {
    "config": (Config, None),
    "out": (Out, None),
    "overwrite": (Overwrite, False),
    "quiet": (Quiet, False),
    "json": (Json, False),
}


def computing(
    fields: Mapping[str, SettingField], common: tuple[str, ...] = tuple(COMMON)
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that gives a command an option for each field, and the common ones, as its argument `request`.

    Args:
        fields: settings by name.
        common: which of `COMMON` the command has.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != "request"]

        def command(**values: Any) -> None:
            with errors():
                given = {name: values.pop(name) for name in fields}
                shared = {name: values.pop(name) for name in common}
                read = {name: _read(fields[name], value) for name, value in given.items() if value is not None}
                function(request=Request(read, **shared), **values)

        parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in own]
        parameters += [_parameter(name, option(field)) for name, field in fields.items()]
        parameters += [_parameter(name, *COMMON[name]) for name in common]
        command.__name__, command.__doc__ = function.__name__, function.__doc__
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {}  # all in the signature
        return command

    return decorate


def made_on_demand(names: Callable[[], Mapping[str, str]], make: Callable[[str], Any]) -> type[TyperGroup]:
    """A group with further commands that are made, and import what they need, when they are asked for.

    Args:
        names: their names with a line of help for each.
        make: a name to its command.
    """

    class Group(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return [*super().list_commands(ctx), *names()]

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            found = super().get_command(ctx, cmd_name)
            if found is None and cmd_name in names():
                return make(cmd_name)
            if found is None:
                ctx.fail(f"No such command {cmd_name!r}: choose from {', '.join(self.list_commands(ctx))}")
            return found

        def format_commands(self, ctx: Any, formatter: Any) -> None:
            own = {name: self.commands[name].get_short_help_str(HELP_WIDTH) for name in super().list_commands(ctx)}
            with formatter.section("Commands"):
                formatter.write_dl(list({**own, **names()}.items()))

    return Group


def made_command(name: str, function: Callable[..., None], help: str | None = None) -> Any:
    """A function with options as a command of its own."""
    one = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=CONTEXT)
    one.command(name, help=help)(function)
    return typer.main.get_command(one)


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
"""What every command has in common."""
HELP_WIDTH = 90
"""Characters of the help of a command in the list of commands."""


def option(field: SettingField) -> Any:
    """The option that sets one setting; its value is None if it was not given."""
    shown = "" if field.required or field.shown_default in ("", "none") else f" [default: {field.shown_default}]"
    choices = (*field.about.choices, *(("file.py:Name",) if field.about.own else ()))
    metavar = field.about.metavar or "|".join(choices) or {float: "X", int: "N", str: "TEXT"}.get(field.kind)
    flags = field.flags
    if field.kind is bool:
        flags, metavar = tuple(f"{flag}/--no-{flag.removeprefix('--')}" for flag in flags), None
    kind: Any = field.kind
    if field.many:
        kind, metavar = list[str], metavar if field.kind is str else f"{metavar}[,{metavar}...]"
    return Annotated[kind | None, typer.Option(*flags, help=field.help + shown, show_default=False, metavar=metavar)]


def _parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _read(field: SettingField, value: Any) -> Any:
    """The value of an option; of a list the option is given again, and numbers may also have commas between them."""
    if not field.many or field.kind is str:
        return tuple(value) if field.many else value
    items = [item.strip() for text in value for item in text.split(",")]
    try:
        return tuple(field.kind(item) for item in items)
    except ValueError:
        allowed = "numbers with commas between them, such as -1 or 0.5,0.5"
        raise BadConfig(f"{field.flags[0]} {' '.join(value)} is not allowed: give {allowed}") from None
