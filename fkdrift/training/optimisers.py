"""The two ways of improving a drift that the training loop `fit` can drive.

PathwiseAdam          differentiates the path free energy through the trajectory; any drift
PathNaturalGradient   natural gradient in path space: E_L gradients where log psi is known, pathwise ones otherwise
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fkdrift.numerics.fisher import conjugate_gradient, flat_gradient, metric_product
from fkdrift.paths.evolution import evolve
from fkdrift.paths.process import Process
from fkdrift.tensor_types import Positions
from fkdrift.training.loop import Update
from fkdrift.training.objectives import Objective, path_kl
from fkdrift.wavefunction import metropolis
from fkdrift.wavefunction.local_energy import local_energy
from fkdrift.wavefunction.protocol import Drift, Wavefunction


class PathwiseAdam:
    """Adam on the path free energy, backpropagated through the trajectory; works for every drift.

    The learning rate follows half a cosine to a hundredth of its start.  The time step shrinks geometrically from
    dt[0], which finds the shape of the state with long paths, to dt[1], which removes the bias it leaves in the
    drift.

    Args:
        process: its drift is trained.
        n_steps: Euler-Maruyama steps of the path in each update.
        dt: time step at the first and at the last update.
        n_updates: length of both schedules.
        learning_rate: at the start.
        objective: maps path and process to a loss; default the path relative entropy.
    """

    def __init__(
        self,
        process: Process,
        *,
        n_steps: int,
        dt: tuple[float, float],
        n_updates: int,
        learning_rate: float = 0.02,
        objective: Objective = path_kl,
    ) -> None:
        self.remaining: float | None = None
        self.process, self.n_steps, self.dt, self.n_updates = process, n_steps, dt, n_updates
        self.learning_rate, self.objective = learning_rate, objective
        self.parameters = _parameters(process)
        self.adam = torch.optim.Adam(self.parameters, lr=learning_rate, betas=(0.9, 0.99))

    def update(self, walkers: Positions, index: int, generator: torch.Generator) -> Update:
        fraction = index / self.n_updates
        for group in self.adam.param_groups:
            group["lr"] = self.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * fraction)) / 2)
        dt = self.dt[0] * (self.dt[1] / self.dt[0]) ** fraction
        path = evolve(self.process, walkers, n_steps=self.n_steps, dt=dt, generator=generator, score_free=True)
        self.adam.zero_grad(set_to_none=True)
        self.objective(path, self.process).loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, max_norm=10.0)
        self.adam.step()
        return Update(path.action[-1].detach() / path.duration, path.end)

    def finish(self) -> None:
        """Nothing to do."""

    def state_dict(self) -> dict[str, Any]:
        return {"adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state["adam"])


class PathNaturalGradient:
    """Natural gradient in the Fisher metric of the path measure, (F + lambda) delta = -g: in the end Newton's method.

    For a gradient drift g = 2 Cov(d_theta f, E_L) over the exact stationary law, reached by Metropolis-adjusted steps
    between updates; for any other drift g is the pathwise gradient of the free energy.  The step eta = 1 / (1 + k /
    decay) shrinks as the noise takes over, and the last eighth of the iterates is averaged: longer, and
    an average over a curved valley lies on its side.

    The energy still to be gained is taken as Var(E_L) time_scale / 2, second-order perturbation theory with a gap of
    1 / time_scale; for a free drift as -g . delta / 2, what a full step would gain.

    Args:
        process: its drift is trained.
        time_scale: of the system; makes damping and trust region free of units.
        n_moves: Metropolis-adjusted steps between updates.
        damping: lambda at the end, in units of 1 / time_scale; default 0.002, or 0.01 with the noisier pathwise
            gradient.  As in Levenberg and Marquardt's method it is larger far from the optimum, by 0.01 noise^2 with
            noise = std(E_L) time_scale.
        n_iterations: conjugate-gradient steps for each update, started from the last solution.
        thinning: F is averaged over one walker in so many, others in each update.
        trust: largest root mean square change of u, in units of time_scale^(-1/2), and of noise if that is less than 1:
            E|u - u*|^2 time_scale is at most noise^2.
        decay: updates after which the step has halved.
        clip: E_L further from the median than this many standard deviations is drawn in, in the gradient only.
        n_steps, dt, objective: of the path, for drifts without a log psi.
    """

    def __init__(
        self,
        process: Process,
        *,
        time_scale: float,
        n_moves: int = 6,
        damping: float | None = None,
        n_iterations: int = 20,
        thinning: int = 2,
        trust: float = 1.0,
        decay: float = 30.0,
        clip: float = 10.0,
        n_steps: int = 16,
        dt: float | None = None,
        objective: Objective = path_kl,
    ) -> None:
        self.process, self.time_scale, self.n_moves = process, time_scale, n_moves
        self.damping = damping or (2e-3 if isinstance(process.drift, Wavefunction) else 1e-2)
        self.n_iterations, self.thinning = n_iterations, thinning
        self.trust, self.decay, self.clip = trust, decay, clip
        self.n_steps, self.dt, self.objective = n_steps, dt or time_scale / 32, objective
        self.parameters = _parameters(process)
        start = torch.nn.utils.parameters_to_vector(self.parameters).detach()
        self.delta, self.average = torch.zeros_like(start), start.clone()
        self.n_averaged = torch.zeros((), dtype=start.dtype, device=start.device)
        self.move_dt = start.new_tensor(time_scale / 4)
        self.remaining: float | None = None

    def update(self, walkers: Positions, index: int, generator: torch.Generator) -> Update:
        if isinstance(self.process.drift, Wavefunction):
            energies, walkers, gradient, noise, acceptance = self._stationary(walkers, generator)
            gain = noise.square() / (2 * self.time_scale)
        else:
            energies, walkers, gradient = self._pathwise(walkers, generator)
            noise, gain, acceptance = torch.ones_like(self.move_dt), None, None
        u = self._control(walkers[index % self.thinning :: self.thinning])
        product = metric_product(u * self.time_scale**0.5, self.parameters)
        target = -gradient * self.time_scale
        damping, longest = self.damping + 0.01 * noise.square().clamp_max(1), self.trust * noise.clamp_max(1)
        self.delta = conjugate_gradient(product, target, self.delta, damping, self.n_iterations)
        eta = 1 / (1 + index / self.decay)
        change = self.delta.dot(product(self.delta)).clamp_min(0).sqrt()
        step = (longest / change.clamp_min(torch.finfo(change.dtype).tiny)).clamp_max(eta) * self.delta
        theta = torch.nn.utils.parameters_to_vector(self.parameters).detach() + step
        self._assign(theta)
        self._add_to_average(theta, index)
        gained = float(-gradient.dot(self.delta) / 2 if gain is None else gain)
        self.remaining = gained if self.remaining is None else 0.8 * self.remaining + 0.2 * gained
        return Update(energies, walkers, self.remaining, acceptance)

    def _stationary(self, walkers: Positions, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Local energies at new samples of |psi|^2, the gradient of their mean, their spread times time_scale."""
        drift = self.process.drift
        assert isinstance(drift, Wavefunction)
        chain = metropolis.start(self.process, walkers, self.move_dt)
        chain = metropolis.move(self.process, chain, self.n_moves, generator, longest=self.time_scale / 2)
        self.move_dt, r = chain.dt, chain.positions
        with torch.no_grad():
            E = local_energy(self.process, r)
            middle = E.median()
            reach = self.clip * E.std()
            excess = E.clamp(middle - reach, middle + reach)
            excess = excess - excess.mean()
        gradient = flat_gradient(drift.log_jastrow(r), self.parameters, 2 * excess / len(E))
        return E, r, gradient, excess.std() * self.time_scale, chain.acceptance

    def _pathwise(self, walkers: Positions, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Actions per unit time, where the path ends, and the pathwise gradient of the free energy."""
        path = evolve(self.process, walkers, n_steps=self.n_steps, dt=self.dt, generator=generator, score_free=True)
        loss = self.objective(path, self.process).loss
        gradient = flat_gradient(loss, self.parameters, torch.ones_like(loss))
        return path.action[-1].detach() / path.duration, path.end, gradient

    def _control(self, r: Positions) -> Positions:
        """u with its graph to the parameters."""
        drift = self.process.drift
        if isinstance(drift, Wavefunction):
            return self.process.sigma * drift.value_and_gradient(r)[1]
        return drift(r) / self.process.sigma

    def finish(self) -> None:
        """Set the parameters to the average of the last iterates."""
        if bool(self.n_averaged > 0):
            self._assign(self.average)

    def _assign(self, theta: Tensor) -> None:
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(theta.clone(), self.parameters)

    def _add_to_average(self, theta: Tensor, index: int) -> None:
        """An average over a window that grows as an eighth of the number of updates."""
        self.n_averaged = self.n_averaged + 1
        weight = 1 / self.n_averaged.clamp_max(max(1.0, index / 8))
        self.average = self.average + weight * (theta - self.average)

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("delta", "average", "n_averaged", "move_dt", "remaining")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value.to(getattr(self, name)) if isinstance(value, Tensor) else value)


def _parameters(process: Process) -> list[torch.nn.Parameter]:
    """The parameters of a process's drift.

    Raises:
        TypeError: the drift is not a Drift module.
    """
    if not isinstance(process.drift, Drift):
        raise TypeError(
            f"process.drift must be a Drift with parameters to be trained, not {type(process.drift).__name__}"
        )
    return list(process.drift.parameters())
