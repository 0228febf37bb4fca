"""Velocities that respect exchange of particles, rotation and reflection, for flows of bosons and clusters.

    v_i = sum_j phi(r_ij^2, t) (x_i - x_j) + chi(|x_i|^2, t) x_i                          `RadialField`
    v_i = sum_j s_ij(t) (x_i - x_j) + u_ij(t) x_i + chi(|x_i|^2, t) x_i                      `FadingField`
    v_i = sum_j phi(r_ij, h_i, h_j, t) (x_i - x_j),   h_i from messages between particles    `GraphField`

The flow of an equivariant velocity from a symmetric normal density has a symmetric density.  A radial field has its
divergence in closed form,

    div v = sum_{i != j} ( d phi + 2 r^2 phi' ) + sum_i ( d chi + 2 |x_i|^2 chi' ),     ' = d / d(r^2)

which makes second derivatives of log p affordable; the other is richer, and its divergence is differentiated.

Reference: J. Koehler, L. Klein and F. Noe, Equivariant flows, ICML 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from fkdrift.densities.continuous import Field
from fkdrift.densities.coupling import Layer
from fkdrift.densities.monotone import log_cosh
from fkdrift.numerics.geometry import distance, pair_indices
from fkdrift.numerics.networks import MLP
from fkdrift.tensor_types import PerWalker

N_TIMES = 3
TINY = 1e-20  # added to d^2: finite derivatives where d is 0
CONTACT = 1e-2  # lengths are sqrt(d^2 + CONTACT^2), in units of the flow: smooth where two particles meet


class PairField(Field):
    """What velocities of particles with pair and central forces have in common; coordinates are flat.

    Args:
        n_particles, n_dims: of the system.
        isotropic: without it the one-body force is chi_k(x_ik, t) x_ik for each dimension k on its own.
    """

    first: Tensor
    second: Tensor

    def __init__(self, n_particles: int, n_dims: int, isotropic: bool) -> None:
        super().__init__()
        self.shape, self.isotropic = (n_particles, n_dims), isotropic
        first, second = pair_indices(n_particles)
        self.register_buffer("first", torch.as_tensor(first))
        self.register_buffer("second", torch.as_tensor(second))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.with_divergence(x, t)[0]


class RadialField(PairField):
    """Pair forces and a central force, both sums of Gaussians of several widths with coefficients that depend on time.

    Coordinates are flat, (batch, particle * dim).

    Args:
        n_particles, n_dims: of the system.
        n_widths: Gaussians in phi and in chi.
        shortest, longest: their widths, in units of the coordinates.
        isotropic: without it the one-body force is chi_k(x_ik, t) x_ik for each dimension k on its own.
    """

    def __init__(
        self,
        n_particles: int,
        n_dims: int,
        *,
        n_widths: int = 6,
        shortest: float = 0.3,
        longest: float = 3.0,
        isotropic: bool = True,
    ) -> None:
        super().__init__(n_particles, n_dims, isotropic)
        widths = torch.linspace(0, 1, n_widths)
        log = math.log(shortest) + widths * math.log(longest / shortest)
        self.log_pair, self.log_one = nn.Parameter(log), nn.Parameter(log.clone())
        self.pair = nn.Parameter(torch.zeros(N_TIMES, n_widths))
        self.one = nn.Parameter(torch.zeros(N_TIMES, n_widths + 1))

    def with_divergence(self, x: Tensor, t: Tensor) -> tuple[Tensor, PerWalker]:
        n, dim = self.shape
        r = x.reshape(-1, n, dim)
        times = torch.cat([torch.ones_like(t), t, t.square()], -1)
        square = r.square().sum(-1, keepdim=True) if self.isotropic else r.square()
        chi, slope = _gaussians(square, times @ self.one, self.log_one)
        each = dim if self.isotropic else 1
        v = chi * r
        divergence = (each * chi + 2 * square * slope).sum((-2, -1))
        if n > 1:
            apart = r[:, self.first] - r[:, self.second]
            square = apart.square().sum(-1, keepdim=True)
            phi, slope = _gaussians(square, times @ self.pair, self.log_pair)
            force = phi * apart
            v = v.index_add(1, self.first, force).index_add(1, self.second, -force)
            divergence = divergence + 2 * (dim * phi + 2 * square * slope).sum((-2, -1))
        return v.flatten(1), divergence


def _gaussians(square: Tensor, coefficients: Tensor, log_widths: Tensor) -> tuple[Tensor, Tensor]:
    """sum_k c_k exp(-q / 2 l_k^2), and its derivative by q, at q = square (batch, m, n); a last c is a constant."""
    rate = 0.5 * (-2 * log_widths).exp()
    terms = torch.exp(-square[..., None] * rate) * coefficients[:, None, None, : len(rate)]
    value = terms.sum(-1)
    if coefficients.shape[-1] > len(rate):
        value = value + coefficients[:, None, None, -1]
    return value, -(terms * rate).sum(-1)


class FadingField(PairField):
    """Pair forces that depend on where the pair is, and end with it: a flow that leaves tails as they are.

        s_ij = sum_ab c_ab(t) M(r_ij / l_a) M(|x_i| / g_b) M(|x_j| / g_b),     u_ij the same with other c
        chi  = sum_a c_a(t) M(|x_i| / l_a),                                    M(y) = (1 + y) exp(-y)

    Two derivatives of M are continuous, with a |y|^3 in it: log p has what follows a cusp in the order after the next.
    Lengths are fixed, and it starts at zero.

    Args:
        n_particles, n_dims: of the system.
        lengths: l, in units of the coordinates.
        gates: g, in the same units.
        isotropic: without it the one-body force is chi_k(x_ik, t) x_ik for each dimension k on its own.
    """

    lengths: Tensor
    apart: Tensor
    gates: Tensor

    def __init__(
        self,
        n_particles: int,
        n_dims: int,
        *,
        lengths: Sequence[float] = (0.5, 0.9, 1.65, 3.0),
        gates: Sequence[float] = (0.8, 2.0, 8.0),
        isotropic: bool = True,
    ) -> None:
        super().__init__(n_particles, n_dims, isotropic)
        self.register_buffer("lengths", torch.tensor(lengths))
        self.register_buffer("apart", self.lengths.repeat(len(gates)))
        self.register_buffer("gates", torch.tensor(gates).repeat_interleave(len(lengths)))
        self.pair = nn.Parameter(torch.zeros(2, N_TIMES, len(self.apart))) if n_particles > 1 else None
        self.one = nn.Parameter(torch.zeros(N_TIMES, len(lengths)))

    def with_divergence(self, x: Tensor, t: Tensor) -> tuple[Tensor, PerWalker]:
        n, dim = self.shape
        r = x.reshape(-1, n, dim)
        times = torch.cat([torch.ones_like(t), t, t.square()], -1)
        square = r.square().sum(-1)
        along = square[..., None] if self.isotropic else r.square()
        M, slope = _matern(along, self.lengths)
        c = (times @ self.one)[:, None, None]
        chi, slope = (c * M).sum(-1), (c * slope).sum(-1)
        v = chi * r
        divergence = ((dim if self.isotropic else 1) * chi + 2 * along * slope).sum((-2, -1))
        if self.pair is not None:
            change, more = self._of_pairs(r, square, times @ self.pair[0], times @ self.pair[1])
            v, divergence = v + change, divergence + more
        return v.flatten(1), divergence

    def _of_pairs(self, r: Tensor, square: Tensor, push: Tensor, pull: Tensor) -> tuple[Tensor, PerWalker]:
        """The pair forces with coefficients c (batch, term) of s and u, and their divergence."""
        i, j, dim = self.first, self.second, self.shape[1]
        apart = r[:, i] - r[:, j]
        d2 = apart.square().sum(-1)
        G, G_slope = _matern(d2, self.apart)
        fade, fade_slope = _matern(square, self.gates)
        both = fade[:, i] * fade[:, j]
        s, u = ((c[:, None] * G * both).sum(-1) for c in (push, pull))
        force, drawn = s[..., None] * apart, u[..., None]
        v = torch.zeros_like(r).index_add(1, i, force + drawn * r[:, i]).index_add(1, j, drawn * r[:, j] - force)
        by_distance = ((4 * push + 2 * pull)[:, None] * G_slope * both).sum(-1)
        divergence = 2 * dim * (s + u) + d2 * by_distance
        for k, other in ((i, j), (j, i)):
            slope = 2 * G * fade_slope[:, k] * fade[:, other]
            across = (d2 + square[:, k] - square[:, other]) / 2  # (x_k - x_other) . x_k
            divergence = (
                divergence + across * (push[:, None] * slope).sum(-1) + square[:, k] * (pull[:, None] * slope).sum(-1)
            )
        return v, divergence.sum(-1)


def _matern(square: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """(1 + y) exp(-y) at y = d / l, and its derivative by q, at q = d^2 = square (...), with l along a last axis."""
    y = (square[..., None] + TINY).sqrt() / lengths
    e = torch.exp(-y)
    return (1 + y) * e, -e / (2 * lengths.square())


class RadialTail(Layer):
    """`Tail` of the distance |x_i| of every particle from the centre: equivariant under exchange and rotation.

        z_i = x_i (l / delta d) sinh(delta asinh(d / l)),     d = |x_i|

    Args:
        n_dims: of a particle.
        power: (group,) delta to start from, above zero; 1 is the identity.
        length: (group,) l to start from.
        group: (particle,) which delta and l each particle has.
    """

    group: Tensor

    def __init__(self, n_dims: int, power: Tensor, length: Tensor, group: Tensor) -> None:
        super().__init__()
        self.n_dims = n_dims
        self.register_buffer("group", group)
        self.log_power, self.log_length = nn.Parameter(power.log()), nn.Parameter(length.log())

    def forward(self, x: Tensor) -> tuple[Tensor, PerWalker]:
        r = x.unflatten(1, (-1, self.n_dims))
        delta, u = self._of_each(r)
        y = delta * torch.asinh(u)
        stretch = torch.sinh(y) / (delta * u)
        log_slope = log_cosh(y) - 0.5 * torch.log1p(u.square())
        return (stretch[..., None] * r).flatten(1), (log_slope + (self.n_dims - 1) * stretch.log()).sum(-1)

    def inverse(self, z: Tensor) -> Tensor:
        r = z.unflatten(1, (-1, self.n_dims))
        delta, u = self._of_each(r)
        stretch = torch.sinh(torch.asinh(delta * u) / delta) / u
        return (stretch[..., None] * r).flatten(1)

    def _of_each(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """delta (particle,) and |r| / l (batch, particle)."""
        return self.log_power.exp()[self.group], distance(r) / self.log_length.exp()[self.group]


class GraphField(Field):
    """An equivariant graph network: pair forces from messages that particles have passed in several rounds.

        m_ij = M_l( h_i + h_j, h_i h_j, d_ij, t ),      h_i <- h_i + H_l( sum_j m_ij ),      l = 1 ... L
        v_i  = sum_l sum_j F_l( m_ij ) (x_i - x_j) / (1 + d_ij)

    It starts at zero, and the mean of x stays at rest.

    Args:
        n_particles, n_dims: of the system.
        n_layers: L.
        width: of messages and states.
        n_features: Gaussians of the distance that the network sees.
        reach: largest distance that they resolve, in units of the coordinates.

    Reference: V. Garcia Satorras, E. Hoogeboom and M. Welling, E(n) equivariant graph neural networks, ICML 2021.
    """

    first: Tensor
    second: Tensor
    centres: Tensor

    def __init__(
        self,
        n_particles: int,
        n_dims: int,
        *,
        n_layers: int = 3,
        width: int = 48,
        n_features: int = 24,
        reach: float = 6.0,
    ) -> None:
        super().__init__()
        self.shape, self.width = (n_particles, n_dims), width
        first, second = pair_indices(n_particles)
        self.register_buffer("first", torch.as_tensor(first))
        self.register_buffer("second", torch.as_tensor(second))
        self.register_buffer("centres", torch.linspace(0, reach, n_features))
        self.seen = nn.Linear(n_features + 5, n_layers * width)
        self.around = nn.ModuleList(nn.Linear(2 * width, width, bias=False) for _ in range(n_layers - 1))
        self.message = nn.ModuleList(nn.Linear(width, width) for _ in range(n_layers))
        self.state = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(n_layers - 1)
        )
        self.force = nn.ModuleList(MLP(width, (width,), 1, gain=0.0) for _ in range(n_layers))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        n, dim = self.shape
        r = x.reshape(-1, n, dim)
        apart = r[:, self.first] - r[:, self.second]
        distance = (apart.square().sum(-1, keepdim=True) + CONTACT**2).sqrt()
        spacing = self.centres[1] - self.centres[0]
        waves = torch.cat([t, (torch.pi * t).sin(), (torch.pi * t).cos(), (2 * torch.pi * t).sin()], -1)
        features = torch.exp(-0.5 * ((distance - self.centres) / spacing).square())
        waves = waves[:, None].expand(-1, distance.shape[1], -1)
        seen = self.seen(torch.cat([features, distance / self.centres[-1], waves], -1)).chunk(len(self.force), -1)
        h, strength = torch.zeros(()), torch.zeros_like(distance)
        for k, force in enumerate(self.force):
            before = seen[k]
            if k > 0:
                one, other = h[:, self.first], h[:, self.second]
                before = before + self.around[k - 1](torch.cat([one + other, one * other], -1))
            message = silu(self.message[k](silu(before)))
            strength = strength + force(message)
            if k < len(self.state):
                total = message.new_zeros(len(r), n, self.width)
                total = total.index_add(1, self.first, message).index_add(1, self.second, message)
                h = h + self.state[k](total)
        pull = strength * apart / (1 + distance)
        v = torch.zeros_like(r).index_add(1, self.first, pull).index_add(1, self.second, -pull)
        return v.flatten(1)
