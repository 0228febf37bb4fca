"""A run that is followed while it advances: shown, saved now and then, stopped by Ctrl-C; by each worker it has."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import torch
from threadpoolctl import threadpool_limits

from fkdrift.runs.report import Progress, in_notebook, progress_line
from fkdrift.runs.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHECKPOINT_SECONDS = 30.0
"""Between two saves while running: what a killed process may lose."""


def follow(
    run: Run,
    steps: Iterable[Progress],
    *,
    progress: bool | None = None,
    out: Path | None = None,
    held: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> bool:
    """Go through the steps of a run until they end or someone interrupts; whether they ended.

    Where several workers share the run, each follows it: they stop and save together.

    Args:
        run: that advances.
        steps: from `run.advance()` or `run.conclude()`.
        progress: show a live line, of the first worker; None to show it where someone is looking.
        out: folder to save to every 30 seconds.
        held: see `Run.save`.
        stopped: asked after every step whether to stop, beside SIGINT and SIGTERM.
    """
    saved = time.monotonic()
    shown = progress if run.workers.rank == 0 else False
    with interruptible() as interrupted, progress_line(run.title, shown, run.symbol) as show:
        draw = _live_figure(run) if shown is not False else lambda: None
        for step in steps:
            show(step)
            draw()
            due = out is not None and time.monotonic() - saved > CHECKPOINT_SECONDS
            stop, due = run.workers.any(interrupted() or stopped(), due)
            if stop:
                return False
            if due and out is not None:
                run.save(out, figures=False, held=held)
                saved = time.monotonic()
    return True


def _live_figure(run: Run) -> Callable[[], None]:
    """In a notebook, what draws the history of a run into one output that follows it; nothing elsewhere."""
    if not in_notebook():
        return lambda: None
    from IPython.display import display  # here: only notebooks have it, and matplotlib takes a second to import

    from fkdrift.figures.live import live_figure

    def show(figure: Figure) -> Callable[[Figure], None]:
        handle = display(figure, display_id=True)
        return handle.update

    return live_figure(run.history, run.quantity, show)


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
def interruptible(told: Callable[[], object] = lambda: None) -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a flag; the second acts as usual.  Off the main thread nothing changes.

    Where one run drives others, the flags of all of them are set.

    Args:
        told: called once, when the signal comes.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def catch(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        told()
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
