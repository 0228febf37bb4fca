"""The quartic double well: two minima at x = +-sqrt(b), with the barrier a b^2 between them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fkdrift.hamiltonian.potential import KnownEnergy, Potential, require, require_positive

COMPUTED = {  # (a, b): E0; the last one is -x^2/2 + x^4/10 with its constant, 0.625, added
    (1.0, 1.0): 0.8695809189,
    (0.5, 1.0): 0.5688929241,
    (0.125, 4.0): 0.9004067473,
    (0.1, 2.5): 0.4708751710,
}
PURE_QUARTIC = 0.6679862591558


@dataclass(frozen=True)
class DoubleWell(Potential):
    """V = a (x^2 - b)^2; the gap to the first excited state falls exponentially with sqrt(a) b^(3/2).

    Args:
        a: stiffness; the barrier is a b^2 high.
        b: square of the distance from the middle to each minimum.

    Example:
        >>> DoubleWell(a=0.125, b=4.0).known_energy.value     # first excited state only 0.0478 above
        0.9004067473
    """

    a: float = 1.0
    b: float = 1.0

    formula = "V = a (x^2 - b)^2"
    units = "hbar = m = 1"
    citation = "S. Coleman, Aspects of Symmetry, ch. 7 (Cambridge, 1985)"

    def __post_init__(self) -> None:
        require_positive(a=self.a)
        require(0 <= self.b < float("inf"), "b", self.b, "a finite number of at least zero")

    def __call__(self, r: Tensor) -> Tensor:
        return self.a * (r[:, 0, 0].square() - self.b).square()

    @property
    def isotropic(self) -> bool:
        return True

    @property
    def known_energy(self) -> KnownEnergy | None:
        source = "numerical diagonalisation, converged to the digits given"
        if self.b == 0:
            return KnownEnergy(PURE_QUARTIC * self.a ** (1 / 3), "computed", f"{source}; scaled by a^(1/3)")
        if (self.a, self.b) in COMPUTED:
            return KnownEnergy(COMPUTED[self.a, self.b], "computed", source)
        return None
