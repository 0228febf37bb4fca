"""Trial functions made from values of V: E_W is the ground-state energy everywhere, for families of random wells."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fkdrift.errors import Unbound
from fkdrift.exact.diagonalisation import diagonalise
from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.potential import FunctionPotential, Potential
from fkdrift.hamiltonian.preparation import Preparation, prepare
from fkdrift.hamiltonian.system import System
from fkdrift.hamiltonian.tabulated import Central, Coordinates, SplineSurface

F64 = torch.float64


def quality(potential: Potential, n: int = 3000) -> tuple[Preparation, float, float, float]:
    """The preparation, mean and standard deviation of E_W over its own density, and its kinetic energy."""
    prepared = prepare(potential)
    r = torch.from_numpy(prepared.draw(n, np.random.default_rng(0)))
    W = prepared.trial_function.derivatives(r)
    half = 0.5 / torch.tensor(potential.mass, dtype=F64)
    kinetic = (half * W.gradient.square().sum(-1)).sum(-1)
    E = potential(r) - kinetic - (half * W.laplacian).sum(-1)
    return prepared, float(E.mean()), float(E.std()), float(kinetic.mean())


def polynomial(rng: np.random.Generator) -> str:
    a, b, c = rng.normal(size=3)
    return f"{rng.uniform(0.05, 1):.3f}*x**4 + {a:.3f}*x**3 + {2 * b - 1:.3f}*x**2 + {c:.3f}*x"


def jumps(rng: np.random.Generator) -> str:
    left, right, depth = rng.uniform(0.3, 2, 3)
    return f"where(x < {-left:.3f}, {5 * depth:.3f}, where(x < {right:.3f}, 0, 8))"


def several_wells(rng: np.random.Generator) -> str:
    wells = [
        f"{rng.uniform(2, 8):.3f}*exp(-(x - {x:.3f})**2*{rng.uniform(0.3, 5):.3f})" for x in rng.uniform(-15, 15, 4)
    ]
    return f"x**2/500 - {' - '.join(wells)}"


def cusp(rng: np.random.Generator) -> str:
    return f"{rng.uniform(0.5, 3):.3f}*abs(x - {rng.normal():.3f})**{rng.uniform(0.4, 3):.3f}"


def singular(rng: np.random.Generator) -> str:
    return f"x**2*{rng.uniform(0.2, 2):.3f} + {rng.uniform(0.5, 3):.3f}/x**2"


def shallow(rng: np.random.Generator) -> str:
    return f"-{rng.uniform(0.1, 0.6):.3f}*sech(x - {rng.normal():.3f})**2"


def morse(rng: np.random.Generator) -> str:
    """A wall that overflows on one side, or the other, and a plateau."""
    side = rng.choice([-1, 1])
    return f"{rng.uniform(2, 50):.3f}*(1 - exp({side * rng.uniform(0.3, 2):.3f}*(x - {rng.normal():.3f})))**2"


def wall(rng: np.random.Generator) -> str:
    """A wall of any height beside the minimum."""
    x = f"(x - {rng.normal() * 10 ** rng.uniform(-1, 2):.4f})"
    inside = f"{10 ** rng.uniform(-1, 2):.4f}*abs({x})**{rng.uniform(0.5, 4):.3f} + {rng.normal():.3f}*{x}"
    return f"where({x} {rng.choice(['>', '<'])} 0, {inside}, {10 ** rng.uniform(2, 12):.3g})"


@pytest.mark.parametrize("family", [polynomial, jumps, several_wells, cusp, singular, shallow, morse, wall])
@pytest.mark.parametrize("seed", range(4))
def test_random_wells_on_a_line(family, seed: int) -> None:
    formula = family(np.random.default_rng(seed))
    prepared, mean, deviation, kinetic = quality(load_potential(formula))
    assert isinstance(prepared.table, Coordinates), formula
    assert abs(mean - prepared.energy) < 1e-4 * kinetic, formula
    assert deviation < 1e-3 * kinetic, formula


@pytest.mark.parametrize("formula", ["where(x < -0.7, 6, where(x < 1.3, 0, 8))", "x**4 - 3*x**2 + 0.3*x"])
def test_energy_is_that_of_an_independent_method(formula: str) -> None:
    potential = load_potential(formula)
    assert prepare(potential).energy == pytest.approx(diagonalise(potential, levels=2).energies[0], rel=1e-5)


@pytest.mark.parametrize(
    ("formula", "n_dims", "exact"),
    [
        ("-1/r", 3, -0.5),
        ("-1/r", 2, -2.0),
        ("x**2/2 + y**2/2 + 1/(x**2 + y**2)", 2, 1 + 2**0.5),
        ("20*(r**-12 - 2*r**-6)", 3, -5.954591464),
        ("4*(sqrt(x**2 + y**2) - 5)**2", 2, 1.409103270),
    ],
)
def test_central(formula: str, n_dims: int, exact: float) -> None:
    prepared, mean, deviation, kinetic = quality(load_potential(formula, n_dims=n_dims))
    assert isinstance(prepared.table, Central)
    assert prepared.energy == pytest.approx(exact, rel=2e-6)
    assert abs(mean - prepared.energy) < 1e-4 * kinetic
    assert deviation < 1e-3 * kinetic


@pytest.mark.parametrize(
    ("formula", "exact"),
    [
        ("minimum((x - 20)**2, (x + 20)**2)/2", 0.5),
        ("x**2/2 + 1/x**2", 2.5),
        ("tan(x)**2", 1.0),
        ("1e6*where(abs(x) < 1, 0, 1)", 1.2319576826),
        ("x**2/2 + 1/x**2 + 2*y**2", 3.5),
    ],
)
def test_walls_poles_and_far_wells(formula: str, exact: float) -> None:
    prepared, mean, _, kinetic = quality(load_potential(formula))
    assert prepared.energy == pytest.approx(exact, rel=3e-6)
    assert abs(mean - exact) < 1e-5 * kinetic


@pytest.mark.parametrize(("height", "exact"), [(1e3, 1.833389605), (1e9, 1.855734721)])
def test_a_wall_beside_the_minimum(height: float, exact: float) -> None:
    """Ai'(-e) / Ai(-e) = kappa / 2^(1/3),  E = e / 2^(1/3),  kappa = sqrt(2 (height - E))."""
    formula = f"where(x > 0, x, {height})"
    prepared, mean, deviation, kinetic = quality(load_potential(formula))
    assert prepared.energy == pytest.approx(exact, abs=2e-7)
    assert diagonalise(load_potential(formula)).energies[0] == pytest.approx(exact, abs=2e-9)
    assert deviation < 1e-5 * kinetic
    assert abs(mean - prepared.energy) < 1e-6 * kinetic


@pytest.mark.parametrize("seed", range(3))
def test_coupled_oscillators_start_from_their_normal_modes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, dim = 4, 2
    root = rng.normal(size=(n * dim, n * dim))
    K = torch.from_numpy(root @ root.T + 0.1 * np.eye(n * dim))
    mass = tuple(rng.uniform(0.5, 20, n).tolist())
    centre = torch.from_numpy(10 * rng.normal(size=n * dim))

    def V(r: Tensor) -> Tensor:
        y = r.flatten(1) - centre.to(r)
        return 3 + ((y @ K.to(r)) * y).sum(-1) / 2

    each = np.repeat(mass, dim)
    exact = 3 + np.sqrt(np.linalg.eigvalsh(K.numpy() / np.sqrt(np.outer(each, each)))).sum() / 2
    prepared, mean, deviation, kinetic = quality(FunctionPotential(V, n, dim, mass, None, False))
    assert mean == pytest.approx(exact, rel=1e-9)
    assert deviation < 1e-8 * kinetic
    r = prepared.draw(20_000, np.random.default_rng(1))
    z = (r.mean(0) - prepared.centre) / prepared.width * len(r) ** 0.5
    assert np.abs(z).max() < 4
    assert np.abs(r.std(0) / prepared.width - 1).max() < 4 / (2 * len(r)) ** 0.5


def test_walkers_start_in_every_well() -> None:
    system = System(load_potential("minimum((x - 20)**2, (x + 20)**2)/2"))
    r = system.initial_walkers(4000, torch.Generator().manual_seed(0))
    share = (r > 0).double().mean().item()
    assert abs(share - 0.5) < 4 * 0.5 / 4000**0.5
    assert system.time_scale == pytest.approx(1.0, rel=0.02)


def test_narrow_deep_well_far_away_is_found() -> None:
    prepared, mean, _, _ = quality(load_potential("x**2/800 - 10*exp(-2*(x - 40)**2)"))
    assert prepared.centre.item() == pytest.approx(40, abs=0.05)
    assert mean == pytest.approx(-5.2153985, rel=1e-5)


def ellipse(rng: np.random.Generator) -> str:
    return f"{rng.uniform(1, 5):.3f}*(sqrt(x**2 + {rng.uniform(0.6, 2):.3f}*y**2) - {rng.uniform(2, 5):.3f})**2"


def tilted_double_well(rng: np.random.Generator) -> str:
    a = rng.uniform(1.5, 3)
    return (
        f"(x**2 - {a**2:.3f})**2/{2 * a**2:.3f} + (y - {rng.uniform(0.1, 0.5):.3f}*x)**2 + {0.1 * rng.normal():.3f}*x"
    )


def coupled(rng: np.random.Generator) -> str:
    return f"(x**2 + y**2)/2 + {rng.uniform(0.1, 2):.3f}*x**2*y**2 + {0.3 * rng.normal():.3f}*x*y"


@pytest.mark.parametrize("family", [ellipse, tilted_double_well, coupled])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_random_wells_in_a_plane(family, seed: int) -> None:
    formula = family(np.random.default_rng(seed))
    prepared, mean, deviation, kinetic = quality(load_potential(formula))
    assert isinstance(prepared.table, SplineSurface), formula
    assert abs(mean - prepared.energy) < 1e-4 * kinetic, formula
    assert deviation < 1e-2 * kinetic, formula


def test_two_particles_on_a_line() -> None:
    """A harmonic pair in a quartic trap: two coupled coordinates of different masses."""

    def trap(r: torch.Tensor) -> torch.Tensor:
        return r.pow(4).sum((-2, -1)) + (r[:, 0, 0] - r[:, 1, 0]).square()

    potential = load_potential(trap, n_particles=2, masses=(1.0, 3.0))
    prepared, mean, deviation, kinetic = quality(potential)
    assert isinstance(prepared.table, SplineSurface)
    assert abs(mean - prepared.energy) < 1e-4 * kinetic
    assert deviation < 1e-2 * kinetic


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("-1/x**2", "falls without limit at x = 0"),
        ("-1/abs(x) + x**2/2", "falls without limit at x = 0"),
        ("-1/r**2", "falls without limit at r = 0"),
        ("x**2/2 - 0.001*x**4", "metastable"),
        ("x**2/2 + 0.03*x**3", "metastable"),
        ("(x**2 + y**2)/2 + 0.1*(x**2*y - y**3/3)", "metastable"),
        ("3*(1 - exp(1 - x))**2 + y**2/2 + 0.2*x*y**2", "metastable"),  # in a valley beside the origin
        ("cos(x)", "no bound state"),
        ("cos(x)*cos(y)", "no bound state"),
        ("-0.5*where(r < 1, 1, 0)", "no bound state"),
        ("exp(-x**2)", "no bound state"),
    ],
)
def test_what_has_no_ground_state_is_refused_in_words(formula: str, words: str) -> None:
    with pytest.raises(Unbound, match=words):
        System(load_potential(formula))


@pytest.mark.parametrize("formula", ["x**4 + y**4/3", "(x**2 + y**2 - 2)**2/2", "(x**2 - 4)**2/8 + (y - 0.3*x)**2"])
def test_derivatives_are_those_of_the_value(formula: str) -> None:
    system = System(load_potential(formula), F64)
    r = system.initial_walkers(20, torch.Generator().manual_seed(0)).requires_grad_()
    value, gradient, laplacian = system.trial_function.derivatives(r)
    (slope,) = torch.autograd.grad(value.sum(), r, create_graph=True)
    torch.testing.assert_close(gradient, slope, rtol=1e-8, atol=1e-8)
    second = sum(torch.autograd.grad(slope[..., k].sum(), r, retain_graph=True)[0][..., k] for k in range(2))
    torch.testing.assert_close(laplacian, second, rtol=1e-6, atol=1e-6)


def test_far_outside_of_the_table_the_rate_is_the_energy() -> None:
    system = System(load_potential("x**2/2 + x**4"))
    drift, rate, _ = system.rates(torch.tensor([[[50.0]], [[-50.0]]]))
    assert rate.tolist() == pytest.approx([0.80377] * 2, rel=1e-4)
    assert drift[0] < 0 < drift[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("formula", "n_dims", "exact"),
    [
        ("4*(sqrt(x**2 + y**2) - 5)**2", 2, 1.409103270),
        ("20*(r**-12 - 2*r**-6)", 3, -5.954591464),
        ("1e6*where(abs(x) < 1, 0, 1)", 1, 1.231957683),
        ("minimum((x - 20)**2, (x + 20)**2)/2", 1, 0.5),
    ],
)
def test_whole_runs(formula: str, n_dims: int, exact: float) -> None:
    from fkdrift import Settings, solve

    settings = Settings(n_walkers=256, n_updates=5, n_blocks=16, project=False, path_step=1 / 4)
    energies = solve(formula, n_dims=n_dims, settings=settings, seed=1, progress=False).result["energies"]
    assert energies["variational"]["mean"] == pytest.approx(exact, rel=1e-5)
    assert energies["path_action"]["mean"] == pytest.approx(exact, rel=1e-5)


def test_a_function_is_looked_at_anew_every_time():
    """What a function reads from outside may have changed since it was prepared."""
    stiffness = [2.0]

    def well(r):
        return stiffness[0] * r.square().sum((-2, -1)) / 2

    potential = load_potential(well)
    first = System(potential).time_scale
    stiffness[0] = 8.0
    assert System(potential).time_scale == pytest.approx(first / 2)
    stiffness[0] = -2.0
    with pytest.raises(Unbound):
        System(potential)
