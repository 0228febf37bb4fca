"""Bits-back coding: the rows of the generative benchmark on real compressed sizes.

    python tests/benchmarks/generative.py --only coding-digits coding-mnist coding-markov coding-bytes coding-chain

Every row decodes what it coded and compares it with the data.  Speeds are those of one CPU core, of data with a byte
for each component.
"""

from __future__ import annotations

import bz2
import copy
import gzip
import lzma
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))

from generative import Measured, at_least, at_most, harmonic_chain, within
from generative_images import REFINE, trained

from fkdrift.generative import compress, decompress
from fkdrift.generative.chain import log_ratio
from fkdrift.generative.coding.compression import Compression
from fkdrift.generative.data.datasets import cache_folder, load_data
from fkdrift.generative.linear import principal_components
from fkdrift.runs.learning import Learning, learn

OTHERS: dict[str, Callable[[bytes], bytes]] = {
    "bz2": lambda data: bz2.compress(data, 9),
    "lzma": lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME),
    "gzip": lambda data: gzip.compress(data, 9),
}
N_DRAWS, N_REFINED = 20, 200


def coded(x: np.ndarray, model: nn.Module, step: float | None = None) -> tuple[Compression, str]:
    """What compressing gave, and its speed in both directions; fails if the data do not come back the same."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.fkdz"
        compress(x[:64], model, path, step=step)  # warm
        times = [time.process_time()]
        result = compress(x, model, path, step=step)
        times.append(time.process_time())
        y = decompress(path, model)
        times.append(time.process_time())
    speeds = [f"{x.size / 1e6 / (after - before):.2f}" for before, after in pairwise(times)]
    assert np.array_equal(y, x if step is None else (np.rint(x / step) * step).astype(x.dtype))
    return result, f"in {speeds[0]}, out {speeds[1]}"


def images(learned: Learning) -> Iterator[Measured]:
    """Test images with a model that never saw them: rates against the bound, and against other compressors."""
    test = learned.data.test
    result, speed = coded(test.numpy().astype(np.uint8), learned.model)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(5)
        exact = copy.deepcopy(learned.model).double()
        nats = torch.stack([log_ratio(exact, test.double(), generator) for _ in range(N_DRAWS)]).mean().item()
    bound = nats / math.log(2) / test.shape[1]
    bits = math.ceil(math.log2(learned.data.n_levels or 2))
    plain = np.packbits(test.numpy().astype(np.uint8)) if bits == 1 else test.numpy().astype(np.uint8)
    best = {name: 8 * len(pack(plain.tobytes())) / test.numel() for name, pack in OTHERS.items()}
    yield within("net rate / sampled -ELBO", result.net_rate / bound, 1.0, 0.005)
    yield Measured("net rate, bits per component", f"{result.net_rate:.5f}", "", True)
    for name, rate in best.items():
        yield at_most(f"whole file, bits (below {name})", result.gross_rate, round(rate, 4))
    yield Measured("initial bits", f"{result.initial_bits}", "", True)
    yield Measured("MB per CPU second", speed, "", True)


def refined(learned: Learning) -> Iterator[Measured]:
    """The first test images with posteriors that are refined for each."""
    test, n = learned.data.test[:N_REFINED], learned.data.size * math.log(2)
    with tempfile.TemporaryDirectory() as folder:
        result = compress(test.numpy().astype(np.uint8), learned.model, Path(folder) / "x.fkdz", refine=REFINE)
        assert np.array_equal(decompress(Path(folder) / "x.fkdz", learned.model), test.numpy())
    bounds = [-learned.bound(test, refine=refine).mean().item() / n for refine in (REFINE, 0)]
    yield within(f"{N_REFINED} images, refined: net rate / -ELBO", result.net_rate / bounds[0], 1.0, 0.01)
    yield at_most("  net rate, bits (below -ELBO of the encoder)", result.net_rate, round(bounds[1], 5))


def grey_images() -> Iterator[Measured]:
    """Images of 28 x 28 bytes, briefly trained on: the speed is the point."""
    load_data("mnist5k")  # puts a copy there
    with np.load(cache_folder() / "mnist5k.npz") as kept:
        x = kept["images"].reshape(-1, 28, 28)
    for decoder in ("laplace", "beta-binomial"):
        learned = learn("vae", x, decoder=decoder, n_updates=150, progress=False)
        result, speed = coded(learned.data.test.numpy().astype(np.uint8), learned.model)
        bound = learned.result["free_energy"]["test"]["bits_per_component"]
        yield within(f"{decoder}: net rate / -ELBO", result.net_rate / bound, 1.0, 0.01)
        yield Measured(f"{decoder}: net rate, bits per component", f"{result.net_rate:.4f}", "", True)
        if decoder == "laplace":
            slower = min(float(part.split()[-1]) for part in speed.split(","))
            yield at_least(f"{decoder}: MB per CPU second, {speed}", slower, 1.0)
        else:
            yield Measured(f"{decoder}: MB per CPU second", speed, "", True)


def chain_entropy() -> Iterator[Measured]:
    """4,000 configurations of a harmonic chain on a grid of 1/64: their real size against their cross-entropy."""
    modes, variances = harmonic_chain()
    noise = torch.randn(4000, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    step = 2.0**-6
    x = ((noise * variances.sqrt() @ modes.T) / step).round() * step
    model = principal_components(x, 7)
    vae = model.vae()
    result, _ = coded(x.numpy(), vae, step)
    bits = result.net_bits / len(x)
    cross = -model.log_prob(x).mean().item() / math.log(2) - 8 * math.log2(step)
    exact = 4 * math.log(2 * math.pi * math.e) + variances.log().sum().item() / 2
    yield within("bits per configuration / cross-entropy", bits / cross, 1.0, 5e-4)
    yield Measured("bits per configuration", f"{bits:.4f} ({cross:.4f})", "", True)
    found = (bits + 8 * math.log2(step)) * math.log(2)
    yield within("entropy from the file, nats", found, round(exact, 4), 4 * (8 / 2 / len(x)) ** 0.5)
    raw = (x / step).round().to(torch.int16).numpy().tobytes()
    yield at_most(
        "whole file, bits (below bz2)", 8 * result.file_bytes / len(x), 8 * len(bz2.compress(raw, 9)) / len(x)
    )


ROWS = {
    "coding-chain": chain_entropy,
    "coding-digits": lambda: images(learn("vae", "digits", latents=10, width=200, n_updates=2000, progress=False)),
    "coding-mnist": lambda: images(trained("vae", "mnist5k")[0]),
    "coding-markov": lambda: images(trained("markov", "mnist5k")[0]),
    "coding-refined": lambda: refined(trained("markov", "mnist5k")[0]),
    "coding-bytes": grey_images,
}
