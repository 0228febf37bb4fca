"""Potentials from sympy expressions."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fkdrift.errors import BadFormula, require_extra
from fkdrift.hamiltonian.formula import FormulaPotential
from fkdrift.hamiltonian.names import VARIABLES
from fkdrift.hamiltonian.potential import FunctionPotential, Potential

FUNCTIONS = {"Abs": torch.abs, "Min": torch.minimum, "Max": torch.maximum, "pi": math.pi, "E": math.e}
IN_FORMULAS = {"Abs": "abs", "Min": "minimum", "Max": "maximum"}
"""What sympy calls otherwise than torch, and than formulas do."""


def from_sympy(expression: Any, coordinates: Sequence[Any] | None = None, **parameters: Any) -> Potential:
    """V from a sympy expression.

    Args:
        expression: of the symbols x, y, z and r of one particle; or of the coordinates.
        coordinates: symbols for any number of particles, in the order of positions (particle, dim), such as
            symbols("x1 x2") for two particles on a line; `n_particles` or `n_dims` then says which.
        parameters: as for a callable: n_particles, n_dims, masses, period, identical; without coordinates n_dims only.

    Returns:
        Without coordinates a formula, which a saved run can name again; with them a callable, differentiated by torch.

    Raises:
        BadFormula: the expression has a symbol that is no coordinate.
        MissingExtra: sympy is not installed.

    Example:
        >>> import sympy
        >>> x, y = sympy.symbols("x y")
        >>> from_sympy(x**2 / 2 + x**4 / 10)(torch.tensor([[[2.0]]]))
        tensor([3.6000])
        >>> from_sympy((x - y) ** 2, (x, y), n_particles=2)(torch.tensor([[[2.0], [0.5]]]))
        tensor([2.2500])
    """
    sympy = require_extra("sympy", "symbolic")
    expression = sympy.sympify(expression)
    names = list(VARIABLES) if coordinates is None else [str(symbol) for symbol in coordinates]
    if unknown := sorted(str(symbol) for symbol in expression.free_symbols if str(symbol) not in names):
        raise BadFormula(
            f"{expression} has the symbols {', '.join(unknown)}, which are no coordinates ({', '.join(names)}): give "
            f"them numbers, as expression.subs({{{unknown[0]!r}: 1.0}}), or name them in coordinates"
        )
    if coordinates is None:
        formula = re.sub(r"\b(Abs|Min|Max)\b", lambda found: IN_FORMULAS[found[0]], str(sympy.N(expression)))
        return FormulaPotential(formula, **parameters)
    value = sympy.lambdify(list(coordinates), expression, modules=[FUNCTIONS, torch])
    n_particles = parameters.get("n_particles", 1)
    parameters.setdefault("n_dims", len(coordinates) // n_particles)

    def V(r: Tensor) -> Tensor:
        return value(*r.flatten(1).unbind(-1)) + torch.zeros_like(r[:, 0, 0])

    return FunctionPotential(V, **parameters)
