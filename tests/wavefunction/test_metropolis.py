"""Metropolis-adjusted steps: the stationary law is exact at any step size."""

import pytest
import torch

from fkdrift.errors import InputError
from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.system import System
from fkdrift.paths.process import Process
from fkdrift.wavefunction import metropolis
from fkdrift.wavefunction.neural import NeuralVectorField, NeuralWavefunction
from tests.systems import generator, system_of

F64 = torch.float64


@pytest.mark.parametrize("step", [0.2, 1.0])
@pytest.mark.parametrize("name", ["harmonic", "hydrogen"])
def test_stationary_moments(name: str, step: float) -> None:
    """<x^2> = 1/2 for the oscillator and <r> = 3/2 for hydrogen, for small and large steps."""
    system = system_of(name)
    process = Process(NeuralWavefunction(system, width=4), system)
    g = generator(1)
    chain = metropolis.start(process, system.initial_walkers(4000, g), step * system.time_scale)
    samples = []
    for k in range(20):
        chain = metropolis.move(process, chain, 5, g)
        if k >= 5:
            r = chain.positions
            samples.append(r.square().sum((-2, -1)) if name == "harmonic" else r.norm(dim=-1).sum(-1))
    mean = torch.stack(samples).mean(0)
    z = (mean.mean() - {"harmonic": 0.5, "hydrogen": 1.5}[name]) / (mean.std() / 4000**0.5)
    assert abs(z) < 4
    assert 0.3 < chain.acceptance < 1


def test_step_is_tuned_only_on_request() -> None:
    system = system_of("helium")
    process = Process(NeuralWavefunction(system, width=4), system)
    g = generator()
    chain = metropolis.start(process, system.initial_walkers(200, g), 5 * system.time_scale)
    assert metropolis.move(process, chain, 2, g).dt == chain.dt
    for _ in range(25):
        chain = metropolis.move(process, chain, 4, g, longest=system.time_scale / 2)
    assert chain.dt <= system.time_scale / 2
    assert chain.acceptance > 0.55


def test_free_drift_is_refused() -> None:
    system = System(load_potential("harmonic"), F64)
    process = Process(NeuralVectorField(system), system)
    with pytest.raises(InputError, match="use a NeuralWavefunction"):
        metropolis.start(process, system.initial_walkers(2, generator()), 0.1)
