"""Smooth increasing maps of the line, one for each row of parameters, with their slope and their exact inverse.

    u = e^a x + b + sum_k w_k tanh((x - c_k) / s_k),   w_k, s_k > 0         steps: where z rises fast, p has a mode
    z = sinh(delta asinh(u) + epsilon)                                      tails: z ~ |x|^delta far out

With z normal, p(x) falls like exp(-|x|^(2 delta) / 2) up to constants: delta = 3/2 is the tail exp(-c |x|^3) of a
ground state in a quartic well.  All maps are analytic, so every derivative of log p exists.

A confined map has no tails of its own to learn.  Instead

    u = e^a x + h(x) + b + sum_k ...,     h(x) = x (1 - (1 + (x / R)^4)^(-1/4)),     z = u

rises with a slope above 1 beyond R, whatever its parameters: no map that was fitted to data near the origin can send a
normal number far away.  h is of fifth order in x.

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
N_SHAPE, N_SHAPE_CONFINED = 4, 2
REACH = 3.0  # R, in units of the coordinates: what confined maps leave free


class Mapped(NamedTuple):
    """Images z and the logarithms of the slopes dz/dx, both in the shape of x."""

    value: Tensor
    log_slope: Tensor


def n_parameters(n_steps: int, confined: bool = False) -> int:
    """How many numbers describe one map with n_steps steps."""
    return (N_SHAPE_CONFINED if confined else N_SHAPE) + 3 * n_steps


def identity_parameters(n_steps: int, confined: bool = False, reach: float = 2.5) -> Tensor:
    """Parameters (n_parameters,) of a map close to z = x, with its steps spread over [-reach, reach]."""
    centres = torch.linspace(-reach, reach, n_steps) if n_steps > 1 else torch.zeros(n_steps)
    width = 2 * reach / max(n_steps, 2)
    weights = torch.full((n_steps,), math.log(math.expm1(START_STEP * width)))
    widths = torch.full((n_steps,), math.log(math.expm1(width)))
    shape = torch.tensor([math.log(START_SLOPE), 0.0, math.log(math.expm1(1.0)), 0.0])
    return torch.cat([shape[: n_parameters(0, confined)], weights, centres, widths])


def transform(x: Tensor, parameters: Tensor, confined: bool = False) -> Mapped:
    """z and log dz/dx.

    Args:
        x: (...,).
        parameters: (..., n_parameters), which broadcasts against x: log slope a, shift b, softplus^-1 of delta,
            epsilon, then softplus^-1 of the weights w, the centres c and softplus^-1 of the widths s; a confined map
            has no delta and epsilon.
        confined: see above.
    """
    shape, steps = _unpack(parameters, confined)
    u, rise = _rising(x, shape, steps, confined)
    u = u + shape[1]
    if confined:
        return Mapped(u, rise.log())
    delta, epsilon = shape[2:]
    y = delta * torch.asinh(u) + epsilon
    return Mapped(torch.sinh(y), rise.log() + delta.log() + log_cosh(y) - 0.5 * torch.log1p(u.square()))


def log_cosh(y: Tensor) -> Tensor:
    """log cosh y without overflow."""
    return y + softplus(-2 * y, threshold=SOFTPLUS_LINEAR) - math.log(2)


def inverse(z: Tensor, parameters: Tensor, confined: bool = False) -> Tensor:
    """x with transform(x) = z, to rounding; differentiable once in z and the parameters.

    The tails are undone in closed form.  The steps are bounded, so x is bracketed; Newton's method, replaced by a
    bisection wherever it leaves the bracket, finds it.
    """
    shape, steps = _unpack(parameters, confined)
    slope, shift, *tails = shape
    u = (z if confined else torch.sinh((torch.asinh(z) - tails[1]) / tails[0])) - shift

    with torch.no_grad():
        reach = steps[0].sum(-1)
        low, high = (u - reach) / slope, (u + reach) / slope
        if confined:  # h has the sign of x: it brings x closer to 0, and not beyond
            low, high = low.clamp_max(0), high.clamp_min(0)
        x = (u / (slope + 1 if confined else slope)).clamp(low, high).clone()
        tolerance = 4 * torch.finfo(u.dtype).eps
        for _ in range(MAX_ITERATIONS):
            value, rise = _rising(x, shape, steps, confined)
            too_high = value > u
            low, high = torch.where(too_high, low, x), torch.where(too_high, x, high)
            newton = x - (value - u) / rise
            inside = (newton > low) & (newton < high)
            proposal = torch.where(inside, newton, (low + high) / 2)
            done = (proposal - x).abs() <= tolerance * (1 + x.abs())
            x = proposal
            if bool(done.all()):
                break
    value, rise = _rising(x, shape, steps, confined)
    return x - (value - u) / rise.detach()


def _rising(x: Tensor, shape: tuple[Tensor, ...], steps: tuple[Tensor, ...], confined: bool) -> tuple[Tensor, Tensor]:
    """u without its shift b, and du/dx."""
    slope, (weight, centre, width) = shape[0], steps
    step = torch.tanh((x[..., None] - centre) / width)
    u, rise = slope * x + (weight * step).sum(-1), slope + (weight / width * (1 - step.square())).sum(-1)
    if not confined:
        return u, rise
    growth = 1 + (x / REACH).pow(4)
    return u + x * (1 - growth.pow(-0.25)), rise + 1 - growth.pow(-1.25)


def _unpack(parameters: Tensor, confined: bool) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Slope and shift, then delta and epsilon unless confined; and the weights, centres and widths of the steps."""
    n_shape = n_parameters(0, confined)
    n_steps = (parameters.shape[-1] - n_shape) // 3
    a, shift, *tails = parameters[..., :n_shape].unbind(-1)
    weight, centre, width = parameters[..., n_shape:].split(n_steps, -1)
    shape = (a.exp(), shift, *([] if confined else [softplus(tails[0]) + LEAST_DELTA, tails[1]]))
    return shape, (softplus(weight), centre, softplus(width) + LEAST_WIDTH)
