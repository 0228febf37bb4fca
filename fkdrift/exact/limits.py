"""How long an exact calculation may take, how much memory it may use, and what it says meanwhile.

The clock is read at every evaluation of V and at every product with H, so that no loop runs on after its time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fkdrift.errors import OutOfTime, TooLarge

OnMessage = Callable[[str], None]


@dataclass(frozen=True)
class Limits:
    """Limits of one calculation; its clock starts when this is made.

    Args:
        max_seconds: wall-clock time, s.
        max_memory_gib: memory, GiB.
        progress: called with a line of text whenever a new stage starts.

    Example:
        >>> said = []
        >>> Limits(max_seconds=60, progress=said.append).say("radial equation, l = 0")
        >>> said
        ['exact: radial equation, l = 0 (0.0 of 60 s)']
    """

    max_seconds: float = math.inf
    max_memory_gib: float = math.inf
    progress: OnMessage | None = None
    start: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Wall-clock time since the start, s."""
        return time.perf_counter() - self.start

    def say(self, stage: str) -> None:
        """Report a stage, with the time used."""
        if self.progress is not None:
            of = "" if math.isinf(self.max_seconds) else f" of {self.max_seconds:.0f}"
            self.progress(f"exact: {stage} ({self.seconds:.1f}{of} s)")

    def check(self) -> None:
        """Raise OutOfTime when the time is up."""
        if self.seconds > self.max_seconds:
            raise OutOfTime(
                f"the exact solution was stopped after max_seconds = {self.max_seconds:g}; allow more time "
                "(max_seconds, or --max-seconds), a larger tolerance, or fewer levels"
            )

    def room(self, gib: float, what: str) -> None:
        """Raise TooLarge when something needs more memory than allowed."""
        if gib > self.max_memory_gib:
            raise TooLarge(
                f"{what} needs about {gib:.2g} GiB, more than max_memory_gib = {self.max_memory_gib:g}; allow more "
                "memory, ask for fewer levels, or give a larger tolerance"
            )


UNLIMITED = Limits()
