"""`fkdrift learn MODEL`: a command for each file in `fkdrift.runs.recipes`.

The list of models is read from the files' names and first lines; a recipe, and torch with it, is imported only for its
own command.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fkdrift.cli.console import finish, refuse_to_replace
from fkdrift.cli.options import Request, computing
from fkdrift.errors import BadConfig
from fkdrift.runs import recipes
from fkdrift.runs.settings import read_config
from fkdrift.settings import fields_of

Data = Annotated[
    str | None,
    typer.Option("--data", "-d", help="digits, mnist5k, FILE.npy, or run:DIR (a solved ground state).", metavar="NAME"),
]


class Models(TyperGroup):
    """A command for each model, made when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return recipes.names()

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in recipes.names():
            ctx.fail(f"No such model {cmd_name!r}: choose from {', '.join(recipes.names())}")
        return model_command(cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Models"):
            formatter.write_dl([(name, recipes.summary(name)) for name in recipes.names()])


learn = typer.Typer(cls=Models, help="Train a generative model on data.", no_args_is_help=True, rich_markup_mode=None)


@learn.callback()
def _models() -> None:
    """Train a generative model on data."""


def model_command(name: str) -> Any:
    """The command that trains one model."""
    recipe = recipes.find_recipe(name)

    @computing(fields_of(recipe.settings))
    def train(request: Request, data: Data = None) -> None:
        refuse_to_replace(request)
        described, written = ({}, {}) if request.config is None else read_config(request.config, "data", "settings")
        source = data or described.get("name")
        if source is None:
            raise BadConfig("which data? Give --data NAME, or a --config file of a training")
        settings = recipe.settings.from_values({**written, **request.given})
        from fkdrift.runs.learning import learn as run

        finish(run(name, source, settings=settings, out=request.out, progress=request.progress), request)

    one = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=CONTEXT)
    one.command(name, help=recipes.summary(name))(train)
    return typer.main.get_command(one)


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
"""What every command has in common."""
