"""Formulas: what they compute, and everything they must refuse."""

from __future__ import annotations

import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fkdrift.errors import BadFormula, BadParameter
from fkdrift.hamiltonian.formula import MAX_LENGTH, FormulaPotential


def at(expression: str, *point: float, **options) -> float:
    return FormulaPotential(expression, **options)(torch.tensor([[point]], dtype=torch.float64)).item()


@pytest.mark.parametrize(
    ("expression", "point", "expected"),
    [
        ("x**2/2 + 0.1*x**4", (2.0,), 3.6),
        ("-x", (2.0,), -2.0),
        ("+x - -x", (2.0,), 4.0),
        ("2**x", (3.0,), 8.0),
        ("x**y", (2.0, 5.0), 32.0),
        ("x**3", (-2.0,), -8.0),
        ("1/(1 + x**2)", (3.0,), 0.1),
        ("-1/r", (1.0, 2.0, 2.0), -1 / 3),
        ("r**2 + 0*y", (3.0, 4.0), 25.0),
        ("z", (1.0, 2.0, 3.0), 3.0),
        ("pi*x + e", (1.0,), math.pi + math.e),
        ("sech(x)**2", (0.5,), 1 / math.cosh(0.5) ** 2),
        ("sech(x)", (800.0,), 0.0),
        ("erf(x) + tanh(x) + sinh(x) + cosh(x)", (0.3,), math.erf(0.3) + math.tanh(0.3) + math.exp(0.3)),
        ("atan(x) + asin(x) + acos(x)", (0.3,), math.atan(0.3) + math.pi / 2),
        ("arctan(x) + arcsin(x) + arccos(x)", (0.3,), math.atan(0.3) + math.pi / 2),
        ("cos(3*arctan2(y, x)) + 0*atan2(y, x)", (-0.3, 0.4), math.cos(3 * math.atan2(0.4, -0.3))),
        ("sqrt(2)*abs(x)", (-3.0,), 3 * math.sqrt(2)),
        ("log(exp(x))", (1.5,), 1.5),
        ("minimum(x, 1) + maximum(x, 1)", (3.0,), 4.0),
        ("minimum(2, 1)*x", (3.0,), 3.0),
        ("where(x < 1, 5, x**2)", (3.0,), 9.0),
        ("where(-1 < x <= 1, x, 0)", (1.0,), 1.0),
        ("where(x >= y, x, y)", (1.0, 4.0), 4.0),
        ("  x **2\n + 1 ", (2.0,), 5.0),
    ],
)
def test_values(expression, point, expected):
    assert at(expression, *point) == pytest.approx(expected, abs=1e-12)


def test_dimension_is_the_highest_coordinate_used():
    assert [FormulaPotential(f).n_dims for f in ("x", "y**2", "x*z", "r", "r + x", "r + y")] == [1, 2, 3, 3, 1, 2]
    assert FormulaPotential("r**2", n_dims=5).n_dims == 5
    assert at("r**2", 1.0, 1.0, 1.0, 1.0, 1.0, n_dims=5) == pytest.approx(5.0)
    with pytest.raises(BadParameter, match="at least 2"):
        FormulaPotential("x*y", n_dims=1)
    with pytest.raises(BadParameter, match="n_dims = -1"):
        FormulaPotential("r", n_dims=-1)


def test_only_a_function_of_r_is_isotropic():
    assert FormulaPotential("-1/r").isotropic
    assert not FormulaPotential("r + x").isotropic


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_dtype_and_shape(dtype):
    r = torch.randn(7, 1, 2, dtype=dtype)
    for expression in ("x*y", "where(x < y, 1, 2)", "maximum(x, y)", "minimum(x, 3) + 0*y"):
        V = FormulaPotential(expression)(r)
        assert V.shape == (7,)
        assert V.dtype == dtype


def test_is_differentiable_at_the_origin():
    r = torch.zeros(1, 1, 3, dtype=torch.float64, requires_grad=True)
    V = FormulaPotential("r**2/2")
    assert torch.autograd.grad(V(r).sum(), r)[0].abs().max() < 1e-9


def test_second_derivatives():
    x = torch.tensor([[[0.7]]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(FormulaPotential("x**4 + sin(x)")(x).sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    assert curvature.item() == pytest.approx(12 * 0.7**2 - math.sin(0.7))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("x^2", r"write \*\* instead"),
        ("2x", "2\\*x"),
        ("x²", r"x\*\*2"),
        ("|x|", r"abs\(x\)"),
        ("V = x**2", "right-hand side"),
        ("x +", "close every bracket"),
        ("(x", "never closed"),
        ("", "0 characters"),
        ("   ", "0 characters"),
        ("3", "constant binds nothing"),
        ("pi**2", "constant binds nothing"),
        ("w**2", "unknown name 'w'"),
        ("foo(x)", "unknown function 'foo'"),
        ("sin(x, y)", "sin takes 1 argument, not 2"),
        ("minimum(x)", "minimum takes 2 arguments, not 1"),
        ("where(x, 1, 2)", "comparison"),
        ("where(x == 1, 1, 2)", "comparison"),
        ("x < 1", "compare is not allowed"),
        ("x if x else y", "ifexp is not allowed"),
        ("x.real", "attribute is not allowed"),
        ("x[0]", "subscript is not allowed"),
        ("[x]", "list is not allowed"),
        ("lambda: x", "lambda is not allowed"),
        ("(y := x)", "namedexpr is not allowed"),
        ("x and y", "boolop is not allowed"),
        ("not x", "unaryop is not allowed"),
        ("x // 2", "binop is not allowed"),
        ("x % 2", "binop is not allowed"),
        ("x @ y", "binop is not allowed"),
        ("f'{x}'", "joinedstr is not allowed"),
        ("x + 'a'", "'a' is not a real number"),
        ("x + 1j", "1j is not a real number"),
        ("x + True", "True is not a real number"),
        ("x + None", "None is not a real number"),
        ("sin(*x)", "starred is not allowed"),
        ("sin(x=x)", "call is not allowed"),
        ("__import__('os').system('echo x')", "call is not allowed"),
        ("().__class__.__bases__[0].__subclasses__() + x", "not allowed"),
        ("exp.__globals__ + x", "attribute is not allowed"),
        ("[x for x in (1, 2)]", "listcomp is not allowed"),
        ("eval('x')", "unknown function 'eval'"),
        ("x + 9**9**9**9", "no finite value"),
        ("x + 10**400", "no finite value"),
        ("x + 1e400", "only real, finite"),
        ("x + 1/0", "no finite value"),
        ("x + (-1)**0.5", "only real, finite"),
        ("x + log(-1)", "only real, finite"),
        ("x; y", "cannot read"),
        ("x\0", "cannot read"),
    ],
)
def test_refusals(expression, message):
    with pytest.raises(BadFormula, match=message):
        FormulaPotential(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "(" * 900 + "x" + ")" * 900,
        "-" * 1900 + "x",
        "+".join(["x"] * 999),
        "x**" * 600 + "x",
        "abs(" * 180 + "x" + ")" * 180,
        "x" * (MAX_LENGTH + 1),
        "9" * 1999 + "*x",
        "x+" + "*".join(["9**9**9"] * 200),
        "10**308*10**308*x",
    ],
)
def test_hostile_sizes_are_refused_at_once(expression):
    start = time.perf_counter()
    with pytest.raises(BadFormula):
        FormulaPotential(expression)
    assert time.perf_counter() - start < 1.0


def test_caret_marks_the_offending_piece():
    with pytest.raises(BadFormula) as caught:
        FormulaPotential("x**2 + foo(x)")
    assert str(caught.value).endswith("    x**2 + foo(x)\n           ^^^^^^")
    with pytest.raises(BadFormula) as caught:
        FormulaPotential("+".join(["x"] * 100) + " + bad")
    assert max(map(len, str(caught.value).splitlines()[1:])) <= 130
    assert str(caught.value).splitlines()[1][str(caught.value).splitlines()[2].index("^") :].startswith("bad")


def test_long_but_reasonable_formulas_pass():
    assert at(" + ".join(["x**2/2"] * 100), 1.0) == pytest.approx(50.0)


numbers = st.floats(0.1, 5).map(lambda v: repr(round(v, 3)))
formulas = st.recursive(
    st.one_of(st.sampled_from(["x", "y"]), numbers),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(st.sampled_from(["sin", "cos", "tanh", "atan", "abs"]), inner).map(lambda t: f"{t[0]}({t[1]})"),
        inner.map(lambda f: f"(-{f})"),
        inner.map(lambda f: f"({f})**2"),
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(formulas, st.floats(0.1, 2), st.floats(0.1, 2))
def test_agrees_with_python(formula, x, y):
    names = {"sin": math.sin, "cos": math.cos, "tanh": math.tanh, "atan": math.atan, "abs": abs, "x": x, "y": y}
    try:
        expected = eval(formula, {"__builtins__": {}}, names)
        V = FormulaPotential(formula + " + 0*y", n_dims=2)
    except (ZeroDivisionError, OverflowError, BadFormula):
        return
    assert V(torch.tensor([[[x, y]]], dtype=torch.float64)).item() == pytest.approx(expected, rel=1e-6, abs=1e-6)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=40), st.text("xyzr0123456789.+-*/()^, <=e'\"[]{}:;_&|~@lambdifor", max_size=40)))
def test_any_text_is_a_formula_or_a_clear_refusal(text):
    try:
        V = FormulaPotential(text)
    except BadFormula:
        return
    assert V(torch.ones(2, 1, V.n_dims)).shape == (2,)


@pytest.mark.parametrize(
    ("expression", "slopes"),
    [
        ("where(x <= 0, x**2, sqrt(x))", [-4.0, 0.0, 0.5]),
        ("where(x > 0, x*log(x), 0)", [0.0, 0.0, 1.0]),
        ("where(x > 0, where(x > 1, log(x - 1), x), 3*x)", [3.0, 3.0, 1.0]),
        ("where(x < 5, 1/(x - 7), exp(1000*x))", [-1 / 81, -1 / 49, -1 / 36]),
    ],
)
def test_the_gradient_of_where_is_that_of_the_branch_taken(expression, slopes):
    """Whatever the other one is there: NaN, infinite, or not differentiable."""
    x = torch.tensor([[[-2.0]], [[0.0]], [[1.0]]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(FormulaPotential(expression)(x).sum(), x)
    torch.testing.assert_close(gradient.flatten(), torch.tensor(slopes, dtype=torch.float64))


@pytest.mark.parametrize(
    ("expression", "slope"),
    [
        ("1/(1 + exp(x**4))", 0.0),  # exp overflows
        ("x**2/2 - 5/(1 + exp((x - 3)/0.01))", 20.0),
        ("x + sqrt(0*x)", 1.0),
        ("x + 0**x", 1.0),
        ("x*tanh(exp(exp(x)))", 1.0),
        ("x + atan2(0*x, 0*x)", 1.0),
    ],
)
def test_the_gradient_where_a_part_is_infinite_or_constant(expression, slope):
    x = torch.tensor([[[20.0]]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(FormulaPotential(expression)(x).sum(), x, create_graph=True)
    assert gradient.item() == slope
    assert torch.autograd.grad(gradient.sum(), x)[0].isfinite().all() if gradient.requires_grad else True


@pytest.mark.parametrize("expression", ["x**2 + 1e300", "where(x < 1e39, x, 1)", "x*3**400", "maximum(x, -1e39)"])
def test_constants_that_single_precision_does_not_have(expression):
    with pytest.raises(BadFormula, match=r"only real, finite numbers up to 3\.4e\+38"):
        FormulaPotential(expression)
