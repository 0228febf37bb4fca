"""Derivatives of a network by its parameters: written out, and by automatic differentiation."""

import pytest
import torch

import fkdrift as fk
from fkdrift.numerics.fisher import AutogradJacobian
from fkdrift.wavefunction.parameter_jacobian import ParameterJacobian

SYSTEMS = {
    "helium": {},
    "h2": {"R": 1.4},
    "double_well": {},
    "gaussian_bosons": {"n_particles": 3},
    "cosine": {"V0": (1.0, 0.5)},
}


@pytest.mark.parametrize(("name", "depth"), [*((name, 2) for name in SYSTEMS), ("helium", 1), ("helium", 3)])
def test_products_are_those_of_automatic_differentiation(name, depth):
    """J p and J^T c, and that one is the transpose of the other."""
    g = torch.Generator().manual_seed(0)
    system = fk.System(fk.load_potential(name, **SYSTEMS[name]), torch.float64)
    psi = fk.NeuralWavefunction(system, width=6, depth=depth)
    for parameter in psi.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=g)
    r = system.initial_walkers(7, g)
    ours, parameters = ParameterJacobian(psi, r), list(psi.parameters())
    theirs = AutogradJacobian(psi.value_and_gradient(r), parameters)
    p = torch.randn(sum(each.numel() for each in parameters), generator=g, dtype=torch.float64)
    by_f, by_gradient = (torch.randn(x.shape, generator=g, dtype=torch.float64) for x in (r[:, 0, 0], r))
    for pushed, reference in zip(ours.push(p), theirs.push(p), strict=True):
        torch.testing.assert_close(pushed, reference)
    pulled = ours.pull(by_f, by_gradient)
    torch.testing.assert_close(pulled, theirs.pull(by_f, by_gradient))
    f, gradient = ours.push(p)
    torch.testing.assert_close(pulled.dot(p), f.dot(by_f) + (gradient * by_gradient).sum())
