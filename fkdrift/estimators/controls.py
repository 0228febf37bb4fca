"""What is known to vanish on average over |psi|^2, and takes most of the noise from the averages of observables.

    E_{|psi|^2}[ L f ] = 0,      L f = sum_i ( sigma_i^2 lap_i f / 2 + v_i . grad_i f ),      v = sigma^2 grad log psi,

for every smooth f that does not outgrow psi: L generates the diffusion whose stationary law |psi|^2 is.  So an
observable A may be replaced by A - sum_k c_k L f_k, with the c of least squares: if L f = A - <A> had a solution among
the f, no noise would be left.

References: R. Assaraf and M. Caffarel, Phys. Rev. Lett. 83, 4682 (1999); A. Mira, R. Solgi and D. Imparato, Stat.
Comput. 23, 653 (2013).
"""

from __future__ import annotations

from itertools import combinations, combinations_with_replacement

import torch
from torch import Tensor

from fkdrift.hamiltonian.system import System
from fkdrift.numerics.geometry import distance
from fkdrift.tensor_types import Positions

DEGREES = {1: 4, 2: 4, 3: 3}
"""Of the polynomials in the coordinates of one particle, by the number of dimensions; 2 in more, 1 in many."""
MANY = 8
POWERS = (1, 2, 3, 4)
"""Of distances from the centre and of pairs; on a line, where |x| has a kink, the even ones."""


class Controls:
    """L f for sums over identical particles of polynomials and powers of distances, (batch, function).

    Args:
        system: in open space; there are none in a box.  Where particles only hold each other, of their distances alone.

    Attributes:
        size: number of functions.

    Example (the virial theorem is one of them):
        >>> controls = Controls(system := fk.System(fk.load_potential("harmonic"), torch.float64))
        >>> r = system.initial_walkers(100_000, g)
        >>> controls(r, -r).mean(0).abs().max() < 0.2
        tensor(True)
    """

    def __init__(self, system: System) -> None:
        self.system, V = system, system.potential
        dim, open_space = V.n_dims, V.box is None and V.domain is None
        self.powers = [p for p in POWERS if dim > 1 or p % 2 == 0]
        self.groups = [list(members) for members in V.groups] if open_space and not V.free else []
        highest = DEGREES.get(dim, 2 if dim <= MANY else 1)
        chosen = [each for n in range(1, highest + 1) for each in combinations_with_replacement(range(dim), n)]
        self.exponents = torch.tensor([[each.count(axis) for axis in range(dim)] for each in chosen])
        kind = {i: g for g, members in enumerate(V.groups) for i in members}
        pairs: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        for i, j in combinations(range(V.n_particles), 2) if open_space else ():
            pairs.setdefault(tuple(sorted((kind[i], kind[j]))), []).append((i, j))
        self.pairs = [torch.tensor(each).T for each in pairs.values()]
        for_one = len(chosen) + (len(self.powers) if dim > 1 else 0)
        self.size = len(self.groups) * for_one + len(self.pairs) * len(self.powers)

    def __call__(self, r: Positions, velocity: Positions) -> Tensor:
        """L f at r, where v = sigma^2 grad log psi is `velocity`; (batch, function) float64."""
        x, v = (r - self.system.centre).double(), velocity.double()
        variance, columns = self.system.sigma.double().square()[:, 0], []
        for members in self.groups:
            own = x[:, members], v[:, members], variance[members]
            columns.append(_of_monomials(*own, self.exponents.to(r.device)))
            if r.shape[-1] > 1:
                columns.append(_of_distances(*own, self.powers))
        for i, j in self.pairs:
            columns.append(_of_distances(x[:, i] - x[:, j], v[:, i] - v[:, j], variance[i] + variance[j], self.powers))
        return torch.cat(columns, 1) if columns else x.new_zeros(len(x), 0)


def _of_monomials(x: Tensor, v: Tensor, variance: Tensor, n: Tensor) -> Tensor:
    """L sum_i prod_a x_ia^n_ka of x (batch, particle, dim) and exponents n (function, dim); (batch, function)."""
    powers = x[..., None] ** torch.arange(int(n.max()) + 1, device=x.device)

    def product(exponents: Tensor) -> Tensor:
        """(batch, particle, function)."""
        each = [powers[:, :, a, of_axis] for a, of_axis in enumerate(exponents.clamp_min(0).T)]
        return torch.stack(each).prod(0)

    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for a, unit in enumerate(torch.eye(x.shape[-1], dtype=n.dtype, device=n.device)):
        slope, bend = n[:, a] * product(n - unit), n[:, a] * (n[:, a] - 1) * product(n - 2 * unit)
        total = total + slope * v[..., a, None] + bend * variance[:, None] / 2
    return total.sum(1)


def _of_distances(x: Tensor, v: Tensor, variance: Tensor, powers: list[int]) -> Tensor:
    """L sum_i |x_i|^p of x (batch, particle or pair, dim), (batch, p)."""
    d, dim, along = distance(x), x.shape[-1], (x * v).sum(-1)
    return torch.stack([(p * d ** (p - 2) * ((p + dim - 2) * variance / 2 + along)).sum(-1) for p in powers], 1)
