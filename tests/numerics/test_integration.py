"""Runge-Kutta steps against a solution in closed form."""

from __future__ import annotations

import math

import torch

from fkdrift.numerics.integration import rk4


def test_rk4_is_of_fourth_order() -> None:
    def error(n_steps: int) -> float:
        (x,) = rk4(lambda t, state: (math.cos(t) * state[0],), (torch.ones(1).double(),), 0.0, 2.0, n_steps)
        return abs(float(x) - math.exp(math.sin(2.0)))

    assert 14 < error(16) / error(32) < 18
    assert error(64) < 1e-7


def test_rk4_goes_back_and_is_differentiable() -> None:
    """dx/dt = a x from t = 1 to 0: x(0) = e^-a, and its derivative to a is -e^-a; the second variable counts time."""
    a = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    x, t = rk4(lambda t, state: (a * state[0], torch.ones_like(state[1])), (torch.ones(()).double(),) * 2, 1.0, 0.0, 20)
    (slope,) = torch.autograd.grad(x, a)
    assert abs(x.item() - math.exp(-0.7)) < 1e-7
    assert abs(slope.item() + math.exp(-0.7)) < 1e-6
    assert abs(t.item()) < 1e-12
