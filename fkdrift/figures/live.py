"""A figure in a notebook that follows a run while it works."""

from __future__ import annotations

import time
from collections.abc import Callable

from matplotlib import rc_context
from matplotlib.figure import Figure

from fkdrift.figures.ground_state import TrainingHistory, energy_figure
from fkdrift.figures.palette import STYLE

REFRESH_SECONDS = 2.0


def live_figure(
    history: TrainingHistory, quantity: str, show: Callable[[Figure], Callable[[Figure], None]]
) -> Callable[[], None]:
    """What is to be called after every step of a run: it draws the history, at most every two seconds.

    Args:
        history: of the run, which grows meanwhile; what takes less than two seconds is not drawn.
        quantity: what it is of.
        show: puts a figure where it is seen, and returns what puts another one into its place.
    """
    replace: Callable[[Figure], None] | None = None
    drawn = time.monotonic()

    def step() -> None:
        nonlocal replace, drawn
        if time.monotonic() - drawn < REFRESH_SECONDS or not any(history.values()):
            return
        with rc_context(STYLE):
            figure = energy_figure(history, {}, quantity)
        if replace is None:
            replace = show(figure)
        else:
            replace(figure)
        drawn = time.monotonic()

    return step
