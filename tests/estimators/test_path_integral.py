"""The discretised action: closed forms of the oscillator, its order, free bridges, walls."""

import math

import pytest
import torch

from fkdrift.estimators.path_integral import FOURTH_ORDER, PRIMITIVE, SliceAction, brownian_bridge, oscillator_energy
from fkdrift.hamiltonian.potential import FunctionPotential, Potential
from tests.systems import generator

F64 = torch.float64


def test_oscillator_energies_of_the_primitive_action_are_the_known_ones():
    """Z = 1 / (2 sinh(P asinh(beta omega / 2 P)))."""
    for P, known in ((4, 0.64052288), (8, 0.65238009), (16, 0.65547415)):
        assert oscillator_energy(2.0, P, PRIMITIVE) == pytest.approx(known, abs=1e-8)
    assert oscillator_energy(10.0, 32, PRIMITIVE) == pytest.approx(0.49405272, abs=1e-8)


@pytest.mark.parametrize("action", [PRIMITIVE, FOURTH_ORDER], ids=lambda action: action.name)
def test_the_error_is_of_the_order_that_the_action_says(action):
    exact = 0.75 / math.tanh(3.0)
    error = [oscillator_energy(4.0, P, action, omega=1.5) - exact for P in (32, 64)]
    assert math.log2(error[0] / error[1]) == pytest.approx(action.order, abs=0.1)


def test_the_default_step_gives_the_energy_to_a_thousandth():
    for action, allowed in ((PRIMITIVE, 1.5e-3), (FOURTH_ORDER, 2e-4)):
        P = action.period * math.ceil(20 / action.step / action.period)
        assert abs(oscillator_energy(20.0, P, action) - 0.5) < allowed * 0.5


def test_bridges_have_the_covariance_of_a_free_path():
    """Mean on the straight line, Cov(r_j, r_k) = tau/m j (n - k) / n for j <= k."""
    n, variance = 4, 0.3
    start, end = torch.tensor([1.0, 0.0], dtype=F64), torch.tensor([3.0, -1.0], dtype=F64)
    shape = (40_000, 2)
    variances = torch.full(shape[:1], variance, dtype=F64)
    path = brownian_bridge(start.expand(shape), end.expand(shape), n, variances, generator())
    k = torch.arange(1, n, dtype=F64)
    line = start + k[:, None] / n * (end - start)
    expected = variance * torch.minimum(k[:, None], k) * (n - torch.maximum(k[:, None], k)) / n
    assert ((path.mean(0) - line) / (expected.diagonal()[:, None] / shape[0]).sqrt()).abs().max() < 4
    for dim in range(2):
        x = path[..., dim] - line[:, dim]
        product = x[:, :, None] * x[:, None]
        z = (product.mean(0) - expected) / (product.std(0) / shape[0] ** 0.5)
        assert z.abs().max() < 4


def test_slices_alternate_wherever_a_path_begins():
    potential = FunctionPotential(lambda r: r.pow(4).sum((1, 2)), n_particles=2, n_dims=3, masses=(1.0, 4.0))
    action = SliceAction(potential, FOURTH_ORDER, torch.tensor([[1.0], [0.25]], dtype=F64))
    r = torch.randn(3, 6, 2, 3, generator=generator(), dtype=F64)
    whole = action(r)
    V, gradient = r.pow(4).sum((-2, -1)), 4 * r.pow(3)
    F = (gradient.square() * torch.tensor([[1.0], [0.25]], dtype=F64)).sum((-2, -1))
    kind = torch.arange(6) % 2
    torch.testing.assert_close(whole.potential, V * torch.where(kind == 0, 2 / 3, 4 / 3).double())
    torch.testing.assert_close(whole.force, F * torch.where(kind == 0, 0.0, 1 / 9).double())
    part = action(r[:, 3:5], first=1)
    torch.testing.assert_close(part.potential, whole.potential[:, 3:5])
    torch.testing.assert_close(part.action(0.1), 0.1 * (whole.potential + 0.01 * whole.force)[:, 3:5])


class Box(Potential):
    """Zero between walls at 0 and 1."""

    formula = "V = 0 for 0 < x < 1"

    def __call__(self, r):
        assert bool(((r >= 0) & (r <= 1)).all())
        return 0 * r.sum((-2, -1))

    @property
    def domain(self):
        return ((0.0, 1.0),)


@pytest.mark.parametrize("chosen", [PRIMITIVE, FOURTH_ORDER], ids=lambda action: action.name)
def test_outside_its_domain_a_potential_is_infinite(chosen):
    action = SliceAction(Box(), chosen, torch.ones(1, 1, dtype=F64))
    r = torch.tensor([[[[0.5]], [[0.9]]], [[[-0.1]], [[1.1]]]], dtype=F64)
    U = action(r).action(0.5)
    assert U[0].tolist() == [0.0, 0.0]
    assert U[1].tolist() == [math.inf, math.inf]
