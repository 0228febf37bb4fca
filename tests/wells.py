"""The double well U = (x^2 - 1)^2 in imaginary time and as a free diffusion, on a grid."""

from __future__ import annotations

import functools

from fkdrift.exact.propagator import Propagator
from fkdrift.exact.spectrum import Array


def double_well(x: Array) -> Array:
    """V = (x^2 - 1)^2."""
    return (x**2 - 1) ** 2


def free_double_well(x: Array) -> Array:
    """V = U'^2 / 8 - U'' / 4 for U = (x^2 - 1)^2, whose ground state is exp(-U / 2) with energy 0."""
    slope, curvature = 4 * x * (x**2 - 1), 12 * x**2 - 4
    return slope**2 / 8 - curvature / 4


@functools.cache
def imaginary_line() -> Propagator:
    return Propagator(double_well, -5.0, 5.0)


@functools.cache
def overdamped_line() -> Propagator:
    return Propagator(free_double_well, -4.0, 4.0)
