"""The hot loop never waits for the device: on `meta` tensors, which hold no numbers, reading one would raise."""

import functools

import pytest
import torch

import fkdrift as fk
from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.system import System
from fkdrift.numerics.fisher import conjugate_gradient, flat_gradient, metric_product
from fkdrift.paths.evolution import _Augmented
from fkdrift.paths.process import Process
from fkdrift.wavefunction import metropolis
from fkdrift.wavefunction.local_energy import local_energy
from fkdrift.wavefunction.neural import NeuralVectorField, NeuralWavefunction

SYSTEMS = {
    "anharmonic": {},
    "helium": {},
    "gaussian_bosons": {"n_particles": 4},
    "calogero": {"n_particles": 3},
    "cosine": {"V0": (0.1, 0.2)},
}


@functools.cache
def system_on_meta(name):
    return System(load_potential(name, **SYSTEMS[name]), device="meta")


def on_meta(name, kind=NeuralWavefunction):
    system = system_on_meta(name)
    drift = kind(system, width=8)
    return system, Process(drift, system), torch.empty(16, *system.shape, device="meta")


def test_reading_a_number_would_raise():
    with pytest.raises(RuntimeError):
        torch.empty(3, device="meta").sum().item()


@pytest.mark.parametrize("name", SYSTEMS)
def test_sampling_does_not_wait(name):
    system, process, r = on_meta(name)
    chain = metropolis.start(process, r, system.time_scale / 4)
    chain = metropolis.move(process, chain, 2, None, longest=system.time_scale)
    assert chain.positions.shape == r.shape
    assert chain.positions.device.type == "meta"
    assert local_energy(process, chain.positions).shape == (16,)


@pytest.mark.parametrize("name", SYSTEMS)
def test_natural_gradient_does_not_wait(name):
    _, process, r = on_meta(name)
    parameters = list(process.drift.parameters())
    f, slope = process.drift.value_and_gradient(r)
    gradient = flat_gradient(f, parameters, torch.ones_like(f), retain_graph=True)
    damping = torch.empty((), device="meta")
    step, _ = conjugate_gradient(metric_product(slope, parameters), gradient, torch.zeros_like(gradient), damping, 3)
    assert step.shape == gradient.shape == (sum(p.numel() for p in parameters),)


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("kind", [NeuralWavefunction, NeuralVectorField])
def test_a_step_of_a_path_does_not_wait(name, kind):
    _, process, r = on_meta(name, kind)
    state = torch.cat([r.flatten(1), r.new_zeros(16, 3)], 1)
    sde = _Augmented(process, r.shape[1:])
    f, g_prod = sde.f_and_g_prod(torch.tensor(0.0), state, torch.empty_like(r).flatten(1))
    assert f.shape == g_prod.shape == state.shape


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_helium_on_cuda():
    settings = fk.Settings(device="cuda", n_walkers=256, n_updates=30, n_blocks=20)
    state = fk.solve("helium", settings=settings, progress=False)
    assert state.walkers.device.type == "cuda"
    assert abs(state.energy.deviation(-2.903724377)) < 4 + 1e-2 / state.energy.error
