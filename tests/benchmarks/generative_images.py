"""Images by a VAE and by a hierarchy of the same size: rows of the generative benchmark.

    python tests/benchmarks/generative.py --only mnist-hierarchy coding-mnist coding-markov

Settings were chosen on a tenth of the training data; the models here learn from all of them.  Rows of one call share
their models.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterator

from generative import Measured, at_most

from fkdrift.numerics.estimates import from_walkers
from fkdrift.runs.learning import Learning, learn

REFINE = 8
"""Steps of every posterior."""

MNIST = {
    "vae": {"latents": 40, "width": 435, "n_updates": 9000, "validation": 0.0, "warm_up": 0.3},
    "markov": {"latents": 40, "width": 400, "upper": (20,), "n_updates": 9000, "validation": 0.0},
}
DIGITS = {"latents": 12, "width": 400, "depth": 3, "weight_decay": 0.4, "n_updates": 900, "average": 0.99,
          "validation": 0.0}  # fmt: skip
DIGITS_HIERARCHY = {**DIGITS, "latents": 24, "upper": (12, 6), "upper_width": (100, 50)}


@functools.cache
def trained(model: str, data: str) -> tuple[Learning, float]:
    """A model of these images, and the CPU seconds that it took."""
    settings = MNIST[model] if data == "mnist5k" else DIGITS if model == "vae" else DIGITS_HIERARCHY
    started = time.process_time()
    return learn(model, data, progress=False, **settings), time.process_time() - started


def hierarchy(data: str, limit: float) -> Iterator[Measured]:
    """-ELBO of images that were not learned from, in bits per component, by the encoder alone and refined."""
    found = {}
    for model in ("vae", "markov"):
        learned, seconds = trained(model, data)
        one_bit = learned.data.size * math.log(2)
        n = sum(parameter.numel() for parameter in learned.model.parameters())
        yield Measured(f"{model}: parameters", f"{n:,}", "", True)
        yield Measured(f"{model}: training, CPU seconds", f"{seconds:.0f}", "", True)
        train = learned.result["free_energy"]["train"]["mean"] / one_bit
        yield Measured(f"{model}: -ELBO of training data", f"{train:.4f}", "", True)
        for refine in (0, REFINE):
            found[model, refine] = F = -learned.bound(learned.data.test, refine=refine)
            name = f"{model}: -ELBO" if refine == 0 else f"{model}: -ELBO, posteriors refined by {refine} steps"
            error = from_walkers(F).error / one_bit
            name, bits = f"{name}, +- {error:.1g}", F.mean().item() / one_bit
            yield at_most(name, bits, limit) if model == "markov" else Measured(name, f"{bits:.5g}", "", True)
        importance = learned.result["importance_weighted"]
        name = f"{model}: IWAE, {importance['samples']} samples"
        yield Measured(name, f"{importance['mean'] / one_bit:.4f}", "", True)
    for refine in (0, REFINE):
        difference = from_walkers(found["markov", refine] - found["vae", refine])
        name = f"markov - vae, refined by {refine}, nats, +- {difference.error:.1g}"
        yield at_most(name, difference.mean, -2 * difference.error)


ROWS = {
    "mnist-hierarchy": lambda: hierarchy("mnist5k", 0.145),
    "digits-hierarchy": lambda: hierarchy("digits", 1.85),
}
