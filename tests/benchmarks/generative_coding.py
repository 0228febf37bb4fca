"""Bits-back coding: the rows of the generative benchmark on real compressed sizes.

    python tests/benchmarks/generative.py --only coding-digits coding-mnist coding-markov coding-chain

Every row decodes what it coded and compares it with the data.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))

from generative import Measured, at_most, harmonic_chain, within

from fkdrift.generative import compress, decompress
from fkdrift.generative.chain import log_ratio
from fkdrift.generative.coding.compression import Compression
from fkdrift.generative.linear import principal_components
from fkdrift.runs.learning import learn

OTHERS: dict[str, Callable[[bytes], bytes]] = {
    "bz2": lambda data: bz2.compress(data, 9),
    "lzma": lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME),
    "gzip": lambda data: gzip.compress(data, 9),
}
N_DRAWS = 20


def coded(x: np.ndarray, model: nn.Module, step: float | None = None) -> tuple[Compression, float]:
    """What compressing gave, and the seconds that decompressing took; fails if the data are not the same."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.fkdz"
        compress(x[:64], model, path, step=step)  # warm
        result = compress(x, model, path, step=step)
        started = time.perf_counter()
        y = decompress(path, model)
        seconds = time.perf_counter() - started
    assert np.array_equal(y, x if step is None else (np.rint(x / step) * step).astype(x.dtype))
    return result, seconds


def images(model: str, data: str, **settings: object) -> Iterator[Measured]:
    """Test images with a model that never saw them: rates against the bound, and against other compressors."""
    learned = learn(model, data, progress=False, **settings)
    test = learned.data.test
    result, seconds = coded(test.numpy().astype(np.uint8), learned.model)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(5)
        exact = learned.model.double()
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
    yield Measured(
        "MB/s, one byte per component", f"in {_speed(test, result.seconds)}, out {_speed(test, seconds)}", "", True
    )


def _speed(x: torch.Tensor, seconds: float) -> str:
    return f"{x.numel() / 1e6 / seconds:.2f}"


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


MNIST = {"latents": 40, "width": 400, "n_updates": 6000}
ROWS = {
    "coding-chain": chain_entropy,
    "coding-digits": lambda: images("vae", "digits", latents=10, width=200, n_updates=2000),
    "coding-mnist": lambda: images("vae", "mnist5k", **MNIST),
    "coding-markov": lambda: images("markov", "mnist5k", upper=(20,), **MNIST),
}
