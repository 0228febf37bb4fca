"""One conformance test that every plug-in passes, and the energies they claim to know."""

from __future__ import annotations

import dataclasses
import inspect
import math
from pathlib import Path

import pytest
import torch

from fkdrift.errors import BadParameter
from fkdrift.hamiltonian.loading import available, load_potential
from fkdrift.hamiltonian.potential import Potential
from fkdrift.hamiltonian.trial_function import TrialFunction

NAMES = sorted(
    name
    for name, plug_in in available().items()
    if plug_in.distribution == "fkdrift" and inspect.Parameter.empty not in plug_in.parameters.values()
)
OTHER_PARAMETERS = {
    "harmonic": {"omega": 2.0, "n_dims": 3, "n_particles": 2},
    "helium": {"Z": 3.0},
    "h2": {"R": 2.8},
    "h2_plus": {"R": 1.4},
    "harmonium": {"omega": 0.25},
    "gaussian_bosons": {"n_particles": 3, "n_dims": 3, "s": 2.0},
    "harmonic_bosons": {"n_particles": 4, "n_dims": 2, "k": -0.1},
    "calogero": {"n_particles": 3, "lam": 1.5},
    "water": {"n_molecules": 2},
    "normal_modes": {"file": str(Path(__file__).with_name("two_modes.txt")), "confinement": 1e-3},
}
CASES = [(name, {}) for name in NAMES] + list(OTHER_PARAMETERS.items())
POTENTIALS = [pytest.param(load_potential(name, **parameters), id=f"{name}-{parameters}") for name, parameters in CASES]


def positions(potential: Potential, batch: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, potential.n_particles, potential.n_dims, generator=generator, dtype=dtype)


def killing_rate(potential: Potential, W: TrialFunction, r: torch.Tensor) -> torch.Tensor:
    """E_W = V - sum_i sigma_i^2 (|grad_i W|^2 + lap_i W) / 2."""
    _, gradient, laplacian = W.derivatives(r)
    kinetic = (gradient.square().sum(-1) + laplacian) / (2 * torch.tensor(potential.mass, dtype=r.dtype))
    return potential(r) - kinetic.sum(-1)


def autograd_derivatives(W: TrialFunction, r: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    r = r.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(W(r).sum(), r, create_graph=True)
    second = torch.zeros_like(r)
    for i in range(r.shape[1]):
        for k in range(r.shape[2]):
            (row,) = torch.autograd.grad(gradient[:, i, k].sum(), r, retain_graph=True)
            second[:, i, k] = row[:, i, k]
    return gradient.detach(), second.sum(-1).detach()


@pytest.mark.parametrize("potential", POTENTIALS)
class TestConformance:
    def test_is_a_described_frozen_dataclass(self, potential):
        assert dataclasses.is_dataclass(potential)
        assert potential.formula
        assert potential.units
        assert potential.citation
        assert type(potential).__doc__
        with pytest.raises(dataclasses.FrozenInstanceError):
            potential.n_particles = 7

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("batch", [1, 7])
    def test_shape_dtype_and_finite(self, potential, batch, dtype):
        r = positions(potential, batch, dtype).requires_grad_()
        V = potential(r)
        assert V.shape == (batch,)
        assert V.dtype == dtype
        (force,) = torch.autograd.grad(V.sum(), r)
        assert torch.isfinite(V).all()
        assert torch.isfinite(force).all()
        if potential.trial_function is not None:
            derivatives = potential.trial_function.derivatives(r)
            assert [x.shape for x in derivatives] == [(batch,), r.shape, r.shape[:2]]
            assert {x.dtype for x in derivatives} == {dtype}

    def test_walkers_do_not_interact(self, potential):
        r = positions(potential, 7)
        torch.testing.assert_close(torch.cat([potential(walker[None]) for walker in r]), potential(r))

    def test_exchange_within_groups(self, potential):
        assert sorted(i for group in potential.groups for i in group) == list(range(potential.n_particles))
        r = positions(potential, 5)
        for group in potential.groups:
            swapped = r.clone()
            swapped[:, list(group)] = r[:, list(group[1:] + group[:1])]
            torch.testing.assert_close(potential(swapped), potential(r))
            if potential.trial_function is not None:
                torch.testing.assert_close(potential.trial_function(swapped), potential.trial_function(r))

    def test_rotations_and_reflections(self, potential):
        r, d = positions(potential, 5), potential.n_dims
        turn = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(1), dtype=r.dtype))[0]
        for matrix in (turn, -turn):
            assert torch.allclose(potential(r @ matrix), potential(r)) or not potential.isotropic
        if potential.isotropic and potential.trial_function is not None:
            torch.testing.assert_close(potential.trial_function(r @ turn), potential.trial_function(r))

    def test_periodic_box(self, potential):
        if potential.box is None:
            return
        assert len(potential.box) == potential.n_dims
        r = positions(potential, 5)
        torch.testing.assert_close(potential(r + torch.tensor(potential.box, dtype=r.dtype)), potential(r))

    def test_reference_derivatives_against_autograd(self, potential):
        W = potential.trial_function
        if W is None:
            return
        r = positions(potential, 4)
        _, gradient, laplacian = W.derivatives(r)
        expected_gradient, expected_laplacian = autograd_derivatives(W, r)
        torch.testing.assert_close(gradient, expected_gradient)
        torch.testing.assert_close(laplacian, expected_laplacian)

    def test_killing_rate_is_bounded_at_the_nuclei(self, potential):
        for nucleus in potential.nuclei:
            r = positions(potential, 20)
            direction = torch.nn.functional.normalize(r[:, 0], dim=-1)
            near, nearer = (self.moved(potential, r, r.new_tensor(nucleus) + d * direction) for d in (1e-4, 1e-6))
            assert near.abs().max() < 100
            torch.testing.assert_close(near, nearer, atol=0.05, rtol=0)

    def test_killing_rate_is_bounded_where_particles_meet(self, potential):
        if not potential.coalescence or potential.trial_function is None:  # test_pairs.py has those that are prepared
            return
        r = positions(potential, 20)
        direction = torch.nn.functional.normalize(r[:, 0] - r[:, 1], dim=-1)
        near, nearer = (self.moved(potential, r, r[:, 1] + d * direction) for d in (1e-3, 1e-4))
        assert near.abs().max() < 100
        torch.testing.assert_close(near, nearer, atol=0.05, rtol=0)

    @staticmethod
    def moved(potential, r, first):
        return killing_rate(potential, potential.trial_function, torch.cat([first[:, None], r[:, 1:]], 1))

    def test_cusp_at_each_nucleus_is_exact(self, potential):
        """Averaged over directions, dW/dr = -Z at the nucleus, whatever else is near."""
        Z = getattr(potential, "Z", 1.0)
        for nucleus in potential.nuclei:
            r = positions(potential, 10)
            direction = torch.nn.functional.normalize(r[:, 0], dim=-1)
            slopes = []
            for sign in (1, -1):
                r[:, 0] = r.new_tensor(nucleus) + sign * 1e-6 * direction
                slopes.append((sign * direction * potential.trial_function.derivatives(r).gradient[:, 0]).sum(-1))
            torch.testing.assert_close((slopes[0] + slopes[1]) / 2, torch.full_like(slopes[0], -Z), atol=1e-5, rtol=0)

    def test_cusp_between_electrons_is_exact(self, potential):
        if potential.name not in ("helium", "h2", "harmonium"):
            return
        r = positions(potential, 10)
        direction = torch.nn.functional.normalize(r[:, 0], dim=-1)
        r[:, 1] = r[:, 0] + 1e-6 * direction
        gradient = potential.trial_function.derivatives(r).gradient
        slope = ((gradient[:, 1] - gradient[:, 0]) * direction).sum(-1) / 2
        torch.testing.assert_close(slope, torch.full_like(slope, 0.5), atol=1e-5, rtol=0)


KNOWN = [  # digits copied from the project's list of reference energies
    ("harmonic", {}, 0.5),
    ("harmonic", {"omega": 2.0, "n_dims": 3, "n_particles": 2}, 6.0),
    ("anharmonic", {"lam": 0.1}, 0.5591463271835),
    ("anharmonic", {"lam": 1.0}, 0.8037706512342),
    ("anharmonic", {"lam": 10.0}, 1.5049724077799),
    ("anharmonic", {"lam": 0.0}, 0.5),
    ("anharmonic", {"lam": 0.2}, None),
    ("double_well", {"a": 1.0, "b": 1.0}, 0.8695809189),
    ("double_well", {"a": 0.5, "b": 1.0}, 0.5688929241),
    ("double_well", {"a": 0.125, "b": 4.0}, 0.9004067473),
    ("double_well", {"a": 0.1, "b": 2.5}, -0.1541248290 + 0.625),
    ("double_well", {"a": 1.0, "b": 0.0}, 0.6679862591558),
    ("double_well", {"a": 3.0, "b": 1.0}, None),
    ("morse", {}, 2.11106797749979),
    ("poschl_teller", {"l": 2.0}, -2.0),
    ("cosine", {"V0": 1.0}, -0.53506485),
    ("cosine", {"V0": 2.0}, -1.32584115),
    ("cosine", {"V0": 3.0}, None),
    ("henon_heiles", {}, 0.99859477260462 + 1.93e-5),  # the metastable state, and what confinement adds
    ("hydrogen", {}, -0.5),
    ("hydrogen", {"Z": 2.0}, -2.0),
    ("helium", {}, -2.9037243770341),
    ("helium", {"Z": 2.5}, None),
    ("h2_plus", {"R": 2.0}, -0.60263421449494646),
    ("h2_plus", {"R": 1.4}, -0.56998352805678537),
    ("h2_plus", {"R": 1.5}, None),
    ("h2", {"R": 1.0}, -1.12453971955),
    ("h2", {"R": 1.4}, -1.17447571422),
    ("h2", {}, -1.17447593012),
    ("h2", {"R": 2.0}, -1.13813295713),
    ("h2", {"R": 0.8 + 10 * 0.2}, -1.07068323348),
    ("h2", {"R": 2.85}, None),
    ("harmonium", {"omega": 0.5}, 2.0),
    ("harmonium", {"omega": 0.25}, 1.08926205628733),
    ("harmonium", {"omega": 0.3}, None),
    ("gaussian_bosons", {"n_particles": 2, "g": 3.0}, 2.31198252),
    ("gaussian_bosons", {"n_particles": 3, "g": 6.0}, 4.3429169),
    ("gaussian_bosons", {}, 7.627215),
    ("gaussian_bosons", {"g": 0.0}, 4.0),
    ("gaussian_bosons", {"s": 0.4}, None),
    ("gaussian_bosons", {"n_dims": 3}, None),
    ("calogero", {}, 22.5),
    ("harmonic_bosons", {}, 1.5 * (1 + 19 * math.sqrt(2))),
]


@pytest.mark.parametrize(("name", "parameters", "expected"), KNOWN)
def test_known_energy(name, parameters, expected):
    known = load_potential(name, **parameters).known_energy
    if expected is None:
        assert known is None
        return
    assert known.value == pytest.approx(expected, abs=1e-7 if name == "henon_heiles" else 1e-12)
    assert known.source
    assert known.kind in ("exact", "computed", "literature", "variational")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("harmonic", {"omega": 0.0}),
        ("harmonic", {"omega": -1.0}),
        ("harmonic", {"n_dims": 0}),
        ("anharmonic", {"lam": -0.1}),
        ("double_well", {"a": 0.0}),
        ("morse", {"D": 0.1, "a": 1.0}),
        ("poschl_teller", {"l": 0.0}),
        ("henon_heiles", {"confinement": 0.0}),
        ("hydrogen", {"Z": 0.0}),
        ("helium", {"Z": 0.9}),
        ("h2", {"R": 0.0}),
        ("harmonium", {"omega": 0.0}),
        ("gaussian_bosons", {"g": -1.0}),
        ("calogero", {"lam": 1.0}),
        ("harmonic_bosons", {"n_particles": 20, "k": -0.05}),
    ],
)
def test_parameters_out_of_range(name, parameters):
    with pytest.raises(BadParameter, match=r"is not allowed: \w+ must be"):
        load_potential(name, **parameters)


@pytest.mark.parametrize("name", ["hydrogen", "calogero"])
def test_a_reference_that_is_the_ground_state_has_one_killing_rate(name):
    potential = load_potential(name)
    rate = killing_rate(potential, potential.trial_function, positions(potential, 50))
    torch.testing.assert_close(rate, torch.full_like(rate, potential.known_energy.value), rtol=1e-6, atol=0)


def test_henon_heiles_has_one_minimum_and_a_known_confinement():
    V = load_potential("henon_heiles")
    y = torch.linspace(-40, 40, 4001, dtype=torch.float64)
    along_y = V(torch.stack([torch.zeros_like(y), y], -1)[:, None])
    slope_over_y = torch.diff(along_y) / (y[:-1] + y[1:])
    assert slope_over_y[y[:-1].abs() > 0.03].min() > 0
    assert V.known_energy.value - 0.99859477260462 == pytest.approx(6 * V.confinement * V.lam**4, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters", "bound", "spread"),
    [
        ("helium", {}, -2.89, 0.20),
        ("h2", {"R": 1.401}, -1.16, 0.17),
        ("h2", {"R": 2.8}, -1.05, 0.13),
        ("h2_plus", {"R": 2.0}, -0.595, 0.12),
        ("harmonium", {"omega": 0.5}, 2.0005, 0.02),
        ("harmonium", {"omega": 0.25}, 1.0900, 0.015),
        ("harmonic_bosons", {}, 41.90, 1.0),
        ("gaussian_bosons", {"g": 3.0}, 5.70, 0.2),
        ("gaussian_bosons", {}, 7.67, 0.6),
    ],
)
def test_references_are_good_trial_states(name, parameters, bound, spread):
    """Metropolis samples of |phi_ref|^2: the mean of E_W is above E0 and below `bound`."""
    potential = load_potential(name, **parameters)
    W, generator = potential.trial_function, torch.Generator().manual_seed(0)
    r = 0.7 * positions(potential, 1000)
    if potential.nuclei:  # each particle starts near a nucleus of its own
        r += torch.tensor([potential.nuclei[i % len(potential.nuclei)] for i in range(potential.n_particles)])
    value, energies = W(r), []
    step = 0.9 / math.sqrt(potential.n_particles * potential.n_dims)
    for k in range(500):
        proposal = r + step * torch.empty_like(r).normal_(generator=generator)
        proposed = W(proposal)
        accept = torch.rand(len(r), generator=generator).log() < 2 * (proposed - value)
        r, value = torch.where(accept[:, None, None], proposal, r), torch.where(accept, proposed, value)
        if k >= 300 and k % 10 == 0:
            energies.append(killing_rate(potential, W, r))
    E = torch.stack(energies)
    error = (E.mean(0).std() / math.sqrt(len(r))).item()
    assert E.std() < spread
    assert potential.known_energy.value - 4 * error < E.mean() < bound + 4 * error
