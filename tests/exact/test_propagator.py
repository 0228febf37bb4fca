"""The grid propagator against Mehler's formula, the levels of `diagonalise`, and Gaussian conditioning."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fkdrift as fk
from fkdrift.exact.propagator import Propagator
from tests.wells import double_well, free_double_well, imaginary_line, overdamped_line


def mehler(x: float, y: float, t: float) -> float:
    """K of the oscillator V = x^2 / 2."""
    s, c = math.sinh(t), math.cosh(t)
    return math.exp(-((x**2 + y**2) * c - 2 * x * y) / (2 * s)) / (2 * math.pi * s) ** 0.5


@pytest.mark.parametrize(("x", "y", "t"), [(-1.0, 1.0, 2.0), (0.3, 0.8, 0.2), (0.0, 0.0, 5.0)])
def test_mehler(x: float, y: float, t: float) -> None:
    line = Propagator(lambda x: x**2 / 2, -8.0, 8.0)
    assert line.kernel(x, y, t) == pytest.approx(mehler(x, y, t), rel=1e-9)


def test_mass() -> None:
    """With sigma^2 = 1/m and V = m x^2 / 2, K is Mehler's in units of m^(-1/2)."""
    line = Propagator(lambda x: 2 * x**2, -5.0, 5.0, sigma=0.5)
    assert line.kernel(-0.4, 0.2, 1.0) == pytest.approx(2 * mehler(-0.8, 0.4, 1.0), rel=1e-9)


def test_levels() -> None:
    exact = fk.diagonalise(fk.load_potential("double_well"), levels=4)
    assert np.abs(imaginary_line().energies[:4] - exact.energies).max() < 1e-8


def test_free_diffusion_has_its_boltzmann_law() -> None:
    """E_0 = 0 and psi_0 = exp(-U / 2); with it, the transition density integrates to 1."""
    line = overdamped_line()
    assert abs(line.energies[0]) < 1e-8
    law = np.exp(-double_well(line.x))
    psi = np.abs(line.states[:, 0])
    assert np.abs(psi**2 - law / (law.sum() * line.spacing)).max() < 1e-8
    h = np.exp(-double_well(line.x) / 2)
    density = line.propagate(line.point(-1.0), 4.0) * h / math.exp(-double_well(np.array(-1.0)) / 2)
    assert density.sum() * line.spacing == pytest.approx(1, abs=1e-8)


def test_conditioned_densities_are_those_of_a_brownian_bridge() -> None:
    line = Propagator(np.zeros_like, -12.0, 12.0, 900)
    seen = [(1.0, line.gaussian(1.0, 0.3)), (2.0, line.gaussian(-0.5, 0.2))]
    times = [0.5, 1.0, 1.5, 2.0]
    log_evidence, densities = line.conditioned(0.0, seen, times)
    t, noise, y = np.array([1.0, 2.0]), np.diag([0.09, 0.04]), np.array([1.0, -0.5])
    C = np.minimum(t[:, None], t) + noise
    log_exact = -(y @ np.linalg.solve(C, y) + np.linalg.slogdet(2 * np.pi * C)[1]) / 2
    assert log_evidence == pytest.approx(log_exact, abs=1e-8)
    for s, density in zip(times, densities, strict=True):
        gain = np.minimum(s, t) @ np.linalg.inv(C)
        mean, variance = gain @ y, s - gain @ np.minimum(s, t)
        found = (density * line.x).sum() * line.spacing
        assert found == pytest.approx(mean, abs=1e-8)
        assert (density * (line.x - found) ** 2).sum() * line.spacing == pytest.approx(variance, abs=1e-8)
    median = line.quantiles(densities, (0.5,))[0]
    assert median[-1] == pytest.approx((densities[-1] * line.x).sum() * line.spacing, abs=1e-3)


def test_an_overdamped_potential_is_an_h_transform() -> None:
    """V = U'^2 / 8 - U'' / 4 is exp(U/2) H exp(-U/2) = 0 written out: checked by differences of exp(-U / 2)."""
    x, d = np.linspace(-1.5, 1.5, 7), 1e-4
    h = lambda x: np.exp(-double_well(x) / 2)  # noqa: E731
    second = (h(x + d) - 2 * h(x) + h(x - d)) / d**2
    assert np.abs(second / (2 * h(x)) - free_double_well(x)).max() < 1e-5
