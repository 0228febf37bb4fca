"""Means with honest errors: what every energy in fkdrift is reported as.

Walkers are independent chains, so the spread of per-walker time averages over sqrt(batch) is the standard error
of the mean, whatever the correlation along each chain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error (same units); prints like 0.50003(8).

    Args:
        mean: the estimated value.
        error: one standard error of the mean.
        effective_samples: how many independent samples would give this error; None if not known.

    Example:
        >>> print(Estimate(0.500031, 0.000079))
        0.50003(8)
    """

    mean: float
    error: float
    effective_samples: float | None = None

    def __str__(self) -> str:
        return format_with_error(self.mean, self.error)

    def plain(self) -> dict[str, float | None]:
        """The fields that apply, for JSON: null where a number is not known."""
        values = {"mean": self.mean, "error": self.error, "effective_samples": self.effective_samples}
        return {k: v if math.isfinite(v) else None for k, v in values.items() if v is not None}

    def deviation(self, exact: float) -> float:
        """(mean - exact) / error: how many standard errors above the exact value; 0 when both agree to rounding."""
        difference = self.mean - exact
        rounding = 1e-12 * max(1.0, abs(exact))
        if abs(difference) <= rounding:
            return 0.0
        return difference / max(self.error, rounding)


def from_walkers(values: Tensor, sample_variance: float | None = None, rounding: float = 0.0) -> Estimate:
    """The mean over independent walkers and its standard error.

    Args:
        values: (batch,) one time average for each independent walker.
        sample_variance: variance of a single uncorrelated sample; gives the effective number of samples.
        rounding: relative rounding error of each value, which no averaging removes; added to the error in quadrature.
    """
    values = values.double()
    mean, error = values.mean().item(), values.std().item() / math.sqrt(len(values))
    n_effective = sample_variance / error**2 if sample_variance is not None and error > 0 else None
    return Estimate(mean, math.hypot(error, rounding * abs(mean)), n_effective)


def blocked_error(series: Tensor) -> float:
    """The standard error of the mean of correlated series, from blocks as long as the correlation asks for.

    Blocks of B successive values are averaged, for B = 1, 2, 4, ... up to whole series; the error from their spread
    grows with B up to a plateau.  The smallest B with B^3 > 2 n (err_B / err_1)^4 is on it, at the least noise.

    Args:
        series: (time, chain) of independent chains; a single chain is split in blocks only.

    Example:
        >>> round(blocked_error(torch.arange(4.0).repeat_interleave(64)[:, None]), 2)    # four values, not 256
        0.65

    Reference: R. M. Lee, G. J. Conduit, N. Nemec, P. Lopez Rios and N. D. Drummond, Phys. Rev. E 83, 066706 (2011).
    """
    series = series.double()
    n, n_chains = series.shape
    first: float | None = None
    size, error = 1, math.nan
    while True:
        n_blocks = n // size
        means = series[n - n_blocks * size :].reshape(n_blocks, size, n_chains).mean(1)
        if means.numel() < 2 or (n_chains == 1 and n_blocks < 4 and first is not None):
            return error
        error = means.std().item() / math.sqrt(means.numel())
        first = error if first is None else first
        if first == 0 or size**3 > 2 * n * n_chains * (error / first) ** 4 or n_blocks == 1:
            return error
        size = min(2 * size, n)


def r_hat(means: Tensor, variance: float, regions: Tensor) -> float:
    """sqrt(total variance / variance within) of a quantity, over groups of walkers; 1 when all groups are alike.

    The variance of the group means is reduced by what independent walkers would scatter by themselves, so that small
    groups do not count as different.

    Args:
        means: (batch,) the time average of each walker.
        variance: of the quantity, over walkers and times.
        regions: (batch,) integers, the group of each walker.

    Example:
        >>> means = torch.randn(1000, generator=torch.Generator().manual_seed(0))
        >>> r_hat(means, 1.0, torch.arange(1000) // 500) < 1.01
        True

    Reference: A. Vehtari, A. Gelman, D. Simpson, B. Carpenter and P.-C. Buerkner, Bayesian Anal. 16, 667 (2021).
    """
    x = means.double()
    groups = [x[regions == region] for region in regions.unique()]
    groups = [group for group in groups if len(group) > 1]
    sizes = torch.tensor([len(group) for group in groups], dtype=torch.float64)
    share = sizes / sizes.sum()
    m = torch.tensor([group.mean() for group in groups], dtype=torch.float64)
    noise = torch.tensor([group.var() / len(group) for group in groups], dtype=torch.float64)
    between = (share * (m - (share * m).sum()).square()).sum() - (share * (1 - share) * noise).sum()
    return math.sqrt(1 + max(0.0, between.item()) / max(variance, 1e-300))


def rounding_error(walkers: Tensor) -> float:
    """Relative rounding error of an energy computed in the walkers' dtype."""
    return 2 * torch.finfo(walkers.dtype).eps


def log_mean(log_weights: Tensor) -> Estimate:
    """log E[exp(log_weights)] with its standard error; `effective_samples` is (sum w)^2 / sum w^2.

    Args:
        log_weights: (batch,) of independent samples.

    Example:
        >>> log_mean(torch.zeros(100)).mean
        0.0
    """
    log_weights = log_weights.double()
    largest = log_weights.max()
    w = (log_weights - largest).exp()
    mean = w.mean()
    error = (w.std() / mean).item() / math.sqrt(len(w))
    return Estimate((mean.log() + largest).item(), error, (w.sum().square() / w.square().sum()).item())


def extrapolated_log_mean(coarse: Tensor, fine: Tensor) -> Estimate:
    """log E[exp(.)] at zero step, 2 L(dt / 2) - L(dt), from log weights (batch,) on the same Brownian paths.

    The error is that of the difference walker by walker, in which what the two have in common partly cancels.
    """
    at_dt, at_half = log_mean(coarse), log_mean(fine)
    influence = 2 * (fine.double() - at_half.mean).exp() - (coarse.double() - at_dt.mean).exp()
    error = influence.std().item() / math.sqrt(len(fine))
    return Estimate(2 * at_half.mean - at_dt.mean, error, at_half.effective_samples)


def format_with_error(mean: float, error: float) -> str:
    """Concise notation: the digits in brackets are the error in the last digits shown (two if they start with 1).

    Example:
        >>> format_with_error(-2.90349, 0.00061), format_with_error(7.6, 0.12), format_with_error(1234.5, 30.0)
        ('-2.9035(6)', '7.60(12)', '1230(30)')
    """
    if not (math.isfinite(mean) and math.isfinite(error)):
        return f"{mean:.6g}(?)"
    if error < 1e-12 * max(1.0, abs(mean)):
        return f"{mean:.12g}(0)"
    exponent = math.floor(math.log10(error))
    leading = error / 10**exponent
    if leading >= 9.5:
        exponent, leading = exponent + 1, 1.0
    if leading < 1.95:
        exponent -= 1
    digits = round(error / 10**exponent)
    if exponent >= 0:
        return f"{round(mean / 10**exponent) * 10**exponent:.0f}({digits * 10**exponent})"
    return f"{mean:.{-exponent}f}({digits})"
