"""The plain Feynman-Kac formula: a wavefunction in imaginary time as an average over Brownian paths.

    psi(r2, t2) = E[ exp(-int_0^t2 V(r_t) dt) psi_1(r_0) ],      dr = sigma dB,  r_t2 = r2,

solves d psi / dt = -H psi with psi(r, 0) = psi_1(r).  Brownian motion is reversible, so the paths are run backwards
from r2.  With T the weights exp(-int V) become ever more unequal, and a few paths carry the average; any process with
a drift v gives the same average with the weights exp(-l_T), and with v = sigma^2 grad log phi_0 they are equal but
for the two ends:

    psi(r2, t2) = E_v[ exp(-l_T + W(r2) - W(r_0)) psi_1(r_0) ],      W = log phi_ref, 0 without a reference.

Reference: M. Kac, Trans. Amer. Math. Soc. 65, 1 (1949).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fkdrift.errors import BadParameter
from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.potential import Potential
from fkdrift.hamiltonian.system import System
from fkdrift.numerics.estimates import Estimate, from_walkers
from fkdrift.numerics.log_weights import effective_sample_size
from fkdrift.paths.evolution import Shared, evolve
from fkdrift.paths.process import FeynmanKac, Process
from fkdrift.tensor_types import Positions

Amplitude = Callable[[Tensor], Tensor]
STEPS = 64  # of the coarse run by default; the fine one has twice as many
ROUNDING = 1e-9  # of a time that is a multiple of dt but for rounding: no step is added


def feynman_kac(
    potential: str | Potential | Callable[[Tensor], Tensor],
    position: float | list[float] | Tensor,
    time: float,
    *,
    initial: Amplitude | None = None,
    process: Process | None = None,
    n_paths: int = 8192,
    dt: float | None = None,
    seed: int = 0,
    **parameters: Any,
) -> Estimate:
    """psi(r2, t2) = <r2| exp(-H t2) |psi_1> as an average over paths, extrapolated to zero step.

    Args:
        potential: V, as for `fk.solve`.
        position: r2, (particle, dim), or as many numbers in a row.
        time: t2.
        initial: psi_1, real and of any sign, (batch, particle, dim) to (batch,); default 1 everywhere.
        process: sample with its drift instead of Brownian motion: `fk.solve(...).process`.
        n_paths: independent paths.
        dt: the longer of the two steps of the extrapolation, which share their Brownian paths; default time / 64.
        seed: of the noise.
        parameters: of the potential.

    Returns:
        Estimate, with the effective number of paths.

    Raises:
        BadParameter: a time or step out of range, a position of the wrong shape.
        DivergedPath: paths left every finite range.

    Example (V = x^2/2 and psi_1 = 1: psi = exp(-x^2 tanh(t) / 2) / sqrt(cosh t) = 0.5501955 at x = t = 1):
        >>> print(feynman_kac("harmonic", 1.0, 1.0))
        0.553(3)
    """
    loaded = load_potential(potential, **parameters)
    dt = time / STEPS if dt is None else dt
    if not (0 < time < math.inf and 0 < dt <= time):
        raise BadParameter(f"time = {time}, dt = {dt} is not allowed: both must be positive, and dt at most the time")
    sampler = brownian(loaded) if process is None else process
    r2 = _position(loaded, position, sampler.sigma)
    n_steps = math.ceil(time / dt * (1 - ROUNDING))
    generator = torch.Generator(r2.device)
    values = []
    for refine in (1, 2):
        generator.manual_seed(seed)
        log_weight, r1 = _weights(
            sampler, r2.expand(n_paths, *r2.shape), n_steps * refine, time / (n_steps * refine), generator, 2 // refine
        )
        psi_1 = torch.ones_like(log_weight[-1]) if initial is None else initial(r1[-1])
        values.append(log_weight[-1].double().exp() * psi_1.double())
    coarse, fine = values
    mean = from_walkers(2 * fine - coarse)
    n_effective = fine.sum().square() / fine.square().sum()
    return Estimate(mean.mean, mean.error, n_effective.item())


def effective_fraction(
    process: Process,
    position: Tensor,
    time: float,
    *,
    initial: Amplitude,
    n_times: int = 32,
    steps_per_time: int = 4,
    n_paths: int = 4096,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """How large a fraction of the paths still counts after a time t, for n_times values up to `time`.

    Args:
        process: Brownian motion, `brownian(potential)`, or one with a drift.
        position: r2, (particle, dim).
        time: the longest.
        initial: psi_1 >= 0.  It should fall off, or no variance exists for a process that stays in a bound state.
        n_times, steps_per_time, n_paths: how many.
        generator: source of the noise.

    Returns:
        Times (time,) and fractions (time,), between 1 / n_paths and 1.
    """
    start = position.expand(n_paths, *position.shape)
    n_steps = n_times * steps_per_time
    log_weight, r1 = _weights(process, start, n_steps, time / n_steps, generator, 1, n_times)
    amplitude = torch.stack([initial(r) for r in r1]).double()
    fractions = effective_sample_size((log_weight.double() + amplitude.log()).T)
    return time * torch.arange(1, n_times + 1, dtype=torch.float64) / n_times, fractions


def brownian(potential: Potential, dtype: torch.dtype = torch.float64) -> Process:
    """Brownian motion killed at the rate V: the measure of the plain formula, as a process without drift."""
    sigma = torch.tensor(potential.mass, dtype=dtype).rsqrt()[:, None]
    return Process(torch.zeros_like, FeynmanKac(potential, sigma))


@torch.no_grad()
def _weights(
    process: Process,
    r2: Positions,
    n_steps: int,
    dt: float,
    generator: torch.Generator,
    substeps: int,
    n_saved: int = 1,
) -> tuple[Tensor, Tensor]:
    """Log weights (time, batch), and positions (time, batch, particle, dim) for psi_1, at the saved times."""
    options: dict[str, Any] = {"generator": generator, "noise": Shared(substeps), "n_saved": n_saved, "start": 0.0}
    path = evolve(process, r2, n_steps=n_steps, dt=dt, **options)
    log_weight, r1 = -path.action[1:], path.positions[1:]
    W = process.reference.trial_function if isinstance(process.reference, System) else None
    if W is not None:
        log_weight = log_weight + W(r2) - torch.stack([W(r) for r in r1])
    return log_weight, r1


def _position(potential: Potential, value: float | list[float] | Tensor, like: Tensor) -> Tensor:
    """A position (particle, dim) of the process's dtype and device."""
    r = torch.as_tensor(value).to(like)
    shape = (potential.n_particles, potential.n_dims)
    if r.numel() != shape[0] * shape[1] or not bool(r.isfinite().all()):
        raise BadParameter(
            f"position = {r.tolist()} is not allowed: {potential.name} needs {shape[0] * shape[1]} finite numbers"
        )
    return r.reshape(shape)
