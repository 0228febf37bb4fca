"""A flow as a ground state: |phi_0|^2 = p, normalised, with independent samples.

    psi = p^(1/2),   v = sigma^2 grad log psi = sigma^2 s / 2,   s = grad log p
    E   = E_p[ sum_i sigma_i^2 |s_i|^2 / 8 + V ]                                  Fisher form: a bound for every flow
    E_L = V - sum_i sigma_i^2 ( |s_i|^2 / 8 + div_i s / 4 )                       E_p[E_L] = E if s is continuous

Both have the mean E >= E_0.  E_L is E_0 everywhere at the optimum, so that its noise vanishes there; the Fisher form
keeps its noise, but stays a bound for densities with kinks, for which the mean of E_L would fall below E_0.

References: arXiv:2406.02451 (flows for trapped particles); Waveflow, arXiv:2211.14839.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from fkdrift.densities.density import Density
from fkdrift.errors import InputError
from fkdrift.hamiltonian.system import System
from fkdrift.hamiltonian.trial_function import Derivatives
from fkdrift.numerics.differentiation import curvatures, value_and_gradient
from fkdrift.numerics.estimates import Estimate, from_walkers
from fkdrift.numerics.log_weights import effective_sample_size
from fkdrift.paths.process import Process
from fkdrift.tensor_types import PerWalker, Positions
from fkdrift.wavefunction.local_energy import local_energy
from fkdrift.wavefunction.protocol import Drift, wavefunction_of

NUMBERS_PER_COORDINATE = 2**7  # that a coupling or continuous layer of the default width holds for one point


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

    Raises:
        InputError: the flow has another number of coordinates, the system is periodic, or its psi vanishes where
            particles meet.
    """

    variance: Tensor

    def __init__(self, flow: FlowDensity, system: System) -> None:
        super().__init__()
        n, dim = system.shape
        coordinates = torch.Size(flow.event_shape).numel()
        if coordinates != n * dim:
            raise InputError(f"the flow has {coordinates} coordinates, but the system {n} x {dim}: give it {n * dim}")
        refuse_unsuitable(system)
        self.flow, self.system, self.trial_function = flow, system, system.trial_function
        self.numbers_per_walker = NUMBERS_PER_COORDINATE * coordinates
        self.register_buffer("variance", system.sigma.square())

    def forward(self, r: Positions) -> Positions:
        return self.variance * self.value_and_gradient(r)[1]

    def log_prob(self, r: Positions) -> PerWalker:
        """log p of all coordinates, (batch,): log |psi|^2 of the normalised psi."""
        return self.flow.log_prob(r.reshape(len(r), *self.flow.event_shape))

    def score(self, r: Positions) -> Positions:
        """s = grad log p, (batch, particle, dim)."""
        return self.flow.score(r.reshape(len(r), *self.flow.event_shape)).reshape(r.shape)

    def sample(self, n: int, generator: torch.Generator) -> Positions:
        """n independent samples of |psi|^2, (n, particle, dim)."""
        return self.flow.sample(n, generator).reshape(n, *self.system.shape).detach()

    def log_psi(self, r: Positions) -> PerWalker:
        """log psi = log p / 2, normalised."""
        return self.log_prob(r) / 2

    def log_jastrow(self, r: Positions) -> PerWalker:
        """f = log psi - W, (batch,)."""
        f = self.log_psi(r)
        return f if self.trial_function is None else f - self.trial_function(r)

    def value_and_gradient(self, r: Positions) -> tuple[PerWalker, Positions]:
        """f (batch,) and its gradient (batch, particle, dim)."""
        f, gradient = value_and_gradient(self.log_psi, r)
        if self.trial_function is None:
            return f, gradient
        W = self.trial_function.derivatives(r)
        return f - W.value, gradient - W.gradient

    def derivatives(self, r: Positions) -> Derivatives:
        """f, grad f and, for each particle, sigma_i^2 lap_i f.

        Raises:
            InputError: log p has no continuous second derivative.
        """
        refuse_kinks(self.flow)
        f, gradient, second = curvatures(self.log_psi, r)
        laplacian = second.sum(-1)
        if self.trial_function is not None:
            W = self.trial_function.derivatives(r)
            f, gradient, laplacian = f - W.value, gradient - W.gradient, laplacian - W.laplacian
        return Derivatives(f, gradient, self.variance[:, 0] * laplacian)


def refuse_unsuitable(system: System) -> None:
    """Refuse systems whose ground state no smooth density on open space can be near to.

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
    if potential.coalescence and potential.n_dims == 1:
        raise InputError(
            f"psi vanishes where particles of {potential.name} meet, and the smooth density of a flow does not: its "
            "energy would be infinite; use method='drift'"
        )


def fisher_energy(drift: FlowWavefunction, r: Positions) -> PerWalker:
    """sum_i sigma_i^2 |s_i|^2 / 8 + V at samples of p; its mean bounds E_0 from above for every density.

    Args:
        drift: the flow and its system.
        r: (batch, particle, dim), drawn from the flow.
    """
    with torch.no_grad():
        s = drift.score(r)
    return (drift.variance * s.square()).sum((-2, -1)) / 8 + drift.system.potential(r)


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
