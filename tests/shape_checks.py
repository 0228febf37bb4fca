"""The type checker of the tests: shapes of tensors only, so that tests of bad input meet fkdrift's own errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beartype import beartype

SHAPES = ("Positions", "PerParticle", "PerWalker", "History", "Accumulated")


def check_shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """beartype, for the annotations that name a shape of fkdrift.tensor_types."""
    annotations = getattr(function, "__annotations__", None)
    if annotations:
        function.__annotations__ = {name: hint for name, hint in annotations.items() if _is_shape(hint)}
    return beartype(function)


def _is_shape(hint: object) -> bool:
    text = hint if isinstance(hint, str) else repr(hint)
    return "jaxtyping" in text or any(shape in text for shape in SHAPES)
