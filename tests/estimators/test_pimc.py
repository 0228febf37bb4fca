"""Path integral Monte Carlo: bead-by-bead closed forms, spectral sums, exact recursions, invariance of every move."""

import copy
import math

import numpy as np
import pytest
import torch

from fkdrift.errors import BadConfig, InputError
from fkdrift.estimators.observables import density, parse_observable
from fkdrift.estimators.path_integral import FOURTH_ORDER, PRIMITIVE, Parts, oscillator_energy
from fkdrift.estimators.pimc import PimcSampler, choose_slices, refuse_singular
from fkdrift.exact.diagonalisation import diagonalise
from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.potential import FunctionPotential
from fkdrift.hamiltonian.system import System
from fkdrift.hamiltonian.table import TablePotential
from tests.systems import generator

F64 = torch.float64


def sampler_of(potential, temperature, n_chains=512, seed=0, **options) -> tuple[PimcSampler, torch.Generator]:
    g = generator(seed)
    system = System(potential, F64)
    return PimcSampler(system, system.initial_walkers(n_chains, g), temperature=temperature, **options), g


def run(potential, temperature, n_blocks=20, n_equilibration=10, **options) -> PimcSampler:
    sampler, g = sampler_of(potential, temperature, n_equilibration=n_equilibration, **options)
    while sampler.n_blocks < n_blocks:
        sampler.advance(g)
    return sampler


def thermodynamics(energies: np.ndarray, temperature: float) -> tuple[float, float]:
    """<E> and its derivative by T, from levels."""
    w = np.exp(-(energies - energies[0]) / temperature)
    E = (w * energies).sum() / w.sum()
    return E, ((w * energies**2).sum() / w.sum() - E**2) / temperature**2


def partition(omega_beta: float, n_dims: int, n_particles: int) -> list[float]:
    """Z_N = (1/N) sum_k Z_1(k beta) Z_(N-k) of bosons in a trap, for N = 0, 1, ..."""
    one = [(2 * math.sinh(k * omega_beta / 2)) ** -n_dims for k in range(1, n_particles + 1)]
    Z = [1.0]
    for n in range(1, n_particles + 1):
        Z.append(sum(one[k - 1] * Z[n - k] for k in range(1, n + 1)) / n)
    return Z


# -- one particle ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", [PRIMITIVE, FOURTH_ORDER], ids=lambda action: action.name)
def test_energy_at_a_finite_number_of_slices(action):
    """Both estimators of the energy give the closed form for P beads, not the limit."""
    beta, P = 4.0, 6
    exact = oscillator_energy(beta, P, action)
    thermal = run(load_potential("harmonic"), 1 / beta, 40, n_slices=P, action=action, n_chains=1024).thermal()
    assert thermal.estimator == "centroid virial"
    assert abs(thermal.energy.deviation(exact)) < 3.5
    assert abs(thermal.thermodynamic.deviation(exact)) < 3.5
    assert thermal.energy.error < thermal.thermodynamic.error
    if action is PRIMITIVE:
        assert abs(thermal.energy.deviation(0.5 / math.tanh(beta / 2))) > 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters", "temperature"), [("anharmonic", {}, 1.0), ("double_well", {"a": 0.125, "b": 4.0}, 0.25)]
)
def test_wells_against_the_spectral_sum(name, parameters, temperature):
    potential = load_potential(name, **parameters)
    spectrum = diagonalise(potential, levels=40)
    x, E = spectrum.grid, spectrum.energies
    w = np.exp(-(E - E[0]) / temperature)
    square = (w @ np.trapezoid(spectrum.wavefunctions**2 * x**2, x)) / w.sum()
    sampler = run(potential, temperature, 25, 20, observables=(parse_observable("x**2", potential), density(potential)))
    thermal = sampler.thermal()
    energy, heat = thermodynamics(E, temperature)
    assert abs(thermal.energy.deviation(energy)) < 3.5
    assert abs(thermal.specific_heat.deviation(heat)) < 3.5
    assert abs(thermal.observables["x**2"].estimate.deviation(square)) < 3.5
    assert thermal.energy.error < 0.01 * energy
    assert thermal.potential.mean + thermal.kinetic.mean == pytest.approx(thermal.energy.mean)
    n = thermal.observables["density"]
    assert n.mean.sum().item() * (n.centres[1] - n.centres[0]) == pytest.approx(1, abs=1e-3)


def test_a_heavy_and_a_light_particle():
    """Two oscillators of masses 1 and 4 in V = r^2 / 2: frequencies 1 and 1/2."""
    potential = FunctionPotential(lambda r: r.square().sum((1, 2)) / 2, n_particles=2, masses=(1.0, 4.0))
    thermal = run(potential, 0.5, n_sweeps=3).thermal()
    assert abs(thermal.energy.deviation(0.5 / math.tanh(1.0) + 0.25 / math.tanh(0.5))) < 3.5
    assert thermal.cycles == ()


@pytest.mark.parametrize(
    ("V0", "temperature"), [(0.0, 0.05), pytest.param(1.0, 0.1, marks=pytest.mark.slow)], ids=["free", "cosine"]
)
def test_windings_on_a_ring(V0, temperature):
    """At low temperatures paths go round the ring: without them a free particle would have E = T/2."""
    free = np.array([k**2 / 2 for k in (0, 1, 1, 2, 2)])
    E = diagonalise(load_potential("cosine", V0=V0), levels=8).energies if V0 else free
    energy, heat = thermodynamics(E, temperature)
    thermal = run(load_potential("cosine", V0=V0), temperature, n_slices=32 if V0 else 8).thermal()
    assert abs(thermal.energy.deviation(energy)) < 3.5
    assert abs(thermal.thermodynamic.deviation(energy)) < 3.5
    assert abs(thermal.specific_heat.deviation(heat)) < 3.5
    if not V0:
        assert thermal.energy.deviation(temperature / 2) < -10


def test_walls_are_left_to_the_thermodynamic_estimator(tmp_path):
    x = np.linspace(-4, 4, 81)
    np.savez(tmp_path / "well.npz", x=x, V=x**2 / 2)
    thermal = run(TablePotential(str(tmp_path / "well.npz")), 1.0, n_slices=4).thermal()
    assert thermal.estimator == "thermodynamic"
    assert abs(thermal.energy.deviation(0.5 / math.tanh(0.5))) < 3.5


# -- identical particles -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_bosons_in_a_trap_against_the_recursion():
    """Energy, and the share of particles in cycles of l, z(l beta) Z_(N-l) / (N Z_N)."""
    N, dim, beta = 3, 3, 1.0
    thermal = run(load_potential("harmonic", n_particles=N, n_dims=dim), 1 / beta, 16, n_equilibration=8).thermal()
    assert abs(thermal.energy.deviation(9.03684136)) < 3.5
    assert thermal.energy.deviation(9.73779036) < -10  # distinguishable
    Z = partition(beta, dim, N)
    for length, share in enumerate(thermal.cycles, start=1):
        exact = (2 * math.sinh(length * beta / 2)) ** -dim * Z[N - length] / (N * Z[N])
        assert abs(share.deviation(exact)) < 3.5
    assert sum(share.mean for share in thermal.cycles) == pytest.approx(1)


@pytest.mark.slow
def test_interacting_bosons():
    """E of three bosons joined by springs, at any temperature in closed form."""
    thermal = run(load_potential("harmonic_bosons", n_particles=3, n_dims=1, k=0.5), 0.5, 12, n_sweeps=4).thermal()
    w, N, h = math.sqrt(2.5), 3, 1e-5

    def log_Z(beta: float) -> float:
        return math.log(partition(w * beta, 1, N)[N] * math.sinh(beta * w / 2) / math.sinh(beta / 2))

    assert abs(thermal.energy.deviation((log_Z(2 - h) - log_Z(2 + h)) / (2 * h))) < 3.5


# -- every move leaves the exact ensemble as it is ---------------------------------------------------------------------


def exact_paths(n: int, P: int, beta: float, g: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Two ideal bosons in a one-dimensional trap, drawn independently from the primitive path integral itself.

    The permutation has its exact probability, and the beads of a cycle of l particles are normal with precision
    (2 - neighbours) / tau + tau.
    """
    tau = beta / P

    def draw(length: int) -> torch.Tensor:
        size = length * P
        ring = torch.eye(size, dtype=F64)
        precision = (2 * ring - ring.roll(1, 0) - ring.roll(-1, 0)) / tau + tau * ring
        factor = torch.linalg.cholesky(torch.linalg.inv(precision))
        return torch.randn(n, 2 // length, size, generator=g, dtype=F64) @ factor.T

    theta = P * math.asinh(tau / 2)
    apart, joined = (2 * math.sinh(theta)) ** -2, 1 / (2 * math.sinh(2 * theta))
    is_joined = torch.rand(n, generator=g, dtype=F64) < joined / (apart + joined)
    r = torch.where(is_joined[:, None, None], draw(2).reshape(n, 2, P), draw(1))
    partner = torch.where(is_joined[:, None], torch.tensor([1, 0]), torch.tensor([0, 1]))
    return r.transpose(1, 2)[..., None].contiguous(), partner


@pytest.mark.parametrize(
    "move",
    [
        lambda s, g: s._stage(4, g),
        lambda s, g: s._stage(2, g),
        lambda s, g: s._displace(False, g),
        lambda s, g: s._displace(True, g),
        lambda s, g: s._exchange(2, g),
        lambda s, g: s._exchange(8, g),
        lambda s, g: s._rotate(3),
    ],
    ids=["stage 4", "stage 2", "displace ring", "displace all", "exchange 2", "exchange all", "rotate"],
)
def test_moves_leave_exact_samples_distributed_as_they_are(move):
    n, P, beta = 20_000, 8, 1.0
    sampler, g = sampler_of(load_potential("harmonic", n_particles=2), 1 / beta, n, n_slices=P, action=PRIMITIVE)
    sampler.positions, sampler.partner = exact_paths(n, P, beta, g)
    sampler.parts = sampler.slice_action(sampler.positions)
    before = statistics(sampler)
    for _ in range(3):
        sampler.n_blocks = 0  # nothing is tuned
        move(sampler, g)
    torch.testing.assert_close(sampler.parts, Parts(*sampler.slice_action(sampler.positions, sampler.first)))
    difference = statistics(sampler) - before
    error = difference.std(1) / n**0.5
    z = difference.mean(1) / error.clamp_min(1e-12)
    assert z.abs().max() < 4


def statistics(sampler: PimcSampler) -> torch.Tensor:
    """K, U, the joined share, the centroids' spread and a correlation in time, (statistic, chain)."""
    links = torch.cat([sampler.positions[:, 1:], sampler._ends()[:, None]], 1) - sampler.positions
    r = sampler.positions[..., 0]
    joined = (sampler.partner[:, 0] == 1).double()
    U = sampler.parts.action(sampler.tau).sum(1)
    K = links.square().sum((1, 2, 3)) / (2 * sampler.tau)
    separation, centre = (r[..., 0] - r[..., 1]).square().mean(1), r.mean((1, 2)).square()
    later = (r[:, 0] * r[:, 4]).sum(-1)
    return torch.stack([K, K.square(), U, joined, joined * U, separation, centre, later])


# -- the contract ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["harmonic", "cosine"])
def test_a_saved_run_goes_on_bit_for_bit(name, tmp_path):
    parameters = {"n_particles": 2} if name == "harmonic" else {}
    first, g = sampler_of(load_potential(name, **parameters), 0.3, 16, n_equilibration=3)
    again, _ = sampler_of(load_potential(name, **parameters), 0.3, 16, seed=5, n_equilibration=3)
    for _ in range(5):
        first.advance(g)
    torch.save({"sampler": first.state_dict(), "generator": g.get_state()}, tmp_path / "state.pt")
    for _ in range(3):
        first.advance(g)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    again.load_state_dict(state["sampler"])
    g.set_state(state["generator"])
    for _ in range(3):
        again.advance(g)
    assert torch.equal(first.positions, again.positions)
    assert first.trace == again.trace
    assert first.thermal() == again.thermal()


def test_claimed_errors_cover():
    """Over 24 groups of chains (mean - exact) / error behaves like a standard normal variable."""
    exact, n = oscillator_energy(4.0, 4, FOURTH_ORDER), 48
    everything = run(load_potential("harmonic"), 0.25, 10, 6, n_chains=24 * n, n_slices=4, n_sweeps=2)
    z = []
    for k in range(24):
        group = copy.copy(everything)
        group.sums = everything.sums[:, n * k : n * (k + 1)]
        z.append(group.energy.deviation(exact))
    assert abs((sum(x**2 for x in z) - 24) / math.sqrt(48)) < 4
    assert abs(sum(z) / math.sqrt(24)) < 4


def test_slices_follow_temperature_and_stiffness():
    soft, stiff = (System(load_potential("harmonic", omega=omega), F64) for omega in (1.0, 8.0))
    assert choose_slices(soft, 0.1) % 4 == 0
    assert choose_slices(soft, 0.05) == pytest.approx(2 * choose_slices(soft, 0.1), abs=4)
    assert choose_slices(stiff, 0.8) == pytest.approx(choose_slices(soft, 0.1), abs=4)
    assert choose_slices(soft, 0.1, PRIMITIVE) > 2 * choose_slices(soft, 0.1, FOURTH_ORDER)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_temperatures_that_cannot_be_are_refused(temperature):
    with pytest.raises(BadConfig, match="above 0"):
        sampler_of(load_potential("harmonic"), temperature)


@pytest.mark.parametrize(("n_slices", "action"), [(0, PRIMITIVE), (-2, FOURTH_ORDER), (5, FOURTH_ORDER)])
def test_numbers_of_slices_that_cannot_be_are_refused(n_slices, action):
    with pytest.raises(BadConfig, match=f"n_slices = {n_slices}"):
        sampler_of(load_potential("harmonic"), 1.0, n_slices=n_slices, action=action)


def test_temperatures_for_which_memory_is_too_small_are_refused():
    with pytest.raises(BadConfig, match="ground state use solve"):
        sampler_of(load_potential("harmonic"), 1e-7)


@pytest.mark.parametrize("name", ["hydrogen", "helium", "h2_plus", "h2"])
def test_attractive_singularities_are_refused(name):
    with pytest.raises(InputError, match="bounded below"):
        refuse_singular(load_potential(name))


@pytest.mark.parametrize("name", ["harmonic", "harmonium", "gaussian_bosons", "cosine", "morse", "calogero"])
def test_potentials_that_are_bounded_below_are_not_refused(name):
    refuse_singular(load_potential(name))
