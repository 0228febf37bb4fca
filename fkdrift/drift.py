"""Learned drifts: a permutation-equivariant particle network, read out as a vector field or as log psi.

    MLPDrift:       v_i = sigma_i A h_i(r)                       a free vector field, as in the paper
    GradientDrift:  v   = sigma^2 grad f(r),  f = sum_i w . h_i + (linear in the features)

h_i is the state of particle i after seeing its own features and the mean message from every other particle, with the
same weights for identical particles; so f is symmetric and v equivariant.  All features are smooth, and those made
from distances are flat (quadratic) at d = 0, so a network cannot spoil the cusp that a reference supplies.
Both start at v = 0: the process starts as the reference process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from fkdrift.geometry import distance
from fkdrift.shapes import PerWalker, Positions
from fkdrift.system import System


class Drift(nn.Module, ABC):
    """The learned part v(r) of a drift, on top of the reference drift: (batch, particle, dim) to the same shape."""

    @abstractmethod
    def forward(self, r: Positions) -> Positions:
        """v(r)."""


class MLPDrift(Drift):
    """A free vector field v_i = sigma_i A h_i: no log psi, so nothing forces it to be a gradient.

    Args:
        system: supplies particles, masses, length scales, groups of identical particles and the periodic box.
        width: units in each hidden layer.
        depth: number of hidden layers.

    Reference: Barr, Gispen and Lamacraft, Quantum Ground States from Reinforcement Learning, MSML 2020.
    """

    def __init__(self, system: System, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.features = Features(system, invariant=False)
        self.network = ParticleNetwork(self.features, width, depth)
        self.readout = _zeroed(nn.Linear(width, system.shape[1]))
        self.register_buffer("sigma", system.sigma)
        self.to(system.device, system.dtype)

    def forward(self, r: Positions) -> Positions:
        return self.sigma * self.readout(self.network(*self.features(r)))


class GradientDrift(Drift):
    """v = sigma^2 grad f with f = log psi - W symmetric in identical particles; at the optimum psi = phi_0.

    Args:
        system: as for MLPDrift; its reference W enters `log_psi`.
        width: units in each hidden layer.
        depth: number of hidden layers.
    """

    def __init__(self, system: System, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.features = Features(system, invariant=system.potential.isotropic)
        self.network = ParticleNetwork(self.features, width, depth)
        self.readout = _zeroed(nn.Linear(width, 1, bias=False))
        self.linear_one = _zeroed(nn.Linear(self.features.n_one, 1, bias=False))
        self.linear_pair = _zeroed(nn.Linear(self.features.n_pair, 1, bias=False))
        self.register_buffer("variance", system.sigma.square())
        self.reference = system.reference
        self.to(system.device, system.dtype)

    def correction(self, r: Positions) -> PerWalker:
        """f(r) = log psi - W, (batch,)."""
        one, pair = self.features(r)
        per_particle = self.readout(self.network(one, pair)) + self.linear_one(one)
        f = per_particle.sum((-2, -1))
        return f if pair is None else f + self.linear_pair(pair).sum((-3, -2, -1))

    def log_psi(self, r: Positions) -> PerWalker:
        """log psi(r) = W(r) + f(r), up to a constant, (batch,)."""
        f = self.correction(r)
        return f if self.reference is None else f + self.reference(r)

    def forward(self, r: Positions) -> Positions:
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            x = r if r.requires_grad else r.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.correction(x).sum(), x, create_graph=create_graph)
        return self.variance * gradient


class Features(nn.Module):
    """What a network sees of the positions, in units of the system's own centre and width.

    One-particle features, (batch, particle, n_one):
        open space: z = (r - centre) / width and sqrt(1 + z^2) - 1; around each nucleus the flat distance d^2 / (1 + d);
        a ring or torus: sin and cos of 2 pi x / L;  invariant: only flat distances from the origin and the nuclei.
    Pair features, (batch, particle, particle, n_pair), for the pair (i, j): the vector from j to i (unless invariant)
        and its flat distance; on a torus the sines of the differences and the chord distance.

    Args:
        system: the system whose scales, nuclei, box and groups are used.
        invariant: keep only features that do not change under rotation and reflection about the origin.
    """

    def __init__(self, system: System, invariant: bool) -> None:
        super().__init__()
        potential = system.potential
        (n, dim), self.periodic, self.invariant = system.shape, potential.box is not None, invariant
        self.analytic = not (potential.nuclei or potential.coalescence)
        self.register_buffer("centre", system.centre)
        self.register_buffer("width", system.width)
        self.register_buffer("wavenumber", 2 * torch.pi / system.centre.new_tensor(potential.box or [1.0]))
        points = potential.nuclei or ([(0.0,) * dim] if invariant else [])
        self.register_buffer("points", system.centre.new_tensor(points).reshape(-1, dim))
        kind = system.centre.new_zeros(n, len(potential.groups))
        for g, members in enumerate(potential.groups):
            kind[list(members), g] = 1
        self.register_buffer("kind", kind if len(potential.groups) > 1 else kind[:, :0])
        self.n_particles = n
        coordinates = 0 if invariant else 2 * dim
        self.n_one = coordinates + len(self.points)
        self.n_pair = 0 if n == 1 else 1 if invariant else dim + 1

    def forward(self, r: Positions) -> tuple[Tensor, Tensor | None]:
        """One-particle and pair features; None for pairs if there is one particle."""
        if self.periodic:
            return self._periodic(r)
        scale = self.width.mean()
        parts = []
        if not self.invariant:
            z = (r - self.centre) / self.width
            parts += [z, (1 + z.square()).sqrt() - 1]
        if len(self.points):
            parts.append(self.flat((r[..., None, :] - self.points) / scale))
        one = torch.cat(parts, -1)
        if self.n_particles == 1:
            return one, None
        difference = (r[:, :, None] - r[:, None]) / scale
        length = self.flat(difference)[..., None]
        return one, length if self.invariant else torch.cat([difference, length], -1)

    def flat(self, x: Tensor) -> Tensor:
        """A distance that is quadratic at 0 and linear far away: analytic for smooth V, d^2 / (1 + d) at cusps."""
        if self.analytic:
            return (1 + x.square().sum(-1)).sqrt() - 1
        d = distance(x)
        return d.square() / (1 + d)

    def _periodic(self, r: Positions) -> tuple[Tensor, Tensor | None]:
        angle = self.wavenumber * r
        one = torch.cat([angle.sin(), angle.cos()], -1)
        if self.n_particles == 1:
            return one, None
        difference = angle[:, :, None] - angle[:, None]
        chord = (1 - difference.cos()).sum(-1, keepdim=True)
        return one, torch.cat([difference.sin(), chord], -1)


class ParticleNetwork(nn.Module):
    """Particle states h_i (batch, particle, width) from one-particle and pair features, equivariant under exchange.

    h_i = tanh(A x_i + kind_i);  m_i = mean_{j != i} tanh(B p_ij + C h_i + D h_j);  h_i = tanh(E [h_i, m_i]);  then further
    layers h_i = tanh(F h_i).
    """

    def __init__(self, features: Features, width: int, depth: int) -> None:
        super().__init__()
        self.register_buffer("kind", features.kind)
        self.first = nn.Linear(features.n_one + features.kind.shape[1], width)
        self.interacting = features.n_particles > 1
        if self.interacting:
            self.pair = nn.Linear(features.n_pair, width)
            self.receiver = nn.Linear(width, width, bias=False)
            self.sender = nn.Linear(width, width, bias=False)
            n = features.n_particles
            self.register_buffer("weight", (1 - torch.eye(n))[..., None] / (n - 1))
        inputs = [(2 if self.interacting and k == 0 else 1) * width for k in range(depth - 1)]
        self.layers = nn.ModuleList(nn.Linear(n_in, width) for n_in in inputs)

    def forward(self, one: Tensor, pair: Tensor | None) -> Tensor:
        if self.kind.shape[1]:
            one = torch.cat([one, self.kind.expand(len(one), *self.kind.shape)], -1)
        h = self.first(one).tanh()
        if pair is not None:
            message = (self.pair(pair) + self.receiver(h)[:, :, None] + self.sender(h)[:, None]).tanh()
            h = torch.cat([h, (self.weight * message).sum(-2)], -1)
        for layer in self.layers:
            h = layer(h).tanh()
        return h


def _zeroed(linear: nn.Linear) -> nn.Linear:
    """The layer with all its parameters at zero."""
    nn.init.zeros_(linear.weight)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    return linear
