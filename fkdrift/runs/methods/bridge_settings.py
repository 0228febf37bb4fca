"""The settings of `fkdrift bridge`, which are read without torch."""

from __future__ import annotations

from dataclasses import MISSING, dataclass

from fkdrift.errors import BadConfig
from fkdrift.settings import RunSettings, default, setting


@dataclass(frozen=True, kw_only=True)
class BridgeSettings(RunSettings):
    """What a bridge depends on besides its potential; each field says what it is.

    Raises:
        BadConfig: a value is out of range; the message says what is allowed.
    """

    start: tuple[float, ...] = setting(
        MISSING, "Where the paths begin: a number for each coordinate.", above=float("-inf"), flags=("--from",)
    )
    end: tuple[float, ...] = setting(MISSING, "Where they end.", above=float("-inf"), flags=("--to",))
    time: float = setting(MISSING, "How long they take.", flags=("--time", "-T"))
    noise: float = setting(0.0, "Standard deviation of the end; 0 pins it.", least=0)
    dynamics: str = setting(
        "imaginary",
        "Imaginary time (log of the propagator), or transition paths (log of a transition density).",
        choices=("imaginary", "overdamped"),
    )
    loss: str = setting("kl", "What training minimises.", choices=("kl", "log_variance"))
    dt: float | None = setting(
        None, "The longer of the two time steps of the extrapolation; training takes twice this.", adopted="time / 128"
    )
    n_updates: int = setting(200, "Steps of Adam.", least=0, flags=("--n-updates", "--updates"), extends=True)
    device: str = default(RunSettings, "device", "auto", help="Bridges run on the CPU.", choices=("auto", "cpu"))
    dtype: str | None = default(RunSettings, "dtype", "float64", help="Of network and paths.", choices=("float64",))
    n_paths: int = setting(8192, "Weighted paths at the end.", least=2, flags=("--n-paths", "--paths"), extends=True)
    width: int = setting(48, "Units in each hidden layer.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dt is not None and self.dt > self.time:
            raise BadConfig(f"dt = {self.dt} is longer than the whole time {self.time}: make it shorter")


SETTINGS = BridgeSettings
