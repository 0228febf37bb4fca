"""Transitions between two states A = {x <= a} and B = {x >= b} of a coordinate x, counted along trajectories.

    committor q(x)        how probable it is to come to B before A from x, between a and b
    transition paths      from the last time in A to the first time in B, and their durations
    flux                  transitions from A to B in unit time, in the stationary state

Crossings between two saved times are missed, so that a state is found late: as if it began 0.5826 sigma sqrt(dt)
further out (-zeta(1/2) / sqrt(2 pi)).  Its boundary is moved inwards by as much, and what is left is of order dt.

References: W. E and E. Vanden-Eijnden, J. Stat. Phys. 123, 503 (2006); M. Broadie, P. Glasserman and S. Kou, Math.
Finance 7, 325 (1997), for the boundary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fkdrift.errors import BadParameter
from fkdrift.numerics.estimates import Estimate

OVERSHOOT = 0.5825971579
"""-zeta(1/2) / sqrt(2 pi): how far a walk with steps of width 1 is beyond a boundary, on average."""


@dataclass(frozen=True)
class Transitions:
    """What was found of the transitions from A to B.

    Args:
        duration: of a transition path, on average.
        flux: transitions in unit time of a trajectory.
        durations: of all transition paths, (n,).
        places: middles of the bins between a and b, (bin,).
        committor: in each of them.
    """

    duration: Estimate
    flux: Estimate
    durations: Tensor
    places: Tensor
    committor: list[Estimate]


def transitions(x: Tensor, dt: float, a: float, b: float, *, sigma: float = 0.0, n_bins: int = 20) -> Transitions:
    """Count the transitions of independent stationary trajectories of one coordinate.

    Args:
        x: (time, walker), saved at every step.
        dt: time between two of them.
        a, b: the end of A and the beginning of B, a < b.
        sigma: volatility of x, for the boundaries; 0 for trajectories that are smooth between saved times.
        n_bins: of the committor.

    Raises:
        BadParameter: states that overlap, or between which there was no transition.

    Example:
        >>> walk = torch.tensor([[0.0, 1.0, 0.0, 1.0, 2.0, 3.0, 2.0]]).T.expand(-1, 2)
        >>> found = transitions(walk, 0.5, 0.0, 3.0, n_bins=1)
        >>> found.duration.mean, found.durations.tolist(), found.committor[0].mean
        (1.5, [1.5, 1.5], 0.6666...)
    """
    shift = OVERSHOOT * sigma * dt**0.5
    if not a + shift < b - shift:
        raise BadParameter(f"a = {a} and b = {b} leave nothing between the states: set a below b, or dt smaller")
    values = x.detach().cpu().double().numpy()
    state = np.where(values <= a + shift, -1, np.where(values >= b - shift, 1, 0))
    last, following = _filled(state), _filled(state[::-1])[::-1]
    arrives = (state == 1) & (np.roll(last, 1, 0) == -1)
    arrives[0] = False
    left = np.maximum.accumulate(np.where(state == -1, np.arange(len(state))[:, None], 0), 0)
    walkers = np.nonzero(arrives.T)[0]
    durations = dt * (np.arange(len(state))[:, None] - left).T[arrives.T]
    if not len(durations):
        raise BadParameter("there was no transition: give longer trajectories, or states that are nearer")
    count, total = (np.bincount(walkers, w, state.shape[1]) for w in (np.ones(len(walkers)), durations))
    edges = np.linspace(a, b, n_bins + 1)
    bins = np.where((state == 0) & (following != 0), np.digitize(values, edges[1:-1]), -1)
    found = [_ratio(((bins == k) & (following == 1)).sum(0), (bins == k).sum(0)) for k in range(n_bins)]
    flux = _ratio(count, np.full(len(count), dt * (len(state) - 1)))
    places = torch.from_numpy((edges[1:] + edges[:-1]) / 2)
    return Transitions(_ratio(total, count), flux, torch.from_numpy(durations), places, found)


def _filled(state: np.ndarray) -> np.ndarray:
    """The last state before or at every time, (time, walker); 0 where there was none."""
    seen = np.maximum.accumulate(np.where(state != 0, np.arange(len(state))[:, None], 0), 0)
    return np.take_along_axis(state, seen, 0)


def _ratio(above: np.ndarray, below: np.ndarray) -> Estimate:
    """The ratio of two means over independent walkers, with the error of its linearisation."""
    total = float(below.sum())
    if total == 0:
        return Estimate(float("nan"), float("inf"))
    mean = float(above.sum()) / total
    n = len(above)
    return Estimate(mean, float(np.sqrt(((above - mean * below) ** 2).sum() * n / max(1, n - 1))) / total)
