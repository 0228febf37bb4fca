"""The verdict of trust: what must hold if an energy and its error are right, tested on plain numbers.

An error bar covers the noise.  Whether it covers everything else shows in how independent numbers of one run agree:
the projected energy lies below the variational one; the path action agrees with the variational energy; steps, halves
in time, populations and wells agree among themselves.  Each test has a value, a limit, and says what to do where it
fails.  A result is trusted when every test that could be made has passed.  `lower_bound` is Temple's,

    E_0  >=  E - Var(E_L) / (E_1 - E)                                  where E < E_1

Reference: G. Temple, Proc. R. Soc. Lond. A 119, 276 (1928); A. Vehtari, A. Gelman, D. Simpson, B. Carpenter and P.-C.
Buerkner, Bayesian Anal. 16, 667 (2021), on split R-hat.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fkdrift.errors import BadParameter
from fkdrift.estimators.projection import ProjectedEnergy
from fkdrift.numerics.estimates import Estimate

SIGNIFICANT = 3.0  # standard errors
IMPROBABLE = 1e-3
SPREAD_LIMIT = 1.0  # of the standard deviation of E_L, relative to the gap: beyond it few weighted walkers count
SHARE_LIMIT, POPULATION_LIMIT = 0.05, 0.5
ACCEPTANCE_LIMIT = 0.5
R_HAT_LIMIT = 1.02


@dataclass(frozen=True)
class Test:
    """One test of a result.

    Args:
        name: what must hold, in words.
        passed: whether it does.
        value, limit: the number tested, and the largest (or, as the name says, smallest) that passes.
        remedy: what to do where it fails.
    """

    name: str
    passed: bool
    value: float
    limit: float
    remedy: str

    __test__ = False  # not a test of pytest's

    def plain(self) -> dict[str, Any]:
        """As JSON values; the remedy only where it is needed."""
        value = self.value if math.isfinite(self.value) else None
        entry: dict[str, Any] = {"name": self.name, "passed": self.passed, "value": value, "limit": self.limit}
        return entry if self.passed else {**entry, "remedy": self.remedy}


@dataclass(frozen=True)
class Verdict:
    """All tests of a result.

    Example:
        >>> verdict = Verdict((at_most("halves agree", 4.2, 3.0, "sample longer"),))
        >>> print(verdict)
        not trusted: halves agree (4.2, limit 3): sample longer
    """

    tests: tuple[Test, ...]

    @property
    def trusted(self) -> bool:
        """Whether every test has passed, and there was one."""
        return bool(self.tests) and all(test.passed for test in self.tests)

    def plain(self) -> dict[str, Any]:
        """`result["trust"]`."""
        return {"verdict": str(self), "trusted": self.trusted, "tests": [test.plain() for test in self.tests]}

    def __str__(self) -> str:
        if self.trusted:
            return f"trusted: all {len(self.tests)} tests passed"
        failed = [test for test in self.tests if not test.passed]
        if not failed:
            return "not tested"
        reasons = "; ".join(f"{test.name} ({test.value:.3g}, limit {test.limit:g}): {test.remedy}" for test in failed)
        return f"not trusted: {reasons}"


def at_most(name: str, value: float, limit: float, remedy: str) -> Test:
    """A test that passes up to a limit; a value that is not a number fails."""
    return Test(name, bool(value <= limit), value, limit, remedy)


def at_least(name: str, value: float, limit: float, remedy: str) -> Test:
    """A test that passes from a limit on; a value that is not a number fails."""
    return Test(name, bool(value >= limit), value, limit, remedy)


def difference(first: Estimate, second: Estimate) -> float:
    """First minus second, in units of their independent errors (and of rounding, where both have next to none)."""
    rounding = 1e-7 * max(abs(first.mean), abs(second.mean))
    return (first.mean - second.mean) / max(math.hypot(first.error, second.error, rounding), 1e-300)


def energy_tests(
    variational: Estimate,
    *,
    projected: Estimate | None = None,
    path_action: Estimate | None = None,
    standard_deviation: float | None = None,
    gap: float | None = None,
) -> list[Test]:
    """How the energies of one run must lie.

    Args:
        variational: the mean local energy, or the path action of a free drift.
        projected: of the projection.
        path_action: extrapolated to zero step, of a process with a log psi.
        standard_deviation: of E_L over |psi|^2.
        gap: E_1 - E_0, or what stands for it.
    """
    tests = []
    if projected is not None:
        tests.append(
            at_most(
                "projected energy not above the variational one, in standard errors",
                difference(projected, variational),
                SIGNIFICANT,
                "smaller steps, or more blocks",
            )
        )
    if path_action is not None:
        finite = math.isfinite(path_action.mean) and math.isfinite(path_action.error)
        tests.append(
            at_most(
                "path action and local energy agree, in standard errors",
                abs(difference(path_action, variational)) if finite else math.nan,
                SIGNIFICANT,
                "the paths' steps are too long for this potential: a smaller path_step",
            )
        )
    if standard_deviation is not None and gap is not None and projected is not None:
        tests.append(
            at_most(
                "standard deviation of E_L against the gap",
                standard_deviation / gap,
                SPREAD_LIMIT,
                "more updates, or a wider network: the drift is far from the optimum",
            )
        )
    return tests


def projection_tests(found: ProjectedEnergy) -> list[Test]:
    """What must hold within a projection."""
    _, left = found.population_bias
    tests = [
        at_least(
            "probability of the fit to zero step",
            found.fit.probability,
            IMPROBABLE,
            "the steps are outside the range of the fit: shorter ones",
        ),
        at_most(
            "mixed and growth energies agree, in standard errors of either",
            abs(found.mixed.mean - found.growth.mean) / max(found.mixed.error, found.growth.error, 1e-300)
            if abs(found.mixed.mean - found.growth.mean) > 1e-6 * abs(found.mixed.mean)
            else 0.0,
            SIGNIFICANT,
            "smaller steps, or more walkers",
        ),
        at_most(
            "first and second half agree, in standard errors",
            abs(found.trend.mean) / max(found.trend.error, 1e-7 * abs(found.energy.mean), 1e-300),
            SIGNIFICANT,
            "still drifting: a longer projection time (a smaller gap), or more updates first",
        ),
        at_most(
            "population bias that is left, in errors of the energy",
            abs(left.mean) / max(found.energy.error, 1e-300),
            1.0,
            "more walkers in each population",
        ),
        at_least(
            "smallest effective share of a population",
            found.effective_share[1],
            SHARE_LIMIT,
            "populations collapse: more updates, so that the weights are more equal, or more walkers",
        ),
        at_least(
            "effective share of populations",
            found.population_share,
            POPULATION_LIMIT,
            "few populations carry the average: more walkers in each, or more updates first",
        ),
    ]
    if found.acceptance is not None:
        tests.append(
            at_least(
                "acceptance at the coarsest step",
                found.acceptance[0],
                ACCEPTANCE_LIMIT,
                "the steps are too long for this potential",
            )
        )
    return tests


def mixing_test(values: Tensor, groups: Tensor, name: str = "E_L") -> Test:
    """Whether walkers that started apart have come to sample the same density: split R-hat at most 1.02.

    Args:
        values: (time, walker) of E_L or of a coordinate, equilibration left out.
        groups: (walker,) which of the starting regions each walker began in.
        name: of what is tested.
    """
    return at_most(
        f"mixing of {name}, split R-hat over starting regions",
        split_r_hat(values, groups),
        R_HAT_LIMIT,
        "walkers have not mixed between wells: more blocks, or a longer time scale",
    )


def split_r_hat(values: Tensor, groups: Tensor) -> float:
    """sqrt(total variance / mean variance within), over the halves in time of every group; 1 when all are alike.

    The variance of the group means is reduced by what independent walkers would scatter by themselves, so that small
    groups do not count as different.

    Args:
        values: (time, walker).
        groups: (walker,) integers.

    Raises:
        BadParameter: fewer than two times or walkers.

    Example:
        >>> x = torch.randn((100, 64), generator=torch.Generator().manual_seed(0))
        >>> split_r_hat(x, torch.arange(64) // 32) < 1.01
        True
    """
    if values.ndim != 2 or min(values.shape) < 2:
        raise BadParameter(f"values of shape {tuple(values.shape)} cannot be split: give (time, walker), 2 of each")
    x = values.double()
    half = len(x) // 2
    means, within, noise, sizes = [], [], [], []
    for part in (x[:half], x[-half:]):
        for group in groups.unique():
            member = part[:, groups == group]
            if member.shape[1] < 2:
                continue
            means.append(member.mean())
            within.append(member.var())
            noise.append(member.mean(0).var() / member.shape[1])
            sizes.append(member.shape[1])
    weights = torch.tensor(sizes, dtype=torch.float64, device=x.device)
    weights = weights / weights.sum()
    m, w, n = torch.stack(means), (weights * torch.stack(within)).sum(), torch.stack(noise)
    between = (weights * (m - (weights * m).sum()).square()).sum() - (weights * (1 - weights) * n).sum()
    return math.sqrt(1 + max(0.0, between.item()) / max(w.item(), 1e-300))


def lower_bound(variational: Estimate, variance: float, first_excited: float) -> Estimate | None:
    """Temple's lower bound on E_0, or None where E is not below E_1.

    Args:
        variational: E, the mean local energy.
        variance: of E_L over |psi|^2.
        first_excited: E_1, or a lower bound on it.

    Example (oscillator, psi = exp(-0.75 x^2): E = 0.5417, Var = 0.0868; E_0 = 0.5):
        >>> round(lower_bound(Estimate(0.5417, 0.0), 0.0868, 1.5).mean, 4)
        0.4511
    """
    room = first_excited - variational.mean
    if not room > 0:
        return None
    slope = 1 - variance / room**2
    return Estimate(variational.mean - variance / room, abs(slope) * variational.error)


def remark_tests(remarks: Sequence[str]) -> list[Test]:
    """One failed test for each remark on the potential: metastable, not bound, unbounded below."""
    return [
        Test(remark, False, 1.0, 0.0, "see the remark: the energy may not be of a bound state") for remark in remarks
    ]
