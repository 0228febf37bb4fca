"""How the result of a ground state is told: plain values for result.json, and the block that is made from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fkdrift.estimators.observables import FORCE, by_kind
from fkdrift.estimators.path_action import PathSampler
from fkdrift.estimators.projection import ProjectedEnergy, Projection
from fkdrift.hamiltonian.units import Units
from fkdrift.numerics.estimates import Estimate
from fkdrift.runs.report import Block, Row, effort, named, number, scaled

AGREES = 3.0
"""Standard errors up to which an energy agrees with the exact one: one honest result in 370 is further away."""
ORDER = (
    *("projected", "variational", "path_action", "lower_bound", "fisher", "tail", "with_tail"),
    *("harmonic", "exact", "reference"),
)
"""In which the energies are printed; others come first."""


def ground_state_block(result: Mapping[str, Any]) -> Block:
    """The block of a result: energies, levels, observables, how much to trust them, and what it took."""
    result, unit = shown(result)
    energies = result["energies"]
    order = [name for name in energies if name not in ORDER] + [name for name in ORDER if name in energies]
    flow = result["settings"].get("method") == "flow"
    kind = "flow with" if flow else f"{result['settings']['drift']} drift with"
    walkers = f"{result['n_walkers']:,} {'samples' if flow else 'walkers'}"
    return Block(
        named(result["potential"]),
        energy(energies.get("projected", energies["variational"]), unit),
        [Row(name.replace("_", " "), _remark(name, result), energy(energies[name], unit)) for name in order]
        + [_excitation(n, entry, unit) for n, entry in enumerate(result.get("excitations", []), 1)]
        + [_observable(name, entry) for name, entry in result.get("observables", {}).items() if "centres" not in entry]
        + [_susceptibility(name, entry, result.get("units")) for name, entry in result.get("correlations", {}).items()],
        [*_statements(result, unit), *effort(result, walkers, model=kind)],
        result["status"] == "finished",
    )


def shown(result: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """A result, or a point of a scan, as it is to be shown, and the unit of its energies.

    Energies, lengths and times are converted; without `units` there is nothing to convert.
    """
    if "units" not in result:
        return dict(result), ""
    natural, units = Units(**result["units"]["natural"]), Units(**result["units"]["shown"])
    factor, _ = natural.convert("energy", units)
    entries = dict(result)
    for name in ("energies", "excitations", "deviation", "step_bias", "sampling"):
        if name in entries:
            entries[name] = scaled(entries[name], factor, 1 / factor)
    if "atol" in result.get("settings", {}):
        entries["settings"] = {**result["settings"], "atol": result["settings"]["atol"] * factor}
    entries["observables"] = {
        name: {**scaled(entry, times), "unit": unit}
        for name, entry in result.get("observables", {}).items()
        for times, unit in (natural.convert(entry["unit"], units),)
    }
    return entries, units.energy or ""


def energy(entry: Mapping[str, Any], unit: str) -> str:
    """An energy with its unit, where that is known."""
    return f"{number(entry)} {unit}".rstrip()


def with_tail(E: Estimate, tail: float, n_particles: int) -> dict[str, Any]:
    """The part of the energy that V leaves out, and the headline with it."""
    total = Estimate(E.mean + tail, E.error)
    each = Estimate(total.mean / n_particles, total.error / n_particles)
    return {
        "tail": {
            "mean": tail,
            "each": tail / n_particles,
            "source": "what V leaves out, added to none of the above",
        },
        "with_tail": {**total.plain(), "each": each.plain(), "estimator": "the first energy and the tail"},
    }


def path_results(sampler: PathSampler) -> dict[str, Any]:
    """The path action and its extrapolation."""
    found = sampler.energy()
    bias = {
        "removed": found.step_bias.plain(),
        "time_steps": list(found.time_steps),
        "by_time_step": [E.plain() for E in found.by_time_step],
    }
    return {"energies": {"path_action": found.action.plain()}, "step_bias": bias}


def verdict_of(E: Estimate, energies: Mapping[str, Any], projected: bool) -> dict[str, Any] | None:
    """How far the headline energy is from the exact one (or else the reference), in standard errors."""
    against = "exact" if "exact" in energies else "reference"
    if against not in energies or not math.isfinite(E.mean) or not math.isfinite(E.error):
        return None
    z = E.deviation(energies[against]["mean"])
    if abs(z) <= AGREES:
        verdict = "agrees"
    elif projected:
        verdict = f"{'above' if z > 0 else 'below'}: see the tests of trust; smaller steps, or more updates"
    elif z > 0:
        verdict = "above: the drift is not converged; more updates, or a wider network, would lower it"
    else:
        verdict = "below: a variational energy cannot be; use smaller time steps"
    difference = E.mean - energies[against]["mean"]
    return {"standard_errors": z, "difference": difference, "against": against, "verdict": verdict}


def projection_results(sampler: Projection) -> dict[str, Any]:
    """How a projection was made, as result.json has it."""
    found = sampler.energy()
    entries: dict[str, Any] = {
        "mixed": found.mixed.plain(),
        "growth": found.growth.plain(),
        "time_steps": list(found.time_steps),
        "by_time_step": [E.plain() for E in found.by_time_step],
        "independent": found.independent,
        "n_populations": found.n_populations,
        "n_walkers": found.n_walkers,
        "effective_share": list(found.effective_share),
        "population_share": found.population_share,
        "population_bias": {"removed": found.population_bias[0].plain(), "left": found.population_bias[1].plain()},
        "trend": found.trend.plain(),
        "projection_time": found.projection_time,
        "counted_time": found.counted_time,
    }
    if found.acceptance is not None:
        entries["acceptance"] = list(found.acceptance)
    shown = {
        kind: {name: average for name, average in of_kind.items() if name != FORCE}
        for kind, of_kind in sampler.averages().items()
    }
    return {"projection": entries, "observables": by_kind(shown)}


def extrapolated(entry: Mapping[str, Any]) -> dict[str, Any]:
    """2 mixed - variational: without the first order of what psi has missed, where there is no pure estimate."""
    mixed, variational = entry["mixed"], entry["variational"]
    return {
        "mean": 2 * mixed["mean"] - variational["mean"],
        "error": math.hypot(2 * mixed["error"], variational["error"]),
    }


def projected_by(found: ProjectedEnergy) -> str:
    """How the projected energy was estimated, in words."""
    how = "independent walkers" if found.independent else f"{found.n_populations} populations at each step"
    return f"reweighted to the Feynman-Kac measure, extrapolated to dt = 0; {how}"


def _remark(name: str, result: Mapping[str, Any]) -> str:
    """What to say beside an energy."""
    entry = result["energies"][name]
    if name == "path_action":
        text = "E[l_T]/T, extrapolated to dt = 0" if "step_bias" in result else "last training batch"
    elif name == "fisher":
        text = "E[sigma^2 |grad log p|^2/8 + V]"
    elif name == "lower_bound":
        text = f"Temple, with E_1 = {entry['first_excited']:.6g}, {entry['source']}"
    elif name == "tail":
        text = f"{entry['source']}; {entry['each']:.6g} for each particle"
    elif name == "with_tail":
        text = f"{entry['estimator']}; {number(entry['each'])} for each particle"
    elif "kind" in entry:
        text = f"{entry['kind']}: {entry['source']}"
    else:
        text = str(entry.get("estimator") or entry.get("source", ""))
    n = entry.get("effective_samples")
    return f"{text}; {n:,.0f} effective samples" if n else text


def _observable(name: str, entry: Mapping[str, Any]) -> Row:
    """An observable: its best estimate, the others beside it, its exact value if that is known."""
    estimates = {kind: entry[kind] for kind in ("pure", "extrapolated", "mixed") if kind in entry}
    estimates |= {k: v for k, v in entry.items() if isinstance(v, Mapping) and k not in estimates}
    (first, best), *others = estimates.items()
    said = [f"{first} estimator" + (f", {entry['unit']}" if entry.get("unit") else "")]
    said += [f"{kind} {number(estimate)}" for kind, estimate in others]
    said += [f"expected {entry['expected']:.6g}"] if entry.get("expected") is not None else []
    return Row(name, "; ".join(said), number(best))


def _susceptibility(name: str, entry: Mapping[str, Any], units: Mapping[str, Any] | None) -> Row:
    """How E_0 answers to lam A, from the correlation of A."""
    variational = number(entry["variational"]["susceptibility"])
    said = f"pure estimator, -d^2 E/dlam^2 of H + lam {name}; variational {variational}"
    if units:
        said += f"; in {', '.join(filter(None, units['natural'].values()))}"
    return Row(f"chi({name})", said, number(entry["pure"]["susceptibility"]))


def _excitation(n: int, entry: Mapping[str, Any], unit: str) -> Row:
    """An excited state: its energy, its gap, its symmetry."""
    gap = energy({"mean": entry["gap"], "error": entry["error"]}, unit)
    return Row(f"level {n}", "; ".join(filter(None, (f"gap {gap}", entry["symmetry"]))), energy(entry["energy"], unit))


def _statements(result: Mapping[str, Any], unit: str) -> list[Row]:
    """How much to trust it."""
    rows = []
    if trust := result.get("trust"):
        rows.append(Row("trust", trust["verdict"]))
    if deviation := result.get("deviation"):
        relative = deviation["difference"] / abs(result["energies"][deviation["against"]]["mean"] or 1.0)
        numbers = f"{deviation['difference']:+.1e} {unit}".rstrip() + f", relative {relative:+.1e}"
        against = "the exact energy" if deviation["against"] == "exact" else f"the {deviation['against']}"
        z = f"{deviation['standard_errors']:+.1f} standard errors"
        rows.append(Row("deviation", f"{z} from {against} ({numbers}): {deviation['verdict']}"))
    if bias := result.get("step_bias"):
        steps, removed = ", ".join(f"{dt:.3g}" for dt in bias["time_steps"]), energy(bias["removed"], unit)
        rows.append(
            Row("time step", f"path action fitted over dt = {steps} to dt = 0; removed {removed} from the finest")
        )
    atol, E = result["settings"].get("atol"), result["energies"]
    error = E.get("projected", E["variational"]).get("error")
    if atol and error and error > atol and result["status"] == "finished" and "out_of_time" not in result:
        dtype = result["settings"]["dtype"]
        advice = " (try float64)" if dtype == "float32" else ""
        rows.append(
            Row("accuracy", f"atol = {' '.join((f'{atol:g}', unit)).rstrip()} cannot be reached in {dtype}{advice}")
        )
    if remark := result.get("excitations_remark"):
        rows.append(Row("levels", remark))
    if repaired := result.get("repaired"):
        rows.append(
            Row("repaired", f"{repaired:,} geometries without an energy, taken to be as high as those beside them")
        )
    if sampling := result.get("sampling"):
        text = f"standard deviation of E_L {sampling['standard_deviation']:.2g} {unit}".rstrip()
        if "acceptance" in sampling:
            text += f"; acceptance {sampling['acceptance']:.0%} at dt = {sampling['time_step']:.3g}"
        rows.append(Row("sampling", text))
    return rows
