"""One potential in three ways: V = x^2/2 + x^4 as a formula, as a function, and as a class in a file.

    python examples/own_potential.py
    fkdrift solve --potential examples/own_potential.py:Quartic --param strength=0.1

Prints three energies with errors, each to be compared with scipy's 0.80377.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

import fkdrift as fk
from fkdrift.hamiltonian.potential import Potential, require_finite


def quartic(r: Tensor) -> Tensor:
    """V(r): positions (batch, particle, dim) to energies (batch,)."""
    x = r[:, 0, 0]
    return x**2 / 2 + x**4


@dataclass(frozen=True)
class Quartic(Potential):
    """V = x^2/2 + strength x^4; its field is what `--param strength=...` sets."""

    strength: float = 1.0

    formula = "V = x^2/2 + strength x^4"

    def __post_init__(self) -> None:
        require_finite(strength=self.strength)

    def __call__(self, r: Tensor) -> Tensor:
        x = r[:, 0, 0]
        return x**2 / 2 + self.strength * x**4


def main() -> None:
    print("exact    ", fk.diagonalise(Quartic(), levels=1).ground_state)
    print("formula  ", fk.solve("x**2/2 + x**4").energy)
    print("function ", fk.solve(quartic).energy)
    print("class    ", fk.solve(Quartic(strength=1.0)).energy)


if __name__ == "__main__":
    main()
