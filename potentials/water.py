"""Water molecules with the q-TIP4P/F potential: flexible, with anharmonic bonds, made for path integrals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fkdrift.hamiltonian.potential import KnownEnergy, Potential, distance, require_count
from fkdrift.hamiltonian.units import Units

KCAL = 349.7550880660367
"""cm^-1 in a kcal/mol."""
HBAR2 = 33.71525833617633
"""hbar^2/u in cm^-1 A^2."""
OXYGEN, HYDROGEN = 15.99491462, 1.00782503
D, STIFFNESS, R0 = 116.09 * KCAL, 2.287, 0.9419
BEND, THETA0 = 87.85 * KCAL, math.radians(107.4)
EPS, SIGMA = 0.1852 * KCAL, 3.1589
CHARGE, COULOMB, SHARE = 0.5564, 332.0637 * KCAL, 0.73612
DIMER = 2.75


@dataclass(frozen=True)
class Water(Potential):
    """Free water molecules; positions are those of O, H, H of each molecule in turn.

        V = sum over O-H of D [ (a d)^2 - (a d)^3 + (7/12) (a d)^4 ] + sum over molecules of k (theta - theta_0)^2 / 2
            + sum over pairs of molecules of 4 eps [ (sigma / r_OO)^12 - (sigma / r_OO)^6 ] + charges,

    d = r_OH - r_0, with charges q = 0.5564 e on each H and -2 q at M = 0.73612 O + 0.13194 (H_1 + H_2).  The natural
    units are cm^-1 and angstrom (hbar = 1); masses are atomic: 15.99491462 and 1.00782503 u.

    Args:
        n_molecules: how many.

    Example:
        >>> Water().known_energy.value
        4609.865
    """

    n_molecules: int = 1

    n_dims = 3
    free = True
    isotropic = True
    formula = "V = q-TIP4P/F: quartic O-H bonds, harmonic angles, Lennard-Jones O-O, charges on H and M"
    units = "hbar = 1, energies in cm^-1, lengths in angstrom, atomic masses"
    natural_units = Units("cm-1", "angstrom")
    citation = "S. Habershon, T. E. Markland and D. E. Manolopoulos, J. Chem. Phys. 131, 024501 (2009)"

    def __post_init__(self) -> None:
        require_count(n_molecules=self.n_molecules)

    def __call__(self, r: Tensor) -> Tensor:
        oxygen, hydrogens = r[:, ::3], torch.stack([r[:, 1::3], r[:, 2::3]], 2)
        arms = hydrogens - oxygen[:, :, None]
        length = distance(arms)
        x = STIFFNESS * (length - R0)
        square = x.square()
        cosine = (arms[:, :, 0] * arms[:, :, 1]).sum(-1) / (length[:, :, 0] * length[:, :, 1])
        angle = cosine.clamp(-1, 1).acos()
        V = D * (square * (1 - x + 7 / 12 * square)).sum((1, 2)) + BEND / 2 * (angle - THETA0).square().sum(1)
        return V if self.n_molecules == 1 else V + self._between(oxygen, hydrogens)

    def _between(self, oxygen: Tensor, hydrogens: Tensor) -> Tensor:
        """Lennard-Jones and Coulomb energies of all pairs of molecules."""
        i, j = torch.triu_indices(self.n_molecules, self.n_molecules, 1, device=oxygen.device)
        sixth = (SIGMA / distance(oxygen[:, i] - oxygen[:, j])).pow(6)
        M = SHARE * oxygen + (1 - SHARE) * hydrogens.mean(2)
        sites = torch.cat([hydrogens, M[:, :, None]], 2)
        charges = oxygen.new_tensor([CHARGE, CHARGE, -2 * CHARGE])
        d = distance(sites[:, i][:, :, :, None] - sites[:, j][:, :, None])
        coulomb = COULOMB * (torch.outer(charges, charges) / d).sum((1, 2, 3))
        return 4 * EPS * (sixth.square() - sixth).sum(1) + coulomb

    @property
    def n_particles(self) -> int:  # type: ignore[override]
        return 3 * self.n_molecules

    @property
    def mass(self) -> tuple[float, ...]:
        return (OXYGEN / HBAR2, HYDROGEN / HBAR2, HYDROGEN / HBAR2) * self.n_molecules

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        if self.n_molecules == 1:
            return ((0,), (1, 2))
        return tuple((k,) for k in range(self.n_particles))

    @property
    def start(self) -> tuple[tuple[float, ...], ...]:
        """Molecules on a ring, each with one hydrogen towards the oxygen behind it and one out of the plane."""
        n = max(self.n_molecules, 3)
        radius = DIMER / (2 * math.sin(math.pi / n)) if self.n_molecules > 1 else 0.0
        atoms: list[tuple[float, ...]] = []
        for k in range(self.n_molecules):
            turn = 2 * math.pi * k / n
            centre = radius * math.cos(turn), radius * math.sin(turn), 0.0
            back = turn - math.pi / 2 - math.pi / n
            first = math.cos(back), math.sin(back), 0.0
            second = math.cos(THETA0) * first[0], math.cos(THETA0) * first[1], math.sin(THETA0) * (-1) ** k
            atoms += [centre, *(tuple(c + R0 * e for c, e in zip(centre, arm, strict=True)) for arm in (first, second))]
        return tuple(atoms)

    @property
    def known_energy(self) -> KnownEnergy | None:
        if self.n_molecules == 1:
            return KnownEnergy(4609.865, "computed", "discrete variables in Jacobi coordinates, J = 0")
        return None
