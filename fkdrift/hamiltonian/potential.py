"""What a potential is: V(r) in H = sum_i p_i^2 / (2 m_i) + V(r), with hbar = 1.

A plug-in is a frozen dataclass that inherits `Potential`, holds its parameters as fields, and computes
V from positions of shape (batch, particle, dim).  Everything else here is optional and has a default:
masses, a periodic box, groups of identical particles, nuclei, a reference log psi, a known energy.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fkdrift.errors import BadParameter, NoGradient
from fkdrift.hamiltonian.trial_function import TrialFunction
from fkdrift.hamiltonian.units import Units
from fkdrift.numerics.geometry import distance as distance
from fkdrift.numerics.geometry import nearest_image as nearest_image
from fkdrift.numerics.geometry import pair_indices as pair_indices
from fkdrift.numerics.geometry import pair_vectors as pair_vectors
from fkdrift.tensor_types import PerWalker, Positions

ALIKE = 1e-10  # relative difference of two values of V that counts as rounding
SIZES = (0.3, 1.0, 3.0, 10.0)  # of random positions that V is tried at


@dataclass(frozen=True)
class KnownEnergy:
    """A ground-state energy from elsewhere: its value, how it is known, and the source to cite."""

    value: float
    kind: Literal["exact", "computed", "literature", "variational"]
    source: str


class Potential(ABC):
    """The potential energy V(r) of `n_particles` particles in `n_dims` dimensions (hbar = 1).

    A subclass is a frozen dataclass; its fields are the parameters that `--param name=value` sets.
    Class attributes `formula`, `units` and `citation` are what `fkdrift potentials` prints.

    Example:
        >>> @dataclass(frozen=True)
        ... class Quartic(Potential):
        ...     strength: float = 1.0
        ...     formula = "V = strength x^4"
        ...     def __call__(self, r):
        ...         return self.strength * r.pow(4).sum((-2, -1))
        >>> Quartic(2.0)(torch.ones(1, 1, 1))
        tensor([2.])
    """

    n_particles: int = 1
    n_dims: int = 1
    formula: str = ""
    units: str = "hbar = m = 1"
    citation: str = ""
    natural_units: Units = Units()
    """What energies and lengths are in, where hbar = 1 and masses are such that it is known."""
    values_only: bool = False
    """Whether V can only be evaluated, and has no gradient."""

    @abstractmethod
    def __call__(self, r: Positions) -> PerWalker:
        """V(r): positions (batch, particle, dim) to energies (batch,)."""

    @property
    def name(self) -> str:
        """How the potential is called in results: the plug-in's module name unless overridden."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def parameters(self) -> dict[str, object]:
        """The dataclass fields and their values, as written to result.json and config.toml."""
        if not dataclasses.is_dataclass(self):
            return {}
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def mass(self) -> tuple[float, ...]:
        """One mass for each particle; sigma_i = 1 / sqrt(m_i)."""
        return (1.0,) * self.n_particles

    @property
    def box(self) -> tuple[float, ...] | None:
        """Period along each dimension for a system on a ring or torus; None for open space."""
        return None

    @property
    def domain(self) -> tuple[tuple[float, float], ...] | None:
        """The range of each dimension in which V is defined; None if V is defined everywhere."""
        return None

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Groups of identical particles that V is symmetric in; by default every particle is its own."""
        return tuple((i,) for i in range(self.n_particles))

    @property
    def free(self) -> bool:
        """Whether V is unchanged when all particles are moved together: nothing confines the centre of mass.

        The ground state is then that of the relative motion: the centre of mass rests and carries no energy.  Bare
        functions in open space are tried out, see `moves_freely`.
        """
        return False

    @property
    def isotropic(self) -> bool:
        """Whether V is unchanged when all particles are rotated (or reflected) together about the origin."""
        return False

    @property
    def failures(self) -> int | None:
        """How many geometries had no energy so far, and were repaired, of a `fkdrift.Surface`; None for others."""
        return None

    @property
    def start(self) -> tuple[tuple[float, ...], ...] | None:
        """Positions (particle, dim) of free particles from which a geometry at rest is looked for; None to search."""
        return None

    @property
    def nuclei(self) -> tuple[tuple[float, ...], ...]:
        """Points where V is singular for a single particle, such as clamped nuclei."""
        return ()

    @property
    def coalescence(self) -> bool:
        """Whether V is singular, or has a hard core, where two particles meet."""
        return False

    @property
    def pair_potential(self) -> Callable[[Tensor], Tensor] | None:
        """v, of distances of any shape, where V = sum_{i<j} v(r_ij) is the same function for all pairs; else None.

        It need not be said of particles in open space: what V is like there is found by evaluating it.
        """
        return None

    @property
    def tail_correction(self) -> tuple[float, float]:
        """Energy and pressure that V leaves out, such as those of a pair potential beyond the distance it is cut at."""
        return 0.0, 0.0

    @property
    def trial_function(self) -> TrialFunction | None:
        """A reference log psi, W(r), that removes the singularities of V; None to have one fitted."""
        return None

    @property
    def known_energy(self) -> KnownEnergy | None:
        """The ground-state energy where it is known, with its source."""
        return None


def values_at(potential: Potential, r: np.ndarray) -> np.ndarray:
    """V (batch,) in float64 at positions (batch, particle, dim) as an array, without gradients or warnings."""
    with torch.no_grad(), np.errstate(all="ignore"):
        V: np.ndarray = potential(torch.from_numpy(np.ascontiguousarray(r, dtype=float))).double().numpy()
    return V


def require_gradient(potential: Potential, r: Positions) -> None:
    """Refuse a V that is finite at r, and whose gradient is not a number there.

    Args:
        potential: V.
        r: positions (batch, particle, dim) at which V is smooth, such as random ones.

    Raises:
        NoGradient: with a place, and what to do.
    """
    if potential.values_only:
        return
    with torch.enable_grad():
        x = r.detach().requires_grad_()
        V = potential(x)
        if not V.requires_grad:
            return
        (gradient,) = torch.autograd.grad(V.sum(), x)
    bad = V.detach().isfinite() & gradient.isnan().flatten(1).any(1)
    if bool(bad.any()):
        raise NoGradient(
            f"the gradient of {potential.name} is not a number at {x[bad][0].flatten().tolist()}, where V is finite: "
            "torch multiplies 0 by infinity where exp overflows, where sqrt(0) is constant, and in the branch of where "
            "that is not taken; clamp their arguments, as in torch.sqrt(x.clamp(min=1e-12)), or give a function of "
            "numpy arrays, which needs no gradient"
        )


def moves_freely(potential: Potential) -> bool:
    """Whether V is unchanged when all particles move together, as it says or as its values at random points show."""
    if potential.free or potential.n_particles < 2:
        return potential.free
    if potential.box is not None or potential.domain is not None or potential.nuclei or potential.trial_function:
        return False
    rng = np.random.default_rng(29)
    shape = (64, potential.n_particles, potential.n_dims)
    r = np.resize(SIZES, 64)[:, None, None] * rng.normal(size=shape)
    V, moved = values_at(potential, r), values_at(potential, r + 3 * rng.normal(size=(64, 1, shape[2])))
    known = np.isfinite(V) & np.isfinite(moved)
    size = np.abs(V) + 1e-3 * np.median(np.abs(V[known])) if known.any() else np.abs(V)
    return 2 * int(known.sum()) > len(V) and bool((np.abs(V - moved) <= ALIKE * 10 * size)[known].all())


def require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Raise BadParameter naming the parameter, its value and what is allowed, unless `condition` holds."""
    if not condition:
        raise BadParameter(f"{name} = {value!r} is not allowed: {name} must be {allowed}")


def require_finite(**parameters: float) -> None:
    """Raise BadParameter unless every parameter is a finite number."""
    for name, value in parameters.items():
        require(_is_number(value) and math.isfinite(value), name, value, "a finite number")


def require_positive(**parameters: float) -> None:
    """Raise BadParameter unless every parameter is a finite number above zero."""
    for name, value in parameters.items():
        require(_is_number(value) and 0 < value < math.inf, name, value, "a finite number above zero")


def require_count(**parameters: int) -> None:
    """Raise BadParameter unless every parameter is a whole number of at least 1."""
    for name, value in parameters.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        require(whole and value >= 1, name, value, "a whole number of at least 1")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class FunctionPotential(Potential):
    """A potential made from any callable on tensors, or on numpy arrays, (batch, particle, dim) to (batch,).

    Args:
        function: computes V; must be differentiable by torch for the pathwise gradient.  One that takes numpy arrays
            is called with float64, and V then has values only.
        n_particles, n_dims: shape of one walker.
        masses: one for each particle (default 1).
        period: period along each dimension for a ring or torus (default: open space).
        identical: whether V is symmetric under exchange of any two particles.
    """

    function: Callable[[Tensor], Tensor]
    n_particles: int = 1
    n_dims: int = 1
    masses: tuple[float, ...] | None = None
    period: tuple[float, ...] | None = None
    identical: bool = False

    formula = "V = f(r), a Python callable"

    def __post_init__(self) -> None:
        require(callable(self.function), "function", self.function, "callable")
        require(self.n_particles >= 1, "n_particles", self.n_particles, "at least 1")
        require(self.n_dims >= 1, "n_dims", self.n_dims, "at least 1")
        r = torch.zeros(2, self.n_particles, self.n_dims).normal_(generator=torch.Generator().manual_seed(0))
        found: object = None
        raised: Exception | None = None
        for positions, kind in ((r, Tensor), (r.double().numpy(), np.ndarray)):
            try:
                value = self.function(positions)  # type: ignore[arg-type]
            except Exception as error:  # what it raises for tensors counts, unless it takes arrays
                raised = raised or error
                continue
            if isinstance(value, kind) and tuple(value.shape) == (2,):
                object.__setattr__(self, "values_only", kind is np.ndarray)
                return
            found = value if found is None else found
        if found is None and raised is not None:
            raise BadParameter(
                f"{self.name} raised {type(raised).__name__}: {raised}, for positions {tuple(r.shape)}"
            ) from raised
        what = f"{type(found).__name__} {tuple(getattr(found, 'shape', ()))}".removesuffix(" ()")
        raise BadParameter(
            f"{self.name} returns {what} for positions {tuple(r.shape)}: give a function that takes (batch, "
            "particle, dim) to (batch,), tensors to tensors or arrays to arrays, such as r.square().sum((-2, -1))"
        )

    def __call__(self, r: Positions) -> PerWalker:
        if not self.values_only:
            return self.function(r)
        if torch.is_grad_enabled() and r.requires_grad:
            raise NoGradient(
                f"{self.name} takes numpy arrays, and this needs its gradient; --drift gradient, the default, does not"
            )
        return torch.as_tensor(self.function(r.detach().cpu().double().numpy())).to(r)  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    @property
    def parameters(self) -> dict[str, object]:
        return {name: value for name, value in super().parameters.items() if name != "function"}

    @property
    def mass(self) -> tuple[float, ...]:
        return self.masses or super().mass

    @property
    def box(self) -> tuple[float, ...] | None:
        return self.period

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        return (tuple(range(self.n_particles)),) if self.identical else super().groups
