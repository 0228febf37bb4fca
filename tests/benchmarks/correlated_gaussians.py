"""Upper bounds to the energies of a few trapped bosons that repel by Gaussians, tight to some 1e-6.

    python tests/benchmarks/correlated_gaussians.py --particles 4 --g 15 --functions 450

The wavefunction of gaussian_bosons in two dimensions is a sum of exp(-r.A r / 2) over all permutations, A a positive
matrix between particles that leaves the centre of mass in its ground state, chosen one after another among random ones
by the energy that they gain.  All matrix elements are closed forms, so nothing is sampled and the energy is a bound.

Reference: Y. Suzuki and K. Varga, Stochastic Variational Approach to Quantum-Mechanical Few-Body Problems (1998).
"""

from __future__ import annotations

import argparse
import itertools
import time

import numpy as np
from scipy.linalg import eigh
from scipy.optimize import brentq

RANGE = 0.5  # s of the repulsion g / (pi s^2) exp(-r^2 / s^2)
TRIALS = 24  # matrices tried for each function that is added, half of them near the best so far
DEPENDENT = 1e-7  # of the norm that must be left of a function when the others are projected out


class Basis:
    """Symmetrised Gaussians, and overlap S and Hamiltonian H between them.

    Args:
        n: particles.
        g: strength of the repulsion.
    """

    def __init__(self, n: int, g: float) -> None:
        self.n, self.g = n, g
        self.permutations = [np.array(p) for p in itertools.permutations(range(n))]
        pairs = list(itertools.combinations(range(n), 2))
        self.pairs = np.zeros((len(pairs), n))
        for k, (i, j) in enumerate(pairs):
            self.pairs[k, i], self.pairs[k, j] = 1, -1
        self.matrices = np.zeros((0, n, n))
        self.S = self.H = np.zeros((0, 0))
        self.levels, self.vectors = np.zeros(0), np.zeros((0, 0))

    def matrix(self, exponents: np.ndarray) -> np.ndarray:
        """A with r.A r = sum_ij a_ij (r_i - r_j)^2 + (sum_i r_i)^2 / n."""
        return np.einsum("k,ki,kj->ij", exponents, self.pairs, self.pairs) + 1 / self.n

    def elements(self, A: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """S and H (function,) of one matrix (n, n) with others (function, n, n), summed over permutations."""
        B = np.stack([others[:, p][:, :, p] for p in self.permutations], 1)
        inverse = np.linalg.inv(A + B)
        S = (2 * np.pi) ** self.n / np.linalg.det(A + B)
        kinetic = np.einsum("ij,kpji->kp", A, inverse @ B)
        trap = np.trace(inverse, axis1=-2, axis2=-1)
        spread = np.einsum("ki,xpij,kj->xpk", self.pairs, inverse, self.pairs)
        repulsion = self.g / (np.pi * RANGE**2) * (1 / (1 + 2 * spread / RANGE**2)).sum(-1)
        return S.sum(1), (S * (kinetic + trap + repulsion)).sum(1)

    def with_one_more(self, A: np.ndarray) -> float:
        """The lowest energy with this function added; inf where it depends on the others."""
        S, H = self.elements(A, self.matrices)
        norm, diagonal = (value[0] for value in self.elements(A, A[None]))
        a, h = self.vectors.T @ S, self.vectors.T @ H
        left = norm - a @ a
        if left < DEPENDENT * norm:
            return np.inf
        own = (diagonal - 2 * a @ h + (a * a) @ self.levels) / left
        square = (h - self.levels * a) ** 2 / left
        excess = lambda E: (square / (self.levels - E)).sum() - (own - E)  # noqa: E731
        low, high = self.levels[0] - 10, self.levels[0] - 1e-13
        return brentq(excess, low, high, xtol=1e-13) if excess(low) < 0 < excess(high) else np.inf

    def add(self, A: np.ndarray) -> None:
        """Add a function, and diagonalise again."""
        S, H = self.elements(A, self.matrices)
        norm, diagonal = self.elements(A, A[None])
        self.S = np.block([[self.S, S[:, None]], [S[None], norm[None]]])
        self.H = np.block([[self.H, H[:, None]], [H[None], diagonal[None]]])
        self.matrices = np.concatenate([self.matrices, A[None]])
        scale = self.S.diagonal() ** -0.5
        self.levels, vectors = eigh(self.H * scale * scale[:, None], self.S * scale * scale[:, None])
        self.vectors = vectors * scale[:, None]


def exponents(basis: Basis, rng: np.random.Generator) -> np.ndarray:
    """Random a_ij: those of the trap, and any number of pairs held together more closely, down to RANGE and below."""
    n_pairs = len(basis.pairs)
    found = np.full(n_pairs, np.exp(rng.normal(-1.0, 0.8)) / basis.n)
    chosen = rng.permutation(n_pairs)[: rng.integers(n_pairs + 1)]
    found[chosen] += np.exp(rng.uniform(np.log(0.1), np.log(12), len(chosen)))
    return found * np.exp(rng.normal(0, 0.3, n_pairs) * rng.integers(2))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--particles", type=int, default=4)
    parser.add_argument("--g", type=float, default=15.0)
    parser.add_argument("--functions", type=int, default=450)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    basis, rng, start = Basis(given.particles, given.g), np.random.default_rng(given.seed), time.perf_counter()
    basis.add(basis.matrix(np.full(len(basis.pairs), 0.2)))
    while len(basis.matrices) < given.functions:
        best, energy = exponents(basis, rng), np.inf
        for trial in range(TRIALS):
            near = trial >= TRIALS // 2 and np.isfinite(energy)
            tried = best * np.exp(rng.normal(0, 0.25, len(best))) if near else exponents(basis, rng)
            E = basis.with_one_more(basis.matrix(tried))
            best, energy = (tried, E) if energy > E else (best, energy)
        if not np.isfinite(energy):
            print(f"{len(basis.matrices)} functions, and {TRIALS} others depend on them")
            break
        basis.add(basis.matrix(best))
        if len(basis.matrices) % 25 == 0:
            seconds = time.perf_counter() - start
            print(f"{len(basis.matrices):5} functions  E = {basis.levels[0]:.8f}  {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
