"""Quartic force fields in normal coordinates, read from a file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from fkdrift.hamiltonian.potential import Potential, require, require_finite
from fkdrift.hamiltonian.units import ENERGIES, Units


@dataclass(frozen=True)
class NormalModes(Potential):
    """V = sum_i w_i q_i^2 / 2 + sum of c q_i q_j q_k ... + confinement sum_i w_i q_i^6, and T = sum_i w_i p_i^2 / 2.

    The file has one term on a line, the modes (from 1) and the coefficient: `1 1 1 -103.6`; lines with # are left out.
    A line with two equal modes is w_i/2 q_i^2, and every mode needs one; w_i is its frequency.  Any order up to six is
    read, and coefficients multiply the plain product of the q, without factorials.

    Quartic force fields are unbounded below as a rule: V falls without limit behind a barrier, and what is bound inside
    is at best metastable.  The last term makes it a ground state; its coefficient should be as small as keeps V up, and
    its shift, of the order of (15/8) confinement sum_i w_i, is part of the energy.

    Args:
        file: with the terms.
        confinement: coefficient of the sixth powers, in units of the frequencies.
        energy_unit: of the file, such as cm-1, where results are to be shown in others.
    """

    file: str
    confinement: float = 0.0
    energy_unit: str | None = None

    formula = "V = sum w q^2/2 + cubic and quartic terms from a file + confinement sum w q^6"
    units = "hbar = 1, energies in the unit of the file, normal coordinates without dimension"
    citation = "D. Begue, P. Carbonniere and C. Pouchan, J. Phys. Chem. A 109, 4611 (2005)"

    def __post_init__(self) -> None:
        require_finite(confinement=self.confinement)
        one_of = f"one of {', '.join(ENERGIES)}"
        require(self.energy_unit in (None, *ENERGIES), "energy_unit", self.energy_unit, one_of)
        self.frequencies  # noqa: B018  a file that cannot be read is refused now

    @cached_property
    def terms(self) -> tuple[tuple[tuple[int, ...], float], ...]:
        """(modes from 0, coefficient) of every line."""
        path = Path(self.file).expanduser()
        require(path.is_file(), "file", self.file, "a file that exists, with a force field")
        found = []
        for number, line in enumerate(path.read_text().splitlines(), 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            try:
                modes, c = tuple(int(word) - 1 for word in words[:-1]), float(words[-1])
            except ValueError:
                modes, c = (), math.nan
            readable = 2 <= len(modes) <= 6 and min(modes) >= 0 and math.isfinite(c)
            require(readable, f"line {number} of {self.file}", line, "two to six modes, from 1, and a number")
            found.append((modes, c))
        return tuple(found)

    @cached_property
    def frequencies(self) -> tuple[float, ...]:
        """w_i of every mode."""
        n = 1 + max((max(modes) for modes, _ in self.terms), default=0)
        squares = dict.fromkeys(range(n), 0.0)
        for modes, c in self.terms:
            if len(modes) == 2 and modes[0] == modes[1]:
                squares[modes[0]] += 2 * c
        missing = [k + 1 for k, w in squares.items() if not w > 0]
        require(not missing, "modes", missing, "given a positive square each: a line `k k w/2`")
        return tuple(squares.values())

    @property
    def natural_units(self) -> Units:  # type: ignore[override]
        return Units(self.energy_unit)

    @property
    def n_particles(self) -> int:  # type: ignore[override]
        return len(self.frequencies)

    @property
    def mass(self) -> tuple[float, ...]:
        return tuple(1 / w for w in self.frequencies)

    def __call__(self, r: Tensor) -> Tensor:
        q = r[:, :, 0]
        V = self.confinement * (q.pow(6) * q.new_tensor(self.frequencies)).sum(1)
        for rank in range(2, 7):
            these = [(modes, c) for modes, c in self.terms if len(modes) == rank]
            if these:
                index = torch.tensor([modes for modes, _ in these], device=q.device)
                V = V + q[:, index].prod(2) @ q.new_tensor([c for _, c in these])
        return V
