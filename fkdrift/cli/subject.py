"""From what a command line and a configuration file say to a potential and its settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fkdrift.cli.options import Request
from fkdrift.errors import BadConfig
from fkdrift.hamiltonian.names import parse_parameters, refuse_unknown, refuse_unknown_parameters
from fkdrift.runs.settings import read_config
from fkdrift.settings import RunSettings

if TYPE_CHECKING:
    from fkdrift.hamiltonian.potential import Potential

AnySettings = TypeVar("AnySettings", bound=RunSettings)


def potential_and_settings(
    name: str | None, param: list[str] | None, kind: type[AnySettings], request: Request
) -> tuple[Potential, AnySettings]:
    """The potential and the settings that are asked for; whatever can be refused without torch is refused first.

    Options win over the file; the file's parameters belong to its own potential only.
    """
    name, kept, (written,) = described(name, request.config, "settings")
    settings = kind.from_values({**written, **request.given})
    return load(name, param, kept), settings


def described(
    name: str | None, config: Path | None, *tables: str
) -> tuple[str, dict[str, Any] | None, tuple[dict[str, Any], ...]]:
    """The name of the potential, its parameters in a file (None: the file is about another), and tables of the file."""
    about, *others = ({},) * (len(tables) + 1) if config is None else read_config(config, "potential", *tables)
    name, kept = _named(name, about)
    return name, kept, tuple(others)


def load(name: str, param: list[str] | None, kept: dict[str, Any] | None = None) -> Potential:
    """A potential by name, with parameters of the command line over those of a file."""
    refuse_unknown(name)
    given = parse_parameters(param or [])
    refuse_unknown_parameters(name, given)
    from fkdrift.hamiltonian.loading import load_potential

    return load_potential(name, **{**(kept or {}), **given})


def _named(name: str | None, about: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """Which potential, and the parameters that a file has for it; None where the file is about another."""
    written = about.get("name")
    if not (written if name is None else name.strip()):
        raise BadConfig("which potential? Give --potential NAME (`fkdrift potentials` lists them), or a --config file")
    if name is None and not about.get("reloadable", True):
        raise BadConfig(f"the potential {written!r} was a Python callable, which a file cannot hold: use fk.solve")
    extra = set(about) - {"name", "parameters", "reloadable"}
    if extra:
        raise BadConfig(f"[potential] has unknown entries {sorted(extra)}: it takes name and parameters")
    return str(written) if name is None else name, about.get("parameters", {}) if name in (None, written) else None
