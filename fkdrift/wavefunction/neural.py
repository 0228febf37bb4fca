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
from fkdrift.tensor_types import PerWalker, Positions
from fkdrift.wavefunction.features import Feature, Features, at_neighbours
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
        states = self.network(self.features.one(r), self.features.pair(r) if self.features.n_pair else None)
        return self.sigma * self.at_rest(self.readout(states.hidden[-1]))


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
        one, pair = self._features(r)
        return self._value(one, pair, self.network(one, pair))

    def log_psi(self, r: Positions) -> PerWalker:
        """log psi(r) = W(r) + f(r), up to a constant, (batch,)."""
        f = self.log_jastrow(r)
        return f if self.trial_function is None else f + self.trial_function(r)

    def value_and_gradient(self, r: Positions) -> tuple[PerWalker, Positions]:
        """f and its gradient (batch, particle, dim), by one forward and one reverse pass."""
        one, pair = self._features(r)
        states = self.network(one, pair)
        by_state = self.readout.weight[0].expand_as(states.hidden[-1])
        by_one, by_pair = self.network.reverse(states, by_state)
        gradient = _contract(one.jacobian, by_one + self.linear_one.weight[0])
        if pair is not None and by_pair is not None and self.linear_pair is not None:
            force = _contract(pair.jacobian, by_pair + self.linear_pair.weight[0])
            gradient = gradient + force.sum(2) - self._to_neighbours(force)
        return self._value(one, pair, states), gradient

    @torch.no_grad()
    def derivatives(self, r: Positions) -> Derivatives:
        """f, grad f and the Laplacian of f already summed with weights: laplacian.sum(-1) = sum_i sigma_i^2 lap_i f.

        Not differentiable: large tensors are overwritten where they are no longer needed.
        """
        one, pair = self._features(r)
        sigma = self.variance.sqrt()
        states = self.network(one, pair)
        tangent = self.network.tangent(states, one, pair, sigma[:, 0])
        by_state = tangent.slope * self.readout.weight[0]
        own = _contract(tangent.own, by_state) / sigma + one.jacobian @ self.linear_one.weight[0]
        laplacian = tangent.laplacian @ self.readout.weight[0]
        laplacian = laplacian + self.variance[:, 0] * (one.laplacian @ self.linear_one.weight[0])
        if pair is not None and tangent.others is not None and self.linear_pair is not None:
            weight = self.linear_pair.weight[0]
            force = pair.jacobian @ weight
            others = _contract(tangent.others.flatten(2, 3), by_state).view(force.shape)
            own = own + force.sum(2) + self._to_neighbours(others / sigma[self.features.neighbours] - force)
            variance = self.variance[:, 0, None] + self.variance[self.features.neighbours, 0]
            laplacian = laplacian + (variance * (pair.laplacian @ weight)).sum(-1)
        return Derivatives(self._value(one, pair, states), own, laplacian)

    def sample(self, n: int, generator: torch.Generator) -> None:
        """Nothing: only a Markov chain can draw from |psi|^2, `fkdrift.wavefunction.metropolis`."""

    def _features(self, r: Positions) -> tuple[Feature, Feature | None]:
        return self.features.one(r), self.features.pair(r) if self.features.n_pair else None

    def _value(self, one: Feature, pair: Feature | None, states: States) -> PerWalker:
        f = (self.readout(states.hidden[-1]) + self.linear_one(one.value)).sum((-2, -1))
        if pair is None or self.linear_pair is None:
            return f
        return f + self.linear_pair(pair.value).sum((-3, -2, -1))

    def _to_neighbours(self, x: Tensor) -> Tensor:
        """Add x (batch, particle, particle - 1, dim) up at each neighbour."""
        total = x.new_zeros(len(x), x.shape[1], x.shape[3])
        return total.index_add(1, self.features.neighbours.flatten(), x.flatten(1, 2))


class States(NamedTuple):
    """What a forward pass leaves behind: messages (batch, particle, particle - 1, width) and each layer's states."""

    message: Tensor | None
    hidden: list[Tensor]


class Tangent(NamedTuple):
    """Derivatives of the last layer's states h_i = tanh(z_i) in the coordinates r / sigma.

    Args:
        own: d z_i / d r_i times sigma_i, (batch, particle, dim, width).
        others: d z_i / d r_j times sigma_j for the neighbours j, (batch, particle, particle - 1, dim, width).
        slope: d h_i / d z_i, (batch, particle, width).
        laplacian: sum_k sigma_k^2 lap_k h_i over all particles k, (batch, particle, width).
    """

    own: Tensor
    others: Tensor | None
    slope: Tensor
    laplacian: Tensor


class ParticleNetwork(nn.Module):
    """Particle states from one-particle and pair features, equivariant under exchange.

        m_i = mean_{j != i} tanh(P p_ij + R x_i + S x_j + c)
        h_i = tanh(A x_i + M m_i + b),   then   h_i = tanh(L h_i + l)   for each further layer

    A pair's message depends on two positions only, so all first derivatives of the states fit in one tensor
    (batch, particle, particle, dim, width), and an evaluation costs O(N^2).
    """

    def __init__(self, features: Features, width: int, depth: int) -> None:
        super().__init__()
        self.first = nn.Linear(features.n_one, width)
        self.layers: list[nn.Linear] = [nn.Linear(width, width) for _ in range(depth - 1)]
        self.deep = nn.ModuleList(self.layers)
        self.neighbours = features.neighbours
        self.interacting = features.n_pair > 0
        if self.interacting:
            self.pair = nn.Linear(features.n_pair, width)
            self.receiver = nn.Linear(features.n_one, width, bias=False)
            self.sender = nn.Linear(features.n_one, width, bias=False)
            self.mean = nn.Linear(width, width, bias=False)

    def forward(self, one: Feature, pair: Feature | None) -> States:
        z, message = self.first(one.value), None
        if pair is not None:
            sender = at_neighbours(self.sender(one.value), self.neighbours)
            message = _tanh(self.pair(pair.value) + self.receiver(one.value)[:, :, None] + sender)
            z = z + self.mean(message.mean(2))
        hidden = [_tanh(z)]
        for layer in self.layers:
            hidden.append(_tanh(layer(hidden[-1])))
        return States(message, hidden)

    def reverse(self, states: States, by_state: Tensor) -> tuple[Tensor, Tensor | None]:
        """From d f / d h_i to d f / d x_i (batch, particle, n_one) and d f / d p_ij."""
        for layer, h in zip(reversed(self.layers), reversed(states.hidden[1:]), strict=True):
            by_state = (by_state * (1 - h.square())) @ layer.weight
        by_first = by_state * (1 - states.hidden[0].square())
        by_one = by_first @ self.first.weight
        if states.message is None:
            return by_one, None
        by_message = (by_first @ self.mean.weight)[:, :, None] * (1 - states.message.square()) / states.message.shape[2]
        sent = torch.zeros_like(by_first).index_add(1, self.neighbours.flatten(), by_message.flatten(1, 2))
        by_one = by_one + by_message.sum(2) @ self.receiver.weight + sent @ self.sender.weight
        return by_one, by_message @ self.pair.weight

    def tangent(self, states: States, one: Feature, pair: Feature | None, sigma: Tensor) -> Tangent:
        """Forward pass of first derivatives and of the Laplacian in the coordinates r / sigma, sigma (particle,)."""
        jacobian = sigma[:, None, None] * one.jacobian
        own = jacobian @ self.first.weight.T
        laplacian = (sigma.square()[:, None] * one.laplacian) @ self.first.weight.T
        others = None
        if pair is not None and states.message is not None:
            mean = self.mean.weight.T / states.message.shape[2]
            by_receiver, by_sender, of_message = self._message_tangent(states.message, jacobian, one, pair, sigma)
            own, others, laplacian = own + by_receiver @ mean, by_sender @ mean, laplacian + of_message @ mean
        slopes = [1 - h.square() for h in states.hidden]
        for k, (h, slope) in enumerate(zip(states.hidden, slopes, strict=True)):
            if k > 0:
                weight, before = self.layers[k - 1].weight.T, slopes[k - 1]
                own, laplacian = own.mul_(before[:, :, None]) @ weight, laplacian @ weight
                others = None if others is None else others.mul_(before[:, :, None, None]) @ weight
            square = own.square().sum(-2)
            if others is not None:
                square = square + others.flatten(2, 3).square().sum(2)
            laplacian = slope * (laplacian - 2 * h * square)
        return Tangent(own, others, slopes[-1], laplacian)

    def _message_tangent(
        self, message: Tensor, jacobian: Tensor, one: Feature, pair: Feature, sigma: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Derivatives of the messages: by their receiver's position, summed over senders; by their sender's, each; and
        their Laplacian, summed over senders."""
        here, there, weight = sigma[:, None, None], sigma[self.neighbours][..., None], self.pair.weight.T
        of_pair = pair.jacobian @ weight
        by_sender = at_neighbours(jacobian @ self.sender.weight.T, self.neighbours)
        by_sender = by_sender.addcmul_(there[..., None], of_pair, value=-1)
        by_receiver = of_pair.mul_(here[..., None]).add_((jacobian @ self.receiver.weight.T)[:, :, None])
        square = by_receiver.square().sum(-2) + by_sender.square().sum(-2)
        of_one = sigma.square()[:, None] * one.laplacian
        laplacian = (here.square() + there.square()) * (pair.laplacian @ weight)
        laplacian = laplacian + (of_one @ self.receiver.weight.T)[:, :, None]
        laplacian = laplacian + at_neighbours(of_one @ self.sender.weight.T, self.neighbours)
        slope = 1 - message.square()
        laplacian = (slope * (laplacian - 2 * message * square)).sum(2)
        slope = slope[..., None, :]
        return by_receiver.mul_(slope).sum(2), by_sender.mul_(slope), laplacian


def _tanh(z: Tensor) -> Tensor:
    """tanh; where nothing will be differentiated by way of the logistic function, which costs a third."""
    return z.tanh() if torch.is_grad_enabled() else (2 * z).sigmoid_().mul_(2).sub_(1)


def _contract(jacobian: Tensor, by_feature: Tensor) -> Tensor:
    """Chain rule through features: (..., dim, feature) and (..., feature) to (..., dim)."""
    return (jacobian @ by_feature[..., None])[..., 0]


def _zeroed(linear: nn.Linear) -> nn.Linear:
    """The layer with all its parameters at zero."""
    nn.init.zeros_(linear.weight)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    return linear
