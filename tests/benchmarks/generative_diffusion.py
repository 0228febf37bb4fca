"""Diffusion models and drifts from samples: rows of the generative benchmark.

python tests/benchmarks/generative.py --only ddpm-gaussian ddpm-ring score-drift
"""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "generative"))
sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from generative import Measured, at_most
from test_diffusion import exact_model, expected_bound, reverse_variance
from test_score_matching import E0, SYSTEM, cold, exact_energy, updates_until, well_samples

from fkdrift.generative import load_data, minibatch_adam
from fkdrift.generative.diagnostics import energy_distance
from fkdrift.generative.diffusion import DDPM, TimeNetwork, linear_schedule
from fkdrift.generative.reverse_diffusion import ancestral, multistep
from fkdrift.numerics.networks import seeded
from fkdrift.runs.learning import learn
from fkdrift.training.loop import fit
from fkdrift.training.score_matching import drift_from_samples


def gaussian() -> Iterator[Measured]:
    """Exact networks for N(0, 1/4) data: the gap to the entropy against its closed form."""
    entropy = 0.5 * math.log(2 * math.pi * math.e * 0.25)
    for T in (10, 100, 1000):
        model = exact_model(0.5, T, linear_schedule)
        best = reverse_variance(model, 0.5)
        last = model.cos[-1] ** 2 * 0.25 + model.sin[-1] ** 2
        prior = 0.5 * (last - 1 - last.log()).item()
        gaps, errors = [], []
        for variance in (best, model.b, model.b_tilde):
            model.use_variance(variance)
            ratio = best / variance
            gaps.append(expected_bound(model, 0.5) - entropy)
            errors.append(abs(gaps[-1] - prior - 0.5 * (ratio - 1 - ratio.log()).sum().item()))
        yield at_most(f"T = {T}: error of the gap, nats", max(errors), 1e-5)
        yield Measured("  gap: best, beta, beta-tilde", " ".join(f"{gap:.4f}" for gap in gaps), "", True)


def ring(n: int, generator: torch.Generator) -> Tensor:
    """Eight Gaussians of width 1/2 on a circle of radius 4."""
    angle = torch.randint(0, 8, (n,), generator=generator) * (math.pi / 4)
    return 4 * torch.stack([angle.cos(), angle.sin()], 1) + 0.5 * torch.randn(n, 2, generator=generator)


def ring_log_prob(x: Tensor) -> Tensor:
    angle = torch.arange(8) * (math.pi / 4)
    centres = 4 * torch.stack([angle.cos(), angle.sin()], 1)
    squares = (x[:, None] - centres).square().sum(-1)
    return torch.logsumexp(-squares / 0.5, 1) - math.log(8 * 2 * math.pi * 0.25)


def eight_gaussians() -> Iterator[Measured]:
    """The bound of a learned model above the exact entropy, with fresh data."""
    generator = torch.Generator().manual_seed(0)
    started = time.process_time()
    data, test = ring(200_000, generator), ring(20_000, generator)
    with seeded(0):
        network = TimeNetwork(2, (128, 128, 128), n_waves=3)
    model = DDPM(network, data, n_steps=300)
    method = minibatch_adam(model, model.free_energy, data, n_updates=3200, batch_size=512, learning_rate=4e-3)
    for _ in fit(method, torch.empty(0), n_updates=3200, generator=generator):
        pass
    model.use_best_variance(data[:20_000], generator)
    seconds = time.process_time() - started
    gap = model.bound(test, generator) + ring_log_prob(test).double()
    yield at_most("bound - entropy, nats", gap.mean().item(), 0.10)
    yield Measured("  its standard error", f"{gap.std().item() / len(gap) ** 0.5:.4f}", "", True)
    yield at_most("training, CPU seconds of one core", seconds, 60)


def score_drift() -> Iterator[Measured]:
    """A drift from 20,000 samples of the double well: its energy, and training that starts from it."""
    started = time.perf_counter()
    drift = drift_from_samples(well_samples(20_000), SYSTEM)
    seconds = time.perf_counter() - started
    yield at_most("relative excess of the energy", exact_energy(drift) / E0 - 1, 0.005)
    yield at_most("seconds", seconds, 20)
    walkers = well_samples(1024, seed=4)
    for excess in (5e-3, 2e-3, 1e-3):
        from_cold, from_warm = (
            updates_until(cold(), walkers, excess),
            updates_until(copy.deepcopy(drift), walkers, excess),
        )
        yield at_most(f"updates to {excess:g}, warm / cold", from_warm / from_cold, 0.5)
    with torch.no_grad():
        samples = well_samples(20_000)
        v = SYSTEM.rates(samples).drift + drift(samples)
        naive = float(np.mean((v.square().sum((-2, -1)) / 2 + SYSTEM.potential(samples)).numpy()))
    yield Measured("  mean over data / E0 (no bound)", f"{naive / E0:.4f}", "", True)


def samplers() -> Iterator[Measured]:
    """Digits by few evaluations of the network against the chain of 1,000 steps, by the energy distance."""
    learned = learn("diffusion", "digits", n_updates=2500, steps=1000, seed=0, progress=False)
    data, generator = torch.cat([learned.data.train, learned.data.test]), torch.Generator().manual_seed(0)
    noise = torch.randn(1500, learned.data.size, generator=generator)
    chain = energy_distance(ancestral(learned.model, 1500, generator).round(), data)
    yield Measured("the chain, 1,000 evaluations", str(chain), "", True)
    for n in (10, 20):
        few = energy_distance(multistep(learned.model, noise, n).round(), data)
        yield at_most(f"multistep flow, {n} evaluations", few.mean, chain.mean)
        yield Measured("  its standard error", f"{few.error:.2g}", "", True)
    data = load_data(ring(20_000, generator).numpy())
    points = learn("diffusion", data, n_updates=3000, width=128, steps=300, progress=False)
    fresh = ring(4000, generator)
    chain, few = (energy_distance(points.sample(4000, sampler=name), fresh) for name in ("chain", "multistep"))
    yield Measured("points on a ring: the chain, 300 evaluations", str(chain), "", True)
    yield at_most(f"multistep flow, 20 evaluations: {few}", few.mean, chain.mean + 3 * chain.error)


ROWS = {"ddpm-gaussian": gaussian, "ddpm-samplers": samplers, "ddpm-ring": eight_gaussians, "score-drift": score_drift}
