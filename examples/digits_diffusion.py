"""A diffusion model of handwritten digits: a bound on held-out images, new digits, and how they come out of noise.

    python examples/digits_diffusion.py [folder]

Prints the bounds and how good samples are by the evaluations of the network that they took, and writes
digits_diffusion_samples.png, digits_diffusion_reverse.png and digits_samplers.png (by default to docs/figures).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import fkdrift as fk
from fkdrift.figures.diffusion import samplers_figure
from fkdrift.figures.files import save_figures
from fkdrift.figures.latent import styled

N_SAMPLES = 1500


def main(folder: Path) -> None:
    learned = fk.generative.learn("diffusion", "digits", n_updates=2500, steps=1000, seed=0)
    print(learned)

    model, generator = learned.model, torch.Generator().manual_seed(0)
    x = learned.data.test[:20]
    noise = fk.generative.probability_flow(model, x, backwards=True)
    back = fk.generative.probability_flow(model, noise)
    print(f"\nthe probability flow takes 20 images to noise of spread {noise.std().item():.3f} and back,")
    print(f"with errors of {(back - x).abs().max().item():.1e} levels")

    real = torch.cat([learned.data.train, learned.data.test])
    noise = torch.randn(N_SAMPLES, learned.data.size, generator=generator)
    ways = {
        "multistep flow": ((5, 10, 20, 50), lambda n: fk.generative.multistep(model, noise, n)),
        "Runge-Kutta flow": ((20, 40, 200), lambda n: fk.generative.probability_flow(model, noise, n // 4)),
        "reverse SDE": ((10, 20, 50, 200), lambda n: fk.generative.reverse_sde(model, N_SAMPLES, generator, n)),
        "chain": ((1000,), lambda n: fk.generative.ancestral(model, N_SAMPLES, generator)),
    }
    distances = {
        name: [(n, fk.generative.energy_distance(draw(n).round(), real)) for n in calls]
        for name, (calls, draw) in ways.items()
    }
    print("energy distance to the data, by evaluations of the network:")
    for name, points in distances.items():
        print(f"  {name:<17} " + ", ".join(f"{n}: {distance}" for n, distance in points))

    figures = learned.plot()
    few = fk.generative.multistep(model, noise[:30], 10).round().unflatten(0, (5, 6))
    with styled():
        save_figures({"digits_samplers": samplers_figure(distances, few, learned.data)}, folder)
    save_figures({f"digits_diffusion_{name}": figures[name] for name in ("samples", "reverse")}, folder)
    print(f"figures in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "figures")
