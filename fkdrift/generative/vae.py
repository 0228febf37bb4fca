"""The variational autoencoder: one latent, an encoder q(z | x), a decoder p(x | z), and p(z) = N(0, 1).

    F = E_q[ log q(z | x) - log p(x, z) ] = -E_q[ log p(x | z) ] + KL( q(z | x) || p(z) )  >=  -log p(x)

It is the chain with T = 1.  The KL is known in closed form; weighted by beta != 1, F is no bound any more but trades
how well x is reconstructed against how much z says about it.

References: Kingma and Welling, ICLR 2014; Higgins et al., beta-VAE, ICLR 2017.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from fkdrift.densities.kernels import DistributionKernel, draw, standard_normal_kl
from fkdrift.generative.chain import free_energy
from fkdrift.generative.conditional import Conditional


class VAE(Conditional):
    """A variational autoencoder; a `Chain` of one step.

    Args:
        encoder: q(z | x), a DiagonalGaussian or FullGaussian kernel from data (batch, n) to n_latents components.
        decoder: p(x | z), any kernel from latents to data.
        n_latents: number of components of z.
        class_shares: of classes that the decoder reads one-hot beside z, if it does; see `Conditional`.

    Example (-ELBO in nats, of each of 10 data):
        >>> from fkdrift.generative import MLP, BetaBinomialDecoder, DiagonalGaussian
        >>> encoder = DiagonalGaussian(MLP(64, (128,), 2 * 8), 8)
        >>> decoder = BetaBinomialDecoder(MLP(8, (128,), 2 * 64), 64, 17)
        >>> VAE(encoder, decoder, 8).free_energy(torch.zeros(10, 64), g).shape
        torch.Size([10])
    """

    n_steps = 1

    def __init__(
        self,
        encoder: DistributionKernel,
        decoder: DistributionKernel,
        n_latents: int,
        class_shares: Tensor | None = None,
    ) -> None:
        super().__init__(class_shares)
        self.encoder, self.decoder, self.n_latents = encoder, decoder, n_latents
        self.register_buffer("origin", torch.zeros(n_latents))

    def posterior(self, t: int, z: Tensor) -> Distribution:
        """q(z | x); t = 1."""
        return self.encoder(z)

    def generative(self, t: int, z: Tensor) -> Distribution:
        """p(x | z); t = 1."""
        return self.decode(z)

    def prior(self, n: int) -> Independent:
        """p(z) = N(0, 1), for a batch of n."""
        return standard_normal(cast(Tensor, self.origin), n)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each component of q(z | x), both (batch, n_latents)."""
        q = self.encoder(x)
        return q.mean, q.variance.sqrt()

    def decode(self, z: Tensor) -> Distribution:
        """p(x | z), a torch distribution with events of one axis."""
        return self.decoder(self._with_class(z))

    def free_energy(
        self,
        x: Tensor,
        generator: torch.Generator,
        *,
        beta: float = 1.0,
        n_samples: int = 1,
        closed_form: bool = True,
    ) -> Tensor:
        """F = -log p(x | z) + beta KL at one draw of z, or -IWAE with many.

        Args:
            x: data (batch, n).
            generator: of the draws.
            beta: weight of the KL.
            n_samples: draws of each datum; from two on, the importance-weighted bound.
            closed_form: the KL as its formula, or as log q - log p at the draw (zero variance at the optimum).

        Returns:
            (batch,), nats, differentiable.

        Raises:
            BadParameter: a beta other than 1 with many samples, which bounds nothing.
        """
        if n_samples > 1 or not closed_form:
            return free_energy(self, x, generator, beta=beta, n_samples=n_samples)
        q = self.encoder(x)
        return beta * standard_normal_kl(q) - self.decode(draw(q, generator)).log_prob(x)


def standard_normal(origin: Tensor, n: int) -> Independent:
    """N(0, 1) for a batch of n, like `origin` (size,)."""
    mean = origin.expand(n, *origin.shape)
    return Independent(Normal(mean, torch.ones_like(mean), validate_args=False), 1)
