"""A reference for potentials that come without one: the Gaussian of lowest energy, with WKB tails for a single particle.

    E_G(c, s) = sum_k sigma_k^2 / (8 s_k^2) + < V >_{N(c, s^2)}                                      (centre and width)
    dW/dx = -+p - p' / (2 p),   p = sqrt(2 m (U(x) - E))   beyond three widths from the centre               (tails)

with U the cut of V along one coordinate and E its mean energy in the Gaussian.  The tails make E_W grow slowly where walkers
hardly ever go, whether V grows like x^4, like exp(x), or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize
from torch import Tensor

from fkdrift.errors import InputError, Unbound
from fkdrift.potential import Potential
from fkdrift.reference import Derivatives, Gaussian, Reference, Term
from fkdrift.shapes import Positions

BLEND = (1.5, 3.0)
STEEPEST = 50.0
REACH, KNOTS_PER_WIDTH = 12, 16


def envelope(potential: Potential) -> tuple[Reference, np.ndarray, np.ndarray]:
    """W = log phi_ref for a potential in open space, with the centre and width (particle, dim) it is built around.

    Args:
        potential: smooth enough to be averaged over a Gaussian.

    Raises:
        Unbound: no Gaussian of finite width has lowest energy.
        InputError: V is not finite, or not of shape (batch,).

    Example:
        >>> W, centre, width = envelope(load_potential("harmonic", omega=2.0))
        >>> W(torch.tensor([[[0.0]], [[1.0]]], dtype=torch.float64)).diff().item()      # -omega x^2 / 2
        -1.0000...
    """
    centre, width = fit_gaussian(potential)
    import os
    if potential.n_particles > 1 or os.environ.get('GAUSS'):
        return Reference((Gaussian(tuple(map(tuple, centre)), tuple(map(tuple, width))),)), centre, width
    profiles = tuple(_profile(potential, centre[0], width[0], axis) for axis in range(potential.n_dims))
    return Reference(profiles), centre, width


@dataclass(frozen=True, eq=False)
class Profile(Term):
    """A cubic spline W(x) of one coordinate of a single particle, continued linearly beyond its ends.

    Args:
        axis: which coordinate.
        start, spacing: of the uniform knots.
        coefficients: (4, interval) of (x - knot)^3 ... (x - knot)^0.
    """

    axis: int
    start: float
    spacing: float
    coefficients: np.ndarray

    def __call__(self, r: Positions) -> Derivatives:
        x = r[..., self.axis]
        table = _on_device(self, r.dtype, r.device)
        n = table.shape[1]
        inside = x.clamp(self.start, self.start + n * self.spacing)
        k = ((inside.detach() - self.start) / self.spacing).long().clamp(0, n - 1)
        a, b, c, d = table[:, k]
        t = inside - self.start - k * self.spacing
        slope = (3 * a * t + 2 * b) * t + c
        value = ((a * t + b) * t + c) * t + d + slope * (x - inside)
        curvature = torch.where(x == inside, 6 * a * t + 2 * b, 0)
        gradient = torch.nn.functional.pad(slope[..., None], (self.axis, r.shape[-1] - 1 - self.axis))
        return Derivatives(value.sum(-1), gradient, curvature)


@lru_cache(maxsize=64)
def _on_device(profile: Profile, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(profile.coefficients, dtype=dtype, device=device)


def _profile(potential: Potential, centre: np.ndarray, width: np.ndarray, axis: int) -> Profile:
    """The Gaussian's log along one axis, going over into its WKB tails between 1.5 and 3 widths from the centre."""
    c, s, m = centre[axis], width[axis], potential.mass[0]
    low, high = (c - REACH * s, c + REACH * s) if potential.domain is None else potential.domain[axis]
    x = np.linspace(low, high, 1 + round((high - low) / s * KNOTS_PER_WIDTH))
    points = np.tile(centre, (len(x), 1))
    points[:, axis] = x
    with torch.no_grad():
        U = potential(torch.tensor(points)[:, None, :]).numpy()
    U = np.where(np.isfinite(U), np.minimum(U, 1e300), 1e300)
    z = (x - c) / s
    weight = np.exp(-(z**2) / 2)
    E = np.average(U, weights=weight * (U < 1e300)) + 1 / (8 * m * s**2)
    depth = np.minimum(2 * m * s**2 * (U - E), STEEPEST**2)
    p = np.sqrt(np.logaddexp(0, 2 * depth) / 2) / s
    ramp = np.clip((np.abs(z) - BLEND[0]) / (BLEND[1] - BLEND[0]), 0, 1)
    blend = ramp**3 * (10 + ramp * (6 * ramp - 15))
    amplitude = np.clip(np.gradient(p, x) / (2 * p), -p / 2, p / 2)
    wkb = -np.sign(z) * p - blend * amplitude
    W = CubicSpline(x, (1 - blend) * -z / (2 * s) + blend * wkb).antiderivative()
    spline = CubicSpline(x, W(x) - W(c))
    return Profile(axis, float(low), float(x[1] - x[0]), spline.c)


def fit_gaussian(potential: Potential, n_samples: int = 2048) -> tuple[np.ndarray, np.ndarray]:
    """Centre and width (particle, dim) of the Gaussian density |phi_ref|^2 of lowest energy.

    The average of V is over quasi-random points mirrored about the centre, so that a symmetric potential keeps
    its centre; identical particles share centre and width.
    """
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

    def potential_at(parameters: Tensor) -> Tensor:
        c, s = unpack(parameters)
        r = c + s * z
        if potential.domain is not None:
            low, high = torch.tensor(potential.domain, dtype=torch.float64).T
            r = r.clamp(low, high)
        return potential(r)

    def energy(x: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        E = (variance / (8 * unpack(parameters)[1].square())).sum() + potential_at(parameters).mean()
        (gradient,) = torch.autograd.grad(E, parameters)
        return (E.item(), gradient.numpy()) if np.isfinite(E.item()) else (1e100, np.zeros_like(x))

    start = np.concatenate([np.tile(centre, n_rows), np.tile(np.log(width), n_rows)])
    limits = [(c - 1e4, c + 1e4) for c in start[: start.size // 2]] + [(s - 9, s + 9) for s in start[start.size // 2 :]]
    V = potential_at(torch.tensor(start, requires_grad=True))
    _check_values(V, n_samples)
    if V.requires_grad:
        options = {"maxiter": 200, "ftol": 1e-14, "gtol": 1e-9}
        fit = minimize(energy, start, jac=True, method="L-BFGS-B", bounds=limits, options=options)
    else:
        fit = minimize(lambda x: energy(x)[0], start, method="Nelder-Mead", bounds=limits)
    at_limit = any(min(x - low, high - x) < 1e-3 for x, (low, high) in zip(fit.x, limits, strict=True))
    c, s = unpack(torch.tensor(fit.x))
    if at_limit or not abs(fit.fun) < 1e12:
        raise Unbound(
            f"no bound state found for {potential.name}: the best Gaussian has width {s.max():.3g} and energy "
            f"{fit.fun:.3g}; the potential must confine the particles (add a confining term, or make the system periodic)"
        )
    return c.numpy(), s.numpy()


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
        raise InputError(f"the potential is not finite at {share:.2g}% of starting points; it must be finite everywhere")


def _start(potential: Potential) -> tuple[np.ndarray, np.ndarray]:
    """Where to start the fit: the lowest point of a table, the middle of the nuclei, or the origin."""
    if potential.domain is not None:
        low, high = np.asarray(potential.domain, dtype=float).T
        points = np.random.default_rng(0).uniform(low, high, (4096, potential.n_dims))
        V = potential(torch.tensor(points)[:, None, :].expand(-1, potential.n_particles, -1)).numpy()
        return points[V.argmin()], (high - low) / 10
    nuclei = np.asarray(potential.nuclei or np.zeros((1, potential.n_dims)), dtype=float)
    return nuclei.mean(0), np.maximum(nuclei.std(0), 0.7)
