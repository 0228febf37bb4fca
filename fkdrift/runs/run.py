"""One computation that can be watched, stopped after any step, saved, resumed and shown: a list of phases.

A phase advances block by block (train, sample, solve exactly) and keeps all that its next block depends on in its
state.  A run has one random generator, one history and one pair of clocks, and goes through its phases in order; what
a later phase needs, such as a trained wavefunction and its walkers, it takes from an earlier one.  A run that was
stopped, saved and resumed takes the same steps, bit for bit on the CPU, as one that was not.

Every kind of run is a final class of this one, and brings its phases, its entries of result.json, the rows of its
block and its figures.
"""

from __future__ import annotations

import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from fkdrift.errors import BadConfig
from fkdrift.numerics.estimates import Estimate
from fkdrift.numerics.workers import Workers, stream
from fkdrift.runs.belonging import State, check_state, code_digests, differences
from fkdrift.runs.report import Block, Progress
from fkdrift.runs.run_folder import FORMAT, check_result, locked, write_folder
from fkdrift.runs.table import as_frame
from fkdrift.settings import RunSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.distributed import ProcessGroup


class Phase(ABC):
    """One part of a run.

    Attributes:
        name: in the progress line and in history.csv.
        share: the part of max_seconds that has gone when this phase ends; None: what it takes is not counted.
    """

    name: str
    share: float | None = 1.0
    energy: Estimate | None = None
    """What is known so far of the quantity that the run is about; None before there is anything."""
    standard_deviation: float | None = None
    """Of E_L (of l_T / T for a free drift) over the last batch, while training."""
    estimated_excess: float | None = None
    """Energy that more training is expected to take away, where known."""
    wall_seconds: float = 0.0
    """Of the run, when the block began."""
    spent: float = 0.0
    """The part of the time allowed that had gone then; 0 without a limit."""

    @property
    @abstractmethod
    def step(self) -> int:
        """Blocks made and counted; 0 or less while equilibrating."""

    @property
    @abstractmethod
    def planned(self) -> int:
        """How many there are to be, as far as is known; the phase ends when `step` gets there."""

    @property
    def walker_steps(self) -> int:
        """In a block: moves times walkers, of all workers; 0 where nothing is moved."""
        return 0

    @abstractmethod
    def advance(self, generator: torch.Generator) -> None:
        """Make one block."""

    def finish(self) -> None:  # noqa: B027
        """Called when the phase has ended, by itself or by the clock."""

    @abstractmethod
    def results(self) -> dict[str, Any]:
        """Entries of result.json as plain values."""

    @abstractmethod
    def state_dict(self) -> State: ...

    @abstractmethod
    def load_state_dict(self, state: State) -> None: ...


class Run(ABC):
    """A computation as a list of phases.

    Args:
        settings: seed, threads, max_seconds and what else the kind of run depends on.
        model: what is trained.
        generator: the only source of random numbers.
        phases: in the order in which they are gone through.

    Attributes:
        history: rows (step, energy, error, wall seconds) by the name of the phase.
        finished: whether everything has been done.
        fingerprint: SHA-256 of the sources that the numbers depend on, by name, and the version of fkdrift.
        forced: differences between what was saved and what went on from it, which somebody accepted.
        wall_seconds, cpu_seconds: spent over all sessions, in phases that count; CPU time of all workers.
        workers: the processes that share the walkers; this one alone unless it has been shared by `distribute`.
    """

    workers: Workers
    made_of: tuple[tuple[Any, ...], dict[str, Any]]
    """The arguments that it was made with, from which pickle makes it again."""
    kind: ClassVar[str]
    quantity: ClassVar[str] = "energy"
    symbol: ClassVar[str] = "E"
    shareable: ClassVar[bool] = False
    """Whether several workers can share its walkers."""
    n_walkers: int = 0
    """Independent walkers, of all workers."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        run = super().__new__(cls)
        run.made_of, run.workers = (args, kwargs), Workers()
        return run

    def __reduce__(self) -> tuple[Any, ...]:
        """A run is pickled as what it was made of and its state; own code has to be importable."""
        return _again, (type(self), self.made_of, self.state_dict())

    def __init__(
        self, settings: RunSettings, model: nn.Module, generator: torch.Generator, phases: Sequence[Phase]
    ) -> None:
        self.settings: Any = settings
        self.model, self.generator, self.phases = model, generator, list(phases)
        self.history: dict[str, list[list[float]]] = {phase.name: [] for phase in phases}
        self.finished = False
        self.out_of_time: list[str] = []
        self.forced: list[str] = []
        self._streams: Tensor | None = None
        self.remark_on_workers = ""
        self.fingerprint = {"fkdrift": version("fkdrift"), **self.sources}
        self.wall_seconds = self.cpu_seconds = 0.0

    # What a kind of run brings

    @property
    @abstractmethod
    def title(self) -> str:
        """What is computed, in a few words."""

    @property
    @abstractmethod
    def subject(self) -> dict[str, Any]:
        """What config.toml needs beside the settings to have the run again, as plain values."""

    @property
    def sources(self) -> dict[str, str]:
        """SHA-256 of every source outside fkdrift that the numbers depend on, by name."""
        return code_digests(self.config)

    @classmethod
    @abstractmethod
    def rebuild(cls, config: Mapping[str, Any], source: Any, changes: Mapping[str, Any]) -> Self:
        """A run as it was before its first step.

        Args:
            config: the contents of config.toml.
            source: the potential or data where a file cannot hold them, otherwise None.
            changes: settings to change.

        Raises:
            InputError: something is missing, not allowed, or not the same any more.
        """

    @abstractmethod
    def entries(self, found: dict[str, Any]) -> dict[str, Any]:
        """More entries of result.json, given those of the phases."""

    @abstractmethod
    def plot(self) -> dict[str, Figure]:
        """Figures by name; none before there is something to show."""

    @staticmethod
    @abstractmethod
    def block(result: Mapping[str, Any]) -> Block:
        """What the command prints, from the contents of result.json."""

    # What all of them share

    def advance(self) -> Iterator[Progress]:
        """Do what is left, yielding after every block; the state is whole and may be saved at each yield.

        Raises:
            ComputationError: the computation failed, such as walkers that left every finite range.
        """
        self.finished, self.out_of_time = False, []
        start, limit = self.wall_seconds, self.settings.max_seconds or float("inf")
        for phase in self.phases:
            while phase.share is not None and self._goes_on(phase):
                phase.wall_seconds = self.wall_seconds
                phase.spent = (self.wall_seconds - start) / (limit * phase.share)
                self._advance(phase)
                yield self._progress(phase, start)
                if self.wall_seconds - start > limit * phase.share:
                    self.out_of_time += [phase.name] if self._goes_on(phase) else []
                    break
            phase.finish()
        if self.workers.size == 1:
            yield from self.conclude()

    def conclude(self) -> Iterator[Progress]:
        """What is left when the walkers have done their part: phases whose time is not counted, by one process."""
        for phase in self.phases:
            if phase.share is None and phase.step < phase.planned:
                yield self._progress(phase, self.wall_seconds)  # it may take long: say what is being done
                phase.advance(self.generator)
                yield self._progress(phase, self.wall_seconds)
        self.finished = True

    def _goes_on(self, phase: Phase) -> bool:
        """Whether a phase has more to do, the same for all workers whatever their rounding."""
        return self.workers.any(phase.step < phase.planned)[0]

    def _advance(self, phase: Phase) -> None:
        """One block of a phase that counts."""
        if self._streams is not None:
            self._begin_streams(self._streams)
        wall, cpu = time.perf_counter(), time.process_time()
        phase.advance(self.generator)
        spent = torch.tensor([time.perf_counter() - wall, time.process_time() - cpu], dtype=torch.float64)
        wall, cpu = self.workers.sum(spent).tolist()
        self.wall_seconds += wall / self.workers.size
        self.cpu_seconds += cpu
        if phase.step > 0 and (E := phase.energy) is not None:
            self.history[phase.name].append([phase.step, E.mean, E.error, self.wall_seconds])

    def _progress(self, phase: Phase, start: float) -> Progress:
        return Progress(
            phase.name,
            max(0, phase.step),
            phase.planned,
            phase.energy,
            self.wall_seconds - start,
            phase.standard_deviation,
            phase.estimated_excess,
        )

    # Several workers

    def distribute(self, group: ProcessGroup) -> None:
        """Share the walkers with the other processes of a group, which have the same run; each keeps its part.

        Args:
            group: of torch.distributed.
        """
        state = self.state_dict()
        self.workers.join(group)
        self._take(state)

    def collect(self) -> None:
        """Have the walkers of all workers, and be alone again; every worker does."""
        state = self.state_dict()
        self.workers.leave()
        self._take(state)

    @property
    def n_workers(self) -> int:
        """How many processes share the walkers, or did when they were moved last."""
        return self.workers.size if self._streams is None else len(self._streams)

    def _take_streams(self, streams: Tensor) -> None:
        """Go on with saved streams, alone not before a block is made: until then they are those of who saved them."""
        if self.workers.size == 1 and streams.ndim > 1:
            self.generator.set_state(streams[0].clone())
            self._streams = streams
        else:
            self._begin_streams(streams)

    @property
    def begun(self) -> bool:
        """Whether any block has been made."""
        return any(self.history.values())

    def seconds_alone(self) -> float | None:
        """About how long the run would take in one process; None where that is not known."""
        return None

    def _saved_streams(self) -> Tensor:
        """The states of the random numbers of all workers: one, or a row for each."""
        if self._streams is not None:
            return self._streams
        state = self.generator.get_state()
        return state if self.workers.size == 1 else self.workers.gather(state[None])

    def _begin_streams(self, streams: Tensor) -> None:
        """Go on with saved streams; where there are more or fewer workers, with new ones that follow from them."""
        rows, size = torch.atleast_2d(streams), self.workers.size
        self._streams = None
        row = rows[self.workers.rank if len(rows) == size else 0]
        self.generator.set_state(row.clone())  # which takes no view of another tensor
        if len(rows) == size:
            return
        seed = int(torch.randint(2**31, (), generator=self.generator, device=self.generator.device))
        self.generator.manual_seed(stream(seed, self.workers.rank))
        if self.begun:
            self.forced.append(
                f"{_counted(size)} went on with what {_counted(len(rows))} had begun, the same statistically but not "
                "bit for bit"
            )

    @property
    def n_updates(self) -> int:
        """Optimiser steps made."""
        return next((phase.step for phase in self.phases if phase.name == "training"), 0)

    @property
    def result(self) -> dict[str, Any]:
        """What result.json holds; see docs/result.md and result.schema.json."""
        about = {
            "kind": self.kind,
            "format": FORMAT,
            "status": "finished" if self.finished else "interrupted",
            "seed": self.settings.seed,
            "settings": self.settings.to_dict(),
            "versions": dict(versions()),
            "fingerprint": self.fingerprint,
            "device": str(self.generator.device),
            "wall_seconds": self.wall_seconds,
            "cpu_seconds": self.cpu_seconds,
            "workers": self.n_workers,
            "phases": self._speeds(),
            "n_parameters": sum(each.numel() for each in self.model.parameters() if each.requires_grad),
            "n_updates": self.n_updates,
        }
        found: dict[str, Any] = {}
        for phase in self.phases:
            merge(found, phase.results())
        merge(found, self.entries(found))
        if self.remark_on_workers:
            about["remark_on_workers"] = self.remark_on_workers
        if self.out_of_time:
            about["out_of_time"] = list(self.out_of_time)
        if self.forced:
            about["forced"] = list(self.forced)
        return {**about, **found}

    def _speeds(self) -> dict[str, dict[str, float]]:
        """The seconds that each phase has taken, and walker-steps per second in it where walkers are moved."""
        found, before = {}, 0.0
        for phase in self.phases:
            if not (rows := self.history[phase.name]):
                continue
            found[phase.name] = {"seconds": rows[-1][3] - before}
            counted, seconds = rows[-1][0] - rows[0][0], rows[-1][3] - rows[0][3]
            if phase.walker_steps and counted > 0 and seconds > 0:
                found[phase.name]["walker_steps_per_second"] = phase.walker_steps * counted / seconds
            before = rows[-1][3]
        return found

    @property
    def config(self) -> dict[str, Any]:
        """What config.toml holds."""
        return {"kind": self.kind, **self.subject, "settings": self.settings.to_dict()}

    def save(self, folder: str | Path, figures: bool = True, *, held: bool = False) -> Path:
        """Write result.json, config.toml, history.csv, checkpoint.pt and figures/*.png; returns the folder.

        Args:
            folder: made if it is not there.
            figures: whether to draw them, which takes seconds.
            held: whether a process that started this one holds the folder for it.
        """
        folder = Path(folder)
        columns = ("phase", "step", self.quantity, "error", "seconds")
        rows = [(name, *row) for name, rows in self.history.items() for row in rows]
        state, result = self.state_dict(), self.result
        if self.workers.rank == 0:
            with nullcontext() if held else locked(folder):
                write_folder(folder, state, result, self.config, columns, rows)
        if figures:
            from fkdrift.figures.files import save_figures  # here: matplotlib takes a second to import

            save_figures(self.plot(), folder / "figures")
        return folder

    def to_dataframe(self) -> Any:
        """How it came about, as history.csv has it, as a pandas DataFrame: phase, step, the quantity, error, seconds.

        Raises:
            MissingExtra: pandas is not installed.
        """
        names = ("step", self.quantity, "error", "seconds")
        rows = [(phase, row) for phase, rows in self.history.items() for row in rows]
        return as_frame([{"phase": phase, **dict(zip(names, row, strict=True))} for phase, row in rows])

    def state_dict(self) -> State:
        """The whole state, and what it belongs to."""
        return {
            "kind": self.kind,
            "config": self.config,
            "fingerprint": self.fingerprint,
            "forced": list(self.forced),
            "model": self.model.state_dict(),
            "generator": self._saved_streams(),
            "phases": {phase.name: phase.state_dict() for phase in self.phases},
            "history": {k: torch.tensor(v, dtype=torch.float64).reshape(-1, 4) for k, v in self.history.items()},
            "finished": self.finished,
            "out_of_time": list(self.out_of_time),
            "seconds": [self.wall_seconds, self.cpu_seconds],
        }

    def load_state_dict(self, state: State, force: bool = False) -> None:
        """Take over a saved state.

        Args:
            state: as `state_dict` gives it.
            force: accept another subject, settings or sources than it was made with, and say so in the result.

        Raises:
            BadConfig: it does not belong to this run, its settings and its sources.
        """
        try:
            found = differences(state["config"], self.config, type(self.settings))
            found += differences(state["fingerprint"], self.fingerprint)
            if found and not force:
                raise BadConfig(f"{'; '.join(found)}; undo that, or accept it by --force (force=True)")
            forced, self.out_of_time = (_texts(state, name) for name in ("forced", "out_of_time"))
            self.forced = [*forced, *(text for text in found if text not in forced)]
            fresh = self.state_dict()
            same = ("model", "phases", "history", "finished", "seconds")
            check_state({name: state[name] for name in same}, {name: fresh[name] for name in same})
            check_state(torch.atleast_2d(state["generator"])[0], self.generator.get_state(), "generator")
            self._take(state)
            left = [phase.name for phase in self.phases if phase.share is None and phase.step < phase.planned]
            if self.finished and left:
                raise BadConfig(f"it is finished, and {left[0]} has not been done")
            check_result(self.result)  # what was computed once has no state to be compared with
            str(self)
        except Exception as error:  # a state of other settings can fail anywhere in any phase
            reason = (str(error) if isinstance(error, BadConfig) else repr(error)).splitlines()[0]
            raise BadConfig(f"the checkpoint does not fit {self.title} and these settings: {reason}") from error

    def _take(self, state: State) -> None:
        """Take over a state that fits; of walkers the share of this worker."""
        self.model.load_state_dict(state["model"])
        self.history = {phase.name: state["history"][phase.name].tolist() for phase in self.phases}
        self.finished = state["finished"]
        self.wall_seconds, self.cpu_seconds = state["seconds"]
        self._take_streams(state["generator"])
        for phase in self.phases:
            phase.load_state_dict(state["phases"][phase.name])

    def __str__(self) -> str:
        return str(self.block(self.result))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.title}: {self.block(self.result).headline})"

    def _repr_html_(self) -> str:
        return self.block(self.result).html()


def _again(kind: type[Run], made_of: tuple[tuple[Any, ...], dict[str, Any]], state: State) -> Run:
    """A pickled run."""
    run = kind(*made_of[0], **made_of[1])
    run.load_state_dict(state)
    return run


def _counted(n: int) -> str:
    return "1 worker" if n == 1 else f"{n} workers"


def _texts(state: State, name: str) -> list[str]:
    """An entry that is a list of texts."""
    if not isinstance(state[name], list) or not all(isinstance(text, str) for text in state[name]):
        raise BadConfig(f"{name} is not a list of texts")
    return list(state[name])


def merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add entries to nested dicts; what is there already is replaced only where the names are the same."""
    for name, value in more.items():
        if isinstance(value, Mapping) and isinstance(into.get(name), dict):
            merge(into[name], value)
        else:
            into[name] = dict(value) if isinstance(value, Mapping) else value


@cache
def versions() -> Mapping[str, str]:
    """Versions of everything a number may depend on."""
    packages = {name: version(name) for name in ("fkdrift", "torch", "torchsde", "numpy", "scipy")}
    return {**packages, "python": platform.python_version(), "platform": platform.platform()}
