"""Potentials written as formulas: "x**2/2 + 0.1*x**4" to V(r) for one particle.

The text is parsed by Python's ast and translated, node by node, from a fixed list of variables, operators
and functions into closures on tensors.  Nothing is ever evaluated as Python, and constants are folded once
with a check that they are finite, so a formula can neither run code nor grow without bound.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

import torch
from torch import Tensor

from fkdrift.errors import BadFormula
from fkdrift.hamiltonian.names import VARIABLES
from fkdrift.hamiltonian.potential import Potential, require, require_count
from fkdrift.numerics.geometry import distance
from fkdrift.tensor_types import PerWalker, Positions

CONSTANTS = {"pi": math.pi, "e": math.e}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sqrt": torch.sqrt,
    "exp": torch.exp,
    "log": torch.log,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "asin": torch.asin,
    "acos": torch.acos,
    "atan": torch.atan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "tanh": torch.tanh,
    "sech": lambda x: 2 * (-x.abs()).exp() / (1 + (-2 * x.abs()).exp()),  # 1/cosh without its overflow
    "erf": torch.erf,
    "abs": torch.abs,
}
FUNCTIONS |= {f"arc{name[1:]}": FUNCTIONS[name] for name in ("asin", "acos", "atan")}  # as numpy calls them
PAIR_FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "minimum": torch.minimum,
    "maximum": torch.maximum,
    "atan2": torch.atan2,
    "arctan2": torch.atan2,
}
MAX_LENGTH = 2000
MAX_DEPTH = 150
LARGEST = torch.finfo(torch.float32).max
"""Of a constant: V is evaluated in float32 too."""

_OPERATORS: dict[type[ast.operator], Callable] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_COMPARISONS: dict[type[ast.cmpop], Callable] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}

Variables = dict[str, Tensor]
Piece = float | Callable[[Variables], Tensor]
"""A translated piece of the formula: its value where it is constant, otherwise a function of the variables."""


@dataclass(frozen=True)
class FormulaPotential(Potential):
    """V(x, y, z) of one particle, from a formula.

    Args:
        expression: uses x, y, z and r = sqrt(x^2 + y^2 + z^2), which is smooth enough at 0 to be differentiated.
        n_dims: dimensions of space; by default the highest coordinate used, and 3 where only r is.

    Raises:
        BadFormula: the text is not a formula; the message marks the place.

    Example:
        >>> V = FormulaPotential("x**2/2 + 0.1*x**4")
        >>> V(torch.tensor([[[2.0]]]))
        tensor([3.6000])
        >>> FormulaPotential("-exp(-r)/r").n_dims
        3
    """

    expression: str
    n_dims: int = 0

    formula = "V = f(x, y, z, r), a formula"

    def __post_init__(self) -> None:
        lowest = max((VARIABLES.index(v) + 1 for v in self._variables - {"r"}), default=0)
        object.__setattr__(self, "n_dims", self.n_dims or lowest or 3)
        require_count(n_dims=self.n_dims)
        require(
            self.n_dims >= lowest,
            "n_dims",
            self.n_dims,
            f"at least {lowest}, as {self.expression!r} uses {lowest} coordinates",
        )

    def __call__(self, r: Positions) -> PerWalker:
        position = r[:, 0]
        values = dict(zip(VARIABLES[:3], position.unbind(-1), strict=False))
        if "r" in self._variables:
            values["r"] = distance(position)
        return translate(self.expression)[0](values)

    @property
    def name(self) -> str:
        return self.expression

    @property
    def parameters(self) -> dict[str, object]:
        return {"n_dims": self.n_dims}

    @property
    def isotropic(self) -> bool:
        return self._variables == {"r"}

    @property
    def _variables(self) -> frozenset[str]:
        return translate(self.expression)[1]


@lru_cache(maxsize=256)
def translate(
    expression: str, variables: tuple[str, ...] = VARIABLES
) -> tuple[Callable[[Variables], Tensor], frozenset[str]]:
    """The formula as a function of its variables, and the names of the variables it uses.

    Args:
        expression: the formula.
        variables: the names it may use.

    Raises:
        BadFormula: the text is not a formula, or is a constant; the message marks the place.

    Example:
        >>> value, used = translate("x1 - x2", ("x1", "x2"))
        >>> value({"x1": torch.tensor(3.0), "x2": torch.tensor(1.0)}).item()
        2.0
    """
    text = " ".join(expression.split())
    tree = _parse(text)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} & set(variables)
    piece = _Translator(text, variables).piece(tree, 0)
    if not callable(piece):
        raise BadFormula(f"the formula {text!r} uses none of {', '.join(variables)}: a constant binds nothing")
    return piece, frozenset(used)


def _parse(text: str) -> ast.expr:
    """The syntax tree of one expression."""
    if not 0 < len(text) <= MAX_LENGTH:
        raise BadFormula(
            f"the formula has {len(text)} characters; 1 to {MAX_LENGTH} are allowed: put it in a file.py:Name"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text, mode="eval").body
    except SyntaxError as error:
        start = max((error.offset or 1) - 1, 0)
        raise BadFormula(
            f"cannot read the formula: {error.msg}{_hint(text)}\n{_mark(text, start, start + 1)}"
        ) from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise BadFormula(
            f"cannot read the formula {text[:80]!r}: {error or type(error).__name__}; simplify it"
        ) from None


def _hint(text: str) -> str:
    """A guess at what was meant by notation that is not Python's."""
    hints = {"²": "write x**2 for x²", "|": "write abs(x) for |x|", "=": "give only the right-hand side, without ="}
    found = [hint for sign, hint in hints.items() if sign in text]
    return "; " + (found[0] if found else "write products with *, such as 2*x, and close every bracket")


def _mark(text: str, start: int, end: int) -> str:
    """The formula with carets under the characters from start to end (a window of it where it is long)."""
    left = max(0, start - 60)
    window = text[left : left + 120]
    return f"    {window}\n    {' ' * (start - left)}{'^' * max(1, min(end, left + 120) - start)}"


class _Translator:
    """From nodes of the syntax tree to numbers and closures."""

    def __init__(self, text: str, variables: tuple[str, ...]) -> None:
        self.text, self.variables = text, variables
        self.allowed = (
            f"allowed are numbers, {', '.join((*variables, *CONSTANTS))}, + - * / **, "
            f"{', '.join((*FUNCTIONS, *PAIR_FUNCTIONS))} and where(condition, a, b)"
        )

    def piece(self, node: ast.expr, depth: int) -> Piece:
        if depth > MAX_DEPTH:
            self.refuse(node, f"the formula is nested more than {MAX_DEPTH} deep; write it in a file.py:Name")
        match node:
            case ast.Constant(value=bool() | str() | bytes() | complex() | None):
                self.refuse(node, f"{node.value!r} is not a real number")
            case ast.Constant(value=int() | float()):
                return self.number(node, lambda: float(node.value))  # type: ignore[arg-type]
            case ast.Name(id=name) if name in CONSTANTS:
                return CONSTANTS[name]
            case ast.Name(id=name) if name in self.variables:
                return operator.itemgetter(name)
            case ast.Name(id=name):
                self.refuse(node, f"unknown name {name!r}; {self.allowed}")
            case ast.UnaryOp(op=ast.UAdd()):
                return self.piece(node.operand, depth + 1)
            case ast.UnaryOp(op=ast.USub()):
                return self.apply(node, operator.neg, self.piece(node.operand, depth + 1))
            case ast.BinOp(op=ast.BitXor()):
                self.refuse(node, "^ is not a power in Python: write ** instead")
            case ast.BinOp(op=op) if type(op) in _OPERATORS:
                left, right = self.piece(node.left, depth + 1), self.piece(node.right, depth + 1)
                return self.apply(node, _OPERATORS[type(op)], left, right)
            case ast.Call(func=ast.Name(id=name), keywords=[]):
                return self.call(node, name, depth + 1)
        self.refuse(node, f"{type(node).__name__.lower()} is not allowed; {self.allowed}")

    def call(self, node: ast.Call, name: str, depth: int) -> Piece:
        n_args = 1 if name in FUNCTIONS else 2 if name in PAIR_FUNCTIONS else 3
        if n_args == 3 and name != "where":
            self.refuse(node, f"unknown function {name!r}; {self.allowed}")
        if len(node.args) != n_args:
            self.refuse(node, f"{name} takes {n_args} argument{'s' * (n_args > 1)}, not {len(node.args)}")
        if name == "where":
            condition = self.condition(node.args[0], depth)
            yes, no = (self.piece(arg, depth) for arg in node.args[1:])
            return lambda v: _branches(condition(v), yes, no, v)
        function: Callable[..., Tensor] = FUNCTIONS.get(name) or PAIR_FUNCTIONS[name]
        pieces = [self.piece(arg, depth) for arg in node.args]
        if all(not callable(piece) for piece in pieces):
            exact = [torch.tensor(piece, dtype=torch.float64) for piece in pieces]
            return self.number(node, lambda: function(*exact).item())
        return lambda v: function(*(_tensor(piece, v) for piece in pieces))

    def condition(self, node: ast.expr, depth: int) -> Callable[[Variables], Tensor]:
        """A comparison, possibly chained, such as -1 < x <= 1."""
        if not isinstance(node, ast.Compare) or any(type(op) not in _COMPARISONS for op in node.ops):
            self.refuse(node, "the first argument of where is a comparison with <, <=, > or >=")
        pieces = [self.piece(part, depth) for part in (node.left, *node.comparators)]
        steps = [(_COMPARISONS[type(op)], a, b) for op, a, b in zip(node.ops, pieces, pieces[1:], strict=False)]

        def holds(v: Variables) -> Tensor:
            parts = [compare(_tensor(a, v), _tensor(b, v)) for compare, a, b in steps]
            return torch.stack(parts).all(0)

        return holds

    def apply(self, node: ast.expr, function: Callable, *pieces: Piece) -> Piece:
        """The operator on its operands: at once where all are constant, otherwise as a closure."""
        if all(not callable(piece) for piece in pieces):
            return self.number(node, lambda: function(*pieces))
        if len(pieces) == 1:
            (a,) = pieces
            return lambda v: function(_value(a, v))
        a, b = pieces
        return lambda v: function(_value(a, v), _value(b, v))

    def number(self, node: ast.expr, compute: Callable[[], float]) -> float:
        """A constant, refused unless it is real and finite."""
        try:
            value = compute()
        except (OverflowError, ZeroDivisionError) as error:
            self.refuse(node, f"this constant has no finite value ({error})")
        if isinstance(value, complex) or not abs(value) <= LARGEST:
            self.refuse(node, f"this constant is {value}; only real, finite numbers up to {LARGEST:.1e} are allowed")
        return value

    def refuse(self, node: ast.expr, reason: str) -> NoReturn:
        encoded = self.text.encode()  # ast counts bytes
        start = len(encoded[: node.col_offset].decode())
        end = len(encoded[: node.end_col_offset].decode())
        raise BadFormula(f"{reason}\n{_mark(self.text, start, end)}")


def _branches(condition: Tensor, yes: Piece, no: Piece, v: Variables) -> Tensor:
    """Each branch where it is taken: where the other one is, its value or gradient need not exist."""
    result = torch.zeros_like(next(iter(v.values())))
    for taken, piece in ((condition, yes), (~condition, no)):
        if taken.any():
            inside = _tensor(piece, {name: value[taken] for name, value in v.items()})
            result = result.masked_scatter(taken, inside)
    return result


def _value(piece: Piece, v: Variables) -> float | Tensor:
    return _operand(piece, v) if callable(piece) else piece


def _tensor(piece: Piece, v: Variables) -> Tensor:
    """The piece as a tensor; a number takes shape and type of the variables."""
    return _operand(piece, v) if callable(piece) else torch.full_like(next(iter(v.values())), piece)


def _operand(piece: Callable[[Variables], Tensor], v: Variables) -> Tensor:
    """The piece, in whose chain rule 0 x infinity is 0.

    1 / (1 + exp(x)) is 0 where exp(x) has overflowed, and does not depend on x there; nor does sqrt(0 x).
    """
    value = piece(v)
    if value.requires_grad:
        value = value.view_as(value)  # one for each use, as a variable has many
        value.register_hook(lambda slope: slope.masked_fill(slope.isnan(), 0.0))
    return value
