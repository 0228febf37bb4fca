"""Training reaches the optimum where it is known, by both methods and for both kinds of drift."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from fkdrift.errors import InputError
from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.system import System
from fkdrift.numerics.fisher import MetricProduct
from fkdrift.numerics.networks import seeded
from fkdrift.paths.evolution import ScoreFree, evolve
from fkdrift.paths.process import Process
from fkdrift.training.energy_gradients import Pathwise, fisher_metric
from fkdrift.training.loop import fit
from fkdrift.training.natural_gradient import NaturalGradient
from fkdrift.training.objectives import path_kl
from fkdrift.training.pathwise import pathwise_adam
from fkdrift.wavefunction.neural import NeuralVectorField, NeuralWavefunction
from fkdrift.wavefunction.parameter_jacobian import ParameterJacobian
from tests.systems import LinearDrift, gaussian_start, generator, oscillator, stationary

F64 = torch.float64


@pytest.fixture(autouse=True)
def _networks_of_one_seed() -> Iterator[None]:
    """Networks begin with parameters from torch's global generator: the same for every order of the tests."""
    with seeded(0):
        yield


@pytest.mark.slow
def test_pathwise_adam_finds_the_exact_slope() -> None:
    """v = -k x on V = x^2 / 2 trained on paths of T = 1 ends at k = 1, less what the step size does to the fixed point.

    Setting the gradient of the Euler chain's free energy with its terminal term to zero gives, to first order in dt,
    k = 1 - (dt / 2) (T + A / 2) / (T - A / 2) with A = 1 - exp(-2 T).
    """
    drift = LinearDrift(0.4)
    g = generator()
    dt = 1 / 32
    method = pathwise_adam(Process(drift, oscillator()), n_steps=32, dt=(dt, dt), n_updates=120, learning_rate=0.05)
    steps = list(fit(method, stationary(0.4, 0, 2048, g), n_updates=120, generator=g))
    assert [step.index for step in steps] == list(range(1, 121))
    A = 1 - math.exp(-2)
    assert drift.k.item() == pytest.approx(1 - dt / 2 * (1 + A / 2) / (1 - A / 2), abs=0.005)


def test_terminal_term_is_what_makes_short_paths_work() -> None:
    """The gradient at the optimum k = 1 vanishes with the terminal term, and pulls k down without it."""
    drift = LinearDrift(1.0)
    process = Process(drift, oscillator())
    path = evolve(
        process,
        stationary(1.0, 0, 20000, generator()),
        n_steps=32,
        dt=1 / 64,
        generator=generator(1),
        gradient=ScoreFree(),
    )
    terms = path_kl(path, process)
    (whole,) = torch.autograd.grad(terms.loss, drift.k, retain_graph=True)
    (without,) = torch.autograd.grad(terms.loss - terms.terminal, drift.k)
    assert abs(whole.item()) < 0.01
    assert without.item() > 0.1
    assert terms.terminal.item() == 0.0


@pytest.mark.slow
def test_natural_gradient_takes_newton_steps() -> None:
    """The quartic oscillator, E_0 = 0.8037706512: the spread of E_L falls tenfold in 40 updates, the energy to 5e-4."""
    system = gaussian_start("anharmonic")
    process = Process(NeuralWavefunction(system, width=16), system)
    g = generator()
    method = NaturalGradient(process, time_scale=system.time_scale)
    steps = list(fit(method, system.initial_walkers(2048, g), n_updates=40, generator=g))
    late = steps[-20:]
    assert sorted(step.standard_deviation for step in late)[10] < steps[0].standard_deviation / 10
    mean = sum(step.energy.mean for step in late) / 20
    error = (sum(step.energy.error**2 for step in late)) ** 0.5 / 20
    assert abs(mean - 0.8037706512) < 5e-4 + 4 * error
    assert late[-1].update.estimated_excess < 2e-3 < steps[0].update.estimated_excess * 10
    method.finish()
    assert torch.equal(torch.nn.utils.parameters_to_vector(process.drift.parameters()), method.average)


def test_training_stops_by_itself() -> None:
    system = System(load_potential("harmonic"), F64)
    process = Process(NeuralWavefunction(system, width=8), system)
    g = generator()
    method = NaturalGradient(process, time_scale=system.time_scale)
    steps = list(fit(method, system.initial_walkers(64, g), n_updates=500, generator=g, tolerance=1e-6))
    assert len(steps) < 60


@pytest.mark.slow
@pytest.mark.parametrize("method", ["adam", "natural"])
def test_free_drift_improves(method: str) -> None:
    """A free vector field lowers the path action of the double well by most of what there is to gain."""
    system = gaussian_start("double_well")
    process = Process(NeuralVectorField(system, width=16), system)
    g = generator()
    tau = system.time_scale
    if method == "adam":
        trainer = pathwise_adam(process, n_steps=16, dt=(tau / 8, tau / 32), n_updates=65)
    else:
        trainer = NaturalGradient(process, Pathwise(16, tau / 16), time_scale=tau)
    steps = list(fit(trainer, system.initial_walkers(512, g), n_updates=65, generator=g))
    first = sum(step.energy.mean for step in steps[:3]) / 3
    last = sum(step.energy.mean for step in steps[-15:]) / 15
    assert first > 0.93
    assert 0.86 < last < 0.91


def test_saved_method_goes_on_identically() -> None:
    system = gaussian_start("double_well")
    results = []
    for split in (False, True):
        process = Process(NeuralWavefunction(system, width=4), system)
        for parameter in process.drift.parameters():
            torch.nn.init.constant_(parameter, 0.1)
        g = generator()
        method = NaturalGradient(process, time_scale=system.time_scale)
        walkers = system.initial_walkers(16, g)
        if split:
            *_, step = fit(method, walkers, n_updates=3, generator=g)
            state = method.state_dict()
            method = NaturalGradient(process, time_scale=system.time_scale)
            method.load_state_dict(state)
            *_, step = fit(method, step.update.walkers, n_updates=6, generator=g, first=3)
        else:
            *_, step = fit(method, walkers, n_updates=6, generator=g)
        results.append(torch.nn.utils.parameters_to_vector(process.drift.parameters()).detach())
    assert torch.equal(*results)


def test_drift_without_parameters_is_refused() -> None:
    with pytest.raises(InputError, match="no parameters to train"):
        pathwise_adam(Process(lambda r: -r, oscillator()), n_steps=4, dt=(0.1, 0.1), n_updates=1)


def test_the_metric_of_many_particles_survives_single_precision() -> None:
    """log psi of many particles changes by far more than its differences from walker to walker."""

    def metric(dtype: torch.dtype) -> tuple[MetricProduct, Tensor]:
        system = System(load_potential("harmonic_bosons", n_particles=20, n_dims=3), dtype)
        psi, g = NeuralWavefunction(system), generator(1)
        for parameter in psi.parameters():
            parameter.data = (0.3 * torch.randn(parameter.shape, generator=g, dtype=F64)).to(dtype)
        r = torch.randn(64, 20, 3, generator=g, dtype=F64).to(dtype)
        mean = ParameterJacobian(psi, r).pull(torch.full_like(r[:, 0, 0], 1 / 64), torch.zeros_like(r))
        return fisher_metric(Process(psi, system), list(psi.parameters()), r, 1.0), mean

    (double, mean), (single, _) = metric(F64), metric(torch.float32)
    p = mean / mean.norm()
    assert mean.norm() > 1000
    assert (single(p.float()).double() - double(p)).norm() < 0.03
