"""The result of a run: energies with errors, the wavefunction, samples, pictures, and everything saved.

A `GroundState` is a finished (or interrupted) run together with what is known exactly about its system.
"""

from __future__ import annotations

import math
import platform
from dataclasses import asdict
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fkdrift.errors import ComputationError, InputError
from fkdrift.estimators.energies import Energies
from fkdrift.exact.diagonalisation import diagonalise
from fkdrift.exact.spectrum import Spectrum
from fkdrift.hamiltonian.loading import describe
from fkdrift.numerics.estimates import Estimate
from fkdrift.paths.evolution import evolve
from fkdrift.runs import report
from fkdrift.runs.run import Run
from fkdrift.runs.run_folder import write_run
from fkdrift.tensor_types import PerWalker, Positions
from fkdrift.wavefunction.local_energy import log_psi
from fkdrift.wavefunction.protocol import Wavefunction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AGREES = 3.0
EXACT_SECONDS = 20.0
Points = Tensor | np.ndarray | list[Any]
"""Positions as a caller may have them; see `GroundState.positions`."""


class GroundState:
    """The ground state of a potential as a run found it.

    Args:
        run: the run, finished or interrupted.

    Example:
        >>> state = fk.solve("harmonic", omega=2.0)
        >>> state.energy                        # Estimate(mean=1.0..., error=...)
        >>> state.log_psi([0.0, 0.5, 1.0])      # -omega x^2 / 2, up to a constant
        >>> state.sample(1000).shape
        torch.Size([1000, 1, 1])
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.potential, self.settings, self.system = run.potential, run.settings, run.system

    @cached_property
    def energies(self) -> Energies:
        """Variational and path-action energies, with the step sizes they were extrapolated from."""
        return self.run.energies

    @property
    def energy(self) -> Estimate:
        """The variational energy and its standard error; an upper bound on E_0 within the error."""
        return self.energies.variational

    @cached_property
    def spectrum(self) -> Spectrum | None:
        """scipy's exact solution where the system allows one, otherwise None."""
        try:
            return diagonalise(self.potential, levels=1, max_seconds=EXACT_SECONDS)
        except (InputError, ComputationError):
            return None

    def drift(self, r: Points) -> Positions:
        """The whole drift sigma^2 grad log psi at r, (batch, particle, dim)."""
        with torch.no_grad():
            return self.run.process.velocity(self.positions(r))

    def log_psi(self, r: Points) -> PerWalker:
        """log psi(r) up to a constant, (batch,); a line integral of the drift if that is not a gradient.

        Args:
            r: positions (batch, particle, dim); for a single coordinate also (batch,), for one particle (batch, dim).
        """
        return log_psi(self.run.process, self.system, self.positions(r))

    def sample(self, n: int, seed: int = 0) -> Positions:
        """n positions (n, particle, dim) from the stationary density |psi|^2 of the process.

        Independent ones where the wavefunction can draw them, as a flow can; otherwise walkers follow the process at
        the finest step size, with successive batches one time scale apart.  The run itself is not changed.
        """
        generator = torch.Generator(self.system.device).manual_seed(seed)
        psi = self.run.process.drift
        if isinstance(psi, Wavefunction) and (independent := psi.sample(n, generator)) is not None:
            return independent
        walkers = self.walkers
        batches: list[Tensor] = []
        while sum(len(batch) for batch in batches) < n:
            with torch.no_grad():
                dt = self.system.time_scale / 128
                walkers = evolve(self.run.process, walkers, n_steps=128, dt=dt, generator=generator).end
            batches.append(self.system.wrap(walkers))
        return torch.cat(batches)[:n]

    @property
    def walkers(self) -> Positions:
        """Where the walkers are now, (batch, particle, dim)."""
        return self.run.walkers

    def positions(self, r: Points) -> Positions:
        """r as a tensor (batch, particle, dim) of this system's dtype, from any shape that fits."""
        x = torch.as_tensor(np.asarray(r) if not isinstance(r, Tensor) else r).to(self.system.device, self.system.dtype)
        n, dim = self.system.shape
        if x.ndim == 3 and x.shape[1:] == (n, dim):
            return x
        if (x.ndim == 2 and x.shape[1] == n * dim) or (x.ndim == 1 and n * dim == 1):
            return x.reshape(-1, n, dim)
        raise InputError(
            f"positions of shape {tuple(x.shape)} do not fit: give (batch, {n}, {dim}), or (batch, {n * dim})"
        )

    @cached_property
    def result(self) -> dict[str, Any]:
        """What result.json holds; see docs/result.md and result.schema.json."""
        energies, known = self.energies, self.potential.known_energy
        values: dict[str, Any] = {
            "variational": {**_plain(energies.variational), "estimator": energies.estimator},
        }
        if energies.fisher is None:
            values["path_action"] = _plain(energies.path_action)
        else:
            values["fisher"] = _plain(energies.fisher)
        if self.spectrum is not None:
            values["exact"] = {"mean": self.spectrum.ground_state, "source": f"scipy, {self.spectrum.method}"}
        if known is not None:
            values["reference"] = {"mean": known.value, "kind": known.kind, "source": known.source}
        run = self.run
        result = {
            "potential": describe(self.potential),
            "seed": self.settings.seed,
            "status": "finished" if run.finished else "interrupted",
            "settings": self.settings.to_dict(),
            "versions": versions(),
            "device": str(self.system.device),
            "wall_seconds": run.wall_seconds,
            "cpu_seconds": run.cpu_seconds,
            "n_parameters": sum(p.numel() for p in run.drift.parameters()),
            "n_walkers": run.n_walkers,
            "n_updates": run.n_updates,
            "energies": values,
        }
        if energies.path is not None:
            result["step_bias"] = {
                "removed": _plain(energies.path.step_bias),
                "time_steps": list(energies.path.time_steps),
                "by_time_step": [_plain(E) for E in energies.path.by_time_step],
            }
        if energies.stationary is not None:
            sampling = energies.stationary
            known_of_it = {"spread": sampling.spread, "acceptance": sampling.acceptance, "time_step": sampling.dt}
            result["sampling"] = {name: value for name, value in known_of_it.items() if value is not None}
            if self.system.homogeneity is not None:
                V, E = energies.stationary.potential.mean, energies.stationary.energy.mean
                result["virial"] = {"ratio": V / (E - V), "expected": 2 / self.system.homogeneity}
        if (verdict := self._verdict(values)) is not None:
            result["deviation"] = verdict
        return result

    def _verdict(self, values: dict[str, Any]) -> dict[str, Any] | None:
        """How far the variational energy is from the exact one (or else the reference), in standard errors."""
        against = "exact" if "exact" in values else "reference"
        if against not in values or not math.isfinite(self.energy.mean) or not math.isfinite(self.energy.error):
            return None
        z = self.energy.deviation(values[against]["mean"])
        if abs(z) <= AGREES:
            verdict = "agrees"
        elif z > 0:
            verdict = "above: the drift is not converged; more updates, or a wider network, would lower it"
        else:
            verdict = "below: a variational energy cannot be; use smaller time steps"
        return {
            "standard_errors": z,
            "difference": self.energy.mean - values[against]["mean"],
            "against": against,
            "verdict": verdict,
        }

    def plot(self) -> dict[str, Figure]:
        """Figures by name: energy against step, the wavefunction beside the exact one, trajectories."""
        from fkdrift.figures.ground_state import (
            draw_figures,  # here: matplotlib takes a second to import, and few runs need it
        )

        return draw_figures(self.run, self.spectrum, self.result)

    def save(self, folder: str | Path, figures: bool = True) -> Path:
        """Write result.json, config.toml, history.csv, checkpoint.pt and figures/*.png; returns the folder."""
        folder = Path(folder)
        write_run(
            folder,
            potential=describe(self.potential),
            settings=self.settings,
            result=self.result,
            history=self.run.history,
            checkpoint=self.run.state_dict(),
        )
        if figures:
            from fkdrift.figures.ground_state import save_figures

            save_figures(self.plot(), folder / "figures")
        return folder

    def __str__(self) -> str:
        return report.summary(self.result)

    def __repr__(self) -> str:
        return f"GroundState({self.potential.name}: {self.energy})"

    def _repr_html_(self) -> str:
        return report.html(self.result)


def versions() -> dict[str, str]:
    """Versions of everything a number may depend on."""
    packages = {name: version(name) for name in ("fkdrift", "torch", "torchsde", "numpy", "scipy")}
    return {**packages, "python": platform.python_version(), "platform": platform.platform()}


def _plain(estimate: Estimate) -> dict[str, float | None]:
    """An estimate as JSON values: without what does not apply, null where it is not known."""
    given = {name: value for name, value in asdict(estimate).items() if value is not None}
    return {name: value if math.isfinite(value) else None for name, value in given.items()}
