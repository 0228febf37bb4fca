"""How far a free drift is from a gradient: the entropy that its process produces in the stationary state.

The Kullback-Leibler divergence of the path measure of dr = v dt + sigma dB from that of the same paths run backwards
grows, in the stationary state with density p, at the rate

    rate = E_p[ 2 |v - (sigma^2 / 2) grad log p|^2 / sigma^2 ]  =  E_p[ 2 |v|^2 / sigma^2 + div v ]  >=  0,

which is zero if and only if v = (sigma^2 / 2) grad log p: only then is there a psi with |psi|^2 = p and
v = sigma^2 grad log psi.  A learned free drift is close to the optimum only if it is close to zero.  The second form
follows by partial integration and needs no density; the first has a smaller variance where grad log p is known.

Reference: U. Seifert, Rep. Prog. Phys. 75, 126001 (2012), section 2.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fkdrift.errors import BadParameter
from fkdrift.numerics.differentiation import field_and_divergence
from fkdrift.numerics.estimates import Estimate, from_walkers
from fkdrift.paths.process import Process
from fkdrift.tensor_types import Positions


def entropy_production(
    process: Process, samples: Positions, score: Callable[[Tensor], Tensor] | None = None
) -> Estimate:
    """The rate of entropy production, in nats per unit time, with its standard error.

    Args:
        process: its whole drift h + v is judged.
        samples: independent positions from its stationary law, (batch, particle, dim).
        score: grad log p, (batch, particle, dim) to the same shape; `gaussian_score(samples)` where p is Gaussian.
            Without it the divergence of the drift is taken by differentiation.

    Raises:
        BadParameter: fewer than two samples.

    Example (dr = (-1 + w J) r dt + dB with a rotation J in the plane: p = N(0, 1/2), rate 2 w^2; here w = 1):
        >>> brownian = fk.FeynmanKac(lambda r: 0 * r.sum((-2, -1)), torch.ones(1, 1))
        >>> process = Process(lambda r: -r + r @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]]), brownian)
        >>> samples = torch.randn(4096, 1, 2, generator=g) / 2**0.5
        >>> print(entropy_production(process, samples, gaussian_score(samples)))
        2.01(3)
    """
    if len(samples) < 2:
        raise BadParameter(f"{len(samples)} samples give no error bar: give at least 2 independent ones")
    variance = process.sigma.square()
    if score is not None:
        with torch.no_grad():
            current = process.velocity(samples) - variance / 2 * score(samples)
        return from_walkers((2 * current.square() / variance).sum((-2, -1)))
    with torch.no_grad():
        v, divergence = field_and_divergence(process.velocity, samples)
    return from_walkers((2 * v.square() / variance).sum((-2, -1)) + divergence)


def gaussian_score(samples: Positions) -> Callable[[Tensor], Tensor]:
    """grad log p of the Gaussian with the mean and covariance of the samples: exact for a linear drift.

    Raises:
        BadParameter: too few samples for a covariance.
    """
    x = samples.detach().flatten(1)
    if len(x) <= x.shape[1]:
        raise BadParameter(f"{len(x)} samples do not determine a covariance in {x.shape[1]} dimensions: give more")
    mean, precision = x.mean(0), torch.linalg.inv(torch.atleast_2d(torch.cov(x.T)))
    return lambda r: ((mean - r.flatten(1)) @ precision).unflatten(1, r.shape[1:])
