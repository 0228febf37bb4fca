"""Clusters of helium: energy per atom against the number of atoms, beside published numbers; and three neon atoms.

    python examples/helium_clusters.py [minutes for each cluster, 4 by default]

Nothing but the element and the number of atoms is given: the trial function is made of the solution of the two-body
problem, the network learns what three and more atoms do, and the projection takes out what it missed. Prints a table,
and draws helium_clusters.png.
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt

import fkdrift as fk


def main() -> None:
    seconds = 60 * float(sys.argv[1]) if len(sys.argv) > 1 else 240.0
    rows = []
    for element, n in [("Ne", 3), *(("He", n) for n in range(3, 11))]:
        state = fk.solve("noble_gas", element=element, n_particles=n, seed=0, max_seconds=seconds)
        known = state.potential.known_energy
        assert known is not None
        E, bound = state.energy, state.energies.variational
        print(f"{element}{n}: projected {E} K, variational {bound} K, published {known.value:.5g} K")
        if element == "He":
            rows.append((n, E.mean / n, E.error / n, bound.mean / n, known.value / n))
    N, projected, error, variational, published = zip(*rows, strict=True)
    plt.plot(N, published, "o", mfc="none", ms=9, color="black", label="published")
    plt.plot(N, variational, "^", color="tab:orange", label="variational")
    plt.errorbar(N, projected, error, fmt=".", color="tab:blue", label="projected")
    plt.xlabel("atoms N")
    plt.ylabel("E / N (K)")
    plt.title("helium clusters, LM2M2")
    plt.legend()
    plt.savefig("helium_clusters.png", dpi=150)


if __name__ == "__main__":
    main()
