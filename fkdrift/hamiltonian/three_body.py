"""Correlations of three particles: what is left of the local energy where every pair has its two-body state.

With f(r_ij) for every pair and g the slope of log f, E_W has sum_i sigma_i^2 sum_{j<k} g_ij g_ik cos(theta_jik) left,
which is large where a particle is close to two others.  A term of the same form takes most of it away,

    f_3 = sum_i sum_ab M_ab ( G_i^a . G_i^b - sum_j phi_a phi_b ) / 2,     G_i^a = sum_{j != i} phi_a(r_ij) x_ij / r_ij

with x_ij = r_i - r_j and phi_a(d) = exp(-d^2 / s_a^2), to which pair functions sum_{i<j} c . phi are added.  M and c
make the variance of E_W least: Gauss and Newton's method, each step one linear least-squares problem at positions drawn
from |phi_ref|^2, in which a local energy far from the others has little weight.

Reference: K. E. Schmidt, M. A. Lee, M. H. Kalos and G. V. Chester, Phys. Rev. Lett. 47, 807 (1981), for the form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fkdrift.hamiltonian.potential import Potential
from fkdrift.hamiltonian.trial_function import Derivatives, Term, TrialFunction, random_walk, reference_energy
from fkdrift.numerics.geometry import distance, nearest_image, pair_vectors
from fkdrift.tensor_types import PerWalker, Positions

N_FUNCTIONS = 6  # phi_a
REACH = (0.8, 1.0)  # s of the first and the last of them, in units of the next distances
SHORT, LONG = 0.005, 0.8  # quantiles of the distances of pairs
N_FIT, N_FIT_LEAST, PAIRS_AT_FULL_COST = 3072, 192, 8  # positions of a fit, fewer for many pairs
N_MOVES, N_ROUNDS = 40, 4  # steps between fits, fits
RIDGE = 1e-4  # of the least-squares problem
USUAL = 10.0  # mean deviations of E_W from which on it counts for less
CHUNK = 2**20  # numbers in the largest tensor, which should fit a cache


class _Pairs(NamedTuple):
    """Of each particle and neighbour: the unit vector (dim, neighbour, particle, batch), the distance, and phi with
    its first two derivatives (function, neighbour, particle, batch)."""

    unit: Tensor
    d: Tensor
    phi: Tensor
    slope: Tensor
    bend: Tensor
    neighbours: Tensor

    def of_neighbours(self, x: Tensor) -> Tensor:
        """x (..., particle, batch) of each particle's neighbours, (..., neighbour, particle, batch)."""
        return x.index_select(-2, self.neighbours.flatten()).unflatten(-2, self.neighbours.shape)

    def sums(self) -> Tensor:
        """G, (function, dim, particle, batch)."""
        return torch.einsum("ajib,xjib->axib", self.phi, self.unit)

    def matrices(self, k: int, j: int) -> Tensor:
        """d G_i / d r_i, one element of it, (function, particle, batch)."""
        across = self.phi / self.d
        D = ((self.slope - across) * (self.unit[k] * self.unit[j])).sum(1)
        return D + across.sum(1) if j == k else D

    def vector_laplacian(self) -> Tensor:
        """lap (phi x / d) along x / d."""
        return self.bend + (len(self.unit) - 1) * (self.slope - self.phi / self.d) / self.d


@dataclass(frozen=True, eq=False)
class ThreeBody(Term):
    """f_3 and its pair functions.

    Args:
        scales: s_a, (function,).
        coupling: M, (function, function), symmetric.
        pair: c, (function,).
        box: period along each dimension, where distances are to the nearest image and phi_a has a factor
            (1 - (2 d / L)^2)^3, which ends it smoothly at half of the shortest.
    """

    scales: Tensor
    coupling: Tensor
    pair: Tensor
    box: tuple[float, ...] | None = None

    def __call__(self, r: Positions) -> Derivatives:
        P, dim = self._pairs(r), r.shape[2]
        value, gradient, along, first, m_phi = self._first(P, r)
        M, c = self.coupling.to(r), self.pair.to(r)[:, None, None, None]
        across, m_slope = P.phi / P.d, _coupled(M, P.slope)
        second = (P.bend * (c - 2 * m_phi) - 2 * P.slope * m_slope).sum(0)
        each = P.vector_laplacian() * along + P.slope * m_slope + (dim - 1) * across * m_phi / P.d
        laplacian = (each.sum(0) + second + (dim - 1) * first / P.d).sum(0)
        for k in range(dim):
            for j in range(k + 1):
                D = P.matrices(k, j)
                laplacian = laplacian + (1 if j == k else 2) * (D * _coupled(M, D)).sum(0)
        return Derivatives(value, gradient, laplacian.T)

    def value_and_gradient(self, r: Positions) -> tuple[PerWalker, Positions]:
        return self._first(self._pairs(r), r)[:2]

    def _first(self, P: _Pairs, r: Positions) -> tuple[PerWalker, Positions, Tensor, Tensor, Tensor]:
        """f_3, its gradient, and what the Laplacian needs as well.

        Returns:
            f_3, its gradient, M (G_i - G_j) along each pair, the slope of all that depends on its distance, M phi.
        """
        M, c = self.coupling.to(r), self.pair.to(r)[:, None, None, None]
        across, G = P.phi / P.d, P.sums()
        H, m_phi = _coupled(M, G), _coupled(M, P.phi)
        value = ((G * H).sum((0, 1, 2)) + (P.phi * (c - m_phi)).sum((0, 1, 2))) / 2
        first = (P.slope * (c - 2 * m_phi)).sum(0)
        H = H[:, :, None] - P.of_neighbours(H)
        along = (P.unit * H).sum(1)
        radial = first + ((P.slope - across) * along).sum(0)
        gradient = ((across[:, None] * H).sum(0) + radial * P.unit).sum(1)
        return value, gradient.permute(2, 1, 0), along, first, m_phi

    def value(self, r: Positions) -> PerWalker:
        unit, d, _ = self._neighbours(r)
        M, c = self.coupling.to(r), self.pair.to(r)
        phi = self._bumps(d)
        if self.box is not None:
            phi = phi * self._end(d).pow(3)
        G, phi = torch.einsum("ajib,xjib->axib", phi, unit), phi.flatten(1)
        own = (phi * (c[:, None] - M @ phi)).sum(0).view_as(d).sum((0, 1))
        return ((G * (M @ G.flatten(1)).view_as(G)).sum((0, 1, 2)) + own) / 2

    def responses(self, r: Positions, gradient: Positions) -> Tensor:
        """sum_i (lap_i + 2 grad_i W . grad_i) of each function that M_ab = M_ba, a <= b, and c_a stand before.

        Args:
            r: positions (batch, particle, dim).
            gradient: grad W there.
        """
        P, dim = self._pairs(r), r.shape[2]
        across, W = P.phi / P.d, gradient.permute(2, 1, 0)
        push = W[:, None] - P.of_neighbours(W)
        along = (P.unit * push).sum(0)
        radial = (P.slope - across) * along + P.vector_laplacian()
        G, own = P.sums(), P.bend + P.slope * (along + (dim - 1) / P.d)
        S = 2 * torch.einsum("ajib,xjib->axib", across, push) + 2 * torch.einsum("ajib,xjib->axib", radial, P.unit)

        def products(x: Tensor, y: Tensor) -> Tensor:
            return torch.einsum("apb,cpb->bac", x.flatten(1, -2), y.flatten(1, -2))

        half = products(G, S) - 2 * products(P.phi, own) - products(P.slope, P.slope)
        half = half + (dim - 1) * products(across, across)
        for k in range(dim):
            for j in range(k + 1):
                D = P.matrices(k, j)
                half = half + (1 if j == k else 2) * products(D, D)
        both = half + half.transpose(1, 2)
        a, b = torch.triu_indices(len(self.scales), len(self.scales), device=r.device)
        share = torch.where(a == b, 0.5, 1.0).to(r)
        return torch.cat([share * both[:, a, b], own.sum((1, 2)).T], 1)

    def with_coefficients(self, coefficients: Tensor) -> ThreeBody:
        """The same with other coefficients, in the order of `responses`."""
        k = len(self.scales)
        a, b = torch.triu_indices(k, k)
        M = torch.zeros(k, k, dtype=torch.float64)
        M[a, b] = M[b, a] = coefficients[: len(a)]
        return ThreeBody(self.scales, M, coefficients[len(a) :], self.box)

    def _pairs(self, r: Positions) -> _Pairs:
        unit, d, neighbours = self._neighbours(r)
        return _Pairs(unit, d, *self._radial(d), neighbours)

    def _neighbours(self, r: Positions) -> tuple[Tensor, Tensor, Tensor]:
        """The unit vectors and distances of `_Pairs`, and who the neighbours are."""
        n = r.shape[1]
        neighbours = torch.tensor([[j for j in range(n) if j != i] for i in range(n)], device=r.device).T
        x = r.permute(2, 1, 0)
        x = x[:, None] - x.index_select(1, neighbours.flatten()).unflatten(1, neighbours.shape)
        if self.box is not None:
            x = nearest_image(x.movedim(0, -1), self.box).movedim(-1, 0)
        d = distance(x, 0)
        return x / d, d, neighbours

    def _bumps(self, d: Tensor) -> Tensor:
        """exp(-d^2 / s_a^2), (function, ...)."""
        return (-(d / self.scales.to(d).view(-1, *[1] * d.ndim)).square()).exp()

    def _end(self, d: Tensor) -> Tensor:
        """1 - (2 d / L)^2, and 0 from half of the box on."""
        assert self.box is not None
        return (1 - (d / (min(self.box) / 2)).square()).clamp_min(0)

    def _radial(self, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """phi with its first two derivatives, (function, ...)."""
        s, phi = self.scales.to(d).view(-1, *[1] * d.ndim), self._bumps(d)
        slope, bend = -2 * d / s.square() * phi, (4 * (d / s).square() - 2) / s.square() * phi
        if self.box is None:
            return phi, slope, bend
        half, y = min(self.box) / 2, self._end(d)
        cut, first = y.pow(3), -6 * d / half**2 * y.square()
        second = 24 * (d / half**2).square() * y - 6 / half**2 * y.square()
        return phi * cut, slope * cut + phi * first, bend * cut + 2 * slope * first + phi * second


def with_three_body(
    potential: Potential, W: TrialFunction, r: Positions, generator: torch.Generator
) -> tuple[TrialFunction, Tensor]:
    """W with the f_3 that makes the variance of E_W least, or W alone where none makes it less, and positions of it.

    Args:
        potential: of identical particles.
        W: a product of pair functions.
        r: positions (walker, particle, dim) drawn from it.
        generator: source of more.
    """
    n, dim = r.shape[1:]
    count = max(N_FIT_LEAST, N_FIT * PAIRS_AT_FULL_COST // max(PAIRS_AT_FULL_COST, n * (n - 1) // 2))
    r = r[torch.randint(len(r), (count,), generator=generator)]
    short, long = torch.quantile(_distances(r, potential), torch.tensor([SHORT, LONG], dtype=torch.float64)).log()
    scales = torch.linspace(float(short), float(long), N_FUNCTIONS, dtype=torch.float64).exp()
    scales = scales * torch.linspace(*REACH, N_FUNCTIONS, dtype=torch.float64)
    zero = torch.zeros(N_FUNCTIONS, dtype=torch.float64)
    term = ThreeBody(scales, zero.outer(zero), zero, potential.box)
    variance = 1 / torch.tensor(potential.mass, dtype=torch.float64)
    some = max(1, CHUNK // (N_FUNCTIONS * dim * n * n))
    coefficients = best = torch.zeros(N_FUNCTIONS * (N_FUNCTIONS + 3) // 2, dtype=torch.float64)
    least, start, found = torch.inf, r, W
    for k in range(N_ROUNDS + 1):
        now = TrialFunction((*W.terms, term.with_coefficients(coefficients))) if k else W
        r = random_walk(now, r, N_MOVES, generator)
        D = [now.derivatives(part) for part in r.split(some)]
        E = torch.cat([reference_energy(potential(x), d, variance) for x, d in zip(r.split(some), D, strict=True)])
        spread = float((E - E.median()).abs().mean())
        if not spread < least:  # too long a step
            coefficients, r = (coefficients + best) / 2, start
            continue
        best, least, start, found = coefficients, spread, r, now
        X = torch.cat([term.responses(x, d.gradient) for x, d in zip(r.split(some), D, strict=True)])
        coefficients = best + _least_squares(-variance[0] / 2 * X, E, USUAL * spread)
    return found, start


def _coupled(M: Tensor, x: Tensor) -> Tensor:
    """sum_b M_ab x_b of x (function, ...)."""
    return (M @ x.flatten(1)).view_as(x)


def _least_squares(X: Tensor, E: Tensor, usual: float) -> Tensor:
    """Coefficients c that make the variance of E + X c least, weights 1 / (1 + (E - <E>)^2 / usual^2)."""
    weight = 1 / (1 + ((E - E.median()) / usual).square())
    weight = weight / weight.sum()
    E, X = E - weight @ E, X - weight @ X
    scale = (weight @ X.square()).sqrt() + 1e-300
    X = X / scale
    normal = (weight[:, None] * X).T @ X + RIDGE * torch.eye(X.shape[1], dtype=X.dtype)
    return -torch.linalg.solve(normal, X.T @ (weight * E)) / scale


def _distances(r: Positions, potential: Potential) -> Tensor:
    """Some of the distances of pairs, (number,)."""
    return distance(nearest_image(pair_vectors(r), potential.box)).flatten()[: 2**20]
