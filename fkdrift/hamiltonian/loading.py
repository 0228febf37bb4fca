"""One loader for every way of naming a potential.

    load_potential("helium", Z=2.0)              an installed plug-in (entry-point group fkdrift.potentials)
    load_potential("wells.py:Quartic", a=3.0)    a Potential class, or a function f(r) -> V, in a file
    load_potential("x**2/2 + 0.1*x**4")          a formula (fkdrift.hamiltonian.formula)
    load_potential("well.csv")                   a table (fkdrift.hamiltonian.table)
    load_potential("ase:module:Class", atoms=f)  an ASE calculator (fkdrift.hamiltonian.surface)
    load_potential(function, n_dims=2)           any callable on tensors, or a Potential

`describe` is the way back: the name and the parameters from which the same potential can be loaded again.
Nothing has to be stored for that: a class knows its module, and the module its entry point or its file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import inspect
import sys
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from torch import Tensor

from fkdrift.errors import BadParameter, UnknownPotential
from fkdrift.hamiltonian.formula import LARGEST, FormulaPotential
from fkdrift.hamiltonian.names import (
    code_file,
    distribution,
    file_called,
    installed,
    refuse_unknown,
    refuse_unknown_names,
)
from fkdrift.hamiltonian.potential import FunctionPotential, KnownEnergy, Potential
from fkdrift.hamiltonian.surface import Surface, named_calculator
from fkdrift.hamiltonian.table import TablePotential

_FILES = "fkdrift_files"  # modules executed from a user's file are called fkdrift_files.<digest>.<stem>
_DIGEST = "__digest__"  # in such a module: SHA-256 of the text that was executed


def load_potential(
    source: str | Path | Potential | type[Potential] | Callable[[Tensor], Tensor], /, **parameters: object
) -> Potential:
    """The potential that `source` names, with its parameters set and checked.

    Args:
        source: a plug-in's name, `path/to/file.py:Name`, a formula, a table's path, a callable on tensors
            (batch, particle, dim) -> (batch,), or a Potential (class or instance).
        parameters: fields of the potential's dataclass; for a callable those of `FunctionPotential`.

    Raises:
        UnknownPotential: nothing goes by this name; the message has the closest names.
        BadParameter: a parameter is unknown, missing, of the wrong type, or out of range.
        BadFormula, BadTable: the formula or the table cannot be read.

    Example:
        >>> load_potential("harmonic", omega=2.0).known_energy.value
        1.0
        >>> load_potential("x**2/2 + 0.1*x**4").n_dims
        1
    """
    if isinstance(source, Path):
        source = str(source)
    return _load_text(source.strip(), parameters) if isinstance(source, str) else _load_object(source, parameters)


@dataclass(frozen=True)
class PlugIn:
    """One line of `fkdrift potentials`: an installed potential, or the reason why it cannot be used.

    Args:
        name: what `load_potential` takes.
        distribution: the package it comes from.
        potential: its class, or None if broken.
        broken: why it cannot be used; empty if it can.
    """

    name: str
    distribution: str
    potential: type[Potential] | None = None
    broken: str = ""

    @property
    def formula(self) -> str:
        return self.potential.formula if self.potential else ""

    @property
    def citation(self) -> str:
        return self.potential.citation if self.potential else ""

    @property
    def parameters(self) -> dict[str, object]:
        """Names and defaults; a parameter without a default has inspect.Parameter.empty."""
        return {name: p.default for name, p in _signature(self.potential).items()} if self.potential else {}

    @property
    def known_energy(self) -> KnownEnergy | None:
        """The ground-state energy at the default parameters, where it is known."""
        try:
            return self.potential().known_energy if self.potential else None
        except Exception:  # a third party's constructor may do anything; the listing must survive it
            return None


def available() -> dict[str, PlugIn]:
    """Every installed plug-in by name, third-party ones included; one that fails to import is marked broken."""
    return {name: _import_plug_in(entry) for name, entry in installed().items()}


def describe(potential: Potential) -> dict[str, Any]:
    """How to load this potential again, in values that JSON and TOML can hold.

    Returns:
        {"name": ..., "parameters": {...}, "reloadable": bool}; where reloadable,
        `load_potential(d["name"], **d["parameters"]) == potential`.

    Example:
        >>> describe(load_potential("harmonic", omega=2))
        {'name': 'harmonic', 'parameters': {'omega': 2.0, 'n_dims': 1, 'n_particles': 1}, 'reloadable': True}
    """
    name = _reloadable_name(potential)
    parameters = {key: _plain(value) for key, value in potential.parameters.items() if value is not None}
    return {"name": name or potential.name, "parameters": parameters, "reloadable": name is not None}


def digest(potential: Potential) -> str:
    """SHA-256 of what a potential was made from: another one means that V may be another function.

    That is the text of the Python file it is defined in as it was executed, the numbers of a table, the code of a
    Python callable, and the files that its parameters name.  Modules that the file imports, and variables that a
    callable refers to, are not part of it.

    Returns:
        the digest in hexadecimal digits; empty where nothing is known, as for a class typed into a notebook.
    """
    source = potential.function if isinstance(potential, FunctionPotential | Surface) else potential
    if isinstance(potential, TablePotential):
        content = potential.spline.coefficients.tobytes() + b"".join(t.tobytes() for t in potential.spline.knots)
    elif isinstance(source, types.FunctionType):
        content = _code(source.__code__)
    else:
        content = _text_of(type(source))
    named = (file_called(value) for value in potential.parameters.values() if isinstance(value, str))
    for file in named:
        content += file.read_bytes() if file is not None and file.is_file() else b""
    return hashlib.sha256(content).hexdigest() if content else ""


def _code(code: types.CodeType) -> bytes:
    """What a function does, whatever its file and lines."""

    def plain(value: object) -> bytes:
        if isinstance(value, types.CodeType):
            return _code(value)
        return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value).encode()

    return code.co_code + b"".join(map(plain, code.co_consts)) + repr((code.co_names, code.co_varnames)).encode()


def _text_of(kind: type) -> bytes:
    """The file a class is defined in, as it was executed; nothing where there is none."""
    module = sys.modules.get(kind.__module__)
    if module is not None and hasattr(module, _DIGEST):
        return str(getattr(module, _DIGEST)).encode()
    try:
        return Path(inspect.getfile(kind)).read_bytes()
    except (TypeError, OSError):
        return b""


# The five ways


def _load_text(text: str, parameters: dict[str, object]) -> Potential:
    entries = installed()
    if text in entries:
        plug_in = _import_plug_in(entries[text])
        if plug_in.potential is None:
            raise UnknownPotential(f"the plug-in {text!r} of {plug_in.distribution} cannot be used: {plug_in.broken}")
        return _build(plug_in.potential, parameters)
    if text.startswith("ase:"):
        return named_calculator(text, parameters)
    if (path := code_file(text)) is not None:
        name = text.rpartition(":")[2]
        potential = _load_object(from_file(path, name), parameters)
        if isinstance(potential, Surface):
            return dataclasses.replace(potential, source=f"{file_called(path)}:{name}")
        return potential
    if text.endswith((".csv", ".npz")):
        return _build(TablePotential, parameters, text)
    refuse_unknown(text)
    return _build(FormulaPotential, parameters, text)


def _load_object(source: object, parameters: dict[str, object]) -> Potential:
    if isinstance(source, Potential):
        return _build(type(source), {**_fields(source), **parameters}) if parameters else source
    if isinstance(source, type) and issubclass(source, Potential):
        return _build(source, parameters)
    if callable(source):
        return _build(FunctionPotential, parameters, source)
    raise UnknownPotential(
        f"cannot make a potential from {source!r}; give a name, a callable on tensors, or a Potential"
    )


# Plug-ins


def _import_plug_in(entry: EntryPoint) -> PlugIn:
    package = distribution(entry)
    try:
        potential = entry.load()
    except (Exception, SystemExit) as error:  # whatever a third party's module does, the others must stay usable
        return PlugIn(entry.name, package, broken=f"{type(error).__name__}: {error}")
    if not (isinstance(potential, type) and issubclass(potential, Potential)):
        return PlugIn(entry.name, package, broken=f"{entry.value} is not a class that inherits fkdrift.Potential")
    return PlugIn(entry.name, package, potential)


# Files


def from_file(path: str, name: str) -> Any:
    """The object called `name` in a Python file; the same content is executed once only.

    Raises:
        UnknownPotential: there is no such file, it cannot be executed, or it has no such name.
    """
    file = file_called(path)
    if file is None or not file.is_file():
        raise UnknownPotential(f"there is no file {path[:200]!r}; check the path")
    file = file.resolve()
    content = file.read_bytes()
    digest = hashlib.sha256(str(file).encode() + b"\0" + content).hexdigest()[:12]
    module = sys.modules.get(f"{_FILES}.{digest}.{file.stem}") or _execute(file, f"{_FILES}.{digest}.{file.stem}")
    module.__dict__[_DIGEST] = hashlib.sha256(content).hexdigest()
    if not hasattr(module, name):
        names = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        raise UnknownPotential(f"{path} has no {name!r}; it defines {', '.join(names) or 'nothing'}")
    return getattr(module, name)


def files_executed() -> tuple[str, ...]:
    """Every Python file that `from_file` has executed; for `execute_again` in another process."""
    return tuple(str(m.__file__) for name, m in list(sys.modules.items()) if name.startswith(f"{_FILES}."))


def execute_again(files: Sequence[str]) -> None:
    """Execute files as another process had them, so that what they define can be unpickled here."""
    for file in files:
        from_file(file, "__name__")


def _execute(file: Path, module_name: str) -> types.ModuleType:
    """The module of a file as it is now: kept bytecode is of the same second and size at best, not of the same text."""
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise UnknownPotential(f"{file} is not Python source; give a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # before execution: dataclasses look their module up
    sys.modules.setdefault(_FILES, types.ModuleType(_FILES))  # pickle looks for the package of a module
    try:
        exec(compile(file.read_bytes(), file, "exec", dont_inherit=True), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        raise UnknownPotential(f"{file} cannot be used: {type(error).__name__}: {error}") from error
    return module


# Parameters


def _build(potential: type[Potential], parameters: dict[str, object], *first: object) -> Potential:
    """An instance, with every parameter checked against the signature."""
    allowed = dict(list(_signature(potential).items())[len(first) :])
    label = potential.__name__
    refuse_unknown_names(label, parameters, allowed)
    missing = [name for name, p in allowed.items() if p.default is p.empty and name not in parameters]
    if missing:
        raise BadParameter(f"{label} needs a value for {', '.join(missing)}: add --param {missing[0]}=VALUE")
    kinds = _kinds(potential)
    try:
        return potential(*first, **{name: _convert(name, value, kinds.get(name)) for name, value in parameters.items()})
    except TypeError as error:  # an abstract method left out, say
        raise BadParameter(f"{label} cannot be made: {error}") from error


def _signature(potential: type[Potential]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(potential).parameters)


def _kinds(potential: type[Potential]) -> dict[str, object]:
    """The annotated type of each parameter, as far as the annotations can be resolved."""
    owner = potential if dataclasses.is_dataclass(potential) else potential.__init__
    try:
        return typing.get_type_hints(owner)
    except (NameError, TypeError):
        return {}


def _convert(name: str, value: object, kind: object) -> object:
    """`value` as the annotated type, where that loses nothing."""
    options = (
        typing.get_args(kind)
        if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
        else (kind,)
    )
    if value is None and type(None) in options:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and not _finite(value):
        raise BadParameter(f"{name} = {value!r} is not allowed: {name} must be a finite number up to {LARGEST:.2g}")
    for option in options:
        if option is bool and isinstance(value, bool):
            return value
        if option is int and number and value == int(value):  # type: ignore[call-overload]
            return int(value)  # type: ignore[call-overload]
        if option is float and number:
            return float(value)  # type: ignore[arg-type]
        if option is str and isinstance(value, str):
            return value
        if option is tuple or typing.get_origin(option) is tuple:
            items = value if isinstance(value, list | tuple) else (value,)
            inner = next(iter(typing.get_args(option)), None)
            return tuple(_convert(name, item, inner) for item in items)
    if any(option in _WORDS for option in options):
        wanted = " or ".join(_WORDS[option] for option in options if option in _WORDS)
        raise BadParameter(f"{name} = {value!r} is not allowed: {name} must be {wanted}")
    return value


_WORDS: dict[object, str] = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a string"}


def _finite(value: object) -> bool:
    """Whether a number fits into the smallest type that V is evaluated in."""
    try:
        return abs(float(value)) <= LARGEST  # type: ignore[arg-type]
    except OverflowError:
        return False


# The way back


def _reloadable_name(potential: Potential) -> str | None:
    """What to give to load_potential to get this class or function again, or None."""
    if isinstance(potential, FormulaPotential | TablePotential):
        return potential.name
    if isinstance(potential, Surface):
        return potential.source
    source = potential.function if isinstance(potential, FunctionPotential) else type(potential)
    module, name = getattr(source, "__module__", "") or "", getattr(source, "__qualname__", "")
    for entry in installed().values():
        if entry.value == f"{module}:{name}":
            return entry.name
    if module.startswith(f"{_FILES}.") and getattr(sys.modules.get(module), name, None) is source:
        return f"{sys.modules[module].__file__}:{name}"
    return None


def _fields(potential: Potential) -> dict[str, object]:
    return {name: getattr(potential, name) for name in _signature(type(potential))}


def _plain(value: object) -> object:
    """Tuples as lists, all the way down."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
