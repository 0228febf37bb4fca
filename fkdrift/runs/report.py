"""A run in words: the live line while it works, the block it prints at the end, the table it shows in a notebook.

Blocks are made from the plain values of result.json, so that a saved run reads as it did when it was made.
"""

from __future__ import annotations

import html as markup
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Line

from fkdrift.numerics.estimates import Estimate, format_with_error

WIDTH = 96
REFRESH_SECONDS = 0.1
LABEL = 14
PURE, TIMES = ("effective_samples", "standard_errors", "acceptance", "centres"), ("time_step", "time_steps")
"""Plain values that have no unit of energy: those that are not shown in one, and times."""


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Args:
        phase: its name.
        step, n_steps: blocks made in this phase, and planned (estimated while sampling to a tolerance).
        energy: of the last batch while training, of everything sampled in this phase afterwards; None if not known.
        seconds: wall time since this session began.
        standard_deviation: of E_L (of l_T / T for a free drift) over the last batch, while training.
        estimated_excess: energy that more training is expected to take away, where known.
    """

    phase: str
    step: int
    n_steps: int
    energy: Estimate | None
    seconds: float
    standard_deviation: float | None = None
    estimated_excess: float | None = None


@contextmanager
def progress_line(title: str, show: bool | None = None, symbol: str = "E") -> Iterator[Callable[[Progress], None]]:
    """A live line: phase, energy, steps per second, how far, time left in this phase; on stderr, or below a cell.

    It is redrawn at most ten times a second, by the caller's own thread, so that watching costs nothing.

    Args:
        title: what is being solved.
        show: True or False; None to show it where someone is looking, a terminal or a notebook.
        symbol: of what is minimised.
    """
    notebook = in_notebook()
    if show is None:
        show = notebook or sys.stderr.isatty()
    if not show:
        yield lambda progress: None
    elif notebook:
        with _notebook_line(title, symbol) as draw:
            yield _Throttled(draw)
    else:
        with _terminal_line(title, symbol) as draw:
            yield _Throttled(draw)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which ipykernel alone does not say: it may just be imported."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


Draw = Callable[[Progress, str], None]
"""Shows where a run is, and how fast it goes, in place of what was shown before."""


class _Throttled:
    """Draws a `Progress`, not more often than it can be read; speeds are those of the phase."""

    def __init__(self, draw: Draw) -> None:
        self.draw, self.phase, self.drawn = draw, "", 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.phase != self.phase:
            self.phase, self.began, self.first = progress.phase, now, progress.step
        elif now - self.drawn < REFRESH_SECONDS:
            return
        done = progress.step - self.first
        self.draw(progress, f"{done / (now - self.began):,.1f} steps/s" if done and now > self.began else "")
        self.drawn = now


@contextmanager
def _terminal_line(title: str, symbol: str) -> Iterator[Draw]:
    """With a bar, by rich; a new phase replaces the line of the one before."""
    columns = (
        TextColumn("{task.description:<13}", style="bold"),
        MofNCompleteColumn(),
        BarColumn(bar_width=16),
        TextColumn(symbol + " = {task.fields[energy]}", style="cyan"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
    )
    console = Console(stderr=True)
    with Line(*columns, console=console, auto_refresh=False, transient=True, speed_estimate_period=10.0) as line:
        line.console.print(f"[dim]{title}[/dim]")
        tasks: dict[str, TaskID] = {}

        def draw(progress: Progress, rate: str) -> None:
            about: dict[str, Any] = {"completed": progress.step, "total": progress.n_steps, "rate": rate}
            about["energy"] = "" if progress.energy is None else str(progress.energy)
            if progress.phase not in tasks:
                for task in tasks.values():
                    line.update(task, visible=False)
                tasks[progress.phase] = line.add_task(progress.phase, **about)
            line.update(tasks[progress.phase], **about)
            line.refresh()

        yield draw


@contextmanager
def _notebook_line(title: str, symbol: str) -> Iterator[Draw]:
    """As an output of the cell, of plain text, that is empty at the end."""
    from IPython.display import display  # here: only notebooks have it

    def shown(text: str) -> dict[str, str]:
        return {"text/plain": text}

    handle = display(shown(title), raw=True, display_id=True)

    def draw(progress: Progress, rate: str) -> None:
        energy = "" if progress.energy is None else f"{symbol} = {progress.energy}"
        parts = (f"{title}: {progress.phase} {progress.step:,}/{progress.n_steps:,}", energy, rate)
        handle.update(shown("   ".join(filter(None, parts))), raw=True)

    try:
        yield draw
    finally:
        handle.update(shown(""), raw=True)


class Row(NamedTuple):
    """One line of a block: a label, a number if there is one, and words."""

    label: str
    text: str
    number: str = ""


@dataclass(frozen=True)
class Block:
    """What a run found, to be printed or shown in a notebook.

    Args:
        title: what was computed.
        headline: the number that matters most, such as 0.50003(8).
        numbers: estimates, one beneath the other.
        remarks: what was done, and how much to trust it.
        finished: whether the run was.
    """

    title: str
    headline: str
    numbers: Sequence[Row]
    remarks: Sequence[Row]
    finished: bool = True

    def __str__(self) -> str:
        label = max([LABEL, *(len(row.label) + 2 for row in (*self.numbers, *self.remarks))])
        number = max((len(row.number) for row in self.numbers), default=0) + 2
        lines = [*textwrap.wrap(self.title, WIDTH, subsequent_indent="  "), ""]
        for row in self.numbers:
            lines += _wrapped(row.label.ljust(label) + row.number.ljust(number) + row.text, label + number)
        lines += [""] if self.numbers else []
        for row in self.remarks:
            lines += _wrapped(row.label.ljust(label) + row.text, label)
        if not self.finished:
            lines += ["", "  interrupted: this is what had been reached"]
        return "\n".join(line.rstrip() for line in lines)

    def html(self) -> str:
        """A small table for notebooks; every text in it is escaped."""
        escape = markup.escape
        cells = [(row.label, row.number, row.text) for row in self.numbers]
        body = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in cells
        )
        notes = "<br>".join(f"{escape(row.label)}: {escape(row.text)}" for row in self.remarks)
        state = "" if self.finished else " (interrupted)"
        return (
            f"<table><caption style='text-align:left'><b>{escape(self.title)}</b>{state}</caption>"
            f"<tbody>{body}</tbody></table><small>{notes}</small>"
        )


def _wrapped(text: str, indent: int) -> list[str]:
    """A row; what does not fit goes on below its last column."""
    return textwrap.wrap("  " + text, WIDTH, subsequent_indent=" " * (indent + 2), tabsize=1) or [""]


def number(entry: Mapping[str, Any]) -> str:
    """A mean as 0.50003(8), with ten digits where there is no error, or a question mark where it is not known."""
    mean, error = entry["mean"], entry.get("error", 0.0)
    if mean is None or error is None:
        return "?" if mean is None else f"{mean:.6g}(?)"
    return format_with_error(mean, error) if "error" in entry else f"{mean:.10g}"


def scaled(entry: Any, factor: float, time: float = 1.0) -> Any:
    """Plain values with every number times a factor, times times another; counts, pure numbers and words stay."""
    if isinstance(entry, Mapping):
        by_name = {**dict.fromkeys(PURE, 1.0), **dict.fromkeys(TIMES, time)}
        return {name: scaled(value, by_name.get(name, factor), time) for name, value in entry.items()}
    if isinstance(entry, list):
        return [scaled(value, factor, time) for value in entry]
    return entry * factor if isinstance(entry, int | float) and not isinstance(entry, bool) else entry


def named(potential: Mapping[str, Any]) -> str:
    """A potential and its parameters in one line."""
    values = (f"{k} = {v:g}" if isinstance(v, float) else f"{k} = {v}" for k, v in potential["parameters"].items())
    return f"{potential['name']}  {', '.join(values)}".rstrip()


def effort(result: Mapping[str, Any], *of: str, model: str = "") -> list[Row]:
    """How a run was trained and how long it took: the same words for every kind.

    Args:
        result: the contents of result.json.
        of: what it was trained on.
        model: what has the parameters, such as "flow with".
    """
    parameters = f"{model} {result['n_parameters']:,} parameters".lstrip()
    training = ", ".join([f"{result['n_updates']:,} updates", *of, parameters, f"seed {result['seed']}"])
    return [Row("training", training), *time_taken(result)]


def _speed(phase: Mapping[str, float], result: Mapping[str, Any]) -> str:
    """The share of the time that a phase took, and how fast its walkers were."""
    share = f"{phase['seconds'] / max(result['wall_seconds'], 1e-9):.0%}"
    rate = phase.get("walker_steps_per_second")
    return (
        share
        if rate is None
        else f"{share}, {rate:.2g} walker-steps/s"
        if rate < 1e3
        else f"{share}, {rate / 1e3:,.3g}k walker-steps/s"
    )


def time_taken(result: Mapping[str, Any]) -> list[Row]:
    """How long a run took, whether that was long enough, and whether it is one computation."""
    seconds = f"{result['wall_seconds']:.1f} s wall, {result['cpu_seconds']:.1f} s CPU on {result['device']}"
    dtype = result["settings"].get("dtype")
    rows = [Row("time", seconds + (f" in {dtype}" if dtype else ""))]
    if len(phases := result.get("phases", {})) > 1 or any(len(phase) > 1 for phase in phases.values()):
        rows.append(Row("", "; ".join(f"{name} {_speed(phase, result)}" for name, phase in phases.items())))
    if (n := result.get("workers", 1)) > 1 or "remark_on_workers" in result:
        rows.append(Row("workers", "; ".join(filter(None, (str(n), result.get("remark_on_workers", ""))))))
    if ended := result.get("out_of_time"):
        rows.append(Row("", f"max_seconds ended {' and '.join(ended)} before what was asked for had been reached"))
    if forced := result.get("forced"):
        rows.append(Row("forced", f"not one computation: {'; '.join(forced)}"))
    return rows
