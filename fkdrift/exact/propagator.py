"""Exact imaginary-time propagators and conditioned densities of one coordinate, on a sinc grid.

    K(y, T | x) = sum_n psi_n(y) psi_n(x) exp(-E_n T),      H = -(sigma^2 / 2) d^2/dx^2 + V.

The free diffusion dx = -(sigma^2 / 2) U' dt + sigma dB is the h-transform of such an H with psi_0 = exp(-U / 2):
p(y, T | x) = exp(-U(y)/2 + U(x)/2) K(y, T | x), with V = sigma^2 (U'^2 / 8 - U'' / 4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fkdrift.exact.spectrum import Array

HIGHEST = 60.0
"""States whose weight exp(-(E - E_0) T) is below exp(-60) are left out."""


class Propagator:
    """The propagator of V; functions of position are arrays (n,) on the grid `x`.

    Args:
        potential: V at an array of positions.
        low, high: ends of the grid; V must have lifted the wavefunctions to nothing there.
        n: number of points.
        sigma: 1 / sqrt(mass).

    Example (Mehler's formula gives -2.876158):
        >>> line = Propagator(lambda x: x**2 / 2, -8.0, 8.0, n=100)
        >>> round(float(np.log(line.kernel(-1.0, 1.0, 2.0))), 6)
        -2.876158
    """

    def __init__(
        self, potential: Callable[[Array], Array], low: float, high: float, n: int = 600, sigma: float = 1.0
    ) -> None:
        self.x = np.linspace(low, high, n)
        self.spacing = float(self.x[1] - self.x[0])
        i = np.arange(n)
        apart = (i[:, None] - i).astype(float)
        np.fill_diagonal(apart, 1.0)
        kinetic = np.where(i[:, None] == i, np.pi**2 / 6, (-1.0) ** (i[:, None] - i) / apart**2)
        highest = 4 * sigma**2 * (np.pi / self.spacing) ** 2
        V = np.minimum(potential(self.x), highest)
        self.energies, states = np.linalg.eigh(sigma**2 * kinetic / self.spacing**2 + np.diag(V))
        self.states = states / self.spacing**0.5

    def propagate(self, f: Array, T: float) -> Array:
        """int K(x, T | x') f(x') dx'."""
        keep = (self.energies - self.energies[0]) * T < HIGHEST
        amplitudes = self.states[:, keep].T @ f * self.spacing
        return self.states[:, keep] @ (np.exp(-self.energies[keep] * T) * amplitudes)

    def at(self, f: Array, x: float) -> float:
        """f at a point, by its sinc expansion."""
        return float(f @ np.sinc((x - self.x) / self.spacing))

    def point(self, x: float) -> Array:
        """The delta function of the grid."""
        return np.sinc((x - self.x) / self.spacing) / self.spacing

    def gaussian(self, centre: float, width: float) -> Array:
        """N(x; centre, width^2)."""
        z = (self.x - centre) / width
        return np.exp(-(z**2) / 2) / (width * (2 * np.pi) ** 0.5)

    def kernel(self, start: float, end: float, T: float, noise: float = 0.0) -> float:
        """K(end, T | start), or its average over an end with Gaussian noise."""
        return self.at(self.propagate(self.gaussian(end, noise) if noise else self.point(end), T), start)

    def conditioned(
        self, start: float, seen: Sequence[tuple[float, Array]], times: Sequence[float]
    ) -> tuple[float, Array]:
        """log of the evidence, and the densities (time, x) of paths from `start` given likelihoods.

        Args:
            start: r(0).
            seen: (time, likelihood (n,)) of each measurement, in order.
            times: when the density is wanted, above 0.
        """
        joint = np.array([self._forward(start, seen, t) * self._backward(seen, t) for t in times])
        mass = joint.sum(1) * self.spacing
        return float(np.log(mass[0])), joint / mass[:, None]

    def quantiles(self, densities: Array, levels: Sequence[float]) -> Array:
        """Quantiles (level, time) of densities (time, x)."""
        cumulative = np.cumsum(densities.clip(0), 1) * self.spacing
        edges = self.x + self.spacing / 2
        return np.array([[np.interp(level, row, edges) for row in cumulative] for level in levels])

    def _forward(self, start: float, seen: Sequence[tuple[float, Array]], t: float) -> Array:
        """Paths from the start to t, with what was seen up to t."""
        f, began = self.point(start), 0.0
        for at, likelihood in seen:
            if at <= t:
                f, began = self.propagate(f, at - began) * likelihood, at
        return self.propagate(f, t - began) if t > began else f

    def _backward(self, seen: Sequence[tuple[float, Array]], t: float) -> Array:
        """The likelihood of what is seen after t, as a function of the position at t."""
        f, later = np.ones_like(self.x), None
        for at, likelihood in reversed(seen):
            if at > t:
                f, later = likelihood * (f if later is None else self.propagate(f, later - at)), at
        return f if later is None else self.propagate(f, later - t)
