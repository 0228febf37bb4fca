"""The settings of a VAE, without what training needs: its help is instant."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from fkdrift.runs.recipes.learning_settings import ScaledSettings
from fkdrift.settings import setting

DISCRETE = ("bernoulli", "beta-binomial", "laplace", "categorical")


@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings(ScaledSettings):
    """Settings of a VAE; each field says what it is."""

    latents: int = setting(20, "Components of z.")
    encoder: str = setting("diagonal", "Covariance of q(z | x).", choices=("diagonal", "full"))
    decoder: str = setting("auto", "Of p(x | z); auto follows from the data.", choices=("auto", *DISCRETE, "gaussian"))
    network: str = setting("mlp", "Of the data; conv is for images.", choices=("mlp", "conv", "linear"))
    width: int = setting(400, "Units in a hidden layer.", only={"network": ("mlp", "conv")})
    depth: int = setting(2, "Hidden layers.", only={"network": "mlp"})
    beta: float = setting(1.0, "Weight of the KL.", least=0)
    warm_up: float | None = setting(
        None,
        "Part of the updates over which the weight of the KL rises to beta, from 0.",
        least=0,
        below=1,
        adopted="0.3 for a chain of latents, 0 elsewhere",
    )
    samples: int = setting(1, "Draws of each datum; from 2 on the importance-weighted bound.")
    covariance: str = setting(
        "isotropic",
        "Of a Gaussian p(x | z): one learned width in units of the scaling, one for each component, or all of it.",
        choices=("isotropic", "diagonal", "full"),
        only={"decoder": ("auto", "gaussian")},
    )
    noise: float | None = setting(
        None,
        "Fixed standard deviation of the decoder.",
        adopted="learned",
        only={"decoder": ("auto", "gaussian"), "covariance": "isotropic"},
    )
    levels: int | None = setting(
        None, "Of discrete data.", adopted="as the data have", only={"decoder": ("auto", *DISCRETE)}
    )
    distort: float | None = setting(
        None, "Strength of random distortions of training images.", least=0, adopted="1 for mnist5k, 0 elsewhere"
    )

    def at(self, progress: float) -> Self:
        return replace(self, beta=self.beta * min(1.0, progress / self.warm_up)) if self.warm_up else self


SETTINGS = AutoencoderSettings
