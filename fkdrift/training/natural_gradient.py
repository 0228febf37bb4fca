"""Natural gradient in the Fisher metric of the path measure: in the end Newton's method.

    (F + lambda) delta = -g,      theta <- theta + eta delta,      F = E[ (d_theta u)^T (d_theta u) ],   u = v / sigma

g is the gradient of the energy.  Since E - E_0 = E|u - u*|^2 / 2, F is also the Hessian of the energy at the optimum.
Where g and the samples for F come from is an object, see `fkdrift.training.energy_gradients`; step sizes, damping and
the average over iterates are here.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fkdrift.numerics.fisher import conjugate_gradient
from fkdrift.paths.process import Process
from fkdrift.training.energy_gradients import GradientSource, StepRule, default_rule, default_source
from fkdrift.training.loop import Update, parameters_of

PATIENCE = 20  # updates without progress before training counts as settled
PROGRESS = 0.9  # the estimated excess has to fall below this fraction of its least value to count as progress
MEMORY = 0.8  # weight of the past in the running mean of the estimated excess
STATE = ("delta", "average", "n_averaged", "estimated_excess", "least", "n_waited")


class NaturalGradient:
    """Natural gradient on the energy of a process, for `fkdrift.training.loop.fit`.

    The step eta = 1 / (1 + k / decay) shrinks as the noise takes over, and the last part of the iterates is averaged.
    The excess over E_0 is estimated as Var(E_L) time_scale / 2, second-order perturbation theory with a gap of
    1 / time_scale; for a free drift as -g . delta / 2, what a full step would gain.

    Args:
        process: its drift is trained.
        source: where the gradient comes from: `MetropolisSamples`, `IndependentSamples` or `Pathwise`; by default the
            one that suits the drift, with its own defaults.
        time_scale: of the system; makes damping and trust region free of units.
        rule: damping, trust region and schedule; default that of the kind of drift.

    Attributes:
        estimated_excess: of the energy over E_0, smoothed over updates; None before the first.

    Raises:
        InputError: the drift has no parameters, or does not suit the source.

    Example (the trial function is a Gaussian, so that something is left to learn):
        >>> from fkdrift.hamiltonian.preparation import gaussian
        >>> potential = fk.load_potential("x**4")
        >>> system = fk.System(potential, prepared=gaussian(potential))
        >>> process = Process(fk.NeuralWavefunction(system, width=8), system)
        >>> method = NaturalGradient(process, fk.MetropolisSamples(n_moves=2), time_scale=system.time_scale)
        >>> steps = list(fk.fit(method, system.initial_walkers(512, g), n_updates=10, generator=g))
        >>> steps[-1].standard_deviation < steps[0].standard_deviation / 2
        True
    """

    def __init__(
        self,
        process: Process,
        source: GradientSource | None = None,
        *,
        time_scale: float,
        rule: StepRule | None = None,
    ) -> None:
        self.process, self.time_scale = process, time_scale
        self.parameters = parameters_of(process)
        self.source = default_source(process) if source is None else source
        self.source.check(process)
        self.rule = default_rule(process, self.source) if rule is None else rule
        start = torch.nn.utils.parameters_to_vector(self.parameters).detach()
        self.delta, self.average = torch.zeros_like(start), start.clone()
        self.n_averaged = torch.zeros((), dtype=start.dtype, device=start.device)
        self.estimated_excess: float | None = None
        self.least, self.n_waited = math.inf, 0

    @property
    def n_moves(self) -> int:
        """Steps of every walker in an update."""
        return self.source.n_moves

    @property
    def settled(self) -> bool:
        """Whether the estimated excess has not fallen by a tenth for PATIENCE updates: it is all noise."""
        return self.n_waited >= PATIENCE

    def update(self, walkers: Tensor, index: int, generator: torch.Generator) -> Update:
        """One step of the parameters.

        Args:
            walkers: (batch, particle, dim).
            index: of the update, from 0.
            generator: source of the noise.
        """
        tau, rule = self.time_scale, self.rule
        found = self.source.gradient(self.process, self.parameters, tau, walkers, index, generator)
        noise = found.noise.clamp_max(1)
        damping = (rule.damping + rule.caution * noise.square()) / tau
        self.delta, image = conjugate_gradient(found.metric, -found.gradient, self.delta, damping, rule.n_iterations)
        eta = 1 / (1 + index / rule.decay)
        square = tau * self.delta.dot(image)
        change = square.clamp_min(0).sqrt().clamp_min(torch.finfo(self.delta.dtype).tiny)
        longest = rule.trust * noise if rule.trust_follows_noise else rule.trust
        theta = torch.nn.utils.parameters_to_vector(self.parameters).detach()
        theta = self.process.workers.first(theta + (longest / change).clamp_max(eta) * self.delta)
        self._assign(theta)
        self._add_to_average(theta, index)
        self._estimate_excess(float(-found.gradient.dot(self.delta) / 2 if found.excess is None else found.excess))
        return Update(found.energies, found.walkers, self.estimated_excess, found.acceptance)

    def finish(self) -> None:
        """Set the parameters to the average of the last iterates."""
        if bool(self.n_averaged > 0):
            self._assign(self.average)

    def _assign(self, theta: Tensor) -> None:
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(theta.clone(), self.parameters)

    def _add_to_average(self, theta: Tensor, index: int) -> None:
        """An average over a window that grows in proportion to the number of updates."""
        self.n_averaged = self.n_averaged + 1
        weight = 1 / self.n_averaged.clamp_max(max(1.0, index * self.rule.averaged))
        self.average = self.average + weight * (theta - self.average)

    def _estimate_excess(self, now: float) -> None:
        before = self.estimated_excess
        self.estimated_excess = now if before is None else MEMORY * before + (1 - MEMORY) * now
        better = self.estimated_excess < PROGRESS * self.least
        self.least, self.n_waited = (self.estimated_excess, 0) if better else (self.least, self.n_waited + 1)

    def state_dict(self) -> dict[str, Any]:
        return {**{name: getattr(self, name) for name in STATE}, "source": self.source.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in STATE:
            value = state[name]
            setattr(self, name, value.to(getattr(self, name)) if isinstance(value, Tensor) else value)
        self.source.load_state_dict(state["source"])
