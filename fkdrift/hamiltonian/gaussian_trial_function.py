"""A reference for potentials that come without one: the Gaussian of lowest energy.

    |phi_ref|^2 = N(c, s^2),      E(c, s) = sum_k sigma_k^2 / (8 s_k^2) + < V >_{N(c, s^2)}

Centre and width are also where walkers start, and the natural length of the system.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fkdrift.errors import InputError, Unbound
from fkdrift.hamiltonian.potential import Potential, require_gradient


def fit_gaussian(potential: Potential, n_samples: int = 2048) -> tuple[np.ndarray, np.ndarray]:
    """Centre and width (particle, dim) of the Gaussian density |phi_ref|^2 of lowest energy.

    The average of V is over quasi-random points mirrored about the centre, so that a symmetric potential keeps
    its centre; identical particles share centre and width.
    """
    from scipy.optimize import minimize  # here: many systems have better than a Gaussian

    shape = (potential.n_particles, potential.n_dims)
    group_of = np.empty(potential.n_particles, dtype=int)
    for g, members in enumerate(potential.groups):
        group_of[list(members)] = g
    n_rows = len(potential.groups)
    variance = torch.tensor(potential.mass, dtype=torch.float64).reciprocal()[:, None]
    z = _normal_points(n_samples, shape)
    centre, width = _start(potential)

    def unpack(parameters: Tensor) -> tuple[Tensor, Tensor]:
        c, log_s = parameters.reshape(2, n_rows, shape[1])
        return c[group_of], log_s.exp()[group_of]

    def positions(parameters: Tensor) -> Tensor:
        c, s = unpack(parameters)
        r = c + s * z
        if potential.domain is not None:
            low, high = torch.tensor(potential.domain, dtype=torch.float64).T
            r = r.clamp(low, high)
        return r.detach() if potential.values_only else r

    def energy(x: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        E = (variance / (8 * unpack(parameters)[1].square())).sum() + potential(positions(parameters)).mean()
        (gradient,) = torch.autograd.grad(E, parameters)
        return (E.item(), gradient.numpy()) if np.isfinite(E.item()) else (1e100, np.zeros_like(x))

    def start_from(scale: float) -> np.ndarray:
        return np.concatenate([np.tile(centre, n_rows), np.tile(np.log(scale * width), n_rows)])

    start = start_from(1.0)
    limits = [(c - 1e4, c + 1e4) for c in start[: start.size // 2]] + [(s - 9, s + 9) for s in start[start.size // 2 :]]
    V = potential(positions(torch.tensor(start, requires_grad=True)))
    _check_values(V, n_samples)
    require_gradient(potential, positions(torch.tensor(start)))
    if V.requires_grad:
        options = {"maxiter": 200, "ftol": 1e-14, "gtol": 1e-9}
        starts = [_descend(energy, start_from(scale)) for scale in (1.0, 0.2)]
        fits = [minimize(energy, x, jac=True, method="L-BFGS-B", bounds=limits, options=options) for x in starts]
        fit = min(fits, key=lambda each: each.fun)
    else:
        fit = minimize(lambda x: energy(x)[0], start, method="Nelder-Mead", bounds=limits)
    at_limit = any(min(x - low, high - x) < 1e-3 for x, (low, high) in zip(fit.x, limits, strict=True))
    c, s = unpack(torch.tensor(fit.x))
    if at_limit or not abs(fit.fun) < 1e12:
        raise Unbound(
            f"no bound state found for {potential.name}: the best Gaussian has width {s.max():.3g} and "
            f"energy {fit.fun:.3g}; the potential must confine the particles (add a confining term, or make it "
            "periodic), to lengths between 1e-4 and 1e4 in its unit"
        )
    return c.numpy(), s.numpy()


def _descend(energy: Callable[[np.ndarray], tuple[float, np.ndarray]], x: np.ndarray) -> np.ndarray:
    """A hundred steps of bounded length downhill, so that a steep wall cannot throw the fit onto a far plateau."""
    width = np.exp(x[x.size // 2 :])
    scale = np.concatenate([width, np.ones_like(width)])
    for step in np.geomspace(0.2, 0.01, 100):
        _, gradient = energy(x)
        x = x - step * scale * np.tanh(gradient * scale)
    return x


def _normal_points(n_samples: int, shape: tuple[int, int]) -> Tensor:
    """Quasi-random normal points (n_samples, particle, dim), mirrored and scaled to mean 0 and variance 1 exactly."""
    sobol = torch.quasirandom.SobolEngine(shape[0] * shape[1], scramble=True, seed=7)
    half = torch.special.ndtri(sobol.draw(n_samples // 2, dtype=torch.float64).clamp(1e-6, 1 - 1e-6))
    half = half / half.square().mean(0).sqrt()
    return torch.cat([half, -half]).reshape(n_samples, *shape)


def _check_values(V: Tensor, n_samples: int) -> None:
    """Refuse a potential of the wrong shape, or one that is not finite where the particles start."""
    if V.shape != (n_samples,):
        raise InputError(f"the potential returns shape {tuple(V.shape)} for {n_samples} walkers; it must be (batch,)")
    if not bool(torch.isfinite(V).all()):
        share = 100 * float((~torch.isfinite(V)).double().mean())
        raise InputError(
            f"the potential is not finite at {share:.2g}% of starting points; it must be finite everywhere"
        )


def _start(potential: Potential) -> tuple[np.ndarray, np.ndarray]:
    """Where to start the fit: the lowest point of a table, the middle of the nuclei, or the origin."""
    if potential.domain is not None:
        low, high = np.asarray(potential.domain, dtype=float).T
        points = np.random.default_rng(0).uniform(low, high, (4096, potential.n_dims))
        V = potential(torch.tensor(points)[:, None, :].expand(-1, potential.n_particles, -1)).numpy()
        return points[V.argmin()], (high - low) / 10
    nuclei = np.asarray(potential.nuclei or np.zeros((1, potential.n_dims)), dtype=float)
    return nuclei.mean(0), np.maximum(nuclei.std(0), 0.7)
