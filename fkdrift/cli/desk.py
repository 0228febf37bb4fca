"""`fkdrift report`, `animate`, `sample`, `score` and `compare`: what saved runs look like, alone and side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fkdrift.cli.console import console, errors, refuse_no_run, text
from fkdrift.cli.options import Json, Refine
from fkdrift.cli.saved import Folder, Trust
from fkdrift.errors import BadConfig

LEVELS = ("run", "level", "energy", "exact", "deviation")
COLUMNS = ("run", "energy", "variational", "exact", "reference", "deviation", "from_first", "trusted", "cpu_seconds")


WIDEST = 1000
"""Characters in a line of a table."""


def report(
    folder: Folder,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file; default DIR/report.html.", metavar="FILE")
    ] = None,
) -> None:
    """Write a run as one HTML page: result, error budget, tests of trust, figures, and how to repeat it."""
    with errors():
        refuse_no_run(folder)
        from fkdrift.runs.page import write_page

        typer.echo(write_page(folder, out))


def animate(
    folder: Folder,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file; default DIR/walkers.gif.", metavar="FILE.gif")
    ] = None,
    frames: Annotated[int, typer.Option("--frames", help="How many pictures, 12 a second.", min=1)] = 60,
    training: Annotated[
        int, typer.Option("--training", help="Pictures of the training before, which is made again.", min=0)
    ] = 0,
    trust: Trust = False,
) -> None:
    """Draw the walkers of a ground state as they follow the drift, learned or while it is learned, as a GIF."""
    with errors():
        refuse_no_run(folder, "checkpoint.pt")
        if out is not None and out.suffix.lower() != ".gif":
            raise BadConfig(f"--out {out} cannot be written: give a file that ends in .gif")
        from fkdrift.runs.driver import load
        from fkdrift.runs.ground_state import GroundState

        state = load(folder, trust=trust)
        if not isinstance(state, GroundState):
            raise BadConfig(f"{folder} holds a {state.kind}, which has no walkers to draw: give a run of fkdrift solve")
        typer.echo(state.animate(out or folder / "walkers.gif", n_frames=frames, n_training=training))


def sample(
    folder: Folder,
    out: Annotated[Path, typer.Option("--out", "-o", help="A .npy, .npz or .nc file.", metavar="FILE")],
    n: Annotated[int, typer.Option("-n", "--n-samples", help="How many.", min=1)] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Of the noise.")] = 0,
    label: Annotated[
        int | None, typer.Option("--label", help="Of a model that was told classes: which one.", min=0)
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            "--sampler",
            help="Of a diffusion model: multistep, 20 evaluations of the network (default), or chain, one a step.",
            metavar="NAME",
        ),
    ] = None,
    trust: Trust = False,
) -> None:
    """Draw from |psi|^2 of a ground state, or from a learned model, to a file."""
    with errors():
        refuse_no_run(folder, "checkpoint.pt")
        import torch

        from fkdrift.numerics.named_arrays import KINDS, write
        from fkdrift.runs.driver import load
        from fkdrift.runs.learning import Learning
        from fkdrift.runs.starting import Cost, require_room

        if out.suffix not in KINDS:
            raise BadConfig(f"--out {out} cannot be written: give a file that ends in {', '.join(KINDS)}")
        run = load(folder, trust=trust)
        if not hasattr(run, "named_samples"):
            raise BadConfig(f"{folder} holds a {run.kind}: give a run of fkdrift solve or fkdrift learn")
        given = {"label": label, "sampler": sampler}
        options = {name: value for name, value in given.items() if value is not None}
        if options and not isinstance(run, Learning):
            name = next(iter(options))
            raise BadConfig(f"{folder} holds a {run.kind}, which is not learned from data: leave --{name} out")
        one = sum(array.nbytes for _, array in run.named_samples(1, seed, **options).values())
        require_room(Cost(2.0 * n * one, 0.0), torch.device("cpu"), None, f"give fewer than -n {n}", "the samples")
        typer.echo(write(out, run.named_samples(n, seed, **options)))


def score(
    folder: Folder,
    data: Annotated[str, typer.Argument(help="FILE.npy, FILE.npz or FILE.npz:NAME, (n, ...).", metavar="DATA")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the number of each datum to it.", metavar="FILE.npy")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", help="Their classes: FILE.npy, or a name in DATA.npz.", metavar="NAME"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws that a bound is averaged over.")] = 0,
    refine: Refine = 0,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Say how likely new data are under a learned model: log p(x), or the bound on it, in nats."""
    with errors():
        refuse_no_run(folder, "checkpoint.pt")
        from fkdrift.generative.data.datasets import file_and_name, read_array, read_labels
        from fkdrift.numerics.named_arrays import write
        from fkdrift.runs.driver import load
        from fkdrift.runs.learning import Learning
        from fkdrift.runs.report import number

        run = load(folder, trust=trust)
        if not isinstance(run, Learning):
            raise BadConfig(f"{folder} holds a {run.kind}: give a run of fkdrift learn")
        told = None if labels is None else read_labels(labels, file_and_name(data)[0])
        found, each = run.score(read_array(data), told, seed, refine)
        if out is not None:
            write(out, {found["quantity"]: (("datum",), each)})
        if as_json:
            typer.echo(json.dumps(found, indent=2))
            return
        bits = f" = {found['bits_per_component']:.4f} bits per component" if "bits_per_component" in found else ""
        typer.echo(f"{found['quantity']} {number(found)} nats{bits}, average of {found['n_data']:,} data")


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Folders of saved ground states.", metavar="DIR...")],
    figure: Annotated[
        Path | None,
        typer.Option("--figure", "-f", help="Draw energies and densities to it.", metavar="FILE.png"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Energies of runs against what is known and against the first, in standard errors, and levels against scipy's."""
    with errors():
        for folder in folders:
            refuse_no_run(folder)
        from fkdrift.runs.compare import compare as compare_runs
        from fkdrift.runs.compare import densities, levels

        rows, spectra = compare_runs(folders), levels(folders)
        if figure is not None:
            from fkdrift.figures.compare import compare_figure
            from fkdrift.figures.files import save_figures

            save_figures({figure.stem: compare_figure(rows, densities(folders), spectra)}, figure.parent)
        if as_json:
            with_levels = [{**row, "levels": own} if (own := _of(row["run"], spectra)) else row for row in rows]
            typer.echo(json.dumps(with_levels, indent=2, allow_nan=False))
            return
        out = console()
        out.width = WIDEST  # numbers are never cut short, whatever they are printed to
        for potential in dict.fromkeys(row["potential"] for row in rows):
            out.print(text(potential, "bold"))
        out.print(_table(rows, COLUMNS))
        if spectra:
            out.print()
            out.print(_table(spectra, LEVELS))


def _of(run: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those rows that are of one run, without what they say of it."""
    return [{name: row[name] for name in (*LEVELS[1:], "error")} for row in rows if row["run"] == run]


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> Any:
    """The columns in which any row has something."""
    from rich.table import Table

    shown = [name for name in columns if any(row[name] is not None for row in rows)]
    table = Table(box=None, pad_edge=False)
    for name in shown:
        table.add_column(name.replace("_", " "), justify="left" if name == "run" else "right")
    for row in rows:
        table.add_row(*(text(_cell(row, name)) for name in shown))
    return table


def _cell(row: Mapping[str, Any], name: str) -> str:
    """One number of the table."""
    from fkdrift.runs.report import number

    value = row[name]
    if name == "energy":
        return number({"mean": value, "error": row["error"]})
    if value is None:
        return ""
    if name in ("deviation", "from_first"):
        return f"{value:+.1f}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "cpu_seconds":
        return f"{value:.1f}"
    return f"{value:.9g}" if isinstance(value, float) else str(value)
