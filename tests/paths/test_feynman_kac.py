"""The plain Feynman-Kac formula against closed forms, the spectral sum and a propagator on a grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import fkdrift as fk
from fkdrift.errors import BadParameter
from fkdrift.hamiltonian.system import System
from fkdrift.paths.feynman_kac import brownian, effective_fraction, feynman_kac
from fkdrift.paths.process import Process
from tests.systems import generator
from tests.wells import imaginary_line


def bell(r: Tensor) -> Tensor:
    """psi_1 = exp(-|r|^2 / 2)."""
    return (-r.square().sum((-2, -1)) / 2).exp()


@pytest.mark.parametrize(("x", "t"), [(0.0, 0.5), (1.0, 1.0), (-1.5, 2.0)])
def test_harmonic_oscillator_from_a_constant(x: float, t: float) -> None:
    """psi(x, t) = exp(-x^2 tanh(t) / 2) / sqrt(cosh t) for psi_1 = 1."""
    found = feynman_kac("harmonic", x, t, n_paths=16384)
    exact = math.exp(-(x**2) * math.tanh(t) / 2) / math.cosh(t) ** 0.5
    assert found.error < 0.02 * exact
    assert abs(found.deviation(exact)) < 4


def test_spectral_sum() -> None:
    """psi(x, t) = sum_n psi_n(x) exp(-E_n t) int psi_n psi_1, with the levels and states of `diagonalise`."""
    spectrum = fk.diagonalise(fk.load_potential("double_well"), levels=8)
    x = spectrum.grid
    assert x is not None
    assert spectrum.wavefunctions is not None
    overlaps = np.trapezoid(spectrum.wavefunctions * np.exp(-(x**2) / 2), x, axis=1)
    for at, t in ((0.7, 1.0), (-0.4, 2.0)):
        there = np.array([np.interp(at, x, psi) for psi in spectrum.wavefunctions])
        exact = float((there * overlaps * np.exp(-spectrum.energies * t)).sum())
        found = feynman_kac("double_well", at, t, initial=bell, n_paths=16384)
        assert abs(found.deviation(exact)) < 4
        line = imaginary_line()
        assert line.at(line.propagate(np.exp(-(line.x**2) / 2), t), at) == pytest.approx(exact, rel=1e-4)


def test_signs_are_kept() -> None:
    """psi_1 = x is the first excited state's side of the oscillator: psi = x (sech t)^(3/2) exp(-x^2 tanh(t) / 2)."""
    found = feynman_kac("harmonic", -0.8, 1.0, initial=lambda r: r[:, 0, 0], n_paths=32768)
    exact = -0.8 * math.cosh(1.0) ** -1.5 * math.exp(-0.64 * math.tanh(1.0) / 2)
    assert abs(found.deviation(exact)) < 4


def test_masses_and_particles() -> None:
    """Two particles of mass 2 in two dimensions: a product of four oscillators of frequency omega."""
    potential = fk.FunctionPotential(lambda r: r.square().sum((-2, -1)), 2, 2, masses=(2.0, 2.0))
    found = feynman_kac(potential, [0.1, 0.2, -0.3, 0.0], 0.7, n_paths=16384)
    omega, x2 = 1.0, 0.01 + 0.04 + 0.09
    exact = math.exp(-omega * x2 * math.tanh(0.7)) / math.cosh(0.7) ** 2
    assert abs(found.deviation(exact)) < 4


@pytest.mark.parametrize("slope", [0.0, 0.3])
def test_any_drift_gives_the_same_wavefunction(slope: float) -> None:
    """With an h-transformed reference and a further drift on top of it."""
    system = System(fk.load_potential("double_well"), torch.float64)
    process = Process(lambda r: -slope * r, system)
    found = feynman_kac(system.potential, 0.7, 1.0, initial=bell, process=process, n_paths=16384)
    line = imaginary_line()
    exact = line.at(line.propagate(np.exp(-(line.x**2) / 2), 1.0), 0.7)
    assert abs(found.deviation(exact)) < 4


def test_the_exact_drift_wastes_no_path() -> None:
    """Oscillator: phi_ref = phi_0 is fitted exactly, so with psi_1 = phi_0 every weight is exp(-E_0 t) phi_0(r2)."""
    system = System(fk.load_potential("harmonic"), torch.float64)
    found = feynman_kac(system.potential, 0.5, 4.0, initial=bell, process=Process(torch.zeros_like, system))
    assert found.mean == pytest.approx(math.exp(-2 - 0.125), rel=1e-6)
    assert found.error < 1e-6
    assert found.effective_samples == pytest.approx(8192)


def test_brownian_paths_are_lost_with_time_and_guided_ones_are_not() -> None:
    system = System(fk.load_potential("harmonic"), torch.float64)
    r2, options = torch.zeros(1, 1, dtype=torch.float64), {"initial": bell, "n_times": 8, "steps_per_time": 8}
    times, plain = effective_fraction(brownian(system.potential), r2, 8.0, generator=generator(), **options)
    _, guided = effective_fraction(Process(torch.zeros_like, system), r2, 8.0, generator=generator(), **options)
    assert times.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    w = 2**0.5  # E[w^2] is the wavefunction of an oscillator of frequency sqrt(2) that starts from exp(-x^2)
    exact = (-times).exp() * ((w * times).cosh() + w * (w * times).sinh()).sqrt()
    assert (plain / exact - 1).abs().max() < 0.15
    assert guided.min() > 0.999


def test_repeats_with_its_seed() -> None:
    first, second, other = (feynman_kac("harmonic", 0.3, 0.5, n_paths=64, seed=seed) for seed in (1, 1, 2))
    assert first == second
    assert first != other


@pytest.mark.parametrize(("position", "time", "dt"), [(0.0, -1.0, None), (0.0, 1.0, 2.0), ([0.0, 1.0], 1.0, None)])
def test_bad_input(position: float, time: float, dt: float | None) -> None:
    with pytest.raises(BadParameter):
        feynman_kac("harmonic", position, time, dt=dt)
