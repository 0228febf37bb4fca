"""Bounds on the evidence, all written on one log ratio.

    log_ratio = log q(z | x) - log p(x, z),      z ~ q( . | x),

for a latent variable, a chain of them or a whole path z.  Its mean is the free energy F = -ELBO, and exp(-log_ratio)
is an unbiased estimate of p(x):

    ELBO = -E[log_ratio]  <=  log p(x),        IWAE_k = E log (1/k) sum_j exp(-log_ratio_j)  -> log p(x).

Nothing else in `fkdrift.generative` forms a bound of its own.  A log ratio has shape (batch,), with a leading axis of
samples (sample, batch) where there are several for each datum.  Both are zero-variance estimates at the optimum: when q
is the exact posterior, log_ratio = -log p(x) for every z.
"""

from __future__ import annotations

import math

from torch import Tensor

from fkdrift.errors import BadParameter


def elbo(log_ratio: Tensor) -> Tensor:
    """The evidence lower bound, ELBO = -E[log q - log p], a scalar.

    Args:
        log_ratio: (batch,) or (sample, batch), nats.

    Returns:
        (), differentiable.  For a mean with its error: `fkdrift.numerics.estimates.from_walkers(-log_ratio)`.

    Reference: Kingma and Welling, ICLR 2014.

    Example:
        >>> elbo(torch.tensor([1.0, 3.0])).item()
        -2.0
    """
    return -log_ratio.mean()


def iwae(log_ratio: Tensor) -> Tensor:
    """The importance-weighted bound of each datum, log (1/k) sum_j exp(-log_ratio_j).

    It grows with k, from the ELBO at k = 1 to log p(x).

    Args:
        log_ratio: (sample, batch), nats.

    Returns:
        (batch,), differentiable.

    Raises:
        BadParameter: there is no axis of samples.

    Reference: Burda, Grosse and Salakhutdinov, ICLR 2016.

    Example:
        >>> iwae(torch.tensor([[0.0], [math.log(3.0)]])).exp().item()    # (1 + 1/3) / 2
        0.6666...
    """
    _needs_samples(log_ratio)
    return (-log_ratio).logsumexp(0) - math.log(len(log_ratio))


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """The effective fraction of weighted samples, (sum w)^2 / (k sum w^2), between 1/k and 1.

    Args:
        log_weights: log w along the leading axis, (sample, ...), up to a constant; for a log ratio it is -log_ratio.

    Returns:
        (...), the fraction; times k the effective number of samples.

    Example:
        >>> effective_sample_size(torch.zeros(10)).item()
        1.0
    """
    log_sum, log_squares = log_weights.logsumexp(0), (2 * log_weights).logsumexp(0)
    return (2 * log_sum - log_squares).exp() / len(log_weights)


def log_variance(log_ratio: Tensor) -> Tensor:
    """The variance of the log ratio over samples, 0 exactly when q is the posterior.

    As a loss it needs samples that are held fixed: sample z from any law, detach it, and differentiate log q - log p.

    Args:
        log_ratio: (sample, batch) for the variance of each datum, averaged over data; (batch,) for paths that all
            belong to one datum.

    Returns:
        (), differentiable.

    Reference: Nuesken and Richter, Partial Differ. Equ. Appl. 2, 48 (2021).
    """
    return log_ratio.var(0).mean()


def _needs_samples(log_ratio: Tensor) -> None:
    if log_ratio.ndim != 2:
        raise BadParameter(
            f"a log ratio of shape {tuple(log_ratio.shape)} has no axis of samples: it has to be (sample, batch)"
        )
