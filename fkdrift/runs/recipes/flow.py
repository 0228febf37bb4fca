"""A normalizing flow: an exact density by change of variables.

The free energy of a datum is -log p(x), exactly; discrete data are dithered, -log P(x) <= -E_u log p(x + u) with u
uniform in a cube of volume 1.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from fkdrift.densities.coupling import Flow, coupling_flow
from fkdrift.densities.zuko_density import ZukoDensity
from fkdrift.errors import BadConfig
from fkdrift.generative.data.datasets import Dataset
from fkdrift.runs.recipes.flow_settings import LAYERED, FlowSettings
from fkdrift.runs.recipes.recipe import Recipe
from fkdrift.training.adam import FreeEnergy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


LARGEST_GRID = 2
N_GRID = 601
FAR, N_TAILS = 1.5, 50_000
"""Samples beyond so many times the reach of the data are counted, of so many numbers."""
IMAGE_ROWS = 4
"""Of samples in a figure."""


class LearnedFlow(nn.Module):
    """A flow and the noise that discrete data are dithered with.

    Args:
        flow: the density.
        dither: width of the uniform noise, 0 for none.
        whole: whether data are whole numbers.
    """

    def __init__(self, flow: Flow | ZukoDensity, dither: float, whole: bool) -> None:
        super().__init__()
        self.flow, self.dither, self.whole = flow, dither, whole

    def free_energy(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """-log p(x), (batch,), nats."""
        if self.dither:
            x = x + self.dither * (torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device) - 0.5)
        return -self.flow.log_prob(x)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n data, (n, size); discrete ones are rounded."""
        x = self.flow.sample(n, generator)
        return x.round() if self.whole else x


def resolve(settings: FlowSettings, data: Dataset) -> FlowSettings:
    """Settings with the width of the noise chosen.

    Raises:
        BadParameter: data that have no density without noise.
    """
    dither = (0.0 if data.n_levels is None else 1.0) if settings.dither is None else settings.dither
    if dither == 0:
        data.require_density()
    return dataclasses.replace(settings, dither=dither)


def build(settings: FlowSettings, data: Dataset) -> LearnedFlow:
    """The model of these settings, started from their seed and the mean and spread of the data."""
    dither = settings.dither or 0.0
    x = data.train
    centre = x.mean(0)
    spread = ((x - centre).square().mean(0) + dither**2 / 12).sqrt()
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))
    if settings.kind == "coupling":
        flow: Flow | ZukoDensity = coupling_flow(
            data.size,
            centre=centre,
            spread=spread,
            n_couplings=settings.couplings,
            n_steps=settings.bumps,
            width=settings.width,
            depth=settings.depth,
            confined=True,
            seed=settings.seed,
        )
    else:
        options: dict[str, Any] = {"hidden_features": (settings.width,) * settings.depth}
        if settings.kind in LAYERED:
            options["transforms"] = settings.couplings
        flow = ZukoDensity(settings.kind, data.size, centre=centre, spread=spread, seed=settings.seed, **options)
    return LearnedFlow(flow, dither, data.n_levels is not None)


def objective(model: nn.Module, settings: FlowSettings, data: Dataset) -> FreeEnergy:
    """-log p of each datum."""

    def free_energy(originals: Tensor, generator: torch.Generator) -> Tensor:
        return cast(LearnedFlow, model).free_energy(data.prepare(originals, generator), generator)

    return free_energy


def evaluate(model: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
    """-log p, (batch,), nats."""
    return cast(LearnedFlow, model).free_energy(x, generator)


def entries(model: nn.Module, settings: FlowSettings, data: Dataset, generator: torch.Generator) -> dict[str, Any]:
    """How many derivatives log p has, its tails and, in one or two dimensions, its integral over a wide grid."""
    flow = cast(LearnedFlow, model).flow
    about: dict[str, Any] = {
        "smoothness": flow.smoothness,
        "tails": tails(flow, data.train, settings.dither or 0.0, generator),
    }
    if data.size <= LARGEST_GRID:
        about["integral"] = integral(flow, data.train)
    return about


@torch.no_grad()
def tails(flow: Flow | ZukoDensity, data: Tensor, dither: float, generator: torch.Generator) -> dict[str, float]:
    """The share of samples beyond `FAR` times the reach of the data, and how many times the farthest is beyond it."""
    low, high = data.min(0).values, data.max(0).values
    centre, half = (low + high) / 2, (high - low + dither) / 2
    n = max(1, N_TAILS // data.shape[1] // 10)
    parts = [flow.sample(n, generator) for _ in range(10)]
    reach = torch.cat([((x - centre) / half).abs().amax(1) for x in parts]).double()
    return {"outside": (reach > FAR).double().mean().item(), "farthest": reach.max().item(), "samples": len(reach)}


@torch.no_grad()
def integral(flow: Flow | ZukoDensity, data: Tensor, reach: float = 3.0) -> float:
    """The integral of p over a grid `reach` times as wide as the data, in one or two dimensions."""
    low, high = data.min(0).values, data.max(0).values
    centre, half = (low + high) / 2, reach * (high - low) / 2
    sides = [
        torch.linspace(-1, 1, N_GRID, dtype=data.dtype, device=data.device) * h + c
        for c, h in zip(centre, half, strict=True)
    ]
    grid = torch.stack(torch.meshgrid(*sides, indexing="ij"), -1).reshape(-1, len(sides))
    total = sum(float(flow.log_prob(part).exp().double().sum()) for part in grid.split(20_000))
    cell = 1.0
    for side in sides:
        cell *= float(side[1] - side[0])
    return total * cell


def figures(model: nn.Module, settings: Any, data: Dataset, generator: torch.Generator) -> dict[str, Figure]:
    """The density, or samples: beside the data component by component, or as the images that they are."""
    from fkdrift.figures.flow import flow_figures  # here: matplotlib takes a second to import
    from fkdrift.figures.latent import N_SHOWN, gallery

    if not data.is_image:
        return flow_figures(cast(LearnedFlow, model).flow, data.train, generator)
    images = sample(model, IMAGE_ROWS * N_SHOWN, generator).unflatten(0, (IMAGE_ROWS, N_SHOWN))
    return {"samples": gallery(images, data, "drawn from the flow")}


def sample(model: nn.Module, n: int, generator: torch.Generator) -> Tensor:
    """n data, (n, size)."""
    return cast(LearnedFlow, model).sample(n, generator)


def encode(model: nn.Module, x: Tensor) -> Tensor:
    """The normal numbers of x, (batch, size)."""
    return _layers(model).normal(x)[0]


def decode(model: nn.Module, z: Tensor) -> Tensor:
    """x of the normal numbers z, (batch, size)."""
    return _layers(model).inverse(z)


def _layers(model: nn.Module) -> Flow:
    flow = cast(LearnedFlow, model).flow
    if isinstance(flow, Flow):
        return flow
    raise BadConfig(f"a flow of kind {flow.kind} has no codes here: train one of kind coupling")


RECIPE = Recipe(
    "flow",
    FlowSettings,
    resolve,
    build,
    objective,
    evaluate,
    entries,
    figures,
    sample,
    encode,
    decode,
    exact=lambda model: not cast(LearnedFlow, model).dither,
)
