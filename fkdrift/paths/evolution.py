"""Trajectories and their action, by torchsde's Euler-Maruyama on an augmented state.

Positions, int u . dB, int |u|^2 / 2 dt and int c dt (c: killing rate) ride in one state vector, so a step costs one
evaluation of the drift, needs no diffusion matrix, and is differentiable.  Along the path

    l_T = int u . dB + int ( |u|^2 / 2 + c ) dt      (left-point, Ito),

and for a system with reference W:  log dP_v / dP_FK = l_T - E0 T + [log phi_0 - W](r_0) - [log phi_0 - W](r_T).

int u . dB is an Ito integral, so only Euler-Maruyama may step it: a Stratonovich solver would return int u o dB
instead, which is another number, int div v / 2 dt away in the mean, and no martingale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
import torchsde
from torch import Tensor

from fkdrift.errors import BadParameter, DivergedPath
from fkdrift.paths.process import Process, TimedProcess
from fkdrift.tensor_types import Accumulated, History, Positions

N_FUNCTIONALS = 3
STRATONOVICH = ("heun", "midpoint", "reversible_heun", "adjoint_reversible_heun", "euler_heun", "log_ode")
NOT_GENERAL = ("milstein", "srk")


@dataclass(frozen=True)
class Path:
    """Positions and path functionals at the saved times; the first saved time is the start, where functionals are 0.

    Args:
        times: (time,) float64, from the start of the path (0 unless `evolve` was told otherwise).
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
        return float(self.times[-1] - self.times[0])

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

    def then(self, following: Path) -> Path:
        """This path and one that starts where it ends, as one path; functionals go on from their last value."""
        parts = ("ito", "control", "cost")
        return Path(
            torch.cat([self.times, following.times[1:]]),
            torch.cat([self.positions, following.positions[1:]]),
            *(torch.cat([a := getattr(self, name), a[-1] + getattr(following, name)[1:]]) for name in parts),
        )


def evolve(
    process: Process | TimedProcess,
    walkers: Positions,
    *,
    n_steps: int,
    dt: float,
    generator: torch.Generator,
    n_saved: int = 1,
    substeps: int = 1,
    score_free: bool = False,
    detached: bool = False,
    averaged: bool = False,
    start: float | None = None,
    adjoint: Sequence[Tensor] | None = None,
    method: str = "euler",
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
        detached: hold the trajectory fixed in gradients: what is left of them is the score of the log ratio, which the
            log-variance loss is made of (Nuesken and Richter, Partial Differ. Equ. Appl. 2, 48 (2021)).
        averaged: make each increment the mean of two successive ones, dB_k = sqrt(dt) (xi_k + xi_{k+1}) / 2.  The
            stationary law is then right to second order in dt at the same cost (exact for an oscillator), for any
            drift, and so is the energy E[|u|^2 / 2 + c].  Steps share noise, so int u . dB would have a mean and is
            left out: `ito` is 0 and the path is not weighed (Leimkuhler and Matthews, AMRX 2013, 34).
        start: the time at the start of the path, 0 by default.  Where it is given, the saved times are exact sums of
            steps, so that rounding cannot add a step, and a Brownian path is shared for any dt.
        adjoint: differentiate with respect to these tensors (and the walkers) by solving the adjoint equation backwards
            along the same Brownian path, in memory that does not grow with n_steps; the gradient then has a step error
            of its own.  Increments come from a BrownianInterval seeded by the generator.
        method: "euler"; there to refuse the others with a reason.

    Raises:
        BadParameter: a solver that does not integrate an Ito functional, or options that exclude each other.
        DivergedPath: positions or the action are no longer finite; the path so far is in `partial`.

    Example (v = -r as a free drift on Brownian motion; the Euler chain has E[l_T] / T = 1 / (2 - dt) = 0.512821):
        >>> process = Process(lambda r: -r, FeynmanKac(load_potential("harmonic"), torch.ones(1, 1)))
        >>> r0 = torch.randn(4096, 1, 1, generator=(g := torch.Generator().manual_seed(0)))
        >>> path = evolve(process, r0, n_steps=400, dt=0.05, generator=g)
        >>> energy = path.action[-1].mean() / path.duration
    """
    if n_steps < 1 or n_steps % n_saved:
        raise ValueError(f"n_steps = {n_steps} must be a positive multiple of n_saved = {n_saved}")
    if adjoint is not None and (score_free or detached or averaged or substeps > 1):
        raise BadParameter("adjoint does not go with score_free, detached, averaged or substeps: leave them out")
    if averaged and (detached or substeps > 1):
        raise BadParameter("averaged noise has no log ratio and no finer path: leave out detached and substeps")
    shape = walkers.shape[1:]
    state = torch.cat([walkers.flatten(1), walkers.new_zeros(len(walkers), N_FUNCTIONALS)], 1)
    times = torch.arange(n_saved + 1, dtype=torch.float64) * (n_steps // n_saved) * dt
    if start is not None:
        sums = list(accumulate([dt] * n_steps, initial=start))
        times = torch.tensor(sums[:: n_steps // n_saved], dtype=torch.float64)
    with torch.random.fork_rng(devices=[]):  # torchsde probes shapes with numbers from the global generator
        if adjoint is None:
            noise = WhiteNoise(walkers.shape[0], shape.numel(), walkers, generator, substeps, averaged)
            sde = _Augmented(process, shape, score_free, detached, averaged)
            states = torchsde.sdeint(sde, state, times, bm=noise, method=require_ito(method), dt=dt)
        else:
            stored = _stored_noise(walkers, times, dt, generator)
            sde = _Adjoint(process, shape)
            options = {
                "method": require_ito(method),
                "adjoint_method": "euler",
                "dt": dt,
                "adjoint_params": tuple(adjoint),
            }
            states = torchsde.sdeint_adjoint(sde, state, times, bm=stored, **options)
    positions, functionals = states[..., :-N_FUNCTIONALS], states[..., -N_FUNCTIONALS:]
    if detached:
        positions = positions.detach()
    path = Path(times, positions.unflatten(-1, shape), *functionals.unbind(-1))
    if not bool(torch.isfinite(states[-1]).all()):
        _diverged(path, dt)
    return path


def require_ito(method: str) -> str:
    """The method, if it integrates an Ito functional that shares its noise with the positions.

    Raises:
        BadParameter: it would return something else, with the reason.
    """
    if method in STRATONOVICH:
        raise BadParameter(
            f"method = {method!r} is a Stratonovich solver: it would silently return int u o dB where the log ratio "
            "needs the Ito integral int u . dB; use method = 'euler'"
        )
    if method in NOT_GENERAL:
        raise BadParameter(
            f"method = {method!r} needs diagonal or additive noise, and the log ratio shares its noise with the "
            "positions (general noise); use method = 'euler'"
        )
    if method != "euler":
        raise BadParameter(f"method = {method!r} is not a solver: use 'euler'")
    return method


def _stored_noise(walkers: Tensor, times: Tensor, dt: float, generator: torch.Generator) -> torchsde.BrownianInterval:
    """Brownian motion that can be queried again, backwards: all of it follows from one seed."""
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    size = (len(walkers), walkers[0].numel())
    kind = {"dtype": walkers.dtype, "device": walkers.device}
    return torchsde.BrownianInterval(float(times[0]), float(times[-1]), size=size, entropy=seed, dt=dt, **kind)


def _diverged(path: Path, dt: float) -> None:
    """Say when and how many walkers were lost."""
    lost = ~torch.isfinite(path.action) | ~torch.isfinite(path.positions).all(-1).all(-1)
    first = int(lost.any(1).nonzero()[0])
    raise DivergedPath(
        f"{100 * lost[-1].double().mean():.2g}% of walkers left every finite range by t = {path.times[first]:.3g} with "
        f"dt = {dt:.3g}: halve the time step, or give the potential a confining term or a trial_function",
        partial=path,
    )


class WhiteNoise(torchsde.BaseBrownian):
    """Brownian increments sqrt(dt) xi for a fixed-step solver: nothing is interpolated.

    Args:
        batch, size: shape of an increment.
        like: a tensor of the same dtype and device.
        generator: the source of the noise.
        substeps: how many finer increments to add up.
        averaged: the mean of the present and the last increment instead.
    """

    def __init__(
        self, batch: int, size: int, like: Tensor, generator: torch.Generator, substeps: int = 1, averaged: bool = False
    ) -> None:
        super().__init__()
        self._shape, self._like, self._generator, self._substeps = (batch, size), like, generator, substeps
        self._last = self._normal() if averaged else None

    def __call__(self, ta: float, tb: float | None = None, return_U: bool = False, return_A: bool = False) -> Tensor:
        if tb is None or return_U or return_A:
            raise ValueError("WhiteNoise gives increments of Brownian motion between two times, and nothing else")
        xi = self._normal()
        for _ in range(self._substeps - 1):
            xi = xi + self._normal()
        if self._last is not None:
            self._last, xi = xi, (self._last + xi) / 2
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


def frozen(drift: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same drift as a function of its arguments alone: its parameters take no part in gradients.

    A drift that is not a module, and depends on tensors that do, has a method `frozen` of its own.
    """
    if not isinstance(drift, torch.nn.Module):
        own = getattr(drift, "frozen", None)
        return drift if own is None else own()
    parameters = {name: parameter.detach() for name, parameter in drift.named_parameters()}
    return lambda *arguments: torch.func.functional_call(drift, parameters, arguments)


class _Augmented:
    """The augmented SDE as torchsde sees it: drift and noise of positions and path functionals together."""

    sde_type, noise_type = "ito", "general"

    def __init__(
        self,
        process: Process | TimedProcess,
        shape: torch.Size,
        score_free: bool = False,
        detached: bool = False,
        averaged: bool = False,
    ) -> None:
        self.process, self.shape, self.detached, self.averaged = process, shape, detached, averaged
        freeze = score_free and torch.is_grad_enabled()
        self.frozen = replace(process, drift=frozen(process.drift)) if freeze else None  # type: ignore[arg-type]

    def f_and_g_prod(self, t: Tensor, state: Tensor, dB: Tensor) -> tuple[Tensor, Tensor]:
        r = state[:, :-N_FUNCTIONALS].unflatten(-1, self.shape)
        if self.detached:
            r = r.detach()
        dB = dB.unflatten(-1, self.shape)
        process = self.process.at(t)
        sigma = process.sigma
        h, c = process.reference.rates(r)
        v = process.drift(r)
        u = v / sigma
        ito = ((u if self.frozen is None else self.frozen.at(t).drift(r) / sigma) * dB).sum((-2, -1))
        control = u.square().sum((-2, -1)) / 2
        if self.detached:  # same values; as functions of the parameters, log dP_v / dP_ref of a trajectory held fixed
            velocity, sigma = (h + v).detach(), sigma.detach()
            control = (u * (velocity - h) / process.sigma).sum((-2, -1)) - control
        else:
            velocity = h + v
        zero = torch.zeros_like(c)
        ito = zero if self.averaged else ito
        f = torch.cat([velocity.flatten(1), torch.stack([zero, control, c], 1)], 1)
        g_prod = torch.cat([(sigma * dB).flatten(1), torch.stack([ito, zero, zero], 1)], 1)
        return f, g_prod


class _Adjoint(_Augmented):
    """The same SDE with the diffusion matrix written out, which the adjoint equation needs."""

    def f_and_g(self, t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Drift (batch, state) and diffusion (batch, state, noise): sigma for positions, u for int u . dB."""
        n = self.shape.numel()
        process = self.process.at(t)
        r = state[:, :-N_FUNCTIONALS].unflatten(-1, self.shape)
        u = (process.drift(r) / process.sigma).flatten(1)
        sigma = process.sigma.expand(self.shape).flatten().diag().expand(len(r), n, n)
        g = torch.cat([sigma, u[:, None], u.new_zeros(len(r), N_FUNCTIONALS - 1, n)], 1)
        return self.f_and_g_prod(t, state, u.new_zeros(len(r), n))[0], g
