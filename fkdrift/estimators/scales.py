"""Scales of time and energy that the walkers themselves show."""

from __future__ import annotations

import torch
from torch import Tensor

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

    By the f-sum rule q phi_0 with <q> = 0 lies <sum_i sigma_i^2 |grad_i q|^2> / (2 <q^2>) above phi_0.  The least of it
    is found among functions that are symmetric in identical particles, since psi can miss no others: of each group the
    sums of sqrt(m) x_d and of m x_d x_e over its particles.  Of a free system that may be turned as well, psi can only
    miss functions of distances, and q = sum_i m_i r_i^2 is taken.

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
    q, slopes = _symmetric_functions(system.at_rest(r.double() / system.sigma), system.potential.groups)
    q = q - q.mean(0)
    root = torch.linalg.cholesky(torch.einsum("bkn,bln->kl", slopes, slopes))
    half = torch.linalg.solve_triangular(root, q.T, upper=False)
    return 1 / (2 * torch.linalg.eigvalsh(half @ half.T)[-1].item())


def _symmetric_functions(x: Positions, groups: tuple[tuple[int, ...], ...]) -> tuple[Tensor, Tensor]:
    """Sums of x_d and of x_d x_e over the particles of each group, (batch, function), and d/dx, (.., coordinate)."""
    values, slopes = [], []
    for members in map(list, groups):
        y, unit = x[:, members], torch.eye(x.shape[2]).to(x)
        for d in range(x.shape[2]):
            rows = [(y[..., d], unit[d].expand_as(y))]
            rows += [(y[..., d] * y[..., e], unit[d] * y[..., [e]] + unit[e] * y[..., [d]]) for e in range(d + 1)]
            for value, slope in rows:
                values.append(value.sum(1))
                slopes.append(torch.zeros_like(x).index_copy(1, torch.tensor(members, device=x.device), slope))
    return torch.stack(values, 1), torch.stack(slopes, 1).flatten(2)
