"""Observables: what the names and formulas compute, and means with errors that cover."""

import math
from dataclasses import dataclass

import pytest
import torch

from fkdrift.errors import BadFormula, BadParameter, InputError
from fkdrift.estimators.observables import (
    Averages,
    Observable,
    by_kind,
    density,
    differentiable_parameters,
    evaluate,
    has_virial,
    pair_correlation,
    parameter_derivative,
    parse_observable,
    parse_observables,
    standard_observables,
)
from fkdrift.hamiltonian.formula import FormulaPotential
from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.potential import FunctionPotential, Potential
from tests.systems import generator

F64 = torch.float64


def draw(potential: Potential, n: int, width: float = 1.0, seed: int = 0) -> torch.Tensor:
    shape = (n, potential.n_particles, potential.n_dims)
    return width * torch.randn(shape, generator=generator(seed), dtype=F64)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x", (0.0 + 3.0) / 2),
        ("x**2 + y**2", (0 + 1 + 9 + 0) / 2),
        ("1/r", (1 + 1 / 5) / 2),
        ("r12", math.sqrt(9 + 1 + 16)),
        ("r21", math.sqrt(26)),
        ("x1*x2 + y1*y2 + z1*z2", 0.0),
        ("r1", (1 + 5) / 2),
        ("(x1 - x2)**2", 9.0),
        ("x1**2 + 0*x2", 9 / 2),
    ],
)
def test_formulas_average_over_identical_particles(text, expected):
    helium = load_potential("helium")
    r = torch.tensor([[[0.0, 1.0, 0.0], [3.0, 0.0, 4.0]]], dtype=F64)
    assert parse_observable(text, helium)(r).item() == pytest.approx(expected)


def test_formulas_of_different_particles_and_of_many():
    different = FunctionPotential(lambda r: r.square().sum((1, 2)), n_particles=3)
    r = torch.tensor([[[1.0], [2.0], [5.0]]])
    assert parse_observable("x1", different)(r).item() == 1.0
    assert parse_observable("x3 - x1", different)(r).item() == 4.0
    many = FunctionPotential(lambda r: r.square().sum((1, 2)), n_particles=12, identical=True)
    r = torch.arange(12.0)[None, :, None]
    pairs = [abs(i - j) for i in range(12) for j in range(12) if i != j]
    assert parse_observable("r1_12", many)(r).item() == pytest.approx(sum(pairs) / len(pairs))


def test_distances_in_a_box_are_to_the_nearest_image():
    ring = FunctionPotential(lambda r: r.cos().sum((1, 2)), n_particles=2, period=(4.0,))
    r = torch.tensor([[[0.5], [3.5]], [[4.5], [3.5]]])
    assert parse_observable("r12", ring)(r).tolist() == [1.0, 1.0]
    assert parse_observable("x1", ring)(r).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x**", "cannot read the formula"),
        ("x + q", r"unknown name 'q'[^\n]*\n    x \+ q\n        \^$"),
        ("r13", "unknown name 'r13'"),
        ("z", "unknown name 'z'"),
        ("2", "uses none of"),
        ("__import__('os')", "not allowed|unknown function"),
        ("x + x1", "mixes x"),
        ("r11", "unknown name"),
    ],
)
def test_what_is_no_formula_is_refused_with_the_place(text, message):
    with pytest.raises(BadFormula, match=message):
        parse_observable(text, load_potential("gaussian_bosons", n_particles=2))


def test_g_of_one_particle_and_unknown_parameters_are_refused():
    with pytest.raises(BadParameter, match="g\\(r\\) needs two particles"):
        parse_observable("g(r)", load_potential("harmonic"))
    with pytest.raises(BadParameter, match="choose from a, b"):
        parse_observable("dE/dc", load_potential("double_well"))


def test_wrong_shapes_and_names_are_refused():
    r = torch.zeros(5, 1, 1)
    with pytest.raises(InputError, match=r"returns shape \(5, 1\) for 5 walkers; it must be \(5,\)"):
        evaluate([Observable("bad", "", lambda r: r[:, 0])], r)
    V = Observable("V", "energy", lambda r: r[:, 0, 0])
    with pytest.raises(InputError, match="named twice: V"):
        Averages([V, V], 5)


# -- densities ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["harmonic", "hydrogen", "gaussian_bosons"])
def test_density_is_that_of_the_walkers(name):
    """Normal walkers of width 0.8: every bin within 4.5 of its errors, counts summing to one particle."""
    potential, n, s = load_potential(name), 20000, 0.8
    observable = density(potential, draw(potential, 1000, s))
    value = evaluate([observable], draw(potential, n, s, seed=1))
    mean, error = value.mean(0), value.std(0) / n**0.5
    c = torch.tensor(observable.centres, dtype=F64)
    d = potential.n_dims
    exact = (-c.square() / (2 * s * s)).exp() / (2 * math.pi * s * s) ** (d / 2)
    filled = mean * n > 1e3 * error.min()
    width = observable.centres[1] - observable.centres[0]
    curvature = exact * (1 + c.square() / s**2) / s**2 * width**2 * max(1, (d - 1)) / 6
    z = (mean - exact).abs() / (error + curvature + 1e-12)
    assert z[filled].max() < 4.5
    surface = 2 * math.pi ** (d / 2) / math.gamma(d / 2)
    volume = width if d == 1 else surface * c.pow(d - 1) * width
    assert (mean * volume).sum().item() == pytest.approx(1.0, abs=5e-3)


def test_free_particles_in_a_box_are_uncorrelated():
    square = FunctionPotential(lambda r: 0 * r.sum((1, 2)), n_particles=3, n_dims=2, period=(3.0, 5.0))
    r = torch.rand(20000, 3, 2, generator=generator(), dtype=F64) * torch.tensor([3.0, 5.0], dtype=F64)
    value = evaluate([pair_correlation(square)], r)
    z = (value.mean(0) - 1) / (value.std(0) / len(r) ** 0.5)
    assert z.abs().max() < 4.5
    assert pair_correlation(square).centres[-1] < 1.5


# -- derivatives -------------------------------------------------------------------------------------------------------


def test_every_plug_in_has_its_derivatives():
    expected = {"anharmonic": {"lam"}, "double_well": {"a", "b"}, "helium": {"Z"}, "gaussian_bosons": {"g", "s"}}
    for name, parameters in expected.items():
        assert set(differentiable_parameters(load_potential(name))) == parameters


def test_derivatives_by_a_parameter():
    r = draw(load_potential("anharmonic"), 50)
    assert torch.allclose(parameter_derivative(load_potential("anharmonic"), "lam")(r), r[:, 0, 0] ** 4)
    at_the_end = parameter_derivative(load_potential("anharmonic", lam=0.0), "lam")(r)
    assert torch.allclose(at_the_end, r[:, 0, 0] ** 4, atol=1e-9)
    helium = load_potential("helium")
    x = draw(helium, 50)
    assert torch.allclose(parameter_derivative(helium, "Z")(x), -1 / x[:, 0].norm(dim=-1) - 1 / x[:, 1].norm(dim=-1))


@dataclass(frozen=True)
class Stubborn(Potential):
    """A plug-in whose parameters do not let a tensor through, enter the mass, or the number of particles."""

    depth: float = 2.0
    weight: float = 1.5

    def __call__(self, r):
        return math.exp(float(self.depth)) * r[:, 0, 0] ** 2

    @property
    def mass(self):
        return (self.weight,)


def test_where_autograd_cannot_go_a_difference_does():
    potential = Stubborn()
    assert differentiable_parameters(potential) == ("depth",)
    r = draw(potential, 20)
    derivative = parameter_derivative(potential, "depth")(r)
    assert torch.allclose(derivative, math.exp(2) * r[:, 0, 0] ** 2, rtol=1e-9)
    with pytest.raises(BadParameter, match="enters V alone; choose from depth"):
        parameter_derivative(potential, "weight")


# -- averages ----------------------------------------------------------------------------------------------------------


def test_virial_where_it_holds():
    harmonic = load_potential("harmonic")
    assert has_virial(harmonic, draw(harmonic, 100))
    hydrogen = load_potential("hydrogen")
    assert has_virial(hydrogen, draw(hydrogen, 100))
    assert [each.name for each in standard_observables(load_potential("cosine"))] == ["V"]
    step = FormulaPotential("where(abs(x) < 1, 0, 5)")
    assert not has_virial(step, draw(step, 200))


def test_means_of_the_oscillator_and_their_errors():
    """|phi_0|^2 of V = x^2/2: <V> = <T> = 1/4, virial 1, <x^4> = 3/4; E_L = 1/2 without noise."""
    harmonic = load_potential("harmonic")
    r0 = draw(harmonic, 400, 0.5**0.5)
    observables = parse_observables(["x**4", "T", "density"], harmonic, r0)
    averages = Averages(observables, 400)
    for seed in range(50):
        r = draw(harmonic, 400, 0.5**0.5, seed=seed)
        averages.add(r, torch.full((400,), 0.5))
    found = averages.estimates()
    for name, exact in {"V": 0.25, "T": 0.25, "virial": 1.0, "x**4": 0.75}.items():
        assert abs(found[name].estimate.deviation(exact)) < 4, name
        assert 0 < found[name].estimate.error < 0.03
    assert found["E_L"].estimate.error == 0
    with pytest.raises(InputError, match="64 bins"):
        _ = found["density"].estimate
    result = by_kind({"variational": found, "pure": found})
    assert result["V"]["unit"] == "energy"
    assert result["V"]["pure"] == {"mean": found["V"].mean.item(), "error": found["V"].error.item()}
    assert len(result["density"]["variational"]["mean"]) == len(result["density"]["centres"]) == 64


def test_the_error_of_a_ratio_covers():
    """Weighted means over 200 seeds: (mean - exact) / error is a standard normal variable."""
    z = []
    square = Observable("x^2", "", lambda r: r[:, 0, 0].square())
    for seed in range(200):
        x = torch.randn(400, 1, 1, generator=generator(seed), dtype=F64)
        averages = Averages([square], 400)
        averages.add(x, x[:, 0, 0], (-x.square() / 4).exp()[:, 0, 0])  # the weighted law has variance 2/3
        z.append(averages.estimates()["x^2"].estimate.deviation(2 / 3))
    assert abs(sum(z) / math.sqrt(200)) < 4
    assert abs((sum(each**2 for each in z) - 200) / math.sqrt(400)) < 4


def test_sums_come_back():
    square = Observable("x^2", "", lambda r: r[:, 0, 0].square())
    one, two = Averages([square], 8), Averages([square], 8)
    one.add(draw(load_potential("harmonic"), 8), torch.ones(8))
    two.load_state_dict(one.state_dict())
    assert two.estimates()["x^2"].plain() == one.estimates()["x^2"].plain()
