"""Push and pop: distributions that write arrays of symbols to a stack of bits and read them back.

Continuous values live on a grid, z = step * k with k a whole number, and a Gaussian gives k the mass of
[k - 1/2, k + 1/2] * step.  Probabilities are whole multiples of 2^-24 and never 0, so that a grid of n bins takes
n 2^-24 of the mass away from the bins that deserve it: `Grid` refuses n 2^-24 > 2^-7, and a posterior, whose stray
samples cost most, is confined to its own neighbourhood.  The step has to resolve the Gaussians that the grid carries:
`Grid.resolve` makes it at most a third of the narrowest.

Coding is invertible only if both directions see the same numbers to the last bit.  Parameters of a distribution are
therefore rounded to single precision here: two double-precision results that differ in their last digits, as different
machines may give, become the same number (except once in some 10^8).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fkdrift.errors import BadParameter
from fkdrift.generative.coding.stack import Numbers, Stack, Symbols

PRECISION = 24
MOST_BINS, MOST_LOCAL_BINS = 1 << 17, 1 << 13


class Codec(Protocol):
    """A distribution over arrays of symbols that can be pushed and popped."""

    def push(self, stack: Stack, symbols: Symbols) -> None:
        """Write the symbols: adds -log2 p(symbols) bits."""

    def pop(self, stack: Stack) -> Symbols:
        """Read symbols: takes -log2 p(symbols) bits away; the inverse of push."""


@dataclass(frozen=True)
class Grid:
    """The values step * k with low <= k <= high.

    Args:
        step: distance of neighbouring values, in the units of what is coded: a number, or one for each component.
        low, high: first and last k.

    Raises:
        BadParameter: a step is not a positive number, or there are so many bins that the 24-bit precision of
            the coder is lost on empty ones.

    Example:
        >>> Grid.resolve(np.array([0.02, 1.0]), half_width=8.0).step      # for posteriors of these widths
        array([0.00390625, 0.25      ])
    """

    step: Numbers | float
    low: int
    high: int

    def __post_init__(self) -> None:
        step = np.asarray(self.step)
        if not (np.isfinite(step).all() and (step > 0).all()):
            raise BadParameter(f"the step of a grid is {self.step}: it has to be a positive number")
        if self.low >= self.high:
            raise BadParameter(f"a grid from {self.low} to {self.high} has fewer than two values")
        if self.n_bins > MOST_BINS:
            raise BadParameter(
                f"a grid of {self.n_bins} bins of {step.min():.3g} wastes {self.n_bins / 2**PRECISION:.2g} of the "
                f"probability on empty bins: at most {MOST_BINS} bins are allowed, so use a larger step"
            )

    @property
    def n_bins(self) -> int:
        """Number of values."""
        return self.high - self.low + 1

    @classmethod
    def resolve(cls, narrowest: Numbers, half_width: float) -> Grid:
        """A grid that holds [-half_width, half_width], with the largest powers of 2 up to narrowest / 3 as steps.

        Args:
            narrowest: (dim,) smallest standard deviation that each component has to resolve.
            half_width: in the units of what is coded.

        Raises:
            BadParameter: so fine a grid of that width has too many bins.
        """
        if not (np.isfinite(narrowest).all() and (narrowest > 0).all()):
            raise BadParameter(
                f"the narrowest posterior has a standard deviation of {narrowest.min()}: it has to be positive"
            )
        step = np.exp2(np.minimum(-2, np.floor(np.log2(narrowest / 3))))
        high = math.ceil(half_width / step.min(initial=0.25))
        try:
            return cls(step, -high, high)
        except BadParameter as error:
            raise BadParameter(
                f"the narrowest posterior has a standard deviation of {narrowest.min():.3g}, too narrow for the coder "
                f"({error}): bound the encoder's widths from below"
            ) from None

    def values(self, symbols: Symbols) -> Numbers:
        """step * k."""
        return np.asarray(symbols * self.step, np.float64)


@dataclass(frozen=True)
class GaussianCodec:
    """Independent Gaussians on a grid.

    Args:
        mean, std: (..., dim) of one shape, which is the shape of the symbols.
        grid: where the values are.
        local: give probability to values within 8 standard deviations only (of the widest).  What a popped
            posterior leaks to the rest of the grid would be rare, and expensive: data decoded from such a latent are
            unlikely in the extreme.  A distribution that is used for pushing has to cover the grid.

    Raises:
        BadParameter: a mean is not finite, or a standard deviation is not positive.
    """

    mean: Numbers
    std: Numbers
    grid: Grid
    local: bool = False

    def __post_init__(self) -> None:
        _need(np.isfinite(self.mean).all(), "a Gaussian has a mean that is not finite")
        _need(np.isfinite(self.std).all() and (self.std > 0).all(), "a Gaussian has a width that is not positive")

    def push(self, stack: Stack, symbols: Symbols) -> None:
        mean, std, centre, low, high = self._in_steps()
        shifted = symbols.ravel() - centre
        _need_range(shifted, low, high)
        stack.push(shifted, ("QuantizedGaussian", low, high), mean, std)

    def pop(self, stack: Stack) -> Symbols:
        mean, std, centre, low, high = self._in_steps()
        symbols = stack.pop(("QuantizedGaussian", low, high), mean, std)
        return (symbols + centre).reshape(self.mean.shape)

    def _in_steps(self) -> tuple[Numbers, Numbers, Symbols, int, int]:
        """Mean from the centre of the window and width, in steps; the centre, and the window."""
        mean = _rounded(self.mean / self.grid.step)
        std = _rounded(np.broadcast_to(self.std / self.grid.step, self.mean.shape))
        if not self.local:
            return mean, std, np.zeros(mean.shape, np.int32), self.grid.low, self.grid.high
        reach = min(math.ceil(8 * std.max(initial=1.0)), MOST_LOCAL_BINS // 2, (self.grid.n_bins - 1) // 2)
        centre = np.clip(np.rint(mean), self.grid.low + reach, self.grid.high - reach)
        return mean - centre, std, centre.astype(np.int32), -reach, reach


@dataclass(frozen=True)
class TriangularCodec:
    """Gaussians with a covariance L L^T: component i is coded given those before it,

        z_i = mean_i + sum_{j < i} L_ij e_j + L_ii e_i,      e_j = standard normal, known from z_1 ... z_j.

    Args:
        mean: (batch, dim).
        cholesky: L, lower triangular, (batch, dim, dim).
        grid: where the values are; one step for all components, or one for each.
        local: as for GaussianCodec.
    """

    mean: Numbers
    cholesky: Numbers
    grid: Grid
    local: bool = False

    def push(self, stack: Stack, symbols: Symbols) -> None:
        values, e = self.grid.values(symbols), np.zeros(self.mean.shape)
        codecs = [self._component(i, e, values) for i in range(self.mean.shape[-1])]
        for i in reversed(range(len(codecs))):
            codecs[i].push(stack, symbols[:, i])

    def pop(self, stack: Stack) -> Symbols:
        values, e = np.zeros(self.mean.shape), np.zeros(self.mean.shape)
        symbols = np.zeros(self.mean.shape, np.int32)
        for i in range(self.mean.shape[-1]):
            symbols[:, i] = self._component(i, e, values).pop(stack)
            values[:, i] = symbols[:, i] * self._step(i)
        return symbols

    def _component(self, i: int, e: Numbers, values: Numbers) -> GaussianCodec:
        """The codec of component i given those before it; fills in e_{i-1}."""
        L = self.cholesky
        if i:
            e[:, i - 1] = (values[:, i - 1] - self._conditional(i - 1, e)) / L[:, i - 1, i - 1]
        grid = Grid(self._step(i), self.grid.low, self.grid.high)
        return GaussianCodec(self._conditional(i, e), L[:, i, i], grid, self.local)

    def _conditional(self, i: int, e: Numbers) -> Numbers:
        """Mean of component i given those before it."""
        return self.mean[:, i] + (self.cholesky[:, i, :i] * e[:, :i]).sum(-1)

    def _step(self, i: int) -> float:
        return float(np.broadcast_to(self.grid.step, self.mean.shape[-1:])[i])


@dataclass(frozen=True)
class UniformCodec:
    """Independent uniform numbers in [low, high) on a grid.

    Args:
        low, high: of one shape, which is the shape of the symbols; whole multiples of the grid's step.
        grid: where the values are.
    """

    low: Numbers
    high: Numbers
    grid: Grid

    def push(self, stack: Stack, symbols: Symbols) -> None:
        first, n = self._in_steps()
        shifted = symbols.ravel() - first
        _need(((shifted >= 0) & (shifted < n)).all(), "a value is outside the range of a uniform number")
        stack.push(shifted, ("Uniform",), n)

    def pop(self, stack: Stack) -> Symbols:
        first, n = self._in_steps()
        return (stack.pop(("Uniform",), n) + first).reshape(self.low.shape)

    def _in_steps(self) -> tuple[Symbols, Symbols]:
        """The first symbol of each, and how many there are."""
        first, end = (np.rint(bound / self.grid.step).astype(np.int32).ravel() for bound in (self.low, self.high))
        return first, end - first


@dataclass(frozen=True)
class LaplaceCodec:
    """Independent levels 0 ... n with the masses of Laplace densities in bins of width 1, see `DiscreteLaplace`.

    Args:
        n: the largest level.
        loc, scale: of one shape, which is that of the symbols.

    Raises:
        BadParameter: a place is not finite, or a scale is not positive.
    """

    n: int
    loc: Numbers
    scale: Numbers

    def __post_init__(self) -> None:
        good = np.isfinite(self.loc).all() and np.isfinite(self.scale).all() and (self.scale > 0).all()
        _need(good, "a Laplace density is not finite")

    def push(self, stack: Stack, symbols: Symbols) -> None:
        _need_range(symbols, 0, self.n)
        stack.push(symbols.ravel(), ("QuantizedLaplace", 0, self.n), _rounded(self.loc), _rounded(self.scale))

    def pop(self, stack: Stack) -> Symbols:
        found = stack.pop(("QuantizedLaplace", 0, self.n), _rounded(self.loc), _rounded(self.scale))
        return found.reshape(self.loc.shape)


@dataclass(frozen=True)
class NearestCodec:
    """Symbols that are known: they cost nothing.

    Args:
        symbols: what they are.
    """

    symbols: Symbols

    def push(self, stack: Stack, symbols: Symbols) -> None:
        _need(np.array_equal(symbols, self.symbols), "data are not those nearest to their latents")

    def pop(self, stack: Stack) -> Symbols:
        return self.symbols


@dataclass(frozen=True)
class BernoulliCodec:
    """Independent bits.

    Args:
        probability: of a 1; its shape is that of the symbols.

    Raises:
        BadParameter: a probability is outside [0, 1].
    """

    probability: Numbers

    def __post_init__(self) -> None:
        _need(((self.probability >= 0) & (self.probability <= 1)).all(), "a probability is not between 0 and 1")

    def push(self, stack: Stack, symbols: Symbols) -> None:
        _need_range(symbols, 0, 1)
        stack.push(symbols.ravel(), ("Bernoulli",), _rounded(self.probability))

    def pop(self, stack: Stack) -> Symbols:
        return stack.pop(("Bernoulli",), _rounded(self.probability)).reshape(self.probability.shape)


@dataclass(frozen=True)
class CategoricalCodec:
    """Independent symbols 0 ... K - 1, each with a table of its own.

    Args:
        probabilities: (..., K), each row adding up to 1; the shape of the symbols is (...).

    Raises:
        BadParameter: a row is not a distribution.
    """

    probabilities: Numbers

    def __post_init__(self) -> None:
        total = self.probabilities.sum(-1)
        good = np.isfinite(total).all() and (self.probabilities >= 0).all() and (abs(total - 1) < 1e-4).all()
        _need(good, "the probabilities of a symbol are not a distribution")

    def push(self, stack: Stack, symbols: Symbols) -> None:
        _need_range(symbols, 0, self.probabilities.shape[-1] - 1)
        stack.push(symbols.ravel(), ("Categorical",), self._table())

    def pop(self, stack: Stack) -> Symbols:
        return stack.pop(("Categorical",), self._table()).reshape(self.probabilities.shape[:-1])

    def _table(self) -> Numbers:
        return _rounded(self.probabilities).reshape(-1, self.probabilities.shape[-1])


def _rounded(values: Numbers) -> Numbers:
    """Flat, and rounded to single precision."""
    flat = np.ascontiguousarray(values, np.float64)
    shape = flat.shape if flat.ndim < 2 else (-1,)
    return flat.astype(np.float32).astype(np.float64).reshape(shape)


def _need(condition: bool | np.bool_, message: str) -> None:
    if not condition:
        raise BadParameter(f"{message}: the model cannot be used to code these data")


def _need_range(symbols: Symbols, low: int, high: int) -> None:
    if symbols.size and (symbols.min() < low or symbols.max() > high):
        raise BadParameter(
            f"data from {symbols.min()} to {symbols.max()}, but the model gives probabilities to {low} ... {high} only"
        )
