"""Ground states along one or more parameters of a potential: binding curves, E(g), dE/dparameter.

    cold points (trained from the start)  ->  their neighbours  ->  the neighbours of those  ->  ...

A warm point begins with the trained network of the nearest point that is done, so that few updates follow the
wavefunction to the next potential; they begin with long steps, since a wavefunction that has to be followed far lags
behind by short ones.  The points of one wave are
independent and go to joblib, whose backend decides where they are computed.  Every point is a whole `GroundState` with
its own seed, walkers, tests of trust and exact solution.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from fkdrift.errors import BadConfig, BadParameter
from fkdrift.hamiltonian.loading import describe, load_potential
from fkdrift.hamiltonian.potential import Potential
from fkdrift.numerics.estimates import Estimate
from fkdrift.runs.driver import drive
from fkdrift.runs.following import cpu_threads, interruptible
from fkdrift.runs.ground_state import GroundState, default_walkers
from fkdrift.runs.ground_state_report import energy, shown
from fkdrift.runs.of_potential import potential_again
from fkdrift.runs.report import Block, Row, named
from fkdrift.runs.run import Phase, Progress, Run, State
from fkdrift.runs.run_folder import make_folder
from fkdrift.runs.scan_settings import ScanSettings
from fkdrift.runs.settings import Settings, table
from fkdrift.runs.table import as_frame, plain_table

MOST_POINTS = 10_000
MISSING_ERROR = "the process that computed it came to an end: out of memory, perhaps; use fewer --jobs"


@dataclass
class Point:
    """One potential of a scan, as far as it has been computed.

    Args:
        index: among all points.
        status: "waiting", "interrupted", "finished" or "failed".
        start: the index of the point whose wavefunction it began with; None for a cold one.
        result: the contents of its result.json.
        state: its whole state, to go on from.
        message: why it failed.
    """

    index: int
    status: str = "waiting"
    start: int | None = None
    result: dict[str, Any] = field(default_factory=dict)
    state: State = field(default_factory=dict)
    message: str = ""

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do for it."""
        return self.status in ("finished", "failed")

    @property
    def energy(self) -> Estimate | None:
        """The headline energy; None before there is one."""
        energies = self.result.get("energies", {})
        best = energies.get("projected", energies.get("variational"))
        return None if best is None or best["mean"] is None else Estimate(best["mean"], best["error"])


class Points(Phase):
    """The points of a scan, a wave of neighbours at a time.

    Args:
        potentials: one for each point.
        places: (point, parameter), whole numbers: where it is on the grid.
        settings: see `ScanSettings`.
    """

    name = "points"

    def __init__(
        self, potentials: Sequence[Potential], places: Sequence[tuple[int, ...]], settings: ScanSettings
    ) -> None:
        self.potentials, self.places, self.settings = potentials, places, settings
        self.points = [Point(index) for index in range(len(potentials))]
        n, cold = len(potentials), min(settings.cold, len(potentials))
        self.cold = [n * (2 * k + 1) // (2 * cold) for k in range(cold)]
        self._complete = True

    @property
    def step(self) -> int:
        return sum(point.done for point in self.points)

    @property
    def planned(self) -> int:
        return len(self.points)

    @property
    def energy(self) -> Estimate | None:  # type: ignore[override]
        """Of the lowest point so far; None while a wave is not complete, which would look otherwise without a stop."""
        if not self._complete:
            return None
        found = [E for point in self.points if (E := point.energy) is not None]
        return min(found, key=lambda E: E.mean, default=None)

    def advance(self, generator: torch.Generator) -> None:
        from joblib import Parallel, delayed  # here: only scans need it

        wave = self._next_wave()
        solve = delayed(_solve)
        tasks = [solve(self.potentials[k], self.settings, *self._beginning(k), os.getpid()) for k in wave]
        parallel = Parallel(n_jobs=min(self.settings.jobs, len(wave)), return_as="generator_unordered")
        missing = set(wave)
        try:
            for point in parallel(tasks):
                self.points[point.index] = point
                missing.discard(point.index)
        except RuntimeError as error:  # a worker was killed: what it has not handed in is lost
            for k in missing:
                self.points[k] = Point(k, "failed", message=f"{MISSING_ERROR} ({type(error).__name__})")
        self._complete = all(self.points[k].done for k in wave)

    def _next_wave(self) -> list[int]:
        """The points nearest to the cold ones that are not done."""
        waiting = [point.index for point in self.points if not point.done]
        steps = {k: min(self._apart(k, c) for c in self.cold) for k in waiting}
        return [k for k in waiting if steps[k] == min(steps.values())]

    def _apart(self, a: int, b: int) -> int:
        return sum(abs(x - y) for x, y in zip(self.places[a], self.places[b], strict=True))

    def _beginning(self, k: int) -> tuple[Point, State | None]:
        """The point as it is, and the network to begin with: none for cold ones, and where all others failed."""
        finished = [p.index for p in self.points if p.status == "finished"]
        if self.points[k].state or k in self.cold or not finished:
            return self.points[k], None
        start = min(finished, key=lambda other: self._apart(k, other))
        return Point(k, start=start), self.points[start].state["model"]

    def results(self) -> dict[str, Any]:
        return {}

    def state_dict(self) -> State:
        return {"points": [asdict(point) for point in self.points]}

    def load_state_dict(self, state: State) -> None:
        """Take over a saved state; what had failed is tried again."""
        points = [Point(**values) for values in state["points"]]
        if len(points) != len(self.points):
            raise ValueError(f"it has {len(points)} points, and the scan {len(self.points)}")
        self.points = [Point(point.index) if point.status == "failed" else point for point in points]


class ParameterScan(Run):
    """Ground states of one potential at many values of its parameters.

    Args:
        potential: V, with the values of the parameters that stay.
        over: the values of those that do not, by name; of several, every combination is a point.
        settings: see `ScanSettings`.

    Raises:
        BadParameter: a parameter or value is not allowed, or there is no unit to convert from.

    Attributes:
        values: the scanned parameters of every point.
        points: the points, see `Point`.
    """

    kind = "scan"
    settings: ScanSettings

    def __init__(self, potential: Potential, over: Mapping[str, Sequence[Any]], settings: ScanSettings) -> None:
        self.potential = potential
        self.shown_units = potential.natural_units.changed(settings.energy_unit, settings.length_unit)
        self.over = {name: list(values) for name, values in over.items()}
        n = 1
        for name, values in self.over.items():
            if not values:
                raise BadParameter(f"there are no values of {name}: give some, such as {name}=0.5,1,2")
            n *= len(values)
        if not self.over or n > MOST_POINTS:
            raise BadParameter(f"a scan has 1 to {MOST_POINTS:,} points, not {n if self.over else 0:,}")
        self.values = [dict(zip(self.over, each, strict=True)) for each in itertools.product(*self.over.values())]
        potentials = [load_potential(potential, **values) for values in self.values]
        places = list(itertools.product(*(range(len(values)) for values in self.over.values())))
        self.phase = Points(potentials, places, settings)
        super().__init__(settings, torch.nn.Identity(), torch.Generator().manual_seed(settings.seed), [self.phase])

    @property
    def points(self) -> list[Point]:
        """Every point, as far as it has been computed."""
        return self.phase.points

    def state(self, index: int) -> GroundState:
        """The ground state of one point, with its wavefunction, walkers and figures.

        Raises:
            BadConfig: it has not been computed, or failed.
        """
        point = self.points[index]
        if not point.state:
            raise BadConfig(f"point {index} has no state: it is {point.status} {point.message}".rstrip())
        return _again(self.phase.potentials[index], self.settings, point)

    def advance(self) -> Iterator[Progress]:
        yield self._progress(self.phase, self.wall_seconds)  # a wave takes long: say that it has begun
        yield from super().advance()

    # What it brings to a run

    @property
    def title(self) -> str:
        return f"{self.potential.name} over {' and '.join(self.over)}"

    @property
    def subject(self) -> dict[str, Any]:
        described = describe(self.potential)
        fixed = {name: value for name, value in described["parameters"].items() if name not in self.over}
        return {"potential": {**described, "parameters": fixed}, "scan": self.over}

    @classmethod
    def rebuild(cls, config: Mapping[str, Any], source: Any, changes: Mapping[str, Any]) -> Self:
        over = table(config, "scan")
        if not all(isinstance(values, list) for values in over.values()):
            raise BadConfig("a parameter under [scan] in config.toml is no list of values: write omega = [0.5, 1.0]")
        some = {name: values[0] for name, values in over.items() if values}
        potential = table(config, "potential")
        potential = {**potential, "parameters": {**table(potential, "parameters"), **some}}
        settings = ScanSettings.from_values({**table(config, "settings"), **changes})
        return cls(potential_again({**config, "potential": potential}, source), over, settings)

    def entries(self, found: dict[str, Any]) -> dict[str, Any]:
        cpu = sum(point.result.get("cpu_seconds", 0.0) for point in self.points)
        points = [self._entry(point) for point in self.points]
        natural = self.potential.natural_units
        units = {"units": natural.plain(self.shown_units)} if any(natural) else {}
        n_updates = sum(point["n_updates"] for point in points)
        return {**self.subject, **units, "points": points, "cpu_seconds": cpu, "n_updates": n_updates}

    def _entry(self, point: Point) -> dict[str, Any]:
        """A point as result.json has it."""
        result = point.result
        entry = {
            "parameters": self.values[point.index],
            "status": point.status,
            "energies": result.get("energies", {}),
            "observables": {k: v for k, v in result.get("observables", {}).items() if "centres" not in v},
            "n_updates": result.get("n_updates", 0),
            "cpu_seconds": result.get("cpu_seconds", 0.0),
        }
        entry |= {"start": self.values[point.start]} if point.start is not None else {}
        entry |= {"trusted": result["trust"]["trusted"]} if "trust" in result else {}
        entry |= {"message": point.message} if point.message else {}
        return entry

    def records(self) -> list[dict[str, Any]]:
        """A dict of plain values for every point, in the units to be shown: the rows of scan.csv and scan.json."""
        return records(self.result)

    def to_dataframe(self) -> Any:
        """The records as a pandas DataFrame.

        Raises:
            MissingExtra: pandas is not installed.
        """
        return as_frame(self.records())

    def save(self, folder: str | Path, figures: bool = True, *, held: bool = False) -> Path:
        """As every run, with scan.csv and scan.json."""
        make_folder(Path(folder))
        plain_table(self.records(), Path(folder) / "scan")
        return super().save(folder, figures, held=held)

    def plot(self) -> dict[str, Any]:
        """Energies and derivatives against the parameter, one curve for each value of the others."""
        from fkdrift.figures.scan import scan_figure  # here: matplotlib takes a second to import

        rows = self.records()
        if all(row["energy"] is None for row in rows):
            return {}
        points, unit = in_shown_units(self.result)
        units = {name: each["unit"] for point in points for name, each in point["observables"].items()}
        return {"scan": scan_figure(rows, list(self.over), self.title, {**units, "energy": unit})}

    @staticmethod
    def block(result: Mapping[str, Any]) -> Block:
        points, unit = in_shown_units(result)
        numbers = [_row(entry, unit) for entry in points]
        found = [entry for entry in points if _best(entry)["mean"] is not None]
        lowest = min(found, key=lambda entry: _best(entry)["mean"], default=None)
        headline = "?" if lowest is None else f"{energy(_best(lowest), unit)} at {_words(lowest['parameters'])}"
        remarks = [] if lowest is None else [Row("lowest", headline)]
        remarks += [Row("cost", text) for text in [_cost(result["points"])] if text]
        failed = sum(entry["status"] == "failed" for entry in result["points"])
        remarks += [Row("failed", f"{failed} of {len(numbers)} points; resume tries them again")] if failed else []
        seconds = f"{result['wall_seconds']:.1f} s wall, {result['cpu_seconds']:.1f} s CPU on {result['device']}"
        remarks.append(Row("time", seconds))
        title = f"{named(result['potential'])} over {' and '.join(result['scan'])}"
        return Block(title, headline, numbers, remarks, result["status"] == "finished")


def records(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The points of a scan's result.json as rows: parameters, energies, observables with errors, and how it went."""
    rows = []
    points, unit = in_shown_units(result)
    for entry in points:
        energies, best = entry["energies"], _best(entry)
        row = {**entry["parameters"], "energy": best["mean"], "error": best["error"]}
        row |= {"unit": unit} if unit else {}
        for name in ("variational", "exact", "reference"):
            row[name] = energies.get(name, {}).get("mean")
        row["variational_error"] = energies.get("variational", {}).get("error")
        for name, each in entry["observables"].items():
            estimate = _best_of(each)
            row |= {name: estimate["mean"], f"{name}_error": estimate["error"]}
        more = {name: entry.get(name) for name in ("status", "trusted", "n_updates", "cpu_seconds", "message")}
        rows.append({**row, "warm": "start" in entry, **more})
    return rows


def scan(
    potential: str | Path | Potential | type[Potential] | Callable[[Tensor], Tensor],
    over: Mapping[str, Sequence[Any]],
    *,
    settings: ScanSettings | Settings | None = None,
    jobs: int | None = None,
    seed: int | None = None,
    atol: float | None = None,
    observables: Sequence[str] | None = None,
    out: str | Path | None = None,
    progress: bool | None = None,
    **parameters: object,
) -> ParameterScan:
    """Ground states along parameters of a potential; every point but the first goes on from its neighbour.

    Args:
        potential: as for `solve`.
        over: values by the name of the parameter, {"R": [1.0, 1.4, 2.0]}; of several, every combination.
        settings: everything adjustable, of the points and the scan, see `ScanSettings`.
        jobs, seed, atol, observables: see `ScanSettings`; "dE/dR" among the observables is the slope of the curve.
        out: folder to save to, after every wave of points.
        progress: show a live line; default: where someone is looking.
        parameters: of the potential, those that stay.

    Returns:
        ParameterScan, with `to_dataframe()`, `records()`, `plot()`, and `state(k)`, the ground state of a point.  One
        that fails is recorded with its error, and the others go on.

    Raises:
        InputError: the potential, a parameter or a setting is not allowed.

    Example (few walkers, and no projection; the exact energy is omega / 2):
        >>> quick = ScanSettings(n_updates=5, n_walkers=64, n_blocks=10, path_step=1 / 4, project=False)
        >>> curve = scan("harmonic", {"omega": [1.0, 2.0]}, settings=quick)
        >>> [round(row["energy"], 3) for row in curve.records()]
        [0.5, 1.0]
    """
    given: dict[str, Any] = {"jobs": jobs, "seed": seed, "atol": atol}
    given |= {"observables": None if observables is None else tuple(observables)}
    base = ScanSettings.from_values({} if settings is None else settings.to_dict())
    over = {name: [_plain(value) for value in values] for name, values in over.items()}
    some = {name: values[0] for name, values in over.items() if values}
    run = ParameterScan(load_potential(potential, **{**some, **parameters}), over, base.changed(**given))
    return drive(run, out=None if out is None else Path(out), progress=progress)


def _plain(value: Any) -> Any:
    """A number of numpy as one of Python."""
    return value.item() if hasattr(value, "item") else value


# In the process of a point


def _solve(potential: Potential, settings: ScanSettings, point: Point, network: State | None, parent: int) -> Point:
    """Compute a point, or what is left of it; what goes wrong is written down."""
    if os.getpid() != parent and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # between points: Ctrl-C is for the scan, and for a point at work
    try:
        with interruptible() as interrupted, cpu_threads(settings.threads):
            run = _again(potential, settings, point) if point.state else _new(potential, settings, point, network)
            if interrupted():
                return point
            drive(run, progress=False)
    except Exception as error:  # whatever a potential of one's own raises, the other points go on
        return Point(point.index, "failed", message=f"{type(error).__name__}: {error}")
    point.status = "finished" if run.finished else "interrupted"
    point.result, point.state = run.result, run.state_dict()
    return point


def _new(potential: Potential, settings: ScanSettings, point: Point, network: State | None) -> GroundState:
    """A run that begins with a network; cold where there is none, or it does not fit."""
    if network is not None:
        try:
            return GroundState(potential, _settings(potential, settings, point), network)
        except BadConfig:
            point.start = None
    return GroundState(potential, _settings(potential, settings, point))


def _again(potential: Potential, settings: ScanSettings, point: Point) -> GroundState:
    """The run of a point as it was left."""
    run = GroundState(potential, _settings(potential, settings, point))
    run.load_state_dict(point.state)
    return run


def _settings(potential: Potential, settings: ScanSettings, point: Point) -> Settings:
    """The settings of a point."""
    n = settings.n_walkers or default_walkers(potential, settings)
    return settings.of_point(point.index, warm=point.start is not None, n_walkers=n)


# In words


def in_shown_units(result: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """The points of a scan's result.json in the units to be shown, and the unit of their energies, or nothing."""
    units = {name: result[name] for name in ("units",) if name in result}
    found = [shown({**entry, **units}) for entry in result["points"]]
    return [entry for entry, _ in found], next((unit for _, unit in found), "")


def _best_of(observable: Mapping[str, Any]) -> Mapping[str, Any]:
    """The estimate of an observable that is nearest to phi_0^2."""
    return next(observable[kind] for kind in ("pure", "extrapolated", "mixed", "variational") if kind in observable)


def _best(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The headline energy of a point."""
    energies = entry["energies"]
    return energies.get("projected", energies.get("variational", {"mean": None, "error": None}))


def _words(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} = {v:g}" if isinstance(v, float) else f"{k} = {v}" for k, v in parameters.items())


def _row(entry: Mapping[str, Any], unit: str) -> Row:
    """A point: its energy, what is known of it, and derivatives of the curve."""
    label, best = _words(entry["parameters"]), _best(entry)
    if best["mean"] is None or entry["status"] != "finished":
        return Row(label, " ".join((entry["status"], entry.get("message", ""))).strip())
    known = {name: entry["energies"][name]["mean"] for name in ("exact", "reference") if name in entry["energies"]}
    said = [f"{name} {value:.9g}" for name, value in known.items()]
    slopes = {name: each for name, each in entry["observables"].items() if name.startswith("dE/d")}
    said += [f"{name} {energy(_best_of(each), each['unit'] if unit else '')}" for name, each in slopes.items()]
    said += [f"from {_words(entry['start'])}" if "start" in entry else "cold"]
    said += ["" if entry.get("trusted", True) else "not trusted"]
    return Row(label, "; ".join(filter(None, said)), energy(best, unit))


def _cost(points: Sequence[Mapping[str, Any]]) -> str:
    """What a warm point cost against a cold one."""
    done = [point for point in points if point["status"] == "finished"]
    warm = [point["cpu_seconds"] for point in done if "start" in point]
    cold = [point["cpu_seconds"] for point in done if "start" not in point]
    if not (warm and cold and sum(warm)):
        return ""
    each, first = sum(warm) / len(warm), sum(cold) / len(cold)
    shown = f"a cold point {first:.1f} s CPU ({len(cold)}), a warm one {each:.1f} s ({len(warm)})"
    return f"{shown}: {first / each:.1f} times less"
