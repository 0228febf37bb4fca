"""Learned drifts: one permutation-equivariant particle network, read out as a vector field or as log psi.

    NeuralVectorField:   v_i = sigma_i A h_i(r)                       a free vector field, as in the paper
    NeuralWavefunction:  v   = sigma^2 grad f(r),   f = sum_i ( w . h_i + a . x_i + sum_j b . p_ij )

h_i is the state of particle i after its own features x_i and the mean message from every other particle, with the same
weights for identical particles; so f is symmetric and v equivariant.  Both start at v = 0: the reference process.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fkdrift.hamiltonian.system import System
from fkdrift.hamiltonian.trial_function import Derivatives
from fkdrift.numerics.geometry import distance
from fkdrift.tensor_types import PerWalker, Positions
from fkdrift.wavefunction.features import Feature, Features, at_neighbours, to_neighbours
from fkdrift.wavefunction.protocol import Drift


class NeuralVectorField(Drift):
    """A free vector field v_i = sigma_i A h_i: no log psi, so nothing forces it to be a gradient.

    Args:
        system: supplies particles, masses, length scales, groups of identical particles and the periodic box.
        width: units in each hidden layer.
        depth: number of hidden layers.

    Reference: Barr, Gispen and Lamacraft, Quantum Ground States from Reinforcement Learning, MSML 2020.
    """

    sigma: Tensor

    def __init__(self, system: System, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.features = Features(system, invariant=False)
        self.network = ParticleNetwork(self.features, width, depth)
        self.readout = _zeroed(nn.Linear(width, system.shape[1]))
        self.register_buffer("sigma", system.sigma)
        self.at_rest = system.at_rest
        self.to(system.device, system.dtype)

    def forward(self, r: Positions) -> Positions:
        states = self.network(*self.features(r))
        return self.sigma * self.at_rest(self.readout(states.hidden[-1]).transpose(0, 1))


class NeuralWavefunction(Drift):
    """v = sigma^2 grad f with f = log psi - W symmetric in identical particles; at the optimum psi = phi_0.

    The gradient is a hand-written reverse pass, and the Laplacian a forward one, both as plain matrix products.

    Args:
        system: as for NeuralVectorField; its trial function, W, enters `log_psi`.
        width: units in each hidden layer.
        depth: number of hidden layers.
    """

    variance: Tensor

    def __init__(self, system: System, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.features = Features(system, invariant=system.potential.isotropic)
        self.network = ParticleNetwork(self.features, width, depth)
        self.readout = _zeroed(nn.Linear(width, 1, bias=False))
        self.linear_one = _zeroed(nn.Linear(self.features.n_one, 1, bias=False))
        self.linear_pair = _zeroed(nn.Linear(self.features.n_pair, 1, bias=False)) if self.features.n_pair else None
        self.register_buffer("variance", system.sigma.square())
        self.trial_function = system.trial_function
        self.numbers_per_walker = system.shape[0] * system.shape[0] * system.shape[1] * width
        self.to(system.device, system.dtype)

    def forward(self, r: Positions) -> Positions:
        return self.variance * self.value_and_gradient(r)[1]

    def log_jastrow(self, r: Positions) -> PerWalker:
        """f(r) = log psi - W, (batch,)."""
        one, pair = self.features(r)
        return self._value(one, pair, self.network(one, pair))

    def log_psi(self, r: Positions) -> PerWalker:
        """log psi(r) = W(r) + f(r), up to a constant, (batch,)."""
        f = self.log_jastrow(r)
        return f if self.trial_function is None else f + self.trial_function(r)

    def value_and_gradient(self, r: Positions) -> tuple[PerWalker, Positions]:
        """f and its gradient (batch, particle, dim), by one forward and one reverse pass."""
        one, pair = self.features(r)
        states = self.network(one, pair)
        return self._value(one, pair, states), self.gradient_of(one, pair, self._reverse(states))

    @torch.no_grad()
    def derivatives(self, r: Positions) -> Derivatives:
        """f, grad f and the Laplacian of f already summed with weights: laplacian.sum(-1) = sum_i sigma_i^2 lap_i f.

            lap f = sum_z (d f / d z) (-2 tanh z) |grad z|^2  +  sum_x (d f / d x) lap x

        over the arguments z of all tanh and the features x: first derivatives are enough.
        """
        one, pair = self.features(r)
        states = self.network(one, pair)
        by = self._reverse(states)
        variance = self.variance
        laplacian = variance * (one.laplacian * by.one).sum(0)
        if pair is not None and by.pair is not None:
            both = variance + variance[self.features.neighbours]
            laplacian += (both * (pair.laplacian * by.pair).sum(0)).sum(0)
        laplacian += self.network.curvature(states, by, one, pair, variance.sqrt()[:, 0])
        return Derivatives(self._value(one, pair, states), self.gradient_of(one, pair, by), laplacian.T)

    def sample(self, n: int, generator: torch.Generator) -> None:
        """Nothing: only a Markov chain can draw from |psi|^2, `fkdrift.wavefunction.metropolis`."""

    def _value(self, one: Feature, pair: Feature | None, states: States) -> PerWalker:
        f = self.readout(states.hidden[-1])[..., 0].sum(0) + _linear(one.value, _rows(self.linear_one))[..., 0].sum(0)
        if pair is None or self.linear_pair is None:
            return f
        return f + _linear(pair.value, _rows(self.linear_pair))[..., 0].sum((0, 1))

    def _reverse(self, states: States) -> Reverse:
        """d f by everything that it was computed from."""
        by = self.network.reverse(states, self.readout.weight[0])
        one, pair = by.one + self.linear_one.weight[0][:, None, None], by.pair
        if pair is not None and self.linear_pair is not None:
            pair = pair + self.linear_pair.weight[0][:, None, None, None]
        return by._replace(one=one, pair=pair)

    def gradient_of(self, one: Feature, pair: Feature | None, by: Reverse) -> Positions:
        """grad f (batch, particle, dim) from derivatives by features."""
        gradient = (one.jacobian * by.one[:, None]).sum(0)
        if pair is not None and by.pair is not None:
            force = (pair.jacobian * by.pair[:, None]).sum(0)
            gradient = gradient + force.sum(1) - to_neighbours(force, self.features.neighbours)
        return gradient.permute(2, 1, 0)


class States(NamedTuple):
    """What a forward pass leaves behind: messages (neighbour, particle, batch, width) and each layer's states
    (particle, batch, width)."""

    message: Tensor | None
    hidden: list[Tensor]


class Reverse(NamedTuple):
    """What a reverse pass leaves behind: derivatives of f by features, and of f by the arguments z of all tanh.

    Args:
        one, pair: d f / d x_i (n_one, particle, batch) and d f / d p_ij (n_pair, neighbour, particle, batch).
        message, hidden: d f / d z, of the shapes in `States`.
    """

    one: Tensor
    pair: Tensor | None
    message: Tensor | None
    hidden: list[Tensor]


class ParticleNetwork(nn.Module):
    """Particle states from one-particle and pair features, equivariant under exchange.

        m_i = mean_{j != i} tanh(P p_ij + R x_i + S x_j + c)
        h_i = tanh(A x_i + M m_i + b),   then   h_i = tanh(L h_i + l)   for each further layer

    A pair's message depends on two positions only, so all first derivatives of the states fit in one tensor
    (dim * particle, particle, batch, width), and an evaluation costs O(N^2).
    """

    def __init__(self, features: Features, width: int, depth: int) -> None:
        super().__init__()
        self.first = nn.Linear(features.n_one, width)
        self.layers: list[nn.Linear] = [nn.Linear(width, width) for _ in range(depth - 1)]
        self.deep = nn.ModuleList(self.layers)
        self.neighbours, self.n_directions = features.neighbours, features.n_directions
        if features.n_pair:
            self.pair = nn.Linear(features.n_pair, width)
            self.receiver = nn.Linear(features.n_one, width, bias=False)
            self.sender = nn.Linear(features.n_one, width, bias=False)
            self.mean = nn.Linear(width, width, bias=False)

    def forward(self, one: Feature, pair: Feature | None) -> States:
        twice, message = _linear(one.value, _rows(self.first), self.first.bias, scale=2), None
        if pair is not None:
            x = torch.cat([pair.value, *self.of_both(one.value)])
            message = _tanh(_linear(x, self._message_rows(), self.pair.bias, scale=2))
            twice = twice + message.sum(0) @ (2 * self.mean.weight.T / len(message))
        hidden = [_tanh(twice)]
        for layer in self.layers:
            h = hidden[-1]
            z = torch.addmm(layer.bias, h.flatten(0, 1), layer.weight.T, beta=2, alpha=2)
            hidden.append(_tanh(z.view_as(h)))
        return States(message, hidden)

    def reverse(self, states: States, by_state: Tensor) -> Reverse:
        """From d f / d h_i of the last layer to d f by all before."""
        hidden = [_by_argument(by_state, states.hidden[-1])]
        for layer, h in zip(reversed(self.layers), reversed(states.hidden[:-1]), strict=True):
            hidden.append(_by_argument(hidden[-1] @ layer.weight, h))
        by_one, message = _pulled(hidden[-1], _rows(self.first)), states.message
        if message is None:
            return Reverse(by_one, None, None, hidden[::-1])
        by_message = _by_argument(hidden[-1] @ (self.mean.weight / len(message)), message)
        by_one, by_pair = self.split_features(by_one, _pulled(by_message, self._message_rows()))
        return Reverse(by_one, by_pair, by_message, hidden[::-1])

    def split_features(self, by_one: Tensor, by_all: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives by one-particle and pair features, from those by x_i and by all that messages see."""
        n_one = len(by_one)
        by_pair, by_receiver, by_sender = by_all.split([len(by_all) - 2 * n_one, n_one, n_one])
        return by_one + by_receiver.sum(1) + to_neighbours(by_sender, self.neighbours), by_pair

    def curvature(self, states: States, by: Reverse, one: Feature, pair: Feature | None, sigma: Tensor) -> Tensor:
        """sum_z (d f / d z) (-2 tanh z) sum_k sigma_k^2 |grad_k z|^2 over the z of each particle, (particle, batch).

        One direction after the other goes through all layers, in tensors of a layer's size that stay in the cache.

        Args:
            states, by: of a forward and a reverse pass.
            one, pair: the features.
            sigma: (particle,).
        """
        jacobian = sigma[:, None] * one.jacobian
        squares = [torch.zeros_like(h) for h in states.hidden]
        slopes = [1 - h.square() for h in states.hidden[:-1]]
        own = [_linear(each, _rows(self.first)) for each in jacobian.unbind(1)]
        if pair is None:
            self._through(own, slopes, squares)
            return -2 * _weighted(squares, states.hidden, by.hidden)
        assert states.message is not None
        assert by.message is not None
        mean, rows = self.mean.weight.T / len(self.neighbours), self._message_rows()
        rows, receiver, sender = rows.split([len(pair.value), len(jacobian), len(jacobian)])
        here, there = self.of_both(jacobian)
        here = torch.cat([sigma[:, None] * pair.jacobian, here])
        there = self._in_plane(torch.cat([-sigma[self.neighbours][..., None] * pair.jacobian, there]), len(rows))
        receiver, sender = torch.cat([rows, receiver]), torch.cat([rows, sender])
        changes = [torch.zeros_like(each) for each in own]
        total = torch.zeros_like(one.laplacian[0])
        for j, message in enumerate(states.message):
            slope, square = 1 - message.square(), torch.zeros_like(message)
            for direction, change in zip(here[:, :, j].unbind(1), changes, strict=True):
                tangent = _linear(direction, receiver)
                square.addcmul_(tangent, tangent)
                change.addcmul_(tangent, slope)
            for direction in there[:, :, j].unbind(1):
                tangent = _linear(direction, sender)
                square.addcmul_(tangent, tangent)
                self._through([tangent.mul_(slope) @ mean], slopes, squares)
            total += _weighted([square], [message], [by.message[j]])
        self._through([each.add_(change @ mean) for each, change in zip(own, changes, strict=True)], slopes, squares)
        return -2 * (total + _weighted(squares, states.hidden, by.hidden))

    def _through(self, tangents: list[Tensor], slopes: list[Tensor], squares: list[Tensor]) -> None:
        """Add the squares of derivatives of all layers' z, from those of the first layer, which are overwritten."""
        for tangent in tangents:
            squares[0].addcmul_(tangent, tangent)
            for layer, slope, square in zip(self.layers, slopes, squares[1:], strict=True):
                tangent = tangent.mul_(slope) @ layer.weight.T
                square.addcmul_(tangent, tangent)

    def _in_plane(self, jacobian: Tensor, n_pair: int) -> Tensor:
        """Gradients of features by the position of a sender in coordinates of the plane that they lie in.

        Only products of them are needed, so any orthonormal coordinates do: along the line of the pair, and across it.

        Args:
            jacobian: (feature, dim, neighbour, particle, batch), of n_pair pair features and of the sender's own.
            n_pair: how many of them have the direction of the pair.
        """
        if self.n_directions > 2 or self.n_directions == jacobian.shape[1]:
            return jacobian
        along = (jacobian * (jacobian[0] / distance(jacobian[0], 0))).sum(1, keepdim=True)
        if self.n_directions == 1:
            return along
        across = torch.zeros_like(along)
        own = jacobian[n_pair:].square().sum(1, keepdim=True) - along[n_pair:].square()
        torch.sqrt(own.clamp_min_(0), out=across[n_pair:])
        return torch.cat([along, across], 1)

    def _message_rows(self) -> Tensor:
        """(P R S) as rows, (n_pair + 2 n_one, width)."""
        return torch.cat([self.pair.weight, self.receiver.weight, self.sender.weight], 1).T.contiguous()

    def of_both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (..., particle, batch) of the receiver and of the sender of every message."""
        n = len(self.neighbours)
        return x.unsqueeze(-3).expand(*x.shape[:-2], n, *x.shape[-2:]), at_neighbours(x, self.neighbours)


def _rows(linear: nn.Linear) -> Tensor:
    """The weights with a row for each feature: what it takes for a fast gradient by them."""
    return linear.weight.T.contiguous()


def _linear(x: Tensor, rows: Tensor, bias: Tensor | None = None, scale: int = 1) -> Tensor:
    """A linear map of features x (feature, ..., batch) to (..., batch, unit), times a scale where there is a bias."""
    x, shape = x.flatten(1).T, (*x.shape[1:], rows.shape[1])
    return (x @ rows if bias is None else torch.addmm(bias, x, rows, beta=scale, alpha=scale)).view(shape)


def _pulled(by_unit: Tensor, rows: Tensor) -> Tensor:
    """Derivatives by units (..., batch, unit) pulled back to the features (feature, ..., batch) of a linear map."""
    return (rows @ by_unit.flatten(0, -2).T).unflatten(1, by_unit.shape[:-1])


def _tanh(twice: Tensor) -> Tensor:
    """tanh z from 2 z, which is overwritten where gradients are off, by the logistic function, which costs half."""
    if torch.is_grad_enabled():
        return 2 * twice.sigmoid() - 1
    return torch.add(twice.new_full((), -1.0), twice.sigmoid_(), alpha=2, out=twice)


def _by_argument(by_state: Tensor, h: Tensor) -> Tensor:
    """From derivatives by h = tanh z to those by z, times 1 - h^2."""
    return torch.ops.aten.tanh_backward(by_state.expand_as(h), h)


def _weighted(squares: list[Tensor], hidden: list[Tensor], by: list[Tensor]) -> Tensor:
    """sum_z (d f / d z) tanh z |grad z|^2 over units and layers, (particle, batch)."""
    terms = [(square.mul_(h) * g).sum(-1) for square, h, g in zip(squares, hidden, by, strict=True)]
    return torch.stack(terms).sum(0)


def _zeroed(linear: nn.Linear) -> nn.Linear:
    """The layer with all its parameters at zero."""
    nn.init.zeros_(linear.weight)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    return linear
