"""Exact imaginary-time propagators and conditioned densities on a line: oracles for tests, figures and benchmarks.

    K(y, T | x) = sum_n psi_n(y) psi_n(x) exp(-E_n T),      H = -sigma^2 / 2 d^2/dx^2 + V,

by a sinc grid.  The free diffusion dx = -(sigma^2 / 2) U' dt + sigma dB is its h-transform with psi_0 = exp(-U / 2):
p(y, T | x) = exp(-U(y)/2 + U(x)/2) K(y, T | x) for V = sigma^2 (U'^2 / 8 - U'' / 4).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Line:
    """The propagator of V on a grid; functions of position are arrays on `x`.

    Args:
        potential: V at an array of positions.
        reach, n: the grid has n points from -reach to reach.
    """

    def __init__(self, potential: Callable[[Array], Array], reach: float = 5.0, n: int = 600) -> None:
        self.x = np.linspace(-reach, reach, n)
        self.spacing = self.x[1] - self.x[0]
        i = np.arange(n)
        apart = i[:, None] - i
        with np.errstate(divide="ignore"):
            kinetic = np.where(apart == 0, np.pi**2 / 6, (-1.0) ** apart / apart.astype(float) ** 2)
        V = np.minimum(potential(self.x), 1e4)
        self.energies, states = np.linalg.eigh(kinetic / self.spacing**2 + np.diag(V))
        self.states = states / self.spacing**0.5

    def propagate(self, f: Array, T: float) -> Array:
        """int K(x, T | x') f(x') dx' on the grid."""
        keep = self.energies - self.energies[0] < 60 / max(T, 1e-3)
        amplitudes = self.states[:, keep].T @ f * self.spacing
        return self.states[:, keep] @ (np.exp(-self.energies[keep] * T) * amplitudes)

    def at(self, f: Array, x: float) -> float:
        """f at a point, by its sinc expansion."""
        return float(f @ np.sinc((x - self.x) / self.spacing))

    def log_kernel(self, start: float, end: float, T: float, noise: float) -> float:
        """log int K(y, T | start) N(y; end, noise^2) dy."""
        return float(np.log(self.at(self.propagate(self.gaussian(end, noise), T), start)))

    def gaussian(self, centre: float, width: float) -> Array:
        z = (self.x - centre) / width
        return np.exp(-(z**2) / 2) / (width * (2 * np.pi) ** 0.5)

    def point(self, x: float) -> Array:
        """The delta function of the grid."""
        return np.sinc((x - self.x) / self.spacing) / self.spacing

    def conditioned(self, start: float, seen: list[tuple[float, Array]], times: Array) -> tuple[float, Array]:
        """log Z and the densities (time, x) of a path from `start` with likelihoods `seen` = [(time, g(x)), ...]."""
        densities = []
        for t in times:
            forward, began = self.point(start), 0.0
            for at, g in [one for one in seen if one[0] <= t]:
                forward, began = self.propagate(forward, at - began) * g, at
            forward = self.propagate(forward, t - began) if t > began else forward
            backward, later = np.ones_like(self.x), None
            for at, g in reversed([one for one in seen if one[0] > t]):
                backward = g * (backward if later is None else self.propagate(backward, later - at))
                later = at
            if later is not None:
                backward = self.propagate(backward, later - t)
            densities.append(forward * backward)
        joint = np.array(densities)
        mass = joint.sum(1) * self.spacing
        return float(np.log(mass[0])), joint / mass[:, None]


def quantiles(line: Line, density: Array, levels: tuple[float, ...]) -> Array:
    """Quantiles (level, time) of densities (time, x)."""
    cumulative = np.cumsum(density.clip(0), 1) * line.spacing
    return np.array([[np.interp(level, row, line.x + line.spacing / 2) for row in cumulative] for level in levels])


def double_well(x: Array) -> Array:
    """V = (x^2 - 1)^2."""
    return (x**2 - 1) ** 2


def free_double_well(x: Array) -> Array:
    """V = U'^2 / 8 - U'' / 4 for U = (x^2 - 1)^2, whose ground state is exp(-U / 2) with energy 0."""
    slope, curvature = 4 * x * (x**2 - 1), 12 * x**2 - 4
    return slope**2 / 8 - curvature / 4
