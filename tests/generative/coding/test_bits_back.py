"""Bits-back coding: exact chains are coded at exactly -log2 p(x), and every bit comes back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from toy_chains import Autoregression, Correlated, LinearGaussian, Network

from fkdrift.errors import BadParameter, StarvedStack
from fkdrift.generative.coding.bits_back import BitsBack, batches, chain_of, codec_for, survey
from fkdrift.generative.coding.codec import Grid
from fkdrift.generative.coding.stack import Stack, random_words

STEP = 2.0**-6
EXACT = {"latent": LinearGaussian(), "chain": Autoregression(), "plain": Correlated(LinearGaussian())}


def coder_of(model, symbols, grid) -> BitsBack:
    chain = chain_of(model.double())
    return BitsBack(chain, survey(chain, symbols if grid is None else grid.values(symbols)), grid)


def draw(n: int) -> np.ndarray:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return np.rint(EXACT["latent"].exact().sample((n,)).numpy() / STEP).astype(np.int32)


@pytest.mark.parametrize("name", EXACT)
def test_exact_models_are_coded_at_the_likelihood(name):
    grid = Grid(STEP, -2000, 2000)
    model = EXACT[name]
    k = draw(4000)[:, : 4 if name == "chain" else 5]
    coder = coder_of(model, k, grid)
    stack = Stack(random_words(4000, seed=2))
    before = stack.words
    coder.push(stack, k)
    net = stack.n_bits - 32 * 4000
    exact = EXACT["latent"].exact() if name == "plain" else model.exact()
    likelihood = -exact.log_prob(torch.from_numpy(grid.values(k))).sum().item() / math.log(2) - k.size * math.log2(STEP)
    assert net == pytest.approx(likelihood, rel=6e-4)
    assert np.array_equal(coder.pop(stack, len(k)), k)
    assert np.array_equal(stack.words, before)


@pytest.mark.parametrize("counts", [1, 16])
def test_the_net_rate_is_the_sampled_bound(counts):
    model = Network(counts=counts).double()
    x = model.draw(3000)
    coder = coder_of(model, x.numpy().astype(np.int32), None)
    stack = Stack(random_words(4000, seed=2))
    coder.push(stack, x.numpy().astype(np.int32))
    net = (stack.n_bits - 32 * 4000) / len(x)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(7)
        q = model.posterior(1, x)
        z = q.sample()
        log_ratio = (q.log_prob(z) - model.prior(len(x)).log_prob(z)).sum(1) - model.generative(1, z).log_prob(x).sum(1)
    bound, error = log_ratio.mean().item() / math.log(2), log_ratio.std().item() / math.log(2) / len(x) ** 0.5
    assert error < 0.01 * bound
    assert abs(net - bound) < 4 * error + 0.002 * bound


def test_a_starved_chain_is_an_error():
    model = Network().double()
    k = model.draw(100).numpy().astype(np.int32)
    with pytest.raises(StarvedStack):
        coder_of(model, k, None).push(Stack(random_words(1, seed=0)), k)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 63, 64, 127, 128, 200])
def test_batches_of_any_number(n):
    assert sum(batches(n)) == n
    model = Network().double()
    k = model.draw(n).numpy().astype(np.int32)
    coder = coder_of(model, k, None)
    stack = Stack(random_words(4000, seed=2))
    done: list[int] = []
    coder.push(stack, k, done.append)
    assert sum(done) == n
    assert np.array_equal(coder.pop(stack, n).reshape(k.shape), k)
    assert np.array_equal(stack.words, random_words(4000, seed=2))


def test_one_thread_for_coding_and_the_caller_s_number_after():
    torch.set_num_threads(2)
    try:
        k = Network().draw(3).numpy().astype(np.int32)
        coder_of(Network(), k, None).push(Stack(random_words(400, seed=2)), k)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_what_cannot_be_coded_is_refused():
    with pytest.raises(BadParameter, match="Linear is not a chain"):
        chain_of(torch.nn.Linear(2, 2))
    with pytest.raises(BadParameter, match="give the step"):
        codec_for(torch.distributions.Normal(torch.zeros(1, 2), 1.0), None)
    with pytest.raises(BadParameter, match="leave the step out"):
        codec_for(torch.distributions.Bernoulli(torch.full((1, 2), 0.5)), Grid(0.1, 0, 1))
    with pytest.raises(BadParameter, match="no codec for Gumbel"):
        codec_for(torch.distributions.Gumbel(torch.zeros(1, 2), 1.0), None)
    model = Network().double()
    with torch.no_grad():
        model.encoder[0].bias[0] = math.nan
    with pytest.raises(BadParameter, match="not finite"):
        survey(model, np.zeros((3, 20)))
