"""Generative models on the command line: `fkdrift learn MODEL --data NAME`.

`learn` is a group with a command for each model; options win over the defaults of the
model's settings.  Everything that a command does is in `fkdrift.runs.learning`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fkdrift.cli.console import errors, finish, only_given, refuse_to_replace

learn = typer.Typer(
    help="Train a generative model on data.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Data = Annotated[
    str,
    typer.Option("--data", "-d", help="digits, mnist5k, FILE.npy, or run:DIR (a solved ground state).", metavar="NAME"),
]
Out = Annotated[Path | None, typer.Option(help="Folder for the result, checkpoint and figures.", metavar="DIR")]
Overwrite = Annotated[bool, typer.Option(help="Replace the training that --out holds.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the test bound only, in nats.")]
Seed = Annotated[int | None, typer.Option(help="Of the network, the minibatches and the noise.", show_default="0")]
Updates = Annotated[int | None, typer.Option(help="Steps of the optimiser.")]
BatchSize = Annotated[int | None, typer.Option(help="Data in a minibatch.")]
LearningRate = Annotated[float | None, typer.Option(help="Of Adam, at its highest.")]
WeightDecay = Annotated[float | None, typer.Option(help="How much of a weight a step takes away, times its rate.")]
MaxSeconds = Annotated[float | None, typer.Option(help="Stop training after this many seconds of wall time.")]
DType = Annotated[str | None, typer.Option(help="float32 or float64.")]

Latents = Annotated[int | None, typer.Option(help="Components of z (for markov, of z_1).", show_default="20")]
Encoder = Annotated[str | None, typer.Option(help="diagonal or full covariance.", show_default="diagonal")]
Decoder = Annotated[
    str | None,
    typer.Option(help="auto, bernoulli, beta-binomial, categorical or gaussian.", show_default="auto"),
]
Network = Annotated[str | None, typer.Option(help="mlp, conv (images) or linear.", show_default="mlp")]
Width = Annotated[int | None, typer.Option(help="Units in a hidden layer.", show_default="400")]
Depth = Annotated[int | None, typer.Option(help="Hidden layers.", show_default="2")]
Beta = Annotated[float | None, typer.Option(help="Weight of the KL.", show_default="1")]
Samples = Annotated[int | None, typer.Option(help="Draws of each datum; from 2 on the IWAE bound.", show_default="1")]
Noise = Annotated[float | None, typer.Option(help="Fixed standard deviation of a Gaussian decoder.")]
Distort = Annotated[float | None, typer.Option(help="Strength of random distortions of training images.")]


@learn.command()
def vae(
    data: Data,
    latents: Latents = None,
    encoder: Encoder = None,
    decoder: Decoder = None,
    network: Network = None,
    width: Width = None,
    depth: Depth = None,
    beta: Beta = None,
    samples: Samples = None,
    noise: Noise = None,
    distort: Distort = None,
    updates: Updates = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    weight_decay: WeightDecay = None,
    max_seconds: MaxSeconds = None,
    dtype: DType = None,
    seed: Seed = None,
    out: Out = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """A variational autoencoder: one latent, p(z) = N(0, 1)."""
    train("vae", locals())


@learn.command()
def markov(
    data: Data,
    latents: Latents = None,
    upper: Annotated[
        list[int] | None, typer.Option(help="Components of z_2; again for z_3, ...", show_default="20")
    ] = None,
    upper_width: Annotated[int | None, typer.Option(help="Hidden units between latents.", show_default="200")] = None,
    decay: Annotated[float | None, typer.Option(help="Fixed steps q = N(a z, 1 - a^2) above the first.")] = None,
    encoder: Encoder = None,
    decoder: Decoder = None,
    network: Network = None,
    width: Width = None,
    depth: Depth = None,
    beta: Beta = None,
    samples: Samples = None,
    noise: Noise = None,
    distort: Distort = None,
    updates: Updates = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    weight_decay: WeightDecay = None,
    max_seconds: MaxSeconds = None,
    dtype: DType = None,
    seed: Seed = None,
    out: Out = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """A chain of latents x -> z_1 -> ... -> z_T, each step with a kernel of its own."""
    train("markov", {**locals(), "upper": tuple(upper) if upper else None})


@learn.command("latent-sde")
def latent_sde(
    data: Data,
    latents: Annotated[int | None, typer.Option(help="Components of z.", show_default="2")] = None,
    spacing: Annotated[float | None, typer.Option(help="Time between two observations.", show_default="1")] = None,
    dt: Annotated[float | None, typer.Option(help="Longest step.", show_default="spacing / 8")] = None,
    width: Annotated[int | None, typer.Option(help="Units of the networks.", show_default="48")] = None,
    context: Annotated[int | None, typer.Option(help="Components of the context.", show_default="16")] = None,
    loss: Annotated[str | None, typer.Option(help="kl or log_variance.", show_default="kl")] = None,
    adjoint: Annotated[bool | None, typer.Option(help="Gradients by the adjoint equation: less memory.")] = None,
    updates: Updates = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    weight_decay: WeightDecay = None,
    max_seconds: MaxSeconds = None,
    dtype: DType = None,
    seed: Seed = None,
    out: Out = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """A hidden diffusion that explains series (n, time, observed) in FILE.npy."""
    train("latent-sde", locals())


@learn.command()
def diffusion(
    data: Data,
    steps: Annotated[int | None, typer.Option(help="Length of the chain.", show_default="200")] = None,
    schedule: Annotated[str | None, typer.Option(help="cosine or linear.", show_default="cosine")] = None,
    variance: Annotated[
        str | None, typer.Option(help="Of the steps back: learned, beta or beta-tilde.", show_default="learned")
    ] = None,
    waves: Annotated[int | None, typer.Option(help="Waves of each component that the network reads.")] = None,
    width: Annotated[int | None, typer.Option(help="Units in a hidden layer.", show_default="256")] = None,
    depth: Annotated[int | None, typer.Option(help="Hidden layers.", show_default="3")] = None,
    updates: Updates = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    weight_decay: WeightDecay = None,
    max_seconds: MaxSeconds = None,
    dtype: DType = None,
    seed: Seed = None,
    out: Out = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """A diffusion model: fixed noise one way, learned steps back the other."""
    train("diffusion", locals())


@learn.command()
def flow(
    data: Data,
    kind: Annotated[str | None, typer.Option(help="coupling, or zuko's NSF, MAF, ...", show_default="coupling")] = None,
    couplings: Annotated[int | None, typer.Option(help="Coupling layers or transforms.", show_default="4")] = None,
    bumps: Annotated[int | None, typer.Option(help="Steps in each monotone map.", show_default="8")] = None,
    width: Annotated[int | None, typer.Option(help="Units in a hidden layer.", show_default="64")] = None,
    depth: Annotated[int | None, typer.Option(help="Hidden layers.", show_default="2")] = None,
    updates: Updates = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    weight_decay: WeightDecay = None,
    max_seconds: MaxSeconds = None,
    dtype: DType = None,
    seed: Seed = None,
    out: Out = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """A normalizing flow: an exact density by change of variables."""
    train("flow", locals())


def train(model: str, options: dict[str, Any]) -> None:
    """What every model's command does with its options: those not given keep the default of its settings.

    Args:
        model: its name in `fkdrift.runs.learning.RECIPES`.
        options: by the names of its settings (`updates` is n_updates), with data, out, overwrite and quiet.
    """
    options = dict(options)
    data, out, quiet = options.pop("data"), options.pop("out"), options.pop("quiet")
    overwrite = options.pop("overwrite")
    options["n_updates"] = options.pop("updates")
    with errors():
        if out is not None:
            refuse_to_replace(out, overwrite)
        from fkdrift.runs.learning import learn as run

        finish(run(model, data, out=out, progress=False if quiet else None, **only_given(options)), out, quiet)
