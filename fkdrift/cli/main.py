"""The command `fkdrift`: solve, exact, potentials, show, resume, doctor; `learn` is in `cli_generative`.

Names and numbers from the command line become objects here; the physics is imported only by the commands that need it,
so that `--help` is instant.
"""

from __future__ import annotations

import json
import math
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fkdrift.cli import bridge as cli_bridge
from fkdrift.cli import compress as cli_compress
from fkdrift.cli import learn as cli_generative
from fkdrift.cli.console import FAILED, errors, finish, only_given, refuse_to_replace, text
from fkdrift.errors import BadConfig
from fkdrift.runs.settings import Settings, read_config

if TYPE_CHECKING:
    from fkdrift.hamiltonian.loading import PlugIn

SELF_TEST = {"harmonic": 0.5, "anharmonic": 0.8037706512}
SELF_TEST_SETTINGS = Settings(n_walkers=256, n_blocks=32)

app = typer.Typer(
    help="Quantum ground states by stochastic control: an energy with an honest error bar.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cli_generative.learn, name="learn")
app.command()(cli_bridge.bridge)
app.command()(cli_compress.compress)
app.command()(cli_compress.decompress)


def main() -> None:
    """The entry point of the command."""
    app(prog_name="fkdrift")


def _version(show: bool) -> None:
    if show:
        typer.echo(f"fkdrift {version('fkdrift')}")
        raise typer.Exit


@app.callback()
def _options(
    show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Quantum ground states by stochastic control: an energy with an honest error bar."""


def _setting(name: str, help: str, flags: tuple[str, ...] = ()) -> Any:
    """An option that changes one setting; not given, the file's value or the default holds."""
    default = {field.name: field.default for field in fields(Settings)}[name]
    shown = False if default is None else f"{default:g}" if isinstance(default, float) else str(default)
    return typer.Option(*flags, f"--{name.replace('_', '-')}", help=help, show_default=shown)


Name = Annotated[
    str | None,
    typer.Option("--potential", "-p", help="A plug-in's name, file.py:Name, a formula, or a table.", metavar="NAME"),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--param", "-P", help="A parameter of the potential; repeatable.", metavar="K=V"),
]
Out = Annotated[Path | None, typer.Option(help="Folder for the result, checkpoint and figures.", metavar="DIR")]
Folder = Annotated[Path, typer.Argument(help="Folder of a saved run.", metavar="DIR")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the energy only, as 0.50003(8).")]
Atol = Annotated[float | None, _setting("atol", "Sample until the standard error is below this energy.")]
MaxSeconds = Annotated[float | None, _setting("max_seconds", "Stop after this many seconds of wall time.")]
Blocks = Annotated[int | None, _setting("n_blocks", "Blocks of one time scale to average over.")]


@app.command()
def solve(
    potential: Name = None,
    param: Parameters = None,
    seed: Annotated[int | None, _setting("seed", "Of the network, the walkers and the noise.")] = None,
    method: Annotated[str | None, _setting("method", "drift, or flow (a normalizing flow for |psi|^2).")] = None,
    drift: Annotated[str | None, _setting("drift", "gradient (of log psi) or mlp (a free field).")] = None,
    optimiser: Annotated[str | None, _setting("optimiser", "natural (gradient, in path space) or adam.")] = None,
    device: Annotated[str | None, _setting("device", "auto, cpu, cuda or cuda:1.")] = None,
    dtype: Annotated[str | None, _setting("dtype", "float32 or float64.")] = None,
    max_seconds: MaxSeconds = None,
    atol: Atol = None,
    n_updates: Annotated[int | None, _setting("n_updates", "Steps of the optimiser.")] = None,
    n_walkers: Annotated[int | None, _setting("n_walkers", "Independent walkers.")] = None,
    n_blocks: Blocks = None,
    width: Annotated[int | None, _setting("width", "Units in a hidden layer of the network.")] = None,
    out: Out = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with all settings.", metavar="FILE")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the run that --out holds.")] = False,
    quiet: Quiet = False,
) -> None:
    """Find the ground state of a potential.

    Options win over the --config file, and the file over the defaults.  Ctrl-C saves what there is, to be resumed.
    """
    given = {
        "seed": seed, "method": method, "drift": drift, "optimiser": optimiser, "device": device, "dtype": dtype,
        "width": width, "max_seconds": max_seconds, "atol": atol, "n_updates": n_updates, "n_walkers": n_walkers,
        "n_blocks": n_blocks,
    }  # fmt: skip
    with errors():
        described, written = ({}, {}) if config is None else read_config(config)
        name, parameters = _potential(potential, param, described)
        settings = Settings.from_values({**written, **only_given(given)})
        if out is not None:
            refuse_to_replace(out, overwrite)
        from fkdrift.hamiltonian.loading import load_potential
        from fkdrift.runs.ground_state import solve as run

        loaded = load_potential(name, **parameters)
        state = run(loaded, settings=settings, out=out, progress=False if quiet else None)
        finish(state, out, quiet)


@app.command()
def resume(
    folder: Folder,
    atol: Atol = None,
    max_seconds: MaxSeconds = None,
    n_blocks: Blocks = None,
    n_updates: Annotated[int | None, typer.Option("--n-updates", help="Steps of the optimiser.")] = None,
    quiet: Quiet = False,
) -> None:
    """Go on with an interrupted run of any kind, or take a finished one further.

    On the CPU an interrupted run ends, bit for bit, where it would have ended without the interruption.
    """
    with errors():
        from fkdrift.runs.driver import resume as run

        given = {"atol": atol, "max_seconds": max_seconds, "n_blocks": n_blocks, "n_updates": n_updates}
        finish(run(folder, progress=False if quiet else None, **only_given(given)), folder, quiet)


@app.command()
def show(folder: Folder) -> None:
    """Print the result of a saved run of any kind."""
    with errors():
        from fkdrift.runs.driver import show as block

        typer.echo(str(block(folder)))


@app.command()
def exact(
    potential: Annotated[str, typer.Option("--potential", "-p", help="As for solve.", metavar="NAME")],
    param: Parameters = None,
    levels: Annotated[int, typer.Option("--levels", "-n", help="How many energy levels.", min=1)] = 5,
    max_seconds: Annotated[
        float, typer.Option("--max-seconds", help="Stop after this many seconds; raise it for hard potentials.", min=0)
    ] = 60.0,
) -> None:
    """Solve the Schroedinger equation on a grid with scipy, where the system allows it."""
    with errors():
        from fkdrift.exact.diagonalisation import diagonalise
        from fkdrift.hamiltonian.loading import load_potential, parse_parameters

        loaded = load_potential(potential, **parse_parameters(param or []))
        spectrum = diagonalise(
            loaded, levels, max_seconds=max_seconds, progress=lambda stage: typer.echo(stage, err=True)
        )
        table = Table(box=None, pad_edge=False)
        for column in ("n", "energy", "gap", "error"):
            table.add_column(column, justify="right")
        table.add_column("state")
        for n, (E, error) in enumerate(zip(spectrum.energies, spectrum.errors, strict=True)):
            label = spectrum.labels[n] if n < len(spectrum.labels) else ""
            gap = f"{E - spectrum.energies[0]:.10g}" if n else ""
            table.add_row(str(n), f"{E:.12g}", gap, f"{error:.0e}", label)
        remarks = str(spectrum).splitlines()[len(spectrum.energies) + 1 :]
        console = Console(highlight=False, soft_wrap=True)
        console.print(text(f"{loaded.name}   {loaded.formula}   ({loaded.units})", "bold"))
        console.print(table)
        console.print(text("\n".join(remarks), "dim"))


@app.command()
def potentials(
    as_json: Annotated[bool, typer.Option("--json", help="Machine readable.")] = False,
) -> None:
    """List the installed potentials: formula, parameters and known energy."""
    with errors():
        from fkdrift.hamiltonian.loading import available

        plug_ins = available().values()
        if as_json:
            typer.echo(json.dumps([_row(plug_in) for plug_in in plug_ins], indent=2))
            return
        console = Console(highlight=False, soft_wrap=True)
        width = max(len(plug_in.name) for plug_in in plug_ins) + 2
        for plug_in in plug_ins:
            package = "" if plug_in.distribution == "fkdrift" else f"   from {plug_in.distribution}"
            name = text(f"{plug_in.name:<{width}}", "bold")
            if plug_in.broken:
                console.print(name + text(f"cannot be used: {plug_in.broken}{package}", "red"))
                continue
            console.print(name + text(plug_in.formula + package))
            for line in (_parameters(plug_in), _known(plug_in), plug_in.citation):
                if line:
                    console.print(text(" " * width + line, "dim"))


@app.command()
def doctor() -> None:
    """Print versions and devices, and solve two oscillators as a self-test."""
    with errors():
        import torch

        from fkdrift.runs.ground_state import solve as run
        from fkdrift.runs.run import versions

        console = Console(highlight=False)
        for name, value in versions().items():
            console.print(f"{name:<10} {value}")
        cuda = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
        console.print(f"{'devices':<10} cpu{''.join(f', cuda:{k} ({name})' for k, name in enumerate(cuda))}")
        console.print(f"{'threads':<10} {torch.get_num_threads()}\n")
        failed = False
        for name, E in SELF_TEST.items():
            state = run(name, settings=SELF_TEST_SETTINGS, progress=False)
            good = passes(state.energy.mean, state.energy.error, E)
            failed |= not good
            mark = "[green]passed[/green]" if good else "[red]FAILED[/red]"
            console.print(f"{name:<12} {state.energy!s:<16} exact {E:<14.10g} {state.wall_seconds:4.1f} s  {mark}")
        if failed:
            raise typer.Exit(FAILED)


def passes(mean: float, error: float, exact: float) -> bool:
    """The self-test: an error below 1e-3, and the exact energy within four of them (rounding aside)."""
    return math.isfinite(mean) and error < 1e-3 and abs(mean - exact) < 4 * error + 2e-6


# -- in and out --------------------------------------------------------------------------------------------------------


def _potential(name: str | None, param: list[str] | None, described: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Which potential, from the command line or the file; parameters of the file belong to its own potential only."""
    from fkdrift.hamiltonian.loading import parse_parameters

    written = described.get("name")
    if name is None and written is None:
        raise BadConfig("which potential? Give --potential NAME (`fkdrift potentials` lists them), or a --config file")
    if name is None and not described.get("reloadable", True):
        raise BadConfig(f"the potential {written!r} was a Python callable, which a file cannot hold: use fk.solve")
    extra = set(described) - {"name", "parameters", "reloadable"}
    if extra:
        raise BadConfig(f"[potential] has unknown entries {sorted(extra)}: it takes name and parameters")
    kept = described.get("parameters", {}) if name in (None, written) else {}
    return name or str(written), {**kept, **parse_parameters(param or [])}


def _row(plug_in: PlugIn) -> dict[str, Any]:
    """One plug-in as JSON values."""
    known = plug_in.known_energy
    return {
        "name": plug_in.name,
        "formula": plug_in.formula,
        "units": plug_in.potential.units if plug_in.potential else "",
        "parameters": {k: _json(v) for k, v in plug_in.parameters.items()},
        "known_energy": None if known is None else {"value": known.value, "kind": known.kind, "source": known.source},
        "citation": plug_in.citation,
        "distribution": plug_in.distribution,
        "broken": plug_in.broken,
    }


def _json(value: object) -> object:
    """A default as JSON; None where there is none."""
    if isinstance(value, bool | int | float | str):
        return value
    return list(value) if isinstance(value, tuple | list) else None


def _parameters(plug_in: PlugIn) -> str:
    """Parameters with their defaults."""
    values = {name: _json(value) for name, value in plug_in.parameters.items()}
    shown = {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in values.items()}
    return ", ".join(f"{name} = {'(required)' if value is None else value}" for name, value in shown.items())


def _known(plug_in: PlugIn) -> str:
    """The known energy at the default parameters."""
    known = plug_in.known_energy
    return "" if known is None else f"E0 = {known.value:.10g}  ({known.kind}: {known.source})"
