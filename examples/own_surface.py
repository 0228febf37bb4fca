"""The zero-point energy of water on a potential energy surface of your own: a numpy function, and nothing else.

    python examples/own_surface.py [--quick]
    fkdrift solve -p examples/own_surface.py:surface

The formula is that of q-TIP4P/F (S. Habershon et al., J. Chem. Phys. 131, 024501 (2009)); fkdrift sees its values only.
The exact zero-point energy is 4609.865 cm^-1.
"""

import sys

import numpy as np

import fkdrift as fk

KCAL = 349.755088  # cm^-1


def water(x: np.ndarray) -> np.ndarray:
    """Positions (batch, atom, 3) of O, H, H in angstrom to energies (batch,) in cm^-1."""
    arms = x[:, 1:] - x[:, :1]
    length = np.linalg.norm(arms, axis=-1)
    s = 2.287 * (length - 0.9419)
    stretch = 116.09 * KCAL * (s**2 - s**3 + 7 / 12 * s**4).sum(1)
    angle = np.arccos((arms[:, 0] * arms[:, 1]).sum(1) / length.prod(1))
    return stretch + 87.85 / 2 * KCAL * (angle - np.radians(107.4)) ** 2


surface = fk.Surface(water, ("O", "H", "H"), start=((0, 0, 0), (0.94, 0, 0), (-0.28, 0.9, 0)))

if __name__ == "__main__":
    quick = fk.Settings(n_updates=5, n_walkers=64, n_blocks=10, project=False) if "--quick" in sys.argv else None
    print(fk.solve(surface, settings=quick, progress=False))
    print(f"{surface.evaluations:,} energies computed, {surface.failures} repaired")
