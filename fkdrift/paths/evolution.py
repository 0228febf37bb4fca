"""Trajectories and their action, by torchsde's Euler-Maruyama on an augmented state.

Positions, int u . dB, int |u|^2 / 2 dt and int c dt (c: killing rate) ride in one state vector, so a step costs one
evaluation of the drift, needs no diffusion matrix, and is differentiable.  Along the path

    l_T = int u . dB + int ( |u|^2 / 2 + c ) dt      (left-point, Ito),

and for a system with reference W:  log dP_v / dP_FK = l_T - E0 T + [log phi_0 - W](r_0) - [log phi_0 - W](r_T).

int u . dB is an Ito integral, so only Euler-Maruyama steps it.  A Stratonovich solver (Heun, midpoint, log-ODE) would
return int u o dB instead, which is another number, int div v / 2 dt away in the mean, and no martingale; Milstein's and
stochastic Runge-Kutta schemes need diagonal or additive noise, and the log ratio shares its noise with the positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path as File

import torch
import torchsde
from torch import Tensor

from fkdrift.errors import BadParameter, DivergedPath, InputError
from fkdrift.numerics.named_arrays import write
from fkdrift.paths.process import Process, TimedProcess
from fkdrift.tensor_types import Accumulated, History, Positions

FUNCTIONALS = ("ito", "control", "cost")
N_FUNCTIONALS = len(FUNCTIONALS)


@dataclass(frozen=True)
class White:
    """Independent increments, dB_k = sqrt(dt) xi_k."""


@dataclass(frozen=True)
class Shared:
    """Increments that are sums of n finer ones: runs from one generator state follow one Brownian path.

    A run with steps dt and Shared(n) follows that of a run with steps dt / m and Shared(n / m), for every m.

    Args:
        n: finer increments in each step.
    """

    n: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise BadParameter(f"Shared({self.n}) is not allowed: give the number of finer increments, at least 1")


@dataclass(frozen=True)
class Averaged:
    """Each increment is the mean of two successive ones, dB_k = sqrt(dt) (xi_k + xi_{k+1}) / 2.

    The stationary law is then right to second order in dt at the same cost (exact for an oscillator), for any drift,
    and so is the energy E[|u|^2 / 2 + c].  Steps share noise, so int u . dB would have a mean: it is left out, and the
    path has no density with respect to the reference measure.

    Reference: B. Leimkuhler and C. Matthews, AMRX 2013, 34.
    """


@dataclass(frozen=True)
class ThroughPath:
    """Gradients are those of the path functionals as functions of the parameters, noise held fixed."""


@dataclass(frozen=True)
class ScoreFree:
    """Through the path, but for the score int d_theta u . dB.

    Its mean is zero and its variance is not: without it the gradient of the free energy vanishes path by path at the
    optimum ("sticking the landing").

    Reference: G. Roeder, Y. Wu and D. Duvenaud, NeurIPS 2017.
    """


@dataclass(frozen=True)
class Detached:
    """Trajectories are held fixed: what is left is the score of the log ratio, of which the log-variance loss is made.

    Reference: N. Nuesken and L. Richter, Partial Differ. Equ. Appl. 2, 48 (2021).
    """


@dataclass(frozen=True, eq=False)
class Adjoint:
    """The adjoint equation, solved backwards along the same Brownian path, in memory that does not grow with n_steps.

    The gradient then has a step error of its own.  Increments come from a BrownianInterval seeded by the generator;
    under torch.no_grad() there is nothing to solve, and the path is that of the other kinds.

    Args:
        parameters: what to differentiate with respect to, besides the walkers.

    Reference: X. Li, T.-K. L. Wong, R. T. Q. Chen and D. Duvenaud, AISTATS 2020.
    """

    parameters: tuple[Tensor, ...]


Noise = White | Shared | Averaged
Gradient = ThroughPath | ScoreFree | Detached | Adjoint


@dataclass(frozen=True)
class Path:
    """Positions and path functionals at the saved times; the first saved time is the start, where functionals are 0.

    Args:
        times: (time,) float64, from the start of the path (0 unless `evolve` was told otherwise).
        positions: (time, batch, particle, dim).
        functionals: by name, each (time, batch): "ito", int u . dB up to each time, left out where the noise was
            averaged; "control", int |u|^2 / 2 dt; "cost", int c dt with c the killing rate of the reference measure.
    """

    times: Tensor
    positions: History
    functionals: dict[str, Accumulated]

    def save(self, path: str | File) -> File:
        """Write times, positions and functionals to a .npz or .nc file; returns its path."""
        arrays: dict[str, tuple[tuple[str, ...], Tensor]] = {"times": (("time",), self.times)}
        arrays["positions"] = (("time", "walker", "particle", "dim"), self.positions)
        return write(path, arrays | {name: (("time", "walker"), each) for name, each in self.functionals.items()})

    @property
    def duration(self) -> float:
        """T, the length of the path in time."""
        return float(self.times[-1] - self.times[0])

    @property
    def ito(self) -> Accumulated:
        """int u . dB up to each time, (time, batch).

        Raises:
            InputError: the noise was averaged.
        """
        if "ito" not in self.functionals:
            raise InputError(
                "a path with averaged noise has no density with respect to the reference measure, and no log ratio: "
                "use path.control and path.cost, or evolve(noise=White())"
            )
        return self.functionals["ito"]

    @property
    def control(self) -> Accumulated:
        """int |u|^2 / 2 dt up to each time, (time, batch)."""
        return self.functionals["control"]

    @property
    def cost(self) -> Accumulated:
        """int c dt up to each time, (time, batch)."""
        return self.functionals["cost"]

    @property
    def log_ratio(self) -> Accumulated:
        """log dP_v / dP_ref along the path, int u . dB + int |u|^2 / 2 dt, (time, batch).

        Raises:
            InputError: the noise was averaged, so that there is no such density.
        """
        return self.ito + self.control

    @property
    def action(self) -> Accumulated:
        """l_T, the log ratio plus the cost, (time, batch).

        Raises:
            InputError: the noise was averaged.
        """
        return self.log_ratio + self.cost

    @property
    def end(self) -> Positions:
        """Final positions (batch, particle, dim), detached: where the next path starts."""
        return self.positions[-1].detach()

    def then(self, following: Path) -> Path:
        """This path and one that starts where it ends, as one path; functionals go on from their last value."""
        both = [(name, a, following.functionals.get(name)) for name, a in self.functionals.items()]
        return Path(
            torch.cat([self.times, following.times[1:]]),
            torch.cat([self.positions, following.positions[1:]]),
            {name: torch.cat([a, a[-1] + b[1:]]) for name, a, b in both if b is not None},
        )


def evolve(
    process: Process | TimedProcess,
    walkers: Positions,
    *,
    n_steps: int,
    dt: float,
    generator: torch.Generator,
    n_saved: int = 1,
    noise: Noise = White(),
    gradient: Gradient = ThroughPath(),
    start: float | None = None,
) -> Path:
    """Run walkers for n_steps Euler-Maruyama steps of length dt, accumulating the path action.

    Differentiable with respect to the drift's parameters and the starting positions unless under torch.no_grad().

    Args:
        process: the process to follow.
        walkers: starting positions (batch, particle, dim).
        n_steps, dt: number and length of the steps; T = n_steps dt.
        generator: the source of the noise, on the walkers' device.
        n_saved: how many times to save after the start, evenly spaced; must divide n_steps.
        noise: `White()`, `Shared(n)` or `Averaged()`.
        gradient: `ThroughPath()`, `ScoreFree()`, `Detached()` or `Adjoint(parameters)`.
        start: the time at the start of the path, 0 by default.  Where it is given, the saved times are exact sums of
            steps, so that rounding cannot add a step, and a Brownian path is shared for any dt.

    Raises:
        BadParameter: a number of steps out of range, or noise and gradient that exclude each other.
        DivergedPath: positions or the action are no longer finite; the path so far is in `partial`.

    Example (v = -r as a free drift on Brownian motion; the Euler chain has E[l_T] / T = 1 / (2 - dt) = 0.512821):
        >>> process = fk.Process(lambda r: -r, fk.FeynmanKac(fk.load_potential("harmonic"), torch.ones(1, 1)))
        >>> r0 = torch.randn(4096, 1, 1, generator=g) / 1.95**0.5                # its stationary law
        >>> path = evolve(process, r0, n_steps=100, dt=0.05, generator=g)
        >>> path.action[-1].mean() / path.duration
        tensor(0.5128)
    """
    if n_steps < 1 or n_steps % n_saved:
        raise BadParameter(f"n_steps = {n_steps} must be a positive multiple of n_saved = {n_saved}")
    if isinstance(noise, Averaged) and not isinstance(gradient, ThroughPath):
        raise BadParameter(f"{noise} has no log ratio for {type(gradient).__name__} to act on: leave out the gradient")
    if isinstance(gradient, Adjoint) and not isinstance(noise, White):
        raise BadParameter(f"Adjoint has a Brownian path of its own: leave out noise = {noise}")
    shape = walkers.shape[1:]
    state = torch.cat([walkers.flatten(1), walkers.new_zeros(len(walkers), N_FUNCTIONALS)], 1)
    times = torch.arange(n_saved + 1, dtype=torch.float64) * (n_steps // n_saved) * dt
    if start is not None:
        sums = list(accumulate([dt] * n_steps, initial=start))
        times = torch.tensor(sums[:: n_steps // n_saved], dtype=torch.float64)
    with torch.random.fork_rng(devices=[]):  # torchsde probes shapes with numbers from the global generator
        if isinstance(gradient, Adjoint) and torch.is_grad_enabled():
            stored = _stored_noise(walkers, times, dt, generator)
            sde: _Augmented = _Adjoint(process, shape)
            options = {"method": "euler", "adjoint_method": "euler", "dt": dt, "adjoint_params": gradient.parameters}
            states = torchsde.sdeint_adjoint(sde, state, times, bm=stored, **options)
        else:
            increments = Increments(walkers.shape[0], shape.numel(), walkers, generator, noise)
            sde = _Augmented(process, shape, noise, gradient)
            states = torchsde.sdeint(sde, state, times, bm=increments, method="euler", dt=dt)
    positions = states[..., :-N_FUNCTIONALS].unflatten(-1, shape)
    functionals = dict(zip(FUNCTIONALS, states[..., -N_FUNCTIONALS:].unbind(-1), strict=True))
    if isinstance(noise, Averaged):
        del functionals["ito"]
    path = Path(times, positions.detach() if isinstance(gradient, Detached) else positions, functionals)
    if not bool(torch.isfinite(states[-1]).all()):
        _diverged(path, dt)
    return path


def _stored_noise(walkers: Tensor, times: Tensor, dt: float, generator: torch.Generator) -> torchsde.BrownianInterval:
    """Brownian motion that can be queried again, backwards: all of it follows from one seed."""
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    size = (len(walkers), walkers[0].numel())
    kind = {"dtype": walkers.dtype, "device": walkers.device}
    return torchsde.BrownianInterval(float(times[0]), float(times[-1]), size=size, entropy=seed, dt=dt, **kind)


def _diverged(path: Path, dt: float) -> None:
    """Say when and how many walkers were lost."""
    functionals = torch.stack([*path.functionals.values()])
    lost = ~torch.isfinite(functionals.sum(0)) | ~torch.isfinite(path.positions).all(-1).all(-1)
    first = int(lost.any(1).nonzero()[0])
    raise DivergedPath(
        f"{100 * lost[-1].double().mean():.2g}% of walkers left every finite range by t = {path.times[first]:.3g} with "
        f"dt = {dt:.3g}: halve the time step, or give the potential a confining term or a trial_function",
        partial=path,
    )


class Increments(torchsde.BaseBrownian):
    """Brownian increments for a fixed-step solver: nothing is interpolated.

    Args:
        batch, size: shape of an increment.
        like: a tensor of the same dtype and device.
        generator: the source of the noise.
        noise: of which kind.
    """

    def __init__(self, batch: int, size: int, like: Tensor, generator: torch.Generator, noise: Noise = White()) -> None:
        super().__init__()
        self._shape, self._like, self._generator, self._noise = (batch, size), like, generator, noise
        self._n = noise.n if isinstance(noise, Shared) else 1
        self._last = self._normal() if isinstance(noise, Averaged) else None

    def __call__(self, ta: float, tb: float | None = None, return_U: bool = False, return_A: bool = False) -> Tensor:
        if tb is None or return_U or return_A:
            raise ValueError("Increments are those of Brownian motion between two times, and nothing else")
        xi = self._normal()
        for _ in range(self._n - 1):
            xi = xi + self._normal()
        if self._last is not None:
            self._last, xi = xi, (self._last + xi) / 2
        return xi * (float(tb - ta) / self._n) ** 0.5

    def _normal(self) -> Tensor:
        return torch.randn(self._shape, generator=self._generator, dtype=self.dtype, device=self.device)

    def __repr__(self) -> str:
        return f"Increments(shape={self.shape}, noise={self._noise})"

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
        noise: Noise = White(),
        gradient: Gradient = ThroughPath(),
    ) -> None:
        self.process, self.shape = process, shape
        self.detached, self.averaged = isinstance(gradient, Detached), isinstance(noise, Averaged)
        freeze = isinstance(gradient, ScoreFree) and torch.is_grad_enabled()
        self.frozen = replace(process, drift=frozen(process.drift)) if freeze else None  # type: ignore[arg-type]

    def f_and_g_prod(self, t: Tensor, state: Tensor, dB: Tensor) -> tuple[Tensor, Tensor]:
        r = state[:, :-N_FUNCTIONALS].unflatten(-1, self.shape)
        if self.detached:
            r = r.detach()
        process = self.process.at(t)
        dB = process.at_rest(dB.unflatten(-1, self.shape))
        sigma = process.sigma
        h, c, _ = process.reference.rates(r)
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
        noise = process.at_rest(torch.eye(n).to(r).unflatten(-1, self.shape))  # of every component of dB
        sigma = (process.sigma * noise).flatten(1).T.expand(len(r), n, n)
        u = (u @ noise.flatten(1))[:, None]
        g = torch.cat([sigma, u, u.new_zeros(len(r), N_FUNCTIONALS - 1, n)], 1)
        return self.f_and_g_prod(t, state, u.new_zeros(len(r), n))[0], g
