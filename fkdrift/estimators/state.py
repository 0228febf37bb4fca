"""Saving and restoring what a sampler's future depends on."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def restore(sampler: object, state: dict[str, Any]) -> None:
    """Set the saved attributes, on the sampler's own device."""
    for name, value in state.items():
        like = getattr(sampler, name)
        setattr(sampler, name, value.to(like) if isinstance(value, Tensor) else value)
