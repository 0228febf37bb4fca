"""Before the first block of a run: what its first step will take, found out with a few walkers, and a start that ends.

A run is made (its potential is examined, walkers are placed) before there is a state to save.  `starting` shows that
something is being done, and ends it after `max_seconds`.  `require_first_step` measures a first step with a few walkers
and refuses one that would not fit into memory or into `max_seconds`.
"""

from __future__ import annotations

import _thread
import math
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fkdrift.errors import OutOfTime, TooLarge
from fkdrift.runs.report import in_notebook
from fkdrift.settings import RunSettings

NUMBERS_AT_ONCE, TIMES_MORE = 2**17, 8
"""In the largest tensor of the larger of two trials, and how many more walkers it has than the smaller."""
FEWEST = 4
"""Walkers in the smaller trial."""
WORTH_A_TRIAL = 2**23
"""Numbers (walkers x coordinates x width) from which on a first step is tried before it is made."""
LONG, TOO_LONG = 10.0, 10.0
"""Seconds that are announced, and times max_seconds that are refused: few walkers take longer each than many."""
LEAST = 10.0
"""Seconds that every start may take, whatever max_seconds is."""
OVERHEAD = 2.0
"""Memory over that of all tensors, for what is used inside of one operation and for gaps."""


@dataclass(frozen=True)
class Cost:
    """Of a computation: bytes that its tensors take at most at one time, and seconds."""

    bytes: float
    seconds: float

    def __str__(self) -> str:
        return f"about {self.bytes / 1e9:.2g} GB of memory and {self.seconds:.2g} s"


class _Peak(TorchDispatchMode):
    """The most bytes that tensors made under it take at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: Any) -> None:
        if getattr(storage, "_counted", False):
            return
        storage._counted = True
        n = storage.nbytes()
        self.now += n
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._remove, n)

    def _remove(self, n: int) -> None:
        self.now -= n


def first_step(step: Callable[[int], object], n: int, numbers: int) -> Cost:
    """What a first step takes, from two small ones: cost grows in proportion to the number of walkers.

    Args:
        step: makes a first step, start included, with so many walkers (chains, data, steps of time), and leaves nothing
            behind.
        n: how many there will be.
        numbers: in the largest tensor, for each of them.
    """
    few = max(FEWEST, NUMBERS_AT_ONCE // numbers // TIMES_MORE)
    found = []
    for some in (FEWEST, few, TIMES_MORE * few):  # the first is for what is done once
        started = time.perf_counter()
        with _Peak() as peak:
            step(some)
        found.append(Cost(peak.most, time.perf_counter() - started))
    _, one, two = found
    rest = (n / few - 1) / (TIMES_MORE - 1)
    size = one.bytes + (two.bytes - one.bytes) * rest
    return Cost(OVERHEAD * size, one.seconds + max(0.0, two.seconds - one.seconds) * rest)


def require_first_step(
    step: Callable[[int], object], n: int, numbers: int, settings: RunSettings, device: torch.device, remedy: str
) -> None:
    """Refuse a run whose first step does not fit; small ones always do, and are not tried.

    Args:
        step, n, numbers: see `first_step`; of n, what torchrun leaves to this machine, or to its GPU, is tried.
        settings: of the run; the step must end in about its max_seconds.
        device: whose memory it is.
        remedy: what to do about it.

    Raises:
        TooLarge: with the estimate and the remedy.
    """
    each = 1 if device.type == "cuda" else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    n = math.ceil(n * each / int(os.environ.get("WORLD_SIZE", "1")))
    if n * numbers >= WORTH_A_TRIAL:
        require_room(first_step(step, n, numbers), device, settings.max_seconds, remedy)


def require_room(
    cost: Cost, device: torch.device, max_seconds: float | None, remedy: str, what: str = "the first step"
) -> None:
    """Refuse what does not fit into the memory or the time that there is; announce what takes long.

    Raises:
        TooLarge: with the estimate and the remedy.
    """
    free = available_memory(device)
    if free is not None and cost.bytes > free:
        raise TooLarge(f"{what} would take {cost}, and {free / 1e9:.2g} GB are free: {remedy}")
    if max_seconds is not None and cost.seconds > TOO_LONG * max_seconds:
        raise TooLarge(f"{what} would take {cost}, far longer than max_seconds = {max_seconds:g}: {remedy}")
    if cost.seconds > LONG and sys.stderr.isatty():
        print(f"{what} takes {cost}", file=sys.stderr)


def available_memory(device: torch.device) -> float | None:
    """Bytes that can still be used on a device; None where that is not known."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo") as file:
            found = {line.split(":")[0]: 1024.0 * int(line.split()[1]) for line in file}
        return found["MemAvailable"]
    except (OSError, KeyError, ValueError, IndexError):
        pass
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return None


@contextmanager
def starting(what: str, max_seconds: float | None = None, show: bool | None = None) -> Iterator[None]:
    """Show that a run is being made, where someone is looking, and end that after so many seconds, 10 at least.

    Args:
        what: is being made.
        max_seconds: None for no limit; there is none either off the main thread, which cannot be interrupted.
        show: a line with the time that has gone; None to show it in a terminal.

    Raises:
        OutOfTime: the run was not ready in time.
    """
    ended = threading.Event()

    def end() -> None:
        ended.set()
        _thread.interrupt_main()

    main = threading.current_thread() is threading.main_thread()
    timer = threading.Timer(max(max_seconds, LEAST), end) if max_seconds is not None and main else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        with nullcontext() if timer is None else _heard(ended):
            with _elapsed(what, sys.stderr.isatty() if show is None else show):
                yield
            if timer is not None:
                timer.cancel()
                timer.join()  # what it may have raised arrives here
    except KeyboardInterrupt:
        if not ended.is_set():
            raise
        raise OutOfTime(
            f"{what} was not ready to begin after max_seconds = {max_seconds:g}: give it more time, or take fewer "
            "particles or walkers"
        ) from None
    finally:
        if timer is not None:
            timer.cancel()


@contextmanager
def _heard(ended: threading.Event) -> Iterator[None]:
    """Let the end of the time through where SIGINT is ignored, as it is in the background of a shell."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        yield
        return

    def act(number: int, frame: object) -> None:
        if ended.is_set():
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, act)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _elapsed(what: str, show: bool) -> Iterator[None]:
    if not show or in_notebook():
        yield
        return
    from rich.console import Console  # here: rich takes a while to import
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("preparing {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4) as line:
        line.add_task(what, total=None)
        yield
