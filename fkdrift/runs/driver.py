"""Any run, whatever it computes: drive it to its end, load it from its folder, go on with it, show what it found."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from threadpoolctl import threadpool_limits

from fkdrift.errors import BadConfig, FkdriftError
from fkdrift.hamiltonian.units import Units
from fkdrift.numerics.allocator import keep_freed_memory
from fkdrift.runs.belonging import code_in, differences
from fkdrift.runs.methods import METHODS
from fkdrift.runs.report import Block, progress_line
from fkdrift.runs.run import Run
from fkdrift.runs.run_folder import locked, read_checkpoint, read_result
from fkdrift.runs.settings import read_toml
from fkdrift.runs.starting import starting
from fkdrift.settings import RunSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHECKPOINT_SECONDS = 30.0
"""Between two saves while running: what a killed process may lose."""

KINDS = {"ground state": "ground_state:GroundState", "learned model": "learning:Learning", "scan": "scan:ParameterScan"}
"""Kinds of run by name, and where in `fkdrift.runs` their class is; others are files in `fkdrift.runs.methods`."""

AnyRun = TypeVar("AnyRun", bound=Run)


def made(make: Callable[[], AnyRun], what: str, settings: RunSettings, progress: bool | None = None) -> AnyRun:
    """A new run: made on the threads and in the time that its settings give it, with a line that says so.

    Args:
        make: the run.
        what: it is called in that line.
        settings: its threads and max_seconds.
        progress: as for `drive`.

    Raises:
        OutOfTime: it was not ready after max_seconds.
    """
    with cpu_threads(settings.threads), starting(what, settings.max_seconds, progress):
        return make()


def drive(run: AnyRun, *, out: Path | None = None, progress: bool | None = None) -> AnyRun:
    """Advance a run to its end, or until interrupted, showing progress and saving to `out`; returns the run.

    Ctrl-C or SIGTERM finishes the block and returns what there is, marked interrupted; a second one stops at once.

    Args:
        run: new, or loaded.
        out: folder to save to, also every 30 seconds while running.
        progress: show a live line; default: where someone is looking (a terminal or a notebook).

    Raises:
        ComputationError: the computation failed.
        CannotWrite: `out` cannot be written to, or another process works in it.
    """
    keep_freed_memory()
    saved = time.monotonic()
    line = progress_line(run.title, progress, run.symbol)
    held = nullcontext() if out is None else locked(out)
    with held, cpu_threads(run.settings.threads), interruptible() as interrupted:
        with line as show:
            draw = _live_figure(run) if progress is not False else lambda: None
            for step in run.advance():
                show(step)
                draw()
                if interrupted():
                    break
                if out is not None and time.monotonic() - saved > CHECKPOINT_SECONDS:
                    run.save(out, figures=False)
                    saved = time.monotonic()
        if out is not None:
            run.save(out)
    return run


def _live_figure(run: Run) -> Callable[[], None]:
    """In a notebook, what draws the history of a run into one output that follows it; nothing elsewhere."""
    if "ipykernel" not in sys.modules:
        return lambda: None
    from IPython.display import display  # here: only notebooks have it, and matplotlib takes a second to import

    from fkdrift.figures.live import live_figure

    def show(figure: Figure) -> Callable[[Figure], None]:
        handle = display(figure, display_id=True)
        return handle.update

    return live_figure(run.history, run.quantity, show)


def load(folder: str | Path, source: Any = None, *, trust: bool = False, force: bool = False, **changes: Any) -> Any:
    """The run saved in a folder: a `GroundState`, a `ParameterScan`, a `Learning` or a method's.

    Args:
        folder: written by `save`, or by a command with --out.
        source: the potential if the run was made from a Python callable, or the data if from an array: what a file
            cannot hold.
        changes: settings to change, such as atol=1e-4 or n_blocks=500, before going on; those that shape the network
            or the walkers must stay.

    Raises:
        BadConfig: the folder is not a saved run, is damaged, or needs its source.

    Example:
        >>> quick = fk.Settings(n_updates=5, n_walkers=64, n_blocks=10, path_step=1 / 4, project=False)
        >>> state = fk.solve("harmonic", settings=quick, out="runs/well")
        >>> fk.load("runs/well").energy == state.energy
        True
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadConfig(f"there is no folder {folder}")
    state = read_checkpoint(folder)
    config = read_toml(folder / "config.toml") if (folder / "config.toml").exists() else state.get("config", {})
    used = config if source is None else {**config, "potential": {}}
    if not trust and (named := code_in(used)):
        raise BadConfig(
            f"{folder} names code, {', '.join(named)}, which is not executed unless you say so: if it is yours, or you "
            "have read it, add --trust (trust=True)"
        )
    kind = find_kind(config, folder)
    if state.get("kind") != kind.kind:
        raise BadConfig(f"the checkpoint in {folder} is of a {state.get('kind')}, and its config.toml of a {kind.kind}")
    with starting(str(folder), changes.get("max_seconds"), show=False):
        run = kind.rebuild(config, source, changes)
    with cpu_threads(run.settings.threads):
        run.load_state_dict(state, force)
    return run


def resume(
    folder: str | Path,
    source: Any = None,
    *,
    trust: bool = False,
    force: bool = False,
    progress: bool | None = None,
    **changes: Any,
) -> Any:
    """Go on with a saved run, and save it to the same folder.

    An interrupted run ends, on the CPU, bit for bit where it would have ended without the interruption; a finished one
    goes further if `changes` ask for more.

    Args:
        folder, source, trust, force, changes: as for `load`.
        progress: as for `drive`.

    Raises:
        BadConfig: as for `load`.
        CannotWrite: as for `drive`.

    Example (more updates make a finished run go further):
        >>> data = np.eye(8, dtype=int)
        >>> learned = fk.generative.learn("vae", data, latents=2, width=16, n_updates=10, out="runs/eye")
        >>> fk.resume("runs/eye", data, n_updates=20).n_updates
        20
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadConfig(f"there is no folder {folder}")
    with locked(folder):  # before it is read, so that nobody goes on from the same checkpoint
        with starting(str(folder), show=progress):
            run = load(folder, source, trust=trust, force=force, **changes)
        return drive(run, out=folder, progress=progress)


def show(
    folder: str | Path, *, energy_unit: str | None = None, length_unit: str | None = None, force: bool = False
) -> Block:
    """What the run in a folder found: the block that its command printed.

    Args:
        folder: of the run.
        energy_unit, length_unit: other units to show it in.
        force: show a result that was changed after it was written.

    Raises:
        BadConfig: the folder is not a saved run, is damaged, or was changed.
        BadParameter: a unit is not known, or the result has none.
    """
    result = read_result(Path(folder), force)
    kind = find_kind(result, folder)
    if not force and (config := Path(folder) / "config.toml").exists():
        about = {name: value for name, value in read_toml(config).items() if name in result}
        if found := differences(about, {name: result[name] for name in about}):
            raise BadConfig(
                f"result.json and config.toml in {folder} are not of one run: {'; '.join(found)}; fkdrift resume "
                "compares both with the checkpoint, --force shows the result as it is"
            )
    try:
        if energy_unit or length_unit:
            natural, shown = (Units(**result.get("units", {}).get(name, {})) for name in ("natural", "shown"))
            result = {**result, "units": natural.plain(shown.changed(energy_unit, length_unit))}
        block = kind.block(result)
        str(block)
        return block
    except FkdriftError:
        raise
    except Exception as error:  # a result that was changed can be wrong anywhere
        raise BadConfig(f"result.json in {folder} is not that of a run: {error!r} is missing or wrong") from error


def find_kind(values: Mapping[str, Any], where: str | Path) -> type[Run]:
    """The class of a run, by the `kind` in its files.

    Raises:
        BadConfig: there is no such kind.
    """
    kind = values.get("kind") if isinstance(values.get("kind"), str) else None
    if kind in METHODS.names():
        return METHODS.find(kind)
    if kind not in KINDS:
        raise BadConfig(
            f"{where} holds a run of kind {kind!r}, which this version does not know: it was written by something "
            f"else, or by another version (known: {', '.join([*KINDS, *METHODS.names()])})"
        )
    module, name = KINDS[kind].split(":")
    return getattr(import_module(f"fkdrift.runs.{module}"), name)


@contextmanager
def cpu_threads(n: int) -> Iterator[None]:
    """torch and BLAS on n CPU threads, and as before afterwards: threads that wait cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        with threadpool_limits(n, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a flag; the second acts as usual.  Off the main thread nothing changes.

    Where one run drives others, the flags of all of them are set.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def catch(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        signal.signal(number, outer := before[signal.Signals(number)])
        if callable(outer) and getattr(outer, "__qualname__", "") == catch.__qualname__:
            outer(number, frame)

    for number in before:
        signal.signal(number, catch)
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
