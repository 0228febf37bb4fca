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
    upper_width: tuple[int, ...] = setting(
        (200,), "Units in a hidden layer of the networks between latents: of all steps, or of each."
    )
    kernels: tuple[str, ...] = setting(
        ("diagonal",),
        "Covariance of the steps between latents, both ways: of all steps, or of each.",
        choices=("diagonal", "full"),
    )
    decay: float | None = setting(
        None, "a of fixed steps q(z_t | z_{t-1}) = N(a z, 1 - a^2) above the first.", adopted="learned steps", below=1
    )
    hold: float | None = setting(
        None,
        "Steps are learned, and training minimises F + hold KL(q || N(a z, 1 - a^2)) of every step above the first.",
        adopted="steps with a decay are fixed",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay is not None and set(self.upper) != {self.latents}:
            raise BadConfig("steps with a decay keep the number of components: set every upper to latents")
        for name in ("upper_width", "kernels"):
            n, steps = len(getattr(self, name)), len(self.upper)
            if n not in (1, steps):
                raise BadConfig(f"{n} values of {name} do not fit {steps} steps: give one, or one for each")
        if self.hold is not None and (self.decay is None or self.samples > 1):
            raise BadConfig("hold goes with a decay, and not with samples: set decay, leave samples out")


SETTINGS = MarkovSettings
