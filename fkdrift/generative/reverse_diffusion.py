"""Ways back from noise to data with one trained diffusion: the chain, the reverse equation, and the probability flow.

With z = cos(phi) z_0 + sin(phi) e the noising process is a stochastic differential equation in phi; its reversal and
the ordinary equation with the same densities are

    reverse SDE          z' = cos(phi') z_0 + sqrt(sin^2(phi') - c^2) e + c xi,       from phi to phi' < phi
    probability flow     dz / dphi = w(z, phi)

where z_0, e and w are what the network takes z to be made of, and c^2 is the width of q(z' | z, z_0).  The first is
solved exactly over each step with z_0 held fixed; the second by a Runge-Kutta method, in either direction, and gives
the density of a datum:

    log p(x) = log p(z_T) + int div w dphi.

References: Song et al., Score-based generative modelling through SDEs, ICLR 2021; Song, Meng and Ermon, ICLR 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from fkdrift.generative.chain import generate
from fkdrift.generative.diffusion import DDPM
from fkdrift.numerics.differentiation import field_and_divergence


def ancestral(model: DDPM, n: int, generator: torch.Generator) -> Tensor:
    """n data from the chain p(z_T) p(z_{T-1} | z_T) ... p(x | z_1), (n, size)."""
    with torch.no_grad():
        return generate(model, n, generator)[-1]


def reverse_sde(model: DDPM, n: int, generator: torch.Generator, n_steps: int = 200) -> Tensor:
    """n data from the reverse stochastic differential equation, (n, size), whatever the T of the chain.

    Args:
        model: trained.
        n: number of data.
        generator: of the noise.
        n_steps: evaluations of the network, evenly spaced in phi.
    """
    with torch.no_grad():
        z = _noise(model, n, generator)
        angles = _angles(model, n_steps)
        for phi, lower in pairwise(angles):
            clean, noise = model.parts(z, phi.expand(n))
            # q(z' | z, z_0) has the width c = sin(phi') / sin(phi) sqrt(1 - cos^2(phi) / cos^2(phi'))
            c = lower.sin() / phi.sin() * (1 - (phi.cos() / lower.cos()).square()).clamp_min(0).sqrt()
            kept = (lower.sin().square() - c.square()).clamp_min(0).sqrt()
            z = lower.cos() * clean + kept * noise + c * _noise(model, n, generator)
        clean, _ = model.parts(z, angles[-1].expand(n))
        return clean * model.standardise.scale + model.standardise.mean


def probability_flow(
    model: DDPM, start: Tensor, n_steps: int = 50, backwards: bool = False, until: float | None = None
) -> Tensor:
    """The deterministic way: noise (batch, size) to data, or data to their noise with `backwards`.

    Args:
        model: trained.
        start: z_T, or x.
        n_steps: of the fourth-order Runge-Kutta method, four evaluations of the network each.
        backwards: from data to noise.
        until: stop at this noise level phi on the way to data, and return z there, in units of the network.
    """
    scale, mean = model.standardise.scale, model.standardise.mean
    angles = _angles(model, n_steps)
    with torch.no_grad():
        if until is not None:
            first = float(model.phi[-1])
            return _runge_kutta(
                _velocity(model), start, first + (angles - first) * (until - first) / (angles[-1] - first)
            )
        if backwards:
            return _runge_kutta(_velocity(model), model.standardise(start), angles.flip(0))
        return _runge_kutta(_velocity(model), start, angles) * scale + mean


def flow_log_prob(model: DDPM, x: Tensor, n_steps: int = 50) -> Tensor:
    """log p(x) under the probability flow, (batch,), nats.

    It is the density of data blurred by the least noise level of the chain, exact but for the step.  The divergence is
    taken component by component, so the cost grows with the size of the data.
    """
    velocity, size = _velocity(model), x.shape[1]

    def both(state: Tensor, phi: Tensor) -> Tensor:
        with torch.no_grad():
            w, divergence = field_and_divergence(lambda z: velocity(z, phi), state[:, :size])
        return torch.cat([w, divergence[:, None]], 1)

    start = torch.cat([model.standardise(x), x.new_zeros(len(x), 1)], 1)
    end = _runge_kutta(both, start, _angles(model, n_steps).flip(0))
    return model.prior(len(x)).log_prob(end[:, :size]) + end[:, size] - size * model.standardise.scale.log()


def _runge_kutta(velocity: Callable[[Tensor, Tensor], Tensor], z: Tensor, angles: Tensor) -> Tensor:
    """dz / dphi = velocity(z, phi) from the first angle to the last, by the classical fourth-order method."""
    for phi, following in pairwise(angles):
        h, middle = following - phi, (phi + following) / 2
        k1 = velocity(z, phi)
        k2 = velocity(z + h / 2 * k1, middle)
        k3 = velocity(z + h / 2 * k2, middle)
        k4 = velocity(z + h * k3, following)
        z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return z


def _velocity(model: DDPM) -> Callable[[Tensor, Tensor], Tensor]:
    """w(z, phi) for one phi."""
    return lambda z, phi: model.network(z, phi.expand(len(z)))


def _angles(model: DDPM, n_steps: int) -> Tensor:
    """n_steps + 1 noise levels from the highest of the chain down to its lowest."""
    first, last = float(model.phi[-1]), float(model.phi[0])
    return torch.linspace(first, last, n_steps + 1, dtype=model.phi.dtype, device=model.phi.device)


def _noise(model: DDPM, n: int, generator: torch.Generator) -> Tensor:
    like = model.origin
    return torch.randn((n, len(like)), generator=generator, dtype=like.dtype, device=like.device)
