"""The settings of a Markov autoencoder, without what training needs: its help is instant."""

from __future__ import annotations

from dataclasses import dataclass

from fkdrift.errors import BadConfig
from fkdrift.runs.recipes.vae_settings import AutoencoderSettings
from fkdrift.settings import setting


@dataclass(frozen=True, kw_only=True)
class MarkovSettings(AutoencoderSettings):
    """Settings of a Markov autoencoder: those of a VAE, with z_1 as its `latents`."""

    depth: int = setting(2, "Hidden layers.")
    upper: tuple[int, ...] = setting((20,), "Components of z_2, z_3, ...")
    upper_width: int = setting(200, "Units in a hidden layer of the networks between latents.")
    decay: float | None = setting(
        None, "a of fixed steps q(z_t | z_{t-1}) = N(a z, 1 - a^2) above the first.", adopted="learned steps", below=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay is not None and set(self.upper) != {self.latents}:
            raise BadConfig("fixed steps (decay) keep the number of components: set every upper to latents")


SETTINGS = MarkovSettings
