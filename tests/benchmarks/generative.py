"""The generative models against what is known exactly, and on images: a table of measured values and targets.

    OMP_NUM_THREADS=1 python tests/benchmarks/generative.py [--only NAME ...] [--list]

A row is a function that gives lines with a name, what was measured, a target and whether it is met; rows of other
models are in generative_*.py beside this file, each with a dictionary ROWS like the one below.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from fkdrift.generative.chain import generate, log_ratio, path_log_ratio
from fkdrift.generative.data.datasets import Dataset, load_data
from fkdrift.generative.diagnostics import latent_use, overlaps
from fkdrift.generative.linear import LinearChain, principal_components
from fkdrift.runs.learning import learn


@dataclass(frozen=True)
class Measured:
    """One line of the table.

    Args:
        name: what was measured.
        measured: the value in words.
        target: what is asked for, in words; empty for a number that is only shown.
        passed: whether it is met.
    """

    name: str
    measured: str
    target: str
    passed: bool


def at_most(name: str, value: float, limit: float) -> Measured:
    return Measured(name, f"{value:.5g}", f"<= {limit:g}", value <= limit)


def at_least(name: str, value: float, limit: float) -> Measured:
    return Measured(name, f"{value:.5g}", f">= {limit:g}", value >= limit)


def within(name: str, value: float, exact: float, tolerance: float) -> Measured:
    return Measured(name, f"{value:.5g}", f"{exact:g} +- {tolerance:g}", abs(value - exact) <= tolerance)


# -- rows --------------------------------------------------------------------------------------------------------------


def exact_components() -> Iterator[Measured]:
    """Probabilistic principal components of the digits, 8 latents, in closed form."""
    x = load_data("digits").train / 16
    exact = principal_components(x, 8)
    ratios = log_ratio(exact.vae(), x, torch.Generator().manual_seed(0), n_samples=16)
    evidence = exact.log_prob(x)
    yield at_most("|ELBO - log likelihood|, nats", abs(ratios.mean() + evidence.mean()).item(), 1e-10)
    yield at_most("spread of one weight, nats", (ratios + evidence).abs().max().item(), 1e-10)


def learned_components(encoder: str) -> Iterator[Measured]:
    """A linear VAE trained on them with a learned noise."""
    data = load_data("digits")
    scaled = Dataset("digits / 16", data.train / 16, data.test / 16, shape=data.shape)
    learned = learn("vae", scaled, encoder=encoder, network="linear", latents=8, n_updates=6000, batch_size=200,
                    learning_rate=5e-3, dtype="float64", progress=False)  # fmt: skip
    F = learned.free_energy(learned.data.train, n_draws=100).mean().item()
    best = principal_components(learned.data.train, 8).log_prob(learned.data.train).mean().item()
    yield at_most(f"log likelihood - ELBO, {encoder}, nats", best + F, 0.04 if encoder == "diagonal" else 0.02)


def harmonic_chain(n: int = 8) -> tuple[Tensor, Tensor]:
    """Normal modes (n, n) and variances 1 / (2 omega), falling, of a chain of n unit masses between walls.

    Each is in a well of frequency sqrt(0.2), and joined to its neighbours by springs of strength 0.9.
    """
    spring = torch.full((n - 1,), 0.9, dtype=torch.float64)
    K = 2.0 * torch.eye(n, dtype=torch.float64) - spring.diag(1) - spring.diag(-1)
    squares, modes = torch.linalg.eigh(K)
    return modes, 1 / (2 * squares.sqrt())


def phonons() -> Iterator[Measured]:
    """A linear VAE with a fixed noise, s2 = 0.4, on configurations of the chain: its units are the soft modes."""
    modes, variances = harmonic_chain()
    x = torch.randn(100_000, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    data = Dataset("chain", x * variances.sqrt() @ modes.T, (x * variances.sqrt() @ modes.T)[:1000], shape=(8,))
    learned = learn("vae", data, network="linear", latents=6, noise=0.4**0.5, batch_size=1000, n_updates=3000,
                    learning_rate=0.01, dtype="float64", progress=False)  # fmt: skip
    use = latent_use(learned.model, data.train, torch.Generator().manual_seed(0))
    order = use.unit_kl.argsort(descending=True)
    for k, exact in enumerate((0.4055, 0.2306, 0.0877, 0.0)):
        yield within(f"KL of unit {k + 1}, nats", use.unit_kl[order[k]].item(), exact, 0.005)
    found = overlaps(learned.model.decoder.kernel.network.last.weight[:, order[:3]], modes[:, :3])
    yield at_least("least overlap with its mode", found.diagonal().min().item(), 0.99)


def linear_chain() -> Iterator[Measured]:
    """A chain of three latents, solved exactly: -log weight = -log p(x) for every path."""
    g, steps, sizes = torch.Generator().manual_seed(0), [], (6, 5, 4, 3)
    for below, above in pairwise(sizes):
        A, B = (torch.randn(below, m, dtype=torch.float64, generator=g) for m in (above, below))
        steps.append((A, B[0], B @ B.T / below + 0.1 * torch.eye(below, dtype=torch.float64)))
    chain = LinearChain(steps)
    model = chain.autoencoder()
    path = generate(model, 1000, g)[::-1]
    error = path_log_ratio(model, path) + chain.log_prob(path[0])
    yield at_most("T = 3: |log weight - log p(x)|", error.abs().max().item(), 1e-10)


ROWS: dict[str, Callable[[], Iterable[Measured]]] = {
    "components": exact_components,
    "components-diagonal": lambda: learned_components("diagonal"),
    "components-full": lambda: learned_components("full"),
    "phonons": phonons,
    "chain": linear_chain,
}


# -- table -------------------------------------------------------------------------------------------------------------


def all_rows() -> dict[str, Callable[[], Iterable[Measured]]]:
    """These rows, and those of the files beside this one."""
    rows = dict(ROWS)
    sys.path.insert(0, str(Path(__file__).parent))
    for file in sorted(Path(__file__).parent.glob("generative_*.py")):
        rows |= importlib.import_module(file.stem).ROWS
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="rows to run")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = all_rows()
    if arguments.list:
        print("\n".join(rows))
        return
    unknown = set(arguments.only or ()) - set(rows)
    if unknown:
        parser.error(f"no rows called {', '.join(sorted(unknown))}: choose from {', '.join(rows)}")
    failed = False
    for name in arguments.only or rows:
        wall, cpu = time.perf_counter(), time.process_time()
        for line in rows[name]():
            failed |= not line.passed
            mark = "" if not line.target else "passed" if line.passed else "MISSED"
            seconds = f"{time.perf_counter() - wall:.0f} s ({time.process_time() - cpu:.0f} s CPU)"
            print(f"{name:<22}{line.name:<66}{line.measured:<26}{line.target:<20}{mark:<8}{seconds}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
