"""Observables: functions of the positions that every sampler averages, and the quantities derived from their means.

    <A> = E[A(r)]          over |psi|^2 (variational), psi phi_0 (mixed) or |phi_0|^2 (pure), whatever the sampler draws

An `Observable` has a name, a unit and a function of the positions with one value, or one for each bin of a histogram.
`Averages` adds them up walker by walker beside the energy and gives means with errors.  Three numbers follow from the
means, because what the kinetic energy does to psi is not a function of the positions:

    T = E - <V>,        virial = <r . grad V> / (2 T) = 1 in open space.

Reference: D. M. Ceperley and M. H. Kalos, in Monte Carlo Methods in Statistical Physics (Springer, 1979), on mixed
and pure estimators.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fkdrift.errors import BadFormula, BadParameter, InputError
from fkdrift.hamiltonian.formula import translate
from fkdrift.hamiltonian.loading import from_file
from fkdrift.hamiltonian.potential import Potential
from fkdrift.hamiltonian.system import System
from fkdrift.numerics.estimates import Estimate, format_with_error
from fkdrift.numerics.geometry import distance, nearest_image, pair_vectors
from fkdrift.numerics.workers import ALONE, Workers
from fkdrift.settings import is_own
from fkdrift.tensor_types import PerWalker, Positions

N_BINS = 64
RANGE = 1.5  # a histogram reaches this many times as far as the farthest of the walkers it is laid out for
N_SCALE_WALKERS = 1024
RELATIVE_STEP = 1e-3  # of a parameter, in a five-point difference: error h^4 / 30 times the fifth derivative
AXES = ("x", "y", "z")
ENERGY, DENSITY = "E_L", "density"
FARTHEST = 5.0
"""Standard errors from zero that the mean of a control may be at; where it is more, walkers have not seen the tails."""
FOLDS = 8
"""Parts of the walkers, for each of which the others tell how much of each control is taken away."""
LEAST_FOR_CONTROL = 10
"""Independent walkers for each control, or their coefficients would fit the noise."""
DERIVED = (ENERGY, "T", "virial")


@dataclass(frozen=True)
class Observable:
    """A named function of the positions.

    Args:
        name: how it is asked for and printed.
        unit: of its values, in words; "" for a pure number.
        function: (batch, particle, dim) to (batch,), or to (batch, bin) where there are `centres`.
        centres: the middle of each bin of a histogram; empty for a single value.
        axis: what the bins are bins of.
        per_energy: its mean has this many times the mean of the energy added, for what the kinetic energy is a part of.

    Example:
        >>> square = Observable("x^2", "length^2", lambda r: r.square().sum((-2, -1)))
        >>> square(torch.ones(2, 1, 1))
        tensor([1., 1.])
    """

    name: str
    unit: str
    function: Callable[[Tensor], Tensor]
    centres: tuple[float, ...] = ()
    axis: str = ""
    per_energy: float = 0.0

    def __call__(self, r: Positions) -> Tensor:
        """The value at each walker, (batch,) or (batch, bin)."""
        return self.function(r)

    @property
    def size(self) -> int:
        """How many numbers it has for each walker."""
        return max(1, len(self.centres))


def evaluate(observables: Sequence[Observable], r: Positions) -> Tensor:
    """All observables side by side, (batch, column) float64.

    Raises:
        InputError: a function returns another shape than it should.
    """
    columns = []
    for observable in observables:
        with torch.no_grad():
            value = observable(r)
        expected = (len(r), observable.size) if observable.centres else (len(r),)
        if tuple(value.shape) != expected:
            raise InputError(
                f"the observable {observable.name!r} returns shape {tuple(value.shape)} for {len(r)} walkers; "
                f"it must be {expected}"
            )
        columns.append(value.double().reshape(len(r), -1))
    return torch.cat(columns, 1) if columns else torch.zeros(len(r), 0, dtype=torch.float64, device=r.device)


@dataclass(frozen=True)
class Average:
    """The mean of an observable with its standard error.

    Args:
        name, unit: of the observable.
        mean, error: (bin,); a single bin for a single value.
        centres, axis: as in `Observable`.
    """

    name: str
    unit: str
    mean: Tensor
    error: Tensor
    centres: tuple[float, ...] = ()
    axis: str = ""

    @property
    def estimate(self) -> Estimate:
        """The mean and error of an observable with a single value.

        Raises:
            InputError: it is a histogram.
        """
        if self.centres:
            raise InputError(
                f"{self.name} is a histogram of {len(self.centres)} bins, not one number: read mean, error"
            )
        return Estimate(self.mean.item(), self.error.item())

    def plain(self) -> dict[str, Any]:
        """{mean, error} as JSON values: numbers, or lists of them for a histogram; null where not known."""
        return {name: _json(value, bool(self.centres)) for name, value in (("mean", self.mean), ("error", self.error))}

    def __str__(self) -> str:
        if self.centres:
            return f"{self.name}: {len(self.centres)} bins"
        return format_with_error(self.mean.item(), self.error.item())


def _json(value: Tensor, several: bool) -> float | list[float | None] | None:
    numbers = [x if math.isfinite(x) else None for x in value.tolist()]
    return numbers if several else numbers[0]


def by_kind(averages: dict[str, dict[str, Average]]) -> dict[str, Any]:
    """`result["observables"]`: name to {unit, centres, axis, kind: {mean, error}} for every kind of estimator.

    Args:
        averages: kind ("variational", "mixed", "pure") to name to Average.
    """
    result: dict[str, Any] = {}
    for kind, of_kind in averages.items():
        for name, average in of_kind.items():
            entry = result.setdefault(name, {"unit": average.unit})
            if average.centres:
                entry |= {"axis": average.axis, "centres": list(average.centres)}
            entry[kind] = average.plain()
    return result


class Averages:
    """Sums of the energy and of observables for every independent walker (or group of walkers, or block of time).

    With weights, the mean is sum w A / sum w; the error is that of this ratio to first order in its noise, from the
    spread over the walkers,

        error^2 = n / (n - 1) sum_k [ W_k (A_k - <A>) ]^2 / (sum_k W_k)^2,    A_k the mean of walker k, W_k its weight.

    Args:
        observables: what to average beside the energy.
        n_walkers: independent walkers, here.
        device: of the sums.
        workers: that share the walkers.
        n_controls: columns that vanish on average, see `fkdrift.estimators.controls`: observables with a single value
            are averaged less the combination of them that varies most like them.
        rounding: relative error of the values, which all walkers share.

    Attributes:
        sums: (walker, 1 + column + control) float64, the energy first.
        weights: (walker,) float64.
    """

    def __init__(
        self,
        observables: Sequence[Observable],
        n_walkers: int,
        device: torch.device | str = "cpu",
        workers: Workers = ALONE,
        n_controls: int = 0,
        rounding: float = 0.0,
    ) -> None:
        names = [observable.name for observable in observables]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise InputError(f"observables are named twice: {', '.join(sorted(repeated))}")
        self.observables, self.workers = tuple(observables), workers
        self.n_controls, self.rounding = n_controls, rounding
        n_columns = 1 + sum(observable.size for observable in observables) + n_controls
        self.sums = torch.zeros(n_walkers, n_columns, dtype=torch.float64, device=device)
        self.weights = torch.zeros(n_walkers, dtype=torch.float64, device=device)

    def add(
        self, r: Positions, energy: PerWalker, weights: PerWalker | None = None, controls: Tensor | None = None
    ) -> None:
        """Add one configuration of every walker.

        Args:
            r: (batch, particle, dim) where the walkers are.
            energy: (batch,) local energy there (or l_T / T of the block that ended there).
            weights: (batch,); 1 if not given.
            controls: (batch, n_controls), where there are any.
        """
        values = evaluate(self.observables, r)
        self.add_values(energy, values if controls is None else torch.cat([values, controls], 1), weights)

    def add_values(self, energy: PerWalker, values: Tensor, weights: PerWalker | None = None) -> None:
        """As `add`, for values (batch, column) of `evaluate` that were computed before, at an ancestor's positions."""
        rows = torch.cat([energy.double()[:, None], values], 1)
        w = torch.ones_like(rows[:, 0]) if weights is None else weights.double()
        self.sums += w[:, None] * rows
        self.weights += w

    def estimates(self) -> dict[str, Average]:
        """Every observable by name, E_L, and T and the virial ratio where V and r . grad V are among them.

        Something must have been added.
        """
        sums, weights = self.workers.gather(self.sums), self.workers.gather(self.weights)
        total = weights.sum()
        mean = sums.sum(0) / total
        n = len(weights)
        influence = (sums - weights[:, None] * mean) * (n / total)
        rounded = self.rounding * (mean.abs() + influence.std(0))
        if self._in_control(mean, influence):
            mean, influence = self._controlled(mean, influence)
        found = {ENERGY: Average(ENERGY, "energy", mean[:1], _error(influence[:, :1]).hypot(rounded[:1]))}
        parts = {ENERGY: (mean[0], influence[:, 0], rounded[0])}
        first = 1
        for observable in self.observables:
            columns = slice(first, first := first + observable.size)
            mean[columns] += observable.per_energy * mean[0]
            influence[:, columns] += observable.per_energy * influence[:, :1]
            found[observable.name] = Average(
                observable.name,
                observable.unit,
                mean[columns],
                _error(influence[:, columns]).hypot(rounded[columns]),
                observable.centres,
                observable.axis,
            )
            parts[observable.name] = (mean[columns][0], influence[:, columns][:, 0], rounded[columns][0])
        if "V" not in parts:
            return found
        (E, dE, of_E), (V, dV, of_V) = parts[ENERGY], parts["V"]
        found["T"] = Average("T", "energy", (E - V)[None], _error((dE - dV)[:, None]).hypot(of_E + of_V))
        if FORCE in parts:
            G, dG, of_G = parts[FORCE]
            ratio = G / (2 * (E - V))
            slope = dG / (2 * (E - V)) - ratio * (dE - dV) / (E - V)
            rounding = (of_G / 2 + (ratio * (of_E + of_V)).abs()) / (E - V).abs()
            found["virial"] = Average("virial", "", ratio[None], _error(slope[:, None]).hypot(rounding))
        return found

    def _in_control(self, mean: Tensor, influence: Tensor) -> bool:
        """Whether there are controls, walkers enough for them, and they vanish on average as they should."""
        k = self.n_controls
        if k == 0 or len(influence) < LEAST_FOR_CONTROL * k:
            return False
        return bool((mean[-k:].abs() <= FARTHEST * _error(influence[:, -k:])).all())

    def _controlled(self, mean: Tensor, influence: Tensor) -> tuple[Tensor, Tensor]:
        """Both less what the controls explain of each single value; bins of histograms stay as they are.

        The coefficients for a walker are those of least squares over the walkers of other folds, so that nothing is
        biased and no error too small.
        """
        k = self.n_controls
        single = [column for each in self.observables for column in [each.size == 1] * each.size]
        changed = torch.tensor([False, *single, *[False] * k], device=mean.device)
        scale = influence[:, -k:].std(0).clamp_min(torch.finfo(mean.dtype).tiny)
        A, C = influence[:, changed] + mean[changed], (influence[:, -k:] + mean[-k:]) / scale
        left, fold = A.clone(), torch.arange(len(A), device=mean.device) % FOLDS
        for own in range(FOLDS):
            X, Y = ((each - each.mean(0)).cpu() for each in (C[fold != own], A[fold != own]))
            left[fold == own] -= C[fold == own] @ torch.linalg.lstsq(X, Y, driver="gelsd").solution.to(C)
        mean, influence = mean.clone(), influence.clone()
        mean[changed], influence[:, changed] = left.mean(0), left - left.mean(0)
        return mean, influence

    def state_dict(self) -> dict[str, Tensor]:
        return {"sums": self.workers.gather(self.sums), "weights": self.workers.gather(self.weights)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        sums, weights = self.workers.own(state["sums"]), self.workers.own(state["weights"])
        self.sums, self.weights = sums.to(self.sums).clone(), weights.to(self.weights).clone()


def _error(influence: Tensor) -> Tensor:
    """Standard error (column,) of a mean from each walker's contribution to it (walker, column)."""
    return influence.std(0) / math.sqrt(len(influence))


# -- the standard ones -------------------------------------------------------------------------------------------------

FORCE = "r.grad V"


def potential_energy(potential: Potential) -> Observable:
    """V(r)."""
    return Observable("V", "energy", potential)


def virial(potential: Potential) -> Observable:
    """r . grad V = sum_i r_i . grad_i V, whose mean is 2 <T> in a bound state in open space."""

    def function(r: Tensor) -> Tensor:
        with torch.enable_grad():
            x = r.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(potential(x).sum(), x)
        return (gradient * r).sum((-2, -1))

    return Observable(FORCE, "energy", function)


def pressure(potential: Potential) -> Observable:
    """P = ( 2 <T> - < sum_{i<j} r_ij v'(r_ij) > ) / (d L^d) of a sum over pairs in a box, by the virial; T = E - V.

    What v is beyond the distance where it is cut is added as `tail_correction` has it.
    """
    box, v = potential.box, potential.pair_potential
    assert box is not None
    assert v is not None
    scale = 1 / (potential.n_dims * math.prod(box))

    def function(r: Tensor) -> Tensor:
        d = distance(nearest_image(pair_vectors(r), box)).detach()
        with torch.enable_grad():
            x = d.requires_grad_()
            (slope,) = torch.autograd.grad(v(x).sum(), x)
        work = (d.detach() * slope).sum(-1)
        return -scale * (2 * potential(r) + work) + potential.tail_correction[1]

    return Observable("P", f"energy / length^{potential.n_dims}", function, per_energy=2 * scale)


def has_virial(potential: Potential, walkers: Positions) -> bool:
    """Whether r . grad V can be had by autograd: open space, and V a differentiable function without jumps.

    Along the ray from 0.8 r to 1.2 r, V must change by the integral of its derivative, for all but 1% of the walkers.
    """
    if potential.box is not None or potential.domain is not None:
        return False
    nodes, weights = _gauss_legendre(32, 0.8, 1.2)
    r = walkers.double()
    try:
        work = sum(w * virial(potential)(c * r) / c for c, w in zip(nodes, weights, strict=True))
        change = potential(1.2 * r) - potential(0.8 * r)
    except RuntimeError:  # V is not a differentiable function of torch
        return False
    scale = 1e-2 * (change.abs() + change.abs().median())
    return bool(((work - change).abs() > scale).double().mean() < 0.01)


def _gauss_legendre(n: int, low: float, high: float) -> tuple[list[float], list[float]]:
    from numpy.polynomial.legendre import leggauss

    nodes, weights = leggauss(n)
    middle, half = (low + high) / 2, (high - low) / 2
    return (middle + half * nodes).tolist(), (half * weights).tolist()


def standard_observables(potential: Potential, walkers: Positions | None = None) -> tuple[Observable, ...]:
    """What is always averaged: V and, where the virial theorem holds, r . grad V; T and the virial ratio follow.

    In a box where V is a sum over pairs, the pressure.

    Args:
        potential: the potential energy.
        walkers: (batch, particle, dim) typical positions; drawn from the trial function if not given.

    Example:
        >>> from fkdrift.hamiltonian.loading import load_potential
        >>> [each.name for each in standard_observables(load_potential("harmonic"))]
        ['V', 'r.grad V']
    """
    V = potential_energy(potential)
    if potential.box is not None and potential.pair_potential is not None:
        return V, pressure(potential)
    return (V, virial(potential)) if has_virial(potential, _typical(potential, walkers)) else (V,)


def _typical(potential: Potential, walkers: Positions | None) -> Positions:
    if walkers is not None:
        return walkers
    return System(potential, torch.float64).initial_walkers(N_SCALE_WALKERS, torch.Generator().manual_seed(0))


# -- Hellmann-Feynman --------------------------------------------------------------------------------------------------


def parameter_derivative(potential: Potential, name: str, of: str = "V") -> Observable:
    """dV/dname; its pure estimator is dE_0/dname exactly, by the theorem of Hellmann and Feynman.

        dE_0 / dlam = < dH/dlam > = < dV/dlam >         where lam enters V alone

    V is differentiated by autograd through the field where the plug-in's formula lets it, otherwise by a five-point
    difference in float64.

    Args:
        potential: a dataclass; see `differentiable_parameters` for the fields that have a derivative.
        name: of a field.
        of: what its name is to say, "V", or "E" where the derivative of the energy is what is wanted.

    Raises:
        BadParameter: there is no such field, it is not a number, or masses, box or domain change with it.

    Reference: R. P. Feynman, Phys. Rev. 56, 340 (1939).

    Example:
        >>> from fkdrift.hamiltonian.loading import load_potential
        >>> parameter_derivative(load_potential("anharmonic"), "lam")(torch.full((1, 1, 1), 2.0)).item()
        16.0
    """
    allowed = differentiable_parameters(potential)
    if name not in allowed:
        choice = f"choose from {', '.join(allowed)}" if allowed else f"{potential.name} has none"
        raise BadParameter(f"d{of}/d{name}: {name!r} is not a number that enters V alone; {choice}")
    return Observable(f"d{of}/d{name}", f"energy / {name}", _Derivative(potential, name))


def differentiable_parameters(potential: Potential) -> tuple[str, ...]:
    """Names of the fields that are floats and enter V only, not the masses, the box or the domain."""
    if not dataclasses.is_dataclass(potential) or isinstance(potential, type):
        return ()
    found = []
    for field in dataclasses.fields(potential):
        value = getattr(potential, field.name)
        if isinstance(value, float) and math.isfinite(value):
            moved = _shifts(potential, field.name)
            if moved and all(_kinetic(p) == _kinetic(potential) for p, _ in moved):
                found.append(field.name)
    return tuple(found)


def _kinetic(potential: Potential) -> tuple[object, ...]:
    """What of a potential enters the Hamiltonian besides V."""
    return potential.mass, potential.box, potential.domain, potential.n_particles, potential.n_dims


STENCILS = (
    ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12)),
    ((0, -25 / 12), (1, 4.0), (2, -3.0), (3, 4 / 3), (4, -1 / 4)),  # at the lower end of what is allowed
    ((0, 25 / 12), (-1, -4.0), (-2, 3.0), (-3, -4 / 3), (-4, 1 / 4)),  # at the upper end
)


def _shifts(potential: Any, name: str) -> list[tuple[Potential, float]]:
    """Potentials with the field moved a little, and their weights in a fourth-order difference; [] if none is valid."""
    value = getattr(potential, name)
    h = RELATIVE_STEP * (abs(value) or 1.0)
    for stencil in STENCILS:
        try:
            return [(dataclasses.replace(potential, **{name: value + k * h}), weight / h) for k, weight in stencil]
        except (ValueError, TypeError):
            continue
    return []


class _Derivative:
    """dV/dfield at positions (batch, particle, dim), (batch,)."""

    def __init__(self, potential: Potential, name: str) -> None:
        self.potential, self.name = potential, name
        self.shifted = _shifts(potential, name)
        self.by_autograd = self._autograd_works()

    def __call__(self, r: Tensor) -> Tensor:
        return self._tangent(r) if self.by_autograd else self._difference(r)

    def _difference(self, r: Tensor) -> Tensor:
        r = r.double()
        return torch.stack([weight * potential(r).double() for potential, weight in self.shifted]).sum(0)

    def _tangent(self, r: Tensor) -> Tensor:
        """Through a copy whose field is a tensor: d/du of d(u . V)/dfield, at every walker at once."""
        moved = copy.copy(self.potential)
        with torch.enable_grad():
            value = r.new_tensor(getattr(self.potential, self.name)).requires_grad_()
            object.__setattr__(moved, self.name, value)
            V = moved(r.detach())
            u = torch.ones_like(V).requires_grad_()
            (slope,) = torch.autograd.grad((u * V).sum(), value, create_graph=True)
            return torch.autograd.grad(slope, u)[0]

    def _autograd_works(self) -> bool:
        """Whether the formula lets a tensor through and gives what the difference gives."""
        shape = (32, self.potential.n_particles, self.potential.n_dims)
        r = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        difference = self._difference(r)
        try:
            with warnings.catch_warnings(action="ignore"):  # torch's, where a formula takes a number out of the tensor
                tangent = self._tangent(r)
        except Exception:  # whatever a plug-in does to a field that is not a float: math.sqrt, int(), a dictionary key
            return False
        scale = difference.abs().max() + 1e-9 * self.potential(r).abs().max()
        return tangent.shape == difference.shape and bool(((tangent - difference).abs() < 1e-6 * scale).all())


# -- histograms --------------------------------------------------------------------------------------------------------


def density(potential: Potential, walkers: Positions | None = None, n_bins: int = N_BINS) -> Observable:
    """The density n of a particle: of x on a line (or ring), of the distance from the origin in more dimensions.

        int n(x) dx = 1,            int n(r) S_d r^(d-1) dr = 1,        S_d the surface of the unit sphere

    Args:
        potential: gives dimensions and box.
        walkers: (batch, particle, dim) typical positions, which the bins are laid out for.
        n_bins: how many.

    Example:
        >>> from fkdrift.hamiltonian.loading import load_potential
        >>> n = density(load_potential("harmonic"), torch.linspace(-3, 3, 100)[:, None, None])
        >>> len(n.centres), round(n(torch.zeros(1, 1, 1)).sum().item() * (n.centres[1] - n.centres[0]), 6)
        (64, 1.0)
    """
    typical, dim = _typical(potential, walkers), potential.n_dims
    if dim == 1:
        if potential.box is not None:
            low, high = 0.0, potential.box[0]
        else:
            middle = typical.double().mean().item()
            reach = RANGE * (typical - middle).abs().max().item()
            low, high = middle - reach, middle + reach
        wrap = _wrapper(potential)
        return _histogram(DENSITY, "1 / length", "x", lambda r: wrap(r)[..., 0], low, high, n_bins, None)
    reach = RANGE * distance(typical).max().item()
    return _histogram(DENSITY, f"1 / length^{dim}", "r", distance, 0.0, reach, n_bins, dim)


def pair_correlation(potential: Potential, walkers: Positions | None = None, n_bins: int = N_BINS) -> Observable:
    """g(r): how the distance between two particles is distributed, relative to the volume it can have.

        open space:   int g(r) S_d r^(d-1) dr = 1            box of volume L^d:   g = 1 without correlations

    Args:
        potential: gives particles, dimensions and box; distances in a box are to the nearest image.
        walkers, n_bins: as for `density`.

    Raises:
        BadParameter: there is only one particle.
    """
    if potential.n_particles < 2:
        raise BadParameter(f"g(r) needs two particles, and {potential.name} has one: use density")
    dim, separation = potential.n_dims, _separation(potential)
    if potential.box is not None:
        reach, factor, unit = min(potential.box) / 2, math.prod(potential.box), ""
    else:
        reach = RANGE * separation(_typical(potential, walkers)).max().item()
        factor, unit = 1.0, f"1 / length^{dim}"
    return _histogram("g(r)", unit, "r", separation, 0.0, reach, n_bins, dim, factor)


def structure_factor(potential: Potential, n_bins: int = 24) -> Observable:
    """S(k) = < |sum_j exp(i k . r_j)|^2 > / N in a box, averaged over the vectors k of equal length that it allows.

    Args:
        potential: of particles in a cubic box.
        n_bins: how many lengths, from 2 pi / L on.

    Raises:
        BadParameter: open space, or a box with unequal sides.
    """
    if potential.box is None or len(set(potential.box)) > 1:
        raise BadParameter(f"S(k) needs a periodic box with equal sides, and {potential.name} has none")
    reach = range(-math.isqrt(2 * n_bins), math.isqrt(2 * n_bins) + 1)
    shells: dict[int, list[tuple[int, ...]]] = {}
    for n in itertools.product(reach, repeat=potential.n_dims):
        if n > (0,) * potential.n_dims:  # one of k and -k
            shells.setdefault(sum(c * c for c in n), []).append(n)
    squares = sorted(square for square in shells if square <= reach[-1] ** 2)[:n_bins]
    unit = 2 * math.pi / potential.box[0]

    def function(r: Tensor) -> Tensor:
        columns = []
        for square in squares:
            phase = unit * r @ r.new_tensor(shells[square]).T
            columns.append((phase.cos().sum(1).square() + phase.sin().sum(1).square()).mean(-1) / r.shape[1])
        return torch.stack(columns, -1)

    return Observable("S(k)", "", function, tuple(unit * square**0.5 for square in squares), "k")


def _histogram(
    name: str,
    unit: str,
    axis: str,
    coordinate: Callable[[Tensor], Tensor],
    low: float,
    high: float,
    n_bins: int,
    dim: int | None,
    factor: float = 1.0,
) -> Observable:
    """The density of a coordinate (batch, value); of a distance, with dim given, per volume of its shell."""
    edges = [low + (high - low) * k / n_bins for k in range(n_bins + 1)]
    if dim is None:
        volume = [(high - low) / n_bins] * n_bins
    else:
        ball = math.pi ** (dim / 2) / math.gamma(dim / 2 + 1)
        volume = [ball * (b**dim - a**dim) for a, b in itertools.pairwise(edges)]

    def function(r: Tensor) -> Tensor:
        value = coordinate(r)
        index = ((value - low) * (n_bins / (high - low))).floor()
        inside = (index >= 0) & (index < n_bins)
        counts = value.new_zeros(len(r), n_bins).scatter_add(
            1, index.clamp(0, n_bins - 1).long(), inside.to(value.dtype) / value.shape[1]
        )
        return factor * counts / counts.new_tensor(volume)

    centres = tuple((a + b) / 2 for a, b in itertools.pairwise(edges))
    return Observable(name, unit, function, centres, axis)


def _wrapper(potential: Potential) -> Callable[[Tensor], Tensor]:
    box = potential.box
    return (lambda r: r) if box is None else (lambda r: r.remainder(r.new_tensor(box)))


def _separation(potential: Potential) -> Callable[[Tensor], Tensor]:
    """All pair distances (batch, pair), to the nearest image in a box."""

    def function(r: Tensor) -> Tensor:
        return distance(nearest_image(pair_vectors(r), potential.box))

    return function


# -- by formula --------------------------------------------------------------------------------------------------------


def parse_observable(text: str, potential: Potential, walkers: Positions | None = None) -> Observable:
    """An observable from its name or a formula.

    Names: V, density, g(r), S(k), and dE/dlam (or dV/dlam, which is the same) for a parameter lam.  A formula uses

        x, y, z, r        of one particle, averaged over all particles
        x1, y1, z1, r1    of a certain particle, counted from 1
        r12               the distance of particles 1 and 2 (r1_12 from ten particles on)

    and what `FormulaPotential` allows; `file.py:NAME` is an `Observable`, or a function of positions, of your own.
    Where the particles named are among identical ones, it is averaged over all choices of them: "r12" of four bosons
    is the mean over their six pairs.

    Args:
        text: name or formula.
        potential: whose positions it is a function of.
        walkers: (batch, particle, dim) typical positions, which histograms are laid out for.

    Raises:
        BadFormula: it is neither; the message marks the place.
        BadParameter: a derivative by something that is no parameter; g(r) of one particle.

    Example:
        >>> from fkdrift.hamiltonian.loading import load_potential
        >>> r12 = parse_observable("r12", load_potential("helium"))
        >>> r12(torch.tensor([[[0.0, 0.0, 0.0], [0.0, 3.0, 4.0]]]))
        tensor([5.])
    """
    name = text.strip()
    if name == "V":
        return potential_energy(potential)
    if name == DENSITY:
        return density(potential, walkers)
    if name in ("g(r)", "pair_correlation"):
        return pair_correlation(potential, walkers)
    if name == "S(k)":
        return structure_factor(potential)
    if match := re.fullmatch(r"d([VE])/d(\w+)", name):
        return parameter_derivative(potential, match[2], of=match[1])
    if is_own(name):
        own = from_file(*name.split(":"))
        return own if isinstance(own, Observable) else Observable(name.partition(":")[2], "", own)
    return _by_formula(name, potential)


def parse_observables(
    texts: Sequence[str], potential: Potential, walkers: Positions | None = None
) -> tuple[Observable, ...]:
    """The standard observables and those asked for, each once.  E_L, T and virial are always there.

    Raises:
        BadFormula, BadParameter: as `parse_observable`.
    """
    typical = _typical(potential, walkers)
    chosen = {each.name: each for each in standard_observables(potential, typical)}
    for text in texts:
        if text.strip() not in DERIVED:
            observable = parse_observable(text, potential, typical)
            chosen.setdefault(observable.name, observable)
    return tuple(chosen.values())


def _by_formula(text: str, potential: Potential) -> Observable:
    n, dim = potential.n_particles, potential.n_dims
    one = (*AXES[:dim], "r") if dim <= len(AXES) else ("r",)
    numbered = {f"{axis}{i + 1}": (i,) for i in range(n) for axis in one}
    pairs = {
        (f"r{i + 1}{j + 1}" if n < 10 else f"r{i + 1}_{j + 1}"): (i, j) for i in range(n) for j in range(n) if i != j
    }
    particles = numbered | pairs
    formula, used = translate(text, (*one, *particles))
    named = sorted({i for name in used if name in particles for i in particles[name]})
    if named and used & set(one):
        raise BadFormula(
            f"{text!r} mixes {', '.join(sorted(used & set(one)))}, of every particle in turn, with numbered "
            f"particles: write {', '.join(name + '1' for name in sorted(used & set(one)))}"
        )
    choices = _choices(named, potential) if named else [(i,) for i in range(n)]
    place = {particle: k for k, particle in enumerate(named)}
    wrap = _wrapper(potential)

    def function(r: Tensor) -> Tensor:
        chosen = r[:, torch.tensor(choices, device=r.device)]  # (batch, choice, particle of the formula, dim)
        values = {}
        for name in used:
            members = [place[i] for i in particles[name]] if named else [0]
            if len(members) == 2:
                values[name] = distance(
                    nearest_image(chosen[:, :, members[0]] - chosen[:, :, members[1]], potential.box)
                )
            else:
                position = wrap(chosen[:, :, members[0]])
                values[name] = distance(position) if name[0] == "r" else position[..., AXES.index(name[0])]
        return formula(values).mean(1)

    return Observable(text, _unit(text), function)


MOST_CHOICES = 1000


def _choices(named: list[int], potential: Potential) -> list[tuple[int, ...]]:
    """All ways to choose, for the particles of a formula, others that are identical to them."""
    group = {i: members for members in potential.groups for i in members}
    if math.prod(len(group[i]) for i in named) > MOST_CHOICES:
        return [tuple(named)]
    return [c for c in itertools.product(*(group[i] for i in named)) if len(set(c)) == len(c)]


def _unit(text: str) -> str:
    """The unit of a power of a length; of anything else, a formula in lengths."""
    match = re.fullmatch(r"[xyzr]\d*(?:_\d+)?(?:\s*\*\*\s*(\d+))?", text)
    if match:
        return "length" if match[1] in (None, "1") else f"length^{match[1]}"
    if re.fullmatch(r"1\s*/\s*r\d*(?:_\d+)?", text):
        return "1 / length"
    return "of the formula, lengths in the units of V"
