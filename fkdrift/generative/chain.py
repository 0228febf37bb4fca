"""A chain of latent variables, and the one log ratio between its two directions.

    x = z_0 -> z_1 -> ... -> z_T        q(z_t | z_{t-1})          forward: infers
    x = z_0 <- z_1 <- ... <- z_T        p(z_T) p(z_{t-1} | z_t)   backward: generates

    log_ratio = sum_{t=1}^T [ log q(z_t | z_{t-1}) - log p(z_{t-1} | z_t) ] - log p(z_T),

in which t = 1 contributes the reconstruction -log p(x | z_1).  T = 1 is a VAE, and Euler kernels with T -> infinity
make a stochastic differential equation.  For two chains that run the same way,

    sum_t log q(z_{t+1} | z_t) - log p(z_{t+1} | z_t)

is `transition_log_ratio`, the Radon-Nikodym derivative of the discretised path measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution

from fkdrift.densities.density import Kernel
from fkdrift.densities.kernels import draw
from fkdrift.errors import BadParameter
from fkdrift.numerics.log_weights import iwae


class Chain(Protocol):
    """A model as a chain of conditional distributions; batch axis first, events of one axis.

    Attributes:
        n_steps: T >= 1, the number of latent variables.
    """

    n_steps: int

    def posterior(self, t: int, z: Tensor) -> Distribution:
        """q(z_t | z_{t-1} = z), t = 1 ... T."""

    def generative(self, t: int, z: Tensor) -> Distribution:
        """p(z_{t-1} | z_t = z), t = 1 ... T; for t = 1 the distribution of the data."""

    def prior(self, n: int) -> Distribution:
        """p(z_T) for a batch of n."""


def draw_posterior(chain: Chain, x: Tensor, generator: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
    """One draw for each datum: z_0 = x, z_1, ..., z_T, reparameterised, and the log q(z_t | z_{t-1}), (batch,) each."""
    path, log_q = [x], []
    for t in range(1, chain.n_steps + 1):
        q = chain.posterior(t, path[-1])
        path.append(draw(q, generator))
        log_q.append(q.log_prob(path[-1]))
    return path, log_q


def generate(chain: Chain, n: int, generator: torch.Generator) -> list[Tensor]:
    """n draws of the generative chain: z_T, ..., z_1, x, the last being the data."""
    states = [draw(chain.prior(n), generator)]
    for t in range(chain.n_steps, 0, -1):
        states.append(draw(chain.generative(t, states[-1]), generator))
    return states


def terms(chain: Chain, path: Sequence[Tensor], log_q: Sequence[Tensor]) -> Tensor:
    """The parts of the log ratio along a path that `draw_posterior` drew.

    The first is the reconstruction -log p(x | z_1); latent t costs log q(z_t | z_{t-1}) - log p(z_t | z_{t+1}), and z_T
    costs log q(z_T | z_{T-1}) - log p(z_T).

    Returns:
        (T + 1, batch), nats.
    """
    log_p = [chain.generative(t, path[t]).log_prob(path[t - 1]) for t in range(1, chain.n_steps + 1)]
    log_p.append(chain.prior(len(path[0])).log_prob(path[-1]))
    return torch.stack([-log_p[0], *(q - p for q, p in zip(log_q, log_p[1:], strict=True))])


def log_ratio(chain: Chain, x: Tensor, generator: torch.Generator, n_samples: int | None = None) -> Tensor:
    """log q(z | x) - log p(x, z) at one draw of z for each datum; its mean is -ELBO.

    Args:
        chain: a VAE, a Markov autoencoder, any `Chain`.
        x: data (batch, ...).
        generator: of the draws.
        n_samples: draws of each datum, for a leading axis of samples; None for none.

    Returns:
        (batch,), or (n_samples, batch); nats.

    Example (with the exact posterior, the same for every draw of z):
        >>> x = torch.randn(100, 5, generator=g, dtype=torch.float64)
        >>> exact = fk.generative.principal_components(x, n_latents=2)
        >>> torch.allclose(log_ratio(exact.vae(), x, g), -exact.log_prob(x))
        True
    """
    if n_samples is None:
        return terms(chain, *draw_posterior(chain, x, generator)).sum(0)
    many = x.expand(n_samples, *x.shape).flatten(0, 1)
    return log_ratio(chain, many, generator).unflatten(0, (n_samples, len(x)))


def path_log_ratio(chain: Chain, path: Sequence[Tensor]) -> Tensor:
    """The log ratio along given values z_0 = x, z_1, ..., z_T, each (batch, ...), wherever they come from; (batch,)."""
    log_q = [chain.posterior(t, path[t - 1]).log_prob(path[t]) for t in range(1, chain.n_steps + 1)]
    return terms(chain, path, log_q).sum(0)


def free_energy(
    chain: Chain, x: Tensor, generator: torch.Generator, *, beta: float = 1.0, n_samples: int = 1
) -> Tensor:
    """F at one draw of the latents, or -IWAE with many.

    Args:
        chain: the model.
        x: data (batch, ...).
        generator: of the draws.
        beta: weight of everything but the reconstruction -log p(x | z_1); F is a bound for beta = 1 only.
        n_samples: draws of each datum; from two on, the importance-weighted bound.

    Returns:
        (batch,), nats, differentiable.

    Raises:
        BadParameter: a beta other than 1 with many samples.
    """
    if n_samples > 1:
        if beta != 1.0:
            raise BadParameter(f"beta = {beta} does not go with n_samples = {n_samples}: use beta = 1, or one sample")
        return -iwae(log_ratio(chain, x, generator, n_samples))
    reconstruction, *latents = terms(chain, *draw_posterior(chain, x, generator))
    return reconstruction + beta * torch.stack(latents).sum(0)


def transition_log_ratio(q: Sequence[Kernel], p: Sequence[Kernel], path: Sequence[Tensor] | Tensor) -> Tensor:
    """sum_t log q_t(z_{t+1} | z_t) - log p_t(z_{t+1} | z_t), for two chains that run the same way.

    With Euler kernels it is log dP_v / dP_ref of `fkdrift.paths.evolution.evolve`, int u . dB + int |u|^2 / 2 dt.

    Args:
        q, p: a kernel for each step.
        path: z_0 ... z_T, each (batch, ...).

    Returns:
        (batch,), nats.
    """
    steps = zip(q, p, path[:-1], path[1:], strict=True)
    return torch.stack([a.log_prob(after, before) - b.log_prob(after, before) for a, b, before, after in steps]).sum(0)
