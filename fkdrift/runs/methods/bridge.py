"""Paths between two points in a given time, and how probable they are: a learned Feynman-Kac bridge.

The conditioned process is learned, then its paths are sampled and weighed; where there is one coordinate the exact
propagator stands beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fkdrift.bridges.conditioned import Conditioned, GuidedDrift, Weighted
from fkdrift.bridges.trajectories import CHUNK, Trajectories, collect, path_adam, weigh_in_parts
from fkdrift.bridges.transition import Point, bridge_problem
from fkdrift.errors import BadParameter
from fkdrift.exact.propagator import Propagator
from fkdrift.exact.spectrum import Array
from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.potential import Potential
from fkdrift.numerics.estimates import Estimate, log_mean
from fkdrift.runs.belonging import State
from fkdrift.runs.driver import drive, made
from fkdrift.runs.methods.bridge_settings import BridgeSettings
from fkdrift.runs.of_potential import OfPotential
from fkdrift.runs.phases import Once, Training
from fkdrift.runs.report import Block, Row, effort, number
from fkdrift.runs.run import Phase
from fkdrift.runs.starting import Cost, require_first_step, require_room
from fkdrift.training.adam import Adam

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of the bands in the figure."""
REACH, N_GRID = 6.0, 800
"""How far an exact grid extends beyond the ends, in widths sigma sqrt(T), and its points: log K to about 1e-8."""
N_TIME_STEPS = 128
"""Steps of the whole time by default."""
N_TRAINED, N_FUNCTIONALS = 128, 3
"""Paths of an update, and numbers kept of a path at each time beside its position."""


class Weighing(Phase):
    """Paths of the learned process with their weights, some thousand at a time.

    Its state is the generator's before the first path: the paths follow from it, and are drawn again when it is loaded.

    Args:
        problem, drift: what is conditioned on, and the learned drift.
        n_paths: in all.
        dt: longest step.
    """

    name = "sampling"

    def __init__(self, problem: Conditioned, drift: nn.Module, n_paths: int, dt: float) -> None:
        self.problem, self.drift, self.n_paths, self.dt = problem, drift, n_paths, dt
        self.parts: list[tuple[Tensor, Weighted]] = []
        self.start: Tensor | None = None

    @property
    def step(self) -> int:
        return sum(len(log_weight) for log_weight, _ in self.parts)

    @property
    def planned(self) -> int:
        return self.n_paths

    def advance(self, generator: torch.Generator) -> None:
        self.start = generator.get_state() if self.start is None else self.start
        self._draw(min(CHUNK, self.n_paths - self.step), generator)

    def _draw(self, n: int, generator: torch.Generator) -> None:
        self.parts += weigh_in_parts(self.problem, self.drift, n, dt=self.dt, generator=generator)
        found = log_mean(torch.cat([weighted.log_weight for _, weighted in self.parts]))
        self.energy = Estimate(-found.mean, found.error)

    @property
    def trajectories(self) -> Trajectories | None:
        """All paths together, extrapolated to zero step; None before there are any."""
        return collect(self.parts, self.dt) if self.parts else None

    def results(self) -> dict[str, Any]:
        if (found := self.trajectories) is None:
            return {}
        steps = zip((self.dt, self.dt / 2), found.by_step, strict=True)
        return {
            "log_evidence": found.log_evidence.plain(),
            "elbo": found.elbo.plain(),
            "by_step": [{"dt": dt, **E.plain()} for dt, E in steps],
            "efficiency": found.efficiency,
            "n_paths": self.step,
        }

    def state_dict(self) -> State:
        return {"start": self.start, "parts": [len(log_weight) for log_weight, _ in self.parts]}

    def load_state_dict(self, state: State) -> None:
        self.start, self.parts = state["start"], []
        generator = torch.Generator()
        for n in state["parts"]:
            if not self.parts:
                generator.set_state(self.start)
            self._draw(n, generator)


class Bridge(OfPotential):
    """A bridge in the making, or done.

    Args:
        potential: V.
        settings: see `BridgeSettings`.

    Attributes:
        problem: what is conditioned on what.
        model: the learned v(t, r).

    Example:
        >>> from fkdrift.runs.driver import drive
        >>> settings = BridgeSettings(start=(-1.0,), end=(1.0,), time=2.0, dt=1 / 8, n_updates=10, n_paths=512)
        >>> print(drive(Bridge(fk.load_potential("harmonic"), settings)))
        bridge in harmonic   -1 to 1 in T = 2
        <BLANKLINE>
          log K         -2.83(5)   importance weighted, dt -> 0
          lower bound   -3.22(5)   E[log w] at dt / 2
          exact         -2.876158  sinc grid; +0.8 standard errors apart
        ...
    """

    kind, quantity, symbol = "bridge", "free_energy", "F"
    settings_class = BridgeSettings
    settings: BridgeSettings

    def __init__(self, potential: Potential, settings: BridgeSettings) -> None:
        self.potential = potential
        start, end, noise = settings.start, settings.end, settings.noise
        self.problem = bridge_problem(potential, start, end, settings.time, noise=noise, dynamics=settings.dynamics)
        dt, n_updates = settings.dt or settings.time / N_TIME_STEPS, settings.n_updates
        self._require_room(settings, dt)
        model = GuidedDrift(self.problem, width=settings.width, seed=settings.seed)
        method = self._method(settings, model, 2 * dt)
        self.weighing = Weighing(self.problem, model, settings.n_paths, dt)
        phases = [
            Training(method, torch.empty(0), n_updates=n_updates, share=0.5, once=True),
            self.weighing,
            Once("exact", self._exact_results),
        ]
        super().__init__(settings, model, torch.Generator().manual_seed(settings.seed), phases)

    def _method(self, settings: BridgeSettings, model: GuidedDrift, dt: float) -> Adam:
        options: dict[str, Any] = {"n_paths": N_TRAINED, "loss": settings.loss}
        return path_adam(self.problem, model, dt=dt, n_updates=max(1, settings.n_updates), **options)

    def _require_room(self, settings: BridgeSettings, dt: float) -> None:
        """Refuse so many steps of time where the first update would not fit, and so many paths as cannot be kept."""

        def update(n: int) -> None:
            model = GuidedDrift(self.problem, width=settings.width, seed=settings.seed)
            self._method(settings, model, settings.time / n).update(torch.empty(0), 0, torch.Generator().manual_seed(0))

        n_steps, size, cpu = math.ceil(settings.time / dt), self.problem.start.numel(), torch.device("cpu")
        remedy = f"give a longer dt than {dt:g}, or a smaller width"
        require_first_step(update, math.ceil(n_steps / 2), N_TRAINED * size * settings.width, settings, cpu, remedy)
        kept = Cost(8.0 * settings.n_paths * n_steps * (size + N_FUNCTIONALS), 0.0)
        require_room(kept, cpu, None, f"give fewer than n_paths = {settings.n_paths}, or a longer dt", "the paths")

    @property
    def trajectories(self) -> Trajectories | None:
        """The weighted paths; None before there are any."""
        return self.weighing.trajectories

    @property
    def log_evidence(self) -> Estimate | None:
        """log K, or the log of a transition density, extrapolated to zero step; None before there are any paths."""
        return None if (found := self.trajectories) is None else found.log_evidence

    @cached_property
    def propagator(self) -> Propagator | None:
        """The exact propagator where there is one coordinate, in imaginary time; otherwise None."""
        if self.settings.dynamics != "imaginary" or self.problem.start.numel() > 1:
            return None
        (a,), (b,), sigma = self.settings.start, self.settings.end, float(self.problem.reference.sigma)
        reach = REACH * sigma * self.settings.time**0.5

        def V(x: Array) -> Array:
            return self.potential(torch.from_numpy(x)[:, None, None]).double().numpy()

        found = Propagator(V, min(a, b) - reach, max(a, b) + reach, N_GRID, sigma)
        return found if np.isfinite(found.energies).all() else None

    def exact_quantiles(self, times: Sequence[float]) -> Array | None:
        """Exact quantiles (level, time) of the one coordinate, for `LEVELS`; None where they are not known."""
        if self.propagator is None:
            return None
        (a,), (b,), noise = self.settings.start, self.settings.end, self.settings.noise
        likelihood = self.propagator.gaussian(b, noise) if noise else self.propagator.point(b)
        _, densities = self.propagator.conditioned(a, [(self.settings.time, likelihood)], times)
        return self.propagator.quantiles(densities, LEVELS)

    def _exact_results(self) -> dict[str, Any]:
        if self.propagator is None:
            return {}
        (a,), (b,) = self.settings.start, self.settings.end
        kernel = self.propagator.kernel(a, b, self.settings.time, self.settings.noise)
        return {"exact": {"mean": math.log(kernel), "source": "sinc grid"}} if kernel > 0 else {}

    # What it brings to a run

    @property
    def title(self) -> str:
        return f"bridge in {self.potential.name}"

    def entries(self, found: dict[str, Any]) -> dict[str, Any]:
        return self.subject

    def plot(self) -> dict[str, Figure]:
        """The paths with their bands."""
        from fkdrift.figures.bridge import bridge_figure  # here: matplotlib takes a second to import

        if (found := self.trajectories) is None:
            return {}
        times = found.path.times[1:-1].tolist()
        title = f"{self.potential.name}, {self.settings.dynamics}"
        return {"trajectories": bridge_figure(found, title, self.exact_quantiles(times), LEVELS)}

    @staticmethod
    def block(result: Mapping[str, Any]) -> Block:
        settings, numbers, remarks, headline = result["settings"], [], [], "?"
        if "log_evidence" in result:
            found, headline = result["log_evidence"], number(result["log_evidence"])
            name = "log K" if settings["dynamics"] == "imaginary" else "log density"
            numbers += [
                Row(name, "importance weighted, dt -> 0", headline),
                Row("lower bound", "E[log w] at dt / 2", number(result["elbo"])),
            ]
            if "exact" in result:
                exact = result["exact"]
                apart = Estimate(found["mean"], found["error"]).deviation(exact["mean"])
                text = f"{exact['source']}; {apart:+.1f} standard errors apart"
                numbers.append(Row("exact", text, f"{exact['mean']:.6f}"))
            remarks.append(Row("paths", f"{result['n_paths']:,}, of which {result['efficiency']:.0%} effective"))
        ends = f"{_point(settings['start'])} to {_point(settings['end'])} in T = {settings['time']:g}"
        title = f"bridge in {result['potential']['name']}   {ends}"
        return Block(title, headline, numbers, [*remarks, *effort(result)], result["status"] == "finished")


def bridge(
    potential: str | Path | Potential | type[Potential] | Callable[[Tensor], Tensor],
    start: Point,
    end: Point,
    time: float,
    *,
    settings: BridgeSettings | None = None,
    noise: float | None = None,
    dynamics: str | None = None,
    dt: float | None = None,
    n_updates: int | None = None,
    n_paths: int | None = None,
    seed: int | None = None,
    max_seconds: float | None = None,
    out: str | Path | None = None,
    progress: bool | None = None,
    **parameters: object,
) -> Bridge:
    """Paths between two points in a given time, and how probable they are: log K(end, T | start) by a learned bridge.

    Args:
        potential: as for `solve`.
        start, end: positions (particle, dim), or as many numbers in a row; one number for one coordinate.
        time: T.
        settings: everything adjustable; the arguments override single ones, see `BridgeSettings`.
        noise, dynamics, dt, n_updates, n_paths, seed, max_seconds: see `BridgeSettings`.
        out: folder to save to.
        progress: show a live line; default: where someone is looking (a terminal or a notebook).
        parameters: of the potential, such as omega=2.0; for a callable n_particles, n_dims and so on.

    Returns:
        Bridge, with `log_evidence`, `trajectories` (the weighted paths), `plot()`, `save(folder)`.

    Raises:
        InputError: the potential, a position, a parameter or a setting is not allowed; the first step would not fit.

    Example (Mehler's formula gives -2.8762):
        >>> print(fk.bridge("harmonic", -1.0, 1.0, time=2.0, dt=1 / 8, n_updates=20, n_paths=1024).log_evidence)
        -2.86(4)
    """
    given: dict[str, Any] = {"noise": noise, "dynamics": dynamics, "dt": dt, "n_updates": n_updates, "seed": seed}
    given |= {"n_paths": n_paths, "max_seconds": max_seconds, "time": time}
    given |= {"start": _numbers("start", start), "end": _numbers("end", end)}
    chosen = {name: value for name, value in given.items() if value is not None}
    options = BridgeSettings.from_values({**({} if settings is None else settings.to_dict()), **chosen})
    loaded = load_potential(potential, **parameters)
    run = made(lambda: Bridge(loaded, options), loaded.name, options, progress)
    return drive(run, out=None if out is None else Path(out), progress=progress)


def _numbers(name: str, position: Point) -> list[float]:
    """A position as the settings have it."""
    try:
        return torch.as_tensor(position, dtype=torch.float64).flatten().tolist()
    except (TypeError, ValueError, RuntimeError):
        raise BadParameter(f"{name} = {position!r} is not a position: give a number for each coordinate") from None


def _point(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"({', '.join(f'{x:g}' for x in values)})"


METHOD = Bridge
