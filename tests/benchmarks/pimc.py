"""Path integral Monte Carlo against exact thermodynamics, and its cost beside that of a learned sampler.

    python tests/benchmarks/pimc.py                 the table of docs/pimc.md: about two CPU minutes
    python tests/benchmarks/pimc.py --learned       the comparison at low temperature only: about half a CPU minute

Energy, specific heat and <x^2> of wells in one dimension stand beside the sum over the levels of `diagonalise`; the
energy of three bosons in a trap beside the recursion Z_N = (1/N) sum_k Z_1(k beta) Z_(N-k).  Each is to agree within
three standard errors, and energies and <x^2> within 0.5%.

The comparison: at T = 1/20 of the anharmonic oscillator, the ground state to all digits, both sample |phi_0|^2.  The
effective samples of <V>, Var(V) / error^2, and 1 / (relative error of E)^2, for each CPU second on one core, training
and equilibration included.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator

import numpy as np
import torch

import fkdrift as fk
from fkdrift.numerics.estimates import Estimate

WELLS = (("harmonic", {}), ("anharmonic", {}), ("double_well", {"a": 0.125, "b": 4.0}))
TEMPERATURES = (0.2, 1.0)
N_LEVELS = 60
LOW = 0.05


def spectral(name: str, temperature: float, **parameters: object) -> tuple[float, float, float]:
    """E, specific heat and <x^2> from levels."""
    spectrum = fk.diagonalise(fk.load_potential(name, **parameters), levels=N_LEVELS)
    E, x = spectrum.energies, spectrum.grid
    w = np.exp(-(E - E[0]) / temperature)
    w /= w.sum()
    mean, square = w @ E, w @ E**2
    return mean, (square - mean**2) / temperature**2, w @ np.trapezoid(spectrum.wavefunctions**2 * x**2, x)


def bosons(n_particles: int, n_dims: int, beta: float) -> float:
    """-d ln Z_N / d beta of ideal bosons in a trap."""

    def log_Z(beta: float) -> float:
        one = [(2 * math.sinh(k * beta / 2)) ** -n_dims for k in range(1, n_particles + 1)]
        Z = [1.0]
        for n in range(1, n_particles + 1):
            Z.append(sum(one[k - 1] * Z[n - k] for k in range(1, n + 1)) / n)
        return math.log(Z[-1])

    h = 1e-5
    return (log_Z(beta - h) - log_Z(beta + h)) / (2 * h)


def row(label: str, found: Estimate, exact: float) -> str:
    """One line, with a mark where it is not within three errors and 0.5%."""
    z, share = found.deviation(exact), abs(found.mean - exact) / max(abs(exact), 0.05)
    good = abs(z) < 3 and (share < 5e-3 or "C" in label)
    return f"| {label} | {found} | {exact:.6f} | {z:+.1f} | {100 * share:.2f}% | {'yes' if good else 'NO'} |"


def table() -> Iterator[str]:
    """Rows of the table of docs/pimc.md."""
    yield "| system | PIMC | exact | z | apart | agrees |\n|---|---|---|---|---|---|"
    for name, parameters in WELLS:
        for T in TEMPERATURES:
            E, heat, square = spectral(name, T, **parameters)
            result = fk.pimc(
                name, temperature=T, n_blocks=300, observables=["x**2"], settings=settings(T), seed=0, **parameters
            )
            thermal = result.thermal
            yield row(f"{name}, T = {T:g}: E", thermal.energy, E)
            yield row(f"{name}, T = {T:g}: C", thermal.specific_heat, heat)
            yield row(f"{name}, T = {T:g}: <x^2>", thermal.observables["x**2"].estimate, square)
    for T in (1.0, 0.5):
        result = fk.pimc("harmonic", n_particles=3, n_dims=3, temperature=T, n_blocks=150, settings=settings(T), seed=0)
        yield row(f"3 bosons in 3 dimensions, T = {T:g}: E", result.energy, bosons(3, 3, 1 / T))


def settings(temperature: float) -> fk.PimcSettings:
    """512 chains, without the second run at half the slices."""
    return fk.PimcSettings(temperature=temperature, n_chains=512, check_slices=False)


def learned() -> Iterator[str]:
    """Cost at low temperature beside the learned sampler's."""
    spectrum = fk.diagonalise(fk.load_potential("anharmonic"))
    x = spectrum.grid
    density = np.asarray(spectrum.wavefunctions[0]) ** 2
    V = fk.load_potential("anharmonic")(torch.tensor(np.asarray(x))[:, None, None]).numpy()
    variance = np.trapezoid(density * V**2, x) - np.trapezoid(density * V, x) ** 2
    E0 = spectrum.ground_state
    yield "| sampler | E | <V> | CPU s | effective samples of V per CPU s | 1 / (relative error of E)^2 per CPU s |"
    yield "|---|---|---|---|---|---|"
    start = time.process_time()
    result = fk.pimc("anharmonic", temperature=LOW, n_blocks=150, settings=settings(LOW), seed=0)
    name = f"PIMC, T = {LOW:g}, P = {result.n_slices}"
    yield cost(name, result.thermal.energy, result.thermal.potential, variance, E0, start)
    start = time.process_time()
    state = fk.solve("anharmonic", seed=0)
    yield cost("fk.solve, T = 0", state.energy, state.energies.stationary.potential, variance, E0, start)


def cost(name: str, E: Estimate, V: Estimate, variance: float, exact: float, start: float) -> str:
    seconds = time.process_time() - start
    samples = variance / V.error**2 / seconds
    precision = (exact / E.error) ** 2 / seconds
    return f"| {name} | {E} | {V} | {seconds:.1f} | {samples:.3g} | {precision:.3g} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learned", action="store_true", help="the comparison at low temperature only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for rows in (learned,) if arguments.learned else (table, learned):
        for line in rows():
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
