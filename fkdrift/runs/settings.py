"""The settings of ground states and bridges, and the TOML file that repeats a run.

    [potential]                       [settings]
    name = "morse"                    seed = 0
    parameters = { D = 10.0 }         drift = "gradient"

Command-line options win over the file, and the file over the defaults below.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fkdrift.errors import BadConfig
from fkdrift.settings import SharedSettings, setting

if TYPE_CHECKING:
    import torch

DRIFT, FLOW = {"method": "drift"}, {"method": "flow"}
GRADIENT, FREE = {"drift": "gradient"}, {"drift": "mlp"}
MOST_BLOCKS = 40
"""Of a projection whose error was not asked for: what has not been reached then is said by the error bar."""
ENERGY_UNITS = ("K", "mK", "cm-1", "meV", "eV", "hartree", "kcal/mol", "kJ/mol")
LENGTH_UNITS = ("angstrom", "bohr")
"""To show a result in; those of `fkdrift.hamiltonian.units`, which is not imported to say what there is."""
NATURAL, ADAM = {"optimiser": "natural"}, {"optimiser": "adam"}


@dataclass(frozen=True, kw_only=True)
class Settings(SharedSettings):
    """What a ground state depends on besides its potential; each field says what it is.

    Times are in units of the system's own time scale, energies in the potential's unit.  A setting that the chosen
    method, drift or optimiser does not use is refused.

    Raises:
        BadConfig: a value is out of range or not used; the message says what is allowed.

    Example:
        >>> Settings(drift="mlp", n_updates=40).n_steps
        24
    """

    method: str = setting(
        "drift", "A learned drift and its trajectories, or a normalizing flow for |psi|^2.", choices=("drift", "flow")
    )
    drift: str = setting(
        "gradient",
        "v = sigma^2 grad log psi, a free vector field, or a class of your own.",
        choices=("gradient", "mlp"),
        own=True,
        only=DRIFT,
    )
    optimiser: str = setting(
        "natural",
        "Natural gradient in path space, or Adam on the path free energy.",
        choices=("natural", "adam"),
        only=DRIFT,
    )
    dtype: str | None = setting(
        None,
        "Of network and walkers; energies are summed in float64 always.",
        choices=("float32", "float64"),
        adopted="float32; float64 for a flow",
    )
    width: int = setting(32, "Units in a hidden layer of the network.")
    depth: int = setting(2, "Hidden layers.")
    n_walkers: int | None = setting(
        None,
        "Independent walkers, for training and for the energy; samples in a batch of a flow.",
        least=2,
        adopted="1024; with drift gradient 2048 for one particle, 4096 for one coordinate; fewer from 8 particles on",
    )
    n_updates: int = setting(
        150, "Steps of the optimiser, at most.", least=0, flags=("--n-updates", "--updates"), extends=True
    )
    tolerance: float | None = setting(
        None,
        "Stop training once the estimated excess energy is below this.",
        adopted="a twentieth of the error asked for, atol or by rtol",
        only=(NATURAL, FLOW),
        extends=True,
    )
    n_moves: int = setting(
        5, "Metropolis-adjusted steps between two updates, and between two local energies.", only=GRADIENT
    )
    n_steps: int = setting(
        24, "Euler-Maruyama steps in a training path, where the path is differentiated.", only=(ADAM, FREE)
    )
    coarse_step: float = setting(1 / 8, "Time step of a training path at the first update.", only=ADAM)
    fine_step: float = setting(1 / 64, "Time step of a training path at the last update.", only=(ADAM, FREE))
    learning_rate: float = setting(0.02, "Of Adam at the start.", only=ADAM)
    path_step: float = setting(
        1 / 16, "The coarsest of the three time steps that E[l_T] / T is extrapolated from.", only=DRIFT
    )
    n_equilibration: int = setting(2, "Blocks to discard before each estimate.", least=0, only=DRIFT)
    n_path_blocks: int = setting(4, "Blocks of one time scale to average E[l_T] / T over.", only=DRIFT, extends=True)
    n_blocks: int = setting(
        200,
        "Blocks of n_moves steps to average the local energy over, at most, unless atol is given; "
        "a flow draws one batch for every ten.",
        only=(GRADIENT, FLOW),
        extends=True,
    )
    observables: tuple[str, ...] | None = setting(
        None,
        "Averaged besides V, T and the virial ratio: density, g(r), S(k), dE/dparameter, or a formula such as 1/r12.",
        flags=("--observable",),
        only=(GRADIENT, FLOW),
    )
    correlations: tuple[str, ...] | None = setting(
        None,
        "Imaginary-time correlation functions of these with themselves, and susceptibilities: formulas such as x.",
        flags=("--correlation",),
        only=GRADIENT,
    )
    levels: int = setting(1, "States wanted: 1 for the ground state, more for its excitations.", only=(GRADIENT, FLOW))
    project: bool = setting(
        True, "Project what the network missed out of the energy, by reweighting (docs/projection.md).", only=DRIFT
    )
    rtol: float = setting(
        1e-4,
        "Project until the standard error is below this part of sqrt(coordinates) / (2 time scale), unless atol is "
        "given; "
        f"{MOST_BLOCKS} blocks at most.",
        only=DRIFT,
        extends=True,
    )
    atol: float | None = setting(None, "Sample until the standard error is below this energy.", extends=True)
    energy_unit: str | None = setting(
        None,
        "Show energies in this unit; result.json and all settings keep the potential's own.",
        choices=ENERGY_UNITS,
        adopted="the potential's",
        extends=True,
    )
    length_unit: str | None = setting(
        None, "Show lengths in this unit.", choices=LENGTH_UNITS, adopted="the potential's", extends=True
    )
    max_seconds: float | None = setting(
        None, "End training at half of this wall time, and everything at the end of it.", extends=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method == "flow" and self.dtype == "float32":
            raise BadConfig("dtype = 'float32' is not allowed with method = 'flow', which computes in float64")

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "dtype": str(self.torch_dtype).removeprefix("torch.")}

    @property
    def torch_dtype(self) -> torch.dtype:
        import torch

        return torch.float64 if self.method == "flow" else super().torch_dtype


def read_config(path: Path, *tables: str) -> tuple[dict[str, Any], ...]:
    """Tables of a configuration file, by default [potential] and [settings]; one that is not there is empty.

    Raises:
        BadConfig: the file is missing, is not TOML, or has other tables.
    """
    names = tables or ("potential", "settings")
    document = read_toml(path)
    document.pop("kind", None)  # which command wrote it
    extra = set(document) - set(names)
    if extra:
        allowed = " and ".join(f"[{name}]" for name in names)
        raise BadConfig(f"{path} has unknown tables {sorted(extra)}: only {allowed} are read")
    return tuple(table(document, name, str(path)) for name in names)


def read_toml(path: Path) -> dict[str, Any]:
    """The contents of a TOML file.

    Raises:
        BadConfig: it is not there, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadConfig(f"there is no configuration file {path}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadConfig(f"cannot read {path} as TOML: {error}") from None


def table(document: Mapping[str, Any], name: str, where: str = "the configuration") -> dict[str, Any]:
    """One table of a TOML document; empty if it is not there.

    Raises:
        BadConfig: it is something else than a table.
    """
    found = document.get(name, {})
    if not isinstance(found, dict):
        raise BadConfig(f"in {where}, {name} must be a table: write [{name}] and lines such as name = ...")
    return found
