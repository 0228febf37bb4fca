"""Means with honest errors: what every energy in fkdrift is reported as.

Walkers are independent chains, so the spread of per-walker time averages over sqrt(batch) is the standard error
of the mean, whatever the correlation along each chain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
