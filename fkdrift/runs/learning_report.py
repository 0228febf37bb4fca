"""A training in words, from the plain values of its result.json."""

from __future__ import annotations

import math
from typing import Any

from fkdrift.numerics.estimates import format_with_error


def summary(result: dict[str, Any]) -> str:
    """The block that `fkdrift learn` prints, from the contents of result.json."""
    data = result["data"]
    lines = [f"{result['model']} of {data['name']}", ""]
    for part, bound in result.get("free_energy", {}).items():
        lines.append(f"  {'-ELBO, ' + part:<22}{_text(bound)}")
    if "importance_weighted" in result:
        bound = result["importance_weighted"]
        lines.append(f"  {'importance weighted':<22}{_text(bound)} with {bound['samples']} samples (test)")
    if "latents" in result:
        latents = result["latents"]
        units = " ".join(f"{kl:.2f}" for kl in latents["unit_kl"][:8])
        lines.append(
            f"  {'latents':<22}{latents['active']} active; KL {units}{' ...' if len(latents['unit_kl']) > 8 else ''}"
        )
        limit, information = latents["mutual_information_limit"], latents["mutual_information"]
        lines.append(f"  {'mutual information':<22}{information:.2f} nats (the estimate ends at {limit:.2f})")
    steps = f"{result['n_updates']:,} updates, {result['n_parameters']:,} parameters, seed {result['seed']}"
    seconds = f"{result['wall_seconds']:.1f} s wall, {result['cpu_seconds']:.1f} s CPU"
    lines += [f"  {'training':<22}{steps}", f"  {'time':<22}{seconds}"]
    if result["status"] != "finished":
        lines += ["", f"  {result['status']}: this is what had been reached"]
    return "\n".join(lines)


def _text(bound: dict[str, Any]) -> str:
    """A bound in nats, and in bits where there are levels."""
    error = math.nan if bound["error"] is None else bound["error"]
    bits = f" = {bound['bits_per_component']:.4f} bits per component" if "bits_per_component" in bound else ""
    return f"{format_with_error(bound['mean'], error)} nats{bits}"
