"""The local energy, and log psi of any process, whether or not its drift was built as a gradient.

    E_L = (H psi) / psi                                       a `Wavefunction`
    log psi(r) = W(r) + f(r)                                  a `Wavefunction`, v = sigma^2 grad f
    log psi(r) = W(r) + int_0^1 v(r_s) . (r - c) / sigma^2 ds,  r_s = c + s (r - c)     any other drift

The line integral from the centre c is exact for a gradient field, and the projection of a free one along straight rays.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from fkdrift.hamiltonian.system import System
from fkdrift.paths.process import Process
from fkdrift.tensor_types import PerWalker, Positions
from fkdrift.wavefunction.protocol import Wavefunction, in_parts, wavefunction_of

N_NODES = 32  # of Gauss-Legendre quadrature: exact for polynomials of degree 63 along a ray


class LocalQuantities(NamedTuple):
    """E_L and log psi (batch,), and v = sigma^2 grad log psi (batch, particle, dim), at the same positions."""

    energy: PerWalker
    log_psi: PerWalker
    velocity: Positions


@torch.no_grad()
def log_psi(process: Process, system: System, r: Positions) -> PerWalker:
    """log psi(r) up to a constant, (batch,).

    Args:
        process: a trained process whose reference is the system.
        system: supplies W and the centre where line integrals start.
        r: positions (batch, particle, dim).

    Example:
        >>> system = fk.System(fk.load_potential("harmonic"))
        >>> process = Process(fk.NeuralWavefunction(system), system)
        >>> value = log_psi(process, system, torch.tensor([[[0.0]], [[1.0]]]))    # -omega x^2 / 2
        >>> (value[1] - value[0]).item()
        -0.5000...
    """
    if isinstance(process.drift, Wavefunction):
        return process.drift.log_psi(r)
    nodes, weights = np.polynomial.legendre.leggauss(N_NODES)
    away = r - system.centre
    integral = torch.zeros_like(r[:, 0, 0])
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        slope = process.drift(system.centre + float(node) * away) / process.sigma.square()
        integral += float(weight) * (slope * away).sum((-2, -1))
    return integral if system.trial_function is None else integral + system.trial_function(r)


def local_energy(process: Process, r: Positions) -> PerWalker:
    """E_L = (H psi) / psi of the wavefunction of a process, (batch,), in the units of V.

        E_L = E_W - h . grad f - sum_i sigma_i^2 (|grad_i f|^2 + lap_i f) / 2,     f = log psi - W

    It equals E_0 everywhere at the optimum, and its mean over |psi|^2 is the variational energy.  With E_W and h of
    the trial function in closed form, singular parts of V cancel before they are rounded.

    Args:
        process: its drift is a `Wavefunction`, a network, a flow or another.
        r: positions (batch, particle, dim).

    Raises:
        InputError: the drift has no log psi, or its log psi has kinks.

    Example (harmonic oscillator: 1 / 2 everywhere):
        >>> system = fk.System(fk.load_potential("harmonic"))
        >>> process = Process(fk.NeuralWavefunction(system), system)
        >>> local_energy(process, torch.tensor([[[0.0]], [[1.0]]])).detach()
        tensor([0.5000, 0.5000])
    """
    return local_quantities(process, r).energy


def local_quantities(process: Process, r: Positions) -> LocalQuantities:
    """E_L, log psi and sigma^2 grad log psi, at the cost of the first alone.

    Args:
        process, r: as for `local_energy`.

    Raises:
        InputError: as for `local_energy`.
    """
    psi = wavefunction_of(process.drift, "a local energy")
    variance = process.sigma.square()
    parts = []
    for part in in_parts(psi, r):
        h, rate, W = process.reference.rates(part)
        f, gradient, laplacian = psi.derivatives(part)
        kinetic = (variance * gradient.square()).sum((-2, -1)) + laplacian.sum(-1)
        E = rate - (h * gradient).sum((-2, -1)) - kinetic / 2
        parts.append((E, f if W is None else W + f, h + variance * gradient))
    return LocalQuantities(*(torch.cat(column) for column in zip(*parts, strict=True)))
