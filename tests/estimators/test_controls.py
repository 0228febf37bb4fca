"""Functions whose mean over |psi|^2 vanishes, and averages that they take the noise from."""

from __future__ import annotations

import pytest
import torch

import fkdrift as fk
from fkdrift.estimators.controls import Controls
from fkdrift.estimators.local_energy import StationarySampler
from fkdrift.estimators.observables import Averages, Observable
from fkdrift.numerics.differentiation import curvatures
from tests.systems import generator, random_state


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("harmonic", {}),
        ("harmonic", {"n_dims": 2}),
        ("harmonic", {"n_dims": 3, "n_particles": 2}),
        ("helium", {}),
        ("harmonic_bosons", {"n_particles": 3, "n_dims": 1}),
    ],
)
def test_each_is_the_generator_of_its_function(name, parameters):
    """By autograd: sigma^2 lap f / 2 + v . grad f for every f, whatever v is."""
    system = fk.System(fk.load_potential(name, **parameters), torch.float64)
    controls, g = Controls(system), generator(0)
    r = torch.randn(5, *system.shape, generator=g, dtype=torch.float64)
    v = torch.randn(r.shape, generator=g, dtype=torch.float64)
    variance, x = system.sigma.square(), r - system.centre
    functions = []
    for members in controls.groups:
        for n in controls.exponents:
            functions.append(lambda r, own=members, n=n: (r[:, own] ** n).prod(-1).sum(-1))
        if r.shape[-1] > 1:
            functions += [lambda r, own=members, p=p: r[:, own].norm(dim=-1).pow(p).sum(-1) for p in controls.powers]
    for i, j in controls.pairs:
        for p in controls.powers:
            functions.append(lambda r, i=i, j=j, p=p: (r[:, i] - r[:, j]).norm(dim=-1).pow(p).sum(-1))
    found = controls(r, v)
    assert found.shape == (5, controls.size) == (5, len(functions))
    for column, f in zip(found.T, functions, strict=True):
        _, gradient, second = curvatures(f, x)
        expected = (variance * second / 2 + v * gradient).sum((-2, -1))
        assert torch.allclose(column, expected, rtol=1e-9, atol=1e-9)


def test_there_are_none_where_they_would_not_vanish():
    """In a box polynomials are not periodic; free particles have no place, but distances."""
    ring = fk.System(fk.load_potential("cosine"), torch.float64)
    assert Controls(ring).size == 0
    free = Controls(fk.System(fk.load_potential("noble_gas", element="Ne", n_particles=3), torch.float64))
    assert free.groups == []
    assert free.size == len(free.powers)


def test_averages_are_exact_and_much_less_noisy():
    """<x^2> = 1/2 of the oscillator, from a psi that is exact: L x^2 = 1 - 2 x^2 is all that x^2 varies by."""
    _, process = random_state("harmonic", 0.0)
    x2 = Observable("x^2", "", lambda r: r.square().sum((-2, -1)))
    x_abs = Observable("|x|", "", lambda r: r.abs().sum((-2, -1)))
    walkers = process.reference.initial_walkers(1000, generator(0))
    sampler, g = StationarySampler(process, walkers, time_scale=1.0, observables=[x2, x_abs]), generator(1)
    while sampler.n_blocks < 10:
        sampler.advance(g)
    found = sampler.observables()
    assert found["x^2"].estimate.mean == pytest.approx(0.5, abs=1e-9)
    assert found["x^2"].estimate.error < 1e-9
    assert abs(found["|x|"].estimate.deviation(torch.pi**-0.5)) < 3
    plain = Averages([x_abs], 1000)
    plain.sums, plain.weights = sampler.averages.sums[:, [0, 2]], sampler.averages.weights
    assert found["|x|"].estimate.error < plain.estimates()["|x|"].estimate.error / 3


def test_the_error_is_what_it_scatters_by():
    """120 groups of walkers, the coefficients from each group alone: z has no mean and unit variance."""
    g, z = generator(0), []
    cubed = Observable("|x|^3", "", lambda r: r.abs().pow(3).sum((-2, -1)))
    controls = Controls(fk.System(fk.load_potential("harmonic"), torch.float64))
    for _ in range(120):
        averages = Averages([cubed], 4000, n_controls=controls.size)
        r = torch.randn(4000, 1, 1, generator=g, dtype=torch.float64) * 0.5**0.5
        averages.add(r, torch.zeros(4000), controls=controls(r, -r))
        z.append(averages.estimates()["|x|^3"].estimate.deviation(torch.pi**-0.5))
    z = torch.tensor(z)
    assert abs(z.mean()) < 3 / 120**0.5
    assert z.square().mean() == pytest.approx(1, abs=3 * (2 / 120) ** 0.5)


def test_walkers_that_have_not_seen_the_tails_are_not_trusted():
    """What should vanish does not, by many standard errors: then nothing is taken away."""
    square = Observable("x^2", "", lambda r: r.square().sum((-2, -1)))
    controls = Controls(fk.System(fk.load_potential("harmonic"), torch.float64))
    r = 0.1 * torch.randn(1000, 1, 1, generator=generator(0), dtype=torch.float64)
    averages = Averages([square], 1000, n_controls=controls.size)
    averages.add(r, torch.zeros(1000), controls=controls(r, -r))
    assert averages.estimates()["x^2"].estimate.mean == pytest.approx(r.square().mean().item())
