"""A pendulum: one particle on a ring of length 2 pi in a cosine potential (Mathieu's equation)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from fkdrift.potential import KnownEnergy, Potential, require_finite

COMPUTED = {1.0: -0.53506485, 2.0: -1.32584115}


@dataclass(frozen=True)
class Cosine(Potential):
    """V = V0 cos x with x on a ring of length 2 pi; the ground state is periodic (zero quasi-momentum).

    Args:
        V0: amplitude; its sign only moves the minimum from x = pi to x = 0.

    Example:
        >>> Cosine(V0=1.0).known_energy.value
        -0.53506485
    """

    V0: float = 1.0

    formula = "V = V0 cos x on a ring of length 2 pi"
    units = "hbar = m = 1"
    citation = "Mathieu characteristic values: NIST DLMF, chapter 28"

    def __post_init__(self) -> None:
        require_finite(V0=self.V0)

    def __call__(self, r: Tensor) -> Tensor:
        return self.V0 * r[:, 0, 0].cos()

    @property
    def box(self) -> tuple[float, ...]:
        return (2 * math.pi,)

    @property
    def known_energy(self) -> KnownEnergy | None:
        if self.V0 == 0:
            return KnownEnergy(0.0, "exact", "free particle on a ring")
        if abs(self.V0) in COMPUTED:
            return KnownEnergy(COMPUTED[abs(self.V0)], "computed", "Mathieu characteristic value a_0(4 V0) / 8")
        return None
