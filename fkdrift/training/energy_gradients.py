"""Where the gradient of the energy comes from, for `NaturalGradient`.

MetropolisSamples    g = 2 Cov(d_theta f, E_L)            walkers in |psi|^2 by Metropolis-adjusted steps
IndependentSamples   g = Cov(d_theta log p, E_L)          new samples of a flow p = |psi|^2 in every update
Pathwise             g = d_theta of the path free energy  trajectories; any drift, with or without a log psi

What a step may change is a `StepRule`, by default that of `default_rule`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from fkdrift.errors import InputError
from fkdrift.numerics.differentiation import jacobian_diagonal
from fkdrift.numerics.fisher import AutogradJacobian, MetricProduct, flat_gradient, metric_product
from fkdrift.paths.evolution import ScoreFree, evolve
from fkdrift.paths.process import Process
from fkdrift.tensor_types import PerWalker, Positions
from fkdrift.training.objectives import Objective, path_kl
from fkdrift.wavefunction import metropolis
from fkdrift.wavefunction.flow import FlowWavefunction, refuse_kinks
from fkdrift.wavefunction.local_energy import local_energy
from fkdrift.wavefunction.neural import NeuralWavefunction
from fkdrift.wavefunction.parameter_jacobian import ParameterJacobian
from fkdrift.wavefunction.protocol import Wavefunction, in_parts, wavefunction_of

FIRST_MOVE, LONGEST_MOVE = 1 / 4, 1 / 2  # Metropolis steps in time scales: where tuning starts, and where it stops
OVERLAP = 1.0  # of Cov(d_theta f), in units of 1 / time_scale, in the metric: u alone cannot see the share of a well
ENOUGH = 1024  # walkers, so that a quarter of them is enough for the metric
PATH_STEP = 1 / 32  # of a pathwise gradient, in time scales: the bias of the drift is of the order of 1%


@dataclass(frozen=True)
class StepRule:
    """Damping, trust region and schedule of a natural gradient.

    Args:
        damping: lambda at the end, in units of 1 / time_scale.
        caution: as in Levenberg and Marquardt's method lambda is larger far from the optimum, by caution noise^2 with
            noise = std(E_L) time_scale, at most 1.
        n_iterations: conjugate-gradient steps for each update, started from the last solution.
        trust: largest root mean square change of u, in units of time_scale^(-1/2).
        trust_follows_noise: multiply `trust` by the noise: E|u - u*|^2 time_scale is at most noise^2.
        decay: updates after which the step has halved.
        averaged: the last fraction of the iterates that is averaged.  Averages over longer windows are smoother, but
            lag behind parameters that still move along curved valleys of the energy.
    """

    damping: float = 2e-3
    caution: float = 0.01
    n_iterations: int = 20
    trust: float = 1.0
    trust_follows_noise: bool = True
    decay: float = 30.0
    averaged: float = 1 / 8


FLOW_RULE = StepRule(3e-4, 0.1, 8, 0.3, trust_follows_noise=False, decay=15.0, averaged=1 / 2)
"""Tuned on wells and coupled oscillators.  The tails of a flow do not survive longer steps, whatever the samples."""


BASE_RULE = StepRule(1e-3, 0.03, decay=20.0, averaged=1 / 2)
"""For a flow on a trial function, whose tails stay as they are: tuned on helium and four bosons."""


class EnergyGradient(NamedTuple):
    """What one update knows.

    Args:
        energies: (batch,) E_L, or l_T / T, of the walkers of all workers; what follows is of those here.
        walkers: (batch, particle, dim), where the next update starts.
        gradient: of the energy, (parameter,).
        metric: p -> F p, averaged over the walkers of all workers.
        noise: std(E_L) time_scale; 1 where there is no E_L.
        excess: estimate of E - E_0; None where there is no E_L.
        acceptance: of Metropolis moves; None without them.
    """

    energies: PerWalker
    walkers: Positions
    gradient: Tensor
    metric: MetricProduct
    noise: Tensor
    excess: Tensor | None = None
    acceptance: Tensor | None = None


class GradientSource(Protocol):
    """Draws samples and estimates the gradient of the energy on them.

    Attributes:
        n_moves: steps of every walker for one gradient.
    """

    n_moves: int

    def check(self, process: Process) -> None:
        """Refuse a process that has not what it takes.

        Raises:
            InputError: says what is missing.
        """

    def gradient(
        self,
        process: Process,
        parameters: Sequence[Tensor],
        time_scale: float,
        walkers: Positions,
        index: int,
        generator: torch.Generator,
    ) -> EnergyGradient:
        """The gradient at the present parameters, from walkers (batch, particle, dim) where it needs them."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class MetropolisSamples:
    """g = 2 Cov(d_theta f, E_L) over |psi|^2, for every `Wavefunction`.

    Args:
        n_moves: Metropolis-adjusted steps between updates.
        thinning: F is averaged over one walker in so many, others in each update; default 4, or 2 for fewer walkers
            than ENOUGH, where the noise of F would be felt.
        clip: E_L further from the median than this many standard deviations is drawn in, in the gradient only.
    """

    def __init__(self, n_moves: int = 6, *, thinning: int | None = None, clip: float = 10.0) -> None:
        self.n_moves, self.thinning, self.clip = n_moves, thinning, clip
        self.move_dt: Tensor | None = None

    def check(self, process: Process) -> None:
        wavefunction_of(process.drift, "a gradient from local energies")

    def gradient(
        self,
        process: Process,
        parameters: Sequence[Tensor],
        time_scale: float,
        walkers: Positions,
        index: int,
        generator: torch.Generator,
    ) -> EnergyGradient:
        psi, workers = wavefunction_of(process.drift, "a gradient from local energies"), process.workers
        state = metropolis.start(process, walkers, time_scale * FIRST_MOVE if self.move_dt is None else self.move_dt)
        state = metropolis.move(process, state, self.n_moves, generator, longest=time_scale * LONGEST_MOVE)
        self.move_dt, r = state.dt, state.positions
        with torch.no_grad():
            E = workers.gather(local_energy(process, r))
            excess = _clipped(E, self.clip * E.std())
            excess = excess - excess.mean()
            noise = excess.std() * time_scale
        parts = in_parts(psi, r)
        shares = (2 * workers.own(excess) / len(E)).split(len(parts[0]))
        pulled = [flat_gradient(psi.log_jastrow(x), parameters, c) for x, c in zip(parts, shares, strict=True)]
        gradient = workers.sum(torch.stack(pulled).sum(0))
        one_in = min(self.thinning or (4 if len(E) >= ENOUGH else 2), len(r))
        metric = fisher_metric(process, parameters, r[index % one_in :: one_in], OVERLAP / time_scale)
        excess_energy = noise.square() / (2 * time_scale)
        return EnergyGradient(E, r, gradient, metric, noise, excess_energy, acceptance=state.acceptance)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.move_dt is None else {"move_dt": self.move_dt}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.move_dt = state.get("move_dt")


class IndependentSamples:
    """g = Cov(d_theta log p, E_L) over independent samples of a flow, weighted where |psi|^2 is not p itself.

    Half of the samples have their normal numbers wider by 1 + reach / sqrt(n), so that the tails are seen; weights
    p / q of at most 2 make up for it.

    Args:
        n_samples: drawn for each update.
        clip: E_L further from the median than this many standard deviations is drawn in, in the gradient only.
        reach: see above.
    """

    def __init__(self, n_samples: int = 1024, *, clip: float = 5.0, reach: float = 0.5) -> None:
        self.n_samples, self.clip, self.reach, self.n_moves = n_samples, clip, reach, 1

    def check(self, process: Process) -> None:
        refuse_kinks(_flow(process).flow)

    def gradient(
        self,
        process: Process,
        parameters: Sequence[Tensor],
        time_scale: float,
        walkers: Positions,
        index: int,
        generator: torch.Generator,
    ) -> EnergyGradient:
        drift, workers = _flow(process), process.workers
        r, own_weight = self._sample(drift, workers.count(self.n_samples), generator)
        half = len(r) // 2
        with torch.no_grad():
            w = drift.log_weight(r).exp()
            own_weight = own_weight * w / workers.average((own_weight * w).mean(), len(r))
            w = w[:half] / workers.average(w[:half].mean(), half)
        r = r.requires_grad_()
        log_p = drift.log_prob(r)
        (s,) = torch.autograd.grad(log_p.sum(), r, create_graph=True)
        with torch.no_grad():
            divergence = jacobian_diagonal(s, r).sum(-1)
            kinetic = (drift.variance * s.square()).sum((-2, -1)) / 8 + (drift.variance[:, 0] * divergence).sum(-1) / 4
            own_E = drift.system.potential(r) - kinetic
            E, weight = workers.gather(own_E), workers.gather(own_weight)
            excess = _clipped(E, self.clip * (weight * (E - E.median()).square()).mean().sqrt() / weight.sqrt())
            excess = excess - (weight * excess).mean()
            variance = (weight * excess.square()).mean()
        gradient = flat_gradient(log_p, parameters, workers.own(weight * excess) / len(E), retain_graph=True)
        control = process.sigma * s / 2 * own_weight.sqrt()[:, None, None]
        metric = metric_product(control, parameters, workers)
        noise, gained = variance.sqrt() * time_scale, variance * time_scale / 2
        mean = workers.average((w * own_E[:half]).mean(), half)
        energies = workers.gather(mean + w * (own_E[:half] - mean))
        return EnergyGradient(energies, r.detach(), workers.sum(gradient), metric, noise, gained)

    def _sample(
        self, drift: FlowWavefunction, n_samples: int, generator: torch.Generator
    ) -> tuple[Positions, PerWalker]:
        """Half of the samples from p, half with wider normal numbers, and the weights p / q of all."""
        shape, like = drift.system.shape, drift.variance
        n = shape[0] * shape[1]
        z = torch.randn(n_samples, n, generator=generator, dtype=like.dtype, device=like.device)
        wide = 1 + self.reach / n**0.5
        z[n_samples // 2 :] *= wide
        square = z.square().sum(-1)
        log_wide = -square / 2 / wide**2 + square / 2 - n * math.log(wide)
        with torch.no_grad():
            r = drift.flow.inverse(z).reshape(n_samples, *shape)
        return r, 2 / (1 + log_wide.exp())

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing: every update draws new samples."""


class Pathwise:
    """The gradient of the path free energy, differentiated through the trajectory; for every drift.

    Args:
        n_steps: of a path.
        dt: their length; default time_scale / 32.
        objective: maps path and process to a loss; default the path relative entropy.
        thinning: F is averaged over one walker in so many.
    """

    def __init__(
        self, n_steps: int = 16, dt: float | None = None, *, objective: Objective = path_kl, thinning: int = 2
    ) -> None:
        self.n_steps, self.dt, self.objective, self.thinning = n_steps, dt, objective, thinning
        self.n_moves = n_steps

    def check(self, process: Process) -> None:
        """Every process will do."""

    def gradient(
        self,
        process: Process,
        parameters: Sequence[Tensor],
        time_scale: float,
        walkers: Positions,
        index: int,
        generator: torch.Generator,
    ) -> EnergyGradient:
        dt = time_scale * PATH_STEP if self.dt is None else self.dt
        path = evolve(process, walkers, n_steps=self.n_steps, dt=dt, generator=generator, gradient=ScoreFree())
        loss = self.objective(path, process).loss
        workers, r = process.workers, path.end
        gradient = workers.average(flat_gradient(loss, parameters, torch.ones_like(loss)), len(r))
        control = process.drift(r[index % self.thinning :: self.thinning]) / process.sigma
        metric = metric_product(control, parameters, workers)
        energies = workers.gather(path.action[-1].detach() / path.duration)
        return EnergyGradient(energies, r, gradient, metric, torch.ones_like(loss).detach())

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing: all its state is in the walkers."""


PATH_RULE = StepRule(damping=1e-2)
"""Gradients of trajectories are noisier than those from E_L, and need more damping."""


SEVERAL_RULE = StepRule(n_iterations=12)
"""For several particles: a product with the metric costs what a walker's move does, and from where the last solution
ended 20 of them bring no less variance of E_L for the same time."""


def default_source(process: Process) -> GradientSource:
    """Independent samples for a flow, Metropolis for another wavefunction, trajectories for a free drift."""
    if isinstance(process.drift, FlowWavefunction):
        return IndependentSamples()
    return MetropolisSamples() if isinstance(process.drift, Wavefunction) else Pathwise()


def default_rule(process: Process, source: GradientSource) -> StepRule:
    """The rule of a flow; else that of a network, tuned on tests/benchmarks/many_body.py, or damped for noisy paths."""
    if isinstance(process.drift, FlowWavefunction):
        return FLOW_RULE if process.drift.base is None else BASE_RULE
    if isinstance(source, Pathwise):
        return PATH_RULE
    return SEVERAL_RULE if len(process.sigma) > 1 else StepRule()


def fisher_metric(process: Process, parameters: Sequence[Tensor], r: Positions, overlap: float) -> MetricProduct:
    """p -> F p with F = E[(d_theta u)^T (d_theta u)] + overlap Cov(d_theta f), u = sigma grad f, over walkers r."""
    psi, workers, n = wavefunction_of(process.drift, "a natural gradient"), process.workers, len(r)
    parts, variance = in_parts(psi, r), process.sigma.square() / n

    def jacobian_at(x: Positions) -> ParameterJacobian | AutogradJacobian:
        if isinstance(psi, NeuralWavefunction):
            return ParameterJacobian(psi, x)
        return AutogradJacobian(psi.value_and_gradient(x), parameters)

    jacobians = [jacobian_at(x) for x in parts]
    pulled = [J.pull(x.new_full((len(x),), 1 / n), torch.zeros_like(x)) for J, x in zip(jacobians, parts, strict=True)]
    mean = workers.average(torch.stack(pulled).sum(0), n)

    def product(p: Tensor) -> Tensor:
        change, total, left = mean.dot(p), torch.zeros_like(p), p.new_zeros(1)
        for jacobian in jacobians:
            f, gradient = jacobian.push(p)
            apart = overlap / n * (f - change)
            total, left = total + jacobian.pull(apart, variance * gradient), left + apart.sum()
        total, left = workers.average(torch.cat([total, left]), n).split([len(p), 1])
        return total - left * mean  # rounding in f, which is large for many particles, would make F indefinite

    return product


def _clipped(E: PerWalker, reach: Tensor) -> PerWalker:
    """Energies no further than `reach` from their median."""
    middle = E.median()
    return E.clamp(middle - reach, middle + reach)


def _flow(process: Process) -> FlowWavefunction:
    """The flow of a process.

    Raises:
        InputError: its drift is none.
    """
    if not isinstance(process.drift, FlowWavefunction):
        raise InputError(
            f"independent samples need a FlowWavefunction, not a {type(process.drift).__name__}: use "
            "MetropolisSamples, or Pathwise for a drift without log psi"
        )
    return process.drift
