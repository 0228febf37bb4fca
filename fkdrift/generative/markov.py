"""The Markov autoencoder: T latents in a chain, each step with kernels and a width of its own.

    F = E_q sum_{t=1}^T [ log q(z_t | z_{t-1}) - log p(z_{t-1} | z_t) ] - log p(z_T),     z_0 = x,

whose term t = 1 holds the reconstruction -log p(x | z_1): without it, as the formula is sometimes printed, nothing ties
the chain to the data.  The kernels q are learned, or fixed as in a diffusion model.  T = 1 is the VAE, and with Euler
kernels the chain is a discretised stochastic differential equation.

References: Sohl-Dickstein et al., ICML 2015; Kingma, Abbeel and Ho, Bit-Swap, ICML 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from fkdrift.densities.kernels import DiagonalGaussian, DistributionKernel
from fkdrift.errors import BadParameter
from fkdrift.generative.chain import free_energy
from fkdrift.generative.conditional import Conditional
from fkdrift.generative.vae import standard_normal


class MarkovAutoencoder(Conditional):
    """A chain of T latents; a `Chain`.

    Args:
        encoders: q(z_t | z_{t-1}) for t = 1 ... T, Gaussian.
        decoders: p(z_{t-1} | z_t) for t = 1 ... T; the first one is the distribution of the data.
        n_latents: number of components of z_T, whose prior is N(0, 1).
        class_shares: of classes that the first decoder reads one-hot beside z_1, if it does; see `Conditional`.

    Raises:
        BadParameter: not as many encoders as decoders, or none.

    Example (-ELBO in nats, of each of 10 data):
        >>> from fkdrift.numerics.networks import MLP
        >>> encoders = [DiagonalGaussian(MLP(n, (16,), 2 * 2), 2) for n in (5, 2)]
        >>> decoders = [DiagonalGaussian(MLP(2, (16,), 2 * n), n) for n in (5, 2)]
        >>> MarkovAutoencoder(encoders, decoders, n_latents=2).free_energy(torch.zeros(10, 5), g).shape
        torch.Size([10])
    """

    def __init__(
        self,
        encoders: Sequence[DistributionKernel],
        decoders: Sequence[DistributionKernel],
        n_latents: int,
        class_shares: Tensor | None = None,
    ) -> None:
        super().__init__(class_shares)
        if not encoders or len(encoders) != len(decoders):
            raise BadParameter(
                f"{len(encoders)} encoders and {len(decoders)} decoders: give one of each for every step, at least one"
            )
        self.encoders, self.decoders = nn.ModuleList(encoders), nn.ModuleList(decoders)
        self.n_steps, self.n_latents = len(encoders), n_latents
        self.register_buffer("origin", torch.zeros(n_latents))

    def posterior(self, t: int, z: Tensor) -> Distribution:
        """q(z_t | z_{t-1} = z), t = 1 ... T."""
        return self.encoders[t - 1](z)

    def generative(self, t: int, z: Tensor) -> Distribution:
        """p(z_{t-1} | z_t = z), t = 1 ... T."""
        return self.decoders[t - 1](self._with_class(z) if t == 1 else z)

    def prior(self, n: int) -> Independent:
        """p(z_T) = N(0, 1), for a batch of n."""
        return standard_normal(cast(Tensor, self.origin), n)

    def free_energy(self, x: Tensor, generator: torch.Generator, *, beta: float = 1.0, n_samples: int = 1) -> Tensor:
        """F at one draw of the chain, (batch,), or -IWAE with many; see `fkdrift.generative.chain.free_energy`."""
        return free_energy(self, x, generator, beta=beta, n_samples=n_samples)


def fixed_kernel(size: int, decay: float) -> DiagonalGaussian:
    """The step of a diffusion that forgets, q(z' | z) = N(a z, 1 - a^2), with nothing to learn; it keeps N(0, 1).

    Args:
        size: number of components.
        decay: a, between 0 and 1.
    """
    if not 0 < decay < 1:
        raise BadParameter(f"decay = {decay} is not allowed: it must be between 0 and 1")
    width = torch.tensor(1 - decay**2).sqrt()
    return DiagonalGaussian(_Map(lambda z: decay * z), size, scale=width.expand(size), learn_scale=False)


def euler_kernel(
    velocity: Callable[[Tensor], Tensor], shape: tuple[int, int], sigma: Tensor, dt: float
) -> DiagonalGaussian:
    """An Euler-Maruyama step of dr = velocity(r) dt + sigma dB on flattened positions: N(r + velocity dt, sigma^2 dt).

    Args:
        velocity: (batch, particle, dim) to the same; a module if it has parameters.
        shape: (particle, dim).
        sigma: (particle, 1).
        dt: the step.

    Example:
        >>> step = euler_kernel(lambda r: -r, (1, 1), torch.ones(1, 1), dt=0.01)(torch.ones(1, 1))
        >>> step.mean, step.stddev
        (tensor([[0.9900]]), tensor([[0.1000]]))
    """
    width = (sigma * dt**0.5).expand(shape).flatten()
    step = _Map(lambda r: r + (velocity(r.unflatten(-1, shape)) * dt).flatten(1))
    if isinstance(velocity, nn.Module):
        step.learned = velocity
    return DiagonalGaussian(step, width.numel(), scale=width, learn_scale=False)


class _Map(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, z: Tensor) -> Tensor:
        return self.function(z)
