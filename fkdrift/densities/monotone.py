"""Smooth increasing maps of the line, one for each row of parameters, with their slope and their exact inverse.

    u = e^a x + b + sum_k w_k tanh((x - c_k) / s_k),   w_k, s_k > 0         steps: where z rises fast, p has a mode
    z = sinh(delta asinh(u) + epsilon)                                      tails: z ~ |x|^delta far out

With z normal, p(x) falls like exp(-|x|^(2 delta) / 2) up to constants: delta = 3/2 is the tail exp(-c |x|^3) of a
ground state in a quartic well.  Both maps are analytic, so every derivative of log p exists.

Reference: M. C. Jones and A. Pewsey, Sinh-arcsinh distributions, Biometrika 96, 761 (2009).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

MAX_ITERATIONS = 200
LEAST_DELTA, LEAST_WIDTH = 0.05, 0.01  # of the sinh-arcsinh and of a step: slopes stay bounded
START_SLOPE, START_STEP = 0.9, 0.1  # z = x nearly, with a slope a < 1 to make room for steps of positive weight
SOFTPLUS_LINEAR = 40  # exp(-40) is below the rounding of float64
N_SHAPE = 4


class Mapped(NamedTuple):
    """Images z and the logarithms of the slopes dz/dx, both in the shape of x."""

    value: Tensor
    log_slope: Tensor


def n_parameters(n_steps: int) -> int:
    """How many numbers describe one map with n_steps steps."""
    return N_SHAPE + 3 * n_steps


def identity_parameters(n_steps: int, reach: float = 2.5) -> Tensor:
    """Parameters (n_parameters,) of a map close to z = x, with its steps spread over [-reach, reach]."""
    centres = torch.linspace(-reach, reach, n_steps) if n_steps > 1 else torch.zeros(n_steps)
    width = 2 * reach / max(n_steps, 2)
    weights = torch.full((n_steps,), math.log(math.expm1(START_STEP * width)))
    widths = torch.full((n_steps,), math.log(math.expm1(width)))
    return torch.cat(
        [torch.tensor([math.log(START_SLOPE), 0.0, math.log(math.expm1(1.0)), 0.0]), weights, centres, widths]
    )


def transform(x: Tensor, parameters: Tensor) -> Mapped:
    """z and log dz/dx.

    Args:
        x: (...,).
        parameters: (..., n_parameters), which broadcasts against x: log slope a, shift b, softplus^-1 of delta,
            epsilon, then softplus^-1 of the weights w, the centres c and softplus^-1 of the widths s.
    """
    slope, shift, delta, epsilon, weight, centre, width = _unpack(parameters)
    step = torch.tanh((x[..., None] - centre) / width)
    u = slope * x + shift + (weight * step).sum(-1)
    rise = slope + (weight / width * (1 - step.square())).sum(-1)
    y = delta * torch.asinh(u) + epsilon
    return Mapped(torch.sinh(y), rise.log() + delta.log() + log_cosh(y) - 0.5 * torch.log1p(u.square()))


def log_cosh(y: Tensor) -> Tensor:
    """log cosh y without overflow."""
    return y + softplus(-2 * y, threshold=SOFTPLUS_LINEAR) - math.log(2)


def inverse(z: Tensor, parameters: Tensor) -> Tensor:
    """x with transform(x) = z, to rounding; differentiable once in z and the parameters.

    The tails are undone in closed form.  The steps are bounded, so x is bracketed; Newton's method, replaced by a
    bisection wherever it leaves the bracket, finds it.
    """
    slope, shift, delta, epsilon, weight, centre, width = _unpack(parameters)
    u = torch.sinh((torch.asinh(z) - epsilon) / delta) - shift

    def rising(x: Tensor) -> tuple[Tensor, Tensor]:
        step = torch.tanh((x[..., None] - centre) / width)
        return slope * x + (weight * step).sum(-1), slope + (weight / width * (1 - step.square())).sum(-1)

    with torch.no_grad():
        reach = weight.sum(-1)
        low, high = (u - reach) / slope, (u + reach) / slope
        x = ((u / slope).clamp(low, high)).clone()
        tolerance = 4 * torch.finfo(u.dtype).eps
        for _ in range(MAX_ITERATIONS):
            value, rise = rising(x)
            too_high = value > u
            low, high = torch.where(too_high, low, x), torch.where(too_high, x, high)
            newton = x - (value - u) / rise
            inside = (newton > low) & (newton < high)
            proposal = torch.where(inside, newton, (low + high) / 2)
            done = (proposal - x).abs() <= tolerance * (1 + x.abs())
            x = proposal
            if bool(done.all()):
                break
    value, rise = rising(x)
    return x - (value - u) / rise.detach()


def _unpack(parameters: Tensor) -> tuple[Tensor, ...]:
    """Slope, shift, delta, epsilon, and the weights, centres and widths of the steps."""
    n_steps = (parameters.shape[-1] - N_SHAPE) // 3
    a, shift, delta, epsilon = parameters[..., :N_SHAPE].unbind(-1)
    weight, centre, width = parameters[..., N_SHAPE:].split(n_steps, -1)
    return (
        a.exp(),
        shift,
        softplus(delta) + LEAST_DELTA,
        epsilon,
        softplus(weight),
        centre,
        softplus(width) + LEAST_WIDTH,
    )
