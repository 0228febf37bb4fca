"""The exact solver against closed forms and published numbers: every method, every kind of bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from fkdrift_potentials.anharmonic import Anharmonic
from fkdrift_potentials.calogero import Calogero
from fkdrift_potentials.cosine import Cosine
from fkdrift_potentials.double_well import DoubleWell
from fkdrift_potentials.gaussian_bosons import GaussianBosons
from fkdrift_potentials.h2 import H2
from fkdrift_potentials.h2_plus import H2Plus
from fkdrift_potentials.harmonic import Harmonic
from fkdrift_potentials.harmonic_bosons import HarmonicBosons
from fkdrift_potentials.harmonium import Harmonium
from fkdrift_potentials.helium import Helium
from fkdrift_potentials.henon_heiles import HenonHeiles
from fkdrift_potentials.hydrogen import Hydrogen
from fkdrift_potentials.morse import Morse
from fkdrift_potentials.poschl_teller import PoschlTeller
from scipy.special import eval_gegenbauer, roots_gegenbauer
from torch import Tensor

from fkdrift.errors import BadParameter, Metastable, NoExactSolution, NotConverged, OutOfTime, TooLarge, Unbound
from fkdrift.exact.diagonalisation import diagonalise, has_exact
from fkdrift.exact.grids import GridStates, _lowest_beside
from fkdrift.exact.normal_modes import quadratic
from fkdrift.exact.product_grid import solve_grid
from fkdrift.exact.separability import central, components, landscape
from fkdrift.exact.spectrum import Spectrum
from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.potential import FunctionPotential, Potential
from fkdrift.numerics.geometry import distance

HAN_LU_ZHOU = (
    *(0.162944737278636, 0.181158387415124, 0.025397363258701, 0.182675171227804, 0.126471849245082),
    *(0.019508080999882, 0.055699643773410, 0.109376303840997, 0.191501367086860, 0.192977707039855),
)


def line(f: Callable[[Tensor], Tensor], **options: object) -> FunctionPotential:
    """A potential of one coordinate from f(x)."""
    return FunctionPotential(lambda r: f(r[:, 0, 0]), **options)  # type: ignore[arg-type]


def plane(f: Callable[[Tensor, Tensor], Tensor]) -> FunctionPotential:
    """A potential of two coordinates of one particle from f(x, y)."""
    return FunctionPotential(lambda r: f(r[:, 0, 0], r[:, 0, 1]), n_dims=2)


def oscillators(
    matrix: np.ndarray, masses: tuple[float, ...] | None = None, quartic: float = 0.0
) -> tuple[FunctionPotential, float]:
    """Coupled oscillators x K x / 2 on one particle, or on particles of those masses, and their ground-state energy."""
    n = len(matrix)
    K = torch.tensor(matrix)

    def V(r: Tensor) -> Tensor:
        x = r.flatten(1)
        return 0.5 * torch.einsum("bi,ij,bj->b", x, K.to(x), x) + quartic * x.pow(4).sum(1)

    m = np.ones(n) if masses is None else np.array(masses)
    omega = np.sqrt(np.linalg.eigvalsh(matrix / np.sqrt(np.outer(m, m))))
    shape = {"n_dims": n} if masses is None else {"n_particles": n, "masses": masses}
    return FunctionPotential(V, **shape), float(omega.sum() / 2)


def on_grid(potential: Potential, tolerance: float = 1e-8, levels: int = 1) -> GridStates:
    """The product grid, also where a better method would have been chosen."""
    return solve_grid(landscape(potential), levels, tolerance=tolerance)


def check(spectrum: Spectrum, expected: float, tolerance: float = 1e-9) -> None:
    """The ground-state energy is right to the tolerance, and the error given is not too optimistic."""
    difference = abs(spectrum.ground_state - expected)
    assert difference < tolerance
    assert spectrum.error < 10 * tolerance


# -- known energies ----------------------------------------------------------------------------------------------------

KNOWN = [
    (Harmonic(), 0.5, 1e-12),
    (Harmonic(omega=3.0, n_dims=2), 3.0, 1e-11),
    (Harmonic(omega=2.0, n_dims=3, n_particles=2), 6.0, 1e-11),
    (Harmonic(n_dims=10), 5.0, 1e-11),
    (Harmonic(n_dims=30), 15.0, 1e-10),
    (Anharmonic(lam=0.1), 0.5591463271835, 1e-12),
    (Anharmonic(lam=1.0), 0.8037706512342, 1e-12),
    (Anharmonic(lam=10.0), 1.5049724077799, 1e-11),
    (DoubleWell(a=1.0, b=0.0), 0.6679862591558, 1e-12),
    (DoubleWell(a=1.0, b=1.0), 0.8695809189, 1e-10),
    (DoubleWell(a=0.5, b=1.0), 0.5688929241, 1e-10),
    (DoubleWell(a=0.125, b=4.0), 0.9004067473, 1e-10),
    (DoubleWell(a=0.1, b=2.5), 0.625 - 0.1541248290, 1e-10),
    (Morse(D=10.0, a=1.0), 2.11106797749979, 1e-12),
    (PoschlTeller(l=2.0), -2.0, 1e-12),
    (PoschlTeller(l=0.02), -0.0002, 1e-14),
    (Cosine(V0=1.0), -0.53506485, 1e-8),
    (Cosine(V0=2.0), -1.32584115, 1e-8),
    (Hydrogen(), -0.5, 1e-10),
    (Hydrogen(Z=3.0), -4.5, 1e-9),
    (Harmonium(omega=0.25), 1.08926205628733, 1e-11),
    (GaussianBosons(n_particles=2, g=6.0), 2.48396643, 1e-8),
    (Calogero(n_particles=2, lam=1.5), 2.5, 1e-9),
    (HarmonicBosons(n_particles=2, n_dims=1, k=0.5), 0.5 + math.sqrt(2) / 2, 1e-11),
    (HarmonicBosons(n_particles=3, n_dims=1, k=0.5), 0.5 + math.sqrt(2.5), 1e-9),
    (HarmonicBosons(n_particles=3, n_dims=2, k=0.5), 1 + 2 * math.sqrt(2.5), 1e-8),
    (HarmonicBosons(n_particles=20, n_dims=3, k=0.05), 1.5 * (1 + 19 * math.sqrt(2)), 1e-9),
    (HenonHeiles(), 0.9986140702239, 1e-9),
]


@pytest.mark.parametrize(("potential", "expected", "tolerance"), KNOWN, ids=lambda x: getattr(x, "name", ""))
def test_known_ground_states(potential: Potential, expected: float, tolerance: float) -> None:
    assert has_exact(potential)
    check(diagonalise(potential, levels=1), expected, tolerance)


def test_excited_levels() -> None:
    assert diagonalise(DoubleWell(a=1.0, b=1.0)).splitting == pytest.approx(0.7918480793, abs=1e-10)
    assert diagonalise(DoubleWell(a=0.5, b=1.0)).splitting == pytest.approx(0.7876210248, abs=1e-10)
    assert diagonalise(DoubleWell(a=0.125, b=4.0)).splitting == pytest.approx(0.0478459439, abs=1e-10)
    assert diagonalise(DoubleWell(a=0.1, b=2.5)).splitting == pytest.approx(0.2968899310, abs=1e-10)
    assert diagonalise(Anharmonic(lam=0.1)).energies[1] == pytest.approx(1.7695026439, abs=1e-10)
    assert diagonalise(Anharmonic(lam=1.0)).energies[1] == pytest.approx(2.7378922680, abs=1e-10)
    np.testing.assert_allclose(diagonalise(Harmonic(), levels=60).energies, np.arange(60) + 0.5, atol=1e-10)


def test_a_tunnel_splitting_below_rounding_does_not_lose_a_level() -> None:
    deep = diagonalise(DoubleWell(a=0.125, b=40.0), levels=4)
    assert deep.splitting < 1e-11
    assert deep.gaps[1] == pytest.approx(6.2868, abs=1e-3)


@pytest.mark.parametrize("potential", [Morse(D=10.0, a=1.0), Morse(D=3.0, a=0.7)])
def test_morse_levels_stop_where_the_continuum_starts(potential: Morse) -> None:
    D, a = potential.D, potential.a
    n = np.arange(math.ceil(math.sqrt(2 * D) / a - 0.5))
    spectrum = diagonalise(potential, levels=12)
    np.testing.assert_allclose(
        spectrum.energies, a * math.sqrt(2 * D) * (n + 0.5) - (a * (n + 0.5)) ** 2 / 2, atol=1e-10
    )
    assert spectrum.threshold == pytest.approx(D)
    assert f"{len(n)} of the 12 levels asked for" in str(spectrum)


def test_poschl_teller_has_finitely_many_levels() -> None:
    spectrum = diagonalise(PoschlTeller(l=3.5), levels=10)
    np.testing.assert_allclose(
        spectrum.energies, [-(3.5**2) / 2, -(2.5**2) / 2, -(1.5**2) / 2, -(0.5**2) / 2], atol=1e-10
    )
    assert spectrum.threshold == 0


def test_jumps_and_kinks() -> None:
    depth, k = 3.0, np.float64
    square = diagonalise(
        line(lambda x: -depth * (x.abs() < 1)), levels=4
    )  # even: q tan q = kappa, odd: -q cot q = kappa
    q = np.sqrt(2 * (square.energies + depth), dtype=k)
    kappa = np.sqrt(-2 * square.energies)
    np.testing.assert_allclose([q[0] * np.tan(q[0]), -q[1] / np.tan(q[1])], kappa, atol=1e-8)
    airy = np.array([1.01879297164747, 2.33810741045977, 3.24819758217984]) / 2 ** (1 / 3)
    np.testing.assert_allclose(diagonalise(line(torch.abs), levels=3).energies, airy, atol=1e-10)


def test_scales_and_places() -> None:
    n = np.arange(5) + 0.5
    for m, k, x0, V0 in [
        (1836.0, 1.0, 30.0, 0.0),
        (1.0, 1e12, 0.0, 0.0),
        (1.0, 1e-8, -2000.0, 0.0),
        (2.0, 1.0, 0.3, -1e4),
    ]:
        potential = line(lambda x, k=k, x0=x0, V0=V0: k * (x - x0) ** 2 / 2 + V0, masses=(m,))
        np.testing.assert_allclose(diagonalise(potential).energies - V0, n * math.sqrt(k / m), rtol=1e-9)


def test_rings() -> None:
    free = diagonalise(line(lambda x: 0 * x, period=(3.0,)), levels=5)
    np.testing.assert_allclose(free.energies, (2 * math.pi / 3) ** 2 / 2 * np.array([0, 1, 1, 4, 4]), atol=1e-10)
    for d, expected in ((5, -0.0540189305363), (10, -0.0980874488651)):
        c = torch.tensor(HAN_LU_ZHOU[:d], dtype=torch.float64)
        potential = FunctionPotential(
            lambda r, c=c: (c.to(r) * r[:, 0].cos()).sum(-1) / 2, n_dims=d, period=(2 * math.pi,) * d
        )
        check(diagonalise(potential, levels=2), expected / 2, 1e-11)
    coupled = FunctionPotential(lambda r: (r[:, 0, 0] - r[:, 1, 0]).cos(), 2, period=(2 * math.pi,))
    assert diagonalise(coupled).ground_state == pytest.approx(mathieu_pair(), abs=1e-9)


def mathieu_pair() -> float:
    """Two particles on a ring with V = cos(x1 - x2): relative motion p^2 + cos x, by a small matrix."""
    n = np.arange(-12, 13)
    return float(np.linalg.eigvalsh(np.diag(n**2.0) + 0.5 * (np.eye(25, k=1) + np.eye(25, k=-1)))[0])


@pytest.mark.slow
def test_hydrogen_shells() -> None:
    spectrum = diagonalise(Hydrogen(), levels=14)
    np.testing.assert_allclose(spectrum.energies, [-0.5] + [-0.125] * 4 + [-1 / 18] * 9, atol=1e-9)
    assert [count for _, count in spectrum.degeneracies] == [1, 4, 9]


def test_hydrogen_in_a_plane() -> None:
    flat = FunctionPotential(lambda r: -1 / distance(r[:, 0]), n_dims=2)
    np.testing.assert_allclose(diagonalise(flat, levels=4).energies, [-2, -2 / 9, -2 / 9, -2 / 9], atol=1e-8)


@pytest.mark.slow
def test_identical_particles_fill_symmetric_states_only() -> None:
    three = diagonalise(Harmonic(n_particles=3), levels=7)  # 3 bosons, 1D: partitions of the excitation into <= 3
    np.testing.assert_allclose(three.energies, [1.5, 2.5, 3.5, 3.5, 4.5, 4.5, 4.5], atol=1e-10)
    apart = FunctionPotential(lambda r: r.square().sum((1, 2)) / 2, n_particles=3)
    np.testing.assert_allclose(diagonalise(apart, levels=7).energies, [1.5] + [2.5] * 3 + [3.5] * 3, atol=1e-10)
    springs = diagonalise(HarmonicBosons(n_particles=3, n_dims=1, k=0.5), levels=5)  # relative modes: no single quantum
    w = math.sqrt(2.5)
    np.testing.assert_allclose(springs.energies, 0.5 + w + np.array([0, 1, 2, 3, 2 * w]), atol=1e-7)
    assert "symmetric" in springs.symmetry


# -- what a second look found --------------------------------------------------------------------------------------


def formula(text: str, **options: int) -> Spectrum:
    """The lowest level of a formula."""
    return diagonalise(load_potential(text, **options), levels=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abs(x)**0.5", 0.92245049),  # the lowest level once escaped here
        ("log(abs(x))", -0.87641138),
        ("x**2/2 + 1/x**2", 2.5),
        ("minimum((x - 20)**2, (x + 20)**2)/2", 0.5),
        ("minimum((x + 3)**2/2, 50*(x - 40)**2 - 6)", -1.0),
        ("(x - 1000)**2/2", 0.5),
        ("(x**2 - 25)**2/50", 0.98976301),
        ("-5*where(abs(x - 50) < 0.5, 1, 0)", -3.24511156),
        ("1e6*where(abs(x) < 1, 0, 1)", 1.23195768),
        ("tan(x)**2", 1.0),
    ],
)
def test_lowest_levels_of_formulas_on_a_line(text: str, expected: float) -> None:
    check(formula(text), expected, 2e-8)


@pytest.mark.parametrize(
    ("text", "n_dims", "expected"),
    [
        ("(x**2 + y**2 - 2)**2/2", 2, 1.16266091),
        ("4*(sqrt(x**2 + y**2) - 5)**2", 2, 1.40910327),
        ("20*(r**-12 - 2*r**-6)", 3, -5.95459146),
        ("r**2/2 - 0.1/r**2", 3, 1 + math.sqrt(0.05)),  # E = 1 + sqrt(1/4 + c) with c = -0.2, below the critical -1/4
    ],
)
def test_lowest_levels_of_central_formulas(text: str, n_dims: int, expected: float) -> None:
    check(formula(text, n_dims=n_dims), expected, 2e-8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tan(x)**2", (1.0, 3.5, 7.0)),
        ("1/sin(x)**2", (2.0, 4.5, 8.0)),
        ("x**2/2 + 0.1/x**2", 1 + math.sqrt(0.45) + np.array([0.0, 0.0, 2.0])),
        ("x**2/2 + 0.001/x**2", 1 + math.sqrt(0.252) + np.array([0.0, 0.0, 2.0])),
    ],
)
def test_the_box_reaches_up_to_walls_where_psi_falls_slowly(text: str, expected: tuple[float, ...]) -> None:
    np.testing.assert_allclose(diagonalise(load_potential(text), levels=3).energies, expected, atol=1e-10)


def test_weak_walls_against_gegenbauer_polynomials() -> None:
    """x^2/2 + c tan^2 x in the eigenfunctions cos^s(x) C_n^s(sin x) of c tan^2 x, s(s - 1) = 2c."""
    s = (1 + math.sqrt(1.8)) / 2
    y, w = roots_gegenbauer(300, s)
    n = np.arange(30)
    basis = eval_gegenbauer(n[:, None], s, y)
    basis /= np.sqrt(basis**2 @ w)[:, None]
    H = np.diag((n**2 + 2 * n * s + s) / 2) + (basis * w * np.arcsin(y) ** 2 / 2) @ basis.T
    found = diagonalise(load_potential("x**2/2 + 0.1*tan(x)**2"), levels=3)
    np.testing.assert_allclose(found.energies, np.linalg.eigvalsh(H)[:3], atol=1e-8)


def test_shallow_and_far_wells() -> None:
    for depth, x0, tolerance in ((0.02, 0.0, 1e-12), (0.001, 0.0, 1e-12), (0.02, 1000.0, 1e-12), (3.0, 50_000.0, 1e-8)):
        l = (math.sqrt(1 + 8 * depth) - 1) / 2  # noqa: E741  -l(l + 1)/(2 cosh^2 x) has E = -l^2/2
        spectrum = diagonalise(load_potential(f"-{depth}/cosh(x - {x0})**2"), levels=1)
        assert abs(spectrum.ground_state + l**2 / 2) < tolerance


def test_walls_cut_a_line_into_parts_and_the_result_says_so() -> None:
    assert any("1.5708" in note for note in formula("tan(x)**2").notes)
    both = diagonalise(load_potential("x**2/2 + 1/x**2"), levels=4)
    np.testing.assert_allclose(both.energies, [2.5, 2.5, 4.5, 4.5], atol=1e-9)
    x = np.array([-1.3, 0.7])  # psi = |x|^2 exp(-x^2/2) on either side
    exact = 2 * np.log(np.abs(x)) - x**2 / 2
    assert np.ptp(both.log_psi(x) - exact) < 1e-6


@pytest.mark.parametrize(
    "text", ["x**2/2 - 0.1*x**4", "x**2/2 - 0.001*x**4", "x**2/2 + 0.05*x**3", "x**2*exp(-x**2/8)"]
)
def test_metastable_wells_are_refused(text: str) -> None:
    with pytest.raises(Metastable, match=r"beyond the barrier at x = .* only a metastable state"):
        formula(text)


@pytest.mark.parametrize("text", ["(x**2 + y**2)/2 + 0.1*x**2*y", "(x**2 + y**2)/2 + 0.3*x*y**2 - 0.1*x**4"])
def test_metastable_wells_of_a_plane_are_refused(text: str) -> None:
    with pytest.raises(Metastable, match=r"beyond a barrier .* only a metastable state"):
        formula(text, n_dims=2)


def test_a_singular_centre_that_is_not_central_has_no_method() -> None:
    potential = load_potential("x**2/2 + y**2 + z**2/2 - 0.1/r**2", n_dims=3)
    assert not has_exact(potential)
    with pytest.raises(NoExactSolution, match="V falls to -infinity"):
        diagonalise(potential)


@pytest.mark.parametrize("text", ["-1/x**2", "-1/abs(x)", "x**2/2 - 1/abs(x)", "x**2/2 - 1/(x - 1.3)**2"])
def test_infinitely_deep_points_of_a_line_are_refused(text: str) -> None:
    with pytest.raises(Unbound, match=r"E_0 = -infinity"):
        formula(text)


def test_too_strong_centres_and_endless_waves_are_refused() -> None:
    for n_dims in (2, 3):
        with pytest.raises(Unbound, match="too strong"):
            formula("r**2/2 - 0.3/r**2", n_dims=n_dims)
    with pytest.raises(Unbound, match=r"delocalised.*box=\(low, high\)"):
        formula("cos(x)")


# -- grids -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "masses"),
    [
        (2, None),
        (2, (1.0, 1836.0)),
        (3, (0.2, 1.0, 3.0)),
        pytest.param(4, (1.0, 1.5, 2.0, 3.0), marks=pytest.mark.slow),
    ],
)
def test_coupled_oscillators_on_grids(n: int, masses: tuple[float, ...] | None) -> None:
    A = np.random.default_rng(0).normal(size=(n, n))
    potential, expected = oscillators(np.eye(n) + 0.3 * A @ A.T / n, masses)
    modes = diagonalise(potential, levels=1)
    check(modes, expected, 1e-11)
    grid = on_grid(potential, 1e-8 if n < 4 else 1e-6)
    assert abs(grid.energies[0] - expected) < (1e-8 if n < 4 else 1e-6)
    assert grid.errors[0] < (1e-7 if n < 4 else 1e-5)


@pytest.mark.slow
def test_five_coupled_oscillators() -> None:
    A = np.random.default_rng(0).normal(size=(5, 5))
    potential, expected = oscillators(np.eye(5) + 0.3 * A @ A.T / 5)
    assert abs(on_grid(potential, 1e-5).energies[0] - expected) < 1e-7


@pytest.mark.slow
def test_a_plane_with_two_wells_on_a_diagonal() -> None:
    spectrum = diagonalise(plane(lambda x, y: (x * y - 4) ** 2 / 4 + 0.05 * (x - y) ** 2), levels=2)
    box = diagonalise(
        plane(lambda x, y: (x * y - 4) ** 2 / 4 + 0.05 * (x - y) ** 2), levels=2, box=(-13.0, 13.0), tolerance=1e-7
    )
    np.testing.assert_allclose(spectrum.energies, box.energies, atol=1e-6)
    assert 1e-4 < spectrum.splitting < 2e-4
    (x, y), psi = spectrum.axes, spectrum.wavefunctions
    assert psi is not None
    norms = np.trapezoid(np.trapezoid(psi**2, y, axis=2), x, axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-5)


def test_two_wells_of_a_plane_and_all_their_levels() -> None:
    one, other = "(x - 6)**2 + 2*(y - 5)**2 + (x - 6)*(y - 5)", "(x + 6)**2 + 2*(y + 5)**2 + (x + 6)*(y + 5)"
    both = diagonalise(load_potential(f"minimum({one}, {other})", n_dims=2), levels=4, tolerance=1e-4)
    alone = diagonalise(load_potential(one, n_dims=2), levels=2).energies
    np.testing.assert_allclose(both.energies, np.repeat(alone, 2), atol=1e-4)


def test_a_grid_that_misses_a_level_is_noticed() -> None:
    H = np.diag([1.0, 2.0, 2.0, 3.0, *np.linspace(4, 9, 40)])
    found = np.eye(44)[:, [0, 3]]
    start = np.random.default_rng(0).normal(size=44)
    assert _lowest_beside(lambda x: (H - 10 * np.eye(44)) @ x, found, start) == pytest.approx(-8.0, abs=1e-6)


@pytest.mark.slow
def test_a_well_off_the_origin_is_not_taken_for_a_sum() -> None:
    well = plane(lambda x, y: -8 * torch.exp(-((x - 20) ** 2) - 2 * (y - 20) ** 2 - (x - 20) * (y - 20)))
    near = plane(lambda x, y: -8 * torch.exp(-(x**2) - 2 * y**2 - x * y))
    a, b = diagonalise(well, levels=1), diagonalise(near, levels=1)
    assert a.ground_state == pytest.approx(b.ground_state, abs=1e-6)


# -- wavefunctions -----------------------------------------------------------------------------------------------------


def test_log_psi_on_a_line_is_right_far_into_the_tails() -> None:
    x = np.linspace(-11, 11, 45)
    exact = -(x**2) / 2 - math.log(math.pi) / 4
    np.testing.assert_allclose(diagonalise(Harmonic()).log_psi(x), exact, atol=1e-9)
    spectrum = diagonalise(PoschlTeller(l=1.0), levels=1)
    np.testing.assert_allclose(
        spectrum.log_psi(torch.from_numpy(x)[:, None, None]), -np.log(np.cosh(x)) - math.log(2) / 2, atol=1e-8
    )
    grid, psi = spectrum.grid, spectrum.wavefunctions
    assert grid is not None
    assert psi is not None
    np.testing.assert_allclose(np.trapezoid(psi**2, grid), 1, atol=1e-4)
    assert (psi[0] > 0).all()


def test_log_psi_of_central_and_two_particle_systems() -> None:
    r = np.random.default_rng(0).normal(size=(50, 1, 3)) * 3
    d = np.linalg.norm(r[:, 0], axis=-1)
    np.testing.assert_allclose(diagonalise(Hydrogen(), levels=1).log_psi(r), -d - math.log(math.pi) / 2, atol=1e-7)
    r = np.random.default_rng(1).normal(size=(50, 2, 3))
    r12 = np.linalg.norm(r[:, 0] - r[:, 1], axis=-1)
    exact = np.log(1 + r12 / 2) - (r**2).sum((1, 2)) / 4  # Taut's closed form, not normalised
    assert np.ptp(diagonalise(Harmonium(omega=0.5), levels=1).log_psi(r) - exact) < 1e-9
    spectrum = diagonalise(Calogero(n_particles=2, lam=2.0), levels=1)
    x = np.random.default_rng(2).normal(size=(50, 2, 1))
    exact = 2 * np.log(np.abs(x[:, 0, 0] - x[:, 1, 0])) - (x**2).sum((1, 2)) / 2
    assert np.ptp(spectrum.log_psi(x) - exact) < 1e-6


@pytest.mark.slow
def test_log_psi_of_sums_grids_and_modes() -> None:
    x = np.random.default_rng(0).normal(size=(40, 1, 2))
    exact = -(x**2).sum((1, 2)) / 2 - math.log(math.pi) / 2
    np.testing.assert_allclose(diagonalise(Harmonic(n_dims=2), levels=1).log_psi(x), exact, atol=1e-9)
    two = FunctionPotential(lambda r: r.square().sum((1, 2)) / 2, n_particles=2)
    np.testing.assert_allclose(diagonalise(two, levels=1).log_psi(x.swapaxes(1, 2)), exact, atol=1e-9)
    np.testing.assert_allclose(on_grid(Harmonic(n_dims=2)).log_psi(x[:, 0]), exact, atol=1e-3)
    ring = diagonalise(line(lambda x: 0 * x, period=(2.0,)), levels=1)
    np.testing.assert_allclose(ring.density(np.array([0.1, 5.7])), 0.5, atol=1e-10)
    springs = HarmonicBosons(n_particles=8, n_dims=3, k=0.05)
    r = np.random.default_rng(3).normal(size=(20, 8, 3)) * 0.5
    R = r.mean(1)
    relative = (r**2).sum((1, 2)) - 8 * (R**2).sum(1)
    exact = -math.sqrt(1.4) / 2 * relative - 8 * (R**2).sum(1) / 2
    assert np.ptp(diagonalise(springs, levels=1).log_psi(r) - exact) < 1e-9


def test_wrong_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="positions have shape"):
        diagonalise(Hydrogen(), levels=1).log_psi(np.zeros((3, 2)))


def test_printing() -> None:
    spectrum = diagonalise(Harmonic(), levels=2)
    text = str(spectrum)
    assert "0.5" in text
    assert "method:" in text
    assert spectrum._repr_html_().count("<tr>") == 3


# -- walls -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table(Potential):
    """A potential that knows V between two ends only, and fails beyond."""

    low: float = -1.0
    high: float = 2.0

    @property
    def domain(self) -> tuple[tuple[float, float], ...]:
        return ((self.low, self.high),)

    def __call__(self, r: Tensor) -> Tensor:
        assert ((r >= self.low) & (r <= self.high)).all(), "evaluated outside the table"
        return r[:, 0, 0] ** 2 / 2


def test_tables_are_never_evaluated_outside_their_range() -> None:
    narrow, wide = diagonalise(Table(), levels=2), diagonalise(Table(-12.0, 12.0), levels=2)
    np.testing.assert_allclose(wide.energies, [0.5, 1.5], atol=1e-10)
    assert narrow.ground_state > 0.5
    assert narrow.box == ((-1.0, 2.0),)
    assert any("hard walls" in note for note in narrow.notes)
    assert np.isfinite(narrow.log_psi(np.linspace(-0.99, 1.99, 20))).all()


def test_hard_walls() -> None:
    n = np.arange(1, 6)
    levels = (n * math.pi) ** 2 / 2
    np.testing.assert_allclose(diagonalise(line(lambda x: 0 * x), box=(0, 1)).energies, levels, rtol=1e-10)
    infinite = line(lambda x: torch.where(x.abs() < 0.5, 0.0, math.inf).to(x))
    np.testing.assert_allclose(diagonalise(infinite).energies, levels, rtol=1e-10)
    ring_shaped = FunctionPotential(lambda r: (distance(r[:, 0]) - 5) ** 2 / 2, n_dims=2)
    assert "radial" in diagonalise(ring_shaped, levels=1).method
    square = diagonalise(plane(lambda x, y: 0 * x), levels=3, box=((0, 1), (0, 2)))
    np.testing.assert_allclose(square.energies, math.pi**2 / 2 * np.array([1.25, 2, 3.25]), rtol=1e-10)


TWO_ELECTRONS_IN_AN_ELLIPSE = FunctionPotential(
    lambda r: (r[..., 0] ** 2 + 4 * r[..., 1] ** 2).sum(1) / 2 + 1 / distance(r[:, 0] - r[:, 1]), 2, 2, identical=True
)

# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "potential",
    [
        line(lambda x: 0 * x),
        line(lambda x: x),
        line(lambda x: -(x**2)),
        line(lambda x: x**3),
        line(torch.cos),
        line(lambda x: -torch.tanh(x)),
        plane(lambda x, y: 0 * x),
        plane(lambda x, y: x * y),
        plane(lambda x, y: (x**2 + y**2) / 2 + 0.1118 * (x**2 * y - y**3 / 3)),
        plane(lambda x, y: torch.exp(-(x**2) - y**2 - x * y)),
        FunctionPotential(lambda r: -0.1 * torch.exp(-r.square().sum((1, 2))), n_dims=3),
        FunctionPotential(lambda r: -(distance(r[:, 0]) ** -3), n_dims=3),
        FunctionPotential(lambda r: -r.square().sum((1, 2)), n_dims=8),
    ],
)
def test_what_does_not_bind(potential: Potential) -> None:
    with pytest.raises(Unbound):
        diagonalise(potential)


@pytest.mark.parametrize(
    "potential",
    [Helium(), H2(), H2Plus(), GaussianBosons(3, 15.0), GaussianBosons(30), Calogero(5), TWO_ELECTRONS_IN_AN_ELLIPSE],
    ids=lambda p: p.name,
)
def test_what_has_no_exact_solution(potential: Potential) -> None:
    assert not has_exact(potential)
    with pytest.raises(NoExactSolution, match=potential.name):
        diagonalise(potential)


@pytest.mark.parametrize(
    "options",
    [
        {"levels": 0},
        {"levels": 2.5},
        {"levels": 10**6},
        {"tolerance": 0.0},
        {"points": 1},
        {"max_memory_gib": -1},
        {"max_seconds": 0},
        {"box": (1, -1)},
        {"box": "wide"},
        {"box": (0, math.inf)},
        {"box": ((0, 1), (0, 1), (0, 1))},
    ],
)
def test_arguments_out_of_range(options: dict[str, object]) -> None:
    with pytest.raises(BadParameter, match=next(iter(options))):
        diagonalise(Harmonic(), **options)  # type: ignore[arg-type]


def test_other_bad_input() -> None:
    with pytest.raises(BadParameter, match="takes a Potential"):
        diagonalise("harmonic")  # type: ignore[arg-type]
    with pytest.raises(BadParameter, match="ring"):
        diagonalise(Cosine(), box=(0, 1))
    with pytest.raises(BadParameter, match="table's range"):
        diagonalise(Table(), box=(-3, 1))
    with pytest.raises(BadParameter, match="finite"):
        diagonalise(line(lambda x: x * math.nan))
    with pytest.raises(BadParameter, match="not a number"):
        diagonalise(line(torch.sqrt))
    with pytest.raises(BadParameter, match="finite"):
        diagonalise(plane(lambda x, y: x * y * math.nan))


def test_too_large_says_how_large() -> None:
    with pytest.raises(TooLarge, match="GiB"):
        diagonalise(GaussianBosons(n_particles=5, n_dims=1, g=3.0))
    with pytest.raises(TooLarge, match="GiB"):
        formula("x**2*y**2 + 0.1*x**2", n_dims=2)
    with pytest.raises(TooLarge, match="max_memory_gib"):
        diagonalise(HenonHeiles(), max_memory_gib=1e-5)


def test_the_clock_stops_it_and_progress_is_told() -> None:
    with pytest.raises(OutOfTime, match="--max-seconds"):
        diagonalise(HenonHeiles(), max_seconds=1e-4)
    stages: list[str] = []
    diagonalise(Harmonic(n_dims=2), levels=3, progress=stages.append)
    assert any("l = 1" in stage for stage in stages)


def test_what_did_not_converge_carries_what_was_reached() -> None:
    with pytest.raises(NotConverged) as caught:
        diagonalise(line(lambda x: x.abs().pow(0.5) * (1 + x.pow(-1).sin().sign() / 4)), levels=1, tolerance=1e-12)
    assert isinstance(caught.value.partial, Spectrum)
    assert caught.value.partial.ground_state > 0


def test_a_jump_along_an_ellipse_is_not_taken_for_a_circle() -> None:
    """Most points see the same height outside; the few that see the edge decide."""
    V = landscape(FunctionPotential(lambda r: 50.0 * (r[:, 0, 0] ** 2 + 2 * r[:, 0, 1] ** 2 >= 1), n_dims=2))
    assert not central(V)
    assert components(V) is None
    assert not quadratic(V)
    assert central(landscape(FunctionPotential(lambda r: 50.0 * (r.square().sum((1, 2)) >= 1), n_dims=2)))
