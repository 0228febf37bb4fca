"""Singular points found by evaluating V, and the trial functions that remove them."""

import numpy as np
import pytest
import torch

from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.potential import FunctionPotential
from fkdrift.hamiltonian.singularities import Core, recognise
from fkdrift.hamiltonian.system import System
from fkdrift.hamiltonian.trial_function import Cusp, Logarithm, OneBody, Pair, reference_energy
from fkdrift.numerics.geometry import distance

F64 = torch.float64


def helium(r: torch.Tensor) -> torch.Tensor:
    return -2 / distance(r[:, 0]) - 2 / distance(r[:, 1]) + 1 / distance(r[:, 0] - r[:, 1])


def positronium_trap(r: torch.Tensor) -> torch.Tensor:
    return 0.1 * r.square().sum((-2, -1)) - 1 / distance(r[:, 0] - r[:, 1])


def trapped(g: float, power: float):
    def V(r: torch.Tensor) -> torch.Tensor:
        return r.square().sum((-2, -1)) / 2 + g * distance(r[:, 0] - r[:, 1]).pow(-power)

    return V


def test_helium_as_a_bare_function_is_used_like_the_plug_in() -> None:
    found = recognise(FunctionPotential(helium, n_particles=2, n_dims=3))
    assert found.nuclei == ((0.0, 0.0, 0.0),)
    assert found.coalescence
    assert found.isotropic
    assert found.groups == ((0, 1),)
    terms = found.trial_function.terms
    cusps = [term.radial for term in terms if isinstance(term, OneBody | Pair) and isinstance(term.radial, Cusp)]
    assert [cusp.slope for cusp in cusps] == pytest.approx([-2.0, 0.5], rel=1e-4)


@pytest.mark.slow
def test_killing_rate_of_helium_is_bounded_at_coalescence() -> None:
    system = System(load_potential(helium, n_particles=2, n_dims=3), F64)
    r = system.initial_walkers(2000, torch.Generator().manual_seed(0))
    rate = system.rates(r).killing
    assert rate.std() < 1.0
    assert -2.9037 - 4 * rate.std() / 2000**0.5 < rate.mean() < -2.82
    r[:, 1] = r[:, 0] + 1e-5
    assert system.rates(r).killing.abs().max() < 50


def test_two_nuclei_are_found_where_they_are() -> None:
    found = recognise(load_potential("-1/sqrt(x**2 + y**2 + (z - 1)**2) - 1/sqrt(x**2 + y**2 + (z + 1)**2)"))
    assert sorted(found.nuclei) == [(0.0, 0.0, -1.0), (0.0, 0.0, 1.0)]
    assert not found.isotropic


@pytest.mark.parametrize(
    ("g", "power", "dim", "expected"),
    [
        (1.0, 1.0, 2, ("slope", 1.0)),
        (1.0, 1.0, 3, ("slope", 0.5)),
        (2.0, 2.0, 3, ("power", 1.0)),
        (1.0, 12.0, 3, ("strength", 0.2)),
    ],
)
def test_pairs(g: float, power: float, dim: int, expected: tuple[str, float]) -> None:
    """Reduced mass 1/2: slope g / (dim - 1), alpha (alpha + 1) = g, a = sqrt(g) / (p / 2 - 1)."""
    found = recognise(FunctionPotential(trapped(g, power), n_particles=2, n_dims=dim))
    (pair,) = (term for term in found.trial_function.terms if isinstance(term, Pair))
    assert isinstance(pair.radial, Cusp | Logarithm | Core)
    name, value = expected
    assert getattr(pair.radial, name) == pytest.approx(value, rel=1e-3)


def test_attraction_of_a_pair() -> None:
    found = recognise(FunctionPotential(positronium_trap, n_particles=2, n_dims=3))
    (pair,) = (term for term in found.trial_function.terms if isinstance(term, Pair))
    assert pair.radial.slope == pytest.approx(-0.5, rel=1e-3)


@pytest.mark.parametrize("name", ["helium", "gaussian_bosons", "harmonic", "hydrogen", "x**2 + y**4"])
def test_what_brings_its_own_or_is_smooth_stays_as_it_is(name: str) -> None:
    potential = load_potential(name)
    assert recognise(potential) is potential


def test_core_derivatives() -> None:
    d = torch.linspace(0.5, 2, 7, dtype=F64, requires_grad=True)
    w, slope, curvature = Core(0.3, 5.0)(d)
    (first,) = torch.autograd.grad(w.sum(), d, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), d)
    torch.testing.assert_close(slope, first)
    torch.testing.assert_close(curvature, second)


@pytest.mark.parametrize("seed", range(4))
def test_points_that_repel_are_found_wherever_they_are(seed: int) -> None:
    """E_W stays bounded as the particle comes to one, whatever the dimension, the strength and the power."""
    rng = np.random.default_rng(seed)
    dim, power = int(rng.integers(2, 4)), (1, 2, 6, 12)[seed]
    place, strength, stiffness = rng.normal(size=dim), float(rng.uniform(0.3, 3)), rng.uniform(0.5, 2, size=dim)
    P, k = torch.tensor(place), torch.tensor(stiffness)

    def V(r: torch.Tensor) -> torch.Tensor:
        d = (r[:, 0] - P).square().sum(-1).sqrt()
        return (k * r[:, 0].square()).sum(-1) / 2 + strength * d**-power

    potential = FunctionPotential(V, 1, dim)
    found = recognise(potential)
    u = torch.tensor(rng.normal(size=(64, dim)))
    size = (0.02, 0.02, 0.1, 0.3)[seed]
    r = P + size * (u / u.norm(dim=-1, keepdim=True))[:, None]
    E = reference_energy(potential(r), found.trial_function.derivatives(r), torch.ones(1, dtype=torch.float64))
    assert E.abs().max() < 0.2 * potential(r).mean()
