"""Rows of the generative table that belong to flows: densities, a cluster, ground states."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from generative import Measured, at_least, at_most, within
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

import fkdrift as fk
from fkdrift.densities.continuous import Continuous, align, flow_matching_loss, match
from fkdrift.densities.coupling import Flow, Scale, coupling_flow
from fkdrift.densities.known_densities import Mixture, eight_gaussians, two_moons
from fkdrift.densities.symmetric import GraphField
from fkdrift.densities.zuko_density import ZukoDensity
from fkdrift.numerics.geometry import distance, pair_vectors
from fkdrift.numerics.log_weights import effective_sample_size
from fkdrift.numerics.networks import seeded
from fkdrift.training.adam import minibatch_adam
from fkdrift.training.loop import fit
from fkdrift.wavefunction.flow_start import make_wavefunction

MCMC_ENERGY = -22.543  # of the cluster below: -22.543(3) by 1,000 tempered chains


def train(model: nn.Module, loss: Callable[[Tensor, torch.Generator], Tensor], n_updates: int, rate: float) -> None:
    """Adam on fresh samples."""
    method = minibatch_adam(model, loss, n_updates=n_updates, learning_rate=rate)
    for _ in fit(method, torch.empty(0), n_updates=n_updates, generator=torch.Generator().manual_seed(0)):
        pass


def divergence(flow: Flow | ZukoDensity, exact: Mixture) -> tuple[float, float]:
    """KL(exact || flow) and its standard error from 50,000 new samples."""
    x = exact.sample(50_000, torch.Generator().manual_seed(1))
    with torch.no_grad():
        ratio = exact.log_prob(x[:]) - flow.log_prob(x.float())
    return ratio.mean().item(), ratio.std().item() / len(x) ** 0.5


def mass(flow: Flow | ZukoDensity, reach: float, n: int) -> float:
    """The integral of p over a square grid that reaches far into the tails."""
    side = torch.linspace(-reach, reach, n)
    grid = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    with torch.no_grad():
        p = torch.cat([flow.log_prob(part).exp().double() for part in grid.split(50_000)])
    return float(p.sum()) * (2 * reach / (n - 1)) ** 2


def plane(
    exact: Mixture,
    limit: float,
    reach: float,
    *,
    kind: str | None = None,
    n_updates: int = 2000,
    rate: float = 1e-2,
) -> Iterator[Measured]:
    """A density in the plane fitted with fresh samples in every batch."""
    start = exact.sample(4000, torch.Generator().manual_seed(2)).float()
    began = time.perf_counter()
    centre, spread = start.mean(0), start.std(0)
    flow = (
        coupling_flow(2, centre=centre, spread=spread, n_couplings=4, width=64)
        if kind is None
        else ZukoDensity(kind, 2, centre=centre, spread=spread, transforms=3, hidden_features=(64, 64))
    )
    train(flow, lambda _, g: -flow.log_prob(exact.sample(512, g).float()), n_updates, rate)
    seconds = time.perf_counter() - began
    kl, error = divergence(flow, exact)
    name = "own coupling flow" if kind is None else f"zuko {kind}"
    yield at_most(f"{name}: KL(exact || flow), nats, +- {error:.1g}", kl, limit)
    yield at_most(f"{name}: |Z - 1| on a grid with tails", abs(mass(flow, reach, 1201) - 1), 1e-4)
    yield at_most(f"{name}: seconds of training", seconds, 30)


def ring() -> Iterator[Measured]:
    """Eight Gaussians of width 0.5 on a ring of radius 4."""
    yield from plane(eight_gaussians(), 0.015, 15.0, n_updates=3500, rate=2e-2)


def moons() -> Iterator[Measured]:
    """Two moons with noise 0.1."""
    yield from plane(two_moons(), 0.02, 6.0)


def zuko_ring() -> Iterator[Measured]:
    """The same ring with the library's spline flow."""
    yield from plane(eight_gaussians(), 0.03, 15.0, kind="NSF", n_updates=1000, rate=5e-3)


def cluster_energy(x: Tensor) -> Tensor:
    """Four particles in the plane with double-well pairs, sum_{i<j} 0.9 (d - 4)^4 - 4 (d - 4)^2, (batch, 8)."""
    u = distance(pair_vectors(x.reshape(-1, 4, 2))) - 4
    return (0.9 * u.pow(4) - 4 * u.square()).sum(-1)


def tempered_samples(n_chains: int, n_steps: int, every: int, generator: torch.Generator) -> Tensor:
    """Metropolis chains at five temperatures that exchange; those at temperature 1, centred, after a third."""
    beta = torch.tensor([1.0, 0.7, 0.48, 0.32, 0.2])[:, None]
    step = 0.17 * beta.rsqrt()
    x = 3 * torch.randn(len(beta), n_chains, 8, generator=generator)
    U, kept = cluster_energy(x.flatten(0, 1)).reshape(len(beta), -1), []

    def chance() -> Tensor:
        return torch.rand(len(beta), n_chains, generator=generator).log()

    for k in range(n_steps):
        y = x + step[..., None] * torch.randn(x.shape, generator=generator)
        new = cluster_energy(y.flatten(0, 1)).reshape(U.shape)
        accept = chance() < beta * (U - new)
        x, U = torch.where(accept[..., None], y, x), torch.where(accept, new, U)
        if k % 5 == 0:
            i = (k // 5) % (len(beta) - 1)
            swap = chance()[0] < (beta[i] - beta[i + 1]) * (U[i] - U[i + 1])
            x[[i, i + 1]] = torch.where(swap[:, None], x[[i + 1, i]], x[[i, i + 1]])
            U[[i, i + 1]] = torch.where(swap, U[[i + 1, i]], U[[i, i + 1]])
        if k > n_steps // 3 and k % every == 0:
            kept.append(x[0].clone())
    r = torch.cat(kept).reshape(-1, 4, 2)
    return (r - r.mean(1, keepdim=True)).flatten(1)


def cluster(n_updates: int = 14_000) -> Iterator[Measured]:
    """Flow matching of matched and aligned pairs; the density of the centre of mass is a normal one in both."""
    began = time.process_time()
    g = torch.Generator().manual_seed(0)
    data = tempered_samples(1000, 6000, 40, g)
    scale = data.std()
    with seeded(0):
        field = GraphField(4, 2, width=40, reach=5.0)

    def loss(_: Tensor, g: torch.Generator) -> Tensor:
        end = data[torch.randint(len(data), (256,), generator=g)] / scale
        start = torch.randn(256, 4, 2, generator=g)
        start = (start - start.mean(1, keepdim=True)).flatten(1)
        return flow_matching_loss(field, start, align(start, match(start, end, 4), 4), g)

    train(field, loss, n_updates, 4e-3)
    seconds = time.process_time() - began
    flow = Flow(8, [Scale(torch.zeros(8), scale.expand(8)), Continuous(field, 10)])
    with torch.no_grad():
        x, log_p = flow.sample_and_log_prob(10_000, g)
    energy, centre = cluster_energy(x), x.reshape(-1, 4, 2).mean(1) / scale
    log_w = (-energy - 2 * centre.square().sum(-1) - log_p).double()
    w = log_w.softmax(0)
    mean = float((w * energy).sum())
    error = float((w * (energy - mean)).square().sum().sqrt())
    yield Measured("energy of the training data (tempered MCMC)", f"{cluster_energy(data).mean():.3f}", "", True)
    yield at_least("effective sample size, of 10,000", effective_sample_size(log_w).item(), 0.75)
    yield within(f"reweighted energy, +- {error:.2g}", mean, MCMC_ENERGY, 0.05)
    yield at_most("seconds of the CPU for sampling and training", seconds, 300)


def drop_energy(x: Tensor) -> Tensor:
    """Thirteen Lennard-Jones atoms held loosely, sum_{i<j} 2 d^-12 - 4 d^-6 + sum_i |x_i - mean|^2 / 2, (batch, 39)."""
    r = x.reshape(-1, 13, 3)
    inverse = distance(pair_vectors(r)).pow(-6)
    return (2 * inverse.square() - 4 * inverse).sum(-1) + (r - r.mean(1, keepdim=True)).square().sum((-2, -1)) / 2


def drop_samples(n_chains: int, n_steps: int, every: int, generator: torch.Generator) -> Tensor:
    """Metropolis chains at temperature 1 that move one atom at a time, centred; the second half of each."""
    corners = torch.cartesian_prod(*[torch.arange(3.0)] * 3)[: 13 * 2 : 2]
    x = (1.1 * corners)[None] + 0.02 * torch.randn(n_chains, 13, 3, generator=generator)
    U, kept = drop_energy(x.flatten(1)), []
    for k in range(13 * n_steps):
        y = x.clone()
        y[:, k % 13] += 0.12 * torch.randn(n_chains, 3, generator=generator)
        new = drop_energy(y.flatten(1))
        accept = torch.rand(n_chains, generator=generator).log() < U - new
        x, U = torch.where(accept[:, None, None], y, x), torch.where(accept, new, U)
        if k > 13 * n_steps // 2 and k % (13 * every) == 0:
            kept.append(x.clone())
    r = torch.cat(kept)
    return (r - r.mean(1, keepdim=True)).flatten(1)


def align_atoms(start: Tensor, end: Tensor, n_rounds: int = 2) -> Tensor:
    """x_1 exchanged and turned towards x_0, by assignments and rotations in turn; (batch, 39)."""
    z, r = start.reshape(-1, 13, 3), end.reshape(-1, 13, 3)
    for _ in range(n_rounds):
        order = np.stack([linear_sum_assignment(cost)[1] for cost in torch.cdist(z, r).square().numpy()])
        r = r.gather(1, torch.as_tensor(order)[..., None].expand_as(r))
        left, _, right = torch.linalg.svd(r.mT @ z)
        r = r @ (left @ right)
    return r.flatten(1)


def drop(n_updates: int = 6000, n_tested: int = 400) -> Iterator[Measured]:
    """Flow matching as for the smaller cluster; a density in 39 coordinates costs 39 backward passes a step."""
    began = time.process_time()
    g = torch.Generator().manual_seed(0)
    data = drop_samples(500, 400, 10, g)
    scale = data.std()
    with seeded(0):
        field = GraphField(13, 3, width=32, n_layers=2, reach=5.0)

    def loss(_: Tensor, g: torch.Generator) -> Tensor:
        end = data[torch.randint(len(data), (96,), generator=g)] / scale
        start = torch.randn(96, 13, 3, generator=g)
        start = (start - start.mean(1, keepdim=True)).flatten(1)
        return flow_matching_loss(field, start, align_atoms(start, end), g)

    train(field, loss, n_updates, 4e-3)
    trained = time.process_time() - began
    flow = Flow(39, [Scale(torch.zeros(39), scale.expand(39)), Continuous(field, 10)])
    with torch.no_grad():
        drawn = [flow.sample_and_log_prob(50, g) for _ in range(n_tested // 50)]
    x, log_p = (torch.cat(each) for each in zip(*drawn, strict=True))
    energy, centre = drop_energy(x), x.reshape(-1, 13, 3).mean(1) / scale
    log_w = (-energy - 13 * centre.square().sum(-1) / 2 - log_p).double()
    w = log_w.softmax(0)
    mean = float((w * energy).sum())
    error = float((w * (energy - mean)).square().sum().sqrt())
    yield Measured("energy of the training data (MCMC)", f"{drop_energy(data).mean():.3f}", "", True)
    yield Measured("median energy of the flow's samples", f"{energy.median():.3f}", "", True)
    yield Measured(f"effective sample size, of {n_tested}", f"{effective_sample_size(log_w):.3g}", "", True)
    yield Measured(f"reweighted energy, +- {error:.2g}", f"{mean:.3f}", "", True)
    yield at_most("seconds of the CPU for sampling and training", trained, 600)


def ground_state(
    potential: object, exact: float, relative: float, limit: float | None, **settings: object
) -> Iterator[Measured]:
    """A flow ground state by fk.solve."""
    began = time.perf_counter()
    state = fk.solve(potential, settings=fk.Settings(method="flow", **settings), progress=False)
    seconds = time.perf_counter() - began
    energy = state.energy
    yield at_most(f"E = {energy}, relative deviation from {exact:.7g}", abs(energy.mean / exact - 1), relative)
    yield at_least("standard errors from E_0, not below", energy.deviation(exact), -3)
    yield Measured(
        "seconds", f"{seconds:.0f}", "" if limit is None else f"<= {limit:g}", limit is None or seconds <= limit
    )


def well() -> Iterator[Measured]:
    """(x^2 - 1.5)^2."""
    yield from ground_state("(x**2-1.5)**2", 1.35545373, 1e-3 / 1.355, 60)


def chain() -> Iterator[Measured]:
    """Eight coupled oscillators between walls, V = (0.2 sum x^2 + 0.9 sum (x_{k+1} - x_k)^2) / 2."""
    exact = 0.5 * sum(math.sqrt(0.2 + 1.8 * (1 - math.cos(math.pi * k / 9))) for k in range(1, 9))

    def harmonic_chain(r: Tensor) -> Tensor:
        x = torch.nn.functional.pad(r[:, :, 0], (1, 1))
        return 0.5 * (0.2 * x.square().sum(-1) + 0.9 * x.diff(dim=-1).square().sum(-1))

    yield from ground_state(fk.FunctionPotential(harmonic_chain, n_particles=8), exact, 2e-3, None)


def bosons() -> Iterator[Measured]:
    """Four bosons in the plane that repel through a Gaussian, g = 6, by a symmetric flow on the trial function."""
    potential = fk.load_potential("gaussian_bosons", n_particles=4, g=6.0)
    yield from ground_state(potential, 6.522425, 1e-3, None, n_updates=30, n_blocks=800)


def atoms() -> Iterator[Measured]:
    """Hydrogen and helium, whose cusps come from the trial function; within 1 mHa."""
    yield from ground_state("hydrogen", -0.5, 1e-3 / 0.5, None)
    many = {"n_walkers": 512, "n_updates": 40, "n_blocks": 2500}
    yield from ground_state("helium", -2.90372437, 1e-3 / 2.9037, None, **many)


def warm_start() -> Iterator[Measured]:
    """A drift for helium from samples of a flow, against none: CPU seconds until the estimated excess is 1 mHa."""
    began = time.process_time()
    potential = fk.load_potential("helium")
    flow = make_wavefunction(fk.System(potential, torch.float64))
    r = flow.sample(10_000, torch.Generator().manual_seed(0)).float()
    system = fk.System(potential)
    warm = fk.drift_from_samples(r, system)
    prepared = time.process_time() - began
    with seeded(0):
        cold = fk.NeuralWavefunction(system)
    for name, drift, before in (("from the trial function", cold, 0.0), ("from samples of a flow", warm, prepared)):
        method = fk.NaturalGradient(fk.Process(drift, system), time_scale=system.time_scale)
        began = time.process_time()
        for _ in fk.fit(method, r[:1024], n_updates=60, generator=torch.Generator().manual_seed(1), tolerance=1e-3):
            pass
        seconds = time.process_time() - began
        found = f"{before + seconds:.1f}, {before:.1f} of them before training"
        yield Measured(f"{name}, CPU seconds", found, "", True)


ROWS: dict[str, Callable[[], Iterator[Measured]]] = {
    "flow_8gaussians": ring,
    "flow_moons": moons,
    "flow_zuko": zuko_ring,
    "flow_dw4": cluster,
    "flow_lj13": drop,
    "flow_well": well,
    "flow_chain": chain,
    "flow_bosons": bosons,
    "flow_atoms": atoms,
    "flow_start": warm_start,
}
