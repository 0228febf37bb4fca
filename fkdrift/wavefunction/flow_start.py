"""Where the flow of a ground state starts: at the system's own Gaussian, with the tails of the semiclassical wave.

    log |phi_0|^2 ~ -G(x),     G(x) = 2 int_0^x sqrt(2 m (V - E)) dx       along a coordinate, far out
    z ~ sqrt(2 G) ~ C |x|^delta,                                           so that N(z; 0, 1) falls the same way

Samples hardly ever visit the tails, so what a flow has there is what it started with; a wrong power makes E_L grow like
V itself.  For V ~ x^4 this gives delta = 3/2, for an oscillator 1, for a particle that leaves a short-ranged well 1/2.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from fkdrift.densities.continuous import Continuous
from fkdrift.densities.coupling import Flow, Scale, coupling_flow
from fkdrift.densities.symmetric import FadingField, RadialField, RadialTail
from fkdrift.hamiltonian.system import System
from fkdrift.hamiltonian.trial_function import Gaussian
from fkdrift.wavefunction.flow import FlowWavefunction, refuse_unsuitable

Array = NDArray[np.float64]

DEPTH = 24.0  # G where power and scale are read off: log p = -24
REACH = 60.0  # how far to look for it, in widths
N_POINTS = 3000  # on the way: steps of 0.02 widths, by which G of an oscillator is right to 0.3% at DEPTH
N_DRAWS = 16  # of the other coordinates, for a median
POWERS = (0.4, 4.0)  # bounds on delta: a short-ranged well has 1/2 and V ~ x^4 has 3/2; chosen, not tuned
LENGTHS = (0.05, 20.0)  # bounds on l, in widths: chosen, not tuned
N_STEPS = 2  # Runge-Kutta steps of a flow that starts near its end: log p is right to 1e-3 in helium
N_FITTED = 4096  # walkers in |phi_ref|^2 that p_0 is fitted to
NEARLY_ONE = 0.02  # a power that near to 1 is a Gaussian's, and l would have no meaning


def make_wavefunction(system: System, *, width: int = 32, depth: int = 2, seed: int = 0) -> FlowWavefunction:
    """The flow that suits a system, on its trial function where that has more than a Gaussian: cusps, holes, pairs.

    Args:
        system, width, depth, seed: as for `make_flow`.

    Raises:
        InputError: a flow does not suit this system.

    Example (p starts as p_0, and psi as the trial function, which is exact):
        >>> psi = make_wavefunction(System(fk.load_potential("hydrogen"), torch.float64))
        >>> psi.log_psi(torch.tensor([[[0.0, 0.0, 2.0]]]).double()).item()
        -2.0
    """
    known = system.potential.trial_function  # what was prepared from values of V is as smooth as a flow
    refuse_unsuitable(system, with_trial_function=known is not None)
    if known is None or all(isinstance(term, Gaussian) for term in known.terms):
        return FlowWavefunction(make_flow(system, width=width, depth=depth, seed=seed), system)
    base = fit_base(system, seed)
    scale, tail = deepcopy(base).chain
    n, dim = system.shape
    if len(system.potential.groups) == 1 and (n > 1 or system.potential.isotropic):
        field = FadingField(n, dim, isotropic=system.potential.isotropic)
        layers = [scale, Continuous(field, N_STEPS), tail.requires_grad_(False)]
    else:
        layers = [scale, tail, *coupling_flow(n * dim, width=width, depth=depth, seed=seed).chain[1:]]
    return FlowWavefunction(Flow(n * dim, layers).to(system.device, system.dtype), system, base)


def make_flow(system: System, *, width: int = 32, depth: int = 2, seed: int = 0) -> Flow:
    """The flow that suits a system without its trial function: symmetric for identical particles, else of coupling
    layers.

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


def fit_base(system: System, seed: int = 0) -> Flow:
    """p_0: independent particles with semiclassical tails around a centre, near |phi_ref|^2.

    Widths and the lengths of tails have the greatest likelihood of walkers in |phi_ref|^2.

    Args:
        system: with a trial function.
        seed: of the walkers.
    """
    n, dim = system.shape
    groups, isotropic = system.potential.groups, system.potential.isotropic
    r = system.initial_walkers(N_FITTED, torch.Generator(system.device).manual_seed(seed)).flatten(1)
    group = torch.tensor([g for i in range(n) for g, members in enumerate(groups) if i in members], device=r.device)
    power = semiclassical_tails(system, seed)[0].reshape(n, dim)
    power = torch.stack([power[group == g].median() for g in range(len(groups))])
    width = torch.stack([system.width[group == g].mean(0) for g in range(len(groups))])
    width, centre = (width.mean(1, keepdim=True), 0 * system.centre) if isotropic else (width, system.centre)

    def flow(parameters: Array) -> Flow:
        values = torch.as_tensor(parameters).to(width).exp()
        length, spread = values[: len(groups)], values[len(groups) :].reshape(width.shape)[group].expand(n, dim)
        return Flow(n * dim, [Scale(centre.flatten(), spread.flatten()), RadialTail(dim, power, length, group)])

    def loss(parameters: Array) -> float:
        with torch.no_grad():
            return -float(flow(parameters).log_prob(r).mean())

    start = torch.cat([torch.zeros_like(power), width.log().flatten()]).cpu().numpy()
    bounds = [*[tuple(np.log(LENGTHS))] * len(groups), *[(None, None)] * width.numel()]
    return flow(minimize(loss, start, method="L-BFGS-B", bounds=bounds).x).to(system.device, system.dtype)


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
