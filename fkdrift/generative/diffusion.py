"""Denoising diffusion: a chain whose inference is fixed noise and whose generation is learned.

    q(z_t | z_{t-1}) = N( sqrt(a_t) z_{t-1}, b_t ),  b_t = 1 - a_t,    z_0 = (x - mean) / scale
    z_t = cos(phi_t) z_0 + sin(phi_t) e,             cos^2(phi_t) = A_t = a_1 ... a_t,   e = standard normal
    p(z_{t-1} | z_t) = N( mu_t(z_t), v_t ),          p(z_T) = N(0, 1)

The network is asked for w = dz / dphi = cos(phi) e - sin(phi) z_0, whose size is the same at all noise levels.  From
its answer follow both parts, z_0 = cos(phi) z - sin(phi) w and e = sin(phi) z + cos(phi) w, and with them the mean mu_t
of q(z_{t-1} | z_t, z_0) and the score of the noised data, -e / sin(phi).  The free energy

    F = KL( q(z_T | x) || N(0, 1) ) + sum_{t=2}^T KL( q(z_{t-1} | z_t, x) || p(z_{t-1} | z_t) ) - log p(x | z_1)

is the log ratio of `chain`, averaged over the noise where that can be done in closed form, and E[F] >= -log p(x).  Its
terms, in nats, are what training minimises and what is reported.

Four choices of v_t: b_t; the width b~_t of q(z_{t-1} | z_t, z_0); the best one for a given network, b~_t plus the mean
square error of mu_t; or learned with the network.

References: Ho, Jain and Abbeel, NeurIPS 2020; Nichol and Dhariwal, ICML 2021; Salimans and Ho, ICLR 2022; Bao et al.,
Analytic-DPM, ICLR 2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from fkdrift.errors import BadParameter
from fkdrift.generative.conditional import Conditional
from fkdrift.generative.vae import standard_normal
from fkdrift.numerics.networks import MLP, Standardise

Schedule = Callable[[Tensor], Tensor]
"""log A(s) of the time s in [0, 1], float64; A(0) = 1, falling to nearly 0."""

COSINE_OFFSET, COSINE_END = 0.008, 0.995  # the offset of Nichol and Dhariwal (2021); the end keeps A(1) > 0
LOWEST_RATE, HIGHEST_RATE = 0.1, 20.0  # the linear schedule of Ho et al. (2020), 1000 steps from 1e-4 to 0.02
TIME_WAVES = 4  # waves of the angle phi, whose range is pi / 2: the finest has the period pi / 4
FIRST_WAVE = 1.5  # wavenumber of the longest wave of z: half a period is two standard deviations of z
START_GAIN = 0.1  # of the last layer: w starts small, and its gradient does not


def linear_schedule(s: Tensor) -> Tensor:
    """log A(s) with a rate -dlog A/ds that grows linearly from 0.1 to 20, as Ho et al. with 1000 steps."""
    return -(LOWEST_RATE * s + (HIGHEST_RATE - LOWEST_RATE) * s.square() / 2)


def cosine_schedule(s: Tensor) -> Tensor:
    """log A(s) with an angle phi that grows linearly from 0.008 pi / 2 to 0.995 pi / 2."""
    angle = math.pi / 2 * COSINE_END * (s + COSINE_OFFSET) / (1 + COSINE_OFFSET)
    first = math.pi / 2 * COSINE_END * COSINE_OFFSET / (1 + COSINE_OFFSET)
    return 2 * (angle.cos().log() - math.log(math.cos(first)))


class TimeNetwork(nn.Module):
    """w(z, phi) from a multilayer perceptron that also reads waves of the noise level and, if asked to, of z.

    Args:
        size: number of components of z.
        widths: of the hidden layers.
        n_waves: how many sin(2^k z_i), cos(2^k z_i) are read beside z_i: three for sharp structure in few dimensions.
        n_classes: further inputs after z, of a model that is told classes.

    Example:
        >>> TimeNetwork(2, (64, 64))(torch.zeros(5, 2), torch.full((5,), 0.3)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self, size: int, widths: tuple[int, ...] = (128, 128, 128), n_waves: int = 0, n_classes: int = 0
    ) -> None:
        super().__init__()
        self.size, self.n_waves = size, n_waves
        n_in = size * (1 + 2 * n_waves) + n_classes + 2 * TIME_WAVES + 1
        self.network = MLP(n_in, widths, size, gain=START_GAIN)

    def forward(self, z: Tensor, phi: Tensor) -> Tensor:
        phi = phi[:, None]
        noise_level = [phi.tan().log() / 4, *_waves(phi, TIME_WAVES)]
        return self.network(torch.cat([z, *_waves(FIRST_WAVE * z[:, : self.size], self.n_waves), *noise_level], -1))


def _waves(x: Tensor, n: int) -> list[Tensor]:
    """sin and cos of x, 2 x, 4 x, ..., n of each."""
    return [wave(2.0**k * x) for k in range(n) for wave in (torch.sin, torch.cos)]


class DDPM(Conditional):
    """A diffusion model; a `Chain` with T latents of the size of the data.

    Args:
        network: w(z, phi), (batch, size) and (batch,) to (batch, size); of classes that it is told, w(z with c, phi).
        data: (n, size), whose mean and scale z_0 is measured from and in.
        n_steps: T.
        schedule: of the noise.
        learn_variance: whether v_t are parameters; otherwise they are b_t until one of `use_*` changes them.
        dither: width of uniform noise that bounds add to the data: 1 for whole numbers, which have no density.
        by_column: whether every column of the data has a scale of its own.
        class_shares: of classes that the network reads one-hot after z, if it does; see `Conditional`.

    Raises:
        BadParameter: fewer than two steps.

    Example (a bound on the entropy of two normal numbers, log(2 pi e) = 2.838 nats):
        >>> from fkdrift.numerics.estimates import from_walkers
        >>> data = torch.randn(500, 2, generator=g)
        >>> model = DDPM(TimeNetwork(2, (16,)), data, n_steps=20)
        >>> method = fk.generative.minibatch_adam(model, model.free_energy, data, n_updates=50)
        >>> steps = list(fk.fit(method, torch.empty(0), n_updates=50, generator=g))
        >>> model.use_best_variance(data, g)
        >>> print(from_walkers(model.bound(data, g)))
        2.84(8)
    """

    log_variance: Tensor
    origin: Tensor

    def __init__(
        self,
        network: nn.Module,
        data: Tensor,
        *,
        n_steps: int = 100,
        schedule: Schedule = cosine_schedule,
        learn_variance: bool = False,
        dither: float = 0.0,
        by_column: bool = False,
        class_shares: Tensor | None = None,
    ) -> None:
        super().__init__(class_shares)
        if n_steps < 2:
            raise BadParameter(f"n_steps = {n_steps} is not allowed: a diffusion has at least 2")
        self.network, self.schedule, self.n_steps, self.dither = network, schedule, n_steps, dither
        self.standardise = Standardise(data, by_column)
        self.register_buffer("origin", torch.zeros_like(self.standardise.mean))
        for name, table in _tables(schedule, n_steps).items():
            self.register_buffer(name, table.to(data))
        start = self.b.log()
        if learn_variance:
            self.log_variance = nn.Parameter(start)
        else:
            self.register_buffer("log_variance", start)

    phi: Tensor
    cos: Tensor
    sin: Tensor
    a: Tensor
    b: Tensor
    b_tilde: Tensor
    from_data: Tensor
    from_noisy: Tensor

    @property
    def size(self) -> int:
        """Components of a datum."""
        return len(self.origin)

    # -- the chain -----------------------------------------------------------------------------------------------------

    def posterior(self, t: int, z: Tensor) -> Independent:
        """q(z_t | z_{t-1} = z); for t = 1 z is the datum."""
        z = self.standardise(z) if t == 1 else z
        mean = self.a[t - 1].sqrt() * z
        return Independent(Normal(mean, self.b[t - 1].sqrt().expand_as(mean), validate_args=False), 1)

    def generative(self, t: int, z: Tensor) -> Independent:
        """p(z_{t-1} | z_t = z); for t = 1 the distribution of the datum."""
        steps = torch.full((len(z),), t - 1, device=z.device)
        mean = self.mean(z, steps)
        width = (self.log_variance[t - 1] / 2).exp().expand_as(mean)
        if t == 1:
            mean, width = mean * self.standardise.scale + self.standardise.mean, width * self.standardise.scale
        return Independent(Normal(mean, width, validate_args=False), 1)

    def prior(self, n: int) -> Independent:
        """p(z_T) = N(0, 1), for a batch of n."""
        return standard_normal(self.origin, n)

    # -- the learned part ----------------------------------------------------------------------------------------------

    def velocity(self, z: Tensor, phi: Tensor) -> Tensor:
        """w = dz / dphi of z (batch, size) at noise level phi (batch,), (batch, size)."""
        return self.network(self._with_class(z), phi)

    def parts(self, z: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
        """What the network takes z (batch, size) at noise level phi (batch,) to be made of: z_0 and e."""
        w, cos, sin = self.velocity(z, phi), phi.cos()[:, None], phi.sin()[:, None]
        return cos * z - sin * w, sin * z + cos * w

    def score(self, z: Tensor, phi: Tensor) -> Tensor:
        """grad log of the density of z at noise level phi, (batch, size)."""
        return -self.parts(z, phi)[1] / phi.sin()[:, None]

    def mean(self, z: Tensor, steps: Tensor) -> Tensor:
        """mu_t(z_t), (batch, size); `steps` (batch,) holds t - 1."""
        clean, _ = self.parts(z, self.phi[steps])
        return self.from_data[steps, None] * clean + self.from_noisy[steps, None] * z

    # -- the bound -----------------------------------------------------------------------------------------------------

    def term(self, x: Tensor, steps: Tensor, noise: Tensor) -> Tensor:
        """The term of F that belongs to step t at z_t = cos(phi_t) z_0 + sin(phi_t) noise, (batch,), nats.

        Args:
            x: data (batch, size).
            steps: t - 1, (batch,) whole numbers.
            noise: (batch, size), standard normal.
        """
        clean = self.standardise(x)
        z = self.cos[steps, None] * clean + self.sin[steps, None] * noise
        target = self.from_data[steps, None] * clean + self.from_noisy[steps, None] * z
        log_v, error = self.log_variance[steps], (target - self.mean(z, steps)).square().sum(-1)
        b_tilde, first = self.b_tilde[steps], steps == 0
        kl = self.size * (log_v - b_tilde.log() + b_tilde / log_v.exp() - 1) / 2
        log_p = self.size * (log_v + math.log(2 * math.pi)) / 2 + self.standardise.log_volume
        return torch.where(first, log_p, kl) + error / (2 * log_v.exp())

    def prior_term(self, x: Tensor) -> Tensor:
        """KL( q(z_T | x) || N(0, 1) ), (batch,), nats."""
        cos2, sin2 = self.cos[-1].square(), self.sin[-1].square()
        return (cos2 * self.standardise(x).square() - cos2 - sin2.log()).sum(-1) / 2

    def free_energy(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """F with one step drawn for each datum instead of the sum over all: unbiased, and what is trained on.

        Steps are spread over the batch with the density 1 / t, like the terms themselves.

        Returns:
            (batch,), nats, differentiable.
        """
        place = torch.arange(len(x), device=x.device) + torch.rand((), generator=generator, device=x.device)
        steps, weight = self._drawn(place[torch.randperm(len(x), generator=generator, device=x.device)] / len(x), 0)
        x = self.dithered(x, generator)
        return self.prior_term(x) + weight * self.term(x, steps, _normal(x, generator))

    def bound(self, x: Tensor, generator: torch.Generator, n_terms: int | None = None) -> Tensor:
        """F with all its terms, each at a noise of its own, (batch,), nats: at least -log p(x) on average.

        Args:
            x: data (batch, size).
            generator: of the noise.
            n_terms: of those from t = 2 on take so many, drawn for each datum on its own with the density 1 / t, to
                stand for all: unbiased, and the spread over the data is that of independent numbers.
        """
        with torch.no_grad():
            x = self.dithered(x, generator)
            first = torch.zeros(len(x), dtype=torch.long, device=x.device)
            total = self.prior_term(x).double() + self.term(x, first, _normal(x, generator))
            for k in range(self.n_steps - 1 if n_terms is None else min(n_terms, self.n_steps - 1)):
                if n_terms is None or n_terms >= self.n_steps - 1:
                    steps, weight = torch.full_like(first, k + 1), x.new_ones(())
                else:
                    place = torch.rand(len(x), generator=generator, device=x.device)
                    steps, weight = self._drawn((k + place) / n_terms, 1)
                    weight = weight / n_terms
                total += weight * self.term(x, steps, _normal(x, generator))
        return total

    def _drawn(self, place: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Steps t - 1 >= first at places (batch,) in [0, 1) of the density 1 / t, and 1 / density, (batch,) each."""
        density = 1 / torch.arange(first + 1, self.n_steps + 1, device=place.device, dtype=torch.float64)
        density = density / density.sum()
        index = torch.searchsorted(density.cumsum(0), place.double()).clamp_max(len(density) - 1)
        return first + index, (1 / density[index]).to(self.log_variance.dtype)

    def dithered(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """x + dither u with u uniform in [-1/2, 1/2]."""
        if self.dither == 0:
            return x
        return x + self.dither * (torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device) - 0.5)

    # -- widths of the steps -------------------------------------------------------------------------------------------

    def use_variance(self, variance: Tensor) -> None:
        """Set v_t, (T,): `model.b`, `model.b_tilde`, or any."""
        with torch.no_grad():
            self.log_variance.copy_(variance.log())

    def use_best_variance(self, x: Tensor, generator: torch.Generator) -> None:
        """Set v_t to the best value for the network, E|z_{t-1} - mu_t(z_t)|^2 / size, averaged over data (n, size).

        Reference: Bao et al., ICLR 2022.
        """
        best = []
        with torch.no_grad():
            clean = self.standardise(self.dithered(x, generator))
            for t in range(self.n_steps):
                steps = torch.full((len(x),), t, device=x.device)
                z = self.cos[t] * clean + self.sin[t] * _normal(x, generator)
                error = self.from_data[t] * (clean - self.parts(z, self.phi[steps])[0])
                best.append((self.b_tilde[t] if t else 0.0) + error.square().mean())
        self.use_variance(torch.stack(best))


def _tables(schedule: Schedule, T: int) -> dict[str, Tensor]:
    """Everything that depends on t only, (T,) each, from float64: index t - 1.

    The width b~_1 of the last step is 0: the second one's stands in for it.
    """
    log_A = schedule(torch.linspace(0, 1, T + 1, dtype=torch.float64))
    log_a = log_A[1:] - log_A[:-1]
    noise = -torch.expm1(log_A)
    b = -torch.expm1(log_a)
    b_tilde = noise[:-1] / noise[1:] * b
    return {
        "phi": torch.atan2(noise[1:].sqrt(), (log_A[1:] / 2).exp()),
        "cos": (log_A[1:] / 2).exp(),
        "sin": noise[1:].sqrt(),
        "a": log_a.exp(),
        "b": b,
        "b_tilde": torch.cat([b_tilde[1:2], b_tilde[1:]]),
        "from_data": (log_A[:-1] / 2).exp() * b / noise[1:],
        "from_noisy": (log_a / 2).exp() * noise[:-1] / noise[1:],
    }


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
