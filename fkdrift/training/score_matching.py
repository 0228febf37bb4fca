"""A drift from samples of |phi_0|^2: half a score is a drift.

    v = sigma^2 grad log phi_0 = (sigma^2 / 2) grad log p,        p = |phi_0|^2

The score of p blurred by a Gaussian of standard deviation s minimises, over fields S,

    E | s S(r + s e) + e |^2,        r from p, e standard normal                     (denoising score matching)

with S = 2 (h + v) / sigma^2 for the drift h of the reference and the learned v.  Noise is drawn in pairs e, -e: their
terms of order 1 / s cancel, and what is left has a finite variance as s goes to 0.  The loss that is minimised, the
mean of the two less its part |e|^2, over 2 s^2, is

    E [ (|S_+|^2 + |S_-|^2) / 4 + e . (S_+ - S_-) / 2 s ],        S_+- = S(r +- s e)

A warning.  The mean of v^2 / 2 sigma^2 + V over the *samples* looks like an energy and is no bound: it lies below E_0
as soon as v is smaller than it should be.  Energies come from trajectories of the drift: `PathSampler`,
`StationarySampler`, or a run that is started with it.

References: Hyvarinen, JMLR 6, 695 (2005); Vincent, Neural Computation 23, 1661 (2011); Song et al., sliced score
matching, UAI 2019.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fkdrift.errors import BadParameter
from fkdrift.hamiltonian.system import System
from fkdrift.paths.process import Process
from fkdrift.training.adam import minibatch_adam
from fkdrift.training.loop import fit
from fkdrift.wavefunction.neural import NeuralWavefunction
from fkdrift.wavefunction.protocol import Drift

LEAST_SAMPLES = 100


def drift_from_samples(
    samples: Tensor,
    system: System,
    *,
    drift: Drift | None = None,
    blur: float = 0.02,
    n_updates: int = 500,
    batch_size: int = 512,
    learning_rate: float = 1e-2,
    seed: int = 0,
) -> Drift:
    """Learn the drift whose stationary density the samples come from.

    Args:
        samples: (n, particle, dim) from |phi_0|^2, as `GroundState.sample` or path-integral Monte Carlo (its middle
            beads) gives.  Diffusion Monte Carlo walkers come from phi_0 psi_T instead: theirs is another drift.
        system: the potential made ready; it supplies masses and the reference drift.
        drift: what to train, in place; default a new NeuralWavefunction.
        blur: standard deviation of the noise added to the samples, in units of the system's width.
        n_updates, batch_size, learning_rate: of Adam.
        seed: of the network and the noise.

    Returns:
        Drift: for `Process(drift, system)`, for training by `pathwise_adam` or `NaturalGradient`, or as the `start`
        of `fk.solve`.

    Raises:
        BadParameter: fewer than 100 samples, of the wrong shape, or not finite; or a blur that is not positive.

    Reference: Vincent, Neural Computation 23, 1661 (2011).

    Example (samples of a harmonic oscillator, whose drift is -x):
        >>> system = fk.System(fk.load_potential("harmonic"))
        >>> drift = drift_from_samples(system.initial_walkers(1000, g), system, n_updates=20)
        >>> fk.Process(drift, system).velocity(torch.ones(1, 1, 1)).item()
        -0.98...
    """
    _check(samples, system, blur)
    samples = samples.to(system.device, system.dtype)
    if drift is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            drift = NeuralWavefunction(system)
    width = system.width.mean().item()
    loss = denoising_loss(Process(drift, system), blur * width)
    method = minibatch_adam(
        drift, loss, samples, n_updates=n_updates, batch_size=batch_size, learning_rate=learning_rate, seed=seed
    )
    generator = torch.Generator(system.device).manual_seed(seed)
    for _ in fit(method, samples.new_empty(0), n_updates=n_updates, generator=generator):
        pass
    return drift


def denoising_loss(process: Process, blur: float) -> Callable[[Tensor, torch.Generator], Tensor]:
    """The loss of each sample, (batch, particle, dim) and a generator to (batch,), for `minibatch_adam`.

    Its minimum over all drifts is minus half the Fisher information E|grad log p|^2 of the blurred density.

    Args:
        process: its drift is trained.
        blur: standard deviation of the added noise, in units of length.
    """

    def loss(r: Tensor, generator: torch.Generator) -> Tensor:
        e = torch.randn(r.shape, generator=generator, dtype=r.dtype, device=r.device)
        S = stationary_score(process, torch.cat([r + blur * e, r - blur * e]))
        plus, minus = S.chunk(2)
        square = (plus.square() + minus.square()) / 4
        return (square + e * (plus - minus) / (2 * blur)).sum((-2, -1))

    return loss


def stationary_score(process: Process, r: Tensor) -> Tensor:
    """grad log of the density that the process would be stationary in, 2 (h + v) / sigma^2, if that is a gradient."""
    return 2 * process.velocity(r) / process.sigma.square()


def _check(samples: Tensor, system: System, blur: float) -> None:
    if samples.ndim != 3 or samples.shape[1:] != system.shape:
        raise BadParameter(
            f"samples of shape {tuple(samples.shape)} do not fit this system: they have to be "
            f"(n, {system.shape[0]}, {system.shape[1]})"
        )
    if len(samples) < LEAST_SAMPLES:
        raise BadParameter(f"{len(samples)} samples are too few to learn a drift from: give at least {LEAST_SAMPLES}")
    if not bool(torch.isfinite(samples).all()):
        raise BadParameter("some samples are not finite: remove them first")
    if not blur > 0:
        raise BadParameter(f"blur = {blur} is not allowed: it must be positive")
