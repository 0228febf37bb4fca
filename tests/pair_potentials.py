"""Free clusters whose V is a sum of pair potentials, for tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fkdrift.hamiltonian.potential import Potential

BUMP = 1.003535949, 1.454790369


def lennard_jones(eps: float, sigma: float) -> Callable[[Tensor], Tensor]:
    """4 eps [(sigma/r)^12 - (sigma/r)^6]."""
    return lambda r: 4 * eps * ((sigma / r) ** 12 - (sigma / r) ** 6)


def lm2m2(r: Tensor) -> Tensor:
    """Helium, K and angstrom: Aziz and Slaman, J. Chem. Phys. 94, 8047 (1991)."""
    x = r / 2.9695
    damping = torch.where(x < 1.4088, torch.exp(-((1.4088 / x - 1) ** 2)), 1.0)
    tail = 1.34687065 / x**6 + 0.41308398 / x**8 + 0.17060159 / x**10
    phase = 2 * math.pi * (x - BUMP[0]) / (BUMP[1] - BUMP[0]) - math.pi / 2
    bump = torch.where((x > BUMP[0]) & (x < BUMP[1]), 0.0026 * (phase.sin() + 1), 0.0)
    return 10.97 * (189635.353 * torch.exp(-10.70203539 * x - 1.90740649 * x**2) - damping * tail + bump)


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
