"""Euler-Maruyama steps with a Metropolis test: the stationary law is |psi|^2 exactly, at any step size.

Where U = log psi is known, r' = r + v dt + sigma dB with v = sigma^2 grad U is accepted with probability

    min(1, exp(2 U(r') - 2 U(r)) q(r | r') / q(r' | r)),      q(r' | r) = N(r'; r + v(r) dt, sigma^2 dt),

so the local energy averaged along a chain has no step bias at all.  The drift of a step is limited near singularities
and far out, where it changes within one step: v -> 2 v / (1 + sqrt(1 + 2 |v|^2 dt / sigma^2)) for each particle.

Reference: C. J. Umrigar, M. P. Nightingale and K. J. Runge, J. Chem. Phys. 99, 2865 (1993), eq. 33.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from fkdrift.paths.process import Process
from fkdrift.tensor_types import PerWalker, Positions
from fkdrift.wavefunction.protocol import in_parts, wavefunction_of

TARGET_ACCEPTANCE = 0.65  # between 0.574, the optimum in many dimensions, and the higher ones of a few
STEP_GAIN = 0.5  # d log dt / d acceptance: an e-fold takes some four blocks


@dataclass(frozen=True)
class MetropolisState:
    """Walkers of a Metropolis-adjusted process.

    Args:
        positions: r, (batch, particle, dim).
        log_psi: U(r), (batch,).
        velocity: sigma^2 grad U, (batch, particle, dim).
        dt: the time step.
        acceptance: mean acceptance probability of the last moves; while dt is steered, over all workers.
    """

    positions: Positions
    log_psi: PerWalker
    velocity: Positions
    dt: Tensor
    acceptance: Tensor

    def state_dict(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def start(process: Process, r: Positions, dt: float | Tensor) -> MetropolisState:
    """Walkers at r with log psi and its gradient for the present parameters of the drift.

    Args:
        process: its drift is a `Wavefunction`.
        r: positions (batch, particle, dim).
        dt: the time step.

    Raises:
        InputError: the drift has no log psi.
    """
    U, v = _evaluate(process, r)
    dt = torch.as_tensor(dt, dtype=r.dtype, device=r.device)
    return MetropolisState(r, U, v, dt, torch.zeros_like(dt))


@torch.no_grad()
def move(
    process: Process, state: MetropolisState, n_steps: int, generator: torch.Generator, longest: float | None = None
) -> MetropolisState:
    """n_steps adjusted steps of every walker.

    Args:
        process: its drift is a `Wavefunction`.
        state: where to go on.
        n_steps: number of steps.
        generator: source of the noise.
        longest: steer dt towards an acceptance of 0.65, up to this (only while training or equilibrating).
    """
    sigma = process.sigma
    total = torch.zeros_like(state.dt)
    r, U, v, dt = state.positions, state.log_psi, state.velocity, state.dt
    along = process.at_rest(_limited(v, sigma, dt) * dt / sigma)
    for _ in range(n_steps):
        xi = process.at_rest(torch.randn(r.shape, generator=generator, dtype=r.dtype, device=r.device))
        step = along + dt.sqrt() * xi
        proposal = r + sigma * step
        U_new, v_new = _evaluate(process, proposal)
        along_new = process.at_rest(_limited(v_new, sigma, dt) * dt / sigma)
        back = step + along_new
        log_ratio = 2 * (U_new - U) + (xi.square().sum((-2, -1)) - back.square().sum((-2, -1)) / dt) / 2
        uniform = torch.rand(U.shape, generator=generator, dtype=r.dtype, device=r.device)
        accept = uniform.log() < log_ratio
        r = torch.where(accept[:, None, None], proposal, r)
        v = torch.where(accept[:, None, None], v_new, v)
        along = torch.where(accept[:, None, None], along_new, along)
        U = torch.where(accept, U_new, U)
        total = total + log_ratio.clamp_max(0).exp().nan_to_num(0).mean()
    acceptance = total / n_steps
    if longest is not None:
        acceptance = process.workers.average(acceptance, len(r))
        dt = (dt * (STEP_GAIN * (acceptance - TARGET_ACCEPTANCE)).exp()).clamp_max(longest)
    return MetropolisState(r, U, v, dt, acceptance)


def _limited(v: Positions, sigma: Tensor, dt: Tensor) -> Positions:
    """The mean drift over a step that turns around a singularity or a steep wall."""
    return 2 * v / (1 + (1 + 2 * dt * (v / sigma).square().sum(-1, keepdim=True)).sqrt())


@torch.no_grad()
def _evaluate(process: Process, r: Positions) -> tuple[PerWalker, Positions]:
    """U and sigma^2 grad U."""
    psi = wavefunction_of(process.drift, "a Metropolis test")
    parts = []
    for part in in_parts(psi, r):
        U, slope = psi.value_and_gradient(part)
        if psi.trial_function is not None:
            W, towards = psi.trial_function.value_and_gradient(part)
            U, slope = W + U, towards + slope
        parts.append((U, slope))
    U, slope = (torch.cat(column) for column in zip(*parts, strict=True))
    return U, process.sigma.square() * slope
