"""What is known of the energy of one process, in one record."""

from __future__ import annotations

from dataclasses import dataclass

from fkdrift.estimators.local_energy import StationaryEnergy
from fkdrift.estimators.path_action import PathEnergy
from fkdrift.estimators.projection import ProjectedEnergy
from fkdrift.numerics.estimates import Estimate


@dataclass(frozen=True)
class Energies:
    """What is known of the energy of one process.

    Args:
        last_batch: mean over the last training batch: all there is if a run is interrupted early.
        path: from long trajectories, or None.
        stationary: from the local energy over |psi|^2, or None.
        projection: by reweighting to the Feynman-Kac measure, or None.
        fisher: E[sum_i sigma_i^2 |grad_i log p|^2 / 8 + V], of a flow.
    """

    last_batch: Estimate
    path: PathEnergy | None = None
    stationary: StationaryEnergy | None = None
    fisher: Estimate | None = None
    projection: ProjectedEnergy | None = None

    @property
    def best(self) -> Estimate:
        """The projected energy where there is one, otherwise the variational one."""
        return self.variational if self.projection is None else self.projection.energy

    @property
    def variational(self) -> Estimate:
        """The best estimate of the stationary energy of the process, an upper bound on E_0 within its error."""
        if self.stationary is not None:
            return self.stationary.energy
        return self.path_action

    @property
    def path_action(self) -> Estimate:
        """E[l_T] / T."""
        return self.last_batch if self.path is None else self.path.action

    @property
    def estimator(self) -> str:
        """How `variational` was estimated, in words."""
        if self.stationary is not None:
            independent = self.stationary.dt is None
            return f"mean of E_L over |psi|^2, {'independent samples' if independent else 'Metropolis-adjusted'}"
        if self.path is not None:
            return "E[l_T]/T, extrapolated to dt = 0"
        return "last training batch, not extrapolated"
