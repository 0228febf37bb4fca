"""Networks: symmetry, closed-form derivatives against autograd, cusps left alone, the same start for every seed."""

import pytest
import torch
from torch import Tensor

from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.system import System
from fkdrift.wavefunction.neural import NeuralVectorField, NeuralWavefunction
from fkdrift.wavefunction.protocol import Drift
from tests.systems import gaussian_start, system_of

SYSTEMS = {
    "anharmonic": {},
    "morse": {},
    "cosine": {},
    "henon_heiles": {},
    "helium": {},
    "h2": {},
    "gaussian_bosons": {"n_particles": 3},
    "harmonic_bosons": {"n_particles": 4, "n_dims": 2},
    "calogero": {"n_particles": 3},
}


def random_drift(kind: type[Drift], name: str, depth: int = 3) -> tuple[System, Drift, Tensor]:
    """A system, a drift with random parameters (seeded), and five positions."""
    system = gaussian_start(name) if name == "henon_heiles" else system_of(name, **SYSTEMS[name])
    g = torch.Generator().manual_seed(0)
    drift = kind(system, width=8, depth=depth)
    for parameter in drift.parameters():
        with torch.no_grad():
            parameter.normal_(std=0.5, generator=g)
    return system, drift, system.initial_walkers(5, g)


@pytest.mark.parametrize(("name", "depth"), [*((name, 3) for name in SYSTEMS), ("helium", 1)])
def test_derivatives_against_autograd(name: str, depth: int) -> None:
    """The hand-written reverse gradient and forward Laplacian equal automatic differentiation."""
    _, drift, r = random_drift(NeuralWavefunction, name, depth)
    r.requires_grad_()
    f = drift.log_jastrow(r)
    (gradient,) = torch.autograd.grad(f.sum(), r, create_graph=True)
    flat = gradient.flatten(1)
    second = [
        torch.autograd.grad(flat[:, k].sum(), r, retain_graph=True)[0].flatten(1)[:, k] for k in range(flat.shape[1])
    ]
    laplacian = torch.stack(second, 1).unflatten(1, r.shape[1:]).sum(-1) @ drift.variance[:, 0]
    value, reverse = drift.value_and_gradient(r)
    forward = drift.derivatives(r)
    for ours, exact in ((value, f), (forward.value, f), (reverse, gradient), (forward.gradient, gradient)):
        torch.testing.assert_close(ours, exact, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(forward.laplacian.sum(-1), laplacian, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(drift(r), drift.variance * gradient)


@pytest.mark.parametrize("name", ["helium", "gaussian_bosons", "harmonic_bosons"])
def test_identical_particles(name: str) -> None:
    """log psi is symmetric, and both drifts equivariant, under exchange of identical particles."""
    _, drift, r = random_drift(NeuralWavefunction, name)
    order = torch.randperm(r.shape[1], generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(drift.log_psi(r[:, order]), drift.log_psi(r))
    _, free, _ = random_drift(NeuralVectorField, name)
    torch.testing.assert_close(free(r[:, order]), free(r)[:, order])


def test_distinguishable_particles_differ() -> None:
    """Particles in different groups are told apart even at the same place."""
    potential = load_potential(lambda r: (r[:, 0].square() + 4 * r[:, 1].square()).sum(-1), n_particles=2, n_dims=1)
    system = System(potential, torch.float64)
    drift = NeuralWavefunction(system, width=8)
    for parameter in drift.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    r = torch.tensor([[[0.3], [0.9]]], dtype=torch.float64)
    assert (drift.log_jastrow(r) - drift.log_jastrow(r.flip(1))).abs() > 1e-3


def test_rotation_invariance() -> None:
    _, drift, r = random_drift(NeuralWavefunction, "helium")
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(drift.log_psi(r @ rotation), drift.log_psi(r))


@pytest.mark.parametrize("kind", [NeuralWavefunction, NeuralVectorField])
def test_periodic(kind: type[Drift]) -> None:
    _, drift, r = random_drift(kind, "cosine")
    torch.testing.assert_close(drift(r + 2 * torch.pi), drift(r))


@pytest.mark.parametrize("name", ["helium", "h2"])
def test_network_leaves_cusps_alone(name: str) -> None:
    """The slope of f at a nucleus, and where two electrons meet, is zero in the mean over directions."""
    system, drift, _ = random_drift(NeuralWavefunction, name)
    nuclei = torch.tensor(system.potential.nuclei, dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    n = torch.nn.functional.normalize(torch.randn(4, 3, dtype=torch.float64, generator=g), dim=-1)
    other = torch.tensor([0.3, 0.8, -0.4], dtype=torch.float64).expand(4, 3)
    for centre, companion in [(nucleus, other) for nucleus in nuclei] + [(other[0], other)]:
        slopes = []
        for sign in (1, -1):
            near = [torch.stack([centre + sign * h * n, companion], 1) for h in (1e-6, 0.0)]
            slopes.append((drift.log_jastrow(near[0]) - drift.log_jastrow(near[1])) / 1e-6)
        assert torch.all((slopes[0] + slopes[1]).abs() < 1e-3)


@pytest.mark.parametrize("kind", [NeuralWavefunction, NeuralVectorField])
def test_starts_at_zero(kind: type[Drift]) -> None:
    """An untrained process is the reference process."""
    system = system_of("helium")
    r = system.initial_walkers(4, torch.Generator().manual_seed(0))
    assert torch.equal(kind(system)(r), torch.zeros_like(r))


def test_gradient_drift_has_symmetric_jacobian_and_free_drift_has_not() -> None:
    for kind, symmetric in ((NeuralWavefunction, True), (NeuralVectorField, False)):
        _, drift, r = random_drift(kind, "henon_heiles")
        jacobian = torch.autograd.functional.jacobian(lambda x, v=drift: v(x[None])[0], r[0]).reshape(2, 2)
        assert bool(torch.isclose(jacobian[0, 1], jacobian[1, 0])) is symmetric
