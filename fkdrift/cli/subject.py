"""From what a command line and a configuration file say to a potential and its settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fkdrift.cli.options import Request
from fkdrift.errors import BadConfig
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
    described, written = _tables(request.config, "potential")
    name, kept = _named(name, described)
    settings = kind.from_values({**written, **request.given})
    return load(name, param, kept), settings


def load(name: str, param: list[str] | None, kept: dict[str, Any] | None = None) -> Potential:
    """A potential by name, with parameters of the command line over those of a file."""
    from fkdrift.hamiltonian.names import refuse_unknown

    refuse_unknown(name)
    from fkdrift.hamiltonian.loading import load_potential, parse_parameters

    return load_potential(name, **{**(kept or {}), **parse_parameters(param or [])})


def _tables(config: Path | None, *tables: str) -> tuple[dict[str, Any], ...]:
    """The tables of a file and its [settings]."""
    return read_config(config, *tables, "settings") if config is not None else ({},) * (len(tables) + 1)


def _named(name: str | None, described: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Which potential, and the parameters that a file has for it."""
    written = described.get("name")
    if name is None and written is None:
        raise BadConfig("which potential? Give --potential NAME (`fkdrift potentials` lists them), or a --config file")
    if name is None and not described.get("reloadable", True):
        raise BadConfig(f"the potential {written!r} was a Python callable, which a file cannot hold: use fk.solve")
    extra = set(described) - {"name", "parameters", "reloadable"}
    if extra:
        raise BadConfig(f"[potential] has unknown entries {sorted(extra)}: it takes name and parameters")
    return name or str(written), described.get("parameters", {}) if name in (None, written) else {}
