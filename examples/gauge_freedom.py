"""The same bound with different laws of the latents, and a penalty that chooses one of them.

    python examples/gauge_freedom.py [folder]

Writes gauge_freedom.png (by default to docs/figures): chains x -> z_1 -> z_2 -> z_3 of normal data with the same bound
to rounding.  Then a Markov autoencoder learns points on a ring, with steps up that are fixed, held, or learned; its
bounds are printed, and how far the steps are from N(a z, 1 - a^2).
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

import fkdrift as fk
from fkdrift.figures.files import save_figures
from fkdrift.figures.latent import laws_figure, styled
from fkdrift.generative.chain import draw_posterior, transition_log_ratio
from fkdrift.generative.linear import LinearChain
from fkdrift.generative.markov import fixed_kernel
from fkdrift.runs.report import number

DECAY, N = 0.6, 5000
SETTINGS = {"latents": 2, "upper": (2, 2), "width": 64, "upper_width": (64,), "noise": 0.15, "validation": 0.0}
TRAINING = {"warm_up": 0.0, "n_updates": 2500, "batch_size": 200, "learning_rate": 5e-3, "progress": False}
WAYS = {
    "fixed": {"decay": DECAY},
    "held, weight 1": {"decay": DECAY, "hold": 1.0},
    "held, weight 0.1": {"decay": DECAY, "hold": 0.1},
    "learned": {},
}


def chain(decays: tuple[float, float, float], turn: float = 0.0, stretch: float = 1.0) -> LinearChain:
    """x <- z_1 <- z_2 <- z_3 by a R z + (1 - a^2)^(1/2) e, with x ~ N(0, C) whatever a and R are, and z_2 stretched."""
    one, zero = torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    R = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]], dtype=torch.float64)
    L = torch.tensor([[1.0, 0.0], [0.8, 0.6]], dtype=torch.float64)  # C = L L^T
    S = torch.diag(torch.tensor([stretch, 1 / stretch], dtype=torch.float64))
    a, b, c = decays
    return LinearChain(
        [
            (a * L @ R, zero, (1 - a**2) * L @ L.T),
            (b * R @ S.inverse(), zero, (1 - b**2) * one),
            (c * S @ R, zero, (1 - c**2) * S @ S),
        ]
    )


def exact() -> Figure:
    """Three chains of the same data: the log ratio of all of them is -log p(x), on every path."""
    chains = {
        "a = 0.95": chain((0.95, 0.95, 0.95)),
        "a = 0.6": chain((0.6, 0.6, 0.6)),
        "turned, $z_2$ stretched": chain((0.95, 0.8, 0.6), math.pi / 3, 1.8),
    }
    g = torch.Generator().manual_seed(0)
    L = torch.tensor([[1.0, 0.0], [0.8, 0.6]], dtype=torch.float64)
    white = torch.randn(2000, 2, generator=g, dtype=torch.float64)
    x = white @ L.T
    known = (white.square().sum(1) / 2 + math.log(2 * math.pi) + math.log(0.6)).mean().item()
    for name, linear in chains.items():
        ratio = fk.generative.log_ratio(linear.autoencoder(), x, g)
        print(f"{name:<24} -ELBO {ratio.mean().item():.12f} nats (exactly {known:.12f})")
    models = {name: linear.autoencoder() for name, linear in chains.items()}
    return laws_figure(models, x, torch.atan2(white[:, 1], white[:, 0]), g)


def ring(n: int, seed: int) -> Tensor:
    """Points around a circle of radius 1, with a width of 0.1."""
    g = torch.Generator().manual_seed(seed)
    angle, radius = 2 * math.pi * torch.rand(n, generator=g), 1 + 0.1 * torch.randn(n, generator=g)
    return radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)


def learned() -> None:
    """Bounds with steps that are fixed, held, and learned."""
    x, fixed = ring(1000, seed=1), [fixed_kernel(2, DECAY)] * 2
    for name, options in WAYS.items():
        found = fk.generative.learn("markov", ring(N, seed=0), **SETTINGS, **TRAINING, **options)
        path, _ = draw_posterior(found.model, x, torch.Generator().manual_seed(0))
        with torch.no_grad():
            away = transition_log_ratio(list(found.model.encoders)[1:], fixed, path[1:]).mean().item()
        bound = number(found.result["free_energy"]["test"])
        print(f"{name:<17} -ELBO {bound} nats, {away:.3f} nats from the fixed steps")


def main(folder: Path) -> None:
    with styled():
        save_figures({"gauge_freedom": exact()}, folder)
    print(f"figure in {folder}")
    learned()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "figures")
