"""From a potential to its ground state in one call, and back from a folder: solve, load, resume.

potential -> system -> drift -> process -> path -> objective -> optimiser -> estimate -> result -> report
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fkdrift.errors import BadConfig
from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.potential import Potential
from fkdrift.runs.ground_state import GroundState
from fkdrift.runs.report import progress_line
from fkdrift.runs.run import Run
from fkdrift.runs.run_folder import make_folder, read_checkpoint
from fkdrift.runs.settings import Settings, read_config
from fkdrift.wavefunction.protocol import Drift

CHECKPOINT_SECONDS = 30.0


def solve(
    potential: str | Path | Potential | type[Potential] | Callable[[Tensor], Tensor],
    *,
    settings: Settings | None = None,
    seed: int | None = None,
    method: str | None = None,
    drift: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    max_seconds: float | None = None,
    atol: float | None = None,
    start: Drift | None = None,
    out: str | Path | None = None,
    progress: bool | None = None,
    **parameters: object,
) -> GroundState:
    """The ground state of a potential: trains a drift, samples the stationary process, compares with scipy.

    Args:
        potential: a plug-in's name, `file.py:Name`, a formula, a table, a callable (batch, particle, dim) ->
            (batch,), or a Potential.
        settings: everything adjustable; the arguments below override single ones, see `Settings`.
        method: "drift", or "flow" for a normalizing flow: independent samples and a normalised psi.
        seed, drift, device, dtype, max_seconds, atol: see `Settings`.
        start: a drift to begin with, such as one from `fk.drift_from_samples`; default one that does nothing.
        out: folder to save to, also now and then while running, so that nothing is lost.
        progress: show a live line; default: where someone is looking (a terminal or a notebook).
        parameters: of the potential, such as omega=2.0; for a callable n_particles, n_dims and so on.

    Returns:
        GroundState.  Ctrl-C or SIGTERM finishes the step and returns what there is, marked interrupted; a second Ctrl-C
        stops at once.

    Raises:
        InputError: the potential, a parameter or a setting is not allowed.
        DivergedPath: walkers left every finite range.

    Example:
        >>> print(fk.solve("harmonic", omega=2.0, seed=0).energy)
        1.000000(2)
    """
    given: dict[str, Any] = {"seed": seed, "method": method, "drift": drift, "device": device, "dtype": dtype}
    given |= {"max_seconds": max_seconds, "atol": atol}
    settings = (settings or Settings()).changed(**given)
    with cpu_threads(settings.threads):
        run = make_run(load_potential(potential, **parameters), settings, start)
    return drive(run, out=None if out is None else Path(out), progress=progress)


def make_run(potential: Potential, settings: Settings, start: Drift | None = None) -> Run:
    """A new run by the method that the settings name, from a drift to begin with if there is one."""
    if settings.method == "flow":
        if start is not None:
            raise BadConfig("a flow cannot start from a drift: leave out `start`, or use method = 'drift'")
        from fkdrift.runs.flow_run import FlowRun  # here: other runs need no flows

        return FlowRun(potential, settings)
    return Run(potential, settings, start)


def drive(run: Run, *, out: Path | None = None, progress: bool | None = None) -> GroundState:
    """Advance a run to its end, or until interrupted, showing progress and saving to `out`."""
    if out is not None:
        make_folder(out)
    saved = time.monotonic()
    line = progress_line(run.potential.name, progress)
    with cpu_threads(run.settings.threads), interruptible() as interrupted, line as show:
        for step in run.advance():
            show(step)
            if interrupted():
                break
            if out is not None and time.monotonic() - saved > CHECKPOINT_SECONDS:
                GroundState(run).save(out, figures=False)
                saved = time.monotonic()
        state = GroundState(run)
        if out is not None:
            state.save(out)
    return state


def load(folder: str | Path, potential: Callable[[Tensor], Tensor] | Potential | None = None) -> GroundState:
    """The ground state saved in a folder.

    Args:
        folder: written by `GroundState.save` or `fkdrift solve --out`.
        potential: needed only if the run was made from a Python callable, which a file cannot hold.

    Raises:
        BadConfig: the folder is not a saved run, is damaged, or needs its callable.

    Example:
        >>> fk.load("runs/helium").energy
    """
    return GroundState(_saved_run(Path(folder), potential, {}))


def resume(
    folder: str | Path,
    potential: Callable[[Tensor], Tensor] | Potential | None = None,
    *,
    progress: bool | None = None,
    **changes: Any,
) -> GroundState:
    """Go on with a saved run, and save it to the same folder.

    An interrupted run ends, on the CPU, bit for bit where it would have ended without the interruption.

    Args:
        folder, potential: as for `load`.
        progress: as for `solve`.
        changes: settings to change first, such as atol=1e-4 or n_blocks=500; those that shape the network or the
            walkers must stay.
    """
    run = _saved_run(Path(folder), potential, changes)
    return drive(run, out=Path(folder), progress=progress)


def _saved_run(folder: Path, potential: Any, changes: dict[str, Any]) -> Run:
    """Rebuild a run from its folder."""
    if not folder.is_dir():
        raise BadConfig(f"there is no folder {folder}")
    described, settings = read_config(folder / "config.toml")
    parameters = described.get("parameters", {})
    if potential is None and not described.get("reloadable", True):
        raise BadConfig(
            f"{folder} was made from the Python callable {described.get('name')!r}: pass it again as `potential`"
        )
    loaded = load_potential(potential or described["name"], **parameters)
    run = make_run(loaded, Settings.from_values({**settings, **changes}))
    run.load_state_dict(read_checkpoint(folder))
    return run


@contextmanager
def cpu_threads(n: int) -> Iterator[None]:
    """torch on n CPU threads, and as before afterwards: threads that wait for each other cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a flag; the second acts as usual.  Off the main thread nothing changes."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def catch(number: int, frame: object) -> None:
        caught.append(number)
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, catch)
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
