"""A diffusion conditioned on what was measured: trajectory inference, bridges and propagators are this one problem.

    dP*(path)  ~  exp(-int c dt)  prod_k g_k(r(t_k))  dP(path),      r(0) given,

P is the reference measure dr = h dt + sigma dB, c its killing rate, g_k the likelihood of a measurement,
g_k(r) = N(y_k; r, s_k^2).  The mass of the right-hand side is the evidence Z = E_P[exp(-int c dt) prod_k g_k]:

    simulator, c = 0                       Z = p(y_1, ..., y_K)
    Brownian motion, c = V, one end point  Z = K(y, T | r_0), the imaginary-time propagator

A process with drift h + v, u = v / sigma, samples it with weights of mean Z,

    log w = -int u . dB - int (|u|^2 / 2 + c) dt + sum_k log g_k(r(t_k)),

which are all equal to Z when v = sigma^2 grad log E_P[exp(-int_t^T c) prod_{t_k > t} g_k | r(t) = r].
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fkdrift.errors import BadParameter
from fkdrift.numerics.networks import MLP, seeded
from fkdrift.paths.evolution import FUNCTIONALS, Gradient, Path, Shared, ThroughPath, evolve
from fkdrift.paths.process import ReferenceMeasure, TimedProcess
from fkdrift.tensor_types import PerWalker, Positions

ROUNDING = 1e-9  # relative: a time that is a multiple of dt but for rounding gets no further step
PINNED = 1e-12  # variance of an exact measurement, in units of sigma^2 T, where a precision has to be finite


@dataclass(frozen=True, eq=False)
class Measurement:
    """Positions seen at one time with Gaussian noise, g(r) = N(value; r, noise^2), normalised.

    Args:
        time: when, above 0.
        value: (particle, dim); nan where a coordinate was not measured.
        noise: standard deviation; 0 to pin the path to the value, at the last measurement only.

    Raises:
        BadParameter: a time or noise out of range, or nothing was measured.
    """

    time: float
    value: Tensor
    noise: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.time) and self.time > 0):
            raise BadParameter(f"time = {self.time} is not allowed: a measurement needs a finite time after the start")
        if not (math.isfinite(self.noise) and self.noise >= 0):
            raise BadParameter(f"noise = {self.noise} is not allowed: give a standard deviation of at least 0")
        if self.value.ndim != 2 or bool(self.value.isinf().any()) or bool(self.value.isnan().all()):
            raise BadParameter(
                f"value = {self.value.tolist()} is not allowed: give (particle, dim) numbers, nan where not measured"
            )

    def log_likelihood(self, r: Positions) -> PerWalker:
        """log g(r), (batch,)."""
        return _log_normal(self.value, r, torch.full_like(self.value, self.noise))


def _log_normal(y: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """log N(y; mean, deviation^2) summed over the coordinates of y that are not nan, (batch,)."""
    seen = ~y.isnan()
    z = (y.nan_to_num() - mean) / deviation
    terms = -z.square() / 2 - deviation.log() - math.log(2 * math.pi) / 2
    return torch.where(seen, terms, torch.zeros_like(terms)).sum((-2, -1))


class Weighted(NamedTuple):
    """Trajectories and log w, (batch,): the mean of w is the evidence, and -E[log w] bounds -log Z from above."""

    path: Path
    log_weight: PerWalker


@dataclass(frozen=True, eq=False)
class Conditioned:
    """A reference measure, a start, and the measurements that condition it.

    Args:
        reference: the measure without measurements: `Overdamped` for a simulation, `FeynmanKac` for a propagator.
        start: r(0), (particle, dim); its dtype and device are those of the paths.
        measurements: in the order of their times.

    Raises:
        BadParameter: no measurement, times not increasing, shapes that differ, or a pinned point before the end.

    Example (Brownian motion seen at 1 with noise 1 after one unit of time: Z = N(1; 0, 2), log Z = -1.515512):
        >>> from fkdrift.numerics.estimates import log_mean
        >>> brownian = fk.FeynmanKac(lambda r: 0 * r.sum((-2, -1)), torch.ones(1, 1))
        >>> problem = Conditioned(brownian, torch.zeros(1, 1), (Measurement(1.0, torch.ones(1, 1), noise=1.0),))
        >>> paths = problem.follow(Guide(problem), 4096, dt=0.05, generator=g)
        >>> print(log_mean(paths.log_weight))
        -1.5157(17)
    """

    reference: ReferenceMeasure
    start: Tensor
    measurements: tuple[Measurement, ...]

    def __post_init__(self) -> None:
        if not self.measurements:
            raise BadParameter("measurements is empty: give at least one Measurement(time, value, noise)")
        times = [measurement.time for measurement in self.measurements]
        if any(b <= a for a, b in pairwise(times)):
            raise BadParameter(f"measurement times {times} are not allowed: they must increase")
        for measurement in self.measurements:
            if measurement.value.shape != self.start.shape:
                raise BadParameter(
                    f"a measurement has shape {tuple(measurement.value.shape)} and the start "
                    f"{tuple(self.start.shape)}: both must be (particle, dim)"
                )
        for measurement in self.measurements[:-1]:
            if measurement.noise == 0:
                raise BadParameter(f"noise = 0 at t = {measurement.time}: only the last measurement may pin the path")
        if self.pinned and bool(self.measurements[-1].value.isnan().any()):
            raise BadParameter("noise = 0 with a coordinate that was not measured: pin all of them, or give a noise")

    @property
    def duration(self) -> float:
        """T, the time of the last measurement."""
        return self.measurements[-1].time

    @property
    def pinned(self) -> bool:
        """Whether the path ends in a given point: the last step is then integrated over exactly."""
        return self.measurements[-1].noise == 0

    def follow(
        self,
        drift: nn.Module,
        n_paths: int,
        *,
        dt: float,
        generator: torch.Generator,
        refine: int = 1,
        finest: int = 1,
        gradient: Gradient = ThroughPath(),
    ) -> Weighted:
        """Weighted paths of the process with drift h + v.

        Args:
            drift: v(t, r).
            n_paths: how many.
            dt: longest step; steps become shorter just before a precise measurement.
            generator: source of the noise.
            refine: divide every step by this; positions are saved at the undivided steps.
            finest: draw noise for steps dt / finest, so that runs with different `refine` share a Brownian path.
            gradient: of which kind, see `evolve`.
        """
        process = TimedProcess(drift, self.reference)
        options: dict[str, Any] = {"generator": generator, "noise": Shared(finest // refine), "gradient": gradient}
        r = self.start.expand(n_paths, *self.start.shape)
        path = _nowhere(r)
        log_likelihood: Tensor | float = 0.0
        for k, measurement in enumerate(self.measurements):
            blocks = self._blocks(k, dt)
            pinned = measurement.noise == 0
            for j, (n, step) in enumerate(blocks):
                kept = n - 1 if pinned and j == len(blocks) - 1 else n
                options["dt"] = step / refine
                if kept:
                    began = float(path.times[-1])
                    part = evolve(process, r, n_steps=kept * refine, n_saved=kept, start=began, **options)
                    path, r = path.then(part), part.positions[-1]
            if pinned:
                last, log_likelihood = self._jump(process, path, refine, options)
                path = path.then(last)
            else:
                log_likelihood = log_likelihood + measurement.log_likelihood(r)
        return Weighted(path, log_likelihood - path.action[-1])

    def _blocks(self, k: int, dt: float) -> list[tuple[int, float]]:
        """(number, length) of the steps up to measurement k: halved, four at a time, until the noise is resolved.

        Shortly before a measurement the drift pulls with the rate sigma^2 / (noise^2 + sigma^2 left), and a step must
        be shorter than that.
        """
        began = self.measurements[k - 1].time if k else 0.0
        length = self.measurements[k].time - began
        n = max(1, math.ceil(length / dt * (1 - ROUNDING)))
        step, blocks = length / n, []
        resolved = (self.measurements[k].noise / float(self.reference.sigma.max())) ** 2 / 2
        while step > resolved > 0:
            late = min(n, 4)
            blocks.append((n - late, step))
            n, step = 2 * late, step / 2
        return [block for block in [*blocks, (n, step)] if block[0]]

    def _jump(self, process: TimedProcess, path: Path, refine: int, options: dict[str, Any]) -> tuple[Path, Tensor]:
        """The last step, to the pinned point y, and log of its density N(y; r + h dt, sigma^2 dt)."""
        began, dt = float(path.times[-1]), options["dt"]
        r, y = path.positions[-1], self.measurements[-1].value.to(path.positions)
        jump = _nowhere(r, began)
        if refine > 1:
            jump = evolve(process, r, n_steps=refine - 1, start=began, **options)
            r = jump.positions[-1]
        h, c, _ = self.reference.rates(r)
        log_density = _log_normal(y, r + h * dt, (self.reference.sigma * dt**0.5).expand(self.start.shape))
        functionals = {name: values[[0, -1]] for name, values in jump.functionals.items()}
        functionals["cost"] = torch.stack([jump.cost[0], jump.cost[-1] + c * dt])
        times = torch.tensor([began, self.duration], dtype=torch.float64)
        positions = torch.stack([path.positions[-1], y.expand_as(r)])
        return Path(times, positions, functionals), log_density


def _nowhere(r: Positions, t: float = 0.0) -> Path:
    """The path of no duration at r."""
    nothing = r.new_zeros(1, len(r))
    return Path(torch.tensor([t], dtype=torch.float64), r[None], dict.fromkeys(FUNCTIONALS, nothing))


class Guide(nn.Module):
    """The exact drift for Brownian motion, v = sigma^2 (m - r) Lambda / (1 + Lambda sigma^2 (t_k - t)).

    Lambda and m are precision and mean, for each coordinate, of all that is yet to be measured, as seen from just
    before the next measurement t_k: an information filter run backwards.

    Reference: M. Schauer, F. van der Meulen and H. van Zanten, Guided proposals, Bernoulli 23, 2917 (2017).
    """

    precision: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, problem: Conditioned) -> None:
        super().__init__()
        like, variance = problem.start, problem.reference.sigma.square()
        exact = PINNED * float(variance.max()) * problem.duration
        precision, weighted = torch.zeros_like(like), torch.zeros_like(like)
        later, found = problem.duration, []
        for measurement in reversed(problem.measurements):
            spread = 1 + precision * variance * (later - measurement.time)
            precision, weighted = precision / spread, weighted / spread
            y = measurement.value.to(like)
            own = (~y.isnan()).to(like) / max(measurement.noise**2, exact)
            precision, weighted = precision + own, weighted + own * y.nan_to_num()
            later = measurement.time
            found.append((precision, weighted / precision.clamp_min(torch.finfo(like.dtype).tiny)))
        self.times = [measurement.time for measurement in problem.measurements]
        self.register_buffer("precision", torch.stack([p for p, _ in reversed(found)]))
        self.register_buffer("mean", torch.stack([m for _, m in reversed(found)]))
        self.register_buffer("variance", variance)

    def next(self, t: Tensor) -> tuple[int, float]:
        """Which measurement comes next, and how long until then."""
        now = float(t)
        k = min(bisect_right(self.times, now + ROUNDING * self.times[-1]), len(self.times) - 1)
        return k, self.times[k] - now

    def forward(self, t: Tensor, r: Positions) -> Positions:
        k, left = self.next(t)
        rate = self.variance / (1 / self.precision[k] + self.variance * left)
        return rate * (self.mean[k] - r)


class GuidedDrift(nn.Module):
    """v = guide(t, r) + sigma A(t, r), with a network A that starts at zero and learns what Brownian motion lacks.

    Args:
        problem: supplies the guide, and the scales of length and time.
        width, depth: units in each hidden layer, number of hidden layers.
        seed: of the first weights.
    """

    centre: Tensor
    scale: Tensor
    sigma: Tensor

    def __init__(self, problem: Conditioned, width: int = 48, depth: int = 2, seed: int = 0) -> None:
        super().__init__()
        self.guide = Guide(problem)
        like, T = problem.start, problem.duration
        known = torch.stack([like, *(m.value.to(like) for m in problem.measurements)])
        centre = known.nanmean(0)
        spread = (known - centre).square().nanmean(0).sqrt()
        self.register_buffer("centre", centre)
        self.register_buffer("sigma", problem.reference.sigma)
        self.register_buffer("scale", torch.maximum(spread, self.sigma * min(T, 1.0) ** 0.5))
        self.memory = tuple(T / 4**j for j in range(4))
        n_in = like.numel() + 1 + len(self.memory) + len(problem.measurements)
        with seeded(seed):
            self.network = MLP(n_in, (width,) * depth, like.numel(), gain=0.0).to(like)

    def forward(self, t: Tensor, r: Positions) -> Positions:
        k, left = self.guide.next(t)
        which = [0.0] * len(self.guide.times)
        which[k] = 1.0
        now = [2 * float(t) / self.guide.times[-1] - 1, *(math.exp(-left / tau) for tau in self.memory), *which]
        x = ((r - self.centre) / self.scale).flatten(1)
        x = torch.cat([x, r.new_tensor(now).expand(len(r), -1)], 1)
        return self.guide(t, r) + self.sigma * self.network(x).unflatten(1, r.shape[1:])
