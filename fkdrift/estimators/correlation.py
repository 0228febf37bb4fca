"""Correlation functions in imaginary time, susceptibilities, and gaps from how correlations decay.

    C_ij(tau) = < A_i(tau) A_j(0) > - < A_i > < A_j > = sum_n <0|A_i|n> <n|A_j|0> exp(-(E_n - E_0) tau)

is a plain average along the stationary trajectories of dr = v dt + sigma dB where psi is exact.  For any psi, weights

    w = exp( -int (E_L - E_ref) dt )     over the time between both ends and a padding before and after

make it exact (`pure`, Ceperley and Bernu); without them (`variational`) it is that of the learned diffusion.
From C follow

    chi_ij = 2 int_0^inf C_ij dtau = -d^2 E_0 / dlam_i dlam_j      of H + lam_i A_i        (static susceptibility)
    C(tau) c = lambda C(0) c,    lambda_n = exp(-gap_n tau)        (time-lagged; the largest lambda, the lowest gap).

The gap between two lags, -d log lambda / d tau, falls to its plateau from above.

References: D. M. Ceperley and B. Bernu, J. Chem. Phys. 89, 6316 (1988); F. Noe and F. Nuske, Multiscale Model. Simul.
11, 635 (2013).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fkdrift.errors import InputError
from fkdrift.estimators.observables import Observable, evaluate
from fkdrift.estimators.state import restore, saved
from fkdrift.numerics.estimates import Estimate
from fkdrift.paths.process import Process
from fkdrift.tensor_types import Positions
from fkdrift.wavefunction import metropolis
from fkdrift.wavefunction.local_energy import local_energy
from fkdrift.wavefunction.protocol import wavefunction_of

KINDS = ("variational", "pure")
STEPS_IN_SCALE = 64  # of dt in a time scale: a step shifts a decay rate by rate^2 dt / 2, here 0.8% of 1 / scale
N_GROUPS = 32  # of walkers, for the jackknife
LEAST_CORRELATION = 1e-3  # lambda below which a decay is noise
AXES = {"walkers": 0, "weights": 2, "means": 2, "products": 2}  # of the walkers, in what is saved


@dataclass(frozen=True)
class Correlation:
    """C_ij(tau) of one kind.

    Args:
        times: (lag,), tau in the potential's unit of time.
        mean, error: (lag, i, j).
        susceptibility, susceptibility_error: (i, j), 2 int C dtau, with an exponential for what is beyond the last lag.
    """

    times: Tensor
    mean: Tensor
    error: Tensor
    susceptibility: Tensor
    susceptibility_error: Tensor


class CorrelationSampler:
    """Windows of trajectories, with the observables at their grid of times.

    Args:
        process: a trained process; its drift is a `Wavefunction`.
        walkers: (batch, particle, dim) from |psi|^2.
        observables: A_i, with single values.
        time_scale: of the system.
        longest: largest tau, in time scales.
        n_lags: intervals up to there, an even number.
        padding: time before and after over which the weights project, in time scales.
        n_equilibration: windows to discard first.

    Raises:
        InputError: psi is not known, an observable is a histogram, n_lags is odd, or walkers are fewer than 64.

    Example (position in the harmonic well: C = exp(-tau) / 2, chi = 1):
        >>> from fkdrift.estimators.observables import parse_observable
        >>> system = fk.System(fk.load_potential("harmonic"))
        >>> process, walkers = Process(fk.NeuralWavefunction(system), system), system.initial_walkers(1024, g)
        >>> x, window = parse_observable("x", system.potential), {"longest": 1.0, "n_lags": 4, "padding": 0.5}
        >>> sampler = CorrelationSampler(process, walkers, [x], time_scale=1.0, n_equilibration=0, **window)
        >>> sampler.advance(g)
        >>> print(sampler.susceptibility(0))
        0.97(5)
    """

    def __init__(
        self,
        process: Process,
        walkers: Positions,
        observables: Sequence[Observable],
        *,
        time_scale: float,
        longest: float = 6.0,
        n_lags: int = 24,
        padding: float = 2.0,
        n_equilibration: int = 1,
    ) -> None:
        wavefunction_of(process.drift, "a correlation function")
        if n_lags < 2 or n_lags % 2:
            raise InputError(f"n_lags = {n_lags} is not allowed: an even number, for the integral over tau")
        self.workers = process.workers
        if (n := len(self.workers.gather(walkers))) < 2 * N_GROUPS:
            raise InputError(f"{n} walkers are too few for correlations: use at least {2 * N_GROUPS}")
        if histograms := [each.name for each in observables if each.centres]:
            raise InputError(f"{', '.join(histograms)} has many bins: correlations are of observables with one value")
        if not observables:
            raise InputError("there is nothing to correlate: give at least one observable")
        self.process, self.observables, self.walkers = process, tuple(observables), walkers
        self.n_lags, self.n_blocks = n_lags, -n_equilibration
        interval = longest * time_scale / n_lags
        self.n_steps = max(1, round(interval / time_scale * STEPS_IN_SCALE))
        self.dt = walkers.new_tensor(interval / self.n_steps)
        self.n_padding = max(1, round(padding * time_scale / interval))
        k, n = len(observables), len(walkers)
        size = (len(KINDS), n_lags + 1, n)
        self.weights = torch.zeros(size, dtype=torch.float64, device=walkers.device)
        self.means = torch.zeros((*size, k), dtype=torch.float64, device=walkers.device)
        self.products = torch.zeros((*size, k, k), dtype=torch.float64, device=walkers.device)
        self.moved = torch.zeros(2, dtype=torch.float64, device=walkers.device)

    def advance(self, generator: torch.Generator) -> None:
        """Follow every walker through one window and, once equilibrated, add it up."""
        moved = self.moved.clone()
        values, action = self._window(generator)
        self.moved = self.workers.accumulated(moved, self.moved, len(self.walkers))
        if self.n_blocks >= 0:
            mean = (action[-1] - action[0]).mean()
            reference = self.workers.average(mean, len(self.walkers)) / (len(action) - 1)
            p = self.n_padding
            for lag in range(self.n_lags + 1):
                first = torch.arange(p, len(values) - p - lag, device=values.device)
                span = action[first + lag + p] - action[first - p]
                w = torch.stack([torch.ones_like(span), (reference * (lag + 2 * p) - span).exp()])
                a, b = values[first], values[first + lag]  # (origin, batch, i)
                self.weights[:, lag] += w.sum(1)
                self.means[:, lag] += torch.einsum("kob,obi->kbi", w, (a + b) / 2)
                product = torch.einsum("kob,obi,obj->kbij", w, a, b)
                self.products[:, lag] += (product + product.transpose(-1, -2)) / 2
        self.n_blocks += 1

    def _window(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A at the grid of times (time, batch, i), and int E_L dt up to each of them (time, batch)."""
        n_times = 2 * self.n_padding + 2 * self.n_lags + 1
        state = metropolis.start(self.process, self.walkers, self.dt)
        with torch.no_grad():
            E = local_energy(self.process, state.positions).double()
        values, action = [evaluate(self.observables, state.positions)], [torch.zeros_like(E)]
        for _ in range(n_times - 1):
            total = action[-1]
            for _ in range(self.n_steps):
                state = metropolis.move(self.process, state, 1, generator)
                with torch.no_grad():
                    after = local_energy(self.process, state.positions).double()
                total = total + self.dt.double() * (E + after) / 2
                E = after
                self.moved += torch.stack([state.acceptance.double(), torch.ones_like(self.moved[0])])
            values.append(evaluate(self.observables, state.positions))
            action.append(total)
        self.walkers = state.positions
        return torch.stack(values), torch.stack(action)

    @property
    def times(self) -> Tensor:
        """(lag,), in the potential's unit of time: a rejected move is time that has not passed."""
        interval = self.dt.double() * self.n_steps * self.moved[0] / self.moved[1]
        return interval * torch.arange(self.n_lags + 1, device=self.dt.device)

    def correlation(self, kind: str = "pure") -> Correlation:
        """C and the susceptibilities, of at least one counted window.

        Args:
            kind: "variational" or "pure".
        """
        w, A, AA = self._sums(kind)
        total = w.sum(-1)  # (lag,)
        mean, second = A.sum(1) / total[:, None], AA.sum(1) / total[:, None, None]
        C = second - mean[:, :, None] * mean[:, None]
        n = w.shape[-1]
        centred = AA - w[..., None, None] * second[:, None]
        drift = A - w[..., None] * mean[:, None]
        centred = centred - drift[..., None] * mean[:, None, None] - mean[:, None, :, None] * drift[..., None, :]
        influence = centred * (n / total)[:, None, None, None]  # (lag, batch, i, j)
        times = self.times
        weights = _simpson(self.n_lags).to(C) * (times[1] - times[0])
        rate = _decay(C, times)
        weights = weights[:, None, None].expand_as(C).clone()
        weights[-1] += torch.where(rate > 0, 1 / rate.clamp_min(1e-300), torch.zeros_like(rate))
        chi = 2 * (weights * C).sum(0)
        chi_error = 2 * (weights[:, None] * influence).sum(0).std(0) / n**0.5
        return Correlation(times, C, influence.std(1) / n**0.5, chi, chi_error)

    def susceptibility(self, i: int, j: int | None = None, kind: str = "pure") -> Estimate:
        """chi_ij = -d^2 E_0 / dlam_i dlam_j of H + lam_i A_i + lam_j A_j."""
        found, j = self.correlation(kind), i if j is None else j
        return Estimate(found.susceptibility[i, j].item(), found.susceptibility_error[i, j].item())

    def gaps(self, kind: str = "pure") -> list[list[Estimate]]:
        """For every interval between two lags, the gaps -d log lambda / d tau, lowest first.

        As long as lambda is above its noise: the last lists may be shorter.  All A_i together are the basis, so use
        several, and look for the plateau.

        Args:
            kind: "pure" for exact gaps, "variational" for those of the learned diffusion.
        """
        times = self.times.cpu().numpy()
        every = self._matrices(kind, None)
        without = [self._matrices(kind, k) for k in range(N_GROUPS)]
        found = []
        for lag in range(self.n_lags):
            value = _rates(every, lag, times)
            replicas = np.array([_rates(each, lag, times) for each in without])
            spread = np.square(replicas - replicas.mean(0)).sum(0)
            errors = np.sqrt((N_GROUPS - 1) / N_GROUPS * spread)
            known = np.isfinite(value) & np.isfinite(errors)
            n_known = len(value) if known.all() else int(np.argmin(known))
            found.append([Estimate(float(value[n]), float(errors[n])) for n in range(n_known)])
        return found

    def _sums(self, kind: str) -> tuple[Tensor, Tensor, Tensor]:
        """Weights, and weighted means and products, (lag, walker, ...), of all workers."""
        k, gather = KINDS.index(kind), self.workers.gather
        return gather(self.weights[k], 1), gather(self.means[k], 1), gather(self.products[k], 1)

    def _matrices(self, kind: str, without: int | None) -> np.ndarray:
        """C (lag, i, j), leaving out one group of walkers."""
        sums = self._sums(kind)
        n = sums[0].shape[1]
        kept = torch.arange(n, device=self.weights.device) * N_GROUPS // n != (-1 if without is None else without)
        w, A, AA = (each[:, kept].sum(1) for each in sums)
        mean = A / w[:, None]
        return (AA / w[:, None, None] - mean[:, :, None] * mean[:, None]).cpu().numpy()

    def results(self) -> dict[str, Any]:
        """{"correlations": {name: {times, kind: {mean, error, susceptibility}}}} of every A with itself."""
        found = {kind: self.correlation(kind) for kind in KINDS}
        entries: dict[str, Any] = {}
        for i, observable in enumerate(self.observables):
            entry: dict[str, Any] = {"times": self.times.tolist()}
            for kind, each in found.items():
                chi = {"mean": each.susceptibility[i, i].item(), "error": each.susceptibility_error[i, i].item()}
                mean, error = each.mean[:, i, i].tolist(), each.error[:, i, i].tolist()
                entry[kind] = {"mean": mean, "error": error, "susceptibility": chi}
            entries[observable.name] = entry
        return {"correlations": entries}

    def state_dict(self) -> dict[str, Any]:
        names = ("walkers", "n_blocks", "weights", "means", "products", "moved")
        state = saved(self, names, AXES, self.workers)
        return {name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        restore(self, state, AXES, self.workers)


def _simpson(n: int) -> Tensor:
    """Weights of Simpson's rule on n intervals of length 1, (n + 1,)."""
    weights = torch.full((n + 1,), 2 / 3, dtype=torch.float64)
    weights[1::2] = 4 / 3
    weights[[0, -1]] = 1 / 3
    return weights


def _decay(C: Tensor, times: Tensor) -> Tensor:
    """Rate (i, j) of the exponential through the middle and the end of C; 0 where there is none."""
    middle = len(times) // 2
    ratio = C[middle] / C[-1]
    decays = (ratio > 1) & (C[-1].abs() > LEAST_CORRELATION * C[0].abs())
    rate = ratio.clamp_min(1.0).log() / (times[-1] - times[middle])
    return torch.where(decays, rate, torch.zeros_like(rate))


def _rates(C: np.ndarray, lag: int, times: np.ndarray) -> np.ndarray:
    """-d log lambda / d tau between two lags, lowest first; nan from where lambda is in the noise."""
    weight, vectors = np.linalg.eigh(C[0])
    whitening = vectors / np.sqrt(np.maximum(weight, 1e-12 * weight[-1]))
    before, after = (np.linalg.eigvalsh(whitening.T @ C[k] @ whitening)[::-1] for k in (lag, lag + 1))
    signal = np.minimum(before, after) > LEAST_CORRELATION
    ratio = np.where(signal, before, 1.0) / np.where(signal, after, 1.0)
    return np.where(signal, np.log(ratio) / (times[lag + 1] - times[lag]), np.nan)
