"""Names for the tensor shapes used everywhere: axes are always time, batch, particle, dim.

The annotations are jaxtyping's; they cost nothing at run time and are checked by beartype in the tests.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

Positions = Float[Tensor, "batch particle dim"]
"""Walker positions r, or anything with one vector per particle (a drift, a gradient)."""

PerParticle = Float[Tensor, "batch particle"]
"""One number per walker and particle, such as the Laplacian of log psi for each particle."""

PerWalker = Float[Tensor, "batch"]
"""One number per walker: a potential energy, a path action, a log wavefunction."""

History = Float[Tensor, "time batch particle dim"]
"""Positions along trajectories."""

Accumulated = Float[Tensor, "time batch"]
"""A functional of the path, accumulated up to each saved time."""
