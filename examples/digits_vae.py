"""A variational autoencoder of handwritten digits: bounds on held-out images, what each latent carries, new digits.

    python examples/digits_vae.py [folder]

Prints the bounds and writes digits_traversals.png and digits_reconstructions.png (by default to docs/figures).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import fkdrift as fk
from fkdrift.figures.ground_state import save_figures


def main(folder: Path) -> None:
    learned = fk.generative.learn("vae", "digits", latents=8, width=200, n_updates=1500, seed=0)
    print(learned)

    x = learned.data.test[:1]
    mean, std = learned.model.encode(x)
    print(f"\nthe first test image is z = {mean[0, 0].item():.2f} +- {std[0, 0].item():.2f} along the first latent")
    new = fk.generative.generate(learned.model, 3, torch.Generator().manual_seed(0))[-1]
    print(f"three new images: shape {tuple(new.shape)}, levels {int(new.min())} to {int(new.max())}")

    figures = learned.plot()
    chosen = {f"digits_{name}": figures[name] for name in ("traversals", "reconstructions")}
    save_figures(chosen, folder)
    print(f"figures in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "figures")
