"""Excited states from the walkers of the ground state: gaps, energies and wavefunctions psi_n = psi sum_k c_k f_k.

The Hamiltonian in the basis f_k psi, for any psi, exact or not, is estimated from positions r drawn from a density p,

    S_ij = < f_i psi | f_j psi >    = E_p[ w f_i f_j ],                      w = psi^2 / p
    H_ij = < f_i psi | H | f_j psi > = E_p[ w f_i (E_L f_j - L f_j) ],       L f = v . grad f + sigma^2 lap f / 2

and the eigenvalues of H c = E S c, lowest first, bound E_0, E_1, ... from above (MacDonald, 1933), whatever the
quality of psi; the gaps are E_n - E_0 of the same problem.  Integrating by parts gives the symmetric form

    H_ij = E_p[ w f_i f_j E_L ] + E_p[ w sum sigma^2 grad f_i . grad f_j ] / 2,

which for an exact psi is the Ritz form of the generator of dr = v dt + sigma dB.  H is not made symmetric on purpose:
where f_j psi is an eigenstate, (E_L f_j - L f_j) = E_j f_j at every position, and the eigenvalue comes without any
noise; made symmetric it would have that of f_i f_j (Nightingale and Melik-Alaverdian, 2001).

Excited states reach where psi is small, so positions are not drawn from psi^2 but from

    p = psi^2 G,      G = 1 + sum_k a_k f_k^2,

with which every w f_i f_j is bounded: no entry has a heavy tail.

References: M. P. Nightingale and V. Melik-Alaverdian, Phys. Rev. Lett. 87, 043401 (2001); J. K. L. MacDonald, Phys.
Rev. 43, 830 (1933).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fkdrift.errors import InputError
from fkdrift.estimators.basis import Basis, coordinates_of, decay_rate, mirrors_of, places_of, sector_name
from fkdrift.estimators.state import restore, saved
from fkdrift.hamiltonian.system import System
from fkdrift.hamiltonian.trial_function import Derivatives, TrialFunction
from fkdrift.numerics.differentiation import curvatures, value_and_gradient
from fkdrift.numerics.estimates import Estimate, rounding_error
from fkdrift.paths.process import Process
from fkdrift.tensor_types import PerWalker, Positions
from fkdrift.wavefunction import metropolis
from fkdrift.wavefunction.local_energy import local_energy
from fkdrift.wavefunction.protocol import Wavefunction, wavefunction_of

N_GROUPS = 32  # of walkers, for the jackknife
EXCITED_SHARE = 2.0  # mean of sum_k a_k f_k^2 over psi^2: how much more is drawn for the excited states
DROPPED = 1e-12  # eigenvalues of S below this share of the largest are noise of rounding
LONGEST_STEP = 2.0  # in time scales: the density p is wider than psi^2
PURE = 0.9  # share of a state in a sector of the mirrors from which on it is labelled so
RESOLVED = 0.5  # largest error of a level, in units of its gap or of 1 / time_scale, whichever is more
AXES = {"walkers": 0}  # of the walkers, in what is saved
RITZ = "Ritz, H c = E S c over psi^2 (1 + sum a f^2)"


@dataclass(frozen=True)
class Excitation:
    """An excited state.

    Args:
        gap: E_n - E_0.
        energy: E_n, an upper bound within its error.
        symmetry: under the mirrors of V, in words; "" where there are none.
        method: how it was found.
    """

    gap: Estimate
    energy: Estimate
    symmetry: str
    method: str = RITZ

    def plain(self) -> dict[str, Any]:
        """As it stands in `result["excitations"]`."""
        return {
            "gap": self.gap.mean,
            "error": self.gap.error,
            "energy": {"mean": self.energy.mean, "error": self.energy.error},
            "symmetry": self.symmetry,
            "method": self.method,
        }


class Levels:
    """The lowest levels of a problem H c = E S c with its jackknife.

    Args:
        energies: (level,), lowest first.
        replicas: (group, level), each without one group of walkers; nan where these have fewer independent functions.
        coefficients: (function, level).
        sectors: (level, mirror) expected sign under each mirror, between -1 and 1.
    """

    def __init__(self, energies: np.ndarray, replicas: np.ndarray, coefficients: np.ndarray, sectors: Tensor) -> None:
        self.energies, self.replicas, self.coefficients, self.sectors = energies, replicas, coefficients, sectors

    def energy(self, n: int) -> Estimate:
        """E_n."""
        return _jackknife(self.energies[n], self.replicas[:, n])

    def gap(self, n: int) -> Estimate:
        """E_n - E_0, whose errors partly cancel."""
        return _jackknife(self.energies[n] - self.energies[0], self.replicas[:, n] - self.replicas[:, 0])

    def n_resolved(self, scale: float) -> int:
        """How many levels the walkers know, counted from E_0 up to the first that is noise.

        Args:
            scale: an energy below which gaps are small; errors are compared to it, or to the gap where that is larger.
        """
        for n in range(len(self.energies)):
            errors = self.energy(n).error, self.gap(n).error
            allowed = RESOLVED * max(scale, abs(self.gap(n).mean))
            if not all(error < allowed for error in errors):  # nan is not resolved either
                return n
        return len(self.energies)


class ExcitationSampler:
    """Metropolis-adjusted walkers over psi^2 G that add up H and S.

    Args:
        process: a trained process; its drift is a `Wavefunction`.
        system: potential, masses and scales.
        walkers: (batch, particle, dim) from |psi|^2.
        levels: states wanted, the ground state among them.
        basis: functions; by default `default_basis`.
        n_moves: steps in a block.
        n_equilibration: blocks to discard first; the step is tuned during these only.

    Raises:
        InputError: psi is not known, fewer than 2 levels or fewer than 64 walkers are asked for, or the basis is
            smaller than the levels.

    Example (harmonic oscillator):
        >>> system = fk.System(fk.load_potential("harmonic"))
        >>> process = Process(fk.NeuralWavefunction(system), system)
        >>> sampler = ExcitationSampler(process, system, system.initial_walkers(256, g), levels=4, n_equilibration=0)
        >>> for _ in range(10):
        ...     sampler.advance(g)
        >>> [round(each.gap.mean, 4) for each in sampler.excitations()]
        [1.0, 2.0, 3.0]
    """

    def __init__(
        self,
        process: Process,
        system: System,
        walkers: Positions,
        *,
        levels: int,
        basis: Basis | None = None,
        n_moves: int = 4,
        n_equilibration: int = 16,
    ) -> None:
        psi = wavefunction_of(process.drift, "a spectrum")
        if levels < 2:
            raise InputError(f"levels = {levels} is not allowed: 2 or more, the ground state and its excitations")
        self.workers = workers = process.workers
        if len(walkers) < 2 * N_GROUPS:
            each = "" if workers.size == 1 else " in each worker"
            raise InputError(f"{len(walkers)} walkers{each} are too few for a spectrum: use at least {2 * N_GROUPS}")
        self.process, self.system, self.levels, self.n_moves = process, system, levels, n_moves
        everyone = workers.gather(walkers)
        self.basis = default_basis(process, system, everyone) if basis is None else basis
        if len(self.basis) < levels:
            raise InputError(f"{levels} levels need at least {levels} functions, and the basis has {len(self.basis)}")
        self.threshold = continuum(system)
        squares = self.basis(everyone).square().mean(0)
        self.penalty = EXCITED_SHARE / len(squares) / squares.clamp_min(1e-12)
        self.guide = _Guide(psi, self.basis, self.penalty, process.sigma.square())
        self.guided = Process(self.guide, process.reference, self.workers)
        self.walkers, self.n_blocks = walkers, -n_equilibration
        self.dt = walkers.new_tensor(system.time_scale / 4)
        size = (N_GROUPS, len(self.basis), len(self.basis))
        self.hamiltonian = torch.zeros(size, dtype=torch.float64, device=walkers.device)
        self.overlap = torch.zeros_like(self.hamiltonian)
        self.solved: Levels | None = None

    @property
    def walker_steps(self) -> int:
        """In a block, of all workers."""
        return self.n_moves * len(self.walkers) * self.workers.size

    def advance(self, generator: torch.Generator) -> None:
        """Run one block and, once equilibrated, add up H and S."""
        self.solved = None
        longest = LONGEST_STEP * self.system.time_scale if self.n_blocks < 0 else None
        self.guide.penalty = self.penalty
        state = metropolis.start(self.guided, self.walkers, self.dt)
        state = metropolis.move(self.guided, state, self.n_moves, generator, longest=longest)
        self.walkers, self.dt = state.positions, state.dt
        if self.n_blocks >= 0:
            r = self.walkers
            with torch.no_grad():
                E = local_energy(self.process, r).double()
                v = self.process.velocity(r)
            f, Lf = self.basis.with_generator(r, v, self.process.sigma.square())
            weighted = _in_groups(f / self.guide.ratio(f)[:, None]).transpose(1, 2)
            self.hamiltonian += self.workers.sum(weighted @ _in_groups(E[:, None] * f - Lf))
            self.overlap += self.workers.sum(weighted @ _in_groups(f))
        self.n_blocks += 1

    def solve(self) -> Levels:
        """The lowest levels of everything sampled, of which there must be at least one block."""
        if self.solved is not None:
            return self.solved
        H, S = self.hamiltonian.cpu().numpy(), self.overlap.cpu().numpy()
        sectors = self.basis.sectors.cpu().numpy()
        apart = (sectors[:, None] == sectors[None]).all(-1)
        energies, c = lowest(H.sum(0), S.sum(0), apart, self.levels)
        replicas = np.full((N_GROUPS, len(energies)), np.nan)
        for k in range(N_GROUPS):
            replica, _ = lowest(H.sum(0) - H[k], S.sum(0) - S[k], apart, len(energies))
            replicas[k, : len(replica)] = replica
        weight = np.einsum("in,ij,jn->in", c, np.where(apart, S.sum(0), 0), c)
        found = self.basis.sectors.new_tensor(weight / weight.sum(0)).T @ self.basis.sectors
        self.solved = Levels(energies, replicas, c, found)
        return self.solved

    def excitations(self) -> list[Excitation]:
        """The bound excited states that the walkers resolve, lowest first."""
        return self._excitations(self.solve())

    def _excitations(self, levels: Levels) -> list[Excitation]:
        return [
            Excitation(self._rounded(levels.gap(n)), self._rounded(levels.energy(n)), self._symmetry(levels.sectors[n]))
            for n in range(1, self._n_resolved(levels))
            if levels.energies[n] < self.threshold
        ]

    def _rounded(self, found: Estimate) -> Estimate:
        """With the rounding of the walkers' numbers, which all groups share, in its error."""
        return Estimate(found.mean, math.hypot(found.error, rounding_error(self.walkers) * abs(found.mean)))

    def _n_resolved(self, levels: Levels) -> int:
        return levels.n_resolved(1 / self.system.time_scale)

    def ground_state(self) -> Estimate:
        """E_0 of the same problem: at or below the variational energy of psi."""
        return self.solve().energy(0)

    def wavefunction_ratios(self, r: Positions) -> Tensor:
        """psi_n / psi at r, (batch, level)."""
        c = self.basis.sectors.new_tensor(self.solve().coefficients)
        with torch.no_grad():
            return self.basis(r) @ c

    def results(self) -> dict[str, Any]:
        """{"excitations": [...]} as in result.json and, where there are fewer than asked for, a remark why."""
        levels = self.solve()
        found, n_resolved = self._excitations(levels), self._n_resolved(levels)
        results: dict[str, Any] = {"excitations": [each.plain() for each in found]}
        if len(found) + 1 < n_resolved:
            results["excitations_remark"] = (
                f"{len(found) + 1} of the {self.levels} levels asked for are bound: V far away is "
                f"{round(self.threshold, 12):.6g}, and what was found above is not a state"
            )
        elif n_resolved < self.levels:
            results["excitations_remark"] = (
                f"the walkers resolve {n_resolved} of the {self.levels} levels asked for: the error of the next is as "
                "large as a gap; train longer, or use more walkers"
            )
        return results

    def _symmetry(self, signs: Tensor) -> str:
        if not self.basis.mirrors:
            return ""
        if bool((signs.abs() < PURE).any()):
            return "mixed"
        return sector_name(self.basis.mirrors, signs)

    def state_dict(self) -> dict[str, Any]:
        names = ("walkers", "dt", "n_blocks", "hamiltonian", "overlap", "penalty")
        return {**saved(self, names, AXES, self.workers), "basis": self.basis.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.solved = None
        self.basis.load_state_dict(state["basis"])
        restore(self, {name: value for name, value in state.items() if name != "basis"}, AXES, self.workers)


FAR_WIDTHS = (50.0, 100.0)  # distances at which V of a single particle is what it is at infinity


def continuum(system: System) -> float:
    """The energy from which on a single particle is not bound: V far out, the lowest over directions; otherwise inf.

    For several particles it is not known here: it would be the energy of what is left when one has gone.

    Example:
        >>> from fkdrift.hamiltonian.loading import load_potential
        >>> continuum(System(load_potential("morse"))), continuum(System(load_potential("harmonic")))
        (10.0, inf)
    """
    potential = system.potential
    if potential.n_particles > 1 or potential.box is not None or potential.domain is not None:
        return float("inf")
    axes = torch.eye(potential.n_dims, dtype=torch.float64)
    away = torch.cat([axes, -axes])[:, None] * system.width.double().cpu().max()
    V = torch.stack([potential(system.centre.double().cpu() + far * away) for far in FAR_WIDTHS])
    depth = V.max() - potential(system.centre.double().cpu()[None])
    ends = V[1][(V[1] - V[0]).abs() < FLAT * depth.abs()]
    return float(ends.min()) if len(ends) else float("inf")


FLAT = 0.02  # relative change of V between those distances: Coulomb tails fall by 1%, confining ones grow


def default_basis(process: Process, system: System, walkers: Positions) -> Basis:
    """Polynomials (and bumps, for one or two coordinates) in the coordinates that suit a system."""
    psi = wavefunction_of(process.drift, "a spectrum")
    with torch.no_grad():
        slope = process.velocity(walkers) / process.sigma.square()
        mirrors = mirrors_of(system, walkers, lambda r: psi.log_psi(r).double())
    coordinates = coordinates_of(system, decay_rate(system, walkers, slope))
    return Basis(coordinates, walkers, mirrors, places=places_of(system, walkers))


class _Guide:
    """The wavefunction psi G^(1/2) that positions are drawn from; a `Wavefunction` with psi's trial function."""

    def __init__(self, psi: Wavefunction, basis: Basis, penalty: Tensor, variance: Tensor) -> None:
        self.psi, self.basis, self.penalty, self.variance = psi, basis, penalty, variance
        self.trial_function: TrialFunction | None = psi.trial_function
        self.numbers_per_walker = psi.numbers_per_walker

    def ratio(self, f: Tensor) -> PerWalker:
        """G from the values of the basis (batch, function)."""
        return 1 + f.square() @ self.penalty

    def __call__(self, r: Positions) -> Positions:
        return self.variance * self.value_and_gradient(r)[1]

    def log_jastrow(self, r: Positions) -> PerWalker:
        return self.psi.log_jastrow(r) + self._half_log(r)

    def log_psi(self, r: Positions) -> PerWalker:
        return self.psi.log_psi(r) + self._half_log(r)

    def value_and_gradient(self, r: Positions) -> tuple[PerWalker, Positions]:
        f, gradient = self.psi.value_and_gradient(r)
        half_log, slope = value_and_gradient(self._half_log, r)
        return f + half_log, gradient + slope

    def derivatives(self, r: Positions) -> Derivatives:
        f, gradient, laplacian = self.psi.derivatives(r)
        half_log, slope, second = curvatures(self._half_log, r)
        return Derivatives(f + half_log, gradient + slope, laplacian + self.variance[:, 0] * second.sum(-1))

    def _half_log(self, r: Tensor) -> Tensor:
        return (self.ratio(self.basis(r)).log() / 2).to(r)

    def sample(self, n: int, generator: torch.Generator) -> None:
        """Nothing: only a Markov chain can draw from psi^2 G."""


def lowest(H: np.ndarray, S: np.ndarray, apart: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The n lowest eigenvalues (level,) of H c = E S c, H not symmetric, and c (function, level) normalised by S.

    Args:
        H, S: (function, function).
        apart: (function, function), whether two functions are in one block; blocks are solved by themselves.
        n: how many; fewer are returned where fewer functions are independent.
    """
    energies: list[float] = []
    columns: list[np.ndarray] = []
    for block in np.unique(apart, axis=0):
        k = np.flatnonzero(block)
        norm = np.sqrt(np.diag(S)[k])
        k, norm = k[norm > 0], norm[norm > 0]
        if not len(k):
            continue
        scale = 1 / np.outer(norm, norm)
        weight, vectors = np.linalg.eigh(S[np.ix_(k, k)] * scale)
        kept = weight > DROPPED * weight[-1]
        whitening = vectors[:, kept] / np.sqrt(weight[kept])
        E, c = np.linalg.eig(whitening.T @ (H[np.ix_(k, k)] * scale) @ whitening)
        for m in np.argsort(E.real)[:n]:
            column = np.zeros(len(S))
            column[k] = (whitening @ c[:, m].real) / norm
            energies.append(E[m].real)
            columns.append(column / np.sqrt(column @ S @ column))
    order = np.argsort(energies)[:n]
    return np.asarray(energies)[order], np.stack([columns[m] for m in order], 1)


def _in_groups(f: Tensor) -> Tensor:
    """(batch, function) as (group, walker, function); what is left over of the batch is left out."""
    n = len(f) // N_GROUPS
    return f[: n * N_GROUPS].reshape(N_GROUPS, n, -1)


def _jackknife(value: float, replicas: np.ndarray) -> Estimate:
    """The value with the error of its replicas, each without one group."""
    n = len(replicas)
    return Estimate(float(value), float(np.sqrt((n - 1) / n * np.square(replicas - replicas.mean()).sum())))
