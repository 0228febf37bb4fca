"""The settings of `fkdrift pimc`, which are read without torch."""

from __future__ import annotations

from dataclasses import MISSING, dataclass

from fkdrift.errors import BadConfig
from fkdrift.settings import SharedSettings, setting


@dataclass(frozen=True, kw_only=True)
class PimcSettings(SharedSettings):
    """What path integral Monte Carlo depends on besides its potential; each field says what it is.

    Raises:
        BadConfig: a value is out of range; the message says what is allowed.
    """

    temperature: float = setting(
        MISSING,
        "k_B T, in the potential's unit of energy.",
        above=1e-100,
        below=1e100,
        flags=("--temperature", "-T"),
    )
    n_slices: int | None = setting(
        None,
        "Slices of imaginary time; an even number for the fourth-order action.",
        adopted="by temperature and stiffness",
        flags=("--n-slices", "--slices"),
    )
    action: str = setting("fourth-order", "How the error falls with the slices.", choices=("fourth-order", "primitive"))
    n_chains: int = setting(256, "Independent chains.", least=2, flags=("--n-chains", "--chains"))
    n_blocks: int = setting(
        100, "Blocks to average over, unless atol is given.", flags=("--n-blocks", "--blocks"), extends=True
    )
    n_sweeps: int | None = setting(
        None, "Sweeps of moves in a block, which is measured once.", adopted="2 and 2 for each particle"
    )
    n_equilibration: int = setting(40, "Blocks to discard first; moves are tuned in these.", least=0)
    observables: tuple[str, ...] | None = setting(
        None, "Names or formulas to average, such as x**2 or r12.", flags=("--observable",)
    )
    check_slices: bool = setting(True, "Sample with half the slices too, to know what P slices leave out.")
    atol: float | None = setting(None, "Sample until the standard error is below this energy.", extends=True)
    dtype: str | None = setting("float64", "Of the paths.", choices=("float64",))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_slices is not None and self.n_slices % 2 and self.action == "fourth-order":
            raise BadConfig(
                f"n_slices = {self.n_slices} is not allowed: the fourth-order action needs an even number; "
                f"take {self.n_slices + 1}, or action = 'primitive'"
            )


SETTINGS = PimcSettings
