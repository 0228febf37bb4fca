"""Scales of time and energy that the walkers themselves show."""

from __future__ import annotations

import torch

from fkdrift.hamiltonian.system import System
from fkdrift.paths.process import Process
from fkdrift.tensor_types import Positions


def relaxation_time(process: Process, r: Positions) -> float:
    """How fast the stiffest direction relaxes: 1 / max_k sigma_k^2 < -d_k^2 log psi >, 1 / omega for an oscillator.

    By parts the mean curvature is 2 < (d_k log psi)^2 >, and the drift is v = sigma^2 grad log psi.

    Args:
        process: whose drift is compared with its noise.
        r: positions (batch, particle, dim) that follow its stationary density.

    Example (omega = 2):
        >>> system = fk.System(fk.load_potential("harmonic", omega=2.0))
        >>> process = Process(fk.NeuralWavefunction(system), system)
        >>> abs(relaxation_time(process, system.initial_walkers(10000, g)) - 0.5) < 0.02
        True
    """
    with torch.no_grad():
        v = process.velocity(r).double() / process.sigma
    return 1 / (2 * process.workers.average(v.square().mean(0), len(r)).max().item())


def sum_rule_gap(system: System, r: Positions) -> float:
    """The most that E_1 - E_0 can be, from the spread of the walkers; inf on a ring or torus.

    By the f-sum rule q phi_0 with <q> = 0 lies <sum_i sigma_i^2 |grad_i q|^2> / (2 <q^2>) above phi_0.  For q = u.x
    this is 1 / (2 lambda), lambda the largest eigenvalue of the covariance of the coordinates sqrt(m) x.  Of a free
    system that may be turned as well, psi can only miss functions of distances, and q = sum_i m_i r_i^2 is taken.

    Args:
        system: potential, masses and scales.
        r: positions (batch, particle, dim) from phi_0^2, or near it.

    Example (omega = 2):
        >>> system = fk.System(fk.load_potential("harmonic", omega=2.0))
        >>> abs(sum_rule_gap(system, system.initial_walkers(10000, g)) - 2) < 0.1
        True
    """
    if system.potential.box is not None:
        return float("inf")
    if system.potential.free and system.potential.isotropic:
        square = system.at_rest(r.double() / system.sigma).square().sum((-2, -1))
        return 2 * square.mean().item() / square.var().item()
    x = (r / system.sigma).flatten(1).double()
    return 1 / (2 * torch.linalg.eigvalsh(torch.atleast_2d(x.T.cov()))[-1].item())
