"""Paths: the rows of the generative benchmark on conditioned diffusions, each against an exact number.

    python tests/benchmarks/generative.py --only ou-bridge trajectories fk-bridge splitting feynman-kac committor

Exact numbers are closed forms, or the grid propagator of `fkdrift.exact.propagator`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))

import fkdrift as fk
from fkdrift.bridges.conditioned import Conditioned, Measurement
from fkdrift.bridges.trajectories import infer, weigh
from fkdrift.bridges.transition import bridge_problem, splitting
from fkdrift.exact.committor import committor
from fkdrift.hamiltonian.system import Rates
from fkdrift.numerics.estimates import Estimate
from fkdrift.paths.entropy_production import entropy_production
from fkdrift.paths.process import FeynmanKac, Overdamped, Process
from fkdrift.paths.transitions import transitions
from tests.wells import double_well, imaginary_line, overdamped_line

ONE = torch.ones(1, 1, dtype=torch.float64)


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, what it should be, and whether it is."""

    name: str
    measured: str
    target: str
    passed: bool


@dataclass(frozen=True)
class Restoring:
    """dz = -z dt + dB."""

    sigma: Tensor

    def rates(self, r: Tensor) -> Rates:
        return Rates(-r, r.new_zeros(len(r)))


class Posterior(nn.Module):
    """The exact drift on top of -z towards y = 1.5 at T = 2, seen with variance 0.04."""

    def forward(self, t: Tensor, r: Tensor) -> Tensor:
        e = math.exp(float(t) - 2)
        return e * (1.5 - r * e) / (0.04 + (1 - e**2) / 2)


def ou_bridge() -> list[Row]:
    """z(0) = -1, dz = -z dt + dB, y = 1.5 +- 0.2 at T = 2."""
    problem = Conditioned(Restoring(ONE), -ONE, (Measurement(2.0, 1.5 * ONE, 0.2),))
    mean, variance = -math.exp(-2), (1 - math.exp(-4)) / 2 + 0.04
    exact = -((1.5 - mean) ** 2) / (2 * variance) - math.log(2 * math.pi * variance) / 2
    generator = torch.Generator().manual_seed(0)
    found = weigh(problem, Posterior(), 65536, dt=1 / 64, generator=generator).log_evidence
    spreads = [
        problem.follow(Posterior(), 16384, dt=dt, generator=generator).log_weight.std().item()
        for dt in (1 / 128, 1 / 512)
    ]
    learned = infer(problem, dt=1 / 64, n_paths=32768)
    return [
        Row("OU bridge, exact drift", f"log Z {found}", f"{exact:.4f} +- 0.01", _near(found, exact, 0.01)),
        Row(
            "OU bridge, spread of log w",
            f"{spreads[0]:.3f} -> {spreads[1]:.3f} for dt / 4",
            "ratio 2",
            1.8 < spreads[0] / spreads[1] < 2.2,
        ),
        Row(
            "OU bridge, learned drift",
            f"log Z {learned.log_evidence}, ESS {learned.efficiency:.2f}",
            f"{exact:.4f} +- 0.01",
            _near(learned.log_evidence, exact, 0.01),
        ),
    ]


def trajectories() -> list[Row]:
    """dz = -U'/2 dt + dW in U = (x^2 - 1)^2 from -1, y = 1 +- 0.1 at T = 4."""
    simulation = Overdamped(fk.load_potential("double_well"), ONE)
    problem = Conditioned(simulation, -ONE, (Measurement(4.0, ONE, 0.1),))
    found = infer(problem, dt=1 / 32, n_updates=150, n_paths=16384)
    line = overdamped_line()
    end = line.gaussian(1.0, 0.1) * np.exp(-double_well(line.x) / 2)
    exact = math.log(line.at(line.propagate(end, 4.0), -1.0))
    gap = exact - found.elbo.mean
    return [
        Row(
            "double-well trajectories",
            f"log Z {found.log_evidence}, ESS {found.efficiency:.2f}",
            f"{exact:.4f} +- 0.03",
            _near(found.log_evidence, exact, 0.03),
        ),
        Row("  gap of the ELBO", f"{gap:.3f} at dt = 1/64", "<= 0.2", 0 < gap <= 0.2),
    ]


def fk_bridge() -> list[Row]:
    """Brownian motion killed at the rate (x^2 - 1)^2, same ends."""
    found = infer(bridge_problem(fk.load_potential("double_well"), -1.0, 1.0, 4.0, noise=0.1), n_paths=16384)
    exact = math.log(imaginary_line().kernel(-1.0, 1.0, 4.0, 0.1))
    value = f"log K {found.log_evidence}, ESS {found.efficiency:.2f}"
    return [Row("Feynman-Kac bridge", value, f"{exact:.4f} +- 0.03", _near(found.log_evidence, exact, 0.03))]


def tunnel_splitting() -> list[Row]:
    """E_1 - E_0 of (x^2 - 1)^2 from K(a, a) and K(-a, a) at two durations."""
    found = splitting("double_well", 1.0, (1.5, 3.0), noise=0.5, dt=1 / 32, n_paths=65536)
    exact = 0.7918480793
    return [Row("tunnel splitting", str(found), f"{exact:.6f} +- 2 %", _near(found, exact, 0.02 * exact))]


def plain_formula() -> list[Row]:
    """psi(0.7, 2) in the double well from exp(-x^2 / 2), by Brownian paths."""
    found = fk.feynman_kac("double_well", 0.7, 2.0, initial=_bell, n_paths=65536)
    line = imaginary_line()
    exact = line.at(line.propagate(np.exp(-(line.x**2) / 2), 2.0), 0.7)
    return [Row("plain Feynman-Kac", str(found), f"{exact:.6f} +- 4 errors", abs(found.deviation(exact)) < 4)]


def swirl() -> list[Row]:
    """dr = (-1 + J) r dt + dB in the plane: entropy production 2."""
    J = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    process = Process(lambda r: -r + r @ J.T, FeynmanKac(lambda r: 0 * r.sum((-2, -1)), ONE))
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(65536, 1, 2, generator=generator, dtype=torch.float64) / 2**0.5
    found = entropy_production(process, samples)
    return [Row("irreversibility of a swirl", str(found), "2 +- 4 errors", abs(found.deviation(2.0)) < 4)]


def _bell(r: Tensor) -> Tensor:
    return (-r.square().sum((-2, -1)) / 2).exp()


def committors() -> list[Row]:
    """Transitions of the double well at kT = 1/2 between -0.8 and 0.8 against the Fokker-Planck equation."""
    simulation, dt = Process(torch.zeros_like, Overdamped(fk.load_potential("double_well"), ONE, 0.5)), 1 / 128
    g = torch.Generator().manual_seed(0)
    r = torch.where(torch.rand(2000, 1, 1, generator=g) < 0.5, -ONE, ONE)
    r = fk.evolve(simulation, r, n_steps=400, dt=dt, generator=g).positions[-1]
    path = fk.evolve(simulation, r, n_steps=5000, n_saved=5000, dt=dt, generator=g).positions[:, :, 0, 0]
    exact = committor(lambda x: (x**2 - 1) ** 2, -0.8, 0.8, -3.0, 3.0, temperature=0.5)
    found = transitions(path, dt, -0.8, 0.8, sigma=1.0, n_bins=16)
    plain = transitions(path, dt, -0.8, 0.8)
    q = np.interp(found.places, exact.x, exact.q)
    worst = max(abs(estimate.mean - known) for estimate, known in zip(found.committor, q, strict=True))
    rows = [
        Row(
            f"{name} of transitions",
            f"{value}; {without} unshifted",
            f"{known:.5g} +- 3 %",
            _near(value, known, 0.03 * known),
        )
        for name, value, without, known in (
            ("duration", found.duration, plain.duration, exact.duration),
            ("flux", found.flux, plain.flux, exact.flux),
        )
    ]
    return [*rows, Row("committor, worst of 16 bins", f"{worst:.4f}", "<= 0.02", worst <= 0.02)]


def _near(found: Estimate, exact: float, within: float) -> bool:
    return abs(found.mean - exact) <= within


ROWS: dict[str, Callable[[], list[Row]]] = {
    "ou-bridge": ou_bridge,
    "trajectories": trajectories,
    "fk-bridge": fk_bridge,
    "splitting": tunnel_splitting,
    "feynman-kac": plain_formula,
    "irreversibility": swirl,
    "committor": committors,
}
