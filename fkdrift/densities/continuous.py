"""Continuous flows: the change of variables as a flow in time, with the trace of its velocity's Jacobian.

    dx/dt = v(x, t),   t = 0: normal numbers,  t = 1: data,       d log p(x(t)) / dt = -div v(x(t), t)

Integrated by Runge-Kutta steps of fourth order and fixed length, so that log p is as smooth as v.  A `Continuous` layer
sums the exact divergence; Hutchinson's estimate of it, E[e . (dv/dx) e], is unbiased for log p but not for p, and is a
function of its own that cannot be mistaken for a likelihood.  Flow matching fits v without integrating anything:

    E | v(x_t, t) - (x_1 - x_0) |^2,      x_t = (1 - t) x_0 + t x_1

References: R. Chen et al., Neural ordinary differential equations, NeurIPS 2018; W. Grathwohl et al., FFJORD, ICLR
2019; Y. Lipman et al., Flow matching for generative modeling, ICLR 2023; L. Klein, A. Kraemer and F. Noe, Equivariant
flow matching, NeurIPS 2023.
"""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from fkdrift.densities.coupling import Flow, Layer
from fkdrift.errors import InputError
from fkdrift.numerics.differentiation import field_and_divergence, signs
from fkdrift.numerics.integration import Tensors, rk4
from fkdrift.numerics.networks import MLP
from fkdrift.tensor_types import PerWalker


class Field(nn.Module):
    """A velocity v(x, t) on (batch, n); `with_divergence` is by automatic differentiation unless overridden.

    Time is a tensor (batch, 1).
    """

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        raise NotImplementedError

    def with_divergence(self, x: Tensor, t: Tensor) -> tuple[Tensor, PerWalker]:
        """v (batch, n) and div v (batch,), exact: one backward pass for each coordinate."""
        return field_and_divergence(lambda y: self(y, t), x)


class MLPField(Field):
    """v = a perceptron of x and t; it starts at zero, so that the flow starts as the identity.

    Args:
        n: number of coordinates.
        width, depth: of the network.
    """

    def __init__(self, n: int, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        self.network = MLP(n + 1, (width,) * depth, n, gain=0.0)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.network(torch.cat([x, t], -1))


class Continuous(Layer):
    """A field as a layer of a `Flow`: from x at t = 1 to z at t = 0, with the exact divergence.

    Args:
        field: the velocity.
        n_steps: Runge-Kutta steps each way.  log p is normalised, and the inverse exact, up to their fourth-order
            error.
    """

    def __init__(self, field: Field, n_steps: int = 8) -> None:
        super().__init__()
        self.field, self.n_steps = field, n_steps

    def forward(self, x: Tensor) -> tuple[Tensor, PerWalker]:
        def rates(t: float, state: Tensors) -> Tensors:
            return self.field.with_divergence(state[0], _time(state[0], t))

        z, log_det = rk4(rates, (x, x.new_zeros(len(x))), 1.0, 0.0, self.n_steps)
        return z, log_det

    def inverse(self, z: Tensor) -> Tensor:
        return rk4(lambda t, state: (self.field(state[0], _time(state[0], t)),), (z,), 0.0, 1.0, self.n_steps)[0]


def hutchinson_log_prob(flow: Flow, x: Tensor, generator: torch.Generator) -> PerWalker:
    """An unbiased estimate of log p(x) of a continuous flow with one random probe e = +-1 for each point.

    Its exponential is not an unbiased estimate of p, so it gives no importance weights and is no likelihood to report;
    it is a cheap quantity to train with in many dimensions.

    Args:
        flow: with `Continuous` layers.
        x: (batch, n).
        generator: source of the probes.
    """
    total = x.new_zeros(len(x))
    for layer in flow.chain:
        if not isinstance(layer, Continuous):
            x, log_det = layer(x)
        else:
            x, log_det = _probed(layer, x, generator)
        total = total + log_det
    return total - 0.5 * x.square().sum(-1) - 0.5 * math.log(2 * math.pi) * x.shape[-1]


def _probed(layer: Continuous, x: Tensor, generator: torch.Generator) -> tuple[Tensor, PerWalker]:
    """`Continuous.forward` with e . (dv/dx) e in the place of the divergence, the same e all along a trajectory."""
    e = signs(x, generator)

    def rates(t: float, state: Tensors) -> Tensors:
        return field_and_divergence(lambda y: layer.field(y, _time(y, t)), state[0], e)

    z, log_det = rk4(rates, (x, x.new_zeros(len(x))), 1.0, 0.0, layer.n_steps)
    return z, log_det


def flow_matching_loss(
    field: Field, start: Tensor, end: Tensor, generator: torch.Generator, late: float | None = None
) -> PerWalker:
    """|v(x_t, t) - (x_1 - x_0)|^2 at a random time on the straight line of each pair, (batch,).

    The best field is the same whatever the weight of each time; what is wrong late is not forgotten by the time the
    flow ends, so that narrow densities gain from a weight w(t) = late / (1 - t + late)^2.

    Args:
        field: to be fitted.
        start: x_0, (batch, n) normal numbers.
        end: x_1, (batch, n) data, in the units of the field.
        generator: source of the times.
        late: as above; None for the same weight at all times.
    """
    t = torch.rand(len(end), 1, generator=generator, dtype=end.dtype, device=end.device)
    loss = (field((1 - t) * start + t * end, t) - (end - start)).square().sum(-1)
    return loss if late is None else late / (1 - t[:, 0] + late).square() * loss


def match(start: Tensor, end: Tensor, n_particles: int, n_group: int = 16) -> Tensor:
    """x_1 in another order: within groups, each x_0 gets the x_1 so that the lines of all pairs, aligned, are shortest.

    It is the optimal transport of a minibatch between orbits of the symmetry: straight lines then hardly cross, and the
    field has less to average over.

    Args:
        start, end, n_particles: as for `align`.
        n_group: pairs in a group; it must divide the batch.

    Raises:
        InputError: as for `align`, or groups that do not divide the batch.

    Reference: L. Klein, A. Kraemer and F. Noe, Equivariant flow matching, NeurIPS 2023.
    """
    if len(start) % n_group:
        raise InputError(f"a batch of {len(start)} cannot be cut in groups of {n_group}: choose one that divides it")
    z, images = _images(start, end, n_particles)
    z, images = (w.unflatten(0, (-1, n_group)) for w in (z, images))
    overlap = torch.einsum("gip,gjap->gija", z, images.conj()).abs().amax(-1)
    order = torch.as_tensor(np.stack([linear_sum_assignment(-each)[1] for each in overlap.cpu().numpy()]))
    first = n_group * torch.arange(len(order))[:, None]
    return end[(first + order).flatten().to(end.device)]


def align(start: Tensor, end: Tensor, n_particles: int) -> Tensor:
    """The images of x_1 under exchange of particles, rotation and reflection in the plane that are nearest to x_0.

    For particles as complex numbers w_i the nearest rotation has the phase of sum_i conj(w_i) z_i, and a reflection
    is a complex conjugation; all exchanges are tried.

    Args:
        start: x_0, (batch, 2 n_particles), of mean 0.
        end: x_1, the same.
        n_particles: at most 6.

    Raises:
        InputError: not in the plane, or too many particles.
    """
    z, both = _images(start, end, n_particles)
    overlap = (both.conj() * z[:, None]).sum(-1)
    best = overlap.abs().argmax(1)
    index = torch.arange(len(z), device=z.device)
    chosen = overlap[index, best]
    phase = chosen / chosen.abs().clamp_min(torch.finfo(start.dtype).tiny)
    return torch.view_as_real(both[index, best] * phase[:, None]).reshape(end.shape)


def _images(start: Tensor, end: Tensor, n_particles: int) -> tuple[Tensor, Tensor]:
    """Particles of x_0 as complex numbers (batch, particle), all images of those of x_1 (batch, image, particle)."""
    if start.shape[1] != 2 * n_particles or n_particles > 6:
        raise InputError(
            f"alignment of {start.shape[1]} coordinates of {n_particles} particles is not possible: it tries all "
            "exchanges of at most 6 particles in 2 dimensions"
        )
    orders = torch.tensor(list(permutations(range(n_particles))), device=start.device)
    z = torch.view_as_complex(start.reshape(-1, n_particles, 2).contiguous())
    w = torch.view_as_complex(end.reshape(-1, n_particles, 2).contiguous())
    return z, torch.stack([w, w.conj().resolve_conj()], 1)[:, :, orders].flatten(1, 2)


def _time(x: Tensor, t: float) -> Tensor:
    """The time as a column (batch, 1)."""
    return x.new_full((len(x), 1), t)
