"""A flow as a ground state: |phi_0|^2 = p, normalised, with independent samples.

    psi = p^(1/2),   v = sigma^2 grad log psi = sigma^2 s / 2,   s = grad log p
    E   = E_p[ sum_i sigma_i^2 |s_i|^2 / 8 + V ]                                  Fisher form: a bound for every flow
    E_L = V - sum_i sigma_i^2 ( |s_i|^2 / 8 + div_i s / 4 )                       E_p[E_L] = E if s is continuous

Both have the mean E >= E_0.  E_L is E_0 everywhere at the optimum, so that its noise vanishes there; the Fisher form
keeps its noise, but stays a bound for densities with kinks, for which the mean of E_L would fall below E_0.

A flow is smooth; a ground state has cusps at nuclei and holes between particles.  They come from the trial function:

    psi = phi_ref (p / p_0)^(1/2),      |psi|^2 = p w,      w = phi_ref^2 / p_0

with p_0 a fixed normalised density near |phi_ref|^2 that the flow starts at.  Samples of p are kept with probability
w / max w, and are independent samples of |psi|^2.  What is lost is its integral Z = E_p[w], which is an average.

References: arXiv:2406.02451 (flows for trapped particles); Waveflow, arXiv:2211.14839.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from fkdrift.densities.coupling import Flow
from fkdrift.densities.density import Density
from fkdrift.errors import ComputationError, InputError
from fkdrift.hamiltonian.system import System
from fkdrift.hamiltonian.trial_function import Derivatives, TrialFunction
from fkdrift.numerics.differentiation import curvatures, value_and_gradient
from fkdrift.numerics.estimates import Estimate, from_walkers
from fkdrift.numerics.log_weights import effective_sample_size
from fkdrift.paths.process import Process
from fkdrift.tensor_types import PerWalker, Positions
from fkdrift.wavefunction.local_energy import local_energy
from fkdrift.wavefunction.protocol import Drift, wavefunction_of

NUMBERS_PER_COORDINATE = 2**7  # that a coupling or continuous layer of the default width holds for one point
N_BOUND, N_CLIMBERS, N_CLIMB, CLIMB = 8192, 32, 100, 0.1  # samples, climbers, their steps, the first of them in widths
LEAST_ACCEPTANCE = 0.01  # of the samples of p_0: with fewer, most of the work would be thrown away
MOST_ROUNDS, SPARE = 100, 16  # of drawing, and samples more than are likely to be needed


class FlowDensity(Density, Protocol):
    """A density on (batch, n) that is an image of independent normal numbers; a `Flow` is one.

    Attributes:
        event_shape: (n,).
    """

    event_shape: tuple[int, ...]

    def inverse(self, z: Tensor) -> Tensor:
        """x from normal numbers z, both (batch, n)."""


class FlowWavefunction(Drift):
    """v = sigma^2 (s / 2 - grad W), so that a `Process` over the system has the drift sigma^2 grad log psi.

    It is a `Wavefunction` with independent samples.

    Args:
        flow: a normalised density on all coordinates of the system, (batch, n).
        system: gives masses, the trial function W and the potential.
        base: p_0, for psi = exp(W) (p / p_0)^(1/2); None for psi = p^(1/2).  Its parameters are not trained.

    Attributes:
        acceptance: mean of w / max w over p_0: the share of its samples that is kept.

    Raises:
        InputError: the flow has another number of coordinates, the system is periodic, or its psi vanishes where
            particles meet; or too few samples of p_0 would be kept.
    """

    variance: Tensor
    log_bound: Tensor

    def __init__(self, flow: FlowDensity, system: System, base: Flow | None = None) -> None:
        super().__init__()
        n, dim = system.shape
        coordinates = torch.Size(flow.event_shape).numel()
        if coordinates != n * dim:
            raise InputError(f"the flow has {coordinates} coordinates, but the system {n} x {dim}: give it {n * dim}")
        refuse_unsuitable(system, with_trial_function=base is not None)
        self.flow, self.system, self.trial_function = flow, system, system.trial_function
        self.base = None if base is None else base.requires_grad_(False)
        self.numbers_per_walker = NUMBERS_PER_COORDINATE * coordinates
        self.register_buffer("variance", system.sigma.square())
        self.acceptance = 1.0
        if base is not None:
            log_bound, self.acceptance = self._bound(base)
            self.register_buffer("log_bound", log_bound)

    def forward(self, r: Positions) -> Positions:
        return self.variance * self.value_and_gradient(r)[1]

    def log_weight(self, r: Positions) -> PerWalker:
        """log w = 2 W - log p_0, (batch,); 0 for psi = p^(1/2)."""
        if self.base is None or self.trial_function is None:
            return torch.zeros_like(r[:, 0, 0])
        return 2 * self.trial_function(r) - self.base.log_prob(r.flatten(1))

    def log_prob(self, r: Positions) -> PerWalker:
        """log |psi|^2 of all coordinates, (batch,): normalised for psi = p^(1/2), else up to log Z."""
        return 2 * self.log_psi(r)

    def score(self, r: Positions) -> Positions:
        """s = grad log |psi|^2, (batch, particle, dim)."""
        return value_and_gradient(self.log_prob, r)[1]

    def sample(self, n: int, generator: torch.Generator) -> Positions:
        """n independent samples of |psi|^2, (n, particle, dim).

        Raises:
            ComputationError: next to none of the flow's samples are kept.
        """
        if self.base is None:
            return self._drawn(n, generator)
        parts: list[Positions] = []
        missing = n
        for _ in range(MOST_ROUNDS):
            r = self._drawn(math.ceil(missing / self.acceptance) + SPARE, generator)
            with torch.no_grad():
                kept = self.log_weight(r) - self.log_bound
            chance = torch.rand(len(r), generator=generator, dtype=r.dtype, device=r.device)
            parts.append(r[chance.log() < kept][:missing])
            missing -= len(parts[-1])
            if missing == 0:
                return torch.cat(parts)
        raise ComputationError(
            f"of the samples of this flow fewer than {self.acceptance / MOST_ROUNDS:.1g} are ones of |psi|^2: it has "
            "moved too far from the trial function; use method='drift'"
        )

    def log_norm(self, n: int, generator: torch.Generator) -> Estimate:
        """log Z of the integral Z of |psi|^2, from n samples of the flow; exactly 0 for psi = p^(1/2)."""
        if self.base is None:
            return Estimate(0.0, 0.0, n)
        with torch.no_grad():
            w = (self.log_weight(self._drawn(n, generator)) - self.log_bound).exp()
        Z = from_walkers(w)
        return Estimate(math.log(Z.mean) + float(self.log_bound), Z.error / Z.mean, n)

    def _drawn(self, n: int, generator: torch.Generator) -> Positions:
        """n samples of p, (n, particle, dim)."""
        return self.flow.sample(n, generator).reshape(n, *self.system.shape).detach()

    def _bound(self, base: Flow) -> tuple[Tensor, float]:
        """max log w, climbed to from the largest of many samples, and the share of the samples of p_0 that it keeps.

        Raises:
            InputError: the share is too small.
        """
        generator = torch.Generator(self.variance.device).manual_seed(0)
        r = base.sample(N_BOUND, generator).reshape(-1, *self.system.shape)
        with torch.no_grad():
            log_w = self.log_weight(r)
        x = r[log_w.topk(N_CLIMBERS).indices].clone().requires_grad_()
        step, best = CLIMB * self.system.width.mean(), log_w.max()
        for k in range(N_CLIMB):
            with torch.enable_grad():
                value = self.log_weight(x)
                (slope,) = torch.autograd.grad(value.sum(), x)
            best = torch.maximum(best, value.detach().max())
            length = slope.square().sum((-2, -1), keepdim=True).sqrt().clamp_min(1e-30)
            x = (x + step * (1 - k / N_CLIMB) * slope / length).detach().requires_grad_()
        acceptance = float((log_w - best).exp().mean())
        if acceptance < LEAST_ACCEPTANCE:
            raise InputError(
                f"of the samples of a smooth density only {acceptance:.1g} are ones of the trial function of "
                f"{self.system.potential.name}, too few for a flow on it; use method='drift'"
            )
        return best, acceptance

    def log_psi(self, r: Positions) -> PerWalker:
        """log psi, (batch,): normalised for psi = p^(1/2), else up to log Z / 2."""
        smooth = self._smooth(r)
        return smooth if self.base is None or self.trial_function is None else smooth + self.trial_function(r)

    def log_jastrow(self, r: Positions) -> PerWalker:
        """f = log psi - W, (batch,)."""
        f = self._smooth(r)
        return f if self._subtracted is None else f - self._subtracted(r)

    def value_and_gradient(self, r: Positions) -> tuple[PerWalker, Positions]:
        """f (batch,) and its gradient (batch, particle, dim)."""
        f, gradient = value_and_gradient(self._smooth, r)
        if self._subtracted is None:
            return f, gradient
        W = self._subtracted.derivatives(r)
        return f - W.value, gradient - W.gradient

    def derivatives(self, r: Positions) -> Derivatives:
        """f, grad f and, for each particle, sigma_i^2 lap_i f.

        Raises:
            InputError: log p has no continuous second derivative.
        """
        refuse_kinks(self.flow)
        f, gradient, second = curvatures(self._smooth, r)
        laplacian = second.sum(-1)
        if self._subtracted is not None:
            W = self._subtracted.derivatives(r)
            f, gradient, laplacian = f - W.value, gradient - W.gradient, laplacian - W.laplacian
        return Derivatives(f, gradient, self.variance[:, 0] * laplacian)

    def _smooth(self, r: Positions) -> PerWalker:
        """What the flow adds up to log psi: log p / 2, or (log p - log p_0) / 2, which is f itself; (batch,)."""
        x = r.reshape(len(r), *self.flow.event_shape)
        log_p = self.flow.log_prob(x)
        return log_p / 2 if self.base is None else (log_p - self.base.log_prob(x)) / 2

    @property
    def _subtracted(self) -> TrialFunction | None:
        """W where f = log p / 2 - W."""
        return self.trial_function if self.base is None else None


def refuse_unsuitable(system: System, *, with_trial_function: bool = False) -> None:
    """Refuse systems whose ground state no smooth density on open space can be near to.

    Args:
        system: to be solved.
        with_trial_function: whether the density is multiplied by it, so that psi may vanish where it does.

    Raises:
        InputError: a ring or torus, a table with edges, a free system, or a psi that vanishes where particles meet.
    """
    potential = system.potential
    if potential.box is not None or potential.domain is not None:
        raise InputError(f"a flow lives in open space, and {potential.name} does not: use method='drift'")
    if potential.free:
        raise InputError(
            f"{potential.name} is free: nothing holds its centre of mass, and a flow is a density of all positions; "
            "use method='drift'"
        )
    if potential.coalescence and potential.n_dims == 1 and not with_trial_function:
        raise InputError(
            f"psi vanishes where particles of {potential.name} meet, and the smooth density of a flow does not: its "
            "energy would be infinite; use method='drift'"
        )


def fisher_energy(drift: FlowWavefunction, r: Positions) -> PerWalker:
    """sum_i sigma_i^2 |s_i|^2 / 8 + V at samples of |psi|^2; its mean bounds E_0 from above for every density.

    On a trial function E_W + sum_i sigma_i^2 |grad_i f|^2 / 2, which has the same mean and is finite at cusps.

    Args:
        drift: the flow and its system.
        r: (batch, particle, dim), drawn from the flow.
    """
    with torch.no_grad():
        if drift.base is None:
            return (drift.variance * drift.score(r).square()).sum((-2, -1)) / 8 + drift.system.potential(r)
        _, slope = drift.value_and_gradient(r)
        return drift.system.rates(r).killing + (drift.variance * slope.square()).sum((-2, -1)) / 2


def refuse_kinks(density: Density) -> None:
    """Refuse a density whose local energy would not bound the energy.

    Raises:
        InputError: log p has no continuous second derivative.
    """
    if density.smoothness < 2:
        raise InputError(
            f"log p of this {type(density).__name__} has {density.smoothness} continuous derivatives, and a local "
            "energy needs 2: at its kinks part of the kinetic energy is lost and the mean falls below E_0; use "
            "fisher_energy, or a coupling_flow"
        )


def importance_energy(process: Process, drift: FlowWavefunction, n: int, generator: torch.Generator) -> Estimate:
    """The energy of the psi of a process from samples of a flow, E_p[w E_L] / E_p[w] with w = psi^2 / p.

    The samples are independent, so the error needs no correlation time; `effective_samples` says how well p covers
    psi^2.

    Args:
        process: its drift is a `Wavefunction`.
        drift: the flow that draws the samples.
        n: how many.
        generator: source of the samples.
    """
    psi = wavefunction_of(process.drift, "an importance-weighted energy")
    r = drift.sample(n, generator)
    with torch.no_grad():
        like = process.sigma
        log_w = 2 * psi.log_psi(r.to(like)).double() - drift.log_prob(r).double()
        E = local_energy(process, r.to(like)).double()
    w = (log_w - log_w.max()).exp()
    w = w / w.mean()
    mean = (w * E).mean()
    estimate = from_walkers(mean + w * (E - mean))
    return Estimate(mean.item(), estimate.error, n * effective_sample_size(log_w).item())
