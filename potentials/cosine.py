"""A pendulum, or several: cosine potentials on a ring or torus of period 2 pi (Mathieu's equation)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from fkdrift.hamiltonian.potential import KnownEnergy, Potential, require, require_finite

COMPUTED = {1.0: -0.53506485, 2.0: -1.32584115}


@dataclass(frozen=True)
class Cosine(Potential):
    """V = sum_k V0_k cos x_k with every x_k on a ring of length 2 pi; the ground state is periodic.

    Args:
        V0: amplitude, or a tuple with one amplitude for each dimension; a sign only moves the minimum from pi to 0.

    Example:
        >>> Cosine(V0=1.0).known_energy.value, Cosine(V0=(1.0, 2.0)).n_dims
        (-0.53506485, 2)
    """

    V0: float | tuple[float, ...] = 1.0

    formula = "V = sum_k V0_k cos x_k on rings of length 2 pi"
    units = "hbar = m = 1"
    citation = "Mathieu characteristic values: NIST DLMF, chapter 28"

    def __post_init__(self) -> None:
        require(len(self.amplitudes) > 0, "V0", self.V0, "a number or a tuple of at least one number")
        for V0 in self.amplitudes:
            require_finite(V0=V0)

    def __call__(self, r: Tensor) -> Tensor:
        return (r.new_tensor(self.amplitudes) * r[:, 0].cos()).sum(-1)

    @property
    def amplitudes(self) -> tuple[float, ...]:
        """One amplitude for each dimension."""
        return tuple(self.V0) if isinstance(self.V0, tuple | list) else (self.V0,)

    @property
    def n_dims(self) -> int:  # type: ignore[override]
        return len(self.amplitudes)

    @property
    def box(self) -> tuple[float, ...]:
        return (2 * math.pi,) * self.n_dims

    @property
    def known_energy(self) -> KnownEnergy | None:
        sizes = [abs(V0) for V0 in self.amplitudes]
        if not any(sizes):
            return KnownEnergy(0.0, "exact", "free particle on a ring")
        if all(size in COMPUTED for size in sizes):
            return KnownEnergy(
                sum(COMPUTED[size] for size in sizes), "computed", "Mathieu characteristic value a_0(4 V0) / 8"
            )
        return None
