"""Free clusters whose V is a sum of pair potentials, for tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fkdrift.hamiltonian.potential import Potential


@dataclass(frozen=True)
class Cluster(Potential):
    """Free particles with one pair potential.

    Args:
        u: of the distance.
        masses: of the particles.
        alike: groups of identical ones.
    """

    u: Callable[[Tensor], Tensor]
    masses: tuple[float, ...]
    alike: tuple[tuple[int, ...], ...]

    n_dims = 3
    free = True

    def __call__(self, r: Tensor) -> Tensor:
        i, j = torch.triu_indices(self.n_particles, self.n_particles, 1)
        return self.u((r[:, i] - r[:, j]).norm(dim=-1)).sum(-1)

    @property
    def n_particles(self) -> int:  # type: ignore[override]
        return len(self.masses)

    @property
    def mass(self) -> tuple[float, ...]:
        return self.masses

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        return self.alike


def bosons(u: Callable[[Tensor], Tensor], n: int, hbar2_over_m: float) -> Cluster:
    """n identical particles."""
    return Cluster(u, (1 / hbar2_over_m,) * n, (tuple(range(n)),))
