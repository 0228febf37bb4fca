"""The hydrogen atom, and helium where two electrons repel each other: what a reference with exact cusps buys.

    python examples/hydrogen.py

V has no lower bound, but E_W = V - (|grad W|^2 + lap W)/2 has, because the potentials bring a reference W with the
slopes that Kato's conditions ask for.  Prints energies with errors, the virial ratios (exactly 1), and the mean radii.
"""

from __future__ import annotations

import fkdrift as fk


def main() -> None:
    for name, settings in {"hydrogen": fk.Settings(n_updates=40), "helium": fk.Settings(n_updates=100)}.items():
        state = fk.solve(name, seed=0, settings=settings)
        known = state.potential.known_energy
        assert known is not None
        radius = state.sample(20_000).norm(dim=-1).mean()
        virial = state.result["observables"]["virial"]["variational"]["mean"]
        print(f"{name}: E = {state.energy}, known {known.value:.6f}; virial {virial:.4f}; <r> = {radius:.3f}")


if __name__ == "__main__":
    main()
