"""Systematic resampling: unequal weights are turned into copies, with the least noise that independent draws can have.

One uniform number u for each population places M equally spaced points (k + u) / M on the cumulated weights; walker i
is copied as often as points fall on its share, M w_i / sum w times, rounded up or down.
"""

from __future__ import annotations

import torch
from torch import Tensor


def systematic(log_weights: Tensor, generator: torch.Generator) -> Tensor:
    """Which walker each walker is replaced by.

    Args:
        log_weights: (population, walker), up to a constant for each population.
        generator: source of the one uniform number of each population.

    Returns:
        Indices (population, walker), ascending; all copies then have equal weights.

    Example:
        >>> systematic(torch.tensor([[0.0, 0.0, -100.0, -100.0]]), torch.Generator().manual_seed(0))
        tensor([[0, 0, 1, 1]])
    """
    n, m = log_weights.shape
    cumulated = log_weights.double().softmax(1).cumsum(1)
    u = torch.rand((n, 1), generator=generator, dtype=torch.float64, device=log_weights.device)
    points = (torch.arange(m, dtype=torch.float64, device=log_weights.device) + u) / m
    return torch.searchsorted(cumulated, points).clamp_max(m - 1)
