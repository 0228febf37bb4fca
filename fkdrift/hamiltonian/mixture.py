"""A mixture of Gaussians as trial function, fitted to walkers that have diffused and branched.

    phi_ref(x) = sum_a w_a N(x; c_a, C_a),        W = log phi_ref

Plain diffusion Monte Carlo, dr = sigma dB with weights exp(-int V dt), makes a cloud of walkers with the density phi_0,
from nothing but values of V: it finds the wells and ridges that matter, with the share of each.  The mixture is fitted
to that cloud by expectation maximisation, with the number of components of the lowest Bayesian information criterion.
Distinguishable particles have one mixture in all of their coordinates; identical ones share an orbital,
phi_ref = prod_i phi(r_i).

References: J. B. Anderson, J. Chem. Phys. 63, 1499 (1975); A. P. Dempster, N. M. Laird and D. B. Rubin, J. R. Stat.
Soc. B 39, 1 (1977).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fkdrift.hamiltonian.trial_function import Derivatives, Term
from fkdrift.numerics.resampling import systematic
from fkdrift.tensor_types import Positions

Array = NDArray[np.float64]

N_CLOUD = 4096  # walkers
N_ROUNDS, ROUND = 20, 16  # of branching, and steps between a new choice of the step
STEP, LONGEST = 0.05, 0.1  # dt in units of 1 / std(V), and of the time scale that the cloud starts with
SPREADS = (0.3, 1.0, 3.0, 10.0, 30.0)  # of random positions, in widths of the start
N_TRIED, N_STARTS, N_DESCENT = 8192, 256, 60  # of each spread; the lowest of them; steps from there downhill
COMPONENTS = (1, 2, 3, 4, 6, 8)
N_ITERATIONS = 60  # of expectation maximisation
SMALLEST = 0.01  # weight of a component
LARGEST = 24  # coordinates of one mixture


@dataclass(frozen=True)
class GaussianMixture:
    """sum_a w_a N(x; c_a, C_a).

    Args:
        weights: (component,), of sum 1.
        centres: (component, coordinate).
        covariances: (component, coordinate, coordinate).
    """

    weights: Array
    centres: Array
    covariances: Array

    def square(self) -> tuple[Array, Array, Array]:
        """|phi_ref|^2 as a mixture: weights (pair,) of sum 1, centres and covariances of all pairs of components."""
        precisions = np.linalg.inv(self.covariances)
        S = np.linalg.inv(precisions[:, None] + precisions)
        pulled = np.einsum("aij,aj->ai", precisions, self.centres)
        centres = np.einsum("abij,abj->abi", S, pulled[:, None] + pulled)
        log_weights = _log_normal(self.centres[:, None] - self.centres, self.covariances[:, None] + self.covariances)
        log_weights = log_weights + np.log(self.weights[:, None] * self.weights)
        weights = np.exp(log_weights - log_weights.max())
        size = self.centres.shape[1]
        return (weights / weights.sum()).ravel(), centres.reshape(-1, size), S.reshape(-1, size, size)

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """n positions (n, coordinate) from |phi_ref|^2."""
        weights, centres, covariances = self.square()
        k = rng.choice(len(weights), n, p=weights)
        root = np.linalg.cholesky(covariances)
        return centres[k] + np.einsum("nij,nj->ni", root[k], rng.normal(size=(n, self.centres.shape[1])))

    def moments(self) -> tuple[Array, Array]:
        """Mean and standard deviation (coordinate,) of |phi_ref|^2."""
        weights, centres, covariances = self.square()
        mean = weights @ centres
        second = weights @ (np.diagonal(covariances, axis1=1, axis2=2) + centres**2)
        return mean, np.sqrt(second - mean**2)


@dataclass(frozen=True, eq=False)
class LogMixture(Term):
    """sum over parts of log sum_a w_a N(x; c_a, C_a), x being the coordinates of the particles of a part.

    Args:
        log_weights: (component,), with the normalisation of each Gaussian.
        centres: (component, coordinate).
        precisions: (component, coordinate, coordinate).
        parts: tuples of particles, all of the same size.
    """

    log_weights: Tensor
    centres: Tensor
    precisions: Tensor
    parts: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, mixture: GaussianMixture, parts: tuple[tuple[int, ...], ...]) -> LogMixture:
        """The logarithm of a mixture, of every part."""
        log_weights = np.log(mixture.weights) + _log_normal(np.zeros_like(mixture.centres), mixture.covariances)
        tensors = map(torch.from_numpy, (log_weights, mixture.centres, np.linalg.inv(mixture.covariances)))
        first, second, third = tensors
        return cls(first, second, third, parts)

    def __call__(self, r: Positions) -> Derivatives:
        log_weights, centres, precisions = (each.to(r) for each in (self.log_weights, self.centres, self.precisions))
        index = torch.tensor(self.parts, device=r.device)
        x = r[:, index].flatten(2)  # (batch, part, coordinate)
        y = x[..., None, :] - centres
        u = torch.einsum("bpki,kij->bpkj", y, precisions)
        log_phi = log_weights - (y * u).sum(-1) / 2
        share = log_phi.softmax(-1)[..., None]
        slope = -(share * u).sum(-2)
        second = (share * (u.square() - precisions.diagonal(dim1=-2, dim2=-1))).sum(-2) - slope.square()
        shape = (len(r), index.numel(), r.shape[-1])
        gradient = torch.zeros_like(r).index_copy(1, index.flatten(), slope.reshape(shape))
        laplacian = torch.zeros_like(r[..., 0]).index_copy(1, index.flatten(), second.reshape(shape).sum(-1))
        return Derivatives(log_phi.logsumexp(-1).sum(-1), gradient, laplacian)


def fit_mixtures(
    V: Callable[[Array], Array],
    start: Array,
    sigma: Array,
    time_scale: float,
    groups: Sequence[Sequence[int]],
    rng: np.random.Generator,
) -> list[tuple[GaussianMixture, tuple[tuple[int, ...], ...]]]:
    """Mixtures with the particles that each is for; none where the cloud is lost or there are too many coordinates.

    Args:
        V: positions (batch, particle, dim) to (batch,).
        start: positions (n, particle, dim) to begin with.
        sigma: (particle,), 1 / sqrt(mass).
        time_scale: of the density that `start` is from.
        groups: identical particles.
        rng: source of randomness.
    """
    n, dim = start.shape[1:]
    alike = any(len(group) > 1 for group in groups)
    parts = [tuple((i,) for i in group) for group in groups] if alike else [(tuple(range(n)),)]
    if max(len(part[0]) * dim for part in parts) > LARGEST:
        return []
    r = _cloud(V, start, sigma, time_scale, rng)
    if r is None:
        return []
    return [(_fit(r[:, part].reshape(-1, len(part[0]) * dim), rng), part) for part in parts]


def _cloud(
    V: Callable[[Array], Array], start: Array, sigma: Array, time_scale: float, rng: np.random.Generator
) -> Array | None:
    """Positions (walker, particle, dim) with the density phi_0, by diffusion and branching."""

    def capped(r: Array) -> Array:
        return np.nan_to_num(V(r), nan=np.inf, posinf=np.inf)

    low = _low_points(capped, start, rng)
    r = np.concatenate(
        [start[rng.integers(len(start), size=N_CLOUD // 2)], np.resize(low, (N_CLOUD // 2, *low.shape[1:]))]
    )
    values = capped(r)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    for _ in range(N_ROUNDS):
        finite = values[np.isfinite(values)]
        if len(finite) < N_CLOUD // 10:
            return None
        left, right = np.quantile(finite, [0.1, 0.9])
        dt = min(STEP * 2.56 / max(right - left, 1e-300), LONGEST * time_scale)
        for _ in range(ROUND):
            r = r + sigma[:, None] * np.sqrt(dt) * rng.normal(size=r.shape)
            before, values = values, capped(r)
            cost = dt * (before + values) / 2
            kept = systematic(torch.from_numpy(-cost)[None], generator)[0].numpy()
            r, values = r[kept], values[kept]
    return r


def _low_points(V: Callable[[Array], Array], start: Array, rng: np.random.Generator) -> Array:
    """Where random descents from the lowest of many positions of every size end, (n, particle, dim)."""
    centre, spread = start.mean(0), start.std(0)
    chosen = []
    for scale in SPREADS:
        tried = centre + scale * spread * rng.normal(size=(N_TRIED, *start.shape[1:]))
        chosen.append(tried[np.argsort(V(tried))[:N_STARTS]])
    r = np.concatenate(chosen)
    values = V(r)
    for k in range(N_DESCENT):
        step = 0.5 * spread * 0.1 ** (k / N_DESCENT)
        new = r + step * rng.normal(size=r.shape) / np.sqrt(r[0].size)
        V_new = V(new)
        better = V_new < values
        r, values = np.where(better[:, None, None], new, r), np.where(better, V_new, values)
    lowest: Array = r[np.argsort(values)[:N_STARTS]]
    return lowest


def _fit(x: Array, rng: np.random.Generator) -> GaussianMixture:
    """The mixture of the lowest Bayesian information criterion for points x (n, coordinate)."""
    size = x.shape[1]
    best, lowest = None, np.inf
    for n in COMPONENTS:
        found, log_likelihood = _maximised(x, n, rng)
        n_parameters = len(found.weights) * (1 + size + size * (size + 1) / 2)
        criterion = n_parameters * np.log(len(x)) - 2 * log_likelihood
        if criterion < lowest:
            best, lowest = found, criterion
    assert best is not None
    return best


def _maximised(x: Array, n: int, rng: np.random.Generator) -> tuple[GaussianMixture, float]:
    """Expectation maximisation from n points that are far apart; and the log likelihood."""
    size = x.shape[1]
    scatter = np.cov(x.T).reshape(size, size)
    whitened = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(scatter)).T
    chosen = [int(rng.integers(len(x)))]
    apart = np.full(len(x), np.inf)
    for _ in range(n - 1):
        apart = np.minimum(apart, np.square(whitened - whitened[chosen[-1]]).sum(1))
        chosen.append(int(rng.choice(len(x), p=apart / apart.sum())))
    nearest = np.argmin(np.square(whitened[:, None] - whitened[chosen]).sum(-1), 1)
    share = np.eye(n)[nearest]
    for _ in range(N_ITERATIONS):
        share = share[:, share.mean(0) > SMALLEST] + 1e-12
        share /= share.sum(1, keepdims=True)
        total = share.sum(0)
        centres = share.T @ x / total[:, None]
        y = x[:, None] - centres
        covariances = np.einsum("na,nai,naj->aij", share, y, y) / total[:, None, None] + 1e-6 * scatter
        log_density = np.log(total / len(x)) + _log_normal(y, covariances)
        largest = log_density.max(1, keepdims=True)
        density = np.exp(log_density - largest)
        log_likelihood = float((np.log(density.sum(1)) + largest[:, 0]).sum())
        share = density / density.sum(1, keepdims=True)
    return GaussianMixture(total / len(x), centres, covariances), log_likelihood


def _log_normal(y: Array, covariances: Array) -> Array:
    """log N(y; 0, C), the last axis of y being the coordinates."""
    _, log_det = np.linalg.slogdet(covariances)
    square = np.einsum("...i,...ij,...j->...", y, np.linalg.inv(covariances), y, optimize=True)
    return -(square + log_det + y.shape[-1] * np.log(2 * np.pi)) / 2
