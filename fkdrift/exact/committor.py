"""The Fokker-Planck equation of dx = -(sigma^2 / 2 kT) U' dt + sigma dB between two states of a line, by quadrature.

    q(x) = int_a^x e^(U/kT) / int_a^b e^(U/kT)                                       committor
    flux = D / ( int_a^b e^(U/kT) int e^(-U/kT) ),      D = sigma^2 / 2              from A to B in unit time
    <t>  = int_a^b e^(U/kT) int_a^b e^(-U/kT) q (1 - q) / D                          of a transition path

References: H. Risken, The Fokker-Planck Equation (Springer, 1989); G. Hummer, J. Chem. Phys. 120, 516 (2004).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.integrate import cumulative_simpson, simpson

from fkdrift.exact.spectrum import Array


@dataclass(frozen=True)
class Committor:
    """The exact transitions from a to b.

    Args:
        x: (n,) places between a and b.
        q: the committor there.
        flux: transitions in unit time, in the stationary state.
        duration: of a transition path, on average.
    """

    x: Array
    q: Array
    flux: float
    duration: float


def committor(
    potential: Callable[[Array], Array],
    a: float,
    b: float,
    low: float,
    high: float,
    *,
    sigma: float = 1.0,
    temperature: float = 1.0,
    n: int = 2001,
) -> Committor:
    """Solve it.

    Args:
        potential: U at an array of positions.
        a, b: the states.
        low, high: ends of the line, where U is high.
        sigma: volatility.
        temperature: kT.
        n: points of both grids, odd.

    Example (a flat line of length 1, sigma = 1: q = x, <t> = 1 / (6 D) = 1 / 3):
        >>> flat = committor(lambda x: 0 * x, 0.0, 1.0, -1.0, 2.0)
        >>> round(flat.duration, 9), round(float(flat.q[500]), 9)
        (0.333333333, 0.25)
    """
    D, x, line = sigma**2 / 2, np.linspace(a, b, n), np.linspace(low, high, n)
    U, everywhere = potential(x) / temperature, potential(line) / temperature
    zero = min(U.min(), everywhere.min())
    barrier = cumulative_simpson(np.exp(U - zero), x=x, initial=0.0)
    q, height = barrier / barrier[-1], float(barrier[-1])
    duration = height * float(simpson(np.exp(zero - U) * q * (1 - q), x=x)) / D
    return Committor(x, q, D / (height * float(simpson(np.exp(zero - everywhere), x=line))), duration)
