"""Trajectories and their action, by torchsde's Euler-Maruyama on an augmented state.

Positions, int u . dB, int |u|^2 / 2 dt and int c dt (c: killing rate) ride in one state vector, so a step costs one
evaluation of the drift, needs no diffusion matrix, and is differentiable.  Along the path

    l_T = int u . dB + int ( |u|^2 / 2 + c ) dt      (left-point, Ito),

and for a system with reference W:  log dP_v / dP_FK = l_T - E0 T + [log phi_0 - W](r_0) - [log phi_0 - W](r_T).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchsde
from torch import Tensor

from fkdrift.errors import DivergedPath
from fkdrift.process import Process
from fkdrift.shapes import Accumulated, History, Positions

N_FUNCTIONALS = 3


@dataclass(frozen=True)
class Path:
    """Positions and path functionals at the saved times; the first saved time is the start, where functionals are 0.

    Args:
        times: (time,) float64, from 0.
        positions: (time, batch, particle, dim).
        ito: int u . dB up to each time, (time, batch).
        control: int |u|^2 / 2 dt, (time, batch).
        cost: int c dt, with c the killing rate of the reference measure, (time, batch).
    """

    times: Tensor
    positions: History
    ito: Accumulated
    control: Accumulated
    cost: Accumulated

    @property
    def duration(self) -> float:
        """T, the length of the path in time."""
        return float(self.times[-1])

    @property
    def log_ratio(self) -> Accumulated:
        """log dP_v / dP_ref along the path, int u . dB + int |u|^2 / 2 dt, (time, batch)."""
        return self.ito + self.control

    @property
    def action(self) -> Accumulated:
        """l_T, the log ratio plus the cost, (time, batch)."""
        return self.log_ratio + self.cost

    @property
    def end(self) -> Positions:
        """Final positions (batch, particle, dim), detached: where the next path starts."""
        return self.positions[-1].detach()


def evolve(
    process: Process,
    walkers: Positions,
    *,
    n_steps: int,
    dt: float,
    generator: torch.Generator,
    n_saved: int = 1,
    substeps: int = 1,
    score_free: bool = False,
) -> Path:
    """Run walkers for n_steps Euler-Maruyama steps of length dt, accumulating the path action.

    Differentiable with respect to the drift's parameters and the starting positions unless under torch.no_grad().

    Args:
        process: the process to follow.
        walkers: starting positions (batch, particle, dim).
        n_steps, dt: number and length of the steps; T = n_steps dt.
        generator: the source of the noise, on the walkers' device.
        n_saved: how many times to save after the start, evenly spaced; must divide n_steps.
        substeps: draw each Brownian increment as the sum of this many finer ones, so that runs with steps
            dt, dt/2, ... from the same generator state follow the same Brownian path.
        score_free: leave the score int d_theta u . dB out of gradients.  Its mean is zero and its variance is not:
            without it the gradient of the free energy vanishes path by path at the optimum ("sticking the landing",
            Roeder, Wu and Duvenaud, NeurIPS 2017).

    Raises:
        DivergedPath: positions or the action are no longer finite; the path so far is in `partial`.

    Example (v = -r as a free drift on Brownian motion; the Euler chain has E[l_T] / T = 1 / (2 - dt) = 0.512821):
        >>> process = Process(lambda r: -r, FeynmanKac(load_potential("harmonic"), torch.ones(1, 1)))
        >>> r0 = torch.randn(4096, 1, 1, generator=(g := torch.Generator().manual_seed(0)))
        >>> path = evolve(process, r0, n_steps=400, dt=0.05, generator=g)
        >>> energy = path.action[-1].mean() / path.duration
    """
    if n_steps < 1 or n_steps % n_saved:
        raise ValueError(f"n_steps = {n_steps} must be a positive multiple of n_saved = {n_saved}")
    shape = walkers.shape[1:]
    noise = WhiteNoise(walkers.shape[0], shape.numel(), walkers, generator, substeps)
    start = torch.cat([walkers.flatten(1), walkers.new_zeros(len(walkers), N_FUNCTIONALS)], 1)
    times = torch.arange(n_saved + 1, dtype=torch.float64) * (n_steps // n_saved) * dt
    with torch.random.fork_rng(devices=[]):  # torchsde probes shapes with numbers from the global generator
        states = torchsde.sdeint(_Augmented(process, shape, score_free), start, times, bm=noise, method="euler", dt=dt)
    positions, functionals = states[..., :-N_FUNCTIONALS], states[..., -N_FUNCTIONALS:]
    path = Path(times, positions.unflatten(-1, shape), *functionals.unbind(-1))
    if not bool(torch.isfinite(states[-1]).all()):
        _diverged(path, dt)
    return path


def _diverged(path: Path, dt: float) -> None:
    """Say when and how many walkers were lost."""
    lost = ~torch.isfinite(path.action) | ~torch.isfinite(path.positions).all(-1).all(-1)
    first = int(lost.any(1).nonzero()[0])
    raise DivergedPath(
        f"{100 * lost[-1].double().mean():.2g}% of walkers left every finite range by t = {path.times[first]:.3g} with "
        f"dt = {dt:.3g}: halve the time step, or give the potential a confining term or a log_reference",
        partial=path,
    )


class WhiteNoise(torchsde.BaseBrownian):
    """Memoryless Brownian increments sqrt(dt) xi for a fixed-step solver: nothing is stored or interpolated."""

    def __init__(self, batch: int, size: int, like: Tensor, generator: torch.Generator, substeps: int = 1) -> None:
        super().__init__()
        self._shape, self._like, self._generator, self._substeps = (batch, size), like, generator, substeps

    def __call__(self, ta: float, tb: float | None = None, return_U: bool = False, return_A: bool = False) -> Tensor:
        if tb is None or return_U or return_A:
            raise ValueError("WhiteNoise gives increments of Brownian motion between two times, and nothing else")
        xi = self._normal()
        for _ in range(self._substeps - 1):
            xi = xi + self._normal()
        return xi * (float(tb - ta) / self._substeps) ** 0.5

    def _normal(self) -> Tensor:
        return torch.randn(self._shape, generator=self._generator, dtype=self.dtype, device=self.device)

    def __repr__(self) -> str:
        return f"WhiteNoise(shape={self.shape}, substeps={self._substeps})"

    @property
    def dtype(self) -> torch.dtype:
        return self._like.dtype

    @property
    def device(self) -> torch.device:
        return self._like.device

    @property
    def shape(self) -> tuple[int, int]:
        return self._shape

    @property
    def levy_area_approximation(self) -> str:
        return "none"


def frozen(drift: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same drift as a function of position alone: its parameters take no part in gradients."""
    if not isinstance(drift, torch.nn.Module):
        return drift
    parameters = {name: parameter.detach() for name, parameter in drift.named_parameters()}
    return lambda r: torch.func.functional_call(drift, parameters, (r,))


class _Augmented:
    """The augmented SDE as torchsde sees it: drift and noise of positions and path functionals together."""

    sde_type, noise_type = "ito", "general"

    def __init__(self, process: Process, shape: torch.Size, score_free: bool) -> None:
        self.process, self.shape = process, shape
        self.frozen = frozen(process.drift) if score_free and torch.is_grad_enabled() else None

    def f_and_g_prod(self, t: Tensor, state: Tensor, dB: Tensor) -> tuple[Tensor, Tensor]:
        r = state[:, :-N_FUNCTIONALS].unflatten(-1, self.shape)
        dB = dB.unflatten(-1, self.shape)
        sigma = self.process.sigma
        h, c = self.process.reference.rates(r)
        v = self.process.drift(r)
        u = v / sigma
        ito = ((u if self.frozen is None else self.frozen(r) / sigma) * dB).sum((-2, -1))
        control = u.square().sum((-2, -1)) / 2
        zero = torch.zeros_like(c)
        f = torch.cat([(h + v).flatten(1), torch.stack([zero, control, c], 1)], 1)
        g_prod = torch.cat([(sigma * dB).flatten(1), torch.stack([ito, zero, zero], 1)], 1)
        return f, g_prod
