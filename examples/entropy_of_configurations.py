"""Entropy by compression: the size of a file of ground-state configurations is a measurement of their entropy.

    python examples/entropy_of_configurations.py [folder]

Configurations of a chain of eight coupled oscillators are rounded to a grid and compressed bits-back, with models that
know more and more of their normal modes.  Every file is decompressed again: its length is an upper bound on the entropy
that has been earned.  Writes entropy_of_configurations.png (by default to docs/figures).
"""

from __future__ import annotations

import bz2
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

import fkdrift as fk
from fkdrift.figures.palette import DASHED, DPI, EXACT, LEARNED, STYLE, WALKERS
from fkdrift.generative.linear import principal_components

STEP = 2.0**-6
N, SITES = 4000, 8


def chain() -> tuple[torch.Tensor, float]:
    """Configurations (n, site) from |phi_0|^2 of the chain, and their exact differential entropy in nats."""
    spring = torch.full((SITES - 1,), 0.99, dtype=torch.float64)
    squares, modes = torch.linalg.eigh(2 * torch.eye(SITES, dtype=torch.float64) - spring.diag(1) - spring.diag(-1))
    widths = (1 / (2 * squares.sqrt())).sqrt()
    noise = torch.randn(N, SITES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return noise * widths @ modes.T, SITES / 2 * math.log(2 * math.pi * math.e) + widths.log().sum().item()


def main(folder: Path) -> None:
    x, exact = chain()
    x = (x / STEP).round() * STEP
    bits = exact / math.log(2) - SITES * math.log2(STEP)
    sizes, nets = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "chain.fkdz"
        for latents in range(1, SITES):
            model = principal_components(x, latents).vae()
            result = fk.generative.compress(x.numpy(), model, file, step=STEP)
            assert np.array_equal(fk.generative.decompress(file, model), x.numpy()), "not lossless"
            sizes[latents], nets[latents] = 8 * result.file_bytes / N, result.net_bits / N
            print(f"{latents} latents: {sizes[latents]:.3f} bits for each configuration, net {nets[latents]:.3f}")
    packed = 8 * len(bz2.compress((x / STEP).to(torch.int16).numpy().tobytes(), 9)) / N
    print(f"bz2: {packed:.3f} bits; exact entropy on this grid: {bits:.3f} bits")

    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.subplots()
        error = SITES**0.5 / 2**0.5 / math.log(2) / N**0.5
        axes.axhspan(bits - error, bits + error, color=EXACT, alpha=0.15, lw=0)
        axes.axhline(bits, **DASHED, label="exact entropy on the grid, spread of the sample")
        axes.plot(list(sizes), list(sizes.values()), "o-", color=LEARNED, label="whole file")
        axes.plot(list(nets), list(nets.values()), "o-", color=WALKERS, label="without header and initial bits")
        axes.set(xlabel="normal modes that the model knows", ylabel="bits for each configuration")
        axes.set(
            ylim=(bits - 0.15, bits + 1.25), title=f"a chain of 8 oscillators, compressed (bz2: {packed:.1f} bits)"
        )
        axes.legend()
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / "entropy_of_configurations.png", dpi=DPI)
    print(f"figure in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "figures")
