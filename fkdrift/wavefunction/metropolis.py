"""Euler-Maruyama steps with a Metropolis test: the stationary law is |psi|^2 exactly, at any step size.

Where U = log psi is known, r' = r + v dt + sigma dB with v = sigma^2 grad U is accepted with probability

    min(1, exp(2 U(r') - 2 U(r)) q(r | r') / q(r' | r)),      q(r' | r) = N(r'; r + v(r) dt, sigma^2 dt),

so the local energy averaged along the chain has no step bias at all.  The drift of a step is limited near
singularities and
far out, where it changes within one step: v -> 2 v / (1 + sqrt(1 + 2 |v|^2 dt / sigma^2)) for each particle.

Reference: C. J. Umrigar, M. P. Nightingale and K. J. Runge, J. Chem. Phys. 99, 2865 (1993), eq. 33.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from fkdrift.paths.process import Process
from fkdrift.tensor_types import PerWalker, Positions
from fkdrift.wavefunction.neural import NeuralWavefunction

TARGET_ACCEPTANCE = 0.65


@dataclass(frozen=True)
class Chain:
    """Walkers of a Metropolis-adjusted process.

    Args:
        positions: r, (batch, particle, dim).
        log_psi: U(r), (batch,).
        velocity: sigma^2 grad U, (batch, particle, dim).
        dt: the time step.
        acceptance: mean acceptance probability of the last moves.
    """

    positions: Positions
    log_psi: PerWalker
    velocity: Positions
    dt: Tensor
    acceptance: Tensor

    def state_dict(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def start(process: Process, r: Positions, dt: float | Tensor) -> Chain:
    """A chain at r for the present parameters of the drift."""
    U, v = _evaluate(process, r)
    dt = torch.as_tensor(dt, dtype=r.dtype, device=r.device)
    return Chain(r, U, v, dt, torch.zeros_like(dt))


@torch.no_grad()
def move(
    process: Process, chain: Chain, n_steps: int, generator: torch.Generator, longest: float | None = None
) -> Chain:
    """n_steps adjusted steps of every walker.

    Args:
        process: its drift must be a NeuralWavefunction.
        chain: where to go on.
        n_steps: number of steps.
        generator: source of the noise.
        longest: steer dt towards an acceptance of 0.65, up to this (only while training or equilibrating).
    """
    sigma = process.sigma
    total = torch.zeros_like(chain.dt)
    r, U, v, dt = chain.positions, chain.log_psi, chain.velocity, chain.dt
    for _ in range(n_steps):
        xi = torch.randn(r.shape, generator=generator, dtype=r.dtype, device=r.device)
        proposal = r + _limited(v, sigma, dt) * dt + sigma * dt.sqrt() * xi
        U_new, v_new = _evaluate(process, proposal)
        back = (r - proposal - _limited(v_new, sigma, dt) * dt) / sigma
        log_ratio = 2 * (U_new - U) + (xi.square().sum((-2, -1)) - back.square().sum((-2, -1)) / dt) / 2
        uniform = torch.rand(U.shape, generator=generator, dtype=r.dtype, device=r.device)
        accept = uniform.log() < log_ratio
        r = torch.where(accept[:, None, None], proposal, r)
        v = torch.where(accept[:, None, None], v_new, v)
        U = torch.where(accept, U_new, U)
        total = total + log_ratio.clamp_max(0).exp().nan_to_num(0).mean()
    acceptance = total / n_steps
    if longest is not None:
        dt = (dt * (0.5 * (acceptance - TARGET_ACCEPTANCE)).exp()).clamp_max(longest)
    return Chain(r, U, v, dt, acceptance)


def _limited(v: Positions, sigma: Tensor, dt: Tensor) -> Positions:
    """The mean drift over a step that turns around a singularity or a steep wall."""
    return 2 * v / (1 + (1 + 2 * dt * (v / sigma).square().sum(-1, keepdim=True)).sqrt())


@torch.no_grad()
def _evaluate(process: Process, r: Positions) -> tuple[PerWalker, Positions]:
    """U and sigma^2 grad U."""
    drift = process.drift
    if not isinstance(drift, NeuralWavefunction):
        raise TypeError(f"a Metropolis test needs log psi: use a NeuralWavefunction, not {type(drift).__name__}")
    f, gradient = drift.value_and_gradient(r)
    if drift.reference is None:
        return f, drift.variance * gradient
    W = drift.reference.derivatives(r)
    return W.value + f, drift.variance * (W.gradient + gradient)
