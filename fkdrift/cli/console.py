"""What every command does with errors and with folders.

Exit codes: 0 done, 1 a computation failed, 2 the request was not possible as given, 130 interrupted (everything is
saved first).
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from fkdrift.errors import BadConfig, ComputationError, InputError

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


def refuse_to_replace(out: Path, overwrite: bool, resume: str) -> None:
    """Say so before computing if a run is there already, or the folder cannot be made."""
    if out.exists() and not out.is_dir():
        raise BadConfig(f"--out {out} is a file: give a folder")
    if not overwrite and any((out / name).exists() for name in ("checkpoint.pt", "result.json")):
        raise BadConfig(
            f"{out} already holds a run: choose another --out, go on with it by `{resume} {shlex.quote(str(out))}`, "
            "or add --overwrite"
        )


def new_folder(name: str) -> Path:
    """A folder in the working directory that does not exist yet."""
    clean = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:80]
    folder, k = Path(clean), 2
    while folder.exists():
        folder, k = Path(f"{clean}-{k}"), k + 1
    return folder
