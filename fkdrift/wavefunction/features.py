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
of rho = sqrt(d^2 + std^2), by the distances of that kind of pair, and sqrt(1 + z^2) - 1; in a box d is that of the
coordinates (L / pi) sin(pi x / L), and there are no vectors.

A flat distance is quadratic at 0 and linear far away, sqrt(1 + d^2) - 1 for smooth potentials and d^2 / (1 + d) at
cusps, so that a network cannot spoil the cusp that a reference supplies.

Here and in the network the batch is the last axis of positions and features, (dim, particle, batch) and (feature, ...,
batch), and neighbours come before particles: every operation then runs over long rows of memory.
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
    """Features (feature, ..., batch), their Jacobian (feature, dim, ..., batch) and Laplacian (feature, ..., batch) in
    the own position; in between is the particle, for pairs (neighbour, particle)."""

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
        n_directions: how many directions the gradients of p_ij and x_j have in the position of j: those of the distance
            between the two and from a single centre, where features are distances, otherwise all.
        neighbours: (particle - 1, particle) index of every other particle.
    """

    centre: Tensor
    width: Tensor
    wavenumber: Tensor
    points: Tensor
    kind: Tensor
    neighbours: Tensor
    separation: Tensor | None

    def __init__(self, system: System, invariant: bool) -> None:
        super().__init__()
        potential = system.potential
        n, dim = system.shape
        self.periodic, self.invariant, self.free = potential.box is not None, invariant, potential.free
        self.analytic = not (potential.nuclei or potential.coalescence)
        self.fine = not potential.nuclei
        points = potential.nuclei or ([(0.0,) * dim] if invariant and not self.free else [])
        kind = system.centre.new_zeros(n, len(potential.groups))
        for g, members in enumerate(potential.groups):
            kind[list(members), g] = 1
        others = [[j for j in range(n) if j != i] for i in range(n)]
        neighbours = torch.tensor(others, dtype=torch.long, device=system.device).reshape(n, n - 1)
        self.register_buffer("centre", system.centre)
        self.register_buffer("width", system.width)
        self.register_buffer("wavenumber", 2 * torch.pi / system.centre.new_tensor(potential.box or [1.0]))
        self.register_buffer("points", system.centre.new_tensor(points).reshape(-1, dim))
        self.register_buffer("kind", kind if len(potential.groups) > 1 or self.free else kind[:, :0])
        self.register_buffer("neighbours", neighbours.T.contiguous())
        separation = None if system.separation is None else torch.stack(system.separation)
        at = None if separation is None else separation.gather(2, neighbours.expand(2, -1, -1)).transpose(1, 2)
        self.register_buffer("separation", at, persistent=False)
        self.n_one = (0 if invariant or self.free else 2 * dim) + len(self.points) + self.kind.shape[1]
        lengths = 2 if self.free else 1 if self.periodic else 1 + self.fine
        vectors = 0 if invariant or (self.free and self.periodic) else dim
        self.n_pair = 0 if n == 1 else vectors + lengths
        self.n_directions = min(dim, 1 + len(self.points)) if invariant or (self.free and not vectors) else dim

    def forward(self, r: Positions) -> tuple[Feature, Feature | None]:
        """Features of each particle, and of each particle and each neighbour, at positions (batch, particle, dim)."""
        x = r.permute(2, 1, 0).contiguous()
        return self.one(x), self.pair(x) if self.n_pair else None

    def one(self, x: Tensor) -> Feature:
        """Features of each particle alone at x (dim, particle, batch), (n_one, particle, batch)."""
        if self.free:
            return self._kinds(x)
        if self.periodic:
            parts = [_waves(x, self.wavenumber[:, None, None])]
        else:
            centre, width = self.centre.T[..., None], self.width.T[..., None]
            parts = [] if self.invariant else [_coordinates((x - centre) / width, 1 / width)]
            if len(self.points):
                parts.append(self._flat_distances(x[:, None] - self.points.T[..., None, None]))
        return _concatenate([*parts, self._kinds(x)] if self.kind.shape[1] else parts)

    def pair(self, x: Tensor) -> Feature:
        """Features of each particle and each neighbour, (n_pair, neighbour, particle, batch).

        Jacobian and Laplacian are with respect to the particle; for the neighbour, the Jacobian changes sign.
        """
        x = x[:, None] - at_neighbours(x, self.neighbours)
        if self.periodic:
            k = self.wavenumber[:, None, None, None]
            return _torus(x, k) if self.separation is None else self._separations(x)
        lengths = [self._flat_distances(x[:, None]) if self.separation is None else self._separations(x)]
        if self.fine and self.separation is None:
            fine = self._closeness if self.analytic else self._flat_distances
            lengths.append(fine(x[:, None], FINE))
        if self.invariant:
            return _concatenate(lengths)
        scale, dim = 1 / self.width.mean(), len(x)
        jacobian = (scale * torch.eye(dim, dtype=x.dtype, device=x.device)).view(dim, dim, 1, 1, 1)
        return _concatenate([Feature(scale * x, jacobian.expand(dim, *x.shape), torch.zeros_like(x)), *lengths])

    def _flat_distances(self, x: Tensor, zoom: float = 1.0) -> Feature:
        """Flat distances of vectors x (dim, feature, ...), in units of the width divided by zoom."""
        scale, dim = zoom / self.width.mean(), len(x)
        x = scale * x
        if self.analytic:
            square = _square(x)
            root = (1 + square).sqrt()
            value, slope = root - 1, 1 / root
            laplacian = slope * (dim - square / root.square())
        else:
            d = distance(x, 0)
            inverse = 1 / (1 + d)
            value, slope = d.square() * inverse, (2 + d) * inverse.square()
            laplacian = 2 * inverse.pow(3) + (dim - 1) * slope
        return Feature(value, scale * slope[:, None] * x.transpose(0, 1), scale.square() * laplacian)

    def _separations(self, x: Tensor) -> Feature:
        """z and sqrt(1 + z^2) - 1 of vectors x (dim, neighbour, particle, batch)."""
        assert self.separation is not None
        mean, scale = self.separation[..., None]
        if self.periodic:
            k = self.wavenumber[:, None, None, None] / 2
            y, slope_y = (k * x).sin() / k, (k * x).cos()
            bend_y = -k * (k * x).sin()
        else:
            y, slope_y, bend_y = x, torch.ones_like(x), torch.zeros_like(x)
        rho = (_square(y) + scale**2).sqrt()
        away = y * slope_y / rho  # the gradient of rho
        square = _square(away)
        laplacian = (slope_y.square() + y * bend_y).sum(0) / rho - square / rho
        z = (rho - mean) / scale
        root = (1 + z.square()).sqrt()
        slope = torch.stack([torch.ones_like(z), z / root]) / scale  # by rho
        bend = torch.stack([torch.zeros_like(z), root.pow(-3)]) / scale**2
        return Feature(torch.stack([z, root - 1]), slope[:, None] * away, bend * square + slope * laplacian)

    def _closeness(self, x: Tensor, zoom: float) -> Feature:
        """1 / (1 + d^2) of vectors x (dim, feature, ...), with d in units of the width divided by zoom."""
        scale = zoom / self.width.mean()
        dim, x = len(x), scale * x
        square = _square(x)
        value = 1 / (1 + square)
        slope = -2 * value.square()
        laplacian = slope * (dim - 4 * square * value)
        return Feature(value, scale * slope[:, None] * x.transpose(0, 1), scale.square() * laplacian)

    def _kinds(self, x: Tensor) -> Feature:
        """Which group of identical particles each belongs to."""
        kind = self.kind.T[..., None].expand(-1, -1, x.shape[2])
        flat = torch.zeros_like(kind)
        return Feature(kind, flat[:, None].expand(-1, *x.shape), flat)


def at_neighbours(x: Tensor, neighbours: Tensor) -> Tensor:
    """x (..., particle, batch) of each particle's neighbours, (..., neighbour, particle, batch)."""
    return x.index_select(-2, neighbours.flatten()).unflatten(-2, neighbours.shape)


def to_neighbours(x: Tensor, neighbours: Tensor) -> Tensor:
    """x (..., neighbour, particle, batch) added up at each neighbour, (..., particle, batch)."""
    total = x.new_zeros(*x.shape[:-3], *x.shape[-2:])
    return total.index_add(-2, neighbours.flatten(), x.flatten(-3, -2))


def _coordinates(z: Tensor, scale: Tensor) -> Feature:
    """z and sqrt(1 + z^2) - 1 for each coordinate."""
    root = (1 + z.square()).sqrt()
    laplacian = torch.cat([torch.zeros_like(z), scale.square() / root.pow(3)])
    slopes = (scale.expand_as(z), scale * z / root)
    return Feature(torch.cat([z, root - 1]), torch.cat([_diagonal(each) for each in slopes]), laplacian)


def _waves(x: Tensor, k: Tensor) -> Feature:
    """sin and cos of k x for each coordinate."""
    sin, cos = (k * x).sin(), (k * x).cos()
    value = torch.cat([sin, cos])
    return Feature(value, torch.cat([_diagonal(k * cos), _diagonal(-k * sin)]), -torch.cat([k, k]).square() * value)


def _torus(x: Tensor, k: Tensor) -> Feature:
    """sin of k x for each coordinate, and the chord sum (1 - cos k x)."""
    sin, cos = (k * x).sin(), (k * x).cos()
    jacobian = torch.cat([_diagonal(k * cos), (k * sin)[None]])
    laplacian = torch.cat([-k.square() * sin, (k.square() * cos).sum(0, keepdim=True)])
    return Feature(torch.cat([sin, (1 - cos).sum(0, keepdim=True)]), jacobian, laplacian)


def _square(x: Tensor) -> Tensor:
    """|x|^2 along the first axis."""
    return x.square().sum(0)


def _diagonal(x: Tensor) -> Tensor:
    """x (dim, ...) as the diagonal of (dim, dim, ...)."""
    return torch.diag_embed(x.movedim(0, -1), dim1=0, dim2=1)


def _concatenate(parts: list[Feature]) -> Feature:
    """Features side by side."""
    return parts[0] if len(parts) == 1 else Feature(*(torch.cat(part) for part in zip(*parts, strict=True)))
