"""Codecs: what is popped was pushed, at the cost that the distribution says, and nothing wrong passes for data."""

from __future__ import annotations

import numpy as np
import pytest

from fkdrift.errors import BadParameter, CorruptStream, StarvedStack
from fkdrift.generative.coding.codec import (
    MOST_BINS,
    BernoulliCodec,
    CategoricalCodec,
    GaussianCodec,
    Grid,
    TriangularCodec,
)
from fkdrift.generative.coding.stack import Stack, random_words

RNG = np.random.default_rng(0)
N = 2000
MEAN, STD = RNG.normal(size=(N, 3)), RNG.uniform(0.1, 1.0, size=(N, 3))
CHOLESKY = np.tril(0.3 * RNG.normal(size=(N, 3, 3)), -1) + STD[..., None] * np.eye(3)
GRID = Grid.resolve(np.array([0.1, 0.1, 0.1]), 16.0)
TABLE = RNG.dirichlet(np.ones(17), N)
CODECS = {
    "gaussian": GaussianCodec(MEAN, STD, GRID),
    "local": GaussianCodec(MEAN, STD, GRID, local=True),
    "one step each": GaussianCodec(MEAN, STD, Grid(np.array([0.1, 0.02, 0.05]), -1000, 1000)),
    "triangular": TriangularCodec(MEAN, CHOLESKY, GRID),
    "triangular local": TriangularCodec(MEAN, CHOLESKY, GRID, local=True),
    "bernoulli": BernoulliCodec(RNG.uniform(size=(N, 2))),
    "sure": BernoulliCodec(np.repeat([0.0, 1.0], N)),
    "categorical": CategoricalCodec(TABLE),
    "several axes": CategoricalCodec(TABLE.reshape(-1, 5, 17)),
}


def a_stack(n: int = 10_000) -> Stack:
    return Stack(random_words(n, seed=1))


@pytest.mark.parametrize("name", CODECS)
def test_a_popped_sample_is_put_back(name):
    stack, codec = a_stack(), CODECS[name]
    before = stack.words
    symbols = codec.pop(stack)
    again = codec.pop(stack)
    assert symbols.dtype == np.int32
    codec.push(stack, again)
    codec.push(stack, symbols)
    assert np.array_equal(stack.words, before)


@pytest.mark.parametrize("name", CODECS)
def test_a_pushed_message_comes_back(name):
    codec = CODECS[name]
    symbols = codec.pop(a_stack())
    stack = Stack(random_words(3, seed=5))
    codec.push(stack, symbols)
    assert np.array_equal(codec.pop(stack), symbols)
    assert np.array_equal(stack.words, random_words(3, seed=5))


def bits(codec, symbols) -> int:
    stack = a_stack(10)
    before = stack.n_bits
    codec.push(stack, symbols)
    return stack.n_bits - before


def log_normal(x, mean, std):
    return -0.5 * ((x - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)


def test_bits_are_the_log_probability():
    p = CODECS["bernoulli"].probability
    x = (RNG.uniform(size=p.shape) < p).astype(np.int32)
    assert bits(CODECS["bernoulli"], x) == pytest.approx(-np.log2(np.where(x, p, 1 - p)).sum(), abs=2, rel=1e-6)
    k = TABLE.argmax(-1).astype(np.int32)
    assert bits(CODECS["categorical"], k) == pytest.approx(-np.log2(TABLE.max(-1)).sum(), abs=2, rel=1e-5)


def test_gaussian_bits_are_the_log_density_on_the_grid():
    step = 2.0**-7
    grid = Grid(step, -2048, 2048)
    symbols = np.rint((MEAN + STD * RNG.normal(size=MEAN.shape)) / step).astype(np.int32)
    expected = -(log_normal(symbols * step, MEAN, STD) + np.log(step)).sum() / np.log(2)
    assert bits(GaussianCodec(MEAN, STD, grid), symbols) == pytest.approx(expected, rel=1e-3)


def test_triangular_bits_are_those_of_the_joint_density():
    step = 2.0**-7
    e = RNG.normal(size=MEAN.shape)
    symbols = np.rint((MEAN + (CHOLESKY @ e[..., None])[..., 0]) / step).astype(np.int32)
    solved = np.linalg.solve(CHOLESKY, (symbols * step - MEAN)[..., None])[..., 0]
    log_p = (-0.5 * solved**2 - 0.5 * np.log(2 * np.pi) - np.log(STD) + np.log(step)).sum()
    codec = TriangularCodec(MEAN, CHOLESKY, Grid(step, -2048, 2048))
    assert bits(codec, symbols) == pytest.approx(-log_p / np.log(2), rel=1e-3)


def test_popped_latents_have_the_law_of_the_posterior():
    codec = GaussianCodec(np.full((20_000, 3), 1.3), np.full((20_000, 3), 0.4), GRID, local=True)
    z = GRID.values(codec.pop(a_stack(20_000)))[:, 0]
    assert abs(z.mean() - 1.3) < 4 * 0.4 / 20_000**0.5
    assert abs(z.std() - np.hypot(0.4, GRID.step[0] / 12**0.5)) < 4 * 0.4 / 40_000**0.5


def test_means_outside_the_grid_cost_bits_and_lose_nothing():
    codec = GaussianCodec(np.array([[100.0, -100.0, 0.0]]), np.full((1, 3), 0.5), GRID, local=True)
    stack = a_stack()
    symbols = codec.pop(stack)
    assert (abs(symbols) <= GRID.high).all()
    codec.push(stack, symbols)
    assert np.array_equal(stack.words, random_words(10_000, seed=1))


def test_a_starved_stack_is_an_error():
    with pytest.raises(StarvedStack, match="more initial words"):
        CODECS["local"].pop(a_stack(100))
    with pytest.raises(StarvedStack):
        BernoulliCodec(np.full(3, 0.5)).pop(Stack(np.empty(0, np.uint32)))


def test_untouched_words_are_untouched():
    stack = a_stack()
    codec = BernoulliCodec(np.full(32_000, 0.5))
    symbols = codec.pop(stack)
    assert 8990 <= stack.untouched <= 9000
    codec.push(stack, symbols)
    codec.pop(stack)
    assert np.array_equal(stack.words[: stack.untouched], random_words(10_000, seed=1)[: stack.untouched])


def test_a_zero_word_on_top_is_refused():
    with pytest.raises(CorruptStream, match="zero word"):
        Stack(np.array([1, 0], np.uint32))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_means_that_are_not_finite_are_refused(bad):
    with pytest.raises(BadParameter, match="mean that is not finite"):
        GaussianCodec(np.array([[0.0, bad]]), np.ones((1, 2)), Grid(0.1, -10, 10))


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan])
def test_widths_that_are_not_positive_are_refused(bad):
    with pytest.raises(BadParameter, match="width that is not positive"):
        GaussianCodec(np.zeros((1, 2)), np.array([[1.0, bad]]), Grid(0.1, -10, 10))


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan])
def test_probabilities_outside_the_unit_interval_are_refused(bad):
    with pytest.raises(BadParameter, match="between 0 and 1"):
        BernoulliCodec(np.array([bad]))


@pytest.mark.parametrize("row", [[0.5, 0.6], [1.2, -0.2], [np.nan, 1.0]])
def test_tables_that_are_not_distributions_are_refused(row):
    with pytest.raises(BadParameter, match="not a distribution"):
        CategoricalCodec(np.array([row]))


@pytest.mark.parametrize(("name", "bad"), [("bernoulli", 2), ("categorical", 17), ("gaussian", 10**6)])
def test_symbols_outside_the_range_are_refused(name, bad):
    symbols = CODECS[name].pop(a_stack())
    symbols[0] = bad
    with pytest.raises(BadParameter, match=rf"to {bad}, but the model gives probabilities to"):
        CODECS[name].push(a_stack(), symbols)


def test_the_window_of_the_grid():
    assert Grid(0.5, 0, MOST_BINS - 1).n_bins == MOST_BINS
    with pytest.raises(BadParameter, match="at most 131072 bins are allowed, so use a larger step"):
        Grid(0.5, 0, MOST_BINS)
    for step in (0.0, -1.0, np.nan):
        with pytest.raises(BadParameter, match="has to be a positive number"):
            Grid(step, -4, 4)
    with pytest.raises(BadParameter, match="fewer than two values"):
        Grid(1.0, 3, 3)


def test_a_grid_resolves_what_it_was_made_for():
    narrowest = np.array([1e-3, 0.02, 0.3, 1.0, 50.0])
    grid = Grid.resolve(narrowest, 8.0)
    assert (3 * grid.step <= narrowest).all()
    assert (grid.step[:3] * 6 > narrowest[:3]).all()
    assert (np.log2(grid.step) == np.rint(np.log2(grid.step))).all()
    assert (grid.high * grid.step >= 8.0).all()
    with pytest.raises(BadParameter, match=r"too narrow for the coder .* bound the encoder's widths from below"):
        Grid.resolve(np.array([1e-5, 1.0]), 8.0)
    with pytest.raises(BadParameter, match="has to be positive"):
        Grid.resolve(np.array([0.0, 1.0]), 8.0)


def test_parameters_that_differ_in_the_last_digit_code_alike():
    a, b = GaussianCodec(MEAN, STD, GRID), GaussianCodec(MEAN * (1 + 2e-16), STD * (1 - 1e-16), GRID)
    stack = a_stack()
    symbols = a.pop(stack)
    b.push(stack, symbols)
    assert np.array_equal(stack.words, random_words(10_000, seed=1))
