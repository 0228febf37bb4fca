"""What an exact calculation returns: energy levels, their numerical error, and the ground state.

    H psi_n = E_n psi_n,      gap_n = E_n - E_0,      density = |psi_0|^2

A `Spectrum` is plain numpy: nothing in it needs torch, and nothing in it is random.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fkdrift.exact.limits import UNLIMITED, Limits

Array = NDArray[np.float64]
N_DIRECTIONS = 96
"""That a density is averaged over."""


@dataclass(frozen=True)
class SpectrumRequest:
    """What is asked of every method: how many levels, how accurate, on which grid, within which limits."""

    levels: int
    tolerance: float | None = None
    points: int | None = None
    limits: Limits = UNLIMITED


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Energy levels E_0 <= E_1 <= ... of one system, one entry for each state (a degenerate level is repeated).

    Attributes:
        energies: (level,) bound levels, in the units of V; fewer than asked for where fewer are bound.
        errors: (level,) estimated numerical error of each level.
        method: how it was computed, in one line.
        labels: quantum numbers of each level, such as "l=1 k=0".
        box: the range of each coordinate of the calculation.
        points: grid points along each coordinate.
        asked: how many levels were asked for.
        threshold: where the continuum starts; None for a potential that confines at any energy.
        symmetry: which states are listed ("all states", or those symmetric under exchange).
        notes: anything else worth knowing, such as hard walls at the ends of a table.
        axes: coordinates of the stored wavefunctions: (x,) on a line or ring, (r,) for a central potential, (x, y).
        wavefunctions: (level, *axes) normalised; the ground state is positive.  None if not kept.
    """

    energies: Array
    errors: Array
    method: str
    labels: tuple[str, ...] = ()
    box: tuple[tuple[float, float], ...] = ()
    points: tuple[int, ...] = ()
    asked: int = 1
    threshold: float | None = None
    symmetry: str = "all states"
    notes: tuple[str, ...] = ()
    axes: tuple[Array, ...] = ()
    wavefunctions: Array | None = None
    ground: Callable[[Array], Array] | None = field(default=None, repr=False)
    shape: tuple[int, int] = (1, 1)

    @property
    def ground_state(self) -> float:
        """E_0."""
        return float(self.energies[0])

    @property
    def error(self) -> float:
        """Estimated numerical error of E_0."""
        return float(self.errors[0])

    @property
    def gaps(self) -> Array:
        """E_n - E_0 for n >= 1, shape (level - 1,)."""
        return self.energies[1:] - self.energies[0]

    @property
    def splitting(self) -> float:
        """E_1 - E_0; infinite where only one level is bound or known."""
        return float(self.gaps[0]) if len(self.energies) > 1 else float("inf")

    @property
    def degeneracies(self) -> tuple[tuple[float, int], ...]:
        """(energy, number of states) of the levels listed, states closer than their errors taken together."""
        found: list[tuple[float, int]] = []
        for E, error in zip(self.energies, self.errors, strict=True):
            if found and E - found[-1][0] < 1e-9 * max(1.0, abs(E)) + 3 * error:
                found[-1] = (found[-1][0], found[-1][1] + 1)
            else:
                found.append((float(E), 1))
        return tuple(found)

    @property
    def grid(self) -> Array | None:
        """The coordinate of `wavefunctions` where there is only one (x, or r for a central potential)."""
        return self.axes[0] if len(self.axes) == 1 else None

    def scaled(self, energy: float, length: float) -> Spectrum:
        """The levels, the threshold and the ranges of the coordinates in other units, without wavefunctions."""
        return replace(
            self,
            energies=self.energies * energy,
            errors=self.errors * energy,
            threshold=None if self.threshold is None else self.threshold * energy,
            box=tuple((low * length, high * length) for low, high in self.box),
            axes=(),
            wavefunctions=None,
            ground=None,
        )

    def log_psi(self, r: Any) -> Array:
        """log psi_0 at positions r, shape (batch, particle, dim), or (batch,) for one particle on a line.

        Positions may be a tensor or an array; psi_0 > 0 has unit norm.  Reliable far into the tails on a line, on a
        radius and for sums of those; on product grids and rings NaN where psi_0 is below 1e-7 of its maximum.

        Raises:
            ValueError: r has another shape, or this calculation kept no wavefunction.
        """
        x = np.asarray(r.detach().cpu().numpy() if hasattr(r, "detach") else r, dtype=np.float64)
        if self.ground is None:
            raise ValueError(f"no wavefunction was kept by this calculation ({self.method}); ask for its energies only")
        if self.shape == (1, 1) and x.ndim <= 1:
            x = x.reshape(-1, 1, 1)
        if x.ndim != 3 or x.shape[1:] != self.shape:
            raise ValueError(
                f"positions have shape {x.shape}; log_psi takes (batch, particle, dim) = (batch, {self.shape})"
            )
        return self.ground(x.reshape(len(x), -1))

    def density(self, r: Any) -> Array:
        """|psi_0|^2 at positions r: integrates to 1 over all coordinates.  Shapes as for `log_psi`."""
        return np.exp(2 * self.log_psi(r))

    def density_of_particle(self, at: Any) -> Array | None:
        """The density of a single particle: at x on a line, at a distance from the origin in two or three dimensions.

        It is averaged over directions, and has no unit of volume left out: int n(r) S_d r^(d-1) dr = 1.

        Args:
            at: (point,) coordinates, or distances.

        Returns:
            Array of shape (point,); None for more particles or dimensions, and where no wavefunction was kept.

        Example:
            >>> import fkdrift as fk
            >>> plane = fk.diagonalise(fk.load_potential("harmonic", n_dims=2))
            >>> round(float(plane.density_of_particle([0.0])[0] * np.pi), 6)
            1.0
        """
        n, dim = self.shape
        if n != 1 or dim > 3 or self.ground is None:
            return None
        around = _directions(dim)
        r = np.asarray(at, dtype=np.float64)[:, None, None] * around
        p = np.nan_to_num(self.density(r.reshape(-1, 1, dim))).reshape(-1, len(around))
        return p.mean(1)

    def __str__(self) -> str:
        rows = [("n", "energy", "gap", "error", "state")]
        for n, (E, error) in enumerate(zip(self.energies, self.errors, strict=True)):
            label = self.labels[n] if n < len(self.labels) else ""
            rows.append((str(n), f"{E:.12g}", "" if n == 0 else f"{E - self.energies[0]:.10g}", f"{error:.0e}", label))
        widths = [max(len(row[k]) for row in rows) for k in range(5)]
        lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *self._remarks()])

    def _remarks(self) -> list[str]:
        remarks = [f"method: {self.method}", f"states: {self.symmetry}"]
        if self.box:
            ranges = [f"{low:.4g} to {high:.4g}" for low, high in dict.fromkeys(self.box)]
            counts = " x ".join(str(n) for n in self.points)
            if len(self.points) > 5:
                counts = f"{max(self.points)} at most for each of {len(self.points)} coordinates"
            remarks.append(f"grid:   points {counts}; range {', '.join(ranges[:3] + ['...'] * (len(ranges) > 3))}")
        if len(self.energies) < self.asked and self.threshold is not None:
            remarks.append(f"bound:  {len(self.energies)} of the {self.asked} levels asked for")
        if self.threshold is not None:
            remarks.append(f"continuum starts at {self.threshold:.10g}")
        return remarks + [f"note:   {note}" for note in self.notes]

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        head = "<tr><th>n</th><th>energy</th><th>gap</th><th>error</th><th>state</th></tr>"
        rows = ""
        for n, (E, error) in enumerate(zip(self.energies, self.errors, strict=True)):
            label = self.labels[n] if n < len(self.labels) else ""
            cells = (n, f"{E:.12g}", f"{E - self.energies[0]:.10g}" if n else "", f"{error:.0e}", label)
            rows += "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
        return f"<table>{head}{rows}</table><small>{'<br>'.join(self._remarks())}</small>"


def _directions(dim: int) -> Array:
    """Unit vectors (direction, dim) evenly spread over a circle or a sphere (Fibonacci's); (1, 1) on a line."""
    if dim == 1:
        return np.ones((1, 1))
    k = np.arange(N_DIRECTIONS)
    angle = k * (2 * np.pi / N_DIRECTIONS if dim == 2 else np.pi * (3 - np.sqrt(5)))
    height = np.zeros_like(angle) if dim == 2 else 1 - (2 * k + 1) / N_DIRECTIONS
    flat = np.sqrt(1 - height**2)
    return np.stack((flat * np.cos(angle), flat * np.sin(angle), height), axis=1)[:, :dim]
