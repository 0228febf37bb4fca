"""What every command does with errors, results and folders.

Exit codes: 0 done, 1 a computation failed, 2 the request was not possible as given, 130 interrupted (everything is
saved first).
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from fkdrift.errors import BadConfig, ComputationError, InputError

if TYPE_CHECKING:  # imported where it is used: rich takes longer to import than the rest of the command
    from rich.console import Console
    from rich.text import Text

    from fkdrift.cli.options import Request
    from fkdrift.runs.run import Run

FAILED, REFUSED, INTERRUPTED = 1, 2, 130


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Errors raised on purpose become one line on stderr and an exit code; anything else is a bug: a traceback."""
    try:
        yield
    except InputError as error:
        complain(str(error), REFUSED)
    except ComputationError as error:
        complain(str(error), FAILED)
    except KeyboardInterrupt:
        complain("interrupted before there was anything to save", INTERRUPTED)
    except OSError as error:
        complain(f"cannot read or write: {error}", REFUSED)
    except (MemoryError, RuntimeError) as error:  # torch reports a failed allocation as a RuntimeError
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        reason = (str(error) or "MemoryError").splitlines()[0]
        complain(f"not enough memory ({reason}): use a smaller --n-walkers or --width", REFUSED)


def complain(message: str, code: int) -> NoReturn:
    line = f"fkdrift: {message}"
    typer.echo(line if os.environ.get("NO_COLOR") else typer.style(line, fg="red"), err=True)
    raise typer.Exit(code)


def console() -> Console:
    """Where tables and colours go."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def text(words: str, style: str = "") -> Text:
    """Text that rich prints as it is, brackets included."""
    from rich.text import Text

    return Text(words, style=style)


def refuse_to_replace(request: Request) -> None:
    """Say so before computing if a run is there already, or the folder cannot be made."""
    out = request.out
    if out is None:
        return
    if out.exists() and not out.is_dir():
        raise BadConfig(f"--out {out} is a file: give a folder")
    if not request.overwrite and any((out / name).exists() for name in ("checkpoint.pt", "result.json")):
        raise BadConfig(
            f"{out} already holds a run: choose another --out, add --overwrite, or go on with it by "
            f"`fkdrift resume {shlex.quote(str(out))}`"
        )


def refuse_no_run(folder: Path, file: str = "result.json") -> None:
    """Say so at once if a folder holds no run, or not the file of it that is needed."""
    if not folder.is_dir():
        raise BadConfig(f"there is no folder {folder}")
    if not (folder / file).is_file():
        raise BadConfig(f"{folder} is not a saved run: it has no {file}")


def new_folder(name: str) -> Path:
    """A folder in the working directory that does not exist yet."""
    clean = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:80]
    folder, k = Path(clean), 2
    while folder.exists():
        folder, k = Path(f"{clean}-{k}"), k + 1
    return folder


def finish(run: Run, request: Request) -> None:
    """Print what a run found; after an interruption save it first, and say how to go on."""
    from fkdrift.runs.belonging import code_in  # here: it imports torch
    from fkdrift.runs.sharing import is_first

    if not is_first():  # of several processes one tells
        raise typer.Exit(0 if run.finished else INTERRUPTED)

    out = request.out
    if not run.finished and out is None:
        out = run.save(new_folder(f"fkdrift-{run.title}-seed{run.settings.seed}"))
    block = run.block(run.result)
    plain = json.dumps(run.result, indent=2, allow_nan=False) if request.json else None
    typer.echo(plain or (block.headline if request.quiet else str(block)))
    if not run.finished:
        trust = " --trust" if code_in(run.config) else ""  # it was trusted a moment ago
        resume = f"fkdrift resume {shlex.quote(str(out))}{trust}"
        typer.echo(f"interrupted; everything is saved. Go on with: {resume}", err=True)
        raise typer.Exit(INTERRUPTED)
    if out is not None and not request.quiet and not request.json:
        typer.echo(f"\n  saved to {out}")
