"""A latent stochastic differential equation: series of observations explained by a hidden diffusion.

    p:   z(0) ~ N(m, s^2),         dz = h(z) dt + sigma dB,                      x_k ~ p(x | z(t_k))
    q:   z(0) ~ N(m(x), s(x)^2),   dz = [h(z) + sigma u(t, z, c_k)] dt + sigma dB,

with c_k = context of the observations k, k + 1, ... read backwards in time: given z(t), only what is still to come
matters.  Both have the same volatility, or their path measures would be singular to each other; then

    log q - log p = log q(z_0|x) - log p(z_0) + int u . dB + int |u|^2 / 2 dt - sum_k log p(x_k | z(t_k)).

The Ito integral has mean zero and is kept: with it the log ratio is -log p(x) on every path once u is exact, so there
are importance weights, and the log-variance is a loss.  It is the limit of a Markov autoencoder with small steps.

References: X. Li, T.-K. L. Wong, R. T. Q. Chen and D. Duvenaud, AISTATS 2020; N. Nuesken and L. Richter, Partial
Differ. Equ. Appl. 2, 48 (2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from fkdrift.densities.kernels import DiagonalGaussian, DistributionKernel, draw, soft_limit
from fkdrift.errors import BadParameter
from fkdrift.hamiltonian.system import Rates
from fkdrift.numerics.log_weights import iwae, log_variance
from fkdrift.numerics.networks import MLP, seeded
from fkdrift.paths.evolution import Adjoint, Detached, Gradient, Path, ScoreFree, ThroughPath, evolve
from fkdrift.paths.process import Process, TimedProcess
from fkdrift.tensor_types import Positions

LOSSES = ("kl", "log_variance")
ROUNDING = 1e-9  # a time between observations that is a multiple of dt but for rounding gets no further step
START_GAIN = 0.1  # of last layers that start small: h near 0, and q(z_0|x) near N(0, 1)


class Prior(nn.Module):
    """The hidden diffusion dz = h(z) dt + sigma dB, a measure on paths (batch, latent, 1) that nothing kills.

    Args:
        drift: h, (batch, n_latents) to the same shape.
        sigma: (n_latents,) to start from.
        learn_sigma: whether it is a parameter.
    """

    log_sigma: Tensor

    def __init__(self, drift: nn.Module, sigma: Tensor, learn_sigma: bool = True) -> None:
        super().__init__()
        self.drift = drift
        if learn_sigma:
            self.log_sigma = nn.Parameter(sigma.log())
        else:
            self.register_buffer("log_sigma", sigma.log())

    @property
    def sigma(self) -> Tensor:
        """(n_latents, 1)."""
        return self.log_sigma.exp()[:, None]

    def rates(self, r: Positions) -> Rates:
        return Rates(self.drift(r[..., 0])[..., None], r.new_zeros(len(r)))


class Control(nn.Module):
    """u(t, z, c): starts at zero, so that the posterior starts as the prior.

    Args:
        n_latents, n_context: components of z and c.
        width: units in each of two hidden layers.
        time_scale: of the observations.
    """

    def __init__(self, n_latents: int, n_context: int, width: int, time_scale: float) -> None:
        super().__init__()
        self.network = MLP(n_latents + n_context + 3, (width, width), n_latents, gain=0.0)
        self.time_scale = time_scale

    def forward(self, left: float, r: Positions, context: Tensor) -> Positions:
        """u at a time `left` before the next observation."""
        s = left / self.time_scale
        now = r.new_tensor([s, math.exp(-s), math.exp(-4 * s)]).expand(len(r), 3)
        return self.network(torch.cat([r[..., 0], context, now], 1))[..., None]


@dataclass(frozen=True, eq=False)
class Steering:
    """v = sigma u with a context for each path, up to the observation at `end`: a drift for `TimedProcess`."""

    control: Callable[[float, Tensor, Tensor], Tensor]
    sigma: Callable[[], Tensor]
    context: Tensor
    end: float

    def __call__(self, t: Tensor, r: Positions) -> Positions:
        return self.sigma() * self.control(self.end - float(t), r, self.context)

    def frozen(self) -> Steering:
        """The same drift without parameters."""
        if not isinstance(self.control, nn.Module):
            return self
        module, sigma = self.control, self.sigma().detach()
        parameters = {name: parameter.detach() for name, parameter in module.named_parameters()}
        control = lambda *arguments: torch.func.functional_call(module, parameters, arguments)  # noqa: E731
        return Steering(control, lambda: sigma, self.context.detach(), self.end)


class Encoder(nn.Module):
    """Contexts of a series: a recurrent network that reads the observations from the last to the first.

    Args:
        n_observed: components of an observation.
        n_context: components of a context.
        width: of the recurrent state.
    """

    def __init__(self, n_observed: int, n_context: int, width: int) -> None:
        super().__init__()
        self.cell = nn.GRU(n_observed + 1, width, batch_first=True)
        self.read = nn.Linear(width, n_context)
        self.absent = nn.Parameter(torch.zeros(n_observed))

    def forward(self, x: Tensor, gaps: Tensor) -> Tensor:
        """x (batch, time, observed) and the times from each observation to the next, to (batch, time, context).

        What is missing in x (NaN) is read as a value that is learned, the mean to start from.
        """
        x = torch.where(x.isfinite(), x, self.absent)
        given = torch.cat([x, gaps.expand(len(x), -1)[..., None]], -1).flip(1)
        return self.read(self.cell(given)[0]).flip(1)


def _linear_decoder(n_latents: int, centre: Tensor, spread: Tensor) -> DiagonalGaussian:
    """An affine map of z with a learned width, which starts at the scales of the data."""
    network = MLP(n_latents, (), len(centre))
    with torch.no_grad():
        network.last.weight.mul_(spread[:, None])
        network.last.bias.copy_(centre)
    return DiagonalGaussian(network, len(centre), scale=spread / 2)


class LatentSDE(nn.Module):
    """A latent SDE with its recognition model.

    Args:
        times: of the observations, increasing, from 0 on.
        n_observed: components of each observation.
        n_latents: components of z.
        dt: longest step between observations.
        decoder: p(x | z), a kernel from latents to observations; default a linear Gaussian with learned width.
        prior: h and sigma; default an MLP, and sigma = 1 to start from.
        width: units of the networks.
        n_context: components of c.
        scales: mean and width of the observations, (n_observed,) each: the encoder sees them standardised, and the
            default decoder starts from them.
        adjoint: gradients by the adjoint equation, in memory that does not grow with the number of steps.
        seed: of the first weights.

    Raises:
        BadParameter: times out of order, or sizes below 1.

    Example (-ELBO in nats, of each of 10 series):
        >>> model = LatentSDE(times=[0.5, 1.0, 1.5], n_observed=1, n_latents=1, dt=0.25)
        >>> model.free_energy(torch.zeros(10, 3, 1), g).shape
        torch.Size([10])
    """

    centre: Tensor
    spread: Tensor
    gaps: Tensor

    def __init__(
        self,
        times: Sequence[float],
        n_observed: int,
        n_latents: int,
        *,
        dt: float = 0.05,
        decoder: DistributionKernel | None = None,
        prior: Prior | None = None,
        width: int = 48,
        n_context: int = 16,
        scales: tuple[Tensor, Tensor] | None = None,
        adjoint: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.times = [float(t) for t in times]
        if not self.times or self.times[0] < 0 or any(b <= a for a, b in pairwise(self.times)):
            raise BadParameter(f"times = {self.times} is not allowed: they must increase, from 0 on")
        if self.times[-1] == 0 or min(n_observed, n_latents) < 1 or not dt > 0:
            raise BadParameter(
                f"times up to {self.times[-1]}, n_observed = {n_observed}, n_latents = {n_latents}, dt = {dt} is not "
                "allowed: all must be positive"
            )
        self.n_observed, self.n_latents, self.dt = n_observed, n_latents, dt
        self.adjoint = adjoint
        mean_gap = self.times[-1] / len(self.times)
        centre, spread = scales or (torch.zeros(n_observed), torch.ones(n_observed))
        self.register_buffer("centre", centre.clone())
        self.register_buffer("spread", spread.clone())
        with seeded(seed):
            self.prior = prior or Prior(MLP(n_latents, (width,), n_latents, gain=START_GAIN), torch.ones(n_latents))
            self.decoder = decoder or _linear_decoder(n_latents, centre, spread)
            self.encoder = Encoder(n_observed, n_context, width)
            self.control = Control(n_latents, n_context, width, mean_gap)
            self.first = MLP(n_context, (), 2 * n_latents, gain=START_GAIN)
        self.start_mean = nn.Parameter(torch.zeros(n_latents))
        self.start_log_scale = nn.Parameter(torch.zeros(n_latents))
        gaps = torch.tensor([b - a for a, b in pairwise(self.times)] + [0.0])
        self.register_buffer("gaps", gaps / mean_gap)

    def log_ratio(
        self,
        x: Tensor,
        generator: torch.Generator,
        n_samples: int = 1,
        *,
        gradient: Gradient = ThroughPath(),
    ) -> Tensor:
        """log q(path | x) - log p(x, path), nats, for n_samples paths of each series.

        Args:
            x: (batch, time, observed), or (batch, time * observed); NaN where nothing was observed.
            generator: source of the noise.
            n_samples: paths of each series.
            gradient: of which kind, see `fkdrift.paths.evolution.evolve`; a model with `adjoint` has its own.

        Returns:
            (sample, batch), differentiable.
        """
        x = self._series(x)
        n = len(x)
        context = self._contexts(x)
        x, context = (values.repeat(n_samples, 1, 1) for values in (x, context))
        total, _ = self._follow(x, context, generator, gradient)
        return total.unflatten(0, (n_samples, n))

    def free_energy(
        self, x: Tensor, generator: torch.Generator, *, loss: str = "kl", n_samples: int | None = None
    ) -> Tensor:
        """F = -ELBO of each series, (batch,), with the gradient of the loss in its mean.

        Args:
            x: (batch, time, observed), or (batch, time * observed).
            generator: source of the noise.
            loss: "kl" differentiates F through the paths.  "log_variance" holds them fixed: what makes q then follows
                the variance of the log ratio over the paths of each series, and what makes p follows F, but for sigma,
                which paths held fixed determine.
            n_samples: paths of each series; default 1, or 4 for the log-variance.

        Raises:
            BadParameter: there is no such loss, or one path for a variance.
        """
        if loss not in LOSSES:
            raise BadParameter(f"loss = {loss!r} is not allowed: choose from {', '.join(LOSSES)}")
        if loss == "kl":
            return self.log_ratio(x, generator, n_samples or 1, gradient=ScoreFree()).mean(0)
        if n_samples == 1 or self.adjoint:
            raise BadParameter("the log-variance needs n_samples of at least 2, and no adjoint")
        ratio = self.log_ratio(x, generator, n_samples or 4, gradient=Detached())
        recognition = [*self.encoder.parameters(), *self.control.parameters(), *self.first.parameters()]
        known = {id(p) for p in (*recognition, self.prior.log_sigma)}
        generative = [p for p in self.parameters() if id(p) not in known and p.requires_grad]
        surrogate = ratio.new_zeros(())
        for scalar, parameters in ((log_variance(ratio), recognition), (ratio.mean(), generative)):
            if not parameters:
                continue
            gradients = torch.autograd.grad(scalar, parameters, retain_graph=True, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    surrogate = surrogate + ((parameter - parameter.detach()) * gradient).sum()
        return ratio.detach().mean(0) + surrogate

    @torch.no_grad()
    def log_evidence(self, x: Tensor, n_samples: int, generator: torch.Generator) -> Tensor:
        """The importance-weighted bound on log p(x) of each series with n_samples paths, (batch,), nats."""
        return iwae(self.log_ratio(x, generator, n_samples))

    @torch.no_grad()
    def posterior(self, x: Tensor, n_samples: int, generator: torch.Generator) -> tuple[Path, Tensor]:
        """Hidden paths of one series, and their log weights (sample,).

        Args:
            x: (time, observed).
            n_samples: how many paths.
            generator: source of the noise.

        Returns:
            The path, positions (time, sample, latent, 1) at every step, and -log ratio.
        """
        x = self._series(x[None])
        context = self._contexts(x)
        x, context = (values.repeat(n_samples, 1, 1) for values in (x, context))
        log_ratio, path = self._follow(x, context, generator)
        return path, -log_ratio

    @torch.no_grad()
    def generate(self, n: int, generator: torch.Generator) -> tuple[Path, Tensor]:
        """n hidden paths of the prior, and observations of them, (n, time, observed)."""
        z = draw(self._start_prior(n), generator)[..., None]
        path, seen = None, []
        for k, end in enumerate(self.times):
            began = self.times[k - 1] if k else 0.0
            if end > began:
                process = Process(torch.zeros_like, self.prior)
                part = self._segment(process, z, began, end, generator)
                path, z = part if path is None else path.then(part), part.positions[-1]
            seen.append(draw(self.decoder(z[..., 0]), generator))
        assert path is not None
        return path, torch.stack(seen, 1)

    def _follow(
        self,
        x: Tensor,
        context: Tensor,
        generator: torch.Generator,
        gradient: Gradient = ThroughPath(),
    ) -> tuple[Tensor, Path]:
        """log q - log p of one path for each row of x, and the paths."""
        q, p = self._start_posterior(context[:, 0]), self._start_prior(len(x))
        z_0 = draw(q, generator)
        if isinstance(gradient, Detached):
            z_0 = z_0.detach()
        total = q.log_prob(z_0) - p.log_prob(z_0)
        z, path = z_0[..., None], None
        for k, end in enumerate(self.times):
            began = self.times[k - 1] if k else 0.0
            if end > began:
                steering = Steering(self.control, lambda: self.prior.sigma, context[:, k], end)
                process = TimedProcess(steering, self.prior)
                if self.adjoint:
                    gradient = Adjoint((*self.prior.parameters(), *self.control.parameters(), steering.context))
                part = self._segment(process, z, began, end, generator, gradient)
                path, z = part if path is None else path.then(part), part.positions[-1]
            total = total - _log_prob_of_seen(self.decoder(z[..., 0]), x[:, k])
        assert path is not None
        return total + path.log_ratio[-1], path

    def _segment(
        self,
        process: Process | TimedProcess,
        z: Tensor,
        began: float,
        end: float,
        generator: torch.Generator,
        gradient: Gradient = ThroughPath(),
    ) -> Path:
        """The path between two observations, saved at every step."""
        n = max(1, math.ceil((end - began) / self.dt * (1 - ROUNDING)))
        dt = (end - began) / n
        return evolve(process, z, n_steps=n, dt=dt, n_saved=n, generator=generator, start=began, gradient=gradient)

    def _contexts(self, x: Tensor) -> Tensor:
        """c_k of each series, (batch, time, context)."""
        return self.encoder((x - self.centre) / self.spread, self.gaps)

    def _start_prior(self, n: int) -> Independent:
        """p(z_0)."""
        mean = self.start_mean.expand(n, -1)
        return Independent(Normal(mean, self.start_log_scale.exp().expand_as(mean), validate_args=False), 1)

    def _start_posterior(self, context: Tensor) -> Independent:
        """q(z_0 | x)."""
        mean, log_scale = self.first(context).chunk(2, -1)
        return Independent(Normal(mean, soft_limit(log_scale).exp(), validate_args=False), 1)

    def _series(self, x: Tensor) -> Tensor:
        """x as (batch, time, observed)."""
        shape = (len(self.times), self.n_observed)
        if x.ndim == 2 and x.shape[1] == shape[0] * shape[1]:
            x = x.unflatten(1, shape)
        if x.ndim != 3 or x.shape[1:] != shape or bool(x.isinf().any()):
            raise BadParameter(
                f"series of shape {tuple(x.shape)} do not fit, or are infinite: give (batch, {shape[0]}, {shape[1]}), "
                "with NaN where nothing was observed"
            )
        return x


def _log_prob_of_seen(distribution: Distribution, x: Tensor) -> Tensor:
    """log p of the components of x (batch, observed) that are no NaN, (batch,).

    Raises:
        BadParameter: some of a datum are missing, and the distribution does not factorise.
    """
    seen = x.isfinite()
    filled = torch.where(seen, x, torch.zeros_like(x))
    if isinstance(distribution, Independent):
        return torch.where(seen, distribution.base_dist.log_prob(filled), torch.zeros_like(x)).sum(-1)
    whole = seen.all(-1)
    if bool((whole != seen.any(-1)).any()):
        raise BadParameter("a decoder whose components are not independent needs all or none of an observation")
    return torch.where(whole, distribution.log_prob(filled), torch.zeros_like(filled[:, 0]))
