"""Chains whose steps have a width and a kernel each, and are fixed, learned, or held between the two."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import kl_divergence

from fkdrift.densities.kernels import FullGaussian
from fkdrift.generative.data.datasets import dataset
from fkdrift.generative.markov import fixed_kernel
from fkdrift.numerics.estimates import from_walkers
from fkdrift.runs.learning import learn
from fkdrift.runs.recipes.markov import RECIPE, MarkovSettings
from tests.systems import generator

DATA = dataset(torch.randn(200, 2, generator=generator()).double())
SMALL = {"latents": 2, "width": 8, "depth": 1, "dtype": "float64"}


def test_steps_of_their_own():
    settings = MarkovSettings(**SMALL, upper=(3, 1), upper_width=(5, 7), kernels=("full", "diagonal"))
    model = RECIPE.build(RECIPE.resolve(settings, DATA), DATA).double()
    assert [isinstance(kernel, FullGaussian) for kernel in model.encoders] == [False, True, False]
    assert [isinstance(kernel, FullGaussian) for kernel in model.decoders] == [False, True, False]
    assert [kernel.network.hidden[0].out_features for kernel in list(model.encoders)[1:]] == [5, 7]
    assert model.free_energy(DATA.test, generator()).shape == (40,)


def test_the_penalty_is_the_divergence_from_the_fixed_step():
    settings = RECIPE.resolve(MarkovSettings(**SMALL, upper=(2,), upper_width=(8,), decay=0.6, hold=3.0), DATA)
    model = RECIPE.build(settings, DATA).double()
    x = DATA.test[:1].expand(20_000, -1)
    with torch.no_grad():
        held = RECIPE.objective(model, settings, DATA)(x, generator()) - model.free_energy(x, generator())
        z = model.posterior(1, x).rsample()
        exact = kl_divergence(model.posterior(2, z), fixed_kernel(2, 0.6)(z))
    difference = from_walkers(held / 3 - exact)  # independent draws of z
    assert exact.mean() > 0.1
    assert abs(difference.deviation(0.0)) < 4


def test_the_weight_of_the_kl_rises():
    chain = RECIPE.resolve(MarkovSettings(**SMALL), DATA)
    assert [chain.at(progress).beta for progress in (0.0, 0.15, 0.3, 1.0)] == pytest.approx([0, 0.5, 1, 1])
    many = RECIPE.resolve(MarkovSettings(**SMALL, samples=2), DATA)
    assert RECIPE.resolve(many, DATA).at(0.0).beta == 1


def test_held_steps_stay_near_the_fixed_ones():
    options = {**SMALL, "upper": (2,), "upper_width": (8,), "n_updates": 100, "learning_rate": 0.03, "progress": False}
    away = []
    for hold in (0.01, 100.0):
        model = learn("markov", DATA, **options, decay=0.6, hold=hold, validation=0.0).model
        with torch.no_grad():
            z = model.posterior(1, DATA.train).mean
            away.append(kl_divergence(model.posterior(2, z), fixed_kernel(2, 0.6)(z)).mean())
    assert away[1] < 0.05
    assert away[0] > 10 * away[1]
