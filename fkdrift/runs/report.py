"""A run in words: the live line while it works, the block it prints at the end, the table it shows in a notebook.

Everything is made from the plain values of result.json, so that a saved run reads as it did when it was made.
"""

from __future__ import annotations

import html as markup
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Line

from fkdrift.numerics.estimates import format_with_error
from fkdrift.runs.run import Progress

WIDTH = 96
REFRESH_SECONDS = 0.1
LABEL = 14


@contextmanager
def progress_line(title: str, show: bool | None = None, symbol: str = "E") -> Iterator[Callable[[Progress], None]]:
    """A live line on stderr: phase, energy, steps per second, how far, time left in this phase.

    It is redrawn at most ten times a second, by the caller's own thread, so that watching costs nothing.

    Args:
        title: what is being solved.
        show: True or False; None to show it where someone is looking, a terminal or a notebook.
        symbol: of what is minimised.
    """
    notebook = "ipykernel" in sys.modules
    if show is None:
        show = notebook or sys.stderr.isatty()
    if not show:
        yield lambda progress: None
        return
    console = Console(stderr=True, force_jupyter=False, force_terminal=True if notebook else None)
    columns = (
        TextColumn("{task.description:<13}", style="bold"),
        MofNCompleteColumn(),
        BarColumn(bar_width=16),
        TextColumn(symbol + " = {task.fields[energy]}", style="cyan"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
    )
    with Line(*columns, console=console, auto_refresh=False, transient=True, speed_estimate_period=10.0) as line:
        line.console.print(f"[dim]{title}[/dim]")
        yield _Display(line)


class _Display:
    """Puts a `Progress` on the line, not more often than it can be read."""

    def __init__(self, line: Line) -> None:
        self.line, self.phase, self.drawn = line, "", 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.phase != self.phase:
            self._begin(progress, now)
        if now - self.drawn < REFRESH_SECONDS:
            return
        done = progress.step - self.first
        rate = f"{done / (now - self.began):,.1f} steps/s" if done and now > self.began else ""
        energy = format_with_error(progress.energy.mean, progress.energy.error)
        self.line.update(self.task, completed=progress.step, total=progress.n_steps, energy=energy, rate=rate)
        self.line.refresh()
        self.drawn = now

    def _begin(self, progress: Progress, now: float) -> None:
        """A new phase replaces the line of the one before."""
        for task in self.line.task_ids:
            self.line.remove_task(task)
        self.phase, self.began, self.first = progress.phase, now, progress.step
        self.task = self.line.add_task(
            progress.phase, total=progress.n_steps, completed=progress.step, energy="", rate=""
        )


def summary(result: dict[str, Any]) -> str:
    """The block that `fkdrift solve` and `print(state)` show, from the contents of result.json."""
    energies = result["energies"]
    lines = [*_wrap(_title(result["potential"])), ""]
    number = {name: _number(entry) for name, entry in energies.items()}
    width = max(map(len, number.values())) + 2
    for name, remark in _remarks(result).items():
        lines += _row(name.replace("_", " "), number[name].ljust(width) + remark, LABEL + width)
    lines.append("")
    for label, text in _statements(result):
        lines += _row(label, text)
    if result.get("status") == "interrupted":
        lines += ["", "  interrupted: this is what had been reached"]
    return "\n".join(line.rstrip() for line in lines)


def headline(result: dict[str, Any]) -> str:
    """The variational energy alone, such as 0.50003(8)."""
    return _number(result["energies"]["variational"])


def html(result: dict[str, Any]) -> str:
    """A small table for notebooks; every text in it is escaped."""
    energies, escape = result["energies"], markup.escape
    rows = [(name.replace("_", " "), _number(energies[name]), text) for name, text in _remarks(result).items()]
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{escape(c)}</td>" for c in row) + "</tr>" for row in rows
    )
    notes = "<br>".join(f"{escape(label)}: {escape(text)}" for label, text in _statements(result))
    state = "" if result.get("status") == "finished" else f" ({escape(str(result.get('status')))})"
    return (
        f"<table><caption style='text-align:left'><b>{escape(_title(result['potential']))}</b>{state}</caption>"
        f"<tbody>{body}</tbody></table><small>{notes}</small>"
    )


def _title(potential: dict[str, Any]) -> str:
    """The potential and its parameters in one line."""
    parameters = ", ".join(f"{name} = {_plain(value)}" for name, value in potential["parameters"].items())
    return f"{potential['name']}  {parameters}".rstrip()


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(entry: dict[str, Any]) -> str:
    """A mean as 0.50003(8), with ten digits where there is no error, or a question mark where it is not known."""
    mean, error = entry["mean"], entry.get("error", 0.0)
    if mean is None or error is None:
        return "?" if mean is None else f"{mean:.6g}(?)"
    return format_with_error(mean, error) if "error" in entry else f"{mean:.10g}"


def _remarks(result: dict[str, Any]) -> dict[str, str]:
    """What to say beside each energy."""
    remarks = {}
    for name, entry in result["energies"].items():
        if name == "path_action":
            how = "E[l_T]/T, extrapolated to dt = 0" if "step_bias" in result else "last training batch"
            remarks[name] = how + _effective(entry)
        elif name == "fisher":
            remarks[name] = "E[sigma^2 |grad log p|^2/8 + V]" + _effective(entry)
        elif "estimator" in entry:
            remarks[name] = entry["estimator"] + _effective(entry)
        elif "kind" in entry:
            remarks[name] = f"{entry['kind']}: {entry['source']}"
        else:
            remarks[name] = str(entry.get("source", ""))
    return remarks


def _effective(entry: dict[str, Any]) -> str:
    n = entry.get("effective_samples")
    return f"; {n:,.0f} effective samples" if n else ""


def _statements(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What was done, and how much to trust it."""
    rows = []
    deviation = result.get("deviation")
    if deviation:
        relative = deviation["difference"] / abs(result["energies"][deviation["against"]]["mean"] or 1.0)
        numbers = f"{deviation['difference']:+.1e}, relative {relative:+.1e}"
        against = "the exact energy" if deviation["against"] == "exact" else f"the {deviation['against']}"
        z = f"{deviation['standard_errors']:+.1f} standard errors"
        rows.append(("deviation", f"{z} from {against} ({numbers}): {deviation['verdict']}"))
    bias = result.get("step_bias")
    if bias:
        steps = ", ".join(f"{dt:.3g}" for dt in bias["time_steps"])
        removed = _number(bias["removed"])
        rows.append(("time step", f"path action fitted over dt = {steps} to dt = 0; removed {removed} from the finest"))
    sampling = result.get("sampling")
    if sampling:
        spread = f"spread of E_L {sampling['spread']:.2g}"
        if "acceptance" in sampling:
            spread += f"; acceptance {sampling['acceptance']:.0%} at dt = {sampling['time_step']:.3g}"
        rows.append(("sampling", spread))
    virial = result.get("virial")
    if virial:
        rows.append(("virial", f"<V>/<T> = {virial['ratio']:.4f}, expected {virial['expected']:g}"))
    settings = result["settings"]
    flow = settings.get("method") == "flow"
    drift = f"{'flow' if flow else settings['drift'] + ' drift'} with {result['n_parameters']:,} parameters"
    walkers = f"{result['n_walkers']:,} {'samples' if flow else 'walkers'}"
    rows.append(("training", f"{result['n_updates']:,} updates, {walkers}, {drift}, seed {result['seed']}"))
    seconds = f"{result['wall_seconds']:.1f} s wall, {result['cpu_seconds']:.1f} s CPU"
    rows.append(("time", f"{seconds} on {result['device']} in {settings['dtype']}"))
    return rows


def _row(label: str, text: str, indent: int = LABEL) -> list[str]:
    """A labelled row; what does not fit goes on below its column."""
    return textwrap.wrap(
        f"  {label:<{LABEL}}{text}", WIDTH, subsequent_indent=" " * (indent + 2), drop_whitespace=True, tabsize=1
    ) or [""]


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ")
