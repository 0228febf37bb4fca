"""A figure in a notebook that follows a run while it works."""

from __future__ import annotations

import time
from collections.abc import Callable

from matplotlib import rc_context
from matplotlib.figure import Figure

from fkdrift.figures.ground_state import TrainingHistory, energy_figure
from fkdrift.figures.palette import STYLE

REFRESH_SECONDS, SHARE = 2.0, 0.05
"""Between two figures at least, and of the time of a run that they may take."""


def live_figure(
    history: TrainingHistory, quantity: str, show: Callable[[Figure], Callable[[Figure], None]]
) -> Callable[[], None]:
    """What is to be called after every step of a run: it draws the history, every two seconds or as drawing allows.

    Args:
        history: of the run, which grows meanwhile; what takes less than two seconds is not drawn.
        quantity: what it is of.
        show: puts a figure where it is seen, and returns what puts another one into its place.
    """
    replace: Callable[[Figure], None] | None = None
    due = time.monotonic() + REFRESH_SECONDS

    def step() -> None:
        nonlocal replace, due
        began = time.monotonic()
        if began < due or not any(history.values()):
            return
        with rc_context(STYLE):
            figure = energy_figure(history, {}, quantity)
        if replace is None:
            replace = show(figure)
        else:
            replace(figure)
        now = time.monotonic()
        due = now + max(REFRESH_SECONDS, (now - began) / SHARE)

    return step
