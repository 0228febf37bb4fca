"""What a drift is, and what a wavefunction can do: one interface for networks, flows and a user's own.

    psi = exp(W + f),        v = sigma^2 grad f

W = log of the trial function of the system (0 on a ring or torus), f = the log Jastrow factor, v the drift on top of
the reference drift sigma^2 grad W.  W holds what is singular, such as cusps, in closed form; everything is therefore
asked of f, and the singular parts of the local energy cancel before they are rounded.

Whatever needs log psi asks for a `Wavefunction` by `wavefunction_of`, never for one of its kinds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fkdrift.errors import InputError
from fkdrift.hamiltonian.system import System
from fkdrift.hamiltonian.trial_function import Derivatives, TrialFunction
from fkdrift.numerics.differentiation import curvatures, value_and_gradient
from fkdrift.tensor_types import PerWalker, Positions


class Drift(nn.Module, ABC):
    """The learned part v(r) of a drift, on top of the reference drift: (batch, particle, dim) to the same shape."""

    @abstractmethod
    def forward(self, r: Positions) -> Positions:
        """v(r)."""


CHUNK = 2**22  # numbers in the largest tensor of one evaluation: more would not fit a processor's cache
LEAST_AT_ONCE = 16  # walkers: smaller parts would be all overhead


@runtime_checkable
class Wavefunction(Protocol):
    """log psi = W + f with derivatives of f: a drift that is the gradient of something.

    A class with these members is one; there is nothing to inherit from.  `AutogradWavefunction` makes one of any f.

    Attributes:
        trial_function: W, or None where it is 0; the same as that of the reference measure of the process.
        numbers_per_walker: how many numbers the largest tensor in `derivatives` has for each member of a batch; the
            local energy is computed in parts that fit a processor's cache.
    """

    trial_function: TrialFunction | None
    numbers_per_walker: int

    def __call__(self, r: Positions) -> Positions:
        """v = sigma^2 grad f, (batch, particle, dim)."""

    def log_jastrow(self, r: Positions) -> PerWalker:
        """f = log psi - W, (batch,), differentiable in r and the parameters."""

    def log_psi(self, r: Positions) -> PerWalker:
        """log psi, (batch,), up to a constant; differentiable in r and the parameters."""

    def value_and_gradient(self, r: Positions) -> tuple[PerWalker, Positions]:
        """f (batch,) and grad f (batch, particle, dim), differentiable in the parameters."""

    def derivatives(self, r: Positions) -> Derivatives:
        """f, grad f and terms (batch, particle) that add up to sum_i sigma_i^2 lap_i f."""

    def sample(self, n: int, generator: torch.Generator) -> Positions | None:
        """n independent positions from |psi|^2, (n, particle, dim); None where only a Markov chain can give them."""


def in_parts(psi: Wavefunction, r: Positions) -> tuple[Tensor, ...]:
    """Positions in parts that are evaluated one by one, each within a processor's cache."""
    return r.split(max(LEAST_AT_ONCE, CHUNK // psi.numbers_per_walker))


class AutogradWavefunction(Drift):
    """The `Wavefunction` of any differentiable f, with derivatives by automatic differentiation.

    psi = exp(W + f) with W of the system.  It costs one backward pass for each coordinate where a `NeuralWavefunction`
    has closed forms, but f can be anything.

    Args:
        log_jastrow: f, from positions (batch, particle, dim) to (batch,); a module, whose parameters are then trained.
        system: gives masses and W.

    Example (one parameter; psi = exp(-x^2 / 2 - a x^4) in the well x^2 / 2):
        >>> class Quartic(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.a = torch.nn.Parameter(torch.tensor(0.1))
        ...     def forward(self, r):
        ...         return -self.a * r.pow(4).sum((-2, -1))
        >>> psi = AutogradWavefunction(Quartic(), fk.System(fk.load_potential("harmonic")))
        >>> psi(torch.ones(1, 1, 1)).item()                                 # -4 a x^3
        -0.4000...
    """

    variance: Tensor

    def __init__(self, log_jastrow: Callable[[Tensor], Tensor], system: System) -> None:
        super().__init__()
        self.function, self.trial_function = log_jastrow, system.trial_function
        self.register_buffer("variance", system.sigma.square())
        parameters = list(self.parameters())
        self.numbers_per_walker = (
            system.shape[0] * system.shape[1] * max((p.shape[0] for p in parameters if p.ndim), default=1)
        )

    def forward(self, r: Positions) -> Positions:
        return self.variance * self.value_and_gradient(r)[1]

    def log_jastrow(self, r: Positions) -> PerWalker:
        """f, (batch,)."""
        return self.function(r)

    def log_psi(self, r: Positions) -> PerWalker:
        """W + f, (batch,)."""
        f = self.function(r)
        return f if self.trial_function is None else f + self.trial_function(r)

    def value_and_gradient(self, r: Positions) -> tuple[PerWalker, Positions]:
        """f (batch,) and grad f (batch, particle, dim)."""
        return value_and_gradient(self.function, r)

    def derivatives(self, r: Positions) -> Derivatives:
        """f, grad f and sigma_i^2 lap_i f for each particle."""
        f, gradient, second = curvatures(self.function, r)
        return Derivatives(f, gradient, self.variance[:, 0] * second.sum(-1))

    def sample(self, n: int, generator: torch.Generator) -> None:
        """Nothing: only a Markov chain can draw from |psi|^2."""


def wavefunction_of(drift: object, purpose: str) -> Wavefunction:
    """The drift as a `Wavefunction`.

    Args:
        drift: of a process.
        purpose: what needs log psi, for the message: "a local energy".

    Raises:
        InputError: it has no log psi.
    """
    if isinstance(drift, Wavefunction):
        return drift
    raise InputError(
        f"{purpose} needs log psi, and the drift, a {type(drift).__name__}, has none: use a NeuralWavefunction, a "
        "FlowWavefunction or an AutogradWavefunction; a free drift's energy is its path action (PathSampler)"
    )
