"""`fkdrift doctor`: versions, what there is to compute on, how fast it is, and a self-test."""

from __future__ import annotations

import math
import os

import typer

from fkdrift.cli.console import FAILED, console, errors
from fkdrift.runs.settings import Settings

SELF_TEST = {"harmonic": 0.5, "anharmonic": 0.8037706512}
"""Potentials and their exact energies."""

SETTINGS = Settings(n_walkers=256, n_blocks=32)
SPEED = Settings(n_walkers=512, n_updates=5, n_blocks=8, n_path_blocks=2, n_equilibration=1, project=False, workers=1)
"""Of the run that is timed, which takes seconds."""


def doctor() -> None:
    """Print versions, cores, devices and walker-steps per second, and solve two oscillators as a self-test."""
    with errors():
        import torch
        from joblib import cpu_count
        from threadpoolctl import threadpool_info

        from fkdrift.runs.ground_state import solve
        from fkdrift.runs.run import versions
        from fkdrift.runs.sharing import VARIABLE

        out = console()
        for name, value in versions().items():
            out.print(f"{name:<10} {value}")
        cuda = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
        out.print(f"{'devices':<10} cpu{''.join(f', cuda:{k} ({name})' for k, name in enumerate(cuda))}")
        out.print(f"{'cores':<10} {cpu_count(only_physical_cores=True)}, for --workers auto")
        out.print(f"{'workers':<10} {os.environ.get(VARIABLE, '1')} unless --workers says otherwise")
        out.print(f"{'threads':<10} {torch.get_num_threads()}")
        blas = sorted({f"{each['internal_api']} {each['version'] or ''}".rstrip() for each in threadpool_info()})
        out.print(f"{'libraries':<10} {', '.join(blas)}")
        phases = solve("helium", settings=SPEED, progress=False).result["phases"]
        rates = [f"{name} {phase['walker_steps_per_second']:,.0f}" for name, phase in phases.items() if len(phase) > 1]
        out.print(f"{'speed':<10} walker-steps per second of helium in one worker: {', '.join(rates)}\n")
        failed = False
        for name, E in SELF_TEST.items():
            state = solve(name, settings=SETTINGS, progress=False)
            good = passes(state.energy.mean, state.energy.error, E)
            failed |= not good
            mark = "[green]passed[/green]" if good else "[red]FAILED[/red]"
            out.print(f"{name:<12} {state.energy!s:<16} exact {E:<14.10g} {state.wall_seconds:4.1f} s  {mark}")
        if failed:
            raise typer.Exit(FAILED)


def passes(mean: float, error: float, exact: float) -> bool:
    """The self-test: an error below 1e-3, and the exact energy within four of them (rounding aside)."""
    return math.isfinite(mean) and error < 1e-3 and abs(mean - exact) < 4 * error + 2e-6
