"""Scales of time and energy that the walkers themselves show."""

from __future__ import annotations

import torch
from torch import Tensor

from fkdrift.hamiltonian.system import System
from fkdrift.paths.process import Process
from fkdrift.tensor_types import Positions

MOST_FUNCTIONS = 64
"""That a gap is looked for among; without products of coordinates where these would be more."""


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
    sums of sqrt(m) x_d and, unless they are many, of m x_d x_e over its particles.  Of a free system that may be turned
    as well, psi can only miss functions of distances, and q = sum_i m_i r_i^2 is taken.

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
    q, stiffness = _symmetric_functions(system.at_rest(r.double() / system.sigma), system.potential.groups)
    q = q - q.mean(0)
    half = torch.linalg.solve_triangular(torch.linalg.cholesky(stiffness), q.T, upper=False)
    return len(q) / (2 * torch.linalg.eigvalsh(half @ half.T)[-1].item())


def _symmetric_functions(x: Positions, groups: tuple[tuple[int, ...], ...]) -> tuple[Tensor, Tensor]:
    """Sums of x_d and of x_d x_e over the particles of each group, (batch, function), and <grad q . grad q>."""
    dim, unit = x.shape[2], torch.eye(x.shape[2]).to(x)
    members = [x[:, list(group)] for group in groups]
    linear = torch.cat([y.sum(1) for y in members], 1)
    if len(groups) * dim * (dim + 3) // 2 > MOST_FUNCTIONS:
        return linear, torch.tensor([float(len(group)) for group in groups]).to(x).repeat_interleave(dim).diag()
    values, blocks = [], []
    for y in members:
        pairs = [(d, e) for d in range(dim) for e in range(d + 1)]
        products = torch.stack([(y[..., d] * y[..., e]).sum(1) for d, e in pairs], 1)
        slopes = [unit[d].expand_as(y) for d in range(dim)]
        slopes += [unit[d] * y[..., [e]] + unit[e] * y[..., [d]] for d, e in pairs]
        S = torch.stack(slopes, 1).flatten(2)
        values += [y.sum(1), products]
        blocks.append(torch.einsum("bkn,bln->kl", S, S) / len(x))
    return torch.cat(values, 1), torch.block_diag(*blocks)
