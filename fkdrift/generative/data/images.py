"""Small distortions of images: what a few thousand of them leave unsaid about rotation, size, slant and position.

    x'(r) = x(A r + t),    A close to 1 and t close to 0, drawn anew for each image and each time.

A model that is trained on distorted images and tested on images as they are is not flattered: the test is still on data
that it has not seen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fkdrift.numerics.networks import image_side

TURN, STRETCH, SLANT, SHIFT = 0.12, 0.08, 0.12, 0.045
"""Standard deviations: radians, relative size, relative shear, and shift as a fraction of half the side."""


def distort(images: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Images turned, stretched, slanted and shifted at random, by bilinear interpolation.

    Args:
        images: (batch, side^2), square images as rows.
        generator: of the distortions.
        strength: multiplies the standard deviations of all of them; 0 leaves the images as they are.

    Returns:
        (batch, side^2), values between the smallest and the largest of each image (0 comes in from outside).

    Example:
        >>> digits = fk.generative.load_data("digits").train[:100]
        >>> distort(digits, g, 0.5).shape == digits.shape
        True
    """
    if strength == 0:
        return images
    side, n = image_side(images.shape[1]), len(images)
    noise = strength * torch.randn(n, 6, generator=generator, dtype=images.dtype, device=images.device)
    turn, slant = TURN * noise[:, 0], SLANT * noise[:, 1]
    width, height = (1 + STRETCH * noise[:, 2:4]).unbind(1)
    right, down = (SHIFT * noise[:, 4:6]).unbind(1)
    c, s = turn.cos(), turn.sin()
    first = torch.stack([c * width, slant - s * width, right], 1)
    second = torch.stack([s * height, c * height, down], 1)
    grid = torch.nn.functional.affine_grid(torch.stack([first, second], 1), [n, 1, side, side], align_corners=False)
    shape = images.view(n, 1, side, side)
    return torch.nn.functional.grid_sample(shape, grid, align_corners=False).flatten(1)
