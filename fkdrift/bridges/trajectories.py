"""The trajectories that led to measured outcomes, and how probable the outcomes were.

A drift v(t, r) is learned so that the process dr = (h + v) dt + sigma dB follows the reference measure conditioned on
the measurements (`Conditioned`).  Both losses are functionals of log w, the log weight of a path:

    kl              -E_v[log w]         = KL(P_v || P*) - log Z,   differentiated through the trajectories
    log-variance    Var[log w]          over trajectories held fixed; 0, with no noise, at the optimum

Then E_v[log w] <= log Z, and log Z = log E_v[w] whatever v, extrapolated to zero step on shared Brownian paths.

Reference: N. Nuesken and L. Richter, Partial Differ. Equ. Appl. 2, 48 (2021).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fkdrift.bridges.conditioned import Conditioned, GuidedDrift, Weighted
from fkdrift.errors import BadParameter
from fkdrift.numerics.estimates import Estimate, extrapolated_log_mean, from_walkers, log_mean
from fkdrift.numerics.log_weights import effective_sample_size, log_variance
from fkdrift.paths.evolution import Detached, Path, ScoreFree
from fkdrift.tensor_types import History, PerWalker
from fkdrift.training.adam import Adam, minibatch_adam
from fkdrift.training.loop import fit

LOSSES = ("kl", "log_variance")
STEPS = 128  # of the coarse paths by default; training takes half, the fine paths twice as many
CHUNK = 4096  # paths at a time: more would not fit a processor's cache


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Weighted trajectories, and what they say about the measurements.

    Args:
        log_evidence: log Z, importance weighted and extrapolated to zero step.
        elbo: E_v[log w] at steps dt / 2, a lower bound on log Z at these steps.
        by_step: log Z at the steps (dt, dt / 2), before the extrapolation.
        dt: the longer of these steps.
        path: at the steps dt, made with steps dt / 2.
        log_weight: of each path, (batch,).
    """

    log_evidence: Estimate
    elbo: Estimate
    by_step: tuple[Estimate, Estimate]
    dt: float
    path: Path
    log_weight: PerWalker

    @property
    def weights(self) -> PerWalker:
        """Normalised, (batch,) float64."""
        return self.log_weight.double().softmax(0)

    @property
    def efficiency(self) -> float:
        """The effective fraction of the paths, 1 / (n sum w^2): 1 if the learned process is the conditioned one."""
        return effective_sample_size(self.log_weight.double()).item()

    def mean(self) -> Tensor:
        """E[r(t) | measurements], (time, particle, dim)."""
        return torch.einsum("b,tbnd->tnd", self.weights.to(self.path.positions), self.path.positions)

    def quantiles(self, levels: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95)) -> Tensor:
        """Quantiles of each coordinate at each time given the measurements, (level, time, particle, dim)."""
        r, order = self.path.positions.sort(1)
        cumulative = self.weights.to(r)[order].cumsum(1)
        found = []
        for level in levels:
            k = (cumulative < level).sum(1, keepdim=True).clamp_max(r.shape[1] - 1)
            found.append(r.gather(1, k)[:, 0])
        return torch.stack(found)

    def sample(self, n: int, generator: torch.Generator) -> History:
        """n trajectories of equal weight, (time, n, particle, dim), by systematic resampling."""
        points = (torch.arange(n, dtype=torch.float64) + torch.rand(n, generator=generator, dtype=torch.float64)) / n
        chosen = torch.searchsorted(self.weights.cumsum(0).cpu(), points).clamp_max(len(self.log_weight) - 1)
        return self.path.positions[:, chosen.to(self.path.positions.device)]


def free_energy(
    problem: Conditioned, drift: nn.Module, n_paths: int, *, dt: float, generator: torch.Generator, loss: str = "kl"
) -> Tensor:
    """-log w of new paths, (batch,), with the gradient of the loss in its mean.

    Args:
        problem, drift: what to condition on, and v(t, r).
        n_paths, dt, generator: of the paths.
        loss: "kl" or "log_variance".

    Raises:
        BadParameter: there is no such loss.
    """
    if loss not in LOSSES:
        raise BadParameter(f"loss = {loss!r} is not allowed: choose from {', '.join(LOSSES)}")
    if loss == "kl":
        return -problem.follow(drift, n_paths, dt=dt, generator=generator, gradient=ScoreFree()).log_weight
    ratio = -problem.follow(drift, n_paths, dt=dt, generator=generator, gradient=Detached()).log_weight
    spread = log_variance(ratio)
    return ratio.detach() + (spread - spread.detach())


def path_adam(
    problem: Conditioned,
    drift: nn.Module,
    *,
    dt: float,
    n_updates: int = 200,
    n_paths: int = 128,
    learning_rate: float = 0.05,
    loss: str = "kl",
) -> Adam:
    """Adam on the free energy of new paths, an `Optimiser` for `fit`; its energy is -ELBO at this dt.

    Args:
        problem, drift: what to condition on, and v(t, r), such as GuidedDrift(problem).
        dt: longest step.
        n_updates, n_paths, learning_rate: of Adam.
        loss: "kl" or "log_variance".

    Example (imaginary time from one well to the other; -ELBO before and after):
        >>> from fkdrift.bridges.transition import bridge_problem
        >>> problem = bridge_problem(fk.load_potential("double_well"), -1.0, 1.0, 2.0)
        >>> method = path_adam(problem, GuidedDrift(problem), dt=1 / 4, n_updates=30)
        >>> steps = list(fit(method, torch.empty(0), n_updates=30, generator=g))
        >>> print(steps[0].energy, steps[-1].energy)
        4.3(2) 3.88(15)
    """

    def of_new_paths(_: Tensor, generator: torch.Generator) -> Tensor:
        return free_energy(problem, drift, n_paths, dt=dt, generator=generator, loss=loss)

    return minibatch_adam(drift, of_new_paths, n_updates=n_updates, learning_rate=learning_rate)


def weigh(
    problem: Conditioned, drift: nn.Module, n_paths: int, *, dt: float, generator: torch.Generator
) -> Trajectories:
    """Sample trajectories and weigh them, with steps dt and dt / 2 on the same Brownian paths.

    Args:
        problem, drift: what to condition on, and v(t, r); log Z does not depend on v, its error does.
        n_paths: independent trajectories.
        dt: longest step.
        generator: source of the noise.
    """
    return collect(list(weigh_in_parts(problem, drift, n_paths, dt=dt, generator=generator)), dt)


def weigh_in_parts(
    problem: Conditioned, drift: nn.Module, n_paths: int, *, dt: float, generator: torch.Generator
) -> Iterator[tuple[Tensor, Weighted]]:
    """Some thousand paths at a time: their log weights at steps dt, and all about them at dt / 2; for `collect`."""
    for n in [CHUNK] * (n_paths // CHUNK) + [n_paths % CHUNK] * (n_paths % CHUNK > 0):
        state = generator.get_state()
        with torch.no_grad():
            coarse = problem.follow(drift, n, dt=dt, generator=generator, refine=1, finest=2)
            generator.set_state(state)
            fine = problem.follow(drift, n, dt=dt, generator=generator, refine=2, finest=2)
        yield coarse.log_weight, fine


def collect(parts: Sequence[tuple[Tensor, Weighted]], dt: float) -> Trajectories:
    """All paths together, extrapolated to zero step."""
    coarse = torch.cat([log_weight for log_weight, _ in parts])
    fine = torch.cat([part.log_weight for _, part in parts])
    paths = [part.path for _, part in parts]
    functionals = {name: torch.cat([path.functionals[name] for path in paths], 1) for name in paths[0].functionals}
    return Trajectories(
        log_evidence=extrapolated_log_mean(coarse, fine),
        elbo=from_walkers(fine),
        by_step=(log_mean(coarse), log_mean(fine)),
        dt=dt,
        path=Path(paths[0].times, torch.cat([path.positions for path in paths], 1), functionals),
        log_weight=fine,
    )


def infer(
    problem: Conditioned,
    *,
    seed: int = 0,
    dt: float | None = None,
    n_updates: int = 200,
    n_paths: int = 8192,
    width: int = 48,
    loss: str = "kl",
) -> Trajectories:
    """Learn the conditioned process, then sample and weigh it: smoothed trajectories and log evidence.

    Args:
        problem: reference measure, start and measurements.
        seed: of the network and the noise.
        dt: the longer step of the extrapolation; default duration / 128.  Training takes steps of 2 dt.
        n_updates: of Adam.
        n_paths: weighted trajectories.
        width: units in each hidden layer.
        loss: "kl" or "log_variance".

    Returns:
        Trajectories.

    Example (a particle in U = (x^2 - 1)^2 that started at -1 was seen at 0 at t = 1; exactly -1.7220):
        >>> from fkdrift.bridges.conditioned import Measurement
        >>> simulation = fk.Overdamped(fk.load_potential("double_well"), torch.ones(1, 1))
        >>> problem = Conditioned(simulation, -torch.ones(1, 1), (Measurement(1.0, torch.zeros(1, 1), noise=0.1),))
        >>> print(infer(problem, dt=1 / 8, n_updates=10, n_paths=1024).log_evidence)
        -1.74(6)
    """
    generator = torch.Generator(problem.start.device).manual_seed(seed)
    drift = GuidedDrift(problem, width=width, seed=seed)
    dt = problem.duration / STEPS if dt is None else dt
    method = path_adam(problem, drift, dt=2 * dt, n_updates=n_updates, loss=loss)
    for _ in fit(method, torch.empty(0), n_updates=n_updates, generator=generator):
        pass
    return weigh(problem, drift, n_paths, dt=dt, generator=generator)
