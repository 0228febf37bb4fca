"""The trial function of molecules: harmonic at small amplitudes, invariant, with exact derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.molecular_reference import prepare_molecule, vibrations
from fkdrift.hamiltonian.potential import Potential
from fkdrift.hamiltonian.system import System
from fkdrift.hamiltonian.trial_function import random_walk
from fkdrift.numerics.differentiation import curvatures


@dataclass(frozen=True)
class Springs(Potential):
    """Atoms with a spring between every two, at rest in `geometry`; linear or planar ones are held straight or flat."""

    geometry: tuple[tuple[float, ...], ...]
    flat: float = 0.0

    n_dims = 3
    free = True
    isotropic = True

    def __call__(self, r: Tensor) -> Tensor:
        i, j = torch.triu_indices(self.n_particles, self.n_particles, 1)
        rest = torch.tensor(self.geometry, dtype=r.dtype)
        V = 40 * ((r[:, i] - r[:, j]).norm(dim=-1) - (rest[i] - rest[j]).norm(dim=-1)).square().sum(1)
        if not self.flat:
            return V
        a, b = r[:, 1] - r[:, 0], r[:, 2] - r[:, 0]
        return V + self.flat * torch.linalg.cross(a, b).square().sum(-1)

    @property
    def n_particles(self) -> int:  # type: ignore[override]
        return len(self.geometry)

    @property
    def mass(self) -> tuple[float, ...]:
        return tuple(10.0 + 7 * k for k in range(self.n_particles))

    @property
    def start(self) -> tuple[tuple[float, ...], ...]:
        return self.geometry


BENT = Springs(((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (-0.3, 0.9, 0.0)))
TETRAHEDRON = Springs(((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.2, 0.9, 0.0), (0.4, 0.3, 0.9)))
STRAIGHT = Springs(((0.0, 0.0, 0.0), (1.1, 0.0, 0.0), (-1.3, 0.0, 0.0)), flat=20.0)
MOLECULES = [pytest.param(BENT, id="bent"), pytest.param(TETRAHEDRON, id="tetrahedron")]


def energy(potential: Potential, W, r: Tensor) -> Tensor:
    """E_W."""
    _, gradient, laplacian = W.derivatives(r)
    half = 0.5 / torch.tensor(potential.mass, dtype=r.dtype)
    return potential(r) - (half * (gradient.square().sum(-1) + laplacian)).sum(-1)


@pytest.mark.parametrize("potential", [*MOLECULES, pytest.param(STRAIGHT, id="straight")])
def test_modes_are_those_of_the_hessian(potential):
    found = vibrations(potential)
    assert len(found.omega) == 3 * potential.n_particles - (5 if potential is STRAIGHT else 6)
    r = torch.from_numpy(found.geometry)[None]
    K = torch.autograd.functional.hessian(lambda x: potential(x[None])[0], r[0]).flatten(2).flatten(0, 1).numpy()
    root = np.sqrt(np.repeat(potential.mass, 3))
    squares = np.linalg.eigvalsh(K / np.outer(root, root))
    assert np.square(found.omega) == pytest.approx(squares[-len(found.omega) :], rel=1e-4)


@pytest.mark.parametrize("potential", MOLECULES)
def test_derivatives_are_exact_and_the_function_turns_with_the_molecule(potential, monkeypatch):
    for name, value in (("DEGREES", ((6, 3),)), ("N_ROUNDS", 2), ("N_MOVES", 10), ("LEAST_FIT", 256), ("FIT_EACH", 2)):
        monkeypatch.setattr(f"fkdrift.hamiltonian.molecular_reference.{name}", value)
    found = prepare_molecule(potential)
    W = found.trial_function
    r = torch.from_numpy(found.draw(6, np.random.default_rng(0)))
    value, gradient, laplacian = W.derivatives(r)
    torch.testing.assert_close(W(r), value)
    _, by_autograd, second = curvatures(W, r.clone().requires_grad_())
    torch.testing.assert_close(gradient, by_autograd.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(laplacian, second.sum(-1).detach(), rtol=1e-9, atol=1e-9)
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    torch.testing.assert_close(W(r @ torch.from_numpy(turn) + 3), W(r))


@pytest.mark.parametrize("potential", [*MOLECULES, pytest.param(STRAIGHT, id="straight")])
def test_the_harmonic_limit_is_exact(potential, monkeypatch):
    """Without its anharmonic part E_W at the minimum is V_min + sum omega / 2, bends of straight molecules included."""
    monkeypatch.setattr("fkdrift.hamiltonian.molecular_reference.DEGREES", ((0, 0),))
    found = prepare_molecule(potential)
    rest = torch.from_numpy(vibrations(potential).geometry)[None]
    assert energy(potential, found.trial_function, rest).item() == pytest.approx(found.harmonic, rel=1e-4)


def test_more_distances_than_vibrations_let_nothing_escape(monkeypatch):
    """Six atoms have 15 distances and 12 vibrations: E_W of two molecules of water, without P, stays near."""
    monkeypatch.setattr("fkdrift.hamiltonian.molecular_reference.DEGREES", ((0, 0),))
    dimer = load_potential("water", n_molecules=2)
    found, g = prepare_molecule(dimer), torch.Generator().manual_seed(0)
    rest = torch.from_numpy(vibrations(dimer).geometry)[None]
    assert energy(dimer, found.trial_function, rest).item() == pytest.approx(found.harmonic, rel=1e-4)
    r = random_walk(found.trial_function, torch.from_numpy(found.draw(512, np.random.default_rng(0))), 400, g)
    assert energy(dimer, found.trial_function, r).mean() < 1.15 * found.harmonic


@pytest.mark.slow
def test_water_starts_close_to_its_ground_state():
    water = load_potential("water")
    system = System(water, torch.float64)
    assert system.harmonic == pytest.approx(4677.04, abs=0.1)
    r = system.initial_walkers(1024, torch.Generator().manual_seed(0))
    E = energy(water, system.trial_function, r)
    assert E.median().item() == pytest.approx(4609.865, abs=30)
    assert (E.quantile(0.9) - E.quantile(0.1)).item() < 300
