"""Free systems: nothing confines the centre of mass, which rests; energies are those of the relative motion."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from systems import generator
from torch import Tensor

import fkdrift as fk
from fkdrift.errors import InputError, Unbound
from fkdrift.estimators.projection import Projection
from fkdrift.exact.diagonalisation import diagonalise
from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.potential import FunctionPotential, Potential, distance, moves_freely
from fkdrift.hamiltonian.system import System
from fkdrift.paths.evolution import Adjoint, evolve
from fkdrift.paths.process import Process
from fkdrift.runs.settings import Settings
from fkdrift.wavefunction import metropolis
from fkdrift.wavefunction.local_energy import local_energy
from fkdrift.wavefunction.neural import NeuralVectorField, NeuralWavefunction

MASSES = (1.0, 2.0, 5.0)
SPRINGS = {(0, 1): 1.0, (0, 2): 2.0, (1, 2): 0.3}


def springs(r: Tensor) -> Tensor:
    """Three particles joined by springs."""
    return sum(k / 2 * (r[:, i] - r[:, j]).square().sum(-1) for (i, j), k in SPRINGS.items())


def springs_energy(n_dims: int) -> float:
    K = np.zeros((3, 3))
    for (i, j), k in SPRINGS.items():
        K[[i, j], [i, j]] += k
        K[[i, j], [j, i]] -= k
    root = np.sqrt(MASSES)
    return n_dims * float(np.sqrt(np.linalg.eigvalsh(K / np.outer(root, root))[1:]).sum()) / 2


@dataclass(frozen=True)
class Molecule(Potential):
    """Two particles, V = D ((1 - exp(-(r - R)))^2 - 1)."""

    D: float = 10.0
    R: float = 2.0
    n_particles = 2
    n_dims = 3
    mass = (1.0, 2.0)
    free = True

    def __call__(self, r: Tensor) -> Tensor:
        return self.D * ((1 - torch.exp(self.R - distance(r[:, 0] - r[:, 1]))).square() - 1)


def chain(n_dims: int) -> System:
    return System(FunctionPotential(springs, 3, n_dims, MASSES), torch.float64)


def disturbed(system: System, spread: float = 0.3) -> Process:
    """A process with a network that is wrong on purpose."""
    drift = NeuralWavefunction(system, width=6)
    for parameter in drift.parameters():
        torch.nn.init.normal_(parameter, std=spread, generator=generator())
    return Process(drift, system)


def centre(system: System, r: Tensor) -> Tensor:
    mass = system.sigma.pow(-2)
    return (mass * r).sum(-2) / mass.sum()


def test_it_is_found_out():
    assert moves_freely(FunctionPotential(springs, 3, 2, MASSES))
    assert not moves_freely(FunctionPotential(lambda r: springs(r) + r[:, 0].square().sum(-1), 3, 2, MASSES))
    assert not moves_freely(load_potential("helium"))
    found = System(FunctionPotential(springs, 3, 2, (1.0, 1.0, 1.0))).potential
    assert found.free
    assert found.isotropic


@pytest.mark.parametrize("n_dims", [1, 3])
def test_springs_are_exact_from_the_start(n_dims):
    system = chain(n_dims)
    energies = local_energy(Process(NeuralWavefunction(system), system), system.initial_walkers(64, generator()))
    assert energies.detach().numpy() == pytest.approx(springs_energy(n_dims), rel=1e-12)
    assert diagonalise(system.potential).ground_state == pytest.approx(springs_energy(n_dims), rel=1e-9)


def test_the_centre_of_mass_rests():
    system = chain(3)
    process, walkers = disturbed(system), system.initial_walkers(64, generator())
    assert centre(system, walkers).abs().max() < 1e-12
    state = metropolis.move(process, metropolis.start(process, walkers, 0.3), 5, generator())
    assert centre(system, state.positions).abs().max() < 1e-12
    free = Process(NeuralVectorField(system, width=6), system)
    torch.nn.init.normal_(free.drift.readout.weight, generator=generator())
    for each in (process, free):
        path = evolve(each, walkers, n_steps=5, dt=0.1, generator=generator())
        assert centre(system, path.end).abs().max() < 1e-12
    parameters = tuple(process.drift.parameters())
    path = evolve(process, walkers, n_steps=5, dt=0.1, generator=generator(), gradient=Adjoint(parameters))
    assert centre(system, path.end).abs().max() < 1e-12


def test_the_projection_repairs_a_wrong_psi():
    system = chain(1)
    g = generator(3)
    walkers, scale = system.initial_walkers(128, g), system.time_scale
    options = {"time_scale": scale, "gap": 0.8, "n_walkers": 384, "n_populations": 8, "n_steps": 8}
    projection = Projection(disturbed(system, 0.03), walkers, **options)
    while projection.n_blocks < 12:
        projection.advance(g)
    found = projection.energy()
    assert abs(found.energy.deviation(springs_energy(1))) < 3.5
    assert found.energy.error < 0.03 * springs_energy(1)
    assert found.variational.mean > 1.03 * springs_energy(1)


def test_psi_does_not_move_or_turn():
    system = System(Molecule(), torch.float64)
    psi, r = disturbed(system).drift, system.initial_walkers(32, generator())
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    torch.testing.assert_close(psi.log_psi(r), psi.log_psi(r + torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)))
    turned = System(FunctionPotential(Molecule(), 2, 3, (1.0, 2.0)), torch.float64)
    psi = disturbed(turned).drift
    torch.testing.assert_close(psi.log_psi(r), psi.log_psi(r @ torch.from_numpy(turn)))


@pytest.mark.parametrize("n_dims", [1, 3])
def test_two_on_a_spring(n_dims):
    potential = FunctionPotential(lambda r: (r[:, 0] - r[:, 1]).square().sum(-1), 2, n_dims, (1.0, 3.0))
    quick = Settings(n_updates=5, n_walkers=64, n_blocks=5, path_step=1 / 4, project=False)
    state = fk.solve(potential, settings=quick, progress=False)
    assert state.energy.mean == pytest.approx(n_dims / 2 * math.sqrt(2 / 0.75), rel=1e-5)
    assert abs(state.energies.path_action.deviation(state.energy.mean)) < 4
    assert state.result["deviation"]["verdict"] == "agrees"


def test_a_molecule_agrees_with_the_radial_solver():
    system = System(Molecule(), torch.float64)
    exact = diagonalise(Molecule())
    energies = local_energy(Process(NeuralWavefunction(system), system), system.initial_walkers(256, generator()))
    assert energies.mean().item() == pytest.approx(exact.ground_state, rel=2e-7)
    # s-wave of the Morse oscillator: its closed form on the whole line, which r > 0 changes by less than 1e-9
    a, mu = 1.0, 2 / 3
    nu = math.sqrt(2 * mu * 10.0) / a
    assert exact.ground_state == pytest.approx(-(a**2) * (nu - 0.5) ** 2 / (2 * mu), rel=1e-6)


def test_particles_that_do_not_hold_each_other_are_refused():
    def pair(r: Tensor) -> Tensor:
        return (r[:, 0] - r[:, 1]).square().sum(-1)

    with pytest.raises(Unbound, match="do not all hold each other"):
        System(FunctionPotential(pair, 3, 3))
    with pytest.raises(Unbound, match="no bound state"):
        System(Molecule(D=0.01))


def test_what_needs_a_centre_is_refused():
    with pytest.raises(InputError, match="free"):
        fk.solve(Molecule(), method="flow", progress=False)
    with pytest.raises(InputError, match="free"):
        fk.solve(Molecule(), levels=2, progress=False)
