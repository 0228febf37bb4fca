"""An energy at zero step from energies at a few steps, with an error that knows how far the model can be trusted.

    E(dt) = E_0 + a dt + b dt^2,      a ~ N(slope, slope_scale^2),   b ~ N(0, curvature_scale^2)

Least squares alone would have to choose between two terms (too sure) and three (as many as there are steps, and
several times as noisy).  With what is known of a and b beforehand as Gaussian priors, the error of E_0 lies in
between, as the data and the priors have it, and includes what the fit does not know.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import chdtrc

from fkdrift.errors import BadParameter
from fkdrift.numerics.estimates import Estimate


@dataclass(frozen=True)
class Extrapolation:
    """The fit at zero step.

    Args:
        value: E_0 with its error, statistical and of the model together.
        slope, curvature: a and b as fitted.
        residuals: of each step, in its standard errors.
        probability: of residuals and prior terms at least as large if model, priors and errors are right.
    """

    value: Estimate
    slope: float
    curvature: float
    residuals: tuple[float, ...]
    probability: float

    def shifted(self, by: Estimate) -> Extrapolation:
        """The same fit with something independent added to all energies."""
        value = Estimate(self.value.mean + by.mean, math.hypot(self.value.error, by.error))
        return replace(self, value=value)


def extrapolate(
    steps: Sequence[float],
    energies: Sequence[Estimate],
    *,
    slope: float = 0.0,
    slope_scale: float = math.inf,
    curvature_scale: float = 0.0,
) -> Extrapolation:
    """Fit E_0 + a dt + b dt^2 to independent energies.

    Args:
        steps: dt, different from one another.
        energies: with independent errors.
        slope: what a is expected to be.
        slope_scale: standard deviation of that expectation; infinite where nothing is known.
        curvature_scale: the size that b can have; 0 for a straight line.

    Raises:
        BadParameter: fewer than two steps, or values that are not finite.

    Example (a straight line without any noise to speak of):
        >>> E = [Estimate(1.0 + 0.5 * dt, 1e-6) for dt in (0.1, 0.2)]
        >>> round(extrapolate((0.1, 0.2), E).value.mean, 6)
        1.0
    """
    dt = np.array(steps, dtype=float)
    y = np.array([E.mean for E in energies])
    errors = np.array([E.error for E in energies])
    if len(set(steps)) < 2 or not (np.isfinite(y).all() and np.isfinite(errors).all()):
        raise BadParameter(
            f"cannot extrapolate {[str(E) for E in energies]} at dt = {list(steps)} to dt = 0: at least two different "
            "steps with finite energies and errors are needed"
        )
    errors = np.maximum(errors, 1e-15 * np.maximum(1.0, np.abs(y)))
    offset, unit = y.mean(), dt.max()
    rows = [np.stack([np.ones_like(dt), dt / unit, (dt / unit) ** 2], 1) / errors[:, None]]
    values = [(y - offset) / errors]
    for column, mean, scale in ((1, slope * unit, slope_scale * unit), (2, 0.0, curvature_scale * unit**2)):
        if math.isfinite(scale):
            scale = max(scale, 1e-3 * errors.min())
            rows.append(np.eye(3)[[column]] / scale)
            values.append(np.array([mean / scale]))
    design, target = np.concatenate(rows), np.concatenate(values)
    Q, R = np.linalg.qr(design)
    inverse = np.linalg.inv(R)
    fitted = inverse @ (Q.T @ target)
    misfit = target - design @ fitted
    freedom = len(target) - 3
    return Extrapolation(
        value=Estimate(float(offset + fitted[0]), float(np.linalg.norm(inverse[0]))),
        slope=float(fitted[1] / unit),
        curvature=float(fitted[2] / unit**2),
        residuals=tuple(float(x) for x in misfit[: len(dt)]),
        probability=float(chdtrc(freedom, misfit @ misfit)) if freedom > 0 else 1.0,
    )
