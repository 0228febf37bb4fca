"""What training minimises: the free energy of the path measure, differentiated through the trajectory.

    F = E_v[ l_T - log (phi_0 / phi_ref)(r_T) ] / T  >=  E0 + boundary terms,

the relative entropy between the controlled process and the Feynman-Kac measure.  The terminal term is what makes a
finite T train the stationary optimum; only its gradient is needed, and the present drift estimates it:
grad log(phi_0 / phi_ref)(r_T) ~ v(r_T) / sigma^2, held fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fkdrift.paths.evolution import Path
from fkdrift.paths.process import Process

Objective = Callable[[Path, Process], "PathLoss"]
"""Maps a path and its process to a loss with named parts."""


class PathLoss(NamedTuple):
    """The loss (a scalar to differentiate) and its parts, each a mean over walkers per unit time."""

    loss: Tensor
    ito: Tensor
    control: Tensor
    cost: Tensor
    terminal: Tensor


def path_kl(path: Path, process: Process) -> PathLoss:
    """The path-space relative entropy per unit time, F = (E[l_T] + terminal) / T.

    Args:
        path: a path made with gradients enabled.
        process: the process that made it.

    Returns:
        PathLoss; `loss` is the sum of the parts.  The terminal part is stop_gradient(-v(r_T) / sigma^2) . r_T, whose
        gradient matters and whose value does not.

    Reference: Barr, Gispen and Lamacraft (2020), eq. 7 and section 3.
    """
    r_T = path.positions[-1]
    with torch.no_grad():
        slope = process.drift(r_T.detach()) / process.sigma.square()
    T = path.duration
    terminal = -(slope * (r_T - r_T.detach())).sum((-2, -1)).mean() / T
    ito, control, cost = (part[-1].mean() / T for part in (path.ito, path.control, path.cost))
    return PathLoss(ito + control + cost + terminal, ito, control, cost, terminal)
