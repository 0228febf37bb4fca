"""`fkdrift learn MODEL`: a command for each file in `fkdrift.runs.recipes`.

The list of models is read from the files' names and first lines; a recipe, and torch with it, is imported only for its
own command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fkdrift.cli.console import finish, refuse_no_run, refuse_to_replace
from fkdrift.cli.options import Request, computing, made_command, made_on_demand
from fkdrift.errors import BadConfig
from fkdrift.runs.recipes import MODELS
from fkdrift.runs.settings import read_config
from fkdrift.settings import fields_of

Data = Annotated[
    str | None,
    typer.Option("--data", "-d", help="digits, mnist5k, FILE.npy, FILE.npz, or run:DIR (solved).", metavar="NAME"),
]
LabelsOption = Annotated[
    str | None,
    typer.Option(
        "--labels",
        help="Classes to tell the model: FILE.npy, or a name in the data's FILE.npz; labels of digits and mnist5k.",
        metavar="NAME",
    ),
]


learn = typer.Typer(
    cls=made_on_demand(MODELS.summaries, lambda name: model_command(name)),
    help="Train a generative model on data.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@learn.callback()
def _models() -> None:
    """Train a generative model on data."""


def model_command(name: str) -> Any:
    """The command that trains one model; torch is imported when it runs."""
    settings_class = MODELS.settings(name)

    @computing(fields_of(settings_class))
    def train(request: Request, data: Data = None, labels: LabelsOption = None) -> None:
        refuse_to_replace(request)
        described, written = ({}, {}) if request.config is None else read_config(request.config, "data", "settings")
        source = data or described.get("name")
        if source is None:
            raise BadConfig("which data? Give --data NAME, or a --config file of a training")
        settings = settings_class.from_values({**written, **request.given})
        _refuse_missing(source)
        told = labels or described.get("labels")
        from fkdrift.runs.learning import learn as run

        finish(run(name, source, labels=told, settings=settings, out=request.out, progress=request.progress), request)

    return made_command(name, train, MODELS.summary(name))


def _refuse_missing(source: str) -> None:
    """Say at once that a file or a run is not there."""
    if source.startswith("run:"):
        refuse_no_run(Path(source.removeprefix("run:")), "checkpoint.pt")
    elif source.endswith((".npy", ".npz")) and not Path(source).is_file():
        raise BadConfig(f"there is no file {source}")
