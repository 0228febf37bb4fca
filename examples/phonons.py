"""Phonons of a harmonic chain, found by an autoencoder in configurations of its ground state.

    python examples/phonons.py [folder]

Eight masses between two walls, each in a shallow well and tied to its neighbours, are solved by `fk.solve`.  A linear
VAE with a diagonal encoder then reads samples of |psi|^2.  With a decoder of variance s2, unit i can carry
ln(lambda_i / s2) / 2 nats, where lambda_i = 1 / (2 omega_i) is the variance of a normal mode, and nothing where
lambda_i < s2: the modes that fluctuate more than s2 appear one by one as the columns of the decoder.

Writes phonons.png (by default to docs/figures).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor

import fkdrift as fk
from fkdrift.figures.ground_state import save_figures
from fkdrift.figures.palette import EXACT, LEARNED, STYLE
from fkdrift.generative.data.datasets import dataset
from fkdrift.generative.diagnostics import latent_use, overlaps
from fkdrift.hamiltonian.potential import Potential
from fkdrift.hamiltonian.trial_function import Derivatives, Term, TrialFunction

N, WELL, SPRING, NOISE = 8, 0.2, 0.9, 0.4
K = (WELL + 2 * SPRING) * torch.eye(N, dtype=torch.float64)
K -= SPRING * (torch.ones(N - 1, dtype=torch.float64).diag(1) + torch.ones(N - 1, dtype=torch.float64).diag(-1))


class HarmonicApproximation(Term):
    """W = -x K^(1/2) x / 2: what any chain with these springs looks like near its minimum, and exact for this one."""

    def __call__(self, r: Tensor) -> Derivatives:
        squares, modes = torch.linalg.eigh(K)
        S = (modes * squares.sqrt() @ modes.T).to(r)
        x = r[:, 0]
        return Derivatives(-(x @ S * x).sum(-1) / 2, -(x @ S)[:, None], -S.trace().expand(len(r), 1))


@dataclass(frozen=True)
class Chain(Potential):
    """V = x K x / 2 for displacements x, one point in eight dimensions."""

    n_particles: int = 1
    n_dims: int = N

    def __call__(self, r: Tensor) -> Tensor:
        x = r[:, 0]
        return (x @ K.to(x) * x).sum(-1) / 2

    @property
    def trial_function(self) -> TrialFunction:
        return TrialFunction((HarmonicApproximation(),))


def main(folder: Path) -> None:
    squares, modes = torch.linalg.eigh(K)
    variances = 1 / (2 * squares.sqrt())
    state = fk.solve(Chain(), seed=0, settings=fk.Settings(n_updates=30, n_blocks=40))
    print(f"ground state: E = {state.energy}, exactly {squares.sqrt().sum() / 2:.5f}")

    x = state.sample(50_000).flatten(1)
    settings = {"latents": 5, "network": "linear", "noise": NOISE**0.5, "batch_size": 1000, "learning_rate": 0.01}
    learned = fk.generative.learn("vae", dataset(x, name="chain"), n_updates=2500, dtype="float64", **settings)

    use = latent_use(learned.model, learned.data.train, torch.Generator().manual_seed(0))
    order = use.unit_kl.argsort(descending=True)
    columns = learned.model.decoder.network.last.weight.detach()[:, order]
    found = overlaps(columns, modes)
    exact = (variances / NOISE).log().clamp_min(0) / 2
    print("mode   KL (nats)   exact    overlap of the column with the mode")
    for k in range(4):
        print(f"{k + 1:4d}   {use.unit_kl[order[k]]:9.4f}   {exact[k]:.4f}   {found[k, k]:.4f}")

    with rc_context(STYLE):
        save_figures({"phonons": draw(modes, columns, exact, use.unit_kl[order])}, folder)
    print(f"figure in {folder}")


def draw(modes: Tensor, columns: Tensor, exact: Tensor, kl: Tensor) -> Figure:
    """Columns of the decoder on the normal modes, and the KL of each unit beside what it can be."""
    figure = Figure(figsize=(9.2, 2.7), layout="constrained")
    panels = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.2))
    sites = range(1, N + 1)
    for k, axes in enumerate(panels[:3]):
        column = columns[:, k] / columns[:, k].norm()
        column = column * torch.sign(column @ modes[:, k])
        axes.plot(sites, modes[:, k], color=EXACT, lw=4, alpha=0.45, label="normal mode")
        axes.plot(sites, column, "o", color=LEARNED, ms=5, label="column of the decoder")
        axes.set(title=f"unit {k + 1}", xlabel="site", ylim=(-0.75, 0.75))
        axes.axhline(0, color="#bbbbbb", lw=0.8, zorder=0)
    panels[0].set_ylabel("displacement")
    panels[0].legend(loc="lower center", fontsize=7.5)
    place = torch.arange(len(kl))
    panels[3].bar(place - 0.2, exact[: len(kl)], width=0.38, color=EXACT, label=r"$\ln(\lambda_i / s^2) / 2$")
    panels[3].bar(place + 0.2, kl, width=0.38, color=LEARNED, label="learned")
    panels[3].set(title="KL of each unit (nats)", xlabel="unit")
    panels[3].set_xticks(place, [str(k + 1) for k in place.tolist()])
    panels[3].grid(axis="x", visible=False)
    panels[3].legend()
    return figure


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "figures")
