"""The settings of a run, and the TOML file that repeats it.

    [potential]                       [settings]
    name = "morse"                    seed = 0
    parameters = { D = 10.0 }         drift = "gradient"

Command-line options win over the file, and the file over the defaults below.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from fkdrift.errors import BadConfig

if TYPE_CHECKING:  # imported where it is used, so that `fkdrift --help` need not wait for it
    import torch

CHOICES = {
    "method": ("drift", "flow"),
    "drift": ("gradient", "mlp"),
    "optimiser": ("natural", "adam"),
    "dtype": ("float32", "float64"),
}
ZERO = ("seed", "n_updates", "n_equilibration")


@dataclass(frozen=True)
class Settings:
    """What a run depends on besides its potential.  Times are in units of the system's own time scale.

    Args:
        seed: of the network's start, the walkers and the noise.
        method: "drift" (a learned drift and its trajectories) or "flow" (a normalizing flow for |psi|^2).
        drift: "gradient" (v = sigma^2 grad log psi) or "mlp" (a free vector field).
        optimiser: "natural" (natural gradient in path space) or "adam" (on the path free energy).
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1".
        threads: of the CPU; one is fastest for the small arrays of a few particles, and repeatable anywhere.
        dtype: "float32" or "float64", of network and walkers; energies are summed in float64 always.
        width, depth: units in a hidden layer, number of hidden layers.
        n_walkers: independent walkers, for training and for the energy; default 1024, more for a single coordinate with
            a gradient drift, fewer from 8 particles on.
        n_updates: optimiser steps, at most.
        tolerance: stop training once the expected remaining gain is below this energy; default atol / 10, or 1e-8.
        n_moves: Metropolis-adjusted steps between two updates, and between two local energies.
        n_steps: Euler-Maruyama steps in a training path, where the path is differentiated.
        coarse_step, fine_step: its time step at the first and the last update.
        learning_rate: of Adam at the start.
        path_step: the coarsest of the three step sizes that E[l_T] / T is extrapolated from.
        n_equilibration: blocks to discard before each estimate.
        n_path_blocks: blocks of one time scale to average E[l_T] / T over.
        n_blocks: blocks of n_moves steps to average the local energy over, unless atol is given.
        atol: sample until the standard error is below this, in the potential's unit of energy.
        max_seconds: end training at half of this wall time, and everything at the end of it.

    Raises:
        BadConfig: a value is out of range; the message says what is allowed.
    """

    seed: int = 0
    method: str = "drift"
    drift: str = "gradient"
    optimiser: str = "natural"
    device: str = "auto"
    threads: int = 1
    dtype: str = "float32"
    width: int = 32
    depth: int = 2
    n_walkers: int | None = None
    n_updates: int = 150
    tolerance: float | None = None
    n_moves: int = 5
    n_steps: int = 24
    coarse_step: float = 1 / 8
    fine_step: float = 1 / 64
    learning_rate: float = 0.02
    path_step: float = 1 / 16
    n_equilibration: int = 4
    n_path_blocks: int = 8
    n_blocks: int = 200
    atol: float | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_setting(field, getattr(self, field.name), CHOICES, ZERO)
        if self.n_walkers == 1:
            raise BadConfig("n_walkers = 1 is not allowed: an error bar needs at least 2 independent walkers")

    @property
    def training_tolerance(self) -> float:
        """The expected remaining gain at which training stops; 0 to make all updates."""
        return self.tolerance if self.tolerance is not None else (self.atol or 1e-7) / 10

    @property
    def torch_dtype(self) -> torch.dtype:
        import torch

        return {"float32": torch.float32, "float64": torch.float64}[self.dtype]

    @property
    def torch_device(self) -> torch.device:
        """The device to run on.

        Raises:
            BadConfig: it does not exist on this machine.
        """
        import torch

        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
        except RuntimeError:
            raise BadConfig(f"device = {self.device!r} is not a device: use auto, cpu, cuda or cuda:0") from None
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise BadConfig(
                f"device = {self.device!r} is not there: this machine has {torch.cuda.device_count()} CUDA devices "
                "that torch can use; use --device cpu, or install a CUDA build of torch"
            )
        return device

    def to_dict(self) -> dict[str, Any]:
        """Every setting that is not None, for JSON and TOML."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


def settings_from(values: dict[str, Any]) -> Settings:
    """Settings from names and values, refusing unknown names with the closest known one.

    Raises:
        BadConfig: a name is unknown, or a value is not allowed.
    """
    refuse_unknown(values, Settings)
    return Settings(**values)


def refuse_unknown(values: dict[str, Any], kind: type) -> None:
    """Raise BadConfig for a name that is no field of the dataclass."""
    known = [field.name for field in dataclasses.fields(kind)]
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise BadConfig(f"unknown setting {name!r}{hint} Known settings: {', '.join(known)}")


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The [potential] and [settings] tables of a TOML file.

    Raises:
        BadConfig: the file is missing, is not TOML, or has other tables.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadConfig(f"there is no configuration file {path}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadConfig(f"cannot read {path} as TOML: {error}") from None
    extra = set(document) - {"potential", "settings"}
    if extra:
        raise BadConfig(f"{path} has unknown tables {sorted(extra)}: only [potential] and [settings] are read")
    potential, settings = document.get("potential", {}), document.get("settings", {})
    if not isinstance(potential, dict) or not isinstance(settings, dict):
        raise BadConfig(f"in {path}, potential and settings must be tables: write [potential] and name = ...")
    return potential, settings


def write_config(path: Path, potential: dict[str, Any], settings: Settings) -> None:
    """Write a file that `read_config` reads back to the same run."""
    path.write_text(tomli_w.dumps({"potential": potential, "settings": settings.to_dict()}), encoding="utf-8")


def check_setting(
    field: dataclasses.Field[Any],
    value: object,
    choices: Mapping[str, tuple[str, ...]] | None = None,
    zero: tuple[str, ...] = (),
) -> None:
    """Raise BadConfig unless the value has the field's type and a sensible range.

    Args:
        field: of a dataclass of settings.
        value: what is asked for.
        choices: what is allowed, for fields of text that are a choice.
        zero: numbers that may be 0; all others must be positive.
    """
    name, kind = field.name, str(field.type)
    if value is None and "None" in kind:
        return
    if choices and name in choices and value not in choices[name]:
        raise BadConfig(f"{name} = {value!r} is not allowed: choose from {', '.join(choices[name])}")
    if kind.startswith("str") and not isinstance(value, str):
        raise BadConfig(f"{name} = {value!r} is not allowed: it must be text")
    if kind == "bool" and not isinstance(value, bool):
        raise BadConfig(f"{name} = {value!r} is not allowed: it must be true or false")
    if kind.startswith("int") and (not isinstance(value, int) or isinstance(value, bool)):
        raise BadConfig(f"{name} = {value!r} is not allowed: it must be a whole number")
    if kind.startswith("float") and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise BadConfig(f"{name} = {value!r} is not allowed: it must be a number")
    if isinstance(value, int | float) and (not math.isfinite(value) or value < 0 or (value == 0 and name not in zero)):
        least = "at least" if name in zero else "above"
        if kind != "bool":
            raise BadConfig(f"{name} = {value!r} is not allowed: it must be finite and {least} 0")
