"""The settings of a latent SDE, without what training needs: its help is instant."""

from __future__ import annotations

from dataclasses import dataclass

from fkdrift.runs.recipes.learning_settings import LearningSettings
from fkdrift.settings import default, setting


@dataclass(frozen=True, kw_only=True)
class LatentSDESettings(LearningSettings):
    """Settings of a latent SDE; each field says what it is."""

    latents: int = setting(2, "Components of z.")
    spacing: float = setting(1.0, "Time between two observations, where the data have no times.")
    dt: float | None = setting(None, "Longest step.", adopted="mean spacing / 8")
    width: int = setting(48, "Units of the networks.")
    context: int = setting(16, "Components of the context.")
    loss: str = setting("kl", "What training minimises.", choices=("kl", "log_variance"))
    adjoint: bool = setting(
        False,
        "Gradients by the adjoint equation: less memory, more time, a step error of their own.",
        only={"loss": "kl"},
    )
    n_updates: int = default(LearningSettings, "n_updates", 500)
    batch_size: int = default(LearningSettings, "batch_size", 64)
    learning_rate: float = default(LearningSettings, "learning_rate", 0.01)


SETTINGS = LatentSDESettings
