"""Small distortions of images: what a few thousand of them leave unsaid about rotation, size, slant and position.

    x'(r) = x(A r + t),    A close to 1 and t close to 0, drawn anew for each image and each time.

A model that is trained on distorted images and tested on images as they are is not flattered: the test is still on data
that it has not seen.
"""

from __future__ import annotations

import torch
from torch import Tensor

TURN, STRETCH, SLANT, SHIFT = 0.12, 0.08, 0.12, 0.045
"""Standard deviations: radians, relative size, relative shear, and shift as a fraction of half the side."""


def distort(images: Tensor, shape: tuple[int, ...], generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Images turned, stretched, slanted and shifted at random, by bilinear interpolation.

    Args:
        images: (batch, size), as rows.
        shape: of an image, (height, width) or (height, width, colours).
        generator: of the distortions.
        strength: multiplies the standard deviations of all of them; 0 leaves the images as they are.

    Returns:
        (batch, size), values between the smallest and the largest of each image (0 comes in from outside).

    Example:
        >>> digits = fk.generative.load_data("digits").train[:100]
        >>> distort(digits, (8, 8), g, 0.5).shape == digits.shape
        True
    """
    if strength == 0:
        return images
    n, tall = len(images), shape[0] / shape[1]
    noise = strength * torch.randn(n, 6, generator=generator, dtype=images.dtype, device=images.device)
    turn, slant = TURN * noise[:, 0], SLANT * noise[:, 1]
    width, height = (1 + STRETCH * noise[:, 2:4]).unbind(1)
    right, down = (SHIFT * noise[:, 4:6]).unbind(1)
    c, s = turn.cos(), turn.sin()
    first = torch.stack([c * width, (slant - s * width) * tall, right], 1)
    second = torch.stack([s * height / tall, c * height, down], 1)
    planes = images.reshape(n, *shape[:2], -1).movedim(-1, 1)
    grid = torch.nn.functional.affine_grid(torch.stack([first, second], 1), list(planes.shape), align_corners=False)
    return torch.nn.functional.grid_sample(planes, grid, align_corners=False).movedim(1, -1).flatten(1)
