"""Thermal averages of distinguishable particles or bosons, by path integral Monte Carlo.

Two phases sample with P and with P / 2 slices; what they differ by, divided by 2^order - 1, is the error left at P.
Where there is one coordinate, the sum over exact levels stands beside the energy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fkdrift.errors import BadConfig, FkdriftError
from fkdrift.estimators.observables import Observable, by_kind, parse_observable
from fkdrift.estimators.path_integral import ACTIONS
from fkdrift.estimators.pimc import PimcSampler, Thermal, choose_slices
from fkdrift.exact.diagonalisation import diagonalise
from fkdrift.hamiltonian.loading import load_potential
from fkdrift.hamiltonian.potential import Potential
from fkdrift.hamiltonian.system import System
from fkdrift.numerics.estimates import Estimate
from fkdrift.runs.driver import drive, made
from fkdrift.runs.methods.pimc_settings import PimcSettings
from fkdrift.runs.of_potential import OfPotential
from fkdrift.runs.phases import Once, Sampling
from fkdrift.runs.report import Block, Row, named, number, time_taken
from fkdrift.runs.starting import require_first_step
from fkdrift.tensor_types import Positions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N_LEVELS = 60
SMALLEST_WEIGHT = 1e-7  # of the highest level of an exact sum, or the sum is not trusted


class Pimc(OfPotential):
    """Path integral Monte Carlo of one potential at one temperature, in the making or done.

    Args:
        potential: V; bosons where it has groups of identical particles.
        settings: see `PimcSettings`.

    Attributes:
        n_slices: P.
        fine, coarse: the phases with P and with P / 2 slices; the second is left out where it was not asked for, or
            P / 2 is not allowed.

    Example:
        >>> Pimc(load_potential("harmonic"), PimcSettings(temperature=0.5)).n_slices
        8
    """

    kind = "pimc"
    settings_class = PimcSettings
    settings: PimcSettings
    shareable = True

    def __init__(self, potential: Potential, settings: PimcSettings) -> None:
        self.potential, self.action = potential, ACTIONS[settings.action]
        device = settings.torch_device
        self.system = System(potential, torch.float64, device)
        generator = torch.Generator(device).manual_seed(settings.seed)
        self.n_slices = settings.n_slices or choose_slices(self.system, settings.temperature, self.action)
        self._require_room(settings)
        self.n_walkers = settings.n_chains
        self.walkers = self.system.initial_walkers(settings.n_chains, generator)
        self.observables = _observables(self.system, self.walkers, settings)
        self._sampler(settings, self.n_slices)  # so that what is not allowed is refused at once
        self.fine = Sampling(
            "sampling",
            lambda: self._sampler(settings, self.n_slices),
            energy=lambda sampler: sampler.energy,
            results=_results,
            n_blocks=settings.n_blocks,
            atol=settings.atol,
            share=2 / 3 if settings.check_slices else 1.0,
        )
        self.coarse = Sampling(
            "half the slices",
            lambda: self._sampler(settings, self.n_slices // 2),
            energy=lambda sampler: sampler.energy,
            results=lambda sampler: {},
            n_blocks=settings.n_blocks,
        )
        halves = settings.check_slices and self.n_slices % (2 * self.action.period) == 0
        phases = [self.fine, *([self.coarse] if halves else []), Once("exact", self._exact)]
        super().__init__(settings, torch.nn.Identity(), generator, phases)

    def _require_room(self, settings: PimcSettings) -> None:
        """Refuse so many chains where their first block would not fit."""

        def block(n: int) -> None:
            generator = torch.Generator(self.system.device).manual_seed(0)
            walkers = self.system.initial_walkers(n, generator)
            options: dict[str, Any] = {"n_slices": self.n_slices, "action": self.action, "n_sweeps": settings.n_sweeps}
            PimcSampler(self.system, walkers, temperature=settings.temperature, **options).advance(generator)

        numbers = self.n_slices * math.prod(self.system.shape)
        remedy = (
            f"give fewer than n_chains = {settings.n_chains} or n_slices = {self.n_slices}, or a higher temperature"
        )
        require_first_step(block, settings.n_chains, numbers, settings, self.system.device, remedy)

    def _sampler(self, settings: PimcSettings, n_slices: int) -> PimcSampler:
        return PimcSampler(
            self.system,
            self.workers.own(self.walkers),
            temperature=settings.temperature,
            n_slices=n_slices,
            action=self.action,
            observables=self.observables,
            n_sweeps=settings.n_sweeps,
            n_equilibration=settings.n_equilibration,
            workers=self.workers,
        )

    @property
    def thermal(self) -> Thermal:
        """All thermal averages of the counted blocks.

        Raises:
            BadConfig: there are none yet.
        """
        if self.fine.step < 1:
            raise BadConfig("nothing has been sampled yet: drive the run first")
        return self.fine.sampler.thermal()

    @property
    def energy(self) -> Estimate:
        """<H>, with P slices."""
        return self.thermal.energy

    def beads(self) -> Positions:
        """Where the beads of all chains are now, (chain * slice, particle, dim): samples of the thermal density.

        At temperatures far below the first excitation it is |phi_0|^2, up to the error of the action.
        """
        return self.fine.sampler.positions.flatten(0, 1)

    @property
    def slice_bias(self) -> Estimate | None:
        """What P slices add to the energy, (E(P) - E(P/2)) / (1 - 2^order); None where P / 2 was not sampled."""
        if self.coarse.energy is None or self.fine.energy is None:
            return None
        fine, coarse = self.fine.energy, self.coarse.energy
        scale = 2**self.action.order - 1
        return Estimate((coarse.mean - fine.mean) / scale, (coarse.error**2 + fine.error**2) ** 0.5 / scale)

    def _exact(self) -> dict[str, Any]:
        """The sum over levels, where there is one coordinate and enough levels."""
        if self.potential.n_particles * self.potential.n_dims > 1:
            return {}
        try:
            levels = diagonalise(self.potential, levels=N_LEVELS).energies
        except FkdriftError:
            return {}
        T = self.settings.temperature
        w = np.exp(-(levels - levels[0]) / T)
        if w[-1] > SMALLEST_WEIGHT or len(levels) < N_LEVELS:
            return {}
        E, square = (w @ levels) / w.sum(), (w @ levels**2) / w.sum()
        source = f"sum over {N_LEVELS} levels"
        exact = {"mean": float(E), "specific_heat": float((square - E**2) / T**2), "source": source}
        return {"energies": {"exact": exact}}

    # What it brings to a run

    @property
    def title(self) -> str:
        return f"{self.potential.name} at temperature {self.settings.temperature:g}"

    def entries(self, found: dict[str, Any]) -> dict[str, Any]:
        entries = {**self.subject, "n_slices": self.n_slices}
        if (bias := self.slice_bias) is not None and (coarse := self.coarse.energy) is not None:
            entries |= {"slice_bias": bias.plain(), "energies": {"half_the_slices": coarse.plain()}}
        return entries

    def plot(self) -> dict[str, Figure]:
        """The energy of the blocks, the density, and g(r)."""
        from fkdrift.figures.pimc import pimc_figure  # here: matplotlib takes a second to import

        if self.fine.step < 1:
            return {}
        exact = self.result.get("energies", {}).get("exact", {}).get("mean")
        thermal = self.thermal
        trace = self.fine.sampler.trace
        return {"thermal": pimc_figure(trace, thermal.energy, thermal.observables, self.title, exact)}

    @staticmethod
    def block(result: Mapping[str, Any]) -> Block:
        settings, numbers, remarks, headline = result["settings"], [], [], "?"
        if "specific_heat" in result:
            energies = result["energies"]
            E = energies["thermal"]
            headline = number(E)
            numbers = [
                Row("energy", f"{E['estimator']} estimator", headline),
                Row("kinetic", "<H> - <V>", number(energies["kinetic"])),
                Row("potential", "<V>", number(energies["potential"])),
                Row("specific heat", "d<H>/dT, in units of k_B", number(result["specific_heat"])),
            ]
            if "exact" in energies:
                exact, apart = energies["exact"], Estimate(E["mean"], E["error"]).deviation(energies["exact"]["mean"])
                text = f"{exact['source']}; {apart:+.1f} standard errors apart, specific heat "
                text += f"{exact['specific_heat']:.6g}"
                numbers.append(Row("exact", text, f"{exact['mean']:.8g}"))
            for name, entry in result["observables"].items():
                if "centres" not in entry:
                    numbers.append(Row(name, entry["unit"], number(entry["thermal"])))
            slices = f"{result['n_slices']}, {settings['action']} action"
            if "slice_bias" in result and None not in (E["error"], *result["slice_bias"].values()):
                bias = Estimate(result["slice_bias"]["mean"], result["slice_bias"]["error"])
                small = abs(bias.mean) < max(E["error"], 2 * bias.error)
                advice = "below the error of the energy" if small else "more than the error: take more slices"
                slices += f"; half of them change the energy so that {bias} is left, {advice}"
            remarks.append(Row("slices", slices))
            if result["cycles"]:
                shares = ", ".join(number(share) for share in result["cycles"])
                remarks.append(Row("permutations", f"share of particles in cycles of 1, 2, ...: {shares}"))
            moves = ", ".join(f"{name} {rate:.0%}" for name, rate in result["acceptance"].items())
            remarks.append(Row("accepted", moves))
        chains = f"{settings['n_chains']} chains, {result.get('n_blocks', 0)} blocks, seed {result['seed']}"
        remarks += [Row("sampling", chains), *time_taken(result)]
        title = f"{named(result['potential'])}   T = {settings['temperature']:g}"
        return Block(title, headline, numbers, remarks, result["status"] == "finished")


def pimc(
    potential: str | Path | Potential | type[Potential] | Callable[[Tensor], Tensor],
    *,
    temperature: float | None = None,
    settings: PimcSettings | None = None,
    n_slices: int | None = None,
    action: str | None = None,
    n_chains: int | None = None,
    n_blocks: int | None = None,
    observables: Sequence[str] | None = None,
    seed: int | None = None,
    max_seconds: float | None = None,
    atol: float | None = None,
    workers: int | str | None = None,
    out: str | Path | None = None,
    progress: bool | None = None,
    **parameters: object,
) -> Pimc:
    """Thermal averages of distinguishable particles or bosons, by path integral Monte Carlo.

    Args:
        potential: as for `solve`.
        temperature: k_B T, in the potential's unit of energy; it has to be given here or in `settings`.
        settings: everything adjustable; the arguments below override single ones, see `PimcSettings`.
        n_slices, action, n_chains, n_blocks, seed, max_seconds, atol, workers: see `PimcSettings`.
        observables: names or formulas, such as ["x**2", "r12"].
        out: folder to save to.
        progress: show a live line; default: where someone is looking (a terminal or a notebook).
        parameters: of the potential, such as omega=2.0; for a callable n_particles, n_dims and so on.

    Returns:
        Pimc, with `energy`, `thermal` (everything), `slice_bias`, `plot()`, `save(folder)`.

    Raises:
        InputError: the potential, a parameter or a setting is not allowed; V is not bounded below.

    Example (a quick one; the exact energy is 0.656518):
        >>> quick = PimcSettings(temperature=0.5, n_equilibration=5, check_slices=False)
        >>> print(fk.pimc("harmonic", settings=quick, n_blocks=20, seed=0).energy)
        0.650(6)
    """
    given: dict[str, Any] = {"n_slices": n_slices, "action": action, "n_chains": n_chains, "n_blocks": n_blocks}
    given |= {"seed": seed, "max_seconds": max_seconds, "atol": atol, "workers": workers}
    given |= {"observables": None if observables is None else tuple(observables), "temperature": temperature}
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = PimcSettings.from_values({**({} if settings is None else settings.to_dict()), **chosen})
    loaded = load_potential(potential, **parameters)
    run = made(lambda: Pimc(loaded, settings), loaded.name, settings, progress)
    return drive(run, out=None if out is None else Path(out), progress=progress)


def _observables(system: System, walkers: Tensor, settings: PimcSettings) -> tuple[Observable, ...]:
    """The histograms and what else was asked for; bins are laid out for the thermal spread of an oscillator."""
    potential = system.potential
    wider = math.tanh(1 / (2 * settings.temperature * system.time_scale)) ** -0.5
    typical = system.centre + wider * (walkers - system.centre)
    names = ["density", *(["g(r)"] if potential.n_particles > 1 else [])]
    names += [name for name in settings.observables or () if name not in names]
    return tuple(parse_observable(name, potential, typical) for name in names)


def _results(sampler: PimcSampler) -> dict[str, Any]:
    """What the counted blocks give, as plain values."""
    thermal = sampler.thermal()
    return {
        "energies": {
            "thermal": {**thermal.energy.plain(), "estimator": thermal.estimator},
            "thermodynamic": thermal.thermodynamic.plain(),
            "kinetic": thermal.kinetic.plain(),
            "potential": thermal.potential.plain(),
        },
        "specific_heat": thermal.specific_heat.plain(),
        "observables": by_kind({"thermal": thermal.observables}),
        "cycles": [share.plain() for share in thermal.cycles],
        "acceptance": thermal.acceptance,
        "n_blocks": sampler.n_blocks,
    }


METHOD = Pimc
