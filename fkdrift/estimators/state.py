"""Saving and restoring what a sampler's future depends on: whole arrays of walkers, whoever has which of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from fkdrift.numerics.workers import ALONE, Workers


def saved(
    sampler: object, names: Iterable[str], axes: Mapping[str, int] | None = None, workers: Workers = ALONE
) -> dict[str, Any]:
    """The attributes of these names.

    Args:
        sampler: that has them.
        names: of attributes.
        axes: along which axis of which of them the walkers are; gathered from all workers.
        workers: that share them.
    """
    axes = axes or {}
    values = {name: getattr(sampler, name) for name in names}
    return {name: workers.gather(v, axes[name]) if name in axes else v for name, v in values.items()}


def restore(
    sampler: object, state: Mapping[str, Any], axes: Mapping[str, int] | None = None, workers: Workers = ALONE
) -> None:
    """Set the saved attributes, on the sampler's own device; of walkers the share of this worker."""
    axes = axes or {}
    for name, value in state.items():
        like = getattr(sampler, name)
        mine = workers.own(value, axes[name]) if name in axes else value
        setattr(sampler, name, mine.to(like) if isinstance(mine, Tensor) else mine)
