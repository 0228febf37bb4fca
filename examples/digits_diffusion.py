"""A diffusion model of handwritten digits: a bound on held-out images, new digits, and how they come out of noise.

    python examples/digits_diffusion.py [folder]

Prints the bounds and writes digits_diffusion_samples.png and digits_diffusion_reverse.png (by default to docs/figures).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import fkdrift as fk
from fkdrift.figures.ground_state import save_figures


def main(folder: Path) -> None:
    learned = fk.generative.learn("diffusion", "digits", n_updates=2500, steps=200, seed=0)
    print(learned)

    model, generator = learned.model, torch.Generator().manual_seed(0)
    x = learned.data.test[:20]
    noise = fk.generative.probability_flow(model, x, backwards=True)
    back = fk.generative.probability_flow(model, noise)
    print(f"\nthe probability flow takes 20 images to noise of spread {noise.std().item():.3f} and back,")
    print(f"with errors of {(back - x).abs().max().item():.1e} levels; the reverse SDE draws new ones:")
    new = fk.generative.reverse_sde(model, 1000, generator)
    print(f"mean level {new.mean().item():.2f} (data {learned.data.train.mean().item():.2f})")

    figures = learned.plot()
    save_figures({f"digits_diffusion_{name}": figures[name] for name in ("samples", "reverse")}, folder)
    print(f"figures in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "figures")
