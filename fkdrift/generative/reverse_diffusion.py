"""Ways back from noise to data with one trained diffusion: the chain, the reverse equation, and the probability flow.

With z = cos(phi) z_0 + sin(phi) e the noising process is a stochastic differential equation in phi; its reversal and
the ordinary equation with the same densities are

    reverse SDE          z' = cos(phi') z_0 + sqrt(sin^2(phi') - c^2) e + c xi,       from phi to phi' < phi
    probability flow     dz / dphi = w(z, phi)

where z_0, e and w are what the network takes z to be made of, and c^2 is the width of q(z' | z, z_0).  The first is
solved exactly over each step with z_0 held fixed; the second by a Runge-Kutta method, in either direction, and gives
the density of a datum:

    log p(x) = log p(z_T) + int div w dphi.

A multistep method solves the second with one evaluation of the network a step, to second order in lambda =
-log tan(phi) and exactly where z_0 does not change:

    z' = [ sin(phi') z + sin(phi - phi') (z_0 + (z_0 - z_0 of the step before) / 2) ] / sin(phi)

for even steps in lambda.

References: Song et al., Score-based generative modelling through SDEs, ICLR 2021; Song, Meng and Ermon, ICLR 2021;
Lu et al., DPM-Solver++, arXiv:2211.01095 (2022).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from fkdrift.errors import BadParameter
from fkdrift.generative.chain import generate
from fkdrift.generative.diffusion import DDPM
from fkdrift.numerics.differentiation import field_and_divergence, signs
from fkdrift.numerics.integration import Tensors, rk4


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
        angles = torch.linspace(*_levels(model), n_steps + 1, dtype=model.phi.dtype, device=model.phi.device)
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
    highest, lowest = _levels(model)
    with torch.no_grad():
        if until is not None:
            return _flow(model, start, highest, until, n_steps)
        if backwards:
            return _flow(model, model.standardise(start), lowest, highest, n_steps)
        return _flow(model, start, highest, lowest, n_steps) * scale + mean


def multistep(model: DDPM, noise: Tensor, n_calls: int = 20) -> Tensor:
    """Noise (batch, size) to data along the probability flow with few evaluations of the network: DPM-Solver++(2M).

    Args:
        model: trained.
        noise: z_T.
        n_calls: evaluations of the network, at noise levels evenly spaced in lambda; the last one takes out the noise
            that is left.  The error of the path falls with the square of their number.

    Returns:
        (batch, size).

    Raises:
        BadParameter: fewer than two evaluations.
    """
    if n_calls < 2:
        raise BadParameter(f"n_calls = {n_calls} is not allowed: give at least 2")
    highest, lowest = (math.log(math.tan(phi)) for phi in _levels(model))
    angles = torch.linspace(highest, lowest, n_calls, dtype=model.phi.dtype, device=model.phi.device).exp().atan()
    z, before = noise, None
    with torch.no_grad():
        for phi, lower in pairwise(angles):
            clean, _ = model.parts(z, phi.expand(len(z)))
            ahead = clean if before is None else clean + (clean - before) / 2
            z, before = (lower.sin() * z + (phi - lower).sin() * ahead) / phi.sin(), clean
        clean, _ = model.parts(z, angles[-1].expand(len(z)))
        return clean * model.standardise.scale + model.standardise.mean


def flow_log_prob(model: DDPM, x: Tensor, n_steps: int = 50, generator: torch.Generator | None = None) -> Tensor:
    """log p(x) under the probability flow, (batch,), nats.

    It is the density of data blurred by the least noise level of the chain, exact but for the step.  The divergence is
    taken component by component, so the cost grows with the size of the data.

    Args:
        model: trained.
        x: data (batch, size).
        n_steps: of the Runge-Kutta method.
        generator: of one random probe of the divergence for each datum instead, at a cost that does not grow: each
            number is then unbiased only, and their average over data has an error bar that covers it.

    Reference: Song et al., ICLR 2021; Skilling, in Maximum entropy and Bayesian methods (1989), and Hutchinson (1990).
    """
    highest, lowest = _levels(model)
    probe = None if generator is None else signs(x, generator)

    def rates(phi: float, state: Tensors) -> Tensors:
        with torch.no_grad():
            return field_and_divergence(lambda z: _velocity(model, z, phi), state[0], probe)

    z, change = rk4(rates, (model.standardise(x), x.new_zeros(len(x))), lowest, highest, n_steps)
    return model.prior(len(x)).log_prob(z) + change - model.standardise.log_volume


def _flow(model: DDPM, z: Tensor, start: float, end: float, n_steps: int) -> Tensor:
    """dz / dphi = w(z, phi) between two noise levels."""
    return rk4(lambda phi, state: (_velocity(model, state[0], phi),), (z,), start, end, n_steps)[0]


def _velocity(model: DDPM, z: Tensor, phi: float) -> Tensor:
    """w(z, phi) for one phi."""
    return model.velocity(z, model.phi.new_full((len(z),), phi))


def _levels(model: DDPM) -> tuple[float, float]:
    """The highest noise level of the chain, and its lowest."""
    return float(model.phi[-1]), float(model.phi[0])


def _noise(model: DDPM, n: int, generator: torch.Generator) -> Tensor:
    like = model.origin
    return torch.randn((n, len(like)), generator=generator, dtype=like.dtype, device=like.device)
