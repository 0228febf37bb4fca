"""The settings of a flow, without what training needs: its help is instant."""

from __future__ import annotations

from dataclasses import dataclass

from fkdrift.runs.recipes.learning_settings import LearningSettings
from fkdrift.settings import default, setting

OF_ZUKO = ("MAF", "NICE", "RealNVP", "GMM", "NSF", "NAF", "BPF")
LAYERED = ("coupling", *(name for name in OF_ZUKO if name not in ("BPF", "GMM")))


@dataclass(frozen=True, kw_only=True)
class FlowSettings(LearningSettings):
    """Settings of a flow; each field says what it is."""

    n_updates: int = default(LearningSettings, "n_updates", 2000)
    batch_size: int = default(LearningSettings, "batch_size", 512)
    learning_rate: float = default(LearningSettings, "learning_rate", 5e-3)
    kind: str = setting("coupling", "Analytic coupling layers, or one of zuko's flows.", choices=("coupling", *OF_ZUKO))
    couplings: int = setting(4, "Coupling layers, or transforms.", only={"kind": LAYERED})
    bumps: int = setting(8, "Steps in each monotone map.", only={"kind": "coupling"})
    width: int = setting(64, "Units in a hidden layer.")
    depth: int = setting(2, "Hidden layers.")
    dither: float | None = setting(
        None, "Width of uniform noise added to the data.", least=0, adopted="1 for whole numbers, 0 elsewhere"
    )


SETTINGS = FlowSettings
