"""A first ground state: the harmonic oscillator in two dimensions, solved, checked and saved.

    python examples/first_ground_state.py

Prints the energy with its error (exact: 1), the mean square radius (exact: 1 / omega = 1), and where the run was saved.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import fkdrift as fk


def main() -> None:
    state = fk.solve("harmonic", n_dims=2, seed=0)
    print(state)

    r = state.sample(20_000)
    print(f"\n<r^2> = {r.square().sum((-2, -1)).mean():.3f}, exactly 1")

    folder = state.save(Path(tempfile.mkdtemp()) / "oscillator")
    again = fk.load(folder)
    print(f"saved to {folder}, and loaded again: {again.energy}")


if __name__ == "__main__":
    main()
