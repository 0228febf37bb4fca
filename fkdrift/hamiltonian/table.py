"""Potentials tabulated on a grid: a cubic spline through the points of well.csv or well.npz.

Formats, for one particle in one to three dimensions:

    csv     a header `x,V`, `x,y,V` or `x,y,z,V` (columns in any order), then one row for each grid point in
            any order; lines that start with # are skipped
    npz     arrays x (and y, z), each increasing, and V of shape (len(x), ...), as written by numpy.savez

The grid is the product of its axes, which may be unevenly spaced, with four points or more on each.  V is

    V(x, y, z) = sum_{abc} C_abc B_a(x) B_b(y) B_c(z)

with cubic B-splines B and not-a-knot ends: twice continuously differentiable, error O(spacing^4).
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fkdrift.errors import BadTable, OutsideTable
from fkdrift.hamiltonian.names import file_called
from fkdrift.hamiltonian.potential import Potential
from fkdrift.tensor_types import PerWalker, Positions

AXES = ("x", "y", "z")
MIN_POINTS = 4
MOST_BYTES = 2 << 30
"""Of a table, unpacked."""


@dataclass(frozen=True)
class TablePotential(Potential):
    """V of one particle, interpolated in a table; defined inside its grid only.

    Args:
        path: a .csv or .npz file in the formats above.

    Raises:
        BadTable: the file cannot be read, or is not a grid of finite numbers.
        OutsideTable: (on evaluation) a walker is outside the grid.

    Reference:
        C. de Boor, A Practical Guide to Splines (Springer, 2001), chapters 10 and 17.

    Example:
        >>> x = np.linspace(-5, 5, 101)
        >>> np.savez("/tmp/well.npz", x=x, V=x**2 / 2)
        >>> TablePotential("/tmp/well.npz")(torch.tensor([[[1.5]]]))
        tensor([1.1250])
    """

    path: str
    spline: CubicSpline = field(init=False, repr=False, compare=False)

    formula = "V interpolated in a table"

    def __post_init__(self) -> None:
        file = file_called(self.path)
        if file is None:
            raise BadTable(f"there is no table {self.path[:200]!r}; check the path")
        object.__setattr__(self, "path", str(file))
        object.__setattr__(self, "spline", CubicSpline(*read_table(file)))
        object.__setattr__(self, "n_dims", len(self.spline.knots))

    def __call__(self, r: Positions) -> PerWalker:
        return self.spline(r[:, 0])

    @property
    def name(self) -> str:
        return self.path

    @property
    def parameters(self) -> dict[str, object]:
        return {}

    @property
    def domain(self) -> tuple[tuple[float, float], ...]:
        return self.spline.domain


class CubicSpline:
    """The tensor-product cubic spline through values on a rectilinear grid, evaluated by torch.

    Args:
        axes: the increasing coordinates of the grid along each dimension, four or more.
        values: V at the grid points, shape (len(axes[0]), len(axes[1]), ...).
    """

    def __init__(self, axes: tuple[np.ndarray, ...], values: np.ndarray) -> None:
        from scipy.interpolate import make_interp_spline  # here: it takes half a second to import

        self.open_edge = _open_edge(axes, values)
        self.domain = tuple((float(axis[0]), float(axis[-1])) for axis in axes)
        self.knots = []
        self.coefficients = values
        for k, axis in enumerate(axes):
            spline = make_interp_spline(axis, self.coefficients, k=3, axis=k)
            self.coefficients = np.moveaxis(spline.c, 0, k)
            self.knots.append(spline.t)
        self._on: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], Tensor]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """Values at points x of shape (batch, dim)."""
        knots, coefficients = self._tensors(x)
        columns = [column.contiguous() for column in x.unbind(-1)]
        self._check_inside(columns, knots)
        local = [_local_basis(column, t) for column, t in zip(columns, knots, strict=True)]
        # the 4^d coefficients around each point, then one contraction with the basis for each dimension
        index = tuple(first.reshape(-1, *_on_axis(k, len(local))) for k, (first, _) in enumerate(local))
        weights = (basis.reshape(len(x), *_on_axis(k, len(local))) for k, (_, basis) in enumerate(local))
        product = reduce(torch.mul, weights)
        return (coefficients[index] * product).flatten(1).sum(-1)

    def _tensors(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Knots and coefficients on the device and in the type of x, kept for the next call."""
        key = (x.device, x.dtype)
        if key not in self._on:
            knots = [torch.as_tensor(t, device=x.device, dtype=x.dtype) for t in self.knots]
            self._on[key] = knots, torch.as_tensor(self.coefficients, device=x.device, dtype=x.dtype)
        return self._on[key]

    def _check_inside(self, columns: list[Tensor], knots: list[Tensor]) -> None:
        inside = [(column >= t[0]) & (column <= t[-1]) for column, t in zip(columns, knots, strict=True)]
        outside = ~torch.stack(inside).all(0)
        if not outside.any():
            return
        k = next(k for k, ok in enumerate(inside) if not ok.all())
        where = columns[k][~inside[k]][0].item()
        ranges = ", ".join(f"{a} from {low:g} to {high:g}" for a, (low, high) in zip(AXES, self.domain, strict=False))
        raise OutsideTable(
            f"{int(outside.sum())} of {len(outside)} walkers are outside the table, such as {AXES[k]} = {where:g}: "
            f"it covers {ranges}. {self.open_edge}Extend the table to where V is far above the ground-state energy"
        )


def _open_edge(axes: tuple[np.ndarray, ...], values: np.ndarray) -> str:
    """A sentence where V is lowest at the edge of the grid, so that nothing keeps a particle inside."""
    if not values.min() < values[(slice(1, -1),) * values.ndim].min():
        return ""
    place = zip(AXES, axes, np.unravel_index(values.argmin(), values.shape), strict=False)
    where = ", ".join(f"{name} = {axis[i]:g}" for name, axis, i in place)
    return f"V is lowest at its edge, at {where}: nothing keeps a particle inside. "


def _on_axis(k: int, n_dims: int) -> list[int]:
    """Shape that puts four local values on axis k of n_dims."""
    return [4 if axis == k else 1 for axis in range(n_dims)]


def _local_basis(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Indices and values, each (batch, 4), of the cubic B-splines on knots t that are not zero at x."""
    last = torch.searchsorted(t[4:-4].contiguous(), x.detach(), right=True) + 3  # t[last] <= x < t[last + 1]
    basis = [torch.ones_like(x)]
    for degree in (1, 2, 3):
        raised = [torch.zeros_like(x) for _ in range(degree + 1)]
        for j, value in enumerate(basis):
            left, right = t[last + 1 + j - degree], t[last + 1 + j]
            share = value / (right - left)
            raised[j] = raised[j] + share * (right - x)
            raised[j + 1] = share * (x - left)
        basis = raised
    index = (last - 3)[:, None] + torch.arange(4, device=x.device)
    return index, torch.stack(basis, -1)


# Reading


def read_table(file: Path) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """The axes of the grid and the values on it, from a .csv or .npz file."""
    if not file.is_file():
        raise BadTable(f"there is no table {str(file)!r}; check the path")
    axes, values = _read_npz(file) if file.suffix == ".npz" else _read_csv(file)
    for name, axis in zip(AXES, axes, strict=False):
        if len(axis) < MIN_POINTS:
            raise BadTable(
                f"{file.name}: the axis {name} has {len(axis)} points; a cubic spline needs {MIN_POINTS} or more"
            )
    if not np.isfinite(values).all():
        first = np.argwhere(~np.isfinite(values))[0]
        place = ", ".join(f"{n} = {axis[i]:g}" for n, axis, i in zip(AXES, axes, first, strict=False))
        raise BadTable(f"{file.name}: V is {values[tuple(first)]} at {place}; every value must be a finite number")
    return axes, values


def _read_npz(file: Path) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    remedy = f"write it with numpy.savez({file.name!r}, x=x, V=V)"
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
            foreign = sorted(name for name in archive.namelist() if not name.endswith(".npy"))
        if size > MOST_BYTES:
            raise BadTable(f"{file.name} unpacks to {size / 1e9:.3g} GB; at most {MOST_BYTES / 1e9:g} GB are read")
        if foreign:
            raise BadTable(f"{file.name} holds {foreign[0]!r}, which is no array; {remedy}")
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except BadTable:
        raise
    except Exception as error:  # a damaged archive, or a header that claims too much, can fail anywhere
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise BadTable(f"{file.name} cannot be read as npz: {reason}; {remedy}") from error
    names = _axis_names(file, list(arrays))
    for name in (*names, "V"):
        if arrays[name].dtype.kind not in "fiu":
            raise BadTable(f"{file.name}: the array {name} holds {arrays[name].dtype}; it must hold real numbers")
        with np.errstate(all="ignore"):  # what is not finite is refused below
            arrays[name] = arrays[name].astype(np.float64)
    axes = tuple(arrays[name] for name in names)
    for name, axis in zip(names, axes, strict=True):
        if axis.ndim != 1:
            raise BadTable(
                f"{file.name}: {name} has shape {axis.shape}; it must be one-dimensional, the axis of a grid"
            )
        if not (np.isfinite(axis).all() and (np.diff(axis) > 0).all()):
            raise BadTable(f"{file.name}: {name} must increase from each point to the next; sort it, and V with it")
    shape = tuple(len(axis) for axis in axes)
    if arrays["V"].shape != shape:
        raise BadTable(f"{file.name}: V has shape {arrays['V'].shape}, but the axes {', '.join(names)} make it {shape}")
    return axes, arrays["V"]


def _read_csv(file: Path) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    if file.stat().st_size > MOST_BYTES:
        raise BadTable(f"{file.name} has {file.stat().st_size / 1e9:.3g} GB; at most {MOST_BYTES / 1e9:g} GB are read")
    try:
        lines = [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip() and line[0] != "#"]
        header = [name.strip() for name in lines[0].split(",")] if lines else []
        names = _axis_names(file, header)
        rows = np.loadtxt(lines[1:], delimiter=",", ndmin=2) if len(lines) > 1 else np.empty((0, len(header)))
    except (OSError, UnicodeDecodeError) as error:
        raise BadTable(f"{file.name} cannot be read as csv: {error}") from error
    except ValueError as error:
        if isinstance(error, BadTable):
            raise
        raise BadTable(
            f"{file.name}: {error} (rows are counted below the header); every entry must be a number"
        ) from error
    if rows.shape[1] != len(header):
        raise BadTable(
            f"{file.name}: the rows have {rows.shape[1]} columns, the header {','.join(header)} has {len(header)}"
        )
    return _as_grid(file, names, {name: rows[:, k] for k, name in enumerate(header)})


def _axis_names(file: Path, names: list[str]) -> tuple[str, ...]:
    axes = tuple(name for name in AXES if name in names)
    if sorted(names) != sorted((*AXES[: len(axes)], "V")) or not axes:
        found = ", ".join(names) or "nothing"
        raise BadTable(f"{file.name} has {found}; it needs x, V or x, y, V or x, y, z, V, with these names")
    return axes


def _as_grid(
    file: Path, names: tuple[str, ...], columns: dict[str, np.ndarray]
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Rows in any order, as the axes and the values of a full grid."""
    axes, places = [], []
    for name in names:
        if not np.isfinite(columns[name]).all():
            raise BadTable(f"{file.name}: the column {name} has an entry that is not a finite number")
        axis, place = _distinct(columns[name])
        axes.append(axis)
        places.append(place)
    shape = tuple(len(axis) for axis in axes)
    n_rows, n_points = len(places[0]), int(np.prod([float(n) for n in shape]))
    order = np.lexsort(places[::-1])
    sorted_places = np.stack(places)[:, order]
    repeated = np.flatnonzero((np.diff(sorted_places) == 0).all(0))
    if len(repeated):
        point = ", ".join(f"{n} = {columns[n][order[repeated[0]]]:g}" for n in names)
        raise BadTable(f"{file.name}: the point {point} occurs more than once; keep one row for each grid point")
    if n_rows != n_points:
        grid = " x ".join(map(str, shape))
        raise BadTable(
            f"{file.name}: {n_rows} rows do not fill the {grid} grid of their coordinates ({n_points} points)"
        )
    return tuple(axes), columns["V"][order].reshape(shape)


def _distinct(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct coordinates in order, and the place of each row among them; rounding noise is merged."""
    values = np.unique(column)
    span = values[-1] - values[0] if len(values) else 0.0
    first = np.concatenate([[True], np.diff(values) > 1e-9 * span])[: len(values)]
    return values[first], np.searchsorted(values[first], column, side="right") - 1
