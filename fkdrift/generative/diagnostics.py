"""What the latents of a trained model say about the data.

    KL           E_x KL( q(z | x) || p(z) ), of all latents jointly, and of each unit for itself
    active       units whose mean moves with x: Var_x E_q[z_i] > 0.01
    information  I(x; z) = KL - KL( q(z) || p(z) ), with the aggregate posterior q(z) = E_x q(z | x)
    overlap      |<column of the decoder, known factor>|, both of length 1
    energy       2 E|x - y| - E|x - x'| - E|y - y'|, zero for samples of one distribution only

The KL of a unit is that of its marginal; for a full covariance it depends on the choice of axes, and only the joint one
means something.  A unit that has collapsed carries none.

References: Burda, Grosse and Salakhutdinov, ICLR 2016 (active units); Hoffman and Johnson, ELBO surgery (2016);
Szekely and Rizzo, J. Stat. Plan. Inference 143, 1249 (2013) (energy distance).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from fkdrift.densities.kernels import draw, standard_normal_kl, unit_kl
from fkdrift.errors import BadParameter
from fkdrift.generative.chain import Chain
from fkdrift.numerics.estimates import Estimate, from_walkers

ACTIVE_VARIANCE = 0.01
N_INFORMATION = 2048
CHUNK = 256


@dataclass(frozen=True)
class LatentUse:
    """How much the latents of a VAE say.

    Args:
        joint_kl: mean KL of all latents together, nats for each datum.
        unit_kl: mean KL of the marginal of each unit, (n_latents,), nats.
        variance: of the posterior mean of each unit over the data, (n_latents,).
        information: I(x; z) by its minibatch estimate, at most log n.
    """

    joint_kl: Estimate
    unit_kl: Tensor
    variance: Tensor
    information: float

    @property
    def n_active(self) -> int:
        """How many units move with the data."""
        return int((self.variance > ACTIVE_VARIANCE).sum())


def latent_use(chain: Chain, x: Tensor, generator: torch.Generator) -> LatentUse:
    """The use that a chain makes of its first latent, with a standard normal prior (a VAE's).

    Args:
        chain: a VAE.
        x: data (batch, size).
        generator: of the draws that the information needs.

    Raises:
        BadParameter: a chain of more than one latent, whose z_1 has no standard normal prior.
    """
    if chain.n_steps != 1:
        raise BadParameter(f"a chain of {chain.n_steps} latents has no one KL to its prior: use `terms` of chain")
    with torch.no_grad():
        q = chain.posterior(1, x)
        return LatentUse(
            from_walkers(standard_normal_kl(q)),
            unit_kl(q).mean(0),
            q.mean.var(0, correction=0),
            mutual_information(q, generator),
        )


def mutual_information(q: Distribution, generator: torch.Generator) -> float:
    """I(x; z) = E log q(z | x) - log (1/n) sum_x' q(z | x'), nats, between 0 and log n.

    Args:
        q: posteriors with batch shape (n,); of more than 2,048 the first ones are used.
        generator: of one draw from each.
    """
    z = draw(q, generator)[:N_INFORMATION]
    few = _first(q, len(z))
    own = few.log_prob(z)
    against = [few.log_prob(part[:, None]).logsumexp(1) for part in z.split(CHUNK)]
    return (own - torch.cat(against)).mean().item() + math.log(len(z))


def energy_distance(x: Tensor, y: Tensor) -> Estimate:
    """How far two samples are from one distribution, 2 E|x - y| - E|x - x'| - E|y - y'|, without bias.

    Args:
        x, y: (n, size) and (m, size), independent.

    Returns:
        Estimate: in units of the data, with the error that both samples leave, by the influence of each datum (sqrt(2)
        times too large where there is no difference); below zero by chance there.

    Example:
        >>> energy_distance(torch.randn(500, 3, generator=g), torch.randn(500, 3, generator=g)).deviation(0.0) < 3
        True
    """
    between, n, m = torch.cdist(x.double(), y.double()), len(x), len(y)
    influence_x = between.mean(1) - torch.cdist(x.double(), x.double()).sum(1) / (n - 1)
    influence_y = between.mean(0) - torch.cdist(y.double(), y.double()).sum(1) / (m - 1)
    error = (4 * (influence_x.var() / n + influence_y.var() / m)).sqrt().item()
    return Estimate((influence_x.mean() + influence_y.mean()).item(), error)


def overlaps(columns: Tensor, factors: Tensor) -> Tensor:
    """|cosine| between the columns of a linear decoder and known factors.

    Args:
        columns: (n, n_latents), such as the weight of an affine decoder.
        factors: (n, n_factors), such as normal modes; not zero.

    Returns:
        (n_latents, n_factors), between 0 and 1.

    Example:
        >>> overlaps(torch.eye(3), torch.tensor([[3.0], [4.0], [0.0]]))
        tensor([[0.6000],
                [0.8000],
                [0.0000]])
    """
    unit = torch.nn.functional.normalize
    return (unit(columns, dim=0).T @ unit(factors, dim=0)).abs()


def _first(q: Distribution, n: int) -> Distribution:
    """The first n of a batch of posteriors."""
    if isinstance(q, torch.distributions.MultivariateNormal):
        return torch.distributions.MultivariateNormal(q.loc[:n], scale_tril=q.scale_tril[:n], validate_args=False)
    normal = torch.distributions.Normal(q.mean[:n], q.stddev[:n], validate_args=False)
    return torch.distributions.Independent(normal, 1)
