"""The settings of a diffusion model, without what training needs: its help is instant."""

from __future__ import annotations

from dataclasses import dataclass

from fkdrift.runs.recipes.learning_settings import LearningSettings, ScaledSettings
from fkdrift.settings import default, setting

FEW = 4
"""Components of data, up to which the network reads waves."""


@dataclass(frozen=True, kw_only=True)
class DiffusionSettings(ScaledSettings):
    """Settings of a diffusion model; each field says what it is."""

    n_updates: int = default(LearningSettings, "n_updates", 4000)
    batch_size: int = default(LearningSettings, "batch_size", 256)
    learning_rate: float = default(LearningSettings, "learning_rate", 3e-3)
    average: float = default(LearningSettings, "average", 0.999)
    steps: int = setting(200, "Length T of the chain.")
    schedule: str = setting("cosine", "Of the noise.", choices=("cosine", "linear"))
    variance: str = setting("learned", "Of the steps back.", choices=("learned", "beta", "beta-tilde"))
    width: int = setting(256, "Units in a hidden layer.")
    depth: int = setting(3, "Hidden layers.")
    waves: int | None = setting(
        None,
        "Sines and cosines of every component that the network reads.",
        least=0,
        adopted=f"3 up to {FEW} components, 0 above",
    )


SETTINGS = DiffusionSettings
