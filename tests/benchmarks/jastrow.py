"""The variational energy of a helium cluster with a Jastrow function of two parameters, to set the network's against.

    python tests/benchmarks/jastrow.py                                         20 atoms, HFD-B(HE)
    python tests/benchmarks/jastrow.py --n-particles 10 --potential LM2M2

    psi = prod_{i<j} exp( -(b / r_ij)^5 / 2 - p r_ij )

It shares nothing with fkdrift but V: Langevin moves with their acceptance, derivatives by hand, b and p by Nelder and
Mead's method on reweighted samples, drawn anew in every round.
"""

from __future__ import annotations

import argparse

import torch
from scipy.optimize import minimize
from torch import Tensor

import fkdrift as fk

N_WALKERS, N_MOVES, N_SAMPLES, N_ROUNDS, N_FINAL = 512, 60, 5, 6, 60
LEAST_SHARE = 0.3  # of the samples, effectively, that reweighting may come down to


class Jastrow:
    """log psi of walkers (batch, particle, 3), and what it takes to move them and to average E_L."""

    def __init__(self, potential: fk.Potential) -> None:
        self.potential = potential
        self.half = 0.5 / float(torch.as_tensor(potential.mass).flatten()[0])
        self.pairs = torch.triu_indices(potential.n_particles, potential.n_particles, 1)

    def derivatives(self, r: Tensor, b: float, p: float) -> tuple[Tensor, Tensor, Tensor]:
        """log psi (batch,), its gradient, and its Laplacian (batch,)."""
        i, j = self.pairs
        x = r[:, i] - r[:, j]
        d = x.norm(dim=-1)
        slope, bend = 2.5 * b**5 / d**6 - p, -15 * b**5 / d**7
        along = (slope / d)[..., None] * x
        gradient = torch.zeros_like(r).index_add_(1, i, along).index_add_(1, j, -along)
        return (-0.5 * (b / d) ** 5 - p * d).sum(-1), gradient, 2 * (bend + 2 * slope / d).sum(-1)

    def local_energy(self, r: Tensor, b: float, p: float) -> Tensor:
        """V - (hbar^2 / 2 m) (lap log psi + |grad log psi|^2), (batch,)."""
        _, gradient, laplacian = self.derivatives(r, b, p)
        return self.potential(r) - self.half * (laplacian + gradient.square().sum((-2, -1)))

    def move(self, r: Tensor, b: float, p: float, dt: float, generator: torch.Generator) -> tuple[Tensor, float]:
        """N_MOVES Langevin moves, and the share of those that were accepted."""
        D, accepted = 2 * self.half * dt, 0.0
        u, g, _ = self.derivatives(r, b, p)
        for _ in range(N_MOVES):
            new = r + D * g + D**0.5 * torch.randn(r.shape, generator=generator, dtype=r.dtype)
            u_new, g_new, _ = self.derivatives(new, b, p)
            back, there = (r - new - D * g_new).square().sum((-2, -1)), (new - r - D * g).square().sum((-2, -1))
            log_ratio = 2 * (u_new - u) - (back - there) / (2 * D)
            yes = torch.rand(len(r), generator=generator, dtype=r.dtype).log() < log_ratio
            r, g, u = (
                torch.where(yes.view(-1, *[1] * (a.ndim - 1)), a, c) for a, c in ((new, r), (g_new, g), (u_new, u))
            )
            accepted += yes.double().mean().item() / N_MOVES
        return r - r.mean(1, keepdim=True), accepted


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n-particles", type=int, default=20)
    parser.add_argument("--potential", default="HFD-B(HE)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    potential = fk.load_potential("noble_gas", n_particles=arguments.n_particles, potential=arguments.potential)
    psi, generator = Jastrow(potential), torch.Generator().manual_seed(0)
    r = fk.System(potential, torch.float64).initial_walkers(N_WALKERS, generator)
    b, p, dt = 2.9, 0.6 / arguments.n_particles, 0.008

    def samples(n: int) -> list[Tensor]:
        nonlocal r, dt
        found = []
        for _ in range(n):
            r, accepted = psi.move(r, b, p, dt, generator)
            dt *= 1.15 if accepted > 0.6 else 0.87
            found.append(r)
        return found

    for _ in range(N_ROUNDS):
        drawn = torch.cat(samples(N_SAMPLES + 1)[1:])
        before = psi.derivatives(drawn, b, p)[0]

        def energy(z: tuple[float, float], drawn: Tensor = drawn, before: Tensor = before) -> float:
            w = (2 * (psi.derivatives(drawn, *z)[0] - before)).softmax(0)
            if z[0] <= 0 or z[1] <= 0 or 1 / w.square().sum() < LEAST_SHARE * len(drawn):
                return 1e9
            return float((w * psi.local_energy(drawn, *z)).sum())

        start = [[b, p], [1.03 * b, p], [b, 1.15 * p]]
        b, p = minimize(energy, start[0], method="Nelder-Mead", options={"maxiter": 40, "initial_simplex": start}).x
    samples(2)
    E = torch.stack([psi.local_energy(each, b, p) for each in samples(N_FINAL)]).mean(0)
    print(f"b = {b:.3f}, p = {p:.4f}: E = {E.mean():.3f} +- {E.std() / N_WALKERS**0.5:.3f}")


if __name__ == "__main__":
    main()
