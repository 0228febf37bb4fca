"""A bridge that can be watched, stopped, saved and resumed: what `fkdrift bridge` does.

Two phases: learn the conditioned process, then sample and weigh its paths.  Sampling starts from the generator's state
at the end of training, so a resumed run ends, on the CPU, bit for bit where it would have ended uninterrupted.

    result.json     log K, the bound, the effective fraction     config.toml     enough to do it again
    history.csv     -ELBO at every update                        checkpoint.pt   the drift, weights_only
    figures/*.png   the paths with their bands
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fkdrift.bridges.conditioned import GuidedDrift
from fkdrift.bridges.trajectories import Trajectories, collect, path_adam, weigh_in_parts
from fkdrift.bridges.transition import bridge_problem
from fkdrift.errors import BadConfig
from fkdrift.exact.propagator import Propagator
from fkdrift.exact.spectrum import Array
from fkdrift.hamiltonian.loading import describe, load_potential
from fkdrift.hamiltonian.potential import Potential
from fkdrift.numerics.estimates import Estimate, log_mean
from fkdrift.runs.bridge_report import summary
from fkdrift.runs.ground_state import versions
from fkdrift.runs.report import progress_line
from fkdrift.runs.run import Progress
from fkdrift.runs.run_folder import make_folder, read_checkpoint, write_folder, write_history
from fkdrift.runs.settings import BridgeSettings, write_config
from fkdrift.runs.solver import CHECKPOINT_SECONDS, cpu_threads, interruptible
from fkdrift.training.loop import fit

KIND = "bridge"
COLUMNS = ("phase", "step", "free_energy", "error", "seconds")
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
REACH = 6.0
"""How far an exact grid extends beyond the ends, in widths sigma sqrt(T)."""


class BridgeRun:
    """A bridge in the making, or done.

    Args:
        potential: V.
        settings: see `BridgeSettings`.

    Attributes:
        drift: the learned v(t, r).
        trajectories: the weighted paths; None until they have been sampled.
        history: rows (update, -ELBO, error, seconds).
    """

    def __init__(self, potential: Potential, settings: BridgeSettings) -> None:
        self.potential, self.settings = potential, settings
        self.problem = bridge_problem(
            potential,
            settings.start,
            settings.end,
            settings.time,
            noise=settings.noise,
            dynamics=settings.dynamics,
        )
        self.drift = GuidedDrift(self.problem, width=settings.width, seed=settings.seed)
        self.dt = settings.dt or settings.time / 128
        n_updates, loss = settings.n_updates, settings.loss
        self.method = path_adam(self.problem, self.drift, dt=2 * self.dt, n_updates=n_updates, loss=loss)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.trajectories: Trajectories | None = None
        self.n_updates, self.wall_seconds = 0, 0.0
        self.history: list[list[float]] = []

    @property
    def finished(self) -> bool:
        """Whether everything has been done."""
        return self.trajectories is not None

    def advance(self) -> Iterator[Progress]:
        """Train and sample, yielding after every update and every few thousand paths."""
        began, before = time.perf_counter(), self.wall_seconds
        n = self.settings.n_updates
        for step in fit(self.method, torch.empty(0), n_updates=n, generator=self.generator, first=self.n_updates):
            self.n_updates = step.index
            self.wall_seconds = before + time.perf_counter() - began
            self.history.append([step.index, step.energy.mean, step.energy.error, self.wall_seconds])
            yield Progress(
                "training", step.index, n, step.energy, self.wall_seconds - before, spread=step.standard_deviation
            )
        generator = torch.Generator()
        generator.set_state(self.generator.get_state())
        parts, n = [], self.settings.n_paths
        for part in weigh_in_parts(self.problem, self.drift, n, dt=self.dt, generator=generator):
            parts.append(part)
            self.wall_seconds = before + time.perf_counter() - began
            fine = torch.cat([weighted.log_weight for _, weighted in parts])
            found = log_mean(fine)
            if len(fine) == n:
                self.trajectories = collect(parts, self.dt)
            yield Progress("sampling", len(fine), n, Estimate(-found.mean, found.error), self.wall_seconds - before)

    @cached_property
    def line(self) -> Propagator | None:
        """The exact propagator where there is one coordinate, in imaginary time; otherwise None."""
        if self.settings.dynamics != "imaginary" or self.problem.start.numel() > 1:
            return None
        (a,), (b,), sigma = self.settings.start, self.settings.end, float(self.problem.reference.sigma)
        reach = REACH * sigma * self.settings.time**0.5

        def V(x: Array) -> Array:
            return self.potential(torch.from_numpy(x)[:, None, None]).double().numpy()

        line = Propagator(V, min(a, b) - reach, max(a, b) + reach, 800, sigma)
        return line if np.isfinite(line.energies).all() else None

    def exact_quantiles(self, times: Sequence[float]) -> Array | None:
        """Exact quantiles (level, time) of the one coordinate, for `LEVELS`; None where they are not known."""
        if self.line is None:
            return None
        (a,), (b,), noise = self.settings.start, self.settings.end, self.settings.noise
        likelihood = self.line.gaussian(b, noise) if noise else self.line.point(b)
        _, densities = self.line.conditioned(a, [(self.settings.time, likelihood)], times)
        return self.line.quantiles(densities, LEVELS)

    @property
    def result(self) -> dict[str, Any]:
        """What result.json holds."""
        result: dict[str, Any] = {
            "potential": describe(self.potential),
            "status": "finished" if self.finished else "interrupted",
            "settings": self.settings.to_dict(),
            "versions": versions(),
            "wall_seconds": self.wall_seconds,
            "n_parameters": sum(p.numel() for p in self.drift.parameters()),
            "n_updates": self.n_updates,
        }
        if self.trajectories is not None:
            found = self.trajectories
            result["log_evidence"] = _plain(found.log_evidence)
            result["elbo"] = _plain(found.elbo)
            result["by_step"] = [
                {"dt": dt, **_plain(E)} for dt, E in zip((self.dt, self.dt / 2), found.by_step, strict=True)
            ]
            result["efficiency"] = found.efficiency
            if self.line is not None:
                (a,), (b,) = self.settings.start, self.settings.end
                kernel = self.line.kernel(a, b, self.settings.time, self.settings.noise)
                if kernel > 0:
                    result["exact"] = {"mean": math.log(kernel), "source": "sinc grid"}
        return result

    def save(self, folder: str | Path, figures: bool = True) -> Path:
        """Write result.json, config.toml, history.csv, checkpoint.pt and figures/*.png; returns the folder."""
        folder = Path(folder)
        others = {
            "config.toml": lambda path: write_config(path, self.settings, potential=describe(self.potential)),
            "history.csv": lambda path: write_history(path, COLUMNS, (["training", *row] for row in self.history)),
        }
        write_folder(folder, self.state_dict(), self.result, others)
        if figures and self.trajectories is not None:
            from fkdrift.figures.bridge import bridge_figure  # here: matplotlib takes a second to import
            from fkdrift.figures.ground_state import save_figures

            times = self.trajectories.path.times[1:-1].tolist()
            title = f"{self.potential.name}, {self.settings.dynamics}"
            figure = bridge_figure(self.trajectories, title, self.exact_quantiles(times), LEVELS)
            save_figures({"trajectories": figure}, folder / "figures")
        return folder

    def state_dict(self) -> dict[str, Any]:
        """The whole state but the sampled paths, which follow from it."""
        return {
            "kind": KIND,
            "potential": describe(self.potential),
            "settings": self.settings.to_dict(),
            "drift": self.drift.state_dict(),
            "method": self.method.state_dict(),
            "generator": self.generator.get_state(),
            "history": torch.tensor(self.history, dtype=torch.float64).reshape(-1, 4),
            "n_updates": self.n_updates,
            "seconds": self.wall_seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state.

        Raises:
            BadConfig: it does not fit these settings.
        """
        try:
            self.drift.load_state_dict(state["drift"])
            self.method.load_state_dict(state["method"])
            self.generator.set_state(state["generator"])
            self.history = state["history"].tolist()
            self.n_updates, self.wall_seconds = state["n_updates"], state["seconds"]
        except (KeyError, RuntimeError, TypeError, AttributeError, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise BadConfig(f"the checkpoint does not fit these settings: {reason}") from None

    def __str__(self) -> str:
        return summary(self.result)


def drive(run: BridgeRun, *, out: Path | None = None, progress: bool | None = None) -> BridgeRun:
    """Advance to the end, or until interrupted, showing progress and saving to `out`."""
    if out is not None:
        make_folder(out)
    saved = time.monotonic()
    with cpu_threads(1), interruptible() as interrupted:
        with progress_line(f"bridge in {run.potential.name}", progress, "F") as show:
            for step in run.advance():
                show(step)
                if interrupted():
                    break
                if out is not None and time.monotonic() - saved > CHECKPOINT_SECONDS:
                    run.save(out, figures=False)
                    saved = time.monotonic()
        if out is not None:
            run.save(out)
    return run


def load_bridge(folder: str | Path) -> BridgeRun:
    """A saved bridge, ready to go on.

    Raises:
        BadConfig: the folder is no saved bridge, or is damaged.
    """
    state = read_checkpoint(Path(folder))
    if state.get("kind") != KIND:
        raise BadConfig(f"{folder} holds no bridge: a run of `fkdrift solve` goes on with `fkdrift resume`")
    described, values = state["potential"], state["settings"]
    if not described.get("reloadable", True):
        raise BadConfig(f"{folder} was made from a Python callable, which a file cannot hold")
    run = BridgeRun(
        load_potential(described["name"], **described.get("parameters", {})), BridgeSettings.from_values(values)
    )
    run.load_state_dict(state)
    return run


def _plain(estimate: Estimate) -> dict[str, float]:
    return {"mean": estimate.mean, "error": estimate.error}
