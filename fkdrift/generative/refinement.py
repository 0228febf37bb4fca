"""A posterior of each datum that is better than what its encoder guesses: natural gradients of the datum's own ELBO.

    q(z_1 | x) = N(m, P^-1),      v(z_1) = -log p(x | z_1) + E_q[ log q(z_2, ... | z_1) - log p(z_1, z_2, ...) ]

    P <- P + ( E_q[ J^T S_x^-1 J + S_1^-1 ] - P ) / k,      m <- m - P^-1 E_q[ grad v ] / k,      k = 1, 2, ...

starting from the encoder, with J = d E[x | z_1] / dz_1, and S_x, S_1 the covariances of p(x | z_1) and p(z_1 | z_2).
The bracket is the information in the means, the Gauss-Newton form of the curvature of v: it is exact for one linear
Gaussian step, and so is then q after k = 1.

An encoder that has seen few data is far from the best posterior of a new one, and the ELBO pays for it.  Nothing of the
model changes: q still depends on x alone, its bound is a bound, and data can be coded with it.

References: Khan and Lin, AISTATS 2017; Cremer, Li and Duvenaud, ICML 2018; Park, Kim and Kim, ICML 2019.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal
from torch.func import jvp, vmap

from fkdrift.densities.kernels import draw, expectation, variance
from fkdrift.errors import BadParameter
from fkdrift.generative.chain import Chain, terms
from fkdrift.generative.markov import MarkovAutoencoder
from fkdrift.generative.vae import VAE
from fkdrift.numerics.differentiation import value_and_gradient

N_PAIRS = 2
"""Of draws m + s and m - s that the gradient is averaged over; the information is that of the first."""
SEED = 0
"""Of these draws, the same for all data."""
AT_ONCE = 128
"""Data whose Jacobians are kept at a time."""


class Refined:
    """A chain with another q(z_1 | x); a `Chain`.

    Args:
        chain: the model.
        first: maps x (batch, ...) to q(z_1 | x).
    """

    def __init__(self, chain: Chain, first: Callable[[Tensor], Distribution]) -> None:
        self.chain, self.first, self.n_steps = chain, first, chain.n_steps

    def posterior(self, t: int, z: Tensor) -> Distribution:
        """q(z_t | z_{t-1} = z), another one for t = 1."""
        return self.first(z) if t == 1 else self.chain.posterior(t, z)

    def generative(self, t: int, z: Tensor) -> Distribution:
        """p(z_{t-1} | z_t = z)."""
        return self.chain.generative(t, z)

    def prior(self, n: int) -> Distribution:
        """p(z_T) for a batch of n."""
        return self.chain.prior(n)


def refined(chain: Chain, n_refinements: int) -> Chain:
    """A chain whose q(z_1 | x) is refined for each datum.

    Args:
        chain: a VAE or a Markov autoencoder.
        n_refinements: k at the end; a step costs about as much as decoding a datum as often as z_1 has components.

    Raises:
        BadParameter: another model, or no such number of steps.

    Example (an encoder that knows nothing, of a model whose posterior is Gaussian):
        >>> x = torch.randn(100, 5, generator=g, dtype=torch.float64)
        >>> exact = fk.generative.principal_components(x, n_latents=2)
        >>> vae = exact.vae()
        >>> vae.encoder = fk.generative.DiagonalGaussian(torch.nn.Linear(5, 4).double(), 2)
        >>> gap = fk.generative.log_ratio(refined(vae, 1), x, g) + exact.log_prob(x)
        >>> bool(gap.abs().max() < 1e-12)
        True
    """
    if n_refinements < 0:
        raise BadParameter(f"n_refinements = {n_refinements} is not allowed: it must be at least 0")
    if n_refinements == 0:
        return chain
    if not isinstance(chain, VAE | MarkovAutoencoder):
        raise BadParameter("only the posteriors of a vae or a markov model can be refined: leave refine out")

    def first(x: Tensor) -> Distribution:
        parts = [refine(chain, part, n_refinements) for part in x.split(AT_ONCE)]
        loc, scale_tril = (torch.cat([getattr(part, name) for part in parts]) for name in ("loc", "scale_tril"))
        return MultivariateNormal(loc, scale_tril=scale_tril, validate_args=False)

    return Refined(chain, first)


@torch.no_grad()
def refine(chain: Chain, x: Tensor, n_refinements: int) -> MultivariateNormal:
    """q(z_1 | x) of data (batch, ...) after so many steps, at least one."""
    q = chain.posterior(1, x)
    m, P, generator = q.mean.double(), _precision(q), torch.Generator(x.device).manual_seed(SEED)
    for k in range(1, n_refinements + 1):
        noise = torch.randn(m.shape[1], N_PAIRS, generator=generator, dtype=m.dtype, device=m.device)
        s = torch.linalg.solve_triangular(torch.linalg.cholesky(P).mT, noise, upper=True).movedim(-1, 0)
        gradient = _gradient(chain, x, torch.cat([m + s, m - s]).to(x.dtype), generator)
        P = torch.lerp(P, _information(chain, (m + s[0]).to(x.dtype), generator), 1 / k)
        m = m - torch.cholesky_solve(gradient.double()[..., None], torch.linalg.cholesky(P))[..., 0] / k
    scale_tril = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(P)))
    return MultivariateNormal(m.to(x.dtype), scale_tril=scale_tril.to(x.dtype), validate_args=False)


def _gradient(chain: Chain, x: Tensor, z: Tensor, generator: torch.Generator) -> Tensor:
    """grad v averaged over z (draws, batch, n), with one draw of z_2, ... each; (batch, n)."""
    many = x.expand(len(z), *x.shape).flatten(0, 1)

    def v(z: Tensor) -> Tensor:
        path, log_q = [many, z], [z.new_zeros(len(z))]
        for t in range(2, chain.n_steps + 1):
            q = chain.posterior(t, path[-1])
            path.append(draw(q, generator))
            log_q.append(q.log_prob(path[-1]))
        return terms(chain, path, log_q).sum(0)

    return value_and_gradient(v, z.flatten(0, 1))[1].unflatten(0, z.shape[:2]).mean(0)


def _information(chain: Chain, z: Tensor, generator: torch.Generator) -> Tensor:
    """J^T S_x^-1 J + S_1^-1 at z (batch, n), with one draw of z_2; (batch, n, n), in double precision."""

    def moved(direction: Tensor) -> Tensor:
        return jvp(lambda z: expectation(chain.generative(1, z)), (z,), (direction.expand_as(z),))[1]

    J = vmap(moved)(torch.eye(z.shape[1], dtype=z.dtype, device=z.device)).double()
    spread = variance(chain.generative(1, z)).clamp_min(torch.finfo(z.dtype).tiny).double()
    above = chain.prior(len(z)) if chain.n_steps == 1 else chain.generative(2, draw(chain.posterior(2, z), generator))
    J = (J / spread.sqrt()).movedim(0, 1)
    return J @ J.mT + _precision(above)


def _precision(normal: Distribution) -> Tensor:
    """The inverse covariance of a Gaussian with diagonal or full covariance, (batch, n, n), in double precision."""
    if isinstance(normal, MultivariateNormal):
        return torch.cholesky_inverse(normal.scale_tril.double())
    return torch.diag_embed(1 / normal.variance.double())
