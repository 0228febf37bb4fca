"""Models that are told the class c of every datum: p(x | c), and bounds on it.

    p(x | c) = int p(x | z_1, c) p(z) dz                   a chain of latents: the last step is told
    w(z, phi, c)                                           a diffusion: the network is told

What is read is z with c beside it, one-hot.  The code q(z | x) of a chain is not told c, so that it can be decoded with
any other class.

References: Kingma, Mohamed, Rezende and Welling, NeurIPS 2014.
"""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor, nn

from fkdrift.errors import BadParameter


class Conditional(nn.Module):
    """A module that may be told classes.

    Args:
        class_shares: how frequent each class is, (n_classes,), adding up to 1; None for a model that is told none.
    """

    class_shares: Tensor | None
    _one_hot: Tensor | None = None

    def __init__(self, class_shares: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("class_shares", class_shares)

    def given(self, classes: Tensor) -> Self:
        """The same model, told the class of each datum of the batches to come, (batch,); itself if it is told none."""
        if self.class_shares is None:
            return self
        told = copy.copy(self)
        told._one_hot = torch.nn.functional.one_hot(classes, len(self.class_shares)).to(self.class_shares)
        return told

    def _with_class(self, z: Tensor) -> Tensor:
        """z (batch, n) and what is told of it, (batch, n + n_classes); a batch may hold several draws of each datum."""
        if self.class_shares is None:
            return z
        if self._one_hot is None:
            raise BadParameter("the model has to be told the classes of the data: use model.given(classes)")
        return torch.cat([z, self._one_hot.repeat(len(z) // len(self._one_hot), 1)], -1)
