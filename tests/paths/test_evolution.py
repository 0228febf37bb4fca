"""Trajectories and the path action, against the exact Euler chain of the harmonic oscillator."""

import math

import pytest
import torch
import torchsde

from fkdrift.errors import BadParameter, DivergedPath, InputError
from fkdrift.numerics.estimates import from_walkers
from fkdrift.paths.evolution import (
    Adjoint,
    Averaged,
    Detached,
    Gradient,
    Noise,
    ScoreFree,
    Shared,
    ThroughPath,
    White,
    _Augmented,
    evolve,
)
from fkdrift.paths.process import FeynmanKac, Overdamped, Process, TimedProcess
from tests.systems import LinearDrift, euler_energy, generator, oscillator, stationary


@pytest.mark.parametrize("k", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("dt", [0.25, 0.0625])
def test_action_of_linear_drift(k: float, dt: float) -> None:
    """E[l_T] / T = (k^2 + 1) / (2 k (2 - k dt)), the Euler chain's own exact value, step bias included."""
    g = generator()
    process = Process(LinearDrift(k), oscillator())
    with torch.no_grad():
        path = evolve(process, stationary(k, dt, 4096, g), n_steps=64, dt=dt, generator=g)
    energy = path.action[-1] / path.duration
    z = (energy.mean() - euler_energy(k, dt)) / (energy.std() / 64)
    assert abs(z) < 4
    assert energy.std() < 4


def test_ito_term_reduces_the_spread() -> None:
    """At the exact drift l_T = T/2 + (x_0^2 - x_T^2) / 2.

    So the spread of l_T / T at T = 8 is 1/16; four times more without int u.dB, sqrt(T/2 - 1/4) / T; and only what the
    step size leaves with the boundary term added.
    """
    g = generator(1)
    process = Process(LinearDrift(1.0), oscillator())
    with torch.no_grad():
        path = evolve(process, stationary(1.0, 0, 8192, g), n_steps=8 * 128, dt=1 / 128, generator=g)
    boundary = (path.positions[-1].square() - path.positions[0].square()).sum((-2, -1)) / 2
    spreads = [
        x.std().item() / 8 for x in ((path.control + path.cost)[-1], path.action[-1], path.action[-1] + boundary)
    ]
    assert spreads[0] == pytest.approx(3.75**0.5 / 8, rel=0.05)
    assert spreads[1] == pytest.approx(1 / 16, rel=0.05)
    assert spreads[2] == pytest.approx((2 / 128 / 8) ** 0.5 / 2, rel=0.2)


def test_log_ratio_is_a_martingale_density() -> None:
    """E_v[exp(-log dP_v / dP_ref)] = 1: the sign and the Ito side of int u.dB, and the half, are right."""
    g = generator(2)
    process = Process(LinearDrift(0.7), oscillator())
    with torch.no_grad():
        path = evolve(process, stationary(1.0, 0, 20000, g), n_steps=32, dt=1 / 32, generator=g)
    weight = (-path.log_ratio[-1]).exp()
    assert abs((weight.mean() - 1) / (weight.std() / 20000**0.5)) < 4


def test_masses_scale_the_noise() -> None:
    """sigma_i = 1 / sqrt(m_i): free Brownian motion spreads as T / m for each particle."""
    sigma = torch.tensor([[1.0], [0.5]], dtype=torch.float64)
    process = Process(torch.zeros_like, FeynmanKac(lambda r: 0 * r.sum((-2, -1)), sigma))
    path = evolve(process, torch.zeros(20000, 2, 3, dtype=torch.float64), n_steps=4, dt=0.5, generator=generator())
    variance = path.positions[-1].var(0).mean(-1)
    expected = 2.0 * sigma[:, 0].square()
    assert torch.all((variance / expected - 1).abs() < 4 * math.sqrt(2 / 60000))
    assert torch.equal(path.action, torch.zeros_like(path.action))


def test_shared_brownian_path() -> None:
    """Runs with steps dt and dt/4 from one generator state follow one Brownian path: without drift they coincide."""
    process = Process(torch.zeros_like, oscillator())
    r = torch.zeros(5, 1, 1, dtype=torch.float64)
    coarse = evolve(process, r, n_steps=8, dt=0.5, generator=generator(), noise=Shared(4), n_saved=8)
    fine = evolve(process, r, n_steps=32, dt=0.125, generator=generator(), n_saved=8)
    torch.testing.assert_close(coarse.positions, fine.positions)


def test_gradient_through_the_trajectory() -> None:
    """d E[l_T] / d k by backpropagation equals a finite difference on the same noise."""
    r = stationary(1.0, 0, 64, generator())

    def action(k: float, differentiate: bool) -> tuple[float, float]:
        drift = LinearDrift(k)
        path = evolve(Process(drift, oscillator()), r, n_steps=16, dt=0.1, generator=generator(5))
        total = path.action[-1].mean()
        if differentiate:
            total.backward()
            assert drift.k.grad is not None
            return total.item(), drift.k.grad.item()
        return total.item(), 0.0

    _, gradient = action(1.3, True)
    finite = (action(1.3 + 1e-5, False)[0] - action(1.3 - 1e-5, False)[0]) / 2e-5
    assert gradient == pytest.approx(finite, rel=1e-6)


def test_score_free_gradient_is_unbiased_and_quieter() -> None:
    """Leaving int d_theta u . dB out keeps values and the mean gradient, and removes its noise at the optimum."""
    r = stationary(1.0, 0, 4000, generator())
    gradients = []
    for gradient_kind in (ThroughPath(), ScoreFree()):
        drift = LinearDrift(1.0)
        drift.k.data = drift.k.data.expand(4000, 1, 1).clone()
        path = evolve(
            Process(drift, oscillator()), r, n_steps=32, dt=1 / 64, generator=generator(5), gradient=gradient_kind
        )
        log_phi = -path.positions[-1].square().sum((-2, -1)) / 2
        (gradient,) = torch.autograd.grad((path.action[-1] - log_phi).sum(), drift.k)
        gradients.append((path.action[-1].detach(), gradient.flatten()))
    torch.testing.assert_close(gradients[0][0], gradients[1][0])
    difference = gradients[0][1] - gradients[1][1]
    assert abs(difference.mean() / (difference.std() / 4000**0.5)) < 4
    assert gradients[1][1].std() < 0.2 * gradients[0][1].std()


def test_saved_times_and_shapes() -> None:
    process = Process(LinearDrift(1.0), oscillator(2))
    r = torch.zeros(3, 4, 2, dtype=torch.float64)
    path = evolve(process, r, n_steps=12, dt=0.25, generator=generator(), n_saved=3)
    assert path.times.tolist() == [0, 1, 2, 3]
    assert path.positions.shape == (4, 3, 4, 2)
    assert path.action.shape == (4, 3)
    assert torch.equal(path.action[0], torch.zeros(3, dtype=torch.float64))
    assert not path.end.requires_grad


def test_divergence_says_what_to_do() -> None:
    process = Process(lambda r: r.pow(3), oscillator())
    with pytest.raises(DivergedPath, match="halve the time step") as caught:
        evolve(process, torch.ones(4, 1, 1, dtype=torch.float64), n_steps=64, dt=0.5, generator=generator())
    assert caught.value.partial.positions.shape[1] == 4


def test_steps_must_divide() -> None:
    process = Process(LinearDrift(1.0), oscillator())
    with pytest.raises(ValueError, match="multiple of n_saved"):
        evolve(process, torch.zeros(1, 1, 1, dtype=torch.float64), n_steps=10, dt=0.1, generator=generator(), n_saved=3)


class Steered(torch.nn.Module):
    """v(t, r) = a (1 - t) - k r: linear, and different at every time."""

    def __init__(self, a: float = 0.8, k: float = 0.6) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(a, dtype=torch.float64))
        self.k = torch.nn.Parameter(torch.tensor(k, dtype=torch.float64))

    def forward(self, t: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        return self.a * (1 - t) - self.k * r


def test_drift_that_depends_on_time() -> None:
    """d<r>/dt = a (1 - t) - k <r> from t = 0.25: the mean of the Euler chain follows its own recursion."""
    drift, g = Steered(), generator()
    process = TimedProcess(drift, oscillator())
    with torch.no_grad():
        path = evolve(process, torch.zeros(40000, 1, 1).double(), n_steps=12, dt=1 / 16, generator=g, start=0.25)
    mean = 0.0
    for k in range(12):
        mean += (0.8 * (1 - 0.25 - k / 16) - 0.6 * mean) / 16
    assert path.times.tolist() == [0.25, 1.0]
    assert path.duration == 0.75
    z = (path.positions[-1].mean() - mean) / (path.positions[-1].std() / 200)
    assert abs(z) < 4
    weight = (-path.log_ratio[-1]).exp()
    assert abs((weight.mean() - 1) / (weight.std() / 200)) < 4


def test_reference_that_depends_on_time() -> None:
    """With sigma(t)^2 = 1 + t the variance of a martingale is int_0^1 (1 + t) dt, in left-point steps."""

    def reference(t: torch.Tensor) -> FeynmanKac:
        return FeynmanKac(lambda r: 0 * r.sum((-2, -1)), (1 + t).sqrt().expand(1, 1))

    process = TimedProcess(lambda t, r: torch.zeros_like(r), reference)
    r = torch.zeros(40000, 1, 1, dtype=torch.float64)
    path = evolve(process, r, n_steps=16, dt=1 / 16, generator=generator())
    exact = sum((1 + k / 16) / 16 for k in range(16))
    assert abs(path.positions[-1].var().item() / exact - 1) < 4 * math.sqrt(2 / 40000)


def test_paths_that_follow_each_other_are_one_path() -> None:
    drift, r = Steered(), torch.zeros(5, 1, 1, dtype=torch.float64)
    process = TimedProcess(drift, oscillator())
    whole = evolve(process, r, n_steps=16, dt=1 / 16, generator=generator(), n_saved=4)
    g = generator()
    first = evolve(process, r, n_steps=8, dt=1 / 16, generator=g, n_saved=2)
    second = evolve(process, first.positions[-1], n_steps=8, dt=1 / 16, generator=g, n_saved=2, start=0.5)
    joined = first.then(second)
    torch.testing.assert_close(joined.times, whole.times)
    torch.testing.assert_close(joined.positions, whole.positions)
    torch.testing.assert_close(joined.action, whole.action)


@pytest.mark.parametrize("timed", [False, True])
def test_adjoint_gradient_approaches_that_through_the_solver(timed: bool) -> None:
    """The adjoint equation gives the gradient of the same path functional, with a step error of its own."""
    errors = []
    for n_steps in (16, 128):
        gradients = []
        for adjoint in (True, False):
            drift: torch.nn.Module = Steered() if timed else LinearDrift(0.7)
            process = (TimedProcess if timed else Process)(drift, oscillator(2))
            parameters = list(drift.parameters())
            options = {"n_steps": n_steps, "dt": 1 / n_steps, "n_saved": n_steps}
            r = torch.ones(512, 2, 2, dtype=torch.float64)
            if adjoint:
                path = evolve(process, r, generator=generator(3), gradient=Adjoint(tuple(parameters)), **options)
                seed = int(torch.randint(2**31, (), generator=generator(3)))
                noise = torchsde.BrownianInterval(
                    0.0, 1.0, size=(512, 4), dtype=torch.float64, entropy=seed, dt=1 / n_steps
                )
            else:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr("fkdrift.paths.evolution.Increments", lambda *arguments, noise=noise: noise)
                    path = evolve(process, r, generator=generator(3), **options)
            path.action[-1].mean().backward()
            gradients.append(torch.stack([p.grad for p in parameters]))
        errors.append((gradients[0] - gradients[1]).norm().item() / gradients[1].norm().item())
    assert errors[1] < 0.03
    assert errors[1] < 0.5 * errors[0]


def test_adjoint_paths_repeat_with_their_generator() -> None:
    drift = LinearDrift(0.7)
    process, r = Process(drift, oscillator()), torch.ones(8, 1, 1, dtype=torch.float64)
    first, second, other = (
        evolve(process, r, n_steps=8, dt=1 / 8, generator=generator(seed), gradient=Adjoint(tuple(drift.parameters())))
        for seed in (4, 4, 5)
    )
    assert torch.equal(first.positions, second.positions)
    assert torch.equal(first.action, second.action)
    assert not torch.equal(first.positions, other.positions)


def test_detached_gradient_is_the_score() -> None:
    """With the trajectory held fixed, d log dP_v/dP_ref = int d_theta u . dB: for v = -k r it is -int r dB."""
    drift, r = LinearDrift(0.7), stationary(1.0, 0, 64, generator())
    process = Process(drift, oscillator())
    path = evolve(process, r, n_steps=16, dt=1 / 16, generator=generator(5), n_saved=16, gradient=Detached())
    assert not path.positions.requires_grad
    path.log_ratio[-1].sum().backward()
    dr = path.positions.diff(dim=0)
    dB = dr + 0.7 * path.positions[:-1] / 16
    score = -(path.positions[:-1] * dB).sum()
    torch.testing.assert_close(drift.k.grad, score)


def test_a_stratonovich_solver_would_be_wrong() -> None:
    """Why Euler-Maruyama steps it: int u o dB differs from int u . dB by int div v / 2 dt = -k T / 2 in the mean."""
    k, n = 0.7, 4000
    sde = _Augmented(Process(LinearDrift(k), oscillator()), torch.Size((1, 1)))
    sde.sde_type = "stratonovich"
    state = torch.cat([torch.zeros(n, 1), torch.zeros(n, 3)], 1).double()
    noise = torchsde.BrownianInterval(0.0, 1.0, size=(n, 1), dtype=torch.float64, entropy=1, dt=1 / 32)
    with torch.no_grad():
        states = torchsde.sdeint(sde, state, torch.tensor([0.0, 1.0]).double(), bm=noise, method="heun", dt=1 / 32)
    ito = states[-1, :, 1]
    assert abs((ito.mean() + k / 2) / (ito.std() / n**0.5)) < 4
    assert abs(ito.mean() / (ito.std() / n**0.5)) > 10


@pytest.mark.parametrize(
    ("noise", "gradient"),
    [
        (Shared(2), Adjoint(())),
        (Averaged(), Adjoint(())),
        (Averaged(), Detached()),
        (Averaged(), ScoreFree()),
    ],
)
def test_noise_and_gradients_that_exclude_each_other(noise: Noise, gradient: Gradient) -> None:
    process, r = Process(LinearDrift(1.0), oscillator()), torch.zeros(1, 1, 1).double()
    with pytest.raises(BadParameter, match="leave out"):
        evolve(process, r, n_steps=1, dt=0.1, generator=generator(), noise=noise, gradient=gradient)


def test_shared_noise_is_made_of_some_increments() -> None:
    with pytest.raises(BadParameter, match="at least 1"):
        Shared(0)


def test_overdamped_dynamics_keeps_the_boltzmann_law() -> None:
    """For U = r^2 / 2 at temperature kT the drift is -r / 2 kT, and the variance stays kT up to the step bias."""
    reference = Overdamped(lambda r: r.square().sum((-2, -1)) / 2, torch.ones(1, 1, dtype=torch.float64), 2.0)
    r = 2**0.5 * torch.randn(40000, 1, 1, generator=(g := generator()), dtype=torch.float64)
    torch.testing.assert_close(reference.rates(r).drift, -r / 4)
    with torch.no_grad():
        path = evolve(Process(torch.zeros_like, reference), r, n_steps=32, dt=1 / 32, generator=g)
    assert abs(path.positions[-1].var().item() / 2 - 1) < 0.01 + 4 * math.sqrt(2 / 40000)


@pytest.mark.parametrize(("noise", "energy"), [(White(), 1 / (2 - 0.4)), (Averaged(), 0.5)])
def test_averaged_noise_has_the_exact_law_of_an_oscillator(noise: Noise, energy: float) -> None:
    """v = -r with dt = 0.4: E[v^2 / 2 + V] = E[r^2] is 1 / (2 - dt) for Euler and 1/2 with averaged noise."""
    process = Process(lambda r: -r, FeynmanKac(lambda r: r.square().sum((-2, -1)) / 2, torch.ones(1, 1)))
    r0 = torch.randn(4096, 1, 1, generator=generator(), dtype=torch.float64) * energy**0.5
    path = evolve(process, r0, n_steps=400, dt=0.4, generator=generator(1), noise=noise, n_saved=2)
    stationary = (path.control + path.cost).diff(dim=0)[-1] / (path.duration / 2)
    estimate = from_walkers(stationary)
    assert estimate.error < 2e-3
    assert abs(estimate.deviation(energy)) < 4


def test_averaged_noise_has_no_density() -> None:
    """Nor has what follows it."""
    process = Process(lambda r: -r, FeynmanKac(lambda r: r.square().sum((-2, -1)) / 2, torch.ones(1, 1)))
    weighed, path = (
        evolve(process, torch.zeros(2, 1, 1), n_steps=1, dt=0.1, generator=generator(), noise=noise)
        for noise in (White(), Averaged())
    )
    for one in (path, weighed.then(path), path.then(weighed)):
        for density in (lambda one=one: one.ito, lambda one=one: one.log_ratio, lambda one=one: one.action):
            with pytest.raises(InputError, match=r"no density.*path.control and path.cost"):
                density()
    assert weighed.then(path).control.shape == (3, 2)
