"""Normalizing flows: a density written as a change of variables to independent normal numbers.

    z = f(x),     log p(x) = log N(z; 0, 1) + log |det df/dx|

f is a chain of layers that are analytic in x and invertible to rounding: a fixed scale, a triangular matrix, monotone
maps of each coordinate, and coupling layers, in which half of the coordinates choose the maps of the other half.
The VAE becomes this in the limit of a deterministic, invertible decoder.

References: G. Papamakarios et al., Normalizing flows for probabilistic modeling and inference, JMLR 22, 57 (2021);
L. Dinh, J. Sohl-Dickstein and S. Bengio, Density estimation using Real NVP, ICLR 2017.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fkdrift.densities import density
from fkdrift.densities.density import SMOOTH
from fkdrift.densities.monotone import identity_parameters, inverse, log_cosh, n_parameters, transform
from fkdrift.errors import InputError
from fkdrift.numerics.networks import MLP, seeded
from fkdrift.tensor_types import PerWalker

HORIZON = 4.0  # where a coupling network's sight of a coordinate ends


class Layer(nn.Module, ABC):
    """An invertible map of R^n: forward towards the normal numbers, with its log |det|."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, PerWalker]:
        """z (batch, n) and log |det dz/dx| (batch,)."""

    @abstractmethod
    def inverse(self, z: Tensor) -> Tensor:
        """x (batch, n)."""


class Scale(Layer):
    """z = (x - centre) / width, fixed.

    Args:
        centre, width: (n,); the width above zero.
    """

    centre: Tensor
    width: Tensor

    def __init__(self, centre: Tensor, width: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", centre.clone())
        self.register_buffer("width", width.clone())

    def forward(self, x: Tensor) -> tuple[Tensor, PerWalker]:
        return (x - self.centre) / self.width, -self.width.log().sum().expand(len(x))

    def inverse(self, z: Tensor) -> Tensor:
        return self.centre + self.width * z


class Tail(Layer):
    """z = (l / delta) sinh(delta asinh(x / l)) for every coordinate: z ~ x near 0, and z ~ |x|^delta beyond l.

    Args:
        power: (n,) delta to start from, above zero; 1 is the identity.
        length: (n,) l to start from.
    """

    def __init__(self, power: Tensor, length: Tensor) -> None:
        super().__init__()
        self.log_power, self.log_length = nn.Parameter(power.log()), nn.Parameter(length.log())

    def forward(self, x: Tensor) -> tuple[Tensor, PerWalker]:
        u, delta = x / self.log_length.exp(), self.log_power.exp()
        y = delta * torch.asinh(u)
        z = (self.log_length - self.log_power).exp() * torch.sinh(y)
        return z, (log_cosh(y) - 0.5 * torch.log1p(u.square())).sum(-1)

    def inverse(self, z: Tensor) -> Tensor:
        y = torch.asinh(z * (self.log_power - self.log_length).exp())
        return self.log_length.exp() * torch.sinh(y / self.log_power.exp())


class Triangular(Layer):
    """z = L x + b with a lower triangular L of positive diagonal: any Gaussian is one such layer.

    Args:
        n: number of coordinates.
    """

    def __init__(self, n: int) -> None:
        super().__init__()
        self.lower = nn.Parameter(torch.zeros(n, n))
        self.log_diagonal = nn.Parameter(torch.zeros(n))
        self.shift = nn.Parameter(torch.zeros(n))

    @property
    def matrix(self) -> Tensor:
        """L."""
        return self.lower.tril(-1) + torch.diag(self.log_diagonal.exp())

    def forward(self, x: Tensor) -> tuple[Tensor, PerWalker]:
        return x @ self.matrix.T + self.shift, self.log_diagonal.sum().expand(len(x))

    def inverse(self, z: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.matrix, (z - self.shift).T, upper=False).T


class Elementwise(Layer):
    """A monotone map of its own for every coordinate, the same for every x.

    Args:
        n: number of coordinates.
        n_steps: steps in each map, see `monotone`.
        confined: whether the maps are, see `monotone`.
    """

    def __init__(self, n: int, n_steps: int = 8, confined: bool = False) -> None:
        super().__init__()
        self.confined = confined
        self.parameters_of_map = nn.Parameter(identity_parameters(n_steps, confined).repeat(n, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, PerWalker]:
        z, log_slope = transform(x, self.parameters_of_map, self.confined)
        return z, log_slope.sum(-1)

    def inverse(self, z: Tensor) -> Tensor:
        return inverse(z, self.parameters_of_map, self.confined)


class Coupling(Layer):
    """Monotone maps of some coordinates, chosen by a network that sees the others, which stay as they are.

    The network ends at zero: at first every map is close to the identity.  It sees coordinates through a smooth bound,
    so that the maps settle far out and the tails stay normalised and invertible.

    Args:
        n: number of coordinates, at least 2.
        changed: which of them are mapped.
        n_steps: steps in each map.
        width, depth: of the network.
        confined: whether the maps are, see `monotone`.

    Raises:
        InputError: every coordinate would be mapped, or none.
    """

    kept: Tensor
    changed: Tensor
    start: Tensor

    def __init__(
        self,
        n: int,
        changed: Sequence[int],
        n_steps: int = 8,
        width: int = 32,
        depth: int = 2,
        confined: bool = False,
    ) -> None:
        super().__init__()
        self.confined = confined
        kept = [k for k in range(n) if k not in changed]
        if not kept or not changed:
            raise InputError(f"a coupling layer of {n} coordinates cannot map {list(changed)}: it needs both halves")
        self.register_buffer("kept", torch.tensor(kept))
        self.register_buffer("changed", torch.tensor(list(changed)))
        self.register_buffer("start", identity_parameters(n_steps, confined))
        self.shape = (len(changed), n_parameters(n_steps, confined))
        self.network = MLP(len(kept), (width,) * depth, math.prod(self.shape), gain=0.0)

    def _parameters_at(self, kept: Tensor) -> Tensor:
        seen = kept / (1 + (kept / HORIZON).square()).sqrt()
        return self.start + self.network(seen).reshape(-1, *self.shape)

    def forward(self, x: Tensor) -> tuple[Tensor, PerWalker]:
        kept = x[:, self.kept]
        mapped, log_slope = transform(x[:, self.changed], self._parameters_at(kept), self.confined)
        return self._join(kept, mapped), log_slope.sum(-1)

    def inverse(self, z: Tensor) -> Tensor:
        kept = z[:, self.kept]
        return self._join(kept, inverse(z[:, self.changed], self._parameters_at(kept), self.confined))

    def _join(self, kept: Tensor, changed: Tensor) -> Tensor:
        joined = kept.new_empty(len(kept), len(self.kept) + len(self.changed))
        return joined.index_copy(1, self.kept, kept).index_copy(1, self.changed, changed)


class Flow(nn.Module):
    """A chain of layers from x to independent normal numbers; a `Density` on (batch, n).

    Args:
        n: number of coordinates.
        layers: applied in order to x.

    Example:
        >>> flow = coupling_flow(2, seed=0)
        >>> x, log_p = flow.sample_and_log_prob(1000, torch.Generator().manual_seed(1))
        >>> bool(torch.allclose(flow.log_prob(x), log_p))
        True
    """

    smoothness = SMOOTH

    def __init__(self, n: int, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.event_shape: tuple[int, ...] = (n,)
        self.layers = nn.ModuleList(layers)

    @property
    def chain(self) -> list[Layer]:
        """The layers in order, from x to the normal numbers."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def normal(self, x: Tensor) -> tuple[Tensor, PerWalker]:
        """z = f(x) (batch, n) and log |det df/dx| (batch,)."""
        total = x.new_zeros(len(x))
        for layer in self.chain:
            x, log_det = layer(x)
            total = total + log_det
        return x, total

    def inverse(self, z: Tensor) -> Tensor:
        """x = f^-1(z), (batch, n)."""
        for layer in reversed(self.chain):
            z = layer.inverse(z)
        return z

    def log_prob(self, x: Tensor) -> PerWalker:
        z, log_det = self.normal(x)
        return log_det - 0.5 * z.square().sum(-1) - 0.5 * math.log(2 * math.pi) * z.shape[-1]

    def score(self, x: Tensor) -> Tensor:
        return density.score(self, x)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        like = next(each for each in [*self.parameters(), *self.buffers()] if each.is_floating_point())
        z = torch.randn(n, *self.event_shape, generator=generator, dtype=like.dtype, device=like.device)
        return self.inverse(z)

    def sample_and_log_prob(self, n: int, generator: torch.Generator) -> tuple[Tensor, PerWalker]:
        x = self.sample(n, generator)
        return x, self.log_prob(x)


def coupling_flow(
    n: int,
    *,
    centre: Tensor | None = None,
    spread: Tensor | None = None,
    tail: tuple[Tensor, Tensor] | None = None,
    n_couplings: int = 2,
    n_steps: int = 8,
    width: int = 32,
    depth: int = 2,
    confined: bool = False,
    seed: int = 0,
) -> Flow:
    """A flow for densities on R^n: a scale, a triangular matrix, maps of each coordinate, then coupling layers.

    Args:
        n: number of coordinates; with one, there are no coupling layers.
        centre, spread: (n,) mean and standard deviation to start from; they also set the dtype.
        tail: powers and lengths (n,) that a `Tail` layer starts from; by default there is none.
        n_couplings: coupling layers, each mapping the half that the one before kept.
        n_steps: steps in each monotone map.
        width, depth: of the coupling networks.
        confined: whether tails are those of a Gaussian, whatever is learned; see `monotone`.
        seed: of the networks' start.
    """
    centre = torch.zeros(n) if centre is None else centre
    spread = torch.ones_like(centre) if spread is None else spread
    halves = [range(1, n, 2), range(0, n, 2)]
    with seeded(seed):
        layers: list[Layer] = [Scale(centre, spread), *([Tail(*tail)] if tail else []), Triangular(n)]
        layers += [Elementwise(n, n_steps, confined)]
        if n > 1:
            layers += [Coupling(n, halves[k % 2], n_steps, width, depth, confined) for k in range(n_couplings)]
    return Flow(n, layers).to(centre.device, centre.dtype)
