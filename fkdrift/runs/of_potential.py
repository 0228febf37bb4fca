"""Runs that are about one potential: what of them does not depend on what is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from fkdrift.errors import BadConfig
from fkdrift.hamiltonian.loading import describe, digest, load_potential
from fkdrift.hamiltonian.potential import Potential
from fkdrift.runs.run import Run
from fkdrift.runs.settings import table
from fkdrift.settings import RunSettings


class OfPotential(Run):
    """A run whose subject is a potential; its class is called with the potential and the settings.

    Attributes:
        potential: V.
        settings_class: its dataclass of settings.
    """

    settings_class: ClassVar[type[RunSettings]]
    potential: Potential

    @property
    def title(self) -> str:
        return self.potential.name

    @property
    def subject(self) -> dict[str, Any]:
        return {"potential": describe(self.potential)}

    @property
    def sources(self) -> dict[str, str]:
        return {**super().sources, "potential": digest(self.potential)}

    @classmethod
    def rebuild(cls, config: Mapping[str, Any], source: Any, changes: Mapping[str, Any]) -> Self:
        settings = cls.settings_class.from_values({**table(config, "settings"), **changes})
        make: Any = cls
        return make(potential_again(config, source), settings)


def potential_again(config: Mapping[str, Any], source: Any) -> Potential:
    """The potential that a config.toml describes, or `source` in its place.

    Raises:
        BadConfig: it is not described, or was a Python callable.
    """
    described = table(config, "potential")
    name = described.get("name", "")
    if source is None and not described.get("reloadable", True):
        raise BadConfig(f"this run was made from the Python callable {name!r}: pass it again, as the second argument")
    if source is None and not name:
        raise BadConfig("its config.toml does not say which potential: write name = ... under [potential]")
    return source if isinstance(source, Potential) else load_potential(source or name, **table(described, "parameters"))
