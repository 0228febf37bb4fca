"""What each part of the training buys: error of the energy against CPU seconds, with and without the h-transform.

    python tests/benchmarks/ablation.py                        twelve curves of 40 CPU seconds on one core, the figure
    python tests/benchmarks/ablation.py --only helium/natural  some curves again; the others are kept from before

For helium and for 4 bosons with g = 15, the same network and 1024 walkers are trained by

    Adam on paths      the path free energy, differentiated through the trajectory (pathwise_adam)
    Adam on E_L        2 Cov(d_theta f, E_L) at Metropolis samples, the gradient that the next one starts from too
    natural gradient   in path space (NaturalGradient), the default of `fkdrift solve`

and each again without the h-transform: the potential's own trial_function is hidden, which leaves the Gaussian of
lowest energy.  The network and its features stay the same.  The clock is CPU time of the updates alone.  It stands
still while the energy is measured: the mean of E_L over |psi|^2, with Metropolis-adjusted steps, for every curve
alike; for the natural gradient at the average of its iterates, which is what it would return if stopped there.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.style import context
from torch import Tensor

from fkdrift.errors import DivergedPath
from fkdrift.estimators.local_energy import StationarySampler
from fkdrift.figures.palette import DPI, PARTICLES, POTENTIAL, STYLE
from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.potential import Potential
from fkdrift.hamiltonian.system import System
from fkdrift.numerics.estimates import Estimate
from fkdrift.paths.process import Process
from fkdrift.runs.settings import Settings
from fkdrift.tensor_types import Positions
from fkdrift.training.adam import Adam, Evaluation
from fkdrift.training.energy_gradients import MetropolisSamples
from fkdrift.training.loop import Optimiser, fit, parameters_of
from fkdrift.training.natural_gradient import NaturalGradient
from fkdrift.training.pathwise import pathwise_adam
from fkdrift.wavefunction.neural import NeuralWavefunction

FIGURE = Path(__file__).parents[2] / "docs/figures/ablation.png"
SYSTEMS = {"helium": {}, "gaussian_bosons": {"n_particles": 4, "g": 15.0}}
TITLES = {"helium": "helium, E$_0$ = −2.903724", "gaussian_bosons": "4 bosons in 2D, g = 15, E$_0$ = 7.6272"}
METHODS = {"natural": "natural gradient", "local": "Adam on E$_L$", "pathwise": "Adam on paths"}
COLOURS = dict(zip(METHODS, (PARTICLES[0], PARTICLES[1], PARTICLES[2]), strict=True))
REFERENCES = ("h-transform", "bare")
N_WALKERS, N_BLOCKS, N_POINTS = 1024, 60, 10


@dataclass(frozen=True)
class Bare(Potential):
    """Another potential without its reference, so that System falls back on the Gaussian of lowest energy."""

    inner: Potential

    def __call__(self, r: Positions) -> Tensor:
        return self.inner(r)

    @property
    def n_particles(self) -> int:  # type: ignore[override]
        return self.inner.n_particles

    @property
    def n_dims(self) -> int:  # type: ignore[override]
        return self.inner.n_dims

    @property
    def mass(self) -> tuple[float, ...]:
        return self.inner.mass

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        return self.inner.groups

    @property
    def isotropic(self) -> bool:
        return self.inner.isotropic

    @property
    def nuclei(self) -> tuple[tuple[float, ...], ...]:
        return self.inner.nuclei

    @property
    def coalescence(self) -> bool:
        return self.inner.coalescence


def local_energy_adam(
    process: Process, *, time_scale: float, n_updates: int, learning_rate: float = 0.01, n_moves: int = 5
) -> Adam:
    """Adam on g = 2 Cov(d_theta f, E_L) at Metropolis samples of |psi|^2: variational Monte Carlo as most codes do it.

    Args:
        process: its drift, a wavefunction, is trained.
        time_scale: of the system.
        n_updates: length of the schedule.
        learning_rate: at the start.
        n_moves: Metropolis-adjusted steps between updates.
    """
    source, parameters = MetropolisSamples(n_moves, clip=5.0), parameters_of(process)

    def evaluate(walkers: Positions, index: int, generator: torch.Generator) -> Evaluation:
        found = source.gradient(process, parameters, time_scale, walkers, index, generator)
        theta = torch.nn.utils.parameters_to_vector(parameters)
        return Evaluation(found.gradient.dot(theta), found.energies, found.walkers)

    options = {"n_updates": n_updates, "learning_rate": learning_rate, "betas": (0.9, 0.99), "warm_up": 1}
    return Adam(parameters, evaluate, max_norm=torch.inf, **options)


class Training:
    """One curve: a system, with or without its reference, and a method with its schedule.

    Args:
        system, method, reference: keys of SYSTEMS, METHODS and REFERENCES.
        n_updates: length of the schedules of Adam.
        seed: of network, walkers and noise.
    """

    def __init__(self, system: str, method: str, reference: str, n_updates: int, seed: int) -> None:
        potential = load_potential(system, **SYSTEMS[system])
        self.known = potential.known_energy
        self.system = System(potential if reference == "h-transform" else Bare(potential))
        torch.manual_seed(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.drift = NeuralWavefunction(self.system)
        self.process = Process(self.drift, self.system)
        self.walkers = self.system.initial_walkers(N_WALKERS, self.generator)
        self.method = self._method(method, n_updates)
        self.n_updates = n_updates

    def _method(self, method: str, n_updates: int) -> Optimiser:
        settings, tau = Settings(), self.system.time_scale
        if method == "natural":
            return NaturalGradient(self.process, MetropolisSamples(settings.n_moves), time_scale=tau)
        if method == "local":
            return local_energy_adam(self.process, time_scale=tau, n_updates=n_updates, n_moves=settings.n_moves)
        dt = (settings.coarse_step * tau, settings.fine_step * tau)
        return pathwise_adam(self.process, n_steps=settings.n_steps, dt=dt, n_updates=n_updates)

    def energy(self, walkers: Positions) -> Estimate:
        """The mean of E_L for what training would return now; nothing of the training itself changes."""
        drift = copy.deepcopy(self.drift)
        if isinstance(self.method, NaturalGradient):
            torch.nn.utils.vector_to_parameters(self.method.average.clone(), list(drift.parameters()))
        process, generator = Process(drift, self.system), torch.Generator().manual_seed(1)
        sampler = StationarySampler(process, walkers, time_scale=self.system.time_scale, n_equilibration=12)
        while sampler.n_blocks < N_BLOCKS:
            sampler.advance(generator)
        return sampler.energy().energy

    def curve(self, seconds: float) -> list[list[float]]:
        """Rows of CPU seconds, updates, E - E_0 and its error, at times that grow geometrically up to the limit."""
        assert self.known is not None
        marks = [seconds * 0.02 ** (1 - k / (N_POINTS - 1)) for k in range(N_POINTS)]
        rows, spent = [], 0.0
        start = time.process_time()
        try:
            for step in fit(self.method, self.walkers, n_updates=self.n_updates, generator=self.generator):
                spent += time.process_time() - start
                if spent >= marks[0] or step.index == self.n_updates:
                    energy = self.energy(step.update.walkers)
                    rows.append([spent, step.index, energy.mean - self.known.value, energy.error])
                    print(
                        f"    {spent:6.1f} s  {step.index:6d} updates  {rows[-1][2]:+.5f}({energy.error:.5f})",
                        flush=True,
                    )
                    marks = [mark for mark in marks if mark > spent] or [math.inf]
                if spent >= seconds:
                    break
                start = time.process_time()
        except DivergedPath as error:
            print(f"    ended: {error}")
        return rows

    def seconds_per_update(self) -> float:
        """CPU time of an update, from the fastest of a few (this changes the drift)."""
        walkers, times = self.walkers, []
        for index in range(6):
            start = time.process_time()
            walkers = self.method.update(walkers, index, self.generator).walkers
            times.append(time.process_time() - start)
        return sorted(times)[2]


def measure(system: str, method: str, reference: str, seconds: float, seed: int) -> list[list[float]]:
    """One curve, its schedule set so that it ends with the time."""
    torch.set_num_threads(1)
    n_updates = max(20, int(seconds / Training(system, method, reference, 1000, seed).seconds_per_update()))
    return Training(system, method, reference, n_updates, seed).curve(seconds)


def draw(curves: dict[str, list[list[float]]]) -> None:
    """Two panels, one for each system; hollow markers where the deviation is within two of its error bars."""
    with context(STYLE):
        figure = Figure(figsize=(9.6, 4.4), layout="constrained")
        panels = figure.subplots(1, len(SYSTEMS))
        for axes, system in zip(panels, SYSTEMS, strict=True):
            for method, label in METHODS.items():
                for reference in REFERENCES:
                    rows = curves.get(f"{system}/{method}/{reference}", [])
                    _line(axes, rows, COLOURS[method], reference == "bare", label)
            axes.set(xscale="log", yscale="log", title=TITLES[system], xlabel="CPU seconds of training, one core")
        panels[0].axhline(1.6e-3, color=POTENTIAL, lw=0.8, ls=":")
        panels[0].annotate("chemical accuracy", (1, 1.6e-3), xycoords=("axes fraction", "data"), xytext=(-2, 3),
                           textcoords="offset points", ha="right", fontsize=8, color=POTENTIAL)  # fmt: skip
        panels[0].set_ylabel("|E − E$_0$|")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        figure.savefig(FIGURE, dpi=DPI)


def _line(axes: Any, rows: list[list[float]], colour: str, bare: bool, label: str) -> None:
    times, _, deviations, errors = zip(*rows, strict=True) if rows else ((), (), (), ())
    sizes = [max(abs(d), 1e-6) for d in deviations]
    face = [colour if abs(d) > 2 * e else "white" for d, e in zip(deviations, errors, strict=True)]
    name = f"{label}, {'no reference' if bare else 'h-transform'}"
    axes.plot(times, sizes, color=colour, lw=1.4, ls="--" if bare else "-", label=name)
    axes.scatter(times, sizes, s=22, c=face, edgecolors=colour, linewidths=1.1, zorder=3, marker="s" if bare else "o")


def table(curves: dict[str, list[list[float]]]) -> str:
    """The last point of each curve, as markdown."""
    lines = ["| system | training | reference | CPU s | updates | E - E_0 |", "| --- | --- | --- | --- | --- | --- |"]
    for name, rows in sorted(curves.items()):
        system, method, reference = name.split("/")
        label = {"natural": "natural gradient", "local": "Adam on E_L", "pathwise": "Adam on paths"}[method]
        seconds, updates, deviation, error = rows[-1] if rows else (0, 0, math.nan, math.nan)
        lines.append(
            f"| {system} | {label} | {reference} | {seconds:.0f} | {updates:.0f} | {deviation:+.5f} +- {error:.5f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=40.0, help="CPU seconds of training for each curve")
    parser.add_argument("--only", default="", metavar="TEXT", help="curves whose system/method/reference contains this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "fkdrift_ablation.json")
    parser.add_argument("--curve", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    curves = json.loads(arguments.data.read_text()) if arguments.data.exists() else {}
    if arguments.curve:
        curves["/".join(arguments.curve)] = measure(*arguments.curve, arguments.seconds, arguments.seed)
        arguments.data.write_text(json.dumps(curves))
        return
    for name in (f"{s}/{m}/{r}" for s in SYSTEMS for m in METHODS for r in REFERENCES):
        if arguments.only in name:
            print(name, flush=True)
            shared = ["--seconds", str(arguments.seconds), "--seed", str(arguments.seed), "--data", str(arguments.data)]
            subprocess.run([sys.executable, __file__, "--curve", *name.split("/"), *shared], check=True)
    curves = json.loads(arguments.data.read_text())
    draw(curves)
    print(table(curves))


if __name__ == "__main__":
    main()
