"""A flow as |phi_0|^2: two forms of the energy, its drift, its training, and what is refused."""

from __future__ import annotations

import math
from copy import deepcopy
from functools import cache

import pytest
import torch

import fkdrift as fk
from fkdrift.densities.continuous import Continuous
from fkdrift.densities.coupling import Flow, Scale, coupling_flow
from fkdrift.densities.zuko_density import ZukoDensity
from fkdrift.errors import InputError
from fkdrift.hamiltonian import preparation
from fkdrift.numerics.estimates import from_walkers
from fkdrift.paths.evolution import evolve
from fkdrift.paths.process import Process
from fkdrift.training.energy_gradients import IndependentSamples
from fkdrift.training.loop import fit
from fkdrift.training.natural_gradient import NaturalGradient
from fkdrift.wavefunction import metropolis
from fkdrift.wavefunction.flow import FlowWavefunction, fisher_energy, importance_energy
from fkdrift.wavefunction.flow_start import make_flow, make_wavefunction, semiclassical_tails
from fkdrift.wavefunction.local_energy import local_energy, log_psi
from tests.densities.test_coupling import shaken
from tests.systems import generator

E_WELL = 1.35545373


def system_of(name: str, **parameters: object) -> fk.System:
    return fk.System(fk.load_potential(name, **parameters), torch.float64)


def gaussian(system: fk.System, variance: float) -> FlowWavefunction:
    """The normal density of this variance."""
    n = system.shape[0] * system.shape[1]
    zero = torch.zeros(n, dtype=torch.float64)
    return FlowWavefunction(Flow(n, [Scale(zero, zero + variance**0.5)]), system)


def chain(n: int = 8, pinned: float = 0.2, spring: float = 0.9) -> tuple[fk.Potential, float]:
    """Coupled oscillators between walls, V = (pinned sum x^2 + spring sum (x_{k+1} - x_k)^2) / 2, and E_0."""
    matrix = (pinned + 2 * spring) * torch.eye(n).double() - spring * (
        torch.diag(torch.ones(n - 1), 1) + torch.diag(torch.ones(n - 1), -1)
    )

    def chain(r):
        x = r[:, :, 0]
        return 0.5 * ((x @ matrix.to(x)) * x).sum(-1)

    return fk.FunctionPotential(chain, n_particles=n), 0.5 * float(torch.linalg.eigvalsh(matrix).sqrt().sum())


@pytest.mark.parametrize("batch", [1, 7])
def test_oscillator_ground_state_has_no_noise(batch):
    drift = gaussian(system_of("harmonic", omega=2.0), variance=0.25)
    r = torch.randn(batch, 1, 1, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(local_energy(Process(drift, drift.system), r), torch.ones(batch, dtype=torch.float64))


def test_both_forms_have_the_same_integral():
    """W is a Gaussian: where the prepared one ends, at the end of its table, the reference measure is another."""
    potential = fk.load_potential("(x**2-1.5)**2")
    system = fk.System(potential, torch.float64, prepared=preparation.gaussian(potential))
    drift = FlowWavefunction(shaken(coupling_flow(1, centre=torch.zeros(1).double())), system)
    x = torch.linspace(-9, 9, 20_001, dtype=torch.float64)[:, None, None]
    with torch.no_grad():
        p = drift.log_prob(x).exp()
    step = float(x[1] - x[0])
    local, fisher = (
        (p * E.detach()).sum().item() * step
        for E in (local_energy(Process(drift, drift.system), x), fisher_energy(drift, x))
    )
    assert local == pytest.approx(fisher, abs=1e-6 * abs(fisher))
    assert fisher > E_WELL


def test_masses_enter_both_forms():
    potential = fk.FunctionPotential(lambda r: r.square().sum((-2, -1)) / 2, n_particles=2, masses=(1.0, 4.0))
    system = fk.System(potential, torch.float64)
    width = (0.5 / torch.tensor([1.0, 2.0], dtype=torch.float64)).sqrt()  # variance 1 / (2 m omega), omega = m^-1/2
    drift = FlowWavefunction(Flow(2, [Scale(torch.zeros_like(width), width)]), system)
    r = drift.sample(50_000, generator())
    torch.testing.assert_close(
        local_energy(Process(drift, drift.system), r[:9]), torch.full((9,), 0.75, dtype=torch.float64)
    )
    assert abs(from_walkers(fisher_energy(drift, r)).deviation(0.75)) < 4


def test_kinked_flows_have_a_fisher_energy_only():
    pytest.importorskip("zuko")
    zero = torch.zeros(1, dtype=torch.float64)
    drift = FlowWavefunction(ZukoDensity("NSF", 1, centre=zero, spread=zero + 1), system_of("harmonic"))
    r = drift.sample(50, generator())
    assert fisher_energy(drift, r).shape == (50,)
    with pytest.raises(InputError, match="falls below E_0"):
        local_energy(Process(drift, drift.system), r)
    with pytest.raises(InputError, match="falls below E_0"):
        NaturalGradient(Process(drift, drift.system), time_scale=1.0)


@pytest.mark.parametrize(("name", "parameters"), [("cosine", {}), ("calogero", {})])
def test_systems_that_do_not_suit_are_refused(name, parameters):
    system = system_of(name, **parameters)
    with pytest.raises(InputError, match="method='drift'"):
        FlowWavefunction(coupling_flow(system.shape[0] * system.shape[1]).double(), system)


def test_wrong_number_of_coordinates_is_refused():
    with pytest.raises(InputError, match="coordinates"):
        FlowWavefunction(coupling_flow(2).double(), system_of("harmonic"))


def test_drift_is_half_the_score_in_process_and_path():
    system = system_of("harmonic", omega=2.0)
    drift = gaussian(system, variance=0.4)
    process = Process(drift, system)
    r = drift.sample(4000, generator())
    torch.testing.assert_close(process.velocity(r[:5]), -r[:5] / 0.8)
    torch.testing.assert_close(
        log_psi(process, system, r[:5]), -r[:5, 0, 0].square() / 1.6 - math.log(2 * math.pi * 0.4) / 4
    )
    path = evolve(process, r, n_steps=40, dt=0.01, generator=generator(1))
    assert float(path.end.var()) == pytest.approx(0.4, rel=0.1)


def test_metropolis_steps_keep_the_density():
    system = system_of("(x**2-1.5)**2")
    drift = FlowWavefunction(shaken(coupling_flow(1, centre=torch.zeros(1).double())), system)
    process = Process(drift, system)
    r = drift.sample(4000, generator())
    chain = metropolis.move(process, metropolis.start(process, r, 0.2), 10, generator(1))
    assert 0.3 < float(chain.acceptance) <= 1
    for power in (1, 2):
        before, after = r.pow(power), chain.positions.pow(power)
        error = float(before.std()) * (2 / 4000) ** 0.5
        assert abs(float(after.mean() - before.mean())) < 4 * error


def test_derivatives_agree_with_automatic_ones():
    system = system_of("gaussian_bosons", n_particles=2, g=3.0)
    drift = FlowWavefunction(shaken_symmetric(system), system)
    r = drift.sample(3, generator())
    f, gradient, laplacian = drift.derivatives(r)
    torch.testing.assert_close(f, drift.log_jastrow(r).detach())
    torch.testing.assert_close(gradient, drift.value_and_gradient(r)[1].detach())
    hessian = torch.stack(
        [torch.autograd.functional.hessian(lambda y: drift.log_jastrow(y.reshape(1, 2, 2))[0], x.flatten()) for x in r]
    )
    torch.testing.assert_close(laplacian.sum(-1), torch.diagonal(hessian, dim1=1, dim2=2).sum(-1))


def shaken_symmetric(system: fk.System) -> Flow:
    flow = make_flow(system)
    assert isinstance(flow.chain[1], Continuous)
    return shaken(flow, 0.05)


def test_symmetric_flow_of_bosons():
    system = system_of("gaussian_bosons", n_particles=3, g=6.0)
    drift = FlowWavefunction(shaken_symmetric(system), system)
    r = drift.sample(4, generator())
    with torch.no_grad():
        torch.testing.assert_close(drift.log_psi(r[:, [2, 0, 1]]), drift.log_psi(r), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(drift.log_psi(r[..., [1, 0]]), drift.log_psi(r), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("formula", "power"), [("x**4", 1.5), ("x**6", 2.0), ("2*x**2", 1.0), ("-4/cosh(x)**2", 0.5)])
def test_semiclassical_tails(formula, power):
    delta, length = semiclassical_tails(system_of(formula))
    assert float(delta) == pytest.approx(power, abs=0.03)
    assert float(length) > 0


@pytest.mark.slow
def test_training_finds_the_double_well():
    system = system_of("(x**2-1.5)**2")
    drift = FlowWavefunction(make_flow(system), system)
    g = generator()
    process = Process(drift, system)
    method = NaturalGradient(process, IndependentSamples(512), time_scale=system.time_scale)
    for _ in fit(method, torch.empty(0, *system.shape), n_updates=40, generator=g):
        pass
    method.finish()
    energy = from_walkers(local_energy(Process(drift, drift.system), drift.sample(8000, g)))
    assert energy.error < 1e-3
    assert energy.mean < E_WELL + 2e-3 + 3 * energy.error
    assert energy.deviation(E_WELL) > -4


@pytest.mark.slow
def test_training_finds_the_harmonic_chain():
    potential, exact = chain()
    assert exact == pytest.approx(5.33727, abs=1e-5)
    system = fk.System(potential, torch.float64)
    drift = FlowWavefunction(make_flow(system, width=16), system)
    g = generator()
    process = Process(drift, system)
    method = NaturalGradient(process, IndependentSamples(256), time_scale=system.time_scale)
    for _ in fit(method, torch.empty(0, *system.shape), n_updates=20, generator=g):
        pass
    method.finish()
    energy = from_walkers(local_energy(Process(drift, drift.system), drift.sample(2000, g)))
    assert abs(energy.mean - exact) < 0.002 * exact + 3 * energy.error
    assert energy.deviation(exact) > -4


def test_flow_samples_weigh_another_wave_function():
    """The drift starts as the reference, here exact: E_L has no noise, whatever density draws the samples."""
    system = system_of("harmonic", omega=2.0)
    process = Process(fk.NeuralWavefunction(system), system)
    energy = importance_energy(process, gaussian(system, variance=0.3), 2000, generator())
    assert energy.mean == pytest.approx(1.0, abs=1e-6)
    exact = 2000 * math.sqrt((0.3 / 0.25) * (2 - 0.25 / 0.3) * 0.25 / 0.3) / math.sqrt(0.3 / 0.25)
    assert 0.8 * exact < energy.effective_samples <= 2000


@cache
def started(name: str, **parameters: object) -> FlowWavefunction:
    """A flow on the trial function of a potential, as it starts."""
    return make_wavefunction(system_of(name, **parameters))


def on_trial_function(name: str, **parameters: object) -> FlowWavefunction:
    """A flow on a trial function, a little away from where it starts."""
    psi = deepcopy(started(name, **parameters))
    assert psi.base is not None
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in psi.parameters():
            if parameter.requires_grad:
                parameter += 0.03 * torch.randn(parameter.shape, generator=g, dtype=torch.float64)
    return psi


def test_it_starts_as_the_trial_function():
    psi = started("helium")
    r = psi.sample(50, generator())
    assert psi.trial_function is not None
    assert psi.base is not None
    assert 0.4 < psi.acceptance < 1
    assert not any(parameter.requires_grad for parameter in psi.base.parameters())
    with torch.no_grad():
        torch.testing.assert_close(psi.log_psi(r), psi.trial_function(r))
        torch.testing.assert_close(local_energy(Process(psi, psi.system), r), psi.system.rates(r).killing)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("helium", {}),
        pytest.param("gaussian_bosons", {"n_particles": 3, "g": 6.0}, marks=pytest.mark.slow),
        pytest.param("h2", {}, marks=pytest.mark.slow),
    ],
)
def test_both_energies_of_a_flow_on_a_trial_function_agree(name, parameters):
    """The local energy and the Fisher form at the same samples: their difference has the mean zero."""
    psi = on_trial_function(name, **parameters)
    r = psi.sample(1000, generator())
    with torch.no_grad():
        difference = local_energy(Process(psi, psi.system), r) - fisher_energy(psi, r)
    assert float(difference.std()) > 1e-3
    assert abs(from_walkers(difference).deviation(0.0)) < 4


def test_rejection_samples_are_those_of_metropolis_steps():
    psi = on_trial_function("helium")
    r = psi.sample(1500, generator())
    process = Process(psi, psi.system)
    chain = metropolis.move(process, metropolis.start(process, r, 0.1), 10, generator(1))
    assert 0.3 < float(chain.acceptance) < 1
    for moment in (lambda x: x.norm(dim=-1).mean(1), lambda x: (x[:, 0] - x[:, 1]).norm(dim=-1)):
        before, after = moment(r), moment(chain.positions)
        error = float(before.std()) * (2 / 1500) ** 0.5
        assert abs(float(after.mean() - before.mean())) < 4 * error


def test_the_norm_of_hydrogen():
    """The integral of exp(-2 r) is pi, whatever the flow is."""
    estimate = started("hydrogen").log_norm(20_000, generator())
    assert abs(estimate.deviation(math.log(math.pi))) < 4
    assert estimate.error < 2e-3
    assert gaussian(system_of("harmonic"), variance=0.5).log_norm(10, generator()).mean == 0


def test_a_flow_on_a_trial_function_may_vanish_where_particles_meet():
    psi = started("calogero", n_particles=2)
    with torch.no_grad():
        energy = local_energy(Process(psi, psi.system), psi.sample(50, generator()))
    torch.testing.assert_close(energy, torch.full_like(energy, 3.0))


@pytest.mark.slow
def test_a_trial_function_far_from_any_flow_is_refused():
    with pytest.raises(InputError, match="too few for a flow on it"):
        make_wavefunction(system_of("calogero", n_particles=6))


@pytest.mark.slow
def test_training_improves_on_the_trial_function():
    """Three bosons: the mean of e^2f (E_W + sigma^2 |grad f|^2 / 2) less that of E_W at the same samples."""
    psi = deepcopy(started("gaussian_bosons", n_particles=3, g=6.0))
    system, process = psi.system, Process(psi, psi.system)
    r = psi.sample(4000, generator(5))
    method = NaturalGradient(process, IndependentSamples(256), time_scale=system.time_scale)
    for _ in fit(method, torch.empty(0, *system.shape), n_updates=8, generator=generator()):
        pass
    method.finish()
    with torch.no_grad():
        f, slope = psi.value_and_gradient(r)
        E_W = system.rates(r).killing
        w = (2 * f).exp()
        w = w / w.mean()
        kinetic = (psi.variance * slope.square()).sum((-2, -1)) / 2
        gained = from_walkers(w * (E_W + kinetic) - E_W - (w - 1) * E_W.mean())
    assert gained.mean < -4 * gained.error
