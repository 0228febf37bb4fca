"""Flows of the library zuko behind the `Density` protocol (extra `flows`), for fitting densities to data.

What is known not to work is refused with the reason: GF loses the mass beyond |x| = 10 and disagrees with its own
samples; CNF, UNAF and SOSPF cannot be differentiated twice, so they have no gradient of their score.  Activations are
smooth (SiLU) unless another is given; maps made of pieces, such as splines, have kinks all the same, which
`smoothness` declares.

Reference: F. Rozet et al., Zuko: normalizing flows in PyTorch, doi:10.5281/zenodo.7625672.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fkdrift.densities import density
from fkdrift.densities.density import SMOOTH
from fkdrift.errors import BadParameter, require_extra
from fkdrift.numerics.networks import seeded
from fkdrift.tensor_types import PerWalker

SMOOTHNESS = {"MAF": SMOOTH, "NICE": SMOOTH, "RealNVP": SMOOTH, "GMM": SMOOTH, "NSF": 0, "NAF": 0, "BPF": 0}
BROKEN = {
    "GF": "it loses the mass beyond |x| = 10, and log_prob and samples disagree",
    "CNF": "its score cannot be differentiated; use a Continuous layer",
    "UNAF": "its score cannot be differentiated",
    "SOSPF": "its score cannot be differentiated",
}


class ZukoDensity(nn.Module):
    """A zuko flow as a `Density` on (batch, n).

    Args:
        kind: the name of a class of zuko.flows, such as NSF (spline) or MAF (affine autoregressive).
        n: number of coordinates.
        centre, spread: (n,) of the data; the flow works in these units.
        seed: of the network's start.
        options: passed to zuko, such as transforms=3 or hidden_features=(64, 64).

    Attributes:
        smoothness: continuous derivatives of log p: all for affine maps by smooth networks; none for maps made of
            pieces (NSF, BPF, NAF), whose slope has kinks.

    Raises:
        MissingExtra: zuko is not installed.
        BadParameter: the flow is not known, or known not to work.

    Example:
        >>> flow = ZukoDensity("NSF", 2, transforms=3)
        >>> flow.log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        kind: str,
        n: int,
        *,
        centre: Tensor | None = None,
        spread: Tensor | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        zuko = require_extra("zuko", "flows")
        if kind in BROKEN:
            raise BadParameter(f"zuko's {kind} is not allowed: {BROKEN[kind]}")
        if kind not in SMOOTHNESS:
            raise BadParameter(f"flow {kind!r} is not known: choose from {', '.join(SMOOTHNESS)}")
        self.kind, self.event_shape = kind, (n,)
        if kind not in ("GMM", "NAF"):
            options.setdefault("activation", nn.SiLU)
        activation = options.get("activation", nn.SiLU)
        self.smoothness = SMOOTHNESS[kind] if activation in (nn.SiLU, nn.Tanh, nn.Softplus) else 0
        with seeded(seed):
            self.flow = getattr(zuko.flows, kind)(n, **options)
        self.register_buffer("centre", torch.zeros(n) if centre is None else centre.clone())
        self.register_buffer("spread", torch.ones(n) if spread is None else spread.clone())
        self.to(self.centre.dtype)

    def log_prob(self, x: Tensor) -> PerWalker:
        return self.flow().log_prob((x - self.centre) / self.spread) - self.spread.log().sum()

    def score(self, x: Tensor) -> Tensor:
        return density.score(self, x)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return self.sample_and_log_prob(n, generator)[0]

    def sample_and_log_prob(self, n: int, generator: torch.Generator) -> tuple[Tensor, PerWalker]:
        """n samples and log p there; zuko draws from torch's global generator, which is put back as it was."""
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        with seeded(seed):
            x = self.flow().sample((n,)) * self.spread + self.centre
        return x, self.log_prob(x)
