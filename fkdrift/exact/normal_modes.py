"""A quadratic V in any number of coordinates: coupled oscillators, solved in closed form by their normal modes.

V = V_0 + (x - c) K (x - c)/2,      M^-1/2 K M^-1/2 = Q diag(omega^2) Q^T,      E_0 = V_0 + sum omega / 2
"""

from __future__ import annotations

import heapq

import numpy as np

from fkdrift.errors import Unbound
from fkdrift.exact.separability import SAME, Landscape
from fkdrift.exact.spectrum import Array, Spectrum

MOST = 600  # coordinates
N_LINES = 200  # of each size, along which differences are taken


def quadratic(V: Landscape) -> bool:
    """Whether third and fourth differences of V vanish along random directions."""
    if V.period is not None or V.size > MOST or np.isfinite(V.low).any() or np.isfinite(V.high).any():
        return False
    for seed, spread in enumerate((0.3, 1.0, 3.0)):
        a, b = V.points(N_LINES, 2 * seed, spread), V.points(N_LINES, 2 * seed + 1, spread)
        values = np.stack([V.V(a + s * b) for s in range(-2, 3)])
        third, fourth = np.array([[-1, 2, 0, -2, 1], [1, -4, 6, -4, 1]]) @ values
        if not (np.maximum(np.abs(third), np.abs(fourth)) <= SAME * np.abs(values).max(0)).all():
            return False
    return True


def normal_modes(V: Landscape, levels: int, n_free: int = 0) -> Spectrum:
    """Levels V_0 + sum_a omega_a (n_a + 1/2); only the ground state where particles are identical.

    Args:
        V: quadratic.
        levels: how many.
        n_free: directions in which the centre of mass is free, and rests: modes with omega = 0 that are left out.

    Raises:
        Unbound: some mode is not confined, omega^2 <= 0.
    """
    n, eye = V.size, np.eye(V.size)
    middle = float(V.V(np.zeros((1, n)))[0])
    plus, minus = V.V(eye), V.V(-eye)
    gradient = (plus - minus) / 2
    K = np.diag(plus + minus - 2 * middle)
    for k in range(n - 1):
        K[k, k + 1 :] = V.V(eye[k] + eye[k + 1 :]) - plus[k] - plus[k + 1 :] + middle
    K = np.triu(K) + np.triu(K, 1).T
    root = np.sqrt(V.mass)
    squares, Q = np.linalg.eigh(K / np.outer(root, root))
    squares, Q = squares[n_free:], Q[:, n_free:]
    if squares[0] <= 1e-12 * squares[-1]:
        raise Unbound(
            f"V is quadratic with omega^2 = {squares[0]:.3g} for one of its normal modes: it does not confine; every "
            "mode needs omega^2 > 0"
        )
    omega = np.sqrt(squares)
    centre = -(Q / squares) @ (Q.T @ (gradient / root)) / root
    lowest = middle + gradient @ centre / 2
    energies = lowest + omega.sum() / 2 + _rungs(omega, 1 if V.alike else levels)
    norm = 0.25 * np.log(omega / np.pi).sum() + (0.25 * np.log(V.mass).sum() if n_free == 0 else 0.0)

    def ground(x: Array) -> Array:
        return norm - 0.5 * (((x - centre) * root @ Q) ** 2 @ omega)

    return Spectrum(
        energies=energies,
        errors=np.full(len(energies), 1e-14 * n * max(1.0, float(np.abs(energies).max()))),
        method=f"normal modes of a quadratic V in {n} coordinates, closed form",
        labels=tuple("" for _ in energies),
        notes=("only the ground state: excited states of identical particles are not listed",) if V.alike else (),
        ground=ground,
    )


def _rungs(omega: Array, levels: int) -> Array:
    """The lowest sums of whole multiples of the frequencies, with repetition."""
    heap: list[tuple[float, int]] = [(0.0, 0)]  # an excitation and the first mode that may still be raised
    found: list[float] = []
    while len(found) < levels:
        E, first = heapq.heappop(heap)
        found.append(E)
        for k in range(first, min(len(omega), first + levels)):
            heapq.heappush(heap, (E + float(omega[k]), k))
    return np.array(found)
