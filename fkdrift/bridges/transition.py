"""Imaginary-time propagators by a learned bridge, and the tunnel splitting of a symmetric double well.

    K(y, T | x) = <y| exp(-H T) |x> = E[ exp(-int V dt) delta(r_T - y) ],      Brownian paths from x,

is the evidence of `Conditioned` Brownian motion killed at the rate V, so a learned process between the two ends gives
log K with an error bar, and the paths that carry it.  In a well symmetric about 0, with its even and odd states apart,

    ln [K(a, a) + K(-a, a)] / [K(a, a) - K(-a, a)] = (E_1 - E_0) T + const,

up to higher states, exp(-(E_2 - E_0) T); the difference of two durations T removes the constant.

Reference: R. P. Feynman and A. R. Hibbs, Quantum Mechanics and Path Integrals, ch. 10; S. Coleman, Aspects of Symmetry,
ch. 7 (Cambridge, 1985).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fkdrift.bridges.conditioned import Conditioned, Measurement
from fkdrift.bridges.trajectories import infer
from fkdrift.errors import BadParameter
from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.potential import Potential
from fkdrift.numerics.estimates import Estimate
from fkdrift.paths.process import FeynmanKac, Overdamped

Point = float | Sequence[float] | Sequence[Sequence[float]] | Tensor
DYNAMICS = ("imaginary", "overdamped")


def bridge_problem(
    potential: Potential, start: Point, end: Point, time: float, *, noise: float = 0.0, dynamics: str = "imaginary"
) -> Conditioned:
    """The conditioned diffusion from `start` to `end` in a given time.

    Args:
        potential: V, also the masses.
        start, end: positions (particle, dim), or as many numbers in a row; one number for one coordinate.
        time: T.
        noise: standard deviation of the end point; 0 to pin it.
        dynamics: "imaginary" for Brownian motion killed at the rate V; "overdamped" for dr = -(sigma^2 / 2) grad V dt +
            sigma dB, the transition path of a simulation, whose evidence is the transition density.

    Raises:
        BadParameter: positions of the wrong shape or where V is not finite, a time out of range, unknown dynamics.
    """
    if dynamics not in DYNAMICS:
        raise BadParameter(f"dynamics = {dynamics!r} is not allowed: choose from {', '.join(DYNAMICS)}")
    if potential.box is not None:
        raise BadParameter(f"{potential.name} lives on a ring or torus, where a bridge may wind: use open space")
    ends = [_position(potential, "start", start), _position(potential, "end", end)]
    sigma = torch.tensor(potential.mass, dtype=torch.float64).rsqrt()[:, None]
    reference = FeynmanKac(potential, sigma) if dynamics == "imaginary" else Overdamped(potential, sigma)
    return Conditioned(reference, ends[0], (Measurement(float(time), ends[1], noise),))


def splitting(
    potential: str | Potential | Callable[[Tensor], Tensor],
    point: Point,
    times: tuple[float, float],
    *,
    noise: float = 0.0,
    seed: int = 0,
    **options: Any,
) -> Estimate:
    """The tunnel splitting E_1 - E_0 of a potential with V(r) = V(-r), from four propagators.

    Args:
        potential: a plug-in's name, a formula, a callable, or a Potential, as for `fk.solve`.
        point: a, near one of the two minima; the other end is a or -a.
        times: two durations, the first long enough for the states above the pair to have died out.
        noise: standard deviation of the end points; a broad one lets fewer high states in.
        seed: of the first propagator; the others take the seeds that follow, so that their errors are independent.
        options: of `infer`.

    Raises:
        BadParameter: K(-a, a) is not below K(a, a) within the errors: use shorter times.

    Example (exactly 0.7918):
        >>> print(splitting("double_well", 1.0, (1.0, 2.0), noise=0.5, dt=1 / 8, n_updates=4, n_paths=2048))
        0.77(4)
    """
    V, a = load_potential(potential), torch.as_tensor(point, dtype=torch.float64)
    values, variance = [], 0.0
    for k, T in enumerate(times):
        problems = [bridge_problem(V, a, end, T, noise=noise) for end in (a, -a)]
        here, there = (infer(p, seed=seed + 2 * k + j, **options).log_evidence for j, p in enumerate(problems))
        ratio = math.exp(there.mean - here.mean)
        if ratio >= 1:
            raise BadParameter(f"K(-a, a) is not below K(a, a) at T = {T:g} within the errors: use shorter times")
        values.append(math.log((1 + ratio) / (1 - ratio)))
        variance += (2 * ratio / (1 - ratio**2)) ** 2 * (here.error**2 + there.error**2)
    apart = times[1] - times[0]
    return Estimate((values[1] - values[0]) / apart, math.sqrt(variance) / apart)


def _position(potential: Potential, name: str, value: Point) -> Tensor:
    """A position (particle, dim), float64, where V is finite."""
    r = torch.as_tensor(value, dtype=torch.float64)
    shape = (potential.n_particles, potential.n_dims)
    if r.numel() != shape[0] * shape[1]:
        raise BadParameter(
            f"{name} = {r.tolist()} has {r.numel()} numbers: {potential.name} needs {shape[0] * shape[1]}"
        )
    r = r.reshape(shape)
    if not bool(r.isfinite().all()) or not bool(potential(r[None]).isfinite().all()):
        raise BadParameter(f"{name} = {r.tolist()} is not allowed: positions, and V there, must be finite")
    return r
