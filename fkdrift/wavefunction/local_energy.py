"""log psi from a process, whether or not the drift was built as a gradient.

    log psi(r) = W(r) + f(r)                                  gradient drift, v = sigma^2 grad f
    log psi(r) = W(r) + int_0^1 v(r_s) . (r - c) / sigma^2 ds,  r_s = c + s (r - c)     any other drift

The line integral from the centre c is exact for a gradient field, and the projection of a free one along straight rays.
"""

from __future__ import annotations

import numpy as np
import torch

from fkdrift.hamiltonian.system import System
from fkdrift.paths.process import Process
from fkdrift.tensor_types import PerWalker, Positions
from fkdrift.wavefunction.neural import NeuralWavefunction

N_NODES = 32
CHUNK = 2**22  # numbers in the largest tensor of one evaluation: more would not fit a processor's cache


@torch.no_grad()
def log_psi(process: Process, system: System, r: Positions) -> PerWalker:
    """log psi(r) up to a constant, (batch,).

    Args:
        process: a trained process whose reference is the system.
        system: supplies W and the centre where line integrals start.
        r: positions (batch, particle, dim).

    Example:
        >>> value = log_psi(process, system, torch.tensor([[[0.0]], [[1.0]]]))    # harmonic: -omega x^2 / 2
        >>> (value[1] - value[0]).item()
        -0.5000...
    """
    if isinstance(process.drift, NeuralWavefunction):
        return process.drift.log_psi(r)
    nodes, weights = np.polynomial.legendre.leggauss(N_NODES)
    away = r - system.centre
    integral = torch.zeros_like(r[:, 0, 0])
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        slope = process.drift(system.centre + float(node) * away) / process.sigma.square()
        integral += float(weight) * (slope * away).sum((-2, -1))
    return integral if system.reference is None else integral + system.reference(r)


def local_energy(process: Process, r: Positions) -> PerWalker:
    """E_L = (H psi) / psi for a gradient drift, (batch,), in the units of V.

        E_L = E_W - h . grad f - sum_i sigma_i^2 (|grad_i f|^2 + lap_i f) / 2,     f = log psi - W

    It equals E_0 everywhere at the optimum, and its mean over |psi|^2 is the variational energy.
    """
    drift = process.drift
    if not isinstance(drift, NeuralWavefunction):
        raise TypeError(f"a local energy needs log psi: use a NeuralWavefunction, not {type(drift).__name__}")
    n, dim = r.shape[1:]
    at_once = max(16, CHUNK // (n * n * dim * drift.network.first.out_features))
    if len(r) > at_once:
        return torch.cat([local_energy(process, part) for part in r.split(at_once)])
    h, rate = process.reference.rates(r)
    _, gradient, laplacian = drift.derivatives(r)
    kinetic = (drift.variance * gradient.square()).sum((-2, -1)) + laplacian.sum(-1)
    return rate - (h * gradient).sum((-2, -1)) - kinetic / 2
