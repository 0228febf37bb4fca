"""The metric of path space and the solver for the natural gradient."""

import torch

from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.system import System
from fkdrift.numerics.fisher import conjugate_gradient, flat_gradient, metric_product
from fkdrift.wavefunction.neural import NeuralVectorField, NeuralWavefunction
from tests.systems import LinearDrift

F64 = torch.float64


def test_metric_against_the_explicit_jacobian() -> None:
    """F p from Jacobian products equals J^T J p / batch with J written out, for both kinds of drift."""
    system = System(load_potential("helium"), F64)
    for kind in (NeuralWavefunction, NeuralVectorField):
        drift = kind(system, width=4)
        g = torch.Generator().manual_seed(0)
        for parameter in drift.parameters():
            torch.nn.init.normal_(parameter, std=0.3, generator=g)
        r = torch.randn(6, 2, 3, dtype=F64, generator=g)
        parameters = list(drift.parameters())
        u = drift(r) / system.sigma
        rows = [
            flat_gradient(u, parameters, torch.eye(36, dtype=F64)[k].reshape(6, 2, 3), retain_graph=True)
            for k in range(36)
        ]
        J = torch.stack(rows)
        p = torch.randn(J.shape[1], dtype=F64, generator=g)
        torch.testing.assert_close(metric_product(u, parameters)(p), J.T @ (J @ p) / 6)


def test_conjugate_gradient_solves() -> None:
    g = torch.Generator().manual_seed(0)
    A = torch.randn(12, 12, dtype=F64, generator=g)
    F, target = A @ A.T, torch.randn(12, dtype=F64, generator=g)
    x, image = conjugate_gradient(lambda p: F @ p, target, torch.zeros(12, dtype=F64), damping=0.1, n_iterations=24)
    torch.testing.assert_close((F + 0.1 * torch.eye(12, dtype=F64)) @ x, target, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(image, F @ x, rtol=1e-8, atol=1e-8)
    again, _ = conjugate_gradient(lambda p: F @ p, target, x, damping=0.1, n_iterations=1)
    torch.testing.assert_close(again, x, rtol=1e-6, atol=1e-8)


def test_metric_is_the_hessian_of_the_energy() -> None:
    """v = -k x on the oscillator: E(k) = (k + 1/k) / 4, E''(1) = 1/2 = <x^2> = F."""
    drift = LinearDrift(1.0)
    x = torch.randn(20000, 1, 1, dtype=F64, generator=torch.Generator().manual_seed(0)) / 2**0.5
    F = metric_product(drift(x), list(drift.parameters()))(torch.ones(1, dtype=F64))
    assert abs(F.item() - 0.5) < 4 * (0.5 / 20000**0.5) * 2**0.5
