"""log psi and the local energy of a process."""

import pytest
import torch

from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.potential import FunctionPotential
from fkdrift.hamiltonian.system import System
from fkdrift.paths.process import Process
from fkdrift.wavefunction.local_energy import local_energy, local_quantities, log_psi
from fkdrift.wavefunction.neural import NeuralWavefunction
from fkdrift.wavefunction.protocol import Drift
from tests.systems import generator, system_of

F64 = torch.float64


@pytest.mark.parametrize(
    "name", ["anharmonic", "cosine", pytest.param("h2", marks=pytest.mark.slow), "gaussian_bosons", "unequal masses"]
)
def test_local_energy_against_autograd(name: str) -> None:
    """E_L = V - sum sigma^2 (|grad U|^2 + lap U) / 2 with U = log psi, all by automatic differentiation."""
    system = System(unequal_masses(), F64) if name == "unequal masses" else system_of(name)
    drift = NeuralWavefunction(system, width=6)
    for parameter in drift.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator())
    r = system.initial_walkers(4, generator()).requires_grad_()
    (gradient,) = torch.autograd.grad(drift.log_psi(r).sum(), r, create_graph=True)
    flat, variance = gradient.flatten(1), system.sigma.square().expand(system.shape).flatten()
    second = [
        torch.autograd.grad(flat[:, k].sum(), r, retain_graph=True)[0].flatten(1)[:, k] for k in range(flat.shape[1])
    ]
    kinetic = (variance * (flat.square() + torch.stack(second, 1))).sum(1) / 2
    found = local_quantities(Process(drift, system), r.detach())
    torch.testing.assert_close(found.energy, system.potential(r) - kinetic, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.log_psi, drift.log_psi(r))
    torch.testing.assert_close(found.velocity, system.sigma.square() * gradient)
    assert torch.equal(found.energy, local_energy(Process(drift, system), r.detach()))


def unequal_masses() -> FunctionPotential:
    """Three particles of masses 1, 4 and 4 in a trap, which repel each other."""
    return FunctionPotential(
        lambda r: (
            r.square().sum((-2, -1)) / 2 + (-(r[:, 0] - r[:, 1]).square().sum(-1)).exp() + r[:, 1, 0] * r[:, 2, 0] / 5
        ),
        n_particles=3,
        n_dims=2,
        masses=(1.0, 4.0, 4.0),
    )


def test_local_energy_of_the_exact_state() -> None:
    system = System(load_potential("hydrogen", Z=2.0), F64)
    r = system.initial_walkers(50, generator())
    torch.testing.assert_close(
        local_energy(Process(NeuralWavefunction(system), system), r), torch.full((50,), -2.0, dtype=F64)
    )


def test_line_integral_of_a_free_field() -> None:
    """Where a free drift happens to be a gradient, the line integral gives its log psi."""

    class Quartic(Drift):
        def forward(self, r: torch.Tensor) -> torch.Tensor:
            return -4 * r.pow(3)

    system = System(load_potential("harmonic"), F64)
    r = torch.linspace(-2, 2, 9, dtype=F64)[:, None, None]
    value = log_psi(Process(Quartic(), system), system, r)
    expected = -r.flatten().pow(4) - r.flatten().square() / 2
    torch.testing.assert_close(value - value[4], expected, rtol=1e-6, atol=1e-6)
