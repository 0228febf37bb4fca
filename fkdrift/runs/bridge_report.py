"""A bridge in words, from the plain values of its result.json."""

from __future__ import annotations

from typing import Any

from fkdrift.numerics.estimates import Estimate, format_with_error


def summary(result: dict[str, Any]) -> str:
    """The block that `fkdrift bridge` prints, from the contents of result.json."""
    settings = result["settings"]
    quantity = "log K" if settings["dynamics"] == "imaginary" else "log density"
    ends = f"{_point(settings['start'])} to {_point(settings['end'])} in T = {settings['time']:g}"
    lines = [f"bridge in {result['potential']['name']}   {ends}", ""]
    if "log_evidence" in result:
        found = result["log_evidence"]
        lines.append(
            f"  {quantity:<14}{format_with_error(found['mean'], found['error'])}   importance weighted, dt -> 0"
        )
        bound = result["elbo"]
        lines.append(f"  {'lower bound':<14}{format_with_error(bound['mean'], bound['error'])}   E[log w] at dt / 2")
        if "exact" in result:
            apart = Estimate(found["mean"], found["error"]).deviation(result["exact"]["mean"])
            lines.append(
                f"  {'exact':<14}{result['exact']['mean']:.6f}   {result['exact']['source']}; {apart:+.1f} errors apart"
            )
        lines.append(f"  {'paths':<14}{settings['n_paths']:,}, of which {result['efficiency']:.0%} effective")
    training = f"{result['n_updates']} updates, {result['n_parameters']:,} parameters, seed {settings['seed']}"
    lines.append(f"  {'training':<14}{training}")
    lines.append(f"  {'time':<14}{result['wall_seconds']:.1f} s")
    if result["status"] != "finished":
        lines += ["", "  interrupted: this is what had been reached"]
    return "\n".join(lines)


def _point(values: list[float]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"({', '.join(f'{x:g}' for x in values)})"
