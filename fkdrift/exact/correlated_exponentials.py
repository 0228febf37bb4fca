"""Three particles with pair potentials at angular momentum zero: correlated exponentials times the pair solutions.

    psi = prod_p f~_p(r_p) sum_k c_k Sym exp(-a_k r_12 - b_k r_13 - c_k r_23),      f~ = f (1 + (r/s)^2)^(1/4)

with f the solution of the pair equation (pair_solution.py), so that V has gone from the equations and what is left is
smooth.  With F_a the symmetrised exponentials, M_i the masses and theta_i the angle at particle i,

    H_ab = int Psi^2 { sum_p F_a,p F_b,p/(2 mu_p) + sum_i (F_a,ij F_b,ik + F_a,ik F_b,ij) cos(theta_i)/(2 M_i)
                       + E_J F_a F_b },
    E_J  = sum_p e~_p - sum_i g_ij g_ik cos(theta_i)/M_i,      g = f~'/f~,      e~ the local energy of f~

over perimetric coordinates x, y, z >= 0, r_12 = x + y, r_13 = x + z, r_23 = y + z, by Gauss-Legendre points of t,
x = w t/(1 - t).  Energies are upper bounds; the error is the change from a smaller set and fewer points.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from fkdrift.exact.limits import Limits
from fkdrift.exact.pair_solution import PairSolution
from fkdrift.exact.spectrum import Array

PAIRS = ((0, 1), (0, 2), (1, 2))
CHUNK = 4096  # points at once
UNSEEN = -60.0  # log of the largest function at a point that is left out
INDEPENDENT = 1e-12  # directions of the set with a smaller part of the overlap are left out


@dataclass(frozen=True)
class CorrelatedSet:
    """The pair factors and the list of exponents.

    Args:
        masses: of the three particles.
        factors: f of the pairs 12, 13, 23.
        alike: the permutations (of three) under which psi is symmetric.
        exponents: values that a, b and c take.
        nodes: points of each perimetric coordinate.
        width: w of the map to the half line.
    """

    masses: tuple[float, float, float]
    factors: tuple[PairSolution, PairSolution, PairSolution]
    alike: tuple[tuple[int, ...], ...]
    exponents: Array
    nodes: int
    width: float

    @property
    def size(self) -> int:
        """How many functions there are."""
        return self._members()[0].shape[1]

    def levels(self, n: int, limits: Limits) -> Array:
        """The lowest n eigenvalues of the set."""
        H, S = self._matrices(limits)
        scale = 1 / np.sqrt(np.diag(S))
        H, S = H * np.outer(scale, scale), S * np.outer(scale, scale)
        share, vectors = eigh(S)
        keep = share > INDEPENDENT * share[-1]
        T = vectors[:, keep] / np.sqrt(share[keep])
        return np.linalg.eigvalsh(T.T @ H @ T)[:n]

    def _matrices(self, limits: Limits) -> tuple[Array, Array]:
        points, weights = self._points()
        H: Array = np.zeros(())
        S: Array = np.zeros(())
        for start in range(0, len(points), CHUNK):
            limits.check()
            r, w = points[start : start + CHUNK], weights[start : start + CHUNK]
            M, E, log_psi = self._correlation(r)
            log_size = log_psi - self._reference + np.log(w * r.prod(1)) / 2
            seen = log_size - self.exponents.min() * r.sum(1) > UNSEEN
            if not seen.any():
                continue
            M, E = [[entry[seen] for entry in row] for row in M], E[seen]
            F, slopes = self._functions(r[seen], np.exp(log_size[seen]))
            S = S + F @ F.T
            H = H + (F * E) @ F.T
            for p in range(3):
                H = H + slopes[p] @ sum(M[p][q] * slopes[q] for q in range(3)).T  # type: ignore[union-attr]
        return (H + H.T) / 2, S

    @property
    def _reference(self) -> float:
        """log Psi at a typical triangle, taken out so that nothing overflows."""
        return float(self._correlation(np.full((1, 3), self.factors[0].distance))[2][0])

    def _points(self) -> tuple[Array, Array]:
        """Distances (point, 3) and weights; one of each set of points that identical particles make equivalent."""
        t, w = np.polynomial.legendre.leggauss(self.nodes)
        t, w = (t + 1) / 2, w / 2
        x, w = self.width * t / (1 - t), self.width * w / (1 - t) ** 2
        index = np.array(list(itertools.product(range(self.nodes), repeat=3)))
        images = np.stack([index[:, list(p)] for p in self.alike])
        codes = images @ (self.nodes ** np.arange(3))
        first = codes[0] == codes.max(0)
        orbit = np.array([len(set(c)) for c in codes[:, first].T])
        index = index[first]
        a, b, c = x[index].T
        return np.stack([a + b, a + c, b + c], 1), w[index].prod(1) * orbit

    def _correlation(self, r: Array) -> tuple[list[list[Array]], Array, Array]:
        """The metric of the gradients, E_J and log Psi at distances."""
        inverse = 1 / np.array(self.masses)
        cosine = [
            (r[:, a] ** 2 + r[:, b] ** 2 - r[:, c] ** 2) / (2 * r[:, a] * r[:, b])
            for a, b, c in ((0, 1, 2), (0, 2, 1), (1, 2, 0))
        ]
        g, E, log_psi = [], np.zeros(len(r)), np.zeros(len(r))
        for (i, j), factor, d in zip(PAIRS, self.factors, r.T, strict=True):
            log_f, slope = factor(d)
            s2 = (1.7 * factor.distance) ** 2
            m1 = d / (2 * (s2 + d**2))
            m2 = m1**2 + (s2 - d**2) / (2 * (s2 + d**2) ** 2)
            E += factor.e - (inverse[i] + inverse[j]) / 2 * (2 * slope * m1 + m2 + 2 * m1 / d)
            log_psi += log_f + np.log1p(d**2 / s2) / 4
            g.append(slope + m1)
        M = [[np.full(len(r), (inverse[i] + inverse[j]) / 2) for _ in PAIRS] for i, j in PAIRS]
        for particle, (a, b) in enumerate(((0, 1), (0, 2), (1, 2))):
            M[a][b] = M[b][a] = inverse[particle] * cosine[particle] / 2
            E -= inverse[particle] * cosine[particle] * g[a] * g[b]
        return M, E, log_psi

    def _functions(self, r: Array, size: Array) -> tuple[Array, list[Array]]:
        """F_a and its derivatives by the three distances, (function, point), times `size`."""
        table = [np.exp(-np.outer(self.exponents, d)) for d in r.T]
        table[0] = table[0] * size
        F: Array = np.zeros(())
        slopes: list[Array] = [np.zeros(())] * 3
        for which in self._members():
            product = table[0][which[0]] * table[1][which[1]] * table[2][which[2]]
            F = F + product
            slopes = [s - self.exponents[which[p]][:, None] * product for p, s in enumerate(slopes)]
        return F, slopes

    def _members(self) -> Sequence[Array]:
        """For each permutation the indices (3, function) of the exponents of the three distances."""
        every = np.array(list(itertools.product(range(len(self.exponents)), repeat=3)))
        pairs = [[PAIRS.index(tuple(sorted((p[i], p[j])))) for i, j in PAIRS] for p in self.alike]
        images = np.stack([every[:, p] for p in pairs])
        codes = images @ (len(self.exponents) ** np.arange(3))
        return [image.T for image in images[:, codes[0] == codes.max(0)]]
