"""Systems: the fitted Gaussian, the killing rate, starting walkers, and what is refused."""

import pytest
import torch

from fkdrift.errors import InputError, NoGradient, Unbound
from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.system import System

F64 = torch.float64


@pytest.mark.parametrize(("omega", "n_dims"), [(1.0, 1), (2.0, 3)])
def test_oscillator_is_its_own_reference(omega: float, n_dims: int) -> None:
    """The best Gaussian is the exact state: E_W is E_0 everywhere, the width sqrt(1 / (2 omega)), tau = 1 / omega."""
    system = System(load_potential("harmonic", omega=omega, n_dims=n_dims), F64)
    r = system.initial_walkers(100, torch.Generator().manual_seed(0))
    rate = system.rates(r).killing
    assert torch.all((rate - n_dims * omega / 2).abs() < 1e-4)
    assert system.time_scale == pytest.approx(1 / omega, rel=1e-4)


def test_centre_and_width_follow_the_potential() -> None:
    system = System(load_potential("(x-30)**2 + 3*y**2"), F64)
    assert system.centre[0].tolist() == pytest.approx([30, 0], abs=1e-3)
    assert system.width[0].tolist() == pytest.approx([2**-0.75, (2 * 6**0.5) ** -0.5], rel=1e-2)


def test_masses() -> None:
    """Mass m: width (2 m omega)^(-1/2) and relaxation time 1 / omega, for V = m omega^2 x^2 / 2."""
    potential = load_potential(lambda r: 2 * r.square().sum((-2, -1)), masses=(4.0,))
    system = System(potential, F64)
    assert system.sigma.item() == pytest.approx(0.5)
    assert system.width.item() == pytest.approx((2 * 4) ** -0.5, rel=1e-4)
    assert system.time_scale == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize(
    "name",
    [
        "hydrogen",
        "calogero",
        pytest.param("helium", marks=pytest.mark.slow),
        pytest.param("h2", marks=pytest.mark.slow),
    ],
)
def test_walkers_start_from_the_reference_density(name: str) -> None:
    """E_W over |phi_ref|^2 is the variational energy of the reference: above E_0, by at most its spread squared."""
    system = System(load_potential(name), F64)
    r = system.initial_walkers(2000, torch.Generator().manual_seed(0))
    rate = system.rates(r).killing
    energy, error = rate.mean().item(), rate.std().item() / 2000**0.5
    exact = system.potential.known_energy.value
    assert energy > exact - 4 * error - 1e-9
    assert energy < exact + 0.02 * abs(exact) + 4 * error


def test_reference_drift_is_the_gradient() -> None:
    system = System(load_potential("h2"), F64)
    r = torch.randn(5, 2, 3, dtype=F64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(system.trial_function(r).sum(), r)
    torch.testing.assert_close(system.rates(r).drift.detach(), gradient)


def test_ring() -> None:
    system = System(load_potential("cosine"), F64)
    r = system.initial_walkers(4000, torch.Generator().manual_seed(0))
    assert system.trial_function is None
    assert r.min() >= 0
    assert r.max() <= 2 * torch.pi
    assert torch.equal(system.rates(r).killing, system.potential(r))
    assert torch.all(system.wrap(r + 2 * torch.pi) - r < 1e-9)


@pytest.mark.parametrize("formula", ["-x**2", "0*x", "x**3", "x"])
def test_unbound(formula: str) -> None:
    with pytest.raises(Unbound, match="must confine"):
        System(load_potential(formula))


def test_bad_potentials() -> None:
    with pytest.raises(InputError, match="not finite"):
        System(load_potential("log(x)"))
    with pytest.raises(InputError, match="positive masses"):
        System(load_potential(lambda r: r.square().sum((-2, -1)), masses=(-1.0,)))


def test_potential_without_gradient() -> None:
    """A square well has no useful gradient; the reference is found all the same."""
    system = System(load_potential("where(abs(x) < 1, 0, 10)"), F64)
    assert abs(system.centre.item()) < 0.1
    assert 0.3 < system.width.item() < 0.7


@pytest.mark.parametrize("n_dims", [1, 2])
def test_a_gradient_that_is_not_a_number_is_refused(n_dims: int) -> None:
    """torch multiplies the zero of the branch not taken by the infinite or undefined slope in it."""

    def V(r: torch.Tensor) -> torch.Tensor:
        well = torch.where(r < 0, r**2 / 2 + r**4, r**2 / 2 + r**4 * r.sqrt() / r.sqrt()).sum((-2, -1))
        return well + r.prod(-1).sum(-1) / 10

    with pytest.raises(NoGradient, match=r"the gradient of V is not a number at .*, where V is finite"):
        System(load_potential(V, n_dims=n_dims))


def test_lengths_of_another_order_are_refused() -> None:
    with pytest.raises(Unbound, match="to lengths between 1e-4 and 1e4 in its unit"):
        System(load_potential("1e30*x**2"))
