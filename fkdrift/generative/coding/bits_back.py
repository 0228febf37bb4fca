"""Bits-back coding: data compressed with a model that has latent variables, at the rate of its ELBO.

To encode x with a chain x = z_0 -> z_1 -> ... -> z_T, each latent is drawn from the posterior by popping bits that are
already on the stack, and then everything is pushed with the generative model:

    for t = 1 ... T:   pop z_t with q(z_t | z_{t-1}),   push z_{t-1} with p(z_{t-1} | z_t)
    push z_T with p(z_T)

so that the stack grows by  log2 q(z | x) - log2 p(x, z)  bits, -ELBO / ln 2 on average.  Decoding runs the lines
backwards and gives back the popped bits with the data: nothing is lost, and one datum's bits are the next one's
randomness.  T = 1 is a VAE, T = 0 a density without latents.

A stack is coded in batches that grow up to a limit: a large batch makes the networks fast, and the small ones in the
beginning keep the bits that the first latents need few.

Both directions have to evaluate the networks to the last bit alike.  They run the same batches in the same shapes on
one thread of the CPU in double precision, and `codec` rounds what comes out to single precision.

References: Townsend, Bird and Barber, ICLR 2019; Kingma, Abbeel and Ho, Bit-Swap, ICML 2019.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, MultivariateNormal, Normal, Uniform

from fkdrift.densities.kernels import BetaBinomial, DiscreteLaplace, expectation
from fkdrift.errors import BadParameter
from fkdrift.generative.chain import Chain
from fkdrift.generative.coding.codec import (
    BernoulliCodec,
    CategoricalCodec,
    Codec,
    GaussianCodec,
    Grid,
    LaplaceCodec,
    NearestCodec,
    TriangularCodec,
    UniformCodec,
)
from fkdrift.generative.coding.stack import Numbers, Stack, Symbols

LARGEST_BATCH = 128
N_TESTED = 16
"""Data in the self-test of the arithmetic."""
SURVEYED = 256
"""How many data decide on the grids of the latents."""


@dataclass(frozen=True)
class BitsBack:
    """Push data to a stack with a chain, and pop them.

    Args:
        chain: the model, in double precision on the CPU.
        latents: the grid of z_1 ... z_T.
        data: the grid of continuous data; None for discrete data.

    Example:
        >>> from fkdrift.generative.coding.stack import random_words
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> model = fk.generative.principal_components(torch.from_numpy(x), n_latents=2).vae()
        >>> coder = BitsBack(model, survey(model, x), Grid(0.01, -500, 500))
        >>> stack, k = Stack(random_words(100, seed=0)), np.round(x / 0.01).astype(np.int32)
        >>> coder.push(stack, k)
        >>> bool((coder.pop(stack, len(k)) == k).all())
        True
    """

    chain: Chain
    latents: tuple[Grid, ...]
    data: Grid | None

    def push(self, stack: Stack, symbols: Symbols, advance: Callable[[int], None] | None = None) -> None:
        """Encode symbols (n, ...); `advance` is told how many were done, batch by batch."""
        start = 0
        with _exact():
            for n in batches(len(symbols)):
                self._push_batch(stack, symbols[start : start + n])
                start += n
                if advance is not None:
                    advance(n)

    def pop(self, stack: Stack, n: int, advance: Callable[[int], None] | None = None) -> Symbols:
        """Decode n data; what is left on the stack is what was there before they were pushed."""
        parts = []
        with _exact():
            for size in reversed(batches(n)):
                parts.append(self._pop_batch(stack, size))
                if advance is not None:
                    advance(size)
        return np.concatenate(parts[::-1]) if parts else np.empty(0, np.int32)

    def _push_batch(self, stack: Stack, k: Symbols) -> None:
        """A batch is encoded as one datum with many components."""
        for t in range(1, self.chain.n_steps + 1):
            latent = self._posterior(t, k).pop(stack)
            codec_for(self.chain.generative(t, self._values(t, latent)), self._grid(t - 1)).push(stack, k)
            k = latent
        codec_for(self.chain.prior(len(k)), self._grid(self.chain.n_steps)).push(stack, k)

    def _pop_batch(self, stack: Stack, n: int) -> Symbols:
        k = codec_for(self.chain.prior(n), self._grid(self.chain.n_steps)).pop(stack)
        for t in range(self.chain.n_steps, 0, -1):
            below = codec_for(self.chain.generative(t, self._values(t, k)), self._grid(t - 1)).pop(stack)
            self._posterior(t, below).push(stack, k)
            k = below
        return k

    def _posterior(self, t: int, below: Symbols) -> Codec:
        return codec_for(self.chain.posterior(t, self._values(t - 1, below)), self.latents[t - 1], local=True)

    def _grid(self, t: int) -> Grid | None:
        return self.data if t == 0 else self.latents[t - 1]

    def _values(self, t: int, k: Symbols) -> Tensor:
        grid = self._grid(t)
        return torch.from_numpy(k.astype(np.float64) if grid is None else grid.values(k))


class Nearest(Distribution):
    """The whole numbers nearest to y (batch, ...), with certainty."""

    def __init__(self, y: Tensor) -> None:
        self.y = y
        super().__init__(y.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return (self.y + 0.5).floor()


class Dequantised:
    """Whole numbers x in a chain of continuous ones, with y = x + u as one more latent, u uniform in a unit cube.

        q(y | x) = 1 within the cube around x,      p(x | y) = 1 for the nearest x,      then the chain, as of y

    Its rate is the chain's dithered bound, -log p(x + u): popping u gets back the bits of where in the cube y is.

    Args:
        chain: of continuous data.

    Reference: Ho, Lohn and Abbeel, Compression with flows via local bits-back coding, NeurIPS 2019.
    """

    def __init__(self, chain: Chain) -> None:
        self.chain, self.n_steps = chain, chain.n_steps + 1

    def posterior(self, t: int, z: Tensor) -> Distribution:
        return Uniform(z - 0.5, z + 0.5, validate_args=False) if t == 1 else self.chain.posterior(t - 1, z)

    def generative(self, t: int, z: Tensor) -> Distribution:
        return Nearest(z) if t == 1 else self.chain.generative(t - 1, z)

    def prior(self, n: int) -> Distribution:
        return self.chain.prior(n)


def chain_of(model: nn.Module) -> Chain:
    """A model as a chain; one of dithered data as a chain of whole numbers.

    Raises:
        BadParameter: it has not the methods of one.
    """
    if getattr(model, "class_shares", None) is not None:
        raise BadParameter("a model that is told the classes of data cannot code: train one without labels")
    if all(hasattr(model, name) for name in ("n_steps", "posterior", "generative", "prior")):
        chain = cast(Chain, model)
        return Dequantised(chain) if getattr(model, "dither", 0.0) else chain
    raise BadParameter(
        f"a {type(model).__name__} is not a chain of latent variables, and cannot code data: train a vae, a markov or "
        "a diffusion model"
    )


def shape_of_data(chain: Chain) -> tuple[int, ...]:
    """The shape of one datum of a chain, found by following it down from the mean of its prior."""
    with _exact():
        distribution = chain.prior(1)
        for t in range(chain.n_steps, 0, -1):
            distribution = chain.generative(t, distribution.mean)
    return tuple((distribution.batch_shape + distribution.event_shape)[1:])


def self_test(chain: Chain) -> str:
    """A digest of what the networks of a chain answer to fixed latents, rounded as for coding, hexadecimal.

    Two machines on which it is the same do the same arithmetic, as far as one can tell beforehand.
    """
    digest = hashlib.blake2b(digest_size=8)
    with _exact():
        z = chain.prior(N_TESTED).mean
        z = z + torch.linspace(-1, 1, z.numel(), dtype=z.dtype).reshape(z.shape)
        for t in range(chain.n_steps, 0, -1):
            below = expectation(chain.generative(t, z))
            for numbers in (below, *_moments(chain.posterior(t, below))):
                digest.update(_array(numbers).astype(np.float32).tobytes())
            z = below
    return digest.hexdigest()


def batches(n: int) -> list[int]:
    """Sizes 1, 1, 1, 2, 2, 3, ... up to the largest, in the order of encoding, adding up to n.

    A batch is at most a third of what was coded before it: the bits for its latents are there already.
    """
    sizes: list[int] = []
    done = 0
    while done < n:
        sizes.append(min(1 + done // 3, LARGEST_BATCH, n - done))
        done += sizes[-1]
    return sizes


def survey(chain: Chain, x: Numbers) -> tuple[Grid, ...]:
    """Grids for z_1 ... z_T that hold the posteriors of data x (n, ...), and resolve both them and p(z_t | z_{t+1}).

    Each latent is taken at the mean of its posterior, for some of the data.

    Raises:
        BadParameter: a posterior is too narrow for the coder, or not finite.
    """
    grids: list[Grid] = []
    narrowest, reach = torch.empty(0), 0.0
    z = torch.from_numpy(np.ascontiguousarray(x[:: max(1, math.ceil(len(x) / SURVEYED))], np.float64))
    with _exact():
        for t in range(1, chain.n_steps + 1):
            q = chain.posterior(t, z)
            mean, std = _moments(q)
            if t > 1:
                _, back = _moments(chain.generative(t, mean))
                grids.append(Grid.resolve(_array(torch.minimum(narrowest, _narrowest(back))), reach))
            reach = float((mean.abs() + 8 * std).max()) if mean.numel() else 8.0
            if isinstance(q, Uniform) and x.size:
                reach = float(abs(x).max()) + 1  # every datum has a cube of its own
            if not math.isfinite(reach):
                raise BadParameter(f"the posterior of latent {t} is not finite: the model cannot code these data")
            narrowest, reach, z = _narrowest(std), max(8.0, reach), mean
    return (*grids, Grid.resolve(_array(narrowest), reach)) if chain.n_steps else ()


def _narrowest(std: Tensor) -> Tensor:
    """The least width of each component."""
    return std.amin(0) if len(std) else std.new_ones(std.shape[1:])


def codec_for(distribution: Distribution, grid: Grid | None, local: bool = False) -> Codec:
    """The codec of a distribution with independent components, or of a multivariate normal one.

    Args:
        distribution: of torch; Normal, MultivariateNormal, Bernoulli, Categorical, or any with `enumerate_support`,
            inside any number of Independent.
        grid: for continuous ones.
        local: for posteriors, see GaussianCodec.

    Raises:
        BadParameter: a continuous distribution without a grid, or one that cannot be coded.
    """
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    if isinstance(distribution, Normal | MultivariateNormal | Uniform):
        if grid is None:
            raise BadParameter("the model is one of continuous data: give the step to which they may be rounded")
        if isinstance(distribution, Uniform):
            return UniformCodec(_array(distribution.low), _array(distribution.high), grid)
        if isinstance(distribution, Normal):
            return GaussianCodec(_array(distribution.loc), _array(distribution.scale), grid, local)
        return TriangularCodec(_array(distribution.loc), _array(distribution.scale_tril), grid, local)
    if grid is not None:
        raise BadParameter("the model is one of discrete data, which are not rounded: leave the step out")
    if isinstance(distribution, DiscreteLaplace):
        return LaplaceCodec(distribution.n, _array(distribution.loc), _array(distribution.scale))
    if isinstance(distribution, Nearest):
        return NearestCodec(distribution.mean.numpy().astype(np.int32))
    if isinstance(distribution, Bernoulli):
        return BernoulliCodec(_array(distribution.probs))
    if isinstance(distribution, Categorical | BetaBinomial):
        return CategoricalCodec(_array(distribution.probs))
    if distribution.has_enumerate_support:
        return CategoricalCodec(_array(distribution.log_prob(distribution.enumerate_support()).exp().movedim(0, -1)))
    raise BadParameter(f"no codec for {type(distribution).__name__}: its components have to be Gaussian or discrete")


@contextlib.contextmanager
def _exact() -> Iterator[None]:
    """One thread and no gradients: the same numbers for the same batch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(threads)


def _moments(distribution: Distribution) -> tuple[Tensor, Tensor]:
    """Mean, and the widths of the conditional Gaussians that are coded."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    if isinstance(distribution, MultivariateNormal):
        return distribution.loc, distribution.scale_tril.diagonal(dim1=-2, dim2=-1)
    return distribution.mean, distribution.stddev


def _array(tensor: Tensor) -> Numbers:
    return tensor.double().numpy()
