"""What a network sees of the positions, with first and second derivatives in closed form.

One-particle features x_i(r_i), in units of the system's own centre and width:
    open space       z = (r - centre) / width and sqrt(1 + z^2) - 1, for each coordinate
    around a nucleus a flat distance of r - R
    ring or torus    sin and cos of 2 pi r / L
    invariant        only flat distances, from the origin and the nuclei
    free             nothing but the kind of particle: no position by itself has a meaning
Pair features p_ij(r_i - r_j): the vector (unless invariant) and its flat distance; without nuclei, where a hole may be
much smaller than the state, also a fine one: closeness 1 / (1 + d^2) in smooth potentials, a flat distance at cusps; on
a torus sines and a chord length. Of a free system, where distances are all there is, lengths are z = (rho - mean) / std
of rho = sqrt(d^2 + std^2), by the system's own pair distances, and sqrt(1 + z^2) - 1; in a box d is that of the
coordinates (L / pi) sin(pi x / L), and there are no vectors.

A flat distance is quadratic at 0 and linear far away, sqrt(1 + d^2) - 1 for smooth potentials and d^2 / (1 + d) at
cusps, so that a network cannot spoil the cusp that a reference supplies.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fkdrift.hamiltonian.system import System
from fkdrift.numerics.geometry import distance
from fkdrift.tensor_types import Positions

FINE = 3.0


class Feature(NamedTuple):
    """Features (..., feature), their Jacobian (..., dim, feature) and Laplacian (..., feature) in the own position."""

    value: Tensor
    jacobian: Tensor
    laplacian: Tensor


class Features(nn.Module):
    """One-particle and pair features of a system.

    Args:
        system: supplies scales, nuclei, box and groups of identical particles.
        invariant: keep only what does not change under rotation and reflection about the origin.

    Attributes:
        n_one, n_pair: number of features; n_pair is 0 for a single particle.
        neighbours: (particle, particle - 1) index of every other particle.
    """

    centre: Tensor
    width: Tensor
    wavenumber: Tensor
    points: Tensor
    kind: Tensor
    neighbours: Tensor

    def __init__(self, system: System, invariant: bool) -> None:
        super().__init__()
        potential = system.potential
        n, dim = system.shape
        self.periodic, self.invariant, self.free = potential.box is not None, invariant, potential.free
        self.analytic = not (potential.nuclei or potential.coalescence)
        self.fine = not potential.nuclei
        self.separation = system.separation
        points = potential.nuclei or ([(0.0,) * dim] if invariant and not self.free else [])
        kind = system.centre.new_zeros(n, len(potential.groups))
        for g, members in enumerate(potential.groups):
            kind[list(members), g] = 1
        others = [[j for j in range(n) if j != i] for i in range(n)]
        self.register_buffer("centre", system.centre)
        self.register_buffer("width", system.width)
        self.register_buffer("wavenumber", 2 * torch.pi / system.centre.new_tensor(potential.box or [1.0]))
        self.register_buffer("points", system.centre.new_tensor(points).reshape(-1, dim))
        self.register_buffer("kind", kind if len(potential.groups) > 1 or self.free else kind[:, :0])
        self.register_buffer(
            "neighbours", torch.tensor(others, dtype=torch.long, device=system.device).reshape(n, n - 1)
        )
        self.n_one = (0 if invariant or self.free else 2 * dim) + len(self.points) + self.kind.shape[1]
        lengths = 2 if self.free else 1 if self.periodic else 1 + self.fine
        vectors = 0 if invariant or (self.free and self.periodic) else dim
        self.n_pair = 0 if n == 1 else vectors + lengths

    def one(self, r: Positions) -> Feature:
        """Features of each particle alone, (batch, particle, n_one)."""
        if self.free:
            kind = self.kind.expand(*r.shape[:2], -1)
            flat = torch.zeros_like(kind)
            return Feature(kind, flat[..., None, :].expand(*r.shape, -1), flat)
        if self.periodic:
            return self._with_kind([_waves(r, self.wavenumber)])
        parts = [] if self.invariant else [_coordinates((r - self.centre) / self.width, 1 / self.width)]
        if len(self.points):
            parts.append(self._flat_distances(r[..., None, :] - self.points))
        return self._with_kind(parts)

    def pair(self, r: Positions) -> Feature:
        """Features of each particle and each neighbour, (batch, particle, particle - 1, n_pair).

        Jacobian and Laplacian are with respect to the first particle; for the second, the Jacobian changes sign.
        """
        x = r[:, :, None] - at_neighbours(r, self.neighbours)
        if self.periodic:
            return _torus(x, self.wavenumber) if self.separation is None else self._separations(x)
        length = self._flat_distances(x[..., None, :]) if self.separation is None else self._separations(x)
        if self.fine and self.separation is None:
            fine = self._closeness if self.analytic else self._flat_distances
            length = _concatenate([length, fine(x[..., None, :], FINE)])
        if self.invariant:
            return length
        scale = 1 / self.width.mean()
        jacobian = (scale * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)).expand(*x.shape, x.shape[-1])
        return _concatenate([Feature(scale * x, jacobian, torch.zeros_like(x)), length])

    def _flat_distances(self, x: Tensor, zoom: float = 1.0) -> Feature:
        """Flat distances of vectors x (..., feature, dim), in units of the width divided by zoom."""
        scale, dim = zoom / self.width.mean(), x.shape[-1]
        x = scale * x
        if self.analytic:
            square = x.square().sum(-1)
            root = (1 + square).sqrt()
            value, slope = root - 1, 1 / root
            laplacian = slope * (dim - square / root.square())
        else:
            d = distance(x)
            inverse = 1 / (1 + d)
            value, slope = d.square() * inverse, (2 + d) * inverse.square()
            laplacian = 2 * inverse.pow(3) + (dim - 1) * slope
        return Feature(value, scale * (slope[..., None] * x).transpose(-1, -2), scale.square() * laplacian)

    def _separations(self, x: Tensor) -> Feature:
        """z and sqrt(1 + z^2) - 1 of vectors x (..., dim)."""
        assert self.separation is not None
        mean, scale = self.separation
        if self.periodic:
            k = self.wavenumber / 2
            y, slope_y = (k * x).sin() / k, (k * x).cos()
            bend_y = -k * (k * x).sin()
        else:
            y, slope_y, bend_y = x, torch.ones_like(x), torch.zeros_like(x)
        rho = (y.square().sum(-1) + scale**2).sqrt()
        away = y * slope_y / rho[..., None]  # the gradient of rho
        square = away.square().sum(-1)
        laplacian = ((slope_y.square() + y * bend_y).sum(-1) / rho - square / rho)[..., None]
        z = (rho - mean) / scale
        root = (1 + z.square()).sqrt()
        slope = torch.stack([torch.ones_like(z), z / root], -1) / scale  # by rho
        bend = torch.stack([torch.zeros_like(z), root.pow(-3)], -1) / scale**2
        jacobian = away[..., None] * slope[..., None, :]
        return Feature(torch.stack([z, root - 1], -1), jacobian, bend * square[..., None] + slope * laplacian)

    def _closeness(self, x: Tensor, zoom: float) -> Feature:
        """1 / (1 + d^2) of vectors x (..., feature, dim), with d in units of the width divided by zoom."""
        scale = zoom / self.width.mean()
        x = scale * x
        square = x.square().sum(-1)
        value = 1 / (1 + square)
        slope = -2 * value.square()
        laplacian = slope * (x.shape[-1] - 4 * square * value)
        return Feature(value, scale * (slope[..., None] * x).transpose(-1, -2), scale.square() * laplacian)

    def _with_kind(self, parts: list[Feature]) -> Feature:
        """The features and, where not all particles are identical, which group each belongs to."""
        if self.kind.shape[1]:
            like = parts[0].value
            kind = self.kind.expand(*like.shape[:-1], -1)
            flat = torch.zeros_like(kind)
            parts.append(Feature(kind, flat[..., None, :].expand(*parts[0].jacobian.shape[:-1], -1), flat))
        return _concatenate(parts)


def at_neighbours(x: Tensor, neighbours: Tensor) -> Tensor:
    """x (batch, particle, ...) of each particle's neighbours, (batch, particle, particle - 1, ...)."""
    return x.index_select(1, neighbours.flatten()).unflatten(1, neighbours.shape)


def _coordinates(z: Tensor, scale: Tensor) -> Feature:
    """z and sqrt(1 + z^2) - 1 for each coordinate."""
    root = (1 + z.square()).sqrt()
    slopes = torch.stack([scale.expand_as(z), scale * z / root], -2)
    jacobian = torch.diag_embed(slopes).movedim(-3, -2).flatten(-2)
    laplacian = torch.cat([torch.zeros_like(z), scale.square() / root.pow(3)], -1)
    return Feature(torch.cat([z, root - 1], -1), jacobian, laplacian)


def _waves(r: Tensor, k: Tensor) -> Feature:
    """sin and cos of k r for each coordinate."""
    sin, cos = (k * r).sin(), (k * r).cos()
    jacobian = torch.diag_embed(torch.stack([k * cos, -k * sin], -2)).movedim(-3, -2).flatten(-2)
    return Feature(torch.cat([sin, cos], -1), jacobian, -k.square().repeat(2) * torch.cat([sin, cos], -1))


def _torus(x: Tensor, k: Tensor) -> Feature:
    """sin of k x for each coordinate, and the chord sum (1 - cos k x)."""
    sin, cos = (k * x).sin(), (k * x).cos()
    jacobian = torch.cat([torch.diag_embed(k * cos), (k * sin)[..., None]], -1)
    laplacian = torch.cat([-k.square() * sin, (k.square() * cos).sum(-1, keepdim=True)], -1)
    return Feature(torch.cat([sin, (1 - cos).sum(-1, keepdim=True)], -1), jacobian, laplacian)


def _concatenate(parts: list[Feature]) -> Feature:
    """Features side by side."""
    return Feature(*(torch.cat(part, -1) for part in zip(*parts, strict=True)))
