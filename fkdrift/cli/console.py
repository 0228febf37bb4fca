"""What every command does with errors and with folders.

Exit codes: 0 done, 1 a computation failed, 2 the request was not possible as given, 130 interrupted (everything is
saved first).
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text

from fkdrift.errors import BadConfig, ComputationError, InputError

if TYPE_CHECKING:
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


def complain(message: str, code: int) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(text(f"fkdrift: {message}", "red"))
    raise typer.Exit(code)


def text(words: str, style: str = "") -> Text:
    """Text that rich prints as it is, brackets included."""
    return Text(words, style=style)


def only_given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def refuse_to_replace(out: Path, overwrite: bool) -> None:
    """Say so before computing if a run is there already, or the folder cannot be made."""
    if out.exists() and not out.is_dir():
        raise BadConfig(f"--out {out} is a file: give a folder")
    if not overwrite and any((out / name).exists() for name in ("checkpoint.pt", "result.json")):
        raise BadConfig(
            f"{out} already holds a run: choose another --out, add --overwrite, or go on with it by "
            f"`fkdrift resume {shlex.quote(str(out))}`"
        )


def new_folder(name: str) -> Path:
    """A folder in the working directory that does not exist yet."""
    clean = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:80]
    folder, k = Path(clean), 2
    while folder.exists():
        folder, k = Path(f"{clean}-{k}"), k + 1
    return folder


def finish(run: Run, out: Path | None, quiet: bool) -> None:
    """Print what a run found; after an interruption save it first, and say how to go on."""
    if not run.finished and out is None:
        out = run.save(new_folder(f"fkdrift-{run.title}-seed{run.settings.seed}"))
    block = run.block(run.result)
    typer.echo(block.headline if quiet else str(block))
    if not run.finished:
        typer.echo(f"interrupted; everything is saved. Go on with: fkdrift resume {shlex.quote(str(out))}", err=True)
        raise typer.Exit(INTERRUPTED)
    if out is not None and not quiet:
        typer.echo(f"\n  saved to {out}")
