"""A potential made ready for a stochastic process: masses, the reference measure, where walkers start.

A `System` is the Feynman-Kac measure that a learned process is compared with,

    dr = h dt + sigma dB,   killed at the rate   E_W = V - sum_i sigma_i^2 (|grad_i W|^2 + lap_i W) / 2,

with sigma_i = 1 / sqrt(m_i), h = sigma^2 grad W and W = log phi_ref.  The reference comes from the potential
(Coulomb cusps, say) or is prepared from values of V.  Walkers start from |phi_ref|^2, and its centre and width
set the natural length and time of the system. On a ring or torus W = 0: plain Brownian motion, killed at the rate V,
unless V is declared as a sum over pairs, which then heal in the box.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fkdrift.errors import InputError
from fkdrift.hamiltonian.pair_reference import pair_functions, prepare_pairs
from fkdrift.hamiltonian.potential import Potential, require_gradient
from fkdrift.hamiltonian.preparation import Preparation, prepare
from fkdrift.hamiltonian.relative_motion import prepare_free
from fkdrift.hamiltonian.singularities import recognise, sample_trial_function
from fkdrift.hamiltonian.trial_function import reference_energy
from fkdrift.numerics.geometry import distance, nearest_image, pair_indices, pair_vectors
from fkdrift.tensor_types import PerWalker, Positions

N_TRIED = 64  # walkers at which V must have a gradient
N_SEPARATIONS = 4096  # distances of pairs from which their mean and spread are known


class Rates(NamedTuple):
    """The reference drift h (batch, particle, dim), the killing rate E_W (batch,), and W (batch,) or None where 0."""

    drift: Positions
    killing: PerWalker
    log_reference: PerWalker | None = None


class System:
    """A potential with its reference measure, in one dtype on one device.

    Args:
        potential: the potential energy V(r).
        dtype, device: of all tensors made from this system.
        prepared: the trial function where the potential has none, such as `preparation.gaussian(potential)`; by default
            what suits the potential, see `prepare`.

    Attributes:
        potential: the potential, with what was recognised about it: see `recognise`.
        sigma: (particle, 1), 1 / sqrt(mass).
        trial_function: W = log phi_ref, or None on most rings and tori.
        centre, width: (particle, dim), mean and standard deviation of |phi_ref|^2 (of a uniform density on a ring).
        separation: of a free system, mean and standard deviation (particle, particle) of distances in |phi_ref|^2.
        time_scale: the relaxation time of the stiffest coordinate, 1 / omega for an oscillator: 1 / max sigma^2 <-W''>
            where W was prepared, 2 min(m width^2) where the potential brought it.

    Raises:
        Unbound: V has no ground state.
        InputError: V is not finite, or not of shape (batch,).

    Example:
        >>> system = System(fk.load_potential("harmonic", omega=2.0))
        >>> round(system.width.item(), 4), round(system.time_scale, 4)
        (0.5, 0.5)
    """

    def __init__(
        self,
        potential: Potential,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        prepared: Preparation | None = None,
    ) -> None:
        self.potential = potential = recognise(potential)
        self.dtype, self.device = dtype, torch.device(device)
        mass = np.asarray(potential.mass, dtype=float)
        if mass.shape != (potential.n_particles,) or not (mass > 0).all():
            raise InputError(f"mass = {potential.mass} is not allowed: give {potential.n_particles} positive masses")
        self.sigma = self._tensor(mass**-0.5)[:, None]
        self.trial_function = potential.trial_function
        self._prepared = prepared
        if potential.box is not None and potential.pair_potential is not None:
            self._prepared = prepared or prepare_pairs(potential, pair_functions(potential) or [])
            self.trial_function = self._prepared.trial_function
        if potential.box is not None:
            width = np.tile(np.asarray(potential.box) / 12**0.5, (potential.n_particles, 1))
            centre = np.zeros_like(width)
        elif self.trial_function is not None:
            centre, width = _moments(potential)
        else:
            self._prepared = prepared or (prepare_free(potential) if potential.free else prepare(potential))
            centre, width = self._prepared.centre, self._prepared.width
            self.trial_function = self._prepared.trial_function
        self.centre, self.width = self._tensor(centre), self._tensor(width)
        self.separation = self._separation() if potential.free else None
        fastest = float((1 / (2 * mass[:, None] * np.square(width))).max())
        self.time_scale = 1 / (fastest if self._prepared is None else self._prepared.rate)
        if self._prepared is not None:
            require_gradient(potential, torch.from_numpy(self._drawn(N_TRIED, 0)).to(dtype))

    @property
    def harmonic(self) -> float | None:
        """V + sum of omega / 2 at the relaxed geometry of a molecule, None of anything else."""
        return None if self._prepared is None else self._prepared.harmonic

    def _tensor(self, values: object) -> Tensor:
        return torch.tensor(np.asarray(values, dtype=float), dtype=self.dtype, device=self.device)

    @property
    def shape(self) -> tuple[int, int]:
        """(n_particles, n_dims)."""
        return self.potential.n_particles, self.potential.n_dims

    def _separation(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the distances of pairs in |phi_ref|^2, those of one kind taken together."""
        n_pairs = self.shape[0] * (self.shape[0] - 1) // 2
        n_walkers = min(256, max(16, N_SEPARATIONS // n_pairs))
        r = self.initial_walkers(n_walkers, torch.Generator(self.device).manual_seed(0))
        d = distance(nearest_image(pair_vectors(r), self.potential.box)).double()
        i, j = pair_indices(r.shape[1], r.device)
        group = torch.empty(r.shape[1], dtype=torch.long, device=r.device)
        for g, members in enumerate(self.potential.groups):
            group[list(members)] = g
        kind = group[:, None] * len(group) + group
        kind = torch.minimum(kind, kind.T)
        mean = torch.ones(r.shape[1], r.shape[1], dtype=torch.float64, device=r.device)
        deviation = mean.clone()
        for each in kind[i, j].unique():
            mean[kind == each] = d[:, kind[i, j] == each].mean()
            deviation[kind == each] = d[:, kind[i, j] == each].std()
        return mean.to(self.dtype), deviation.to(self.dtype)

    def rates(self, r: Positions) -> Rates:
        """h = sigma^2 grad W, the killing rate E_W, and W (0, V and None where there is no reference)."""
        if self._prepared is not None and self._prepared.table is not None:
            return self._tabulated_rates(r, self._prepared)
        V = self.potential(r)
        if self.trial_function is None:
            return Rates(torch.zeros_like(r), V)
        W, variance = self.trial_function.derivatives(r), self.sigma.square()
        return Rates(variance * W.gradient, reference_energy(V, W, variance[:, 0]), W.value)

    def _tabulated_rates(self, r: Positions, prepared: Preparation) -> Rates:
        """The same in float64, where walls as high as 1e6 cancel; outside of the table E_W is the trial energy."""
        assert prepared.table is not None
        inside = prepared.table.covers(r)
        W, variance = prepared.trial_function.derivatives(r.double()), self.sigma.double().square()
        somewhere = torch.as_tensor(prepared.typical, device=r.device)
        V = self.potential(torch.where(inside[:, None, None], r.double(), somewhere))
        killing = torch.where(inside, reference_energy(V, W, variance[:, 0]), prepared.energy)
        return Rates((variance * W.gradient).to(r.dtype), killing.to(r.dtype), W.value.to(r.dtype))

    def initial_walkers(self, n_walkers: int, generator: torch.Generator) -> Positions:
        """Independent starting positions drawn from |phi_ref|^2, or uniform in a periodic box without phi_ref."""
        shape = (n_walkers, *self.shape)
        if self.potential.box is not None and self._prepared is None:
            uniform = torch.rand(shape, generator=generator, dtype=self.dtype, device=self.device)
            return uniform * self._tensor(self.potential.box)
        if self._prepared is None and self.potential.trial_function is not None:
            seed = int(torch.randint(2**31, (), generator=generator, device=self.device))
            return self._tensor(sample_trial_function(self.potential.trial_function, self.potential, n_walkers, seed))
        seed = int(torch.randint(2**31, (), generator=generator, device=self.device))
        return self._tensor(self._drawn(n_walkers, seed))

    def _drawn(self, n_walkers: int, seed: int) -> np.ndarray:
        """Positions of the prepared |phi_ref|^2, within the domain of V."""
        assert self._prepared is not None
        r = self._prepared.draw(n_walkers, np.random.default_rng(seed))
        return r if self.potential.domain is None else r.clip(*np.asarray(self.potential.domain, dtype=float).T)

    def at_rest(self, u: Positions) -> Positions:
        """Displacements u = dr / sigma without the motion of the centre of mass; unchanged unless the system is free.

        u_i - sqrt(m_i) sum_j sqrt(m_j) u_j / M, a projection: normal numbers stay normal in what is left.
        """
        if not self.potential.free:
            return u
        weight = 1 / self.sigma.to(u)
        return u - weight * (weight * u).sum(-2, keepdim=True) / weight.square().sum()

    def wrap(self, r: Positions) -> Positions:
        """Positions brought back into the periodic box, for display; unchanged in open space."""
        return r if self.potential.box is None else r.remainder(self._tensor(self.potential.box))


def _moments(potential: Potential) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (particle, dim) of the potential's own |phi_ref|^2, shared by identical particles."""
    assert potential.trial_function is not None
    r = sample_trial_function(potential.trial_function, potential, 1024)
    centre, width = np.empty(r.shape[1:]), np.empty(r.shape[1:])
    for members in map(list, potential.groups):
        centre[members] = r[:, members].mean((0, 1))
        width[members] = r[:, members].std((0, 1))
    return centre, width
