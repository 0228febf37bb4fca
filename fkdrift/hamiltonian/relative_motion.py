"""Free systems: particles that hold each other, and nothing holds their centre of mass.

V does not change when all particles move together, so H = P^2 / (2 M) + H_rel, and the ground state is that of H_rel:
phi_0 depends on differences of positions only, and the centre of mass rests. Its trial function is

    quadratic V    the normal modes, which are exact
    two particles  the lowest state of x = r_1 - r_2 with the reduced mass, a problem of one particle: exact
    pairs          a product of the two-body states of all pairs, where V is a sum over pairs: see pair_reference.py
    a molecule     its normal modes, in interatomic distances: see molecular_reference.py
    else           the Gaussian exp(-a sum_{i<j} m_i m_j r_ij^2 / 2 M) of lowest energy
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fkdrift.errors import Unbound
from fkdrift.hamiltonian.molecular_reference import prepare_molecule
from fkdrift.hamiltonian.pair_reference import pair_functions, prepare_pairs
from fkdrift.hamiltonian.potential import ALIKE, SIZES, Potential, values_at
from fkdrift.hamiltonian.preparation import Preparation, prepare
from fkdrift.hamiltonian.trial_function import Derivatives, Term, TrialFunction
from fkdrift.tensor_types import PerWalker, Positions

Array = NDArray[np.float64]

WIDTHS = np.geomspace(1e-3, 1e4, 200)  # of Gaussians, to choose from


def without_centre(x: Array, mass: Array) -> Array:
    """Positions (batch, particle, dim) about their centre of mass."""
    centre = (mass[:, None] * x).sum(-2, keepdims=True) / mass.sum()
    return np.asarray(x - centre)


@dataclass(frozen=True)
class RelativePotential(Potential):
    """V of two free particles as that of one: x = r_1 - r_2 with the reduced mass m_1 m_2 / (m_1 + m_2).

    Args:
        potential: of two particles.
    """

    potential: Potential

    def __call__(self, r: Positions) -> PerWalker:
        return self.potential(apart(r, *self.potential.mass))

    @property
    def n_dims(self) -> int:  # type: ignore[override]
        return self.potential.n_dims

    @property
    def name(self) -> str:
        return self.potential.name

    @property
    def mass(self) -> tuple[float, ...]:
        m1, m2 = self.potential.mass
        return (m1 * m2 / (m1 + m2),)


def apart(x: Tensor, m1: float, m2: float) -> Tensor:
    """Two particles (batch, 2, dim) at a difference x (batch, 1, dim), their centre of mass at 0."""
    return torch.cat([m2 / (m1 + m2) * x, -m1 / (m1 + m2) * x], 1)


@dataclass(frozen=True, eq=False)
class Difference(Term):
    """A term of one particle as a term of r_1 - r_2.

    Args:
        term: of one particle, a table.
    """

    term: Term

    def __call__(self, r: Positions) -> Derivatives:
        value, gradient, laplacian = self.term(r[:, :1] - r[:, 1:])
        return Derivatives(value, torch.cat([gradient, -gradient], 1), laplacian.expand(-1, 2))

    def covers(self, r: Positions) -> Tensor:
        """Whether the difference is where the term is tabulated, (batch,)."""
        inside: Tensor = self.term.covers(r[:, :1] - r[:, 1:])  # type: ignore[attr-defined]
        return inside


@dataclass(frozen=True, eq=False)
class Quadratic(Term):
    """-(x - c) A (x - c) / 2 of all coordinates together.

    Args:
        matrix: A, (coordinate, coordinate) float64.
        centre: c, (particle, dim) float64.
    """

    matrix: Tensor
    centre: Tensor

    def __call__(self, r: Positions) -> Derivatives:
        A = self.matrix.to(r)
        x = (r - self.centre.to(r)).flatten(1)
        gradient = -x @ A
        laplacian = -A.diagonal().unflatten(0, r.shape[1:]).sum(-1)
        return Derivatives(
            (gradient * x).sum(-1) / 2, gradient.unflatten(1, r.shape[1:]), laplacian.expand(r.shape[:2])
        )


def prepare_free(potential: Potential) -> Preparation:
    """The trial function of a free system.

    Raises:
        Unbound: particles do not hold each other.
        InputError: V is not finite.
    """
    if (oscillators := _oscillators(potential)) is not None:
        return oscillators
    if potential.n_particles == 2:
        return _two(potential)
    functions = pair_functions(potential) if potential.n_dims > 1 else None
    if functions is not None:
        return prepare_pairs(potential, functions)
    return prepare_molecule(potential) or _relative_gaussian(potential)


def _oscillators(potential: Potential) -> Preparation | None:
    """Coupled oscillators by their normal modes; None where V is not quadratic."""
    rng = np.random.default_rng(31)
    n, dim = potential.n_particles, potential.n_dims
    start, step = (np.resize(SIZES, 64)[:, None, None] * rng.normal(size=(64, n, dim)) for _ in range(2))
    V = np.stack([values_at(potential, start + k * step) for k in range(4)])
    if not (np.abs(V[3] + 3 * V[1] - 3 * V[2] - V[0]) <= ALIKE * np.abs(V).sum(0)).all():
        return None
    size, eye = n * dim, np.eye(n * dim)

    def at(x: Array) -> Array:
        return values_at(potential, x.reshape(-1, n, dim))

    middle = float(at(np.zeros((1, size)))[0])
    plus, minus = at(eye), at(-eye)
    both = at((eye[:, None] + eye).reshape(-1, size)).reshape(size, size)
    K = both - plus[:, None] - plus + middle
    K[np.diag_indices(size)] = plus + minus - 2 * middle
    centre = (-np.linalg.pinv(K, rcond=1e-9, hermitian=True) @ (plus - minus) / 2).reshape(n, dim)
    mass = np.asarray(potential.mass, dtype=float)
    root = np.sqrt(np.repeat(mass, dim))
    square, Q = np.linalg.eigh(K / np.outer(root, root))
    if square[0] < -1e-9 * square[-1] or square[dim] <= 1e-9 * square[-1]:
        raise Unbound(
            f"{potential.name} has no bound state: the particles do not all hold each other, omega^2 = "
            f"{min(square[0], square[dim]):.3g} for a mode of their relative motion; every one needs omega^2 > 0"
        )
    omega, modes = np.sqrt(square[dim:]), Q[:, dim:]
    A = (modes * omega) @ modes.T * np.outer(root, root)
    spread = modes / np.sqrt(2 * omega) / root[:, None]
    centre = without_centre(centre[None], mass)[0]

    def draw(count: int, generator: np.random.Generator) -> Array:
        return centre + (generator.normal(size=(count, len(omega))) @ spread.T).reshape(count, n, dim)

    W = TrialFunction((Quadratic(torch.from_numpy(A), torch.from_numpy(centre)),))
    width = np.sqrt(np.square(spread).sum(1)).reshape(n, dim)
    return Preparation(W, centre, width, float(omega[-1]), draw)


def _two(potential: Potential) -> Preparation:
    """Two particles, by the lowest state of their difference."""
    relative = RelativePotential(potential)
    found = prepare(relative)
    m1, m2 = potential.mass
    share = np.array([[m2], [-m1]]) / (m1 + m2)

    def draw(count: int, generator: np.random.Generator) -> Array:
        return share * found.draw(count, generator)

    term = Difference(found.trial_function.terms[0])
    table = None if found.table is None else term
    W = TrialFunction((term,))
    return Preparation(W, share * found.centre, np.abs(share) * found.width, found.rate, draw, table, found.energy)


def _relative_gaussian(potential: Potential) -> Preparation:
    """The Gaussian in the differences of lowest energy: every mode of the relative motion has the same frequency.

    Raises:
        Unbound: the energy falls as the Gaussian becomes wider, or narrower.
    """
    rng = np.random.default_rng(37)
    n, dim = potential.n_particles, potential.n_dims
    mass = np.asarray(potential.mass, dtype=float)
    x = without_centre(rng.normal(size=(2048, n, dim)) / np.sqrt(mass)[:, None], mass)
    V = np.stack([np.median(values_at(potential, w * x).reshape(64, -1).mean(1)) for w in WIDTHS])
    E = np.where(np.isfinite(V), V, np.inf) + dim * (n - 1) / (8 * WIDTHS**2)
    best = int(np.argmin(E))
    if best in (0, len(WIDTHS) - 1):
        how = "wider" if best else "narrower"
        raise Unbound(
            f"{potential.name} has no bound state that could be found: the energy of a Gaussian falls as it becomes "
            f"{how}; give the potential a trial_function, or make it a sum of pair potentials"
        )
    w = float(WIDTHS[best])
    omega = 1 / (2 * w**2)
    A = omega * (np.diag(mass) - np.outer(mass, mass) / mass.sum())
    matrix = torch.from_numpy(np.kron(A, np.eye(dim)))

    def draw(count: int, generator: np.random.Generator) -> Array:
        return w * without_centre(generator.normal(size=(count, n, dim)) / np.sqrt(mass)[:, None], mass)

    width = w * np.sqrt(1 / mass - 1 / mass.sum())[:, None] * np.ones((n, dim))
    W = TrialFunction((Quadratic(matrix, torch.zeros(n, dim, dtype=torch.float64)),))
    return Preparation(W, np.zeros((n, dim)), width, omega, draw)
