"""Any run, whatever it computes: drive it to its end, load it from its folder, go on with it, show what it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from fkdrift.errors import BadConfig, FkdriftError
from fkdrift.hamiltonian.units import Units
from fkdrift.numerics.allocator import keep_freed_memory
from fkdrift.runs import sharing
from fkdrift.runs.belonging import code_in, differences
from fkdrift.runs.following import cpu_threads, follow, interruptible
from fkdrift.runs.methods import METHODS
from fkdrift.runs.report import Block
from fkdrift.runs.run import Run
from fkdrift.runs.run_folder import locked, read_checkpoint, read_result
from fkdrift.runs.settings import read_toml
from fkdrift.runs.starting import starting
from fkdrift.settings import RunSettings

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
    sharing.take_device()
    with cpu_threads(settings.threads), starting(what, settings.max_seconds, progress):
        return make()


def drive(run: AnyRun, *, out: Path | None = None, progress: bool | None = None) -> AnyRun:
    """Advance a run to its end, or until interrupted, showing progress and saving to `out`; returns the run.

    Ctrl-C or SIGTERM finishes the block and returns what there is, marked interrupted; a second one stops at once.

    Args:
        run: new, or loaded.
        out: folder to save to, also every 30 seconds while running.
        progress: show a live line; default: where someone is looking (a terminal or a notebook).

    Where the settings ask for workers, they are started, and the walkers are shared among them; under torchrun the
    processes that it has started are the workers, and each returns the whole run.

    Raises:
        ComputationError: the computation failed, or a worker died.
        CannotWrite: `out` cannot be written to, or another process works in it.
    """
    keep_freed_memory()
    first = sharing.is_first()
    held = locked(out) if out is not None and first else nullcontext()
    with held, cpu_threads(run.settings.threads), interruptible():
        n = sharing.number_of_workers(run)
        if n == 1:
            follow(run, run.advance(), progress=progress, out=out)
        elif sharing.in_a_group():
            with sharing.shared(run):
                ended = follow(run, run.advance(), progress=progress, out=out)
            follow(run, run.conclude() if ended else (), progress=progress)
        else:
            ended = sharing.launch(run, n, out, progress)
            follow(run, run.conclude() if ended else (), progress=progress)
        if out is not None and first:
            run.save(out)
    return run


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
    sharing.take_device()
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
    # It is held before it is read, so that nobody goes on from the same checkpoint.
    with locked(folder) if sharing.is_first() else nullcontext():
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
