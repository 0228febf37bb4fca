"""The verdict of trust: what must hold if an energy and its error are right, tested on plain numbers.

An error bar covers the noise.  Whether it covers everything else shows in how independent numbers of one run agree:
the projected energy lies below the variational one; the path action agrees with the variational energy; steps, halves
in time, populations and wells agree among themselves.  Each test has a value, a limit, and says what to do where it
fails.  A result is trusted when every test that could be made has passed.  `lower_bound` is Temple's,

    E_0  >=  E - Var(E_L) / (E_1 - E)                                  where E < E_1

Reference: G. Temple, Proc. R. Soc. Lond. A 119, 276 (1928).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fkdrift.estimators.projection import ProjectedEnergy
from fkdrift.numerics.estimates import Estimate

SIGNIFICANT = 3.0  # standard errors
IMPROBABLE = 1e-3
SPREAD_LIMIT = 1.0  # of the standard deviation of E_L, relative to the gap: beyond it few weighted walkers count
SHARE_LIMIT, POPULATION_LIMIT = 0.05, 0.5
ACCEPTANCE_LIMIT, SCALES_LIMIT = 0.5, 3.0
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
    r_hat: float | None = None,
) -> list[Test]:
    """How the energies of one run must lie.

    Args:
        variational: the mean local energy, or the path action of a free drift.
        projected: of the projection.
        path_action: extrapolated to zero step, of a process with a log psi.
        standard_deviation: of E_L over |psi|^2.
        gap: of the excitations within a well, 1 / time scale.
        r_hat: of E_L, over walkers that started apart.
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
                "standard deviation of E_L against the gap within a well",
                standard_deviation / gap,
                SPREAD_LIMIT,
                "more updates, or a wider network: the drift is far from the optimum",
            )
        )
    if r_hat is not None:
        tests.append(mixing_test(r_hat))
    return tests


def excess_left(found: ProjectedEnergy, gap: float) -> float:
    """The most that the projection time can have left of the variational excess, in errors of the projected energy.

    Of a small excess E_V - E_0 no more than exp(-gap T) of it is left after a time T, and E_V - E is the rest; the
    excess is at most Var(E_L) / gap.
    """
    if found.variational is None:
        return 0.0
    left = math.exp(-gap * found.projection_time)
    seen = max(found.variational.mean - found.energy.mean, found.energy.error)
    excess = min(seen / max(1 - left, 1e-300), found.variance / gap)
    return excess * left / max(found.energy.error, 1e-300)


def projection_tests(found: ProjectedEnergy, time_scale: float, gap: float) -> list[Test]:
    """What must hold within a projection, of a system with this time scale and this E_1 - E_0."""
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
    tests.append(
        at_least(
            "projection time in time scales",
            found.projection_time / time_scale,
            SCALES_LIMIT,
            "the steps are so short that projecting was cut off: more updates, or a wider network",
        )
    )
    tests.append(
        at_most(
            "excess left by the projection time, in errors of the energy",
            excess_left(found, gap),
            1.0,
            "more updates, so that the variational energy is lower, or a wider network",
        )
    )
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


def mixing_test(r_hat: float) -> Test:
    """Whether walkers that started apart found the same local energy: R-hat at most 1.02."""
    return at_most(
        "walkers that started apart find the same E_L, R-hat",
        r_hat,
        R_HAT_LIMIT,
        "walkers have not mixed between wells: more blocks, or more updates",
    )


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
