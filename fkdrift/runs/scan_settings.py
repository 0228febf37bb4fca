"""The settings of a scan: those of every point, and how the points follow one another."""

from __future__ import annotations

from dataclasses import dataclass

from fkdrift.errors import BadConfig
from fkdrift.runs.settings import Settings
from fkdrift.settings import fields_of, setting

FEWER_UPDATES, FEWER_WALKERS, FEWEST_WALKERS = 6, 4, 256
"""To follow a wavefunction takes so many times fewer updates and walkers than to find it; walkers at least."""


@dataclass(frozen=True, kw_only=True)
class ScanSettings(Settings):
    """What a scan depends on besides its potential and its values; everything of `Settings` is for every point.

    Raises:
        BadConfig: a value is out of range or not used; the message says what is allowed.

    Example:
        >>> ScanSettings(n_updates=100).of_point(3, warm=True, n_walkers=1024).n_updates
        16
    """

    jobs: int = setting(
        1, "Points computed at a time, each in a process of its own.", flags=("--jobs", "-j"), extends=True
    )
    cold: int = setting(1, "Points trained from the start; all others go on from the nearest one that is done.")
    warm_updates: int | None = setting(
        None, "Updates at a point that goes on from another.", least=0, adopted="a sixth of n_updates"
    )
    warm_walkers: int | None = setting(
        None,
        "Walkers at a point that goes on from another.",
        least=2,
        adopted="a quarter of n_walkers, but at least 256",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workers is not None:
            raise BadConfig(
                "workers is not used by a scan, whose points are computed by `jobs` at a time: leave it out"
            )

    def of_point(self, index: int, *, warm: bool, n_walkers: int) -> Settings:
        """The settings of one point: a seed of its own, and where it is warm fewer updates and walkers.

        Args:
            index: of the point.
            warm: whether it goes on from another.
            n_walkers: of a cold point.
        """
        own = {f.name: value for f in fields_of(Settings).values() if (value := getattr(self, f.name)) != f.default}
        own |= {"seed": self.seed + index, "max_seconds": None}
        if warm:
            fewer = max(min(n_walkers, FEWEST_WALKERS), n_walkers // FEWER_WALKERS)
            own["n_updates"] = self.n_updates // FEWER_UPDATES if self.warm_updates is None else self.warm_updates
            own["n_walkers"] = self.warm_walkers or fewer
        return Settings(**own)
