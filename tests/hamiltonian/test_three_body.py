"""Correlations of three particles in the trial function."""

from __future__ import annotations

import pytest
import torch
from systems import generator

from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.system import System
from fkdrift.hamiltonian.three_body import ThreeBody
from fkdrift.hamiltonian.trial_function import TrialFunction, random_walk, reference_energy
from fkdrift.numerics.differentiation import curvatures

F64 = torch.float64


def some_term(box: tuple[float, ...] | None, g: torch.Generator) -> tuple[ThreeBody, torch.Tensor]:
    term = ThreeBody(torch.tensor([1.0, 2.0, 3.0]), torch.zeros(3, 3), torch.zeros(3), box)
    coefficients = torch.randn(9, generator=g, dtype=F64)
    return term.with_coefficients(coefficients), coefficients


@pytest.mark.parametrize("box", [None, (5.0, 5.0, 5.0)])
@pytest.mark.parametrize("dim", [2, 3])
def test_derivatives_are_those_of_the_value(box, dim):
    term, coefficients = some_term(None if box is None else box[:dim], generator())
    r = 2 * torch.randn(6, 4, dim, generator=generator(1), dtype=F64)
    found = term(r)
    value, gradient, second = curvatures(term.value, r)
    for a, b in zip(found, (value, gradient, second.sum(-1)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    for a, b in zip(term.value_and_gradient(r), found, strict=False):
        assert torch.equal(a, b)
    slope = torch.randn(r.shape, generator=generator(2), dtype=F64)
    expected = (found.laplacian + 2 * (found.gradient * slope).sum(-1)).sum(-1)
    torch.testing.assert_close(term.responses(r, slope) @ coefficients, expected, rtol=1e-10, atol=1e-10)


def test_it_is_symmetric_and_turns_with_the_particles():
    term, _ = some_term(None, generator())
    r = torch.randn(6, 4, 3, generator=generator(1), dtype=F64)
    Q, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator(2), dtype=F64))
    for other in (r[:, [2, 0, 3, 1]], r @ Q + 3.0):
        torch.testing.assert_close(term.value(r), term.value(other))


def test_in_a_box_it_is_smooth_where_the_nearest_image_changes():
    term, _ = some_term((5.0, 5.0, 5.0), generator())
    r = torch.tensor([[[0.0, 0.0, 0.0], [2.5, 0.3, 0.1], [1.0, 1.0, 0.0]]], dtype=F64)
    step = torch.tensor([[[0.0, 0.0, 0.0], [1e-6, 0.0, 0.0], [0.0, 0.0, 0.0]]], dtype=F64)
    for a, b in zip(term(r - step), term(r + step), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def spread_and_energy(system: System, W: TrialFunction) -> tuple[float, float, float]:
    """The mean deviation of E_W from its median, its mean and the error of it."""
    g = generator()
    r = random_walk(W, system.initial_walkers(2048, g), 100, g)
    variance = 1 / torch.tensor(system.potential.mass, dtype=F64)
    E = reference_energy(system.potential(r), W.derivatives(r), variance)
    return (E - E.median()).abs().mean().item(), E.mean().item(), E.std().item() / len(E) ** 0.5


def test_what_pairs_leave_of_the_local_energy_is_taken_away():
    """Three neon atoms, E_0 = -61.0381 K: pairs alone have -60.6, and E_W spreads ten times as much."""
    system = System(load_potential("noble_gas", element="Ne", n_particles=3), F64)
    W = system.trial_function
    before, _, _ = spread_and_energy(system, TrialFunction(W.terms[:1]))
    after, energy, error = spread_and_energy(system, W)
    assert after < before / 5
    assert energy == pytest.approx(-61.0381, abs=4 * error + 0.005)
