"""Excited states of exact systems: gaps, errors, symmetries, wavefunctions."""

import copy
import math

import numpy as np
import pytest
import torch

from fkdrift.errors import InputError
from fkdrift.estimators import spectrum
from fkdrift.estimators.basis import Basis, CollectiveCoordinate, Mirror, coordinates_of, mirrors_of
from fkdrift.estimators.spectrum import ExcitationSampler, continuum, default_basis, lowest
from fkdrift.exact.diagonalisation import diagonalise
from fkdrift.hamiltonian.formula import FormulaPotential
from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.potential import Potential
from fkdrift.hamiltonian.system import System
from fkdrift.paths.process import Process
from fkdrift.wavefunction.neural import NeuralWavefunction
from tests.systems import Stretched, generator, system_of

F64 = torch.float64


def sample(
    of: Potential | System, levels: int, *, stretch=0.0, n_walkers=512, n_blocks=24, n_equilibration=6, **options
) -> ExcitationSampler:
    """The sampler after some blocks, psi = trial function times exp(-stretch |r|^2 / 2)."""
    system, g = of if isinstance(of, System) else System(of, F64), generator()
    psi = NeuralWavefunction(system, width=4) if stretch == 0 else Stretched(system, stretch)
    walkers = system.initial_walkers(n_walkers, g)
    sampler = ExcitationSampler(
        Process(psi, system), system, walkers, levels=levels, n_equilibration=n_equilibration, **options
    )
    for _ in range(n_blocks + n_equilibration):
        sampler.advance(g)
    return sampler


@pytest.mark.parametrize("n_dims", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_exact_psi_has_gaps_without_noise(n_dims):
    """omega = 2: gaps 2 (once for each dimension), 4, ...; 2,000 samples of x^2 alone would leave an error of 0.1."""
    sampler = sample(load_potential("harmonic", omega=2.0, n_dims=n_dims), 6, n_walkers=256, n_blocks=8)
    expected = {1: [2, 4, 6, 8, 10], 2: [2, 2, 4, 4, 4]}[n_dims]
    found = sampler.excitations()
    assert [each.gap.mean for each in found] == pytest.approx(expected, abs=2e-5)
    words = {each.symmetry for each in found[:n_dims]}
    assert words == {1: {"odd"}, 2: {"odd in x, even in y", "even in x, odd in y"}}[n_dims]


def test_gaps_of_the_double_well_from_a_poor_psi():
    """A gap of 0.0478 within three errors and 1%, from psi of the wrong width with a spread of E_L of 0.3."""
    potential = load_potential("double_well", a=0.125, b=4.0)
    sampler = sample(potential, 4, stretch=0.04, n_walkers=1024, n_blocks=12, n_equilibration=12)
    exact = diagonalise(potential, levels=4)
    for found, gap in zip(sampler.excitations(), exact.gaps, strict=True):
        assert abs(found.gap.mean - gap) < min(0.01 * gap, 3 * found.gap.error + 1e-4 * gap)
    assert [each.symmetry for each in sampler.excitations()] == ["odd", "even", "odd"]
    assert sampler.solve().energy(0).mean == pytest.approx(exact.ground_state, abs=2e-3)


def test_claimed_errors_cover(monkeypatch):
    """Over 20 groups of walkers in the quartic oscillator, (gap - exact) / error is a normal variable.

    Its bias is far smaller.  All walkers move at once; each group is then solved by itself.
    """
    n = spectrum.N_GROUPS
    exact = diagonalise(load_potential("anharmonic"), levels=3).gaps
    system = system_of("anharmonic")
    typical = system.initial_walkers(512, generator())
    basis = Basis([CollectiveCoordinate("x", lambda r: r[:, 0, 0])], typical, degree=8, n_bumps=0)
    with monkeypatch.context() as all_groups:
        all_groups.setattr(spectrum, "N_GROUPS", 20 * n)
        everything = sample(system, 3, stretch=0.2, basis=basis, n_walkers=20 * 256, n_blocks=5, n_equilibration=12)
    z = []
    for k in range(20):
        sampler = copy.copy(everything)
        sampler.hamiltonian, sampler.overlap = (
            sums[n * k : n * (k + 1)] for sums in (everything.hamiltonian, everything.overlap)
        )
        z += [e.gap.deviation(gap) for e, gap in zip(sampler.excitations(), exact, strict=True)]
    assert abs(np.mean(z)) < 4 / math.sqrt(20)
    assert abs((np.square(z).sum() - 40) / math.sqrt(2 * 40 * 2)) < 4


def test_levels_that_the_walkers_do_not_resolve_are_not_given():
    """64 walkers met once, with a psi twice too narrow: noise of all functions is below the true E_0."""
    sampler = sample(load_potential("double_well"), 4, stretch=1.0, n_walkers=64, n_blocks=1, n_equilibration=2)
    assert sampler.solve().energy(0).error > 1 / sampler.system.time_scale
    assert sampler.excitations() == []
    assert "the walkers resolve 0 of the 4 levels asked for" in sampler.results()["excitations_remark"]


def test_replicas_of_fewer_independent_functions_are_no_levels():
    """Without the one group of walkers that met the third function, there are two levels."""
    system = system_of("harmonic")
    typical = system.initial_walkers(64, generator())
    basis = Basis([CollectiveCoordinate("x", lambda r: r[:, 0, 0])], typical, degree=2, n_bumps=0)
    sampler = sample(system, 3, basis=basis, n_walkers=64, n_blocks=0)
    one = torch.eye(len(basis), dtype=F64).expand_as(sampler.overlap).clone()
    one[1:, -1, -1] = 0
    energies = torch.tensor([0.5, 1.5, 2.5], dtype=F64)
    sampler.overlap, sampler.hamiltonian, sampler.n_blocks = one, one * energies, 1
    levels = sampler.solve()
    assert levels.energies == pytest.approx([0.5, 1.5, 2.5])
    assert math.isnan(levels.energy(2).error)
    assert [each.gap.mean for each in sampler.excitations()] == pytest.approx([1.0])
    assert "the walkers resolve 2 of the 3 levels" in sampler.results()["excitations_remark"]


def test_symmetric_states_of_two_bosons():
    potential = load_potential("harmonic", n_particles=2)
    sampler = sample(potential, 4, n_blocks=6)
    assert [each.gap.mean for each in sampler.excitations()] == pytest.approx([1, 2, 2], abs=1e-6)


def test_hydrogen_has_its_degenerate_shell():
    gaps = [each.gap for each in sample(system_of("hydrogen"), 5, n_walkers=128, n_blocks=8).excitations()]
    assert [gap.mean for gap in gaps] == pytest.approx([0.375] * 4, abs=1e-3)


def test_wavefunctions_are_the_exact_ones():
    """psi_1 and psi_2 of the oscillator over psi_0: proportional to x and 2 x^2 - 1."""
    sampler = sample(load_potential("harmonic"), 3, n_blocks=6)
    x = torch.linspace(-2, 2, 21, dtype=F64)
    ratio = sampler.wavefunction_ratios(x[:, None, None])
    ratio = ratio / ratio[-1]
    for found, expected in zip(ratio.T, (torch.ones_like(x), x / 2, (2 * x**2 - 1) / 7), strict=True):
        assert torch.allclose(found, expected, atol=1e-6)


def test_what_is_not_bound_is_not_a_level():
    assert continuum(system_of("morse")) == pytest.approx(10.0)
    assert continuum(system_of("hydrogen")) == pytest.approx(0.0, abs=0.03)
    assert continuum(system_of("harmonic")) == math.inf
    sampler = sample(load_potential("poschl_teller"), 3, n_blocks=4)
    assert sampler.excitations() == []
    assert "1 of the 3 levels asked for are bound" in sampler.results()["excitations_remark"]


def test_mirrors_are_found_and_states_of_none_have_no_label():
    shifted = System(FormulaPotential("(x - 3)**2/2 + y**2 + y**3*0 + 0.1*y**4"), F64)
    walkers = shifted.initial_walkers(64, generator())
    assert [mirror.name for mirror in mirrors_of(shifted, walkers)] == ["x", "y"]
    tilted = System(FormulaPotential("x**2 + y**2 + x*y"), F64)
    assert [m.name for m in mirrors_of(tilted, tilted.initial_walkers(64, generator()))] == ["r"]
    sampler = sample(FormulaPotential("x**2/2 + 0.3*x**3*exp(-x**2)"), 2, n_blocks=4)
    assert [each.symmetry for each in sampler.excitations()] == [""]


def test_a_basis_of_ones_own():
    """A gap from a single function x: with the exact psi of the oscillator it is an eigenfunction."""
    potential = load_potential("harmonic")
    system = System(potential, F64)
    basis = Basis(
        [CollectiveCoordinate("x", lambda r: r[:, 0, 0])], system.initial_walkers(512, generator()), degree=1, n_bumps=0
    )
    assert len(basis) == 2
    sampler = sample(potential, 2, n_blocks=4, basis=basis)
    assert sampler.excitations()[0].gap.mean == pytest.approx(1.0, abs=1e-9)
    with pytest.raises(InputError, match="3 levels need at least 3 functions, and the basis has 2"):
        sample(potential, 3, n_blocks=0, basis=basis)


@pytest.mark.parametrize(
    "name", ["anharmonic", pytest.param("helium", marks=pytest.mark.slow), "gaussian_bosons", "cosine"]
)
def test_generator_of_every_function(name):
    """L f = v . grad f + sigma^2 lap f / 2 against derivatives of each f by itself."""
    system = system_of(name, **({"n_particles": 2} if name == "gaussian_bosons" else {}))
    r = system.initial_walkers(64, generator())
    basis = Basis(coordinates_of(system, 1.0), r, mirrors_of(system, r))
    r = r[:6]
    v = torch.randn(r.shape, generator=generator(), dtype=F64)
    f, Lf = basis.with_generator(r, v, system.sigma.square())
    assert torch.allclose(f, basis(r))
    for k in range(0, len(basis), max(1, len(basis) // 6)):
        x = r.clone().requires_grad_()
        (g,) = torch.autograd.grad(basis(x)[:, k].sum(), x, create_graph=True)
        expected = (g * v).sum((1, 2)).detach()
        for i, d in np.ndindex(*r.shape[1:]):
            if g.requires_grad:
                (second,) = torch.autograd.grad(g[:, i, d].sum(), x, retain_graph=True, materialize_grads=True)
                expected = expected + system.sigma[i, 0] ** 2 * second[:, i, d] / 2
        assert torch.allclose(Lf[:, k], expected, rtol=1e-6, atol=1e-6 * f[:, k].abs().max().item())


def test_functions_are_even_or_odd_and_symmetric_under_exchange():
    system = system_of("gaussian_bosons", n_particles=2)
    r = system.initial_walkers(64, generator())
    basis = Basis(coordinates_of(system, 1.0), r, mirrors_of(system, r))
    assert torch.allclose(basis(r), basis(r.flip(1)))
    double_well = system_of("double_well")
    r = double_well.initial_walkers(64, generator())
    basis = Basis(coordinates_of(double_well, 1.0), r, mirrors_of(double_well, r))
    assert len(basis.centres) > 0
    assert torch.allclose(basis(-r), basis.sectors[:, 0] * basis(r), atol=1e-12)


def test_states_come_back():
    """A sampler restored from its state goes on exactly as the original."""
    system = system_of("anharmonic")
    process, g = Process(NeuralWavefunction(system, width=4), system), generator()
    walkers = system.initial_walkers(64, g)
    one = ExcitationSampler(process, system, walkers, levels=2, n_equilibration=2)
    for _ in range(4):
        one.advance(g)
    two = ExcitationSampler(process, system, walkers * 0.5, levels=2, n_equilibration=2)
    two.load_state_dict(one.state_dict())
    noise = g.get_state()
    one.advance(g)
    g.set_state(noise)
    two.advance(g)
    assert torch.equal(one.hamiltonian, two.hamiltonian)
    assert one.results() == two.results()


def test_too_few_of_anything_is_refused():
    system = system_of("harmonic")
    process = Process(NeuralWavefunction(system, width=4), system)
    with pytest.raises(InputError, match="levels = 1 is not allowed"):
        ExcitationSampler(process, system, system.initial_walkers(64, generator()), levels=1)
    with pytest.raises(InputError, match="8 walkers are too few"):
        ExcitationSampler(process, system, system.initial_walkers(8, generator()), levels=2)


def test_lowest_levels_of_a_singular_overlap():
    """A function given twice changes nothing."""
    H = np.diag([1.0, 2.0, 5.0])
    twice = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1.0]])
    E, c = lowest(twice @ H @ twice.T, twice @ twice.T, np.ones((4, 4), dtype=bool), 3)
    assert pytest.approx([1, 2, 5]) == E
    assert np.diag(c.T @ twice @ twice.T @ c) == pytest.approx(1.0)


def test_default_basis_knows_the_mirrors():
    system = system_of("double_well")
    process = Process(NeuralWavefunction(system, width=4), system)
    basis = default_basis(process, system, system.initial_walkers(256, generator()))
    assert basis.names()[0] == "even"
    assert set(basis.names()) == {"even", "odd"}
    assert isinstance(basis.mirrors[0], Mirror)
