"""Conditional distributions: a network that gives the parameters of a normalised distribution.

    DiagonalGaussian     N(m(c), diag s(c)^2)                     encoders, decoders, steps of a chain
    FullGaussian         N(m(c), L(c) L(c)^T)                     L lower triangular, positive on its diagonal
    BernoulliDecoder     x_i in {0, 1}
    CategoricalDecoder   x_i in {0, ..., K - 1}, any probabilities
    BetaBinomialDecoder  x_i in {0, ..., K - 1}, binomial whose probability is beta distributed
    LaplaceDecoder       x_i in {0, ..., K - 1}, a Laplace density in bins of width 1: for many levels

A kernel is a module that maps a condition (batch, ...) to a torch distribution over events of one axis, so that
`log_prob` has shape (batch,), always: all components are summed, whatever their number.  Samples are drawn with a
generator, and only by `draw`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, MultivariateNormal, Normal

from fkdrift.errors import BadParameter

SOFT_LIMIT = 8.0
"""Logarithms of widths and of concentrations stay within +- this, smoothly."""
MOST_MULTIPLIED = 100
"""Ratios of probabilities whose product cannot overflow in double precision, given that limit."""


class BetaBinomial(Distribution):
    """Counts k = 0 ... n of a binomial whose probability is Beta(a, b) distributed.

        log p(k) = log C(n, k) + log B(k + a, n - k + b) - log B(a, b)

    Args:
        n: the largest count.
        a, b: (...), positive.

    Example:
        >>> BetaBinomial(4, torch.ones(1), torch.ones(1)).log_prob(torch.zeros(1)).exp()    # uniform
        tensor([0.2000])
    """

    has_enumerate_support = True

    def __init__(self, n: int, a: Tensor, b: Tensor) -> None:
        self.n, self.a, self.b = n, a, b
        super().__init__(a.shape, validate_args=False)

    def log_prob(self, k: Tensor) -> Tensor:
        choose = math.lgamma(self.n + 1) - torch.lgamma(k + 1) - torch.lgamma(self.n - k + 1)
        return choose + _log_beta(k + self.a, self.n - k + self.b) - _log_beta(self.a, self.b)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """0 ... n along a new first axis."""
        k = torch.arange(self.n + 1, dtype=self.a.dtype, device=self.a.device)
        k = k.reshape(-1, *(1,) * self.a.ndim)
        return k.expand(-1, *self.a.shape) if expand else k

    @property
    def probs(self) -> Tensor:
        """p(0) ... p(n) along a new last axis, by p(k + 1) / p(k) = (n - k) (k + a) / ((k + 1) (n - k - 1 + b))."""
        k = torch.arange(self.n, dtype=self.a.dtype, device=self.a.device)
        ratio = (k + self.a[..., None]) * ((self.n - k) / (k + 1)) / (self.n - 1 - k + self.b[..., None])
        if self.n > MOST_MULTIPLIED or self.a.dtype != torch.float64:
            return torch.nn.functional.pad(ratio.log().cumsum(-1), (1, 0)).softmax(-1)
        p = torch.nn.functional.pad(ratio.cumprod(-1), (1, 0), value=1.0)
        return p / p.sum(-1, keepdim=True)

    @property
    def mean(self) -> Tensor:
        return self.n * self.a / (self.a + self.b)

    @property
    def variance(self) -> Tensor:
        both = self.a + self.b
        return self.n * self.a * self.b * (both + self.n) / (both.square() * (both + 1))


class DiscreteLaplace(Distribution):
    """Levels k = 0 ... n with the mass of a Laplace density in bins of width 1, of which the outer two are open.

        p(k) = F(k + 1/2) - F(k - 1/2),   F(-1/2) = 0,   F(n + 1/2) = 1,   F the distribution function

    Args:
        n: the largest level.
        loc, scale: (...) of the density, in levels.

    Example:
        >>> DiscreteLaplace(255, torch.tensor([0.0]), torch.tensor([1.0])).log_prob(torch.tensor([0.0])).exp()
        tensor([0.6967])
    """

    def __init__(self, n: int, loc: Tensor, scale: Tensor) -> None:
        self.n, self.loc, self.scale = n, loc, scale
        super().__init__(loc.shape, validate_args=False)

    def log_prob(self, k: Tensor) -> Tensor:
        low = torch.where(k <= 0, -torch.inf, (k - 0.5 - self.loc) / self.scale)
        high = torch.where(k >= self.n, torch.inf, (k + 0.5 - self.loc) / self.scale)
        low, high = torch.where(low > 0, -high, low), torch.where(low > 0, -low, high)  # what lies above loc, mirrored
        beside = high - math.log(2) + torch.log1p(-torch.exp(low - high))
        across = -0.5 * (torch.expm1(-high.clamp_min(0)) + torch.expm1(low.clamp_max(0)))
        return torch.where(high <= 0, beside.clamp_max(0), across.clamp_min(torch.finfo(low.dtype).tiny).log())

    @property
    def mean(self) -> Tensor:
        return self.loc.clamp(0, self.n)

    @property
    def variance(self) -> Tensor:
        """Of the density in bins, as if there were no first and last one."""
        return 2 * self.scale.square() + 1 / 12


class DistributionKernel(nn.Module, ABC):
    """A kernel whose `forward` gives the distribution; see `fkdrift.densities.density.Kernel`."""

    @abstractmethod
    def forward(self, cond: Tensor) -> Distribution:
        """p( . | cond), with batch shape (batch,) and events of one axis."""

    def rsample(self, cond: Tensor, generator: torch.Generator) -> Tensor:
        """One x for each condition, (batch, size)."""
        return draw(self(cond), generator)

    def log_prob(self, x: Tensor, cond: Tensor) -> Tensor:
        """log p(x | cond), (batch,), nats."""
        return self(cond).log_prob(x)


class DiagonalGaussian(DistributionKernel):
    """N(m(c), diag s^2) with s from the network, or the same for every c.

    Args:
        network: c (batch, ...) to (batch, 2 size), mean and log s; to (batch, size), the mean, if `scale` is given.
        size: number of components of x.
        scale: s where it does not depend on c, () or (size,): the value that it starts from.
        learn_scale: whether that is a parameter; otherwise it stays.

    Example:
        >>> kernel = DiagonalGaussian(nn.Linear(3, 4), size=2)
        >>> kernel.log_prob(torch.zeros(7, 2), torch.zeros(7, 3)).shape
        torch.Size([7])
    """

    log_scale: Tensor | None

    def __init__(self, network: nn.Module, size: int, *, scale: Tensor | None = None, learn_scale: bool = True) -> None:
        super().__init__()
        self.network, self.size = network, size
        _hold(self, "log_scale", None if scale is None else scale.log(), learn_scale)

    @staticmethod
    def n_outputs(size: int) -> int:
        """How many outputs the network needs for a conditional width."""
        return 2 * size

    def forward(self, cond: Tensor) -> Independent:
        if self.log_scale is not None:
            mean = self.network(cond)
            return Independent(Normal(mean, self.log_scale.exp().expand_as(mean), validate_args=False), 1)
        mean, log_scale = self.network(cond).chunk(2, -1)
        return Independent(Normal(mean, soft_limit(log_scale).exp(), validate_args=False), 1)


class FullGaussian(DistributionKernel):
    """N(m(c), L L^T), L = diag(s) (1 + N) with N strictly lower triangular, from the network or the same for every c.

    Args:
        network: c (batch, ...) to (batch, 2 size + size (size - 1) / 2): mean, log s, N; to (batch, size), the mean, if
            `scale_tril` is given.
        size: number of components of x.
        scale_tril: L where it does not depend on c, (size, size): the value that it starts from.
        learn_scale: whether that is a parameter; otherwise it stays.

    Example:
        >>> kernel = FullGaussian(nn.Linear(3, FullGaussian.n_outputs(2)), size=2)
        >>> kernel(torch.zeros(7, 3)).covariance_matrix.shape
        torch.Size([7, 2, 2])
    """

    lower: Tensor | None

    def __init__(
        self, network: nn.Module, size: int, *, scale_tril: Tensor | None = None, learn_scale: bool = True
    ) -> None:
        super().__init__()
        self.network, self.size = network, size
        _hold(self, "lower", None if scale_tril is None else _unfold_triangle(scale_tril), learn_scale)

    @staticmethod
    def n_outputs(size: int) -> int:
        """How many outputs the network needs for a conditional covariance."""
        return 2 * size + size * (size - 1) // 2

    def forward(self, cond: Tensor) -> MultivariateNormal:
        if self.lower is not None:
            mean = self.network(cond)
            triangle = fold_triangle(self.lower, self.size).expand(*mean.shape, self.size)
        else:
            mean, log_scale, lower = self.network(cond).split((self.size, self.size, self.n_lower), -1)
            triangle = fold_triangle(torch.cat([soft_limit(log_scale), lower], -1), self.size)
        return MultivariateNormal(mean, scale_tril=triangle, validate_args=False)

    @property
    def n_lower(self) -> int:
        return self.size * (self.size - 1) // 2


class Rescaled(DistributionKernel):
    """A Gaussian kernel whose network works in units of the data: x = mean + scale y, y ~ N(m(c), S).

    Args:
        kernel: of y.
        mean, scale: (size,), and () or (size,); they stay as they are.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, kernel: DiagonalGaussian | FullGaussian, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.kernel, self.size = kernel, kernel.size
        self.register_buffer("mean", mean.clone())
        self.register_buffer("scale", scale.clone())

    def forward(self, cond: Tensor) -> Distribution:
        y = self.kernel(cond)
        if isinstance(y, MultivariateNormal):
            L = self.scale.expand_as(self.mean)[:, None] * y.scale_tril
            return MultivariateNormal(self.mean + self.scale * y.loc, scale_tril=L, validate_args=False)
        base = y.base_dist
        return Independent(Normal(self.mean + self.scale * base.loc, self.scale * base.scale, validate_args=False), 1)


class BernoulliDecoder(DistributionKernel):
    """Independent bits; the network gives their logits (batch, size)."""

    n_levels = 2

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network, self.size = network, size

    @staticmethod
    def n_outputs(size: int) -> int:
        return size

    def forward(self, cond: Tensor) -> Independent:
        return Independent(Bernoulli(logits=self.network(cond), validate_args=False), 1)


class CategoricalDecoder(DistributionKernel):
    """Independent whole numbers 0 ... n_levels - 1; the network gives logits (batch, size * n_levels)."""

    def __init__(self, network: nn.Module, size: int, n_levels: int) -> None:
        super().__init__()
        self.network, self.size, self.n_levels = network, size, n_levels

    @staticmethod
    def n_outputs(size: int, n_levels: int) -> int:
        return size * n_levels

    def forward(self, cond: Tensor) -> Independent:
        logits = self.network(cond).unflatten(-1, (self.size, self.n_levels))
        return Independent(Categorical(logits=logits, validate_args=False), 1)


class _LevelDecoder(DistributionKernel):
    """Independent levels 0 ... n_levels - 1 from two numbers each, (batch, 2 size)."""

    def __init__(self, network: nn.Module, size: int, n_levels: int) -> None:
        super().__init__()
        self.network, self.size, self.n_levels = network, size, n_levels

    @staticmethod
    def n_outputs(size: int, n_levels: int) -> int:
        return 2 * size


class LaplaceDecoder(_LevelDecoder):
    """Independent levels 0 ... n_levels - 1; the network gives places from -1 to 1 and log widths, (batch, 2 size)."""

    def forward(self, cond: Tensor) -> Independent:
        place, log_width = self.network(cond).chunk(2, -1)
        n = self.n_levels - 1
        return Independent(DiscreteLaplace(n, n / 2 * (1 + place), n / 16 * soft_limit(log_width).exp()), 1)


class BetaBinomialDecoder(_LevelDecoder):
    """Independent counts 0 ... n_levels - 1; the network gives log a and log b, (batch, 2 size)."""

    def forward(self, cond: Tensor) -> Independent:
        a, b = soft_limit(self.network(cond)).exp().chunk(2, -1)
        return Independent(BetaBinomial(self.n_levels - 1, a, b), 1)


def expectation(distribution: Distribution) -> Tensor:
    """The mean of each component, of categories too."""
    base = _base(distribution)
    return _power(base, 1) if isinstance(base, Categorical) else base.mean


def variance(distribution: Distribution) -> Tensor:
    """The variance of each component, of categories too."""
    base = _base(distribution)
    return _power(base, 2) - _power(base, 1).square() if isinstance(base, Categorical) else base.variance


def _base(distribution: Distribution) -> Distribution:
    """What is inside of Independent."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


def _power(categories: Categorical, power: int) -> Tensor:
    """E[k^power]."""
    p = categories.probs
    return (p * torch.arange(p.shape[-1], dtype=p.dtype, device=p.device) ** power).sum(-1)


def draw(distribution: Distribution, generator: torch.Generator) -> Tensor:
    """One sample with the given generator; reparameterised for Gaussians.

    Raises:
        BadParameter: a distribution that it does not know.
    """
    distribution = _base(distribution)
    if isinstance(distribution, Normal):
        return distribution.loc + distribution.scale * _noise(distribution.loc, generator)
    if isinstance(distribution, MultivariateNormal):
        return distribution.loc + (distribution.scale_tril @ _noise(distribution.loc, generator)[..., None])[..., 0]
    if isinstance(distribution, Bernoulli):
        p = distribution.probs
        uniform = torch.rand(p.shape, dtype=p.dtype, device=p.device, generator=generator)
        return (uniform < p).to(p.dtype)
    if isinstance(distribution, Categorical):
        return _draw_levels(distribution.probs, generator)
    if isinstance(distribution, DiscreteLaplace):
        loc = distribution.loc
        centred = torch.rand(loc.shape, dtype=loc.dtype, device=loc.device, generator=generator) - 0.5
        x = loc - distribution.scale * centred.sign() * torch.log1p(-2 * centred.abs())
        return x.round().clamp(0, distribution.n)
    if isinstance(distribution, BetaBinomial):
        return _draw_levels(distribution.log_prob(distribution.enumerate_support()).movedim(0, -1).exp(), generator)
    raise BadParameter(f"samples of {type(distribution).__name__} cannot be drawn with a generator here")


def standard_normal_kl(q: Distribution) -> Tensor:
    """KL( q || N(0, 1) ) in closed form for a Gaussian with diagonal or full covariance, (batch,), nats.

        KL = ( |m|^2 + tr S - n ) / 2 - log det L,      S = L L^T

    Example:
        >>> standard_normal_kl(Independent(Normal(torch.ones(1, 2), torch.ones(1, 2)), 1))
        tensor([1.])
    """
    if isinstance(q, MultivariateNormal):
        L = q.scale_tril
        log_det = L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return (q.loc.square().sum(-1) + L.square().sum((-2, -1)) - q.loc.shape[-1]) / 2 - log_det
    return unit_kl(q).sum(-1)


def unit_kl(q: Distribution) -> Tensor:
    """KL of the marginal of each component from N(0, 1), (batch, size), nats.

    For a diagonal covariance they add up to the KL; for a full one they do not, and depend on the choice of axes.
    """
    mean, variance = q.mean, q.variance
    return (mean.square() + variance - 1 - variance.log()) / 2


def soft_limit(value: Tensor, limit: float = SOFT_LIMIT) -> Tensor:
    """limit tanh(value / limit): a logarithm that can neither overflow nor lose its gradient altogether."""
    return limit * torch.tanh(value / limit)


def fold_triangle(lower: Tensor, size: int) -> Tensor:
    """L = diag(exp(l)) (1 + N) from (..., size + size (size - 1) / 2) numbers: l, then the rows of N."""
    rows, columns = torch.tril_indices(size, size, -1, device=lower.device)
    unit = torch.diag_embed(torch.ones_like(lower[..., :size]))
    unit[..., rows, columns] = lower[..., size:]
    return lower[..., :size].exp()[..., None] * unit


def _unfold_triangle(L: Tensor) -> Tensor:
    """The inverse of `fold_triangle` for one matrix."""
    scale = L.diagonal()
    rows, columns = torch.tril_indices(len(L), len(L), -1)
    return torch.cat([scale.log(), (L / scale[:, None])[rows, columns]])


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)


def _draw_levels(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """One of the levels on the last axis, as a number of the same dtype."""
    drawn = torch.multinomial(probabilities.flatten(0, -2), 1, generator=generator)
    return drawn.reshape(probabilities.shape[:-1]).to(probabilities.dtype)


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


def _hold(module: nn.Module, name: str, value: Tensor | None, learned: bool) -> None:
    """A parameter, or a buffer that stays as it is, or None."""
    if learned:
        module.register_parameter(name, None if value is None else nn.Parameter(value.clone()))
    else:
        module.register_buffer(name, None if value is None else value.clone())
