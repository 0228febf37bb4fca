"""Any potential energy surface: a function that is only ever evaluated, in this process or in others.

`evaluate(positions) -> energies` is called with numpy arrays (batch, atom, 3) in the units that are named; nothing ever
asks for its derivatives.  Geometries for which it raises or returns no number are counted, and taken to be as high as
the highest of their batch.  With a memo on disk nothing that was computed is computed again.
"""

from __future__ import annotations

import hashlib
import importlib
import pickle
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fkdrift.errors import BadParameter, ComputationError, NoGradient
from fkdrift.hamiltonian.potential import Potential, require
from fkdrift.hamiltonian.units import Units, atomic_masses, hbar2_over_u
from fkdrift.tensor_types import PerWalker, Positions

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

CHUNK = 256  # geometries in one call
MOST_FAILED = 0.02  # share of geometries without an energy that is repaired, of CHUNK or more


class Memo:
    """Energies by geometry, in a file that is only ever appended to: what one crash cuts off is one record.

    Args:
        path: the file; made if it is not there.
    """

    RECORD = np.dtype([("key", "S16"), ("energy", "<f8")])

    def __init__(self, path: Path) -> None:
        self.path, self.known = path, dict[bytes, float]()
        if path.exists():
            whole = path.stat().st_size // self.RECORD.itemsize
            records = np.fromfile(path, dtype=np.uint8, count=whole * self.RECORD.itemsize).reshape(whole, -1)
            energies = np.ascontiguousarray(records[:, 16:]).view("<f8")[:, 0]
            self.known = {bytes(row[:16]): float(E) for row, E in zip(records, energies, strict=True)}
            with path.open("r+b") as file:
                file.truncate(whole * self.RECORD.itemsize)

    def keys(self, x: Array) -> list[bytes]:
        return [hashlib.blake2b(each.tobytes(), digest_size=16).digest() for each in np.ascontiguousarray(x)]

    def add(self, keys: Sequence[bytes], energies: Array) -> None:
        with self.path.open("ab") as file:
            file.write(b"".join(key + np.float64(E).tobytes() for key, E in zip(keys, energies, strict=True)))
        self.known.update(zip(keys, map(float, energies), strict=True))


@dataclass(frozen=True, eq=False)
class Surface(Potential):
    """Free atoms on a potential energy surface that somebody else computes.

    The energies are in `energy_unit` and the positions in `length_unit`, which are the natural units (hbar = 1).

    Args:
        function: numpy positions (batch, atom, 3) to energies (batch,), called with at most CHUNK at once; with
            `workers` it must be picklable.  It is never called from two threads.
        symbols: elements, or isotopes such as D.
        start: positions (atom, 3) near a minimum, from which the geometry at rest is looked for; or None to search.
        energy_unit, length_unit: of the function, see `fkdrift.hamiltonian.units`.
        masses: "atomic" or "nuclear".
        workers: processes that evaluate it; 0 for this one.
        memo: a file for all energies that were computed, or None.
        source, given: how the command line named it, with its parameters, where it did.

    Attributes:
        failures: how many geometries had no energy, and were repaired.
        evaluations: how many energies were computed.

    Raises:
        BadParameter: an element or unit is not known, two atoms start at one place, or the function does not take
            numpy arrays (batch, atom, 3) to (batch,).

    Example:
        >>> spring = Surface(lambda x: ((x[:, 0] - x[:, 1]) ** 2).sum(1), symbols=("H", "H"))
        >>> spring(torch.tensor([[[0.0, 0, 0], [0, 0, 2.0]]]))
        tensor([4.])
    """

    function: Function
    symbols: tuple[str, ...]
    start: tuple[tuple[float, ...], ...] | None = None
    energy_unit: str = "cm-1"
    length_unit: str = "angstrom"
    masses: Literal["atomic", "nuclear"] = "atomic"
    workers: int = 0
    memo: str | None = None
    source: str | None = None
    given: dict[str, Any] = field(default_factory=dict)
    _count: dict[str, Any] = field(
        default_factory=lambda: {"failures": 0, "evaluations": 0, "last": ""}, init=False, repr=False
    )

    n_dims = 3
    free = True
    isotropic = True
    values_only = True
    formula = "V = a potential energy surface"

    def __post_init__(self) -> None:
        require(callable(self.function), "function", self.function, "callable")
        require(len(self.symbols) >= 2, "symbols", self.symbols, "at least two elements")
        require(isinstance(self.workers, int) and self.workers >= 0, "workers", self.workers, "0, or a number")
        self.mass  # noqa: B018  refuses unknown elements and units now
        x = np.random.default_rng(0).normal(size=(1, self.n_particles, 3))
        if self.start is not None:
            x = np.asarray(self.start, dtype=float)[None]
            require(x.shape == (1, self.n_particles, 3), "start", x.shape[1:], f"({self.n_particles}, 3) positions")
            d = np.linalg.norm(x[0, :, None] - x[0], axis=-1) + np.eye(self.n_particles)
            require(bool(d.min() > 1e-3), "start", "two atoms at one place", "positions of atoms that are apart")
        value = self._call(np.repeat(x, 2, 0))
        if self.start is not None and not np.isfinite(value).all():
            raise BadParameter(f"{self.name} has no energy for the geometry it starts with: {self._count['last']}")
        if self.workers:
            try:
                pickle.dumps(self.function)
            except Exception as error:
                raise BadParameter(
                    f"{self.name} cannot be sent to worker processes ({error}): define it at the top of a module, or "
                    "leave workers out"
                ) from None

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    @property
    def parameters(self) -> dict[str, object]:
        own = {"energy_unit", "length_unit", "masses", "workers", "memo"}
        return self.given or {name: value for name, value in super().parameters.items() if name in own}

    @property
    def units(self) -> str:  # type: ignore[override]
        return f"hbar = 1, energies in {self.energy_unit}, lengths in {self.length_unit}, {self.masses} masses"

    @property
    def natural_units(self) -> Units:  # type: ignore[override]
        return Units(self.energy_unit, self.length_unit)

    @property
    def n_particles(self) -> int:  # type: ignore[override]
        return len(self.symbols)

    @property
    def mass(self) -> tuple[float, ...]:
        unit = hbar2_over_u(self.energy_unit, self.length_unit)
        return tuple(m / unit for m in atomic_masses(self.symbols, self.masses))

    @property
    def failures(self) -> int:
        return int(self._count["failures"])

    @property
    def evaluations(self) -> int:
        return int(self._count["evaluations"])

    def __call__(self, r: Positions) -> PerWalker:
        if torch.is_grad_enabled() and r.requires_grad:
            raise NoGradient(
                f"{self.name} has values only, and this needs its gradient; --drift gradient, the default, does not"
            )
        x = np.ascontiguousarray(r.detach().cpu().double().numpy())
        return torch.from_numpy(self._energies(x)).to(r)

    def _energies(self, x: Array) -> Array:
        """Energies of positions (batch, atom, 3), those without one repaired."""
        if self._memo is None:
            V = self._computed(x)
        else:
            keys = self._memo.keys(x)
            new = [k for k, key in enumerate(keys) if key not in self._memo.known]
            for first in range(0, len(new), CHUNK * max(self.workers, 1)):
                some = new[first : first + CHUNK * max(self.workers, 1)]
                self._memo.add([keys[k] for k in some], self._computed(x[some]))
            V = np.array([self._memo.known[key] for key in keys])
        bad = ~np.isfinite(V)
        if bad.any():
            self._count["failures"] += int(bad.sum())
            if bad.all() or (len(V) >= CHUNK and bad.mean() > MOST_FAILED):
                raise ComputationError(
                    f"{self.name} has no energy for {bad.sum()} of {len(V)} geometries: {self._count['last']}"
                )
            V = np.where(bad, V[~bad].max(), V)
        return V

    def _computed(self, x: Array) -> Array:
        """Energies, NaN where there is none, in chunks and in as many processes as there are workers."""
        self._count["evaluations"] += len(x)
        parts = np.array_split(x, max(1, -(-len(x) // CHUNK), min(self.workers, len(x))))
        results = map(self._call, parts) if self._pool is None else self._pool.map(_call_in_worker, parts)
        energies = []
        for part in results:
            if isinstance(part, tuple):
                part, self._count["last"] = part
            energies.append(part)
        return np.concatenate(energies)

    def _call(self, x: Array) -> Array:
        V, self._count["last"] = _safely(self.function, x)
        return V

    @cached_property
    def _memo(self) -> Memo | None:
        return None if self.memo is None else Memo(Path(self.memo))

    @cached_property
    def _pool(self) -> ProcessPoolExecutor | None:
        if not self.workers:
            return None
        return ProcessPoolExecutor(self.workers, get_context("spawn"), _start_worker, (pickle.dumps(self.function),))


def _safely(function: Function, x: Array) -> tuple[Array, str]:
    """Energies, those that cannot be had as NaN, and why not; a batch that raises is tried one by one.

    Raises:
        BadParameter: what comes back is not one number for each geometry.
    """
    try:
        V = np.asarray(function(x), dtype=float)
    except Exception as error:  # whatever the function raises, the others in its batch are to be kept
        if len(x) > 1:
            parts = [_safely(function, x[k : k + 1]) for k in range(len(x))]
            return np.concatenate([V for V, _ in parts]), next((why for _, why in parts[::-1] if why), "")
        return np.full(1, np.nan), f"{type(error).__name__}: {error}"
    if V.shape != (len(x),):
        raise BadParameter(
            f"the potential returned shape {V.shape} for positions {x.shape}: give a function of numpy arrays (batch, "
            "atom, 3) that returns one energy for each geometry"
        )
    return V, "" if np.isfinite(V).all() else "it returned NaN or infinity"


_function: Function | None = None


def _start_worker(pickled: bytes) -> None:
    global _function
    torch.set_num_threads(1)
    _function = pickle.loads(pickled)


def _call_in_worker(x: Array) -> tuple[Array, str]:
    assert _function is not None
    return _safely(_function, x)


class AseEnergies:
    """The energies of an ASE calculator, one geometry after the other, in eV and angstrom.

    Args:
        calculator: an ASE calculator.
        atoms: an ASE Atoms with the same elements.
    """

    def __init__(self, calculator: Any, atoms: Any) -> None:
        self.atoms = atoms.copy()
        self.atoms.calc = calculator
        self.__name__ = type(calculator).__name__

    def __call__(self, x: Array) -> Array:
        energies = []
        for positions in x:
            self.atoms.set_positions(positions)
            energies.append(self.atoms.get_potential_energy())
        return np.array(energies)


def from_ase(
    calculator: Any,
    atoms: Any,
    *,
    masses: Literal["atomic", "nuclear"] = "atomic",
    workers: int = 0,
    memo: str | None = None,
) -> Surface:
    """The potential energy surface of an ASE calculator; energies in eV, lengths in angstrom.

    Args:
        calculator: any ASE calculator.
        atoms: the atoms, in a geometry near a minimum; each is the most abundant isotope of its element.
        masses, workers, memo: as for `Surface`.

    Example:
        >>> import ase, ase.calculators.lj                                              # doctest: +SKIP
        >>> argon = ase.Atoms("Ar3", [(0, 0, 0), (3.8, 0, 0), (1.9, 3.3, 0)])             # doctest: +SKIP
        >>> fk.from_ase(ase.calculators.lj.LennardJones(sigma=3.4, epsilon=0.0103), argon)  # doctest: +SKIP
    """
    positions = tuple(tuple(map(float, row)) for row in atoms.get_positions())
    symbols = tuple(atoms.get_chemical_symbols())
    return Surface(AseEnergies(calculator, atoms), symbols, positions, "eV", "angstrom", masses, workers, memo)


def named_calculator(text: str, given: Mapping[str, Any]) -> Surface:
    """`ase:module:Class`, with atoms read from a file and the calculator's own parameters.

    Raises:
        BadParameter: ase, the calculator or the file is not there.
    """
    module, _, name = text.removeprefix("ase:").rpartition(":")
    try:
        from ase.io import read

        calculator = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise BadParameter(
            f"{text} needs a package that is not installed ({error}): pip install 'fkdrift[ase]'"
        ) from None
    except (AttributeError, ValueError, TypeError):
        raise BadParameter(
            f"there is no {text[:80]}: write ase:module:Class, such as ase:ase.calculators.emt:EMT"
        ) from None
    atoms = given.get("atoms")
    if not atoms:
        raise BadParameter(f"which atoms? Give --param atoms=FILE with a geometry near a minimum for {text}")
    parameters = {key: value for key, value in given.items() if key != "atoms"}
    own = {key: parameters.pop(key) for key in ("masses", "workers", "memo") if key in parameters}
    try:
        return replace(from_ase(calculator(**parameters), read(atoms), **own), source=text, given=dict(given))
    except TypeError as error:
        raise BadParameter(f"{name} does not take these parameters: {error}") from None
    except OSError as error:
        raise BadParameter(f"cannot read atoms from {atoms}: {error}") from None
