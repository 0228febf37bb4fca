"""Networks that read a datum or a latent: perceptrons with residual layers, and convolutions.

They map (batch, n_in) to (batch, n_out); images are flattened, and a convolutional network folds them back.  None of
them has a mode: there is no dropout and no batch normalisation, so that what is evaluated is what was trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Networks built inside start from this seed; torch's global generator is left as it was.

    Example:
        >>> with seeded(0):
        ...     network = MLP(784, (200, 200), 40)
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class Standardise(nn.Module):
    """(x - mean) / scale with numbers taken from data; a single scale keeps the geometry of the data.

    Args:
        data: (n, size); their mean and their root mean square deviation are kept.
        by_column: a deviation for each column, for columns in units of their own; 1 where a column is constant.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, data: Tensor, by_column: bool = False) -> None:
        super().__init__()
        mean = data.mean(0)
        square = (data - mean).square()
        scale = (square.mean(0) if by_column else square.mean()).sqrt()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", torch.where(scale > 0, scale, torch.ones_like(scale)))

    @property
    def log_volume(self) -> Tensor:
        """log |det dx/dz|, ()."""
        return self.scale.log().expand_as(self.mean).sum()

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale


class MLP(nn.Module):
    """A multilayer perceptron with SiLU units; a layer as wide as the one before it adds to it.

    Args:
        n_in, n_out: numbers of inputs and outputs.
        widths: of the hidden layers; () makes it affine.
        gain: factor of the last layer's first weights; small ones start from a constant function.

    Example:
        >>> MLP(3, (32, 32), 2)(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(self, n_in: int, widths: Sequence[int], n_out: int, gain: float = 1.0) -> None:
        super().__init__()
        sizes = [n_in, *widths]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, widths, strict=False))
        self.last = _scaled(nn.Linear(sizes[-1], n_out), gain)

    def forward(self, x: Tensor) -> Tensor:
        for k, layer in enumerate(self.hidden):
            y = torch.nn.functional.silu(layer(x))
            x = x + y if k > 0 and y.shape == x.shape else y
        return self.last(x)


class ConvolutionalEncoder(nn.Module):
    """Reads an image: convolutions that halve its sides, then a hidden layer.

    Args:
        shape: of the image, (height, width) or (height, width, colours).
        channels: of each convolution.
        width: of the hidden layer.
        n_out: number of outputs.
        gain: factor of the last layer's first weights.
    """

    def __init__(
        self, shape: Sequence[int], channels: Sequence[int], width: int, n_out: int, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.shape = (*shape, 1)[:3]
        sizes = [self.shape[2], *channels]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip(sizes, channels, strict=False)
        )
        high, wide = (halved(side, len(channels)) for side in self.shape[:2])
        self.middle = nn.Linear(channels[-1] * high * wide, width)
        self.last = _scaled(nn.Linear(width, n_out), gain)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(-1, self.shape).movedim(-1, 1)
        for convolution in self.convolutions:
            x = torch.nn.functional.silu(convolution(x))
        return self.last(torch.nn.functional.silu(self.middle(x.flatten(1))))


class ConvolutionalDecoder(nn.Module):
    """Writes an image: a hidden layer, then transposed convolutions that double its sides.

    Args:
        n_in: number of inputs.
        width: of the hidden layer.
        channels: of the input of each transposed convolution.
        shape: of the image, (height, width) or (height, width, colours).
        n_planes: outputs for each component of the image.

    Returns:
        (batch, n_planes * size), plane by plane; with `last_axis` component by component.
    """

    def __init__(
        self,
        n_in: int,
        width: int,
        channels: Sequence[int],
        shape: Sequence[int],
        n_planes: int = 1,
        *,
        last_axis: bool = False,
    ) -> None:
        super().__init__()
        self.shape, self.last_axis = (*shape, 1)[:3], last_axis
        self.small = tuple(halved(side, len(channels)) for side in self.shape[:2])
        self.first = nn.Linear(n_in, width)
        self.middle = nn.Linear(width, channels[0] * self.small[0] * self.small[1])
        self.convolutions = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 4, stride=2, padding=1)
            for a, b in zip(channels, [*channels[1:], n_planes * self.shape[2]], strict=True)
        )

    def forward(self, z: Tensor) -> Tensor:
        x = torch.nn.functional.silu(self.middle(torch.nn.functional.silu(self.first(z))))
        x = x.unflatten(-1, (-1, *self.small))
        for k, convolution in enumerate(self.convolutions):
            x = convolution(torch.nn.functional.silu(x) if k else x)
        high, wide, colours = self.shape
        x = x[..., :high, :wide].unflatten(1, (-1, colours)).movedim(2, -1)  # (batch, plane, row, column, colour)
        return (x.movedim(1, -1) if self.last_axis else x).flatten(1)


def halved(side: int, times: int) -> int:
    """The side after so many halvings, rounded up."""
    for _ in range(times):
        side = (side + 1) // 2
    return side


def _scaled(layer: nn.Linear, gain: float) -> nn.Linear:
    """A layer whose weights start smaller."""
    with torch.no_grad():
        layer.weight.mul_(gain)
        layer.bias.mul_(gain)
    return layer
