"""Where the flow of a ground state starts: at the system's own Gaussian, with the tails of the semiclassical wave.

    log |phi_0|^2 ~ -G(x),     G(x) = 2 int_0^x sqrt(2 m (V - E)) dx       along a coordinate, far out
    z ~ sqrt(2 G) ~ C |x|^delta,                                           so that N(z; 0, 1) falls the same way

Samples hardly ever visit the tails, so what a flow has there is what it started with; a wrong power makes E_L grow like
V itself.  For V ~ x^4 this gives delta = 3/2, for an oscillator 1, for a particle that leaves a short-ranged well 1/2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fkdrift.densities.continuous import Continuous
from fkdrift.densities.coupling import Flow, Scale, coupling_flow
from fkdrift.densities.symmetric import RadialField
from fkdrift.hamiltonian.system import System

DEPTH = 24.0  # G where power and scale are read off: log p = -24
REACH = 60.0  # how far to look for it, in widths
N_POINTS = 3000  # on the way: steps of 0.02 widths, by which G of an oscillator is right to 0.3% at DEPTH
N_DRAWS = 16  # of the other coordinates, for a median
POWERS = (0.4, 4.0)  # bounds on delta: a short-ranged well has 1/2 and V ~ x^4 has 3/2; chosen, not tuned
LENGTHS = (0.05, 20.0)  # bounds on l, in widths: chosen, not tuned
NEARLY_ONE = 0.02  # a power that near to 1 is a Gaussian's, and l would have no meaning


def make_flow(system: System, *, width: int = 32, depth: int = 2, seed: int = 0) -> Flow:
    """The flow that suits a system: symmetric for identical particles, else of coupling layers.

    Args:
        system: gives the Gaussian to start from, symmetries and dtype.
        width, depth: of the networks in the coupling layers.
        seed: of their start.
    """
    n, dim = system.shape
    potential = system.potential
    if n == 1 or len(potential.groups) > 1:
        centre, spread = system.centre.flatten(), system.width.flatten()
        tail = semiclassical_tails(system, seed)
        return coupling_flow(n * dim, centre=centre, spread=spread, tail=tail, width=width, depth=depth, seed=seed)
    centre, spread = system.centre, system.width
    if potential.isotropic:
        centre, spread = torch.zeros_like(centre), spread.mean().expand_as(spread)
    layers = [Scale(centre.flatten(), spread.flatten()), Continuous(RadialField(n, dim, isotropic=potential.isotropic))]
    return Flow(n * dim, layers).to(system.device, system.dtype)


def semiclassical_tails(system: System, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Power delta and length l (n,) of a `Tail` layer for every coordinate, in units of the system's width.

    The other coordinates are drawn from the reference, and the median over such draws is taken; where V never rises
    enough the tail stays that of a Gaussian.

    Args:
        system: in open space.
        seed: of the draws.

    Example (psi falls as exp(-sqrt(2) x^3 / 3) in x^4: delta is 3 / 2):
        >>> semiclassical_tails(System(fk.load_potential("x**4")))[0]
        tensor([1.4996])
    """
    walkers = system.initial_walkers(N_DRAWS, torch.Generator(system.device).manual_seed(seed))
    energy = system.potential(walkers).median()
    n_particles, dim = system.shape
    tails = [_tail(system, walkers, energy, i, k) for i in range(n_particles) for k in range(dim)]
    power, length = torch.tensor(tails, dtype=system.dtype, device=system.device).T
    return power, length


def _tail(system: System, walkers: Tensor, energy: Tensor, i: int, k: int) -> tuple[float, float]:
    """delta and l for coordinate k of particle i, the mean of both directions."""
    s = torch.linspace(0, REACH, N_POINTS, dtype=system.dtype, device=system.device)[1:]
    width, sigma = system.width[i, k], system.sigma[i, 0]
    exponents = []
    for sign in (1.0, -1.0):
        r = walkers[:, None].expand(-1, len(s), -1, -1).clone()
        r[:, :, i, k] = system.centre[i, k] + sign * width * s
        V = system.potential(r.flatten(0, 1)).reshape(len(walkers), -1).median(0).values
        wavenumber = (2 * (V - energy).nan_to_num(0.0).clamp_min(0)).sqrt() / sigma
        exponents.append(2 * (wavenumber * width).cumsum(0) * (s[1] - s[0]))
    G = torch.stack(exponents).mean(0)
    reached = int((G > DEPTH).to(torch.int8).argmax())
    if G[reached] < DEPTH:
        return 1.0, 1.0
    delta = float((G[-1] / G[len(G) // 2]).log() / (s[-1] / s[len(s) // 2]).log()) / 2
    delta = min(max(delta, POWERS[0]), POWERS[1])
    if abs(delta - 1) < NEARLY_ONE:
        return 1.0, 1.0
    C = float((2 * G[reached]).sqrt() / s[reached] ** delta)
    length = (C * delta * 2 ** (1 - delta)) ** (1 / (1 - delta))
    return delta, min(max(length, LENGTHS[0]), LENGTHS[1])
