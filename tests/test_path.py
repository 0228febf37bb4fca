"""Trajectories and the path action, against the exact Euler chain of the harmonic oscillator."""

import math

import pytest
import torch

from fkdrift.errors import DivergedPath
from fkdrift.path import evolve
from fkdrift.process import FeynmanKac, Process
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
    coarse = evolve(process, r, n_steps=8, dt=0.5, generator=generator(), substeps=4, n_saved=8)
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
    for score_free in (False, True):
        drift = LinearDrift(1.0)
        drift.k.data = drift.k.data.expand(4000, 1, 1).clone()
        path = evolve(
            Process(drift, oscillator()), r, n_steps=32, dt=1 / 64, generator=generator(5), score_free=score_free
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
