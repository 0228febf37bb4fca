"""The type checker of the tests: shapes of tensors only, so that tests of bad input meet fkdrift's own errors."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import jaxtyping
from beartype import beartype

SHAPES = ("Positions", "PerParticle", "PerWalker", "History", "Accumulated")
CONTEXT = jaxtyping.jaxtyped("context")


def install(modules: Iterable[str]) -> None:
    """Check the shapes of all functions of these modules, nested ones too, and fields of data classes.

    jaxtyping's import hook decorates each of them by `jaxtyped`, which binds the arguments of every call and checks
    them twice, shapes or not: a fifth of the time of all tests.  So another decorator has its place.
    """
    jaxtyping.install_import_hook(modules, "shape_checks.check_shapes")
    jaxtyping.jaxtyped = lambda typechecker: check_shapes


def check_shapes(checked: Any) -> Any:
    """A function or class that refuses tensors of other shapes, or itself if no shape is in its annotations."""
    if isinstance(checked, type):
        if dataclasses.is_dataclass(checked) and "__init__" in vars(checked):
            checked.__init__ = check_shapes(checked.__init__)
        return checked
    hints = {name: _resolved(hint, checked) for name, hint in getattr(checked, "__annotations__", {}).items()}
    shapes = {name: hint for name, hint in hints.items() if _is_shape(hint)}
    return _one_size_for_each_name(checked, shapes) if shapes else checked


def _one_size_for_each_name(function: Callable[..., Any], shapes: dict[str, Any]) -> Callable[..., Any]:
    """beartype, where `batch` is the same number in every argument and in what is returned."""
    every, function.__annotations__ = function.__annotations__, shapes
    typed = beartype(function)
    function.__annotations__ = every

    @functools.wraps(function)
    def within_a_context(*args: Any, **kwargs: Any) -> Any:
        with CONTEXT:
            return typed(*args, **kwargs)

    return within_a_context


def _resolved(hint: object, function: Callable[..., Any]) -> object:
    """What an annotation means in the module of a function; as it is where a name is not known there."""
    try:
        return eval(hint, function.__globals__) if isinstance(hint, str) else hint
    except NameError:
        return hint


def _is_shape(hint: object) -> bool:
    return any(shape in hint for shape in SHAPES) if isinstance(hint, str) else "jaxtyping" in repr(hint)
