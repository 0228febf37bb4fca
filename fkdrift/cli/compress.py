"""Compression on the command line: `fkdrift compress` and `fkdrift decompress`, with a model of `fkdrift learn`.

A file appears under its name when it is complete.  What the commands do is in `fkdrift.generative.coding.compression`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from fkdrift.cli.console import errors, refuse_no_run
from fkdrift.cli.options import Json, Refine
from fkdrift.errors import BadConfig

Model = Annotated[
    Path,
    typer.Option("--model", "-m", help="Folder of a training, or its checkpoint.pt.", metavar="DIR"),
]
Overwrite = Annotated[bool, typer.Option(help="Replace the output if it is there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing.")]


def compress(
    data: Annotated[Path, typer.Argument(help="An array (n, ...) in a .npy file.", metavar="DATA.npy")],
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="The compressed file.", metavar="FILE")],
    step: Annotated[
        float | None, typer.Option(help="Round continuous data to whole multiples of this; discrete data need none.")
    ] = None,
    refine: Refine = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Compress data with a trained model, bits-back: without loss, at the rate of its ELBO."""
    with errors():
        _refuse_to_replace(out, overwrite)
        if not data.is_file():
            raise BadConfig(f"there is no file {data}")
        _refuse_no_model(model)
        from fkdrift.generative.coding.compression import compress as run
        from fkdrift.runs.learning import load_model

        with _progress("compressing", quiet) as progress:
            result = run(data, load_model(model), out, step=step, refine=refine, progress=progress)
        if as_json or not quiet:
            typer.echo(json.dumps({"file": str(out), **result.plain()}, indent=2) if as_json else str(result))


def decompress(
    file: Annotated[Path, typer.Argument(help="Written by fkdrift compress.", metavar="FILE")],
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="The array, as a .npy file.", metavar="OUT.npy")],
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Get data back from a compressed file, with the model that it was compressed with."""
    with errors():
        _refuse_to_replace(out, overwrite)
        if not file.is_file():
            raise BadConfig(f"there is no file {file}")
        _refuse_no_model(model)
        from fkdrift.generative.coding.compression import decompress as run
        from fkdrift.runs.learning import load_model

        started = time.perf_counter()
        with _progress("decompressing", quiet) as progress:
            data = run(file, load_model(model), out, progress=progress)
        seconds = time.perf_counter() - started
        if as_json:
            found = {"shape": list(data.shape), "dtype": str(data.dtype), "bytes": data.nbytes, "seconds": seconds}
            typer.echo(json.dumps({"file": str(out), **found}, indent=2))
        elif not quiet:
            speed = data.nbytes / 1e6 / seconds
            typer.echo(f"{len(data)} data of shape {data.shape[1:]}, {data.dtype}, {speed:.2f} MB/s")


def _refuse_no_model(model: Path) -> None:
    if not model.is_file():
        refuse_no_run(model, "checkpoint.pt")


def _refuse_to_replace(out: Path, overwrite: bool) -> None:
    if out.is_dir():
        raise BadConfig(f"--out {out} is a folder: give the name of a file")
    if out.exists() and not overwrite:
        raise BadConfig(f"{out} exists: choose another --out, or add --overwrite")


@contextmanager
def _progress(verb: str, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A line on stderr where someone is looking, redrawn by the caller's own thread."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # here: rich takes a while to import
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(verb), MofNCompleteColumn(), BarColumn(bar_width=24), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as line:
        task, drawn = line.add_task(verb, total=None), 0.0

        def show(done: int, total: int) -> None:
            nonlocal drawn
            if (now := time.monotonic()) - drawn > 0.1:
                line.update(task, completed=done, total=total, refresh=True)
                drawn = now

        yield show
