"""Distances between points: the one regularised length that potentials, references and networks share.

Because all of them use the same length, the singular parts of V and of a reference cancel exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor


def distance(x: Tensor, axis: int = -1) -> Tensor:
    """|x| along an axis, as sqrt(x.x + 1e-20): finite derivatives at coalescence, exact elsewhere."""
    return (x.square().sum(axis) + 1e-20).sqrt()


def pair_indices(n_particles: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Indices i < j of all pairs of particles, each of shape (pair,)."""
    i, j = torch.triu_indices(n_particles, n_particles, offset=1, device=device)
    return i, j


def pair_vectors(r: Tensor) -> Tensor:
    """r_i - r_j for every pair i < j: (batch, particle, dim) to (batch, pair, dim)."""
    i, j = pair_indices(r.shape[-2], r.device)
    return r.index_select(-2, i) - r.index_select(-2, j)


def nearest_image(x: Tensor, box: tuple[float, ...] | None) -> Tensor:
    """Vectors x between two points to the nearest image of the second in a box of these periods; x in open space."""
    if box is None:
        return x
    period = x.new_tensor(box)
    return x - period * (x / period).round()
