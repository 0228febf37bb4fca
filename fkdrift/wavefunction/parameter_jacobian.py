"""How f and grad f of a network change with its parameters: products with the Jacobian and with its transpose.

With z the arguments of a layer's tanh, h = tanh z and g = df/dz,

    J p      up: dz = dW x + W dx,  dh = (1 - h^2) dz        down: dg = (1 - h^2) (dW^T g + W^T dg) - 2 h g dz
    J^T c    up: z' = W x',         h' = (1 - h^2) z'        down: e = (1 - h^2) W^T e - 2 h g z',  then e x^T + g x'^T

where primes are derivatives along the cotangents of grad f, e is the derivative by z of what is pulled back, and the
last sum that by W.  Training a network is mostly these products; automatic differentiation takes twice the time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fkdrift.tensor_types import PerWalker, Positions
from fkdrift.wavefunction.features import at_neighbours
from fkdrift.wavefunction.neural import NeuralWavefunction, Reverse

MESSAGE = ("pair", "receiver", "sender")
"""The linear maps that a message is made of, one for each part of what it sees."""


class LayerWeights(NamedTuple):
    """Parameters of a layer, a change of them, or derivatives by them.

    Args:
        maps: (input, width), of the features that it sees and of the states of the layer below, where it has them.
        bias: (width,).
    """

    maps: list[Tensor]
    bias: Tensor


class FixedLayer(NamedTuple):
    """A layer at fixed positions.  A row is a particle of a walker; a message has a copy for each neighbour.

    Args:
        weights: its parameters.
        inputs: for each of the maps (copy row, input); states of the layer below are summed over copies.
        slope, by, bend: 1 - h^2, g = df/dz and -2 h g, (copy, row, width).
    """

    weights: LayerWeights
    inputs: list[Tensor]
    slope: Tensor
    by: Tensor
    bend: Tensor


class ParameterJacobian:
    """J = d (f, grad f) / d theta at positions r, for the parameters as they are now.

    Args:
        psi: the network; theta are its parameters in the order of `psi.parameters()`.
        r: positions (batch, particle, dim).

    Example:
        >>> psi = fk.NeuralWavefunction(fk.System(fk.load_potential("helium")))
        >>> J = ParameterJacobian(psi, torch.randn(5, 2, 3, generator=g))
        >>> f, gradient = J.push(torch.ones(sum(p.numel() for p in psi.parameters())))
        >>> f.shape, gradient.shape, J.pull(f, gradient).shape
        (torch.Size([5]), torch.Size([5, 2, 3]), torch.Size([2306]))
    """

    @torch.no_grad()
    def __init__(self, psi: NeuralWavefunction, r: Positions) -> None:
        self.psi, self.network = psi, psi.network
        self.parameters = {name: parameter.detach() for name, parameter in psi.named_parameters()}
        self.one, self.pair = psi.features(r)
        self.n_rows = self.one.value[0].numel()
        values = {"linear_one.weight": self.one.value}
        if self.pair is not None:
            values["linear_pair.weight"] = self.pair.value
        self.linear = {name: x.flatten(1, -2).sum(1) for name, x in values.items()}
        states = self.network(self.one, self.pair)
        by = self.network.reverse(states, psi.readout.weight[0])
        arrays = list(zip(states.hidden, by.hidden, strict=True))
        if states.message is not None and by.message is not None:
            arrays.insert(0, (states.message, by.message))
        below: list[Tensor] = []
        self.layers: list[FixedLayer] = []
        for weights, x, (h, g) in zip(
            self._by_layer(self.parameters), self._seen([*values.values()]), arrays, strict=True
        ):
            h, g = self._rows(h), self._rows(g)
            self.layers.append(FixedLayer(weights, x + below, 1 - h * h, g, -2 * h * g))
            below = [_summed(h)]
        (self.top,) = below

    @torch.no_grad()
    def push(self, p: Tensor) -> tuple[PerWalker, Positions]:
        """J p, the changes of f (batch,) and of grad f (batch, particle, dim) with theta."""
        sizes = [each.numel() for each in self.parameters.values()]
        d = {k: x.view_as(w) for (k, w), x in zip(self.parameters.items(), p.split(sizes), strict=True)}
        changes, below = self._by_layer(d), self.top
        arguments: list[Tensor] = []
        for k, (layer, (maps, dz)) in enumerate(zip(self.layers, changes, strict=True)):
            for x, dW in zip(layer.inputs, maps, strict=True):
                dz = torch.addmm(dz, x, dW)
            if k > 0:
                dz.addmm_(below, layer.weights.maps[-1])
            arguments.append(self._rows(dz))
            below = _summed(layer.slope * arguments[-1])
        by_state, by_seen = d["readout.weight"][0], []
        by_row = self.top.mv(by_state).addmv_(below, self.parameters["readout.weight"][0])
        f = by_row.view(-1, self.one.value.shape[-1]).sum(0)
        for name, x in self.linear.items():
            f += d[name][0] @ x
        for k, layer in reversed(list(enumerate(self.layers))):
            dg = torch.addcmul(layer.bend * arguments[k], layer.slope, by_state).flatten(0, 1)
            g, change, W = layer.by.flatten(0, 1), changes[k].maps, layer.weights.maps
            if k < len(self.linear):
                by_seen.append(torch.addmm(change[0] @ g.T, W[0], dg.T))
            if k > 0:
                by_state = torch.addmm(g @ change[-1].T, dg, W[-1].T)
        return f, self._gradient(by_seen, d)

    @torch.no_grad()
    def pull(self, by_f: PerWalker, by_gradient: Positions) -> Tensor:
        """J^T c, (parameter,), from cotangents of f (batch,) and of grad f (batch, particle, dim)."""
        features = self._along(by_gradient.permute(2, 1, 0))
        along = self._seen(features)
        arguments: list[Tensor] = []
        below: list[Tensor] = []
        for layer, inputs in zip(self.layers, along, strict=True):
            inputs += below
            z = inputs[0] @ layer.weights.maps[0]
            for x, W in zip(inputs[1:], layer.weights.maps[1:], strict=True):
                z.addmm_(x, W)
            arguments.append(self._rows(z))
            below = [_summed(layer.slope * arguments[-1])]
        by_row, found = by_f.repeat(self.one.value.shape[1]), []
        by_state = by_row[:, None] * self.parameters["readout.weight"]
        for k, layer in reversed(list(enumerate(self.layers))):
            e, g = torch.addcmul(layer.bend * arguments[k], layer.slope, by_state).flatten(0, 1), layer.by.flatten(0, 1)
            maps = [torch.addmm(x.T @ e, along_x.T, g) for x, along_x in zip(layer.inputs, along[k], strict=True)]
            found.append(LayerWeights(maps, e.sum(0)))
            if k > 0:
                by_state = e @ layer.weights.maps[-1].T
        d = self._by_name(found[::-1])
        d["readout.weight"] = self.top.T.mv(by_row).add_(below[0].sum(0))
        for (name, value), x in zip(self.linear.items(), features, strict=True):
            d[name] = value.mv(by_f).add_(x.flatten(1).sum(1))
        return torch.cat([d[name].reshape(-1) for name in self.parameters])

    def _by_layer(self, d: dict[str, Tensor]) -> list[LayerWeights]:
        """From parameters by name."""
        first = LayerWeights([d["network.first.weight"].T], d["network.first.bias"])
        names = [f"network.deep.{k}." for k in range(len(self.network.layers))]
        deep = [LayerWeights([d[name + "weight"].T], d[name + "bias"]) for name in names]
        if self.pair is None:
            return [first, *deep]
        first.maps.append(d["network.mean.weight"].T / len(self.network.neighbours))
        seen = torch.cat([d[f"network.{part}.weight"] for part in MESSAGE], 1).T
        return [LayerWeights([seen], d["network.pair.bias"]), first, *deep]

    def _by_name(self, layers: list[LayerWeights]) -> dict[str, Tensor]:
        """Derivatives by parameters from those by layer."""
        d = {}
        if self.pair is not None:
            message, *layers = layers
            n_one, n_pair = len(self.one.value), len(self.pair.value)
            parts = message.maps[0].split([n_pair, n_one, n_one])
            d = {f"network.{part}.weight": each.T for part, each in zip(MESSAGE, parts, strict=True)}
            d["network.pair.bias"] = message.bias
            d["network.mean.weight"] = layers[0].maps[1].T / len(self.network.neighbours)
        d["network.first.weight"], d["network.first.bias"] = layers[0].maps[0].T, layers[0].bias
        for k, layer in enumerate(layers[1:]):
            d[f"network.deep.{k}.weight"], d[f"network.deep.{k}.bias"] = layer.maps[0].T, layer.bias
        return d

    def _seen(self, features: list[Tensor]) -> list[list[Tensor]]:
        """What each layer sees of one-particle and pair features (feature, ...), as (copy row, feature)."""
        one, *pair = features
        messages = [[torch.cat([each, *self.network.of_both(one)]).flatten(1).T] for each in pair]
        return [*messages, [one.flatten(1).T], *([] for _ in self.network.layers)]

    def _along(self, t: Tensor) -> list[Tensor]:
        """How one-particle and pair features change along t (dim, particle, batch)."""
        one = (self.one.jacobian * t).sum(1)
        if self.pair is None:
            return [one]
        apart = t[:, None] - at_neighbours(t, self.network.neighbours)
        return [one, (self.pair.jacobian * apart).sum(1)]

    def _gradient(self, by_seen: list[Tensor], d: dict[str, Tensor]) -> Positions:
        """grad f from derivatives by what layers see, the first layer before messages, and linear terms by name."""
        by_one, by_pair = by_seen[0].view_as(self.one.value) + d["linear_one.weight"][0][:, None, None], None
        if self.pair is not None:
            by_one, by_pair = self.network.split_features(by_one, by_seen[1].view(-1, *self.pair.value.shape[1:]))
            by_pair = by_pair + d["linear_pair.weight"][0][:, None, None, None]
        return self.psi.gradient_of(self.one, self.pair, Reverse(by_one, by_pair, None, []))

    def _rows(self, x: Tensor) -> Tensor:
        """(..., width) as (copy, row, width)."""
        return x.view(-1, self.n_rows, x.shape[-1])


def _summed(x: Tensor) -> Tensor:
    """(copy, row, width) summed over copies."""
    return x[0] if len(x) == 1 else x.sum(0)
