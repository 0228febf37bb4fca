"""Ordinary differential equations by Runge-Kutta steps of fixed length, through which gradients pass."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Tensors = tuple[Tensor, ...]


def rk4(
    velocity: Callable[[float, Tensors], Tensors], state: Tensors, start: float, end: float, n_steps: int
) -> Tensors:
    """Integrate d(state)/dt = velocity(t, state) by n_steps classical Runge-Kutta steps.

    Args:
        velocity: time and a tuple of tensors to their rates.
        state: where to start, tensors of any shapes.
        start, end: times; end may be before start.
        n_steps: of equal length.

    Returns:
        The tensors at `end`.

    Example:
        >>> rk4(lambda t, x: (x[0],), (torch.ones(1),), 0.0, 1.0, 10)[0].item()    # e, to 2e-6
        2.71827...
    """
    h = (end - start) / n_steps

    def moved(state: Tensors, rate: Tensors, by: float) -> Tensors:
        return tuple(x + by * dx for x, dx in zip(state, rate, strict=True))

    for k in range(n_steps):
        t = start + k * h
        a = velocity(t, state)
        b = velocity(t + h / 2, moved(state, a, h / 2))
        c = velocity(t + h / 2, moved(state, b, h / 2))
        d = velocity(t + h, moved(state, c, h))
        rate = tuple((i + 2 * j + 2 * m + n) / 6 for i, j, m, n in zip(a, b, c, d, strict=True))
        state = moved(state, rate, h)
    return state
