"""Settings as dataclasses: a field carries its help, its range, its option and the methods that use it.

    @dataclass(frozen=True, kw_only=True)
    class Settings(RunSettings):
        n_walkers: int = setting(1024, "Independent walkers.", least=2)

Command-line options with their help, the checks, the files config.toml and the tables in the documentation are made
from these fields, so that a new setting is one line.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from fkdrift.errors import BadConfig, did_you_mean

if TYPE_CHECKING:  # imported where it is used, so that `fkdrift --help` need not wait for it
    import torch

Condition = Mapping[str, str | tuple[str, ...]]
"""Values that other settings must have, such as {"optimiser": "adam"} or {"network": ("mlp", "conv")}."""

TOO_LARGE = 2**63
"""For a whole number: torch has none beyond."""
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True)
class About:
    """What is known of a setting besides its type and default.

    Args:
        help: a sentence.
        choices: all values that are allowed, for text.
        own: whether `file.py:Name` is allowed too, something of the user's own; it may need any other setting.
        least, above, below: a number has to be finite, and >= least (or > above), and < below.
        adopted: what a default of None stands for.
        flags: options of the command line; default --name-of-the-field.
        only: a condition, or several of which one must hold, for the setting to be used at all.
        extends: whether a saved run may be taken further with another value.
        metavar: what stands for the value in the help.
    """

    help: str
    choices: tuple[str, ...] = ()
    own: bool = False
    least: float | None = None
    above: float = 0.0
    below: float = math.inf
    adopted: str = ""
    flags: tuple[str, ...] = ()
    only: Sequence[Condition] = ()
    extends: bool = False
    metavar: str = ""


def setting(default: Any, help: str, *, only: Condition | Sequence[Condition] = (), **about: Any) -> Any:
    """A field of a dataclass of settings.

    Args:
        default: `dataclasses.MISSING` where there is none and a value has to be given.
        help, only, about: see `About`; `only` may be a single condition.

    Example:
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Walk(RunSettings):
        ...     step: float = setting(0.1, "Length of a step.", below=1)
        >>> Walk(step=2.0)
        Traceback (most recent call last):
        fkdrift.errors.BadConfig: step = 2.0 is not allowed: it must be finite and above 0 and below 1
    """
    conditions = (only,) if isinstance(only, Mapping) else tuple(only)
    return dataclasses.field(default=default, metadata={"about": About(help, only=conditions, **about)})


def default(base: type[RunSettings], name: str, value: Any, **about: Any) -> Any:
    """A field of `base` with another default, and other entries of `About`, for a class that extends it."""
    return setting(value, **{**vars(fields_of(base)[name].about), **about})


@dataclass(frozen=True)
class SettingField:
    """One setting of a class: name, type and default, and what `About` says.

    Args:
        name: of the attribute.
        kind: int, float, bool or str, of the value or of each item.
        many: whether it is a tuple of them.
        optional: whether it may be None.
        default: `dataclasses.MISSING` if a value has to be given.
        about: the rest.
    """

    name: str
    kind: type
    many: bool
    optional: bool
    default: Any
    about: About

    @property
    def flags(self) -> tuple[str, ...]:
        """The options of the command line, the plainest first."""
        return self.about.flags or (f"--{self.name.replace('_', '-')}",)

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING

    @property
    def shown_default(self) -> str:
        """The default in words, empty where there is none."""
        if self.required:
            return ""
        if self.default is None:
            return self.about.adopted or "none"
        return _text(self.default)

    @property
    def help(self) -> str:
        """The help, and which methods use the setting."""
        return f"{self.about.help} Only with {_conditions(self.about.only)}." if self.about.only else self.about.help

    def check(self, value: object) -> None:
        """Raise BadConfig unless the value has the field's type and is within its range."""
        if value is None and self.optional:
            return
        if not self.many:
            self._check_one(value, value)
        elif not isinstance(value, tuple) or not value:
            raise self._refusal(value, f"it must be a list of one or more, each {KINDS[self.kind]}")
        else:
            for item in value:
                self._check_one(value, item)

    def _check_one(self, value: object, item: object) -> None:
        about = self.about
        if about.choices and item not in about.choices and not (about.own and is_own(item)):
            or_own = ", or file.py:Name for one of your own" if about.own else ""
            raise self._refusal(value, f"choose from {', '.join(about.choices)}{or_own}")
        number = isinstance(item, int | float) and not isinstance(item, bool)
        fits = number if self.kind is float else isinstance(item, self.kind) and (number or self.kind is not int)
        if not fits:
            raise self._refusal(value, f"it must be {KINDS[self.kind]}")
        if not number:
            return
        assert isinstance(item, int | float)
        if isinstance(item, int) and abs(item) >= TOO_LARGE:
            raise BadConfig(f"{self.name} is too large a number: it must be below {TOO_LARGE:.3g}")
        low = item >= about.least if about.least is not None else item > about.above
        if not (math.isfinite(item) and low and item < about.below):
            raise self._refusal(value, f"it must be {_range(about)}")

    def _refusal(self, value: object, allowed: str) -> BadConfig:
        shown = list(value) if isinstance(value, tuple) else value
        return BadConfig(f"{self.name} = {shown!r} is not allowed: {allowed}")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What every computation depends on; each method or model extends it with fields of its own.

    Raises:
        BadConfig: a value is out of range, or a setting is not used by the chosen method; the message says what is.
    """

    seed: int = setting(0, "Of the network's start, the samples and the noise.", least=0)
    max_seconds: float | None = setting(None, "Stop after this many seconds of wall time.", extends=True)
    device: str = setting("auto", "auto (CUDA where there is one), cpu, cuda or cuda:1.", extends=True)
    dtype: str | None = setting("float32", "Of networks and samples.", choices=("float32", "float64"))
    threads: int = setting(1, "Of the CPU; one is fastest for small arrays, and repeatable.", extends=True)

    def __post_init__(self) -> None:
        for field in fields_of(type(self)).values():
            value = getattr(self, field.name)
            if isinstance(value, list):
                value = tuple(value)
                object.__setattr__(self, field.name, value)
            field.check(value)
            if value != field.default and not self.uses(field.name):
                raise self._not_used(field)
        if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", self.device):
            raise BadConfig(f"device = {self.device!r} is not a device: use auto, cpu, cuda or cuda:0")

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Settings from names and values that somebody gave.

        Raises:
            BadConfig: a name is unknown (the message has the closest one), is missing or is not used by the chosen
                method, or a value is not allowed.
        """
        known = fields_of(cls)
        for name in values:
            if name not in known:
                hint = did_you_mean(name, known)
                raise BadConfig(
                    f"unknown setting {name!r}{'; ' if hint else ' '}{hint}Known settings: {', '.join(known)}"
                )
        missing = [field.flags[0] for field in known.values() if field.required and field.name not in values]
        if missing:
            raise BadConfig(f"{', '.join(missing)} missing: a value has to be given for each")
        settings = cls(**values)
        for name in values:
            if not settings.uses(name):
                raise settings._not_used(known[name])
        return settings

    def changed(self, **values: Any) -> Self:
        """The same settings with other values for those that are given as not None, checked as by `from_values`."""
        known = fields_of(type(self)).values()
        own = {field.name: value for field in known if (value := getattr(self, field.name)) != field.default}
        return self.from_values(own | {name: value for name, value in values.items() if value is not None})

    def uses(self, name: str) -> bool:
        """Whether the chosen method has a use for a setting."""
        conditions = fields_of(type(self))[name].about.only
        return not conditions or any(self._holds(condition) for condition in conditions)

    def to_dict(self) -> dict[str, Any]:
        """Every setting that is used and is not None, in values for JSON and TOML."""
        values = {name: value for name in fields_of(type(self)) if (value := getattr(self, name)) is not None}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items() if self.uses(name)}

    @property
    def torch_dtype(self) -> torch.dtype:
        import torch

        return {"float32": torch.float32, "float64": torch.float64}[self.dtype or "float32"]

    @property
    def torch_device(self) -> torch.device:
        """The device to run on.

        Raises:
            BadConfig: it does not exist on this machine.
        """
        import torch

        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        device = torch.device(self.device)
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise BadConfig(
                f"device = {self.device!r} is not there: this machine has {torch.cuda.device_count()} CUDA devices "
                "that torch can use; use --device cpu, or install a CUDA build of torch"
            )
        return device

    def _holds(self, condition: Condition) -> bool:
        return all(
            self.uses(name) and (is_own(chosen := getattr(self, name)) or chosen in _values(value))
            for name, value in condition.items()
        )

    def _not_used(self, field: SettingField) -> BadConfig:
        names = {name for condition in field.about.only for name in condition}
        chosen = ", ".join(f"{name} = {getattr(self, name)}" for name in fields_of(type(self)) if name in names)
        return BadConfig(
            f"{field.name} is not used with {chosen}: leave it out; it is for {_conditions(field.about.only)}"
        )


@dataclass(frozen=True, kw_only=True)
class SharedSettings(RunSettings):
    """What a computation that several processes can share depends on.

    Raises:
        BadConfig: as for `RunSettings`.
    """

    workers: str | int | None = setting(
        None,
        "Processes that share the walkers: a number, or every physical core (every GPU) where the work is worth it.",
        adopted="1, or what FKDRIFT_WORKERS says",
        metavar="auto|N",
        extends=True,
    )

    def __post_init__(self) -> None:
        if type(self.workers) is int:
            object.__setattr__(self, "workers", str(self.workers))
        super().__post_init__()
        text = str(self.workers or AUTO)
        if text != AUTO and not (text.isdecimal() and int(text) > 0):
            raise BadConfig(f"workers = {self.workers!r} is not allowed: give a number of at least 1, or auto")


AUTO = "auto"
"""Of `workers`: as many as pay."""


def is_own(value: object) -> bool:
    """Whether a setting names an object in a file, `file.py:Name`."""
    return isinstance(value, str) and value.partition(":")[0].endswith(".py") and value.count(":") == 1


def fields_of(kind: type[RunSettings]) -> dict[str, SettingField]:
    """The settings of a class by name."""
    if kind not in _FIELDS:
        hints = typing.get_type_hints(kind)
        _FIELDS[kind] = {field.name: _field(field, hints[field.name]) for field in dataclasses.fields(kind)}
    return _FIELDS[kind]


_FIELDS: dict[type, dict[str, SettingField]] = {}
"""What `fields_of` has found, for each class once."""


def extensible(*kinds: type[RunSettings]) -> dict[str, SettingField]:
    """The settings of these classes that a saved run may be taken further with, by name."""
    found: dict[str, SettingField] = {}
    for kind in kinds:
        for name, field in fields_of(kind).items():
            if field.about.extends:
                found.setdefault(name, field)
    return found


def markdown_table(kind: type[RunSettings], base: type[RunSettings] | None = None) -> str:
    """The settings of a class as a table of the documentation, without those of `base`."""
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for name, field in fields_of(kind).items():
        if base is not None and fields_of(base).get(name) == field:
            continue
        option = ", ".join(f"`{flag}`" for flag in field.flags)
        choices = (*field.about.choices, *(("file.py:Name",) if field.about.own else ()))
        values = ", ".join(f"`{choice}`" for choice in choices)
        meaning = (f"{values}: {field.help}" if values else field.help).replace("|", r"\|")
        rows.append(f"| {option} | {'(required)' if field.required else field.shown_default} | {meaning} |")
    return "\n".join(rows)


def _field(field: dataclasses.Field[Any], hint: Any) -> SettingField:
    """A field with its type taken apart."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    besides = (types.NoneType, int) if str in options else (types.NoneType,)  # a number is kept as text
    (kind,) = [option for option in options if option not in besides]
    many = typing.get_origin(kind) is tuple
    inner = typing.get_args(kind)[0] if many else kind
    return SettingField(field.name, inner, many, types.NoneType in options, field.default, field.metadata["about"])


def _text(value: object) -> str:
    """A value as a person writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _range(about: About) -> str:
    """The range of a number in words."""
    low = f"at least {about.least:g}" if about.least is not None else f"above {about.above:g}"
    parts = [
        "finite",
        "" if about.above == -math.inf else low,
        f"below {about.below:g}" if about.below < math.inf else "",
    ]
    return " and ".join(part for part in parts if part)


def _conditions(conditions: Sequence[Condition]) -> str:
    """Conditions in words: optimiser adam, or drift mlp."""
    parts = [[f"{name} {' or '.join(_values(value))}" for name, value in c.items()] for c in conditions]
    return ", or ".join(" and ".join(part) for part in parts)


def _values(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """The values that a condition allows."""
    return (value,) if isinstance(value, str) else value
