"""Natural gradient for a flow: the energy's gradient from E_L, the metric of the path measure.

    d_theta E = Cov_p( d_theta log p, E_L ),       F = E_p[ (d_theta u)^T (d_theta u) ],   u = sigma s / 2

Since E - E_0 = E_p|u - u*|^2 / 2, F is the Hessian of the energy at the optimum and (F + lambda) delta = -d_theta E is
Newton's step there.  Every update draws new independent samples, so no walkers have to follow the density.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fkdrift.numerics.differentiation import jacobian_diagonal
from fkdrift.numerics.fisher import conjugate_gradient, flat_gradient, metric_product
from fkdrift.tensor_types import PerWalker, Positions
from fkdrift.training.loop import Update
from fkdrift.wavefunction.flow import FlowWavefunction, refuse_kinks

PATIENCE = 20
STATE = ("delta", "average", "n_averaged", "remaining", "least", "n_waited")


class FlowNaturalGradient:
    """Natural gradient on the energy of a flow, for `fkdrift.training.loop.fit`.

    The step eta = 1 / (1 + k / decay) shrinks as the noise takes over, the last half of the iterates is averaged, and
    the energy still to be gained is estimated as Var(E_L) time_scale / 2: second-order perturbation theory with a
    gap of 1 / time_scale.

    Args:
        drift: the flow over its system; the flow is trained.
        n_samples: drawn for each update.
        damping: lambda at the end, in units of 1 / time_scale; far from the optimum it is larger, by
            caution Var(E_L) time_scale^2, but at most 0.1.
        caution: see damping.
        n_iterations: conjugate-gradient steps for each update, started from the last solution.
        trust: largest root mean square change of u, in units of time_scale^(-1/2).
        decay: updates after which the step has halved.
        clip: E_L further from the median than this many standard deviations is drawn in, in the gradient only.
        reach: half of the samples have their normal numbers wider by 1 + reach / sqrt(n), so that the tails are seen;
            weights p / q of at most 2 make up for it.

    Raises:
        InputError: log p has kinks.
    """

    def __init__(
        self,
        drift: FlowWavefunction,
        *,
        n_samples: int = 1024,
        damping: float = 3e-4,
        caution: float = 0.1,
        n_iterations: int = 8,
        trust: float = 0.3,
        decay: float = 15.0,
        clip: float = 5.0,
        reach: float = 0.5,
    ) -> None:
        refuse_kinks(drift.flow)
        self.drift, self.n_samples, self.time_scale = drift, n_samples, drift.system.time_scale
        self.damping, self.caution, self.n_iterations = damping, caution, n_iterations
        self.trust, self.decay, self.clip, self.reach = trust, decay, clip, reach
        self.parameters = list(drift.parameters())
        start = torch.nn.utils.parameters_to_vector(self.parameters).detach()
        self.delta, self.average = torch.zeros_like(start), start.clone()
        self.n_averaged = torch.zeros((), dtype=start.dtype, device=start.device)
        self.remaining: float | None = None
        self.least, self.n_waited = math.inf, 0

    @property
    def settled(self) -> bool:
        """Whether the energy still to be gained has not fallen by a tenth for PATIENCE updates: noise is all it is."""
        return self.n_waited >= PATIENCE

    def update(self, walkers: Tensor, index: int, generator: torch.Generator) -> Update:
        r, weight = self._sample(generator)
        E, excess, gradient, control = self._gradient(r, weight)
        tau = self.time_scale
        variance = (weight * excess.square()).mean()
        damping = self.damping + (self.caution * variance * tau**2).clamp_max(0.1)
        product = metric_product(control * (weight * tau).sqrt()[:, None, None], self.parameters)
        self.delta = conjugate_gradient(product, -gradient * tau, self.delta, damping, self.n_iterations)
        eta = 1 / (1 + index / self.decay)
        change = self.delta.dot(product(self.delta)).clamp_min(0).sqrt()
        step = (eta * (self.trust / (eta * change)).clamp_max(1)) * self.delta
        theta = torch.nn.utils.parameters_to_vector(self.parameters).detach() + step
        self._assign(theta)
        self._add_to_average(theta, index)
        gain = float(variance * tau / 2)
        self.remaining = gain if self.remaining is None else 0.8 * self.remaining + 0.2 * gain
        better = self.remaining < 0.9 * self.least
        self.least, self.n_waited = (self.remaining, 0) if better else (self.least, self.n_waited + 1)
        return Update(E[: self.n_samples // 2], r, self.remaining)

    def _sample(self, generator: torch.Generator) -> tuple[Positions, PerWalker]:
        """Half of the samples from p, half with wider normal numbers, and the weights p / q of all."""
        like = self.delta
        n = self.drift.system.shape[0] * self.drift.system.shape[1]
        z = torch.randn(self.n_samples, n, generator=generator, dtype=like.dtype, device=like.device)
        wide = 1 + self.reach / n**0.5
        z[self.n_samples // 2 :] *= wide
        square = z.square().sum(-1)
        log_wide = -square / 2 / wide**2 + square / 2 - n * math.log(wide)
        weight = 2 / (1 + log_wide.exp())
        with torch.no_grad():
            r = self.drift.flow.inverse(z).reshape(self.n_samples, *self.drift.system.shape)
        return r, weight

    def _gradient(self, r: Positions, weight: PerWalker) -> tuple[PerWalker, PerWalker, Tensor, Positions]:
        """E_L, its clipped excess over the mean, d_theta E, and u with its graph."""
        drift, system = self.drift, self.drift.system
        r = r.requires_grad_()
        log_p = drift.log_prob(r)
        (s,) = torch.autograd.grad(log_p.sum(), r, create_graph=True)
        with torch.no_grad():
            divergence = jacobian_diagonal(s, r).sum(-1)
            kinetic = (drift.variance * s.square()).sum((-2, -1)) / 8 + (drift.variance[:, 0] * divergence).sum(-1) / 4
            E = system.potential(r) - kinetic
            middle = E.median()
            reach = self.clip * (weight * (E - middle).square()).mean().sqrt() / weight.sqrt()
            excess = E.clamp(middle - reach, middle + reach)
            excess = excess - (weight * excess).mean() / weight.mean()
        gradient = flat_gradient(log_p, self.parameters, weight * excess / len(E), retain_graph=True)
        return E, excess, gradient, system.sigma * s / 2

    def finish(self) -> None:
        """Set the parameters to the average of the last half of the iterates."""
        if bool(self.n_averaged > 0):
            self._assign(self.average)

    def _assign(self, theta: Tensor) -> None:
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(theta.clone(), self.parameters)

    def _add_to_average(self, theta: Tensor, index: int) -> None:
        """An average over a window that grows as half of the number of updates."""
        self.n_averaged = self.n_averaged + 1
        weight = 1 / self.n_averaged.clamp_max(max(1.0, index / 2))
        self.average = self.average + weight * (theta - self.average)

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value.to(getattr(self, name)) if isinstance(value, Tensor) else value)
