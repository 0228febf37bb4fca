"""Densities that are known exactly, to hold a fitted one against: rings of Gaussians and two moons.

    Mixture     p(x) = sum_k w_k N(x; c_k, s^2)
    two moons   p(x) = int dt N(x; a(t), s^2) over two half circles a(t), t uniform; a mixture too, by Gauss nodes

The quadrature is exact to rounding where the nodes are much closer to each other than s.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fkdrift.densities import density
from fkdrift.densities.density import SMOOTH
from fkdrift.tensor_types import PerWalker


class Mixture:
    """A mixture of equal round Gaussians; a `Density` on (batch, n).

    Args:
        centres: (component, n).
        width: standard deviation s.
        weights: (component,), which add up to 1; by default all the same.

    Example:
        >>> ring = eight_gaussians()
        >>> ring.sample(1000, torch.Generator().manual_seed(0)).shape
        torch.Size([1000, 2])
    """

    smoothness = SMOOTH

    def __init__(self, centres: Tensor, width: float, weights: Tensor | None = None) -> None:
        self.centres, self.width = centres.double(), width
        self.weights = torch.full((len(centres),), 1 / len(centres)).double() if weights is None else weights.double()

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        component = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.centres.shape[1], generator=generator, dtype=torch.float64)
        return self.centres[component] + self.width * noise

    def log_prob(self, x: Tensor) -> PerWalker:
        square = (x.double()[:, None] - self.centres).square().sum(-1)
        normalisation = 0.5 * x.shape[1] * math.log(2 * math.pi * self.width**2)
        return torch.logsumexp(self.weights.log() - 0.5 * square / self.width**2, 1) - normalisation

    def score(self, x: Tensor) -> Tensor:
        return density.score(self, x)


def eight_gaussians(radius: float = 4.0, width: float = 0.5) -> Mixture:
    """Eight Gaussians on a ring."""
    angle = torch.arange(8) * math.pi / 4
    return Mixture(radius * torch.stack([angle.cos(), angle.sin()], -1), width)


def two_moons(noise: float = 0.1, n_nodes: int = 200) -> Mixture:
    """Two interleaved half circles of radius 1 with Gaussian noise, as in scikit-learn's make_moons.

    Args:
        noise: its standard deviation.
        n_nodes: of the quadrature along each arc; their distance, pi / n_nodes, must be well below the noise.
    """
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    t = torch.tensor((nodes + 1) / 2 * math.pi)
    upper = torch.stack([t.cos(), t.sin()], -1)
    lower = torch.stack([1 - t.cos(), 0.5 - t.sin()], -1)
    return Mixture(torch.cat([upper, lower]), noise, torch.tensor(weights).repeat(2) / 4)
