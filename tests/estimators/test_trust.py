"""The verdict of trust: each test fails where it should, and only there."""

import dataclasses
import math

import pytest
import torch

from fkdrift.estimators.local_energy import starting_regions
from fkdrift.estimators.projection import ProjectedEnergy
from fkdrift.estimators.trust import (
    Verdict,
    at_most,
    energy_tests,
    excess_left,
    lower_bound,
    mixing_test,
    projection_tests,
)
from fkdrift.numerics.estimates import Estimate, r_hat
from fkdrift.numerics.extrapolation import extrapolate
from tests.systems import generator

STEPS = (0.1, 0.05, 0.025)
GOOD = [Estimate(0.5, 0.001)] * 3


def projected(**changes: object) -> ProjectedEnergy:
    fit = extrapolate(STEPS, GOOD, slope_scale=0.01)
    good = ProjectedEnergy(
        energy=fit.value,
        mixed=fit.value,
        growth=fit.value,
        variational=Estimate(0.51, 0.001),
        independent=False,
        variance=0.01,
        time_steps=STEPS,
        by_time_step=tuple(GOOD),
        growth_by_time_step=tuple(GOOD),
        fit=fit,
        population_bias=(Estimate(1e-4, 1e-5), Estimate(1e-5, 1e-5)),
        trend=Estimate(0.0, 0.001),
        effective_share=(0.9, 0.6),
        population_share=0.99,
        acceptance=(0.95, 0.98, 0.99),
        projection_time=6.0,
        counted_time=100.0,
        n_populations=16,
        n_walkers=128,
    )
    return dataclasses.replace(good, **changes)


def failed(tests: list) -> list[str]:
    return [test.name for test in tests if not test.passed]


def test_a_good_projection_is_trusted() -> None:
    verdict = Verdict(tuple(projection_tests(projected(), 1.0, 1.0)))
    assert verdict.trusted
    assert str(verdict).startswith("trusted: all")
    assert verdict.plain()["trusted"]
    assert not Verdict(()).trusted


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"trend": Estimate(0.01, 0.001)}, "first and second half"),
        ({"growth": Estimate(0.6, 0.001)}, "mixed and growth"),
        ({"population_bias": (Estimate(0.1, 0.01), Estimate(0.1, 0.01))}, "population bias"),
        ({"effective_share": (0.3, 0.01)}, "smallest effective share"),
        ({"population_share": 0.1}, "effective share of populations"),
        ({"projection_time": 3.0, "variational": Estimate(0.55, 0.001), "variance": 0.1}, "excess left"),
        ({"acceptance": (0.3, 0.5, 0.8)}, "acceptance"),
        ({"fit": extrapolate(STEPS, [Estimate(x, 0.001) for x in (0.5, 0.6, 0.5)])}, "probability of the fit"),
    ],
)
def test_what_is_wrong_is_named(change: dict, name: str) -> None:
    (found,) = failed(projection_tests(projected(**change), 1.0, 1.0))
    assert found.startswith(name)
    verdict = Verdict(tuple(projection_tests(projected(**change), 1.0, 1.0)))
    assert not verdict.trusted
    assert name in str(verdict)
    (entry,) = [test for test in verdict.plain()["tests"] if not test["passed"]]
    assert entry["remedy"]


def test_what_a_projection_leaves_of_the_excess_is_bounded_by_the_gap() -> None:
    """Two levels, E_0 = 0.5 and 0.5 + gap, and psi^2 with a hundredth of the upper one."""
    gap, T = 0.3, 5.0
    upper = 0.01 * math.exp(-gap * T)
    excess = gap * upper / (0.99 + upper)
    found = projected(
        energy=Estimate(0.5 + excess, 1e-4), variational=Estimate(0.5 + 0.01 * gap, 0.0), projection_time=T
    )
    assert excess_left(found, gap) * 1e-4 == pytest.approx(excess, rel=0.02)


def test_an_excess_is_not_above_the_variance_over_the_gap() -> None:
    """psi is exact to 1e-6, and a gap that is next to none leaves nothing that matters."""
    found = projected(variance=1e-12, projection_time=6.0)
    assert excess_left(found, 0.01) < 1e-6


def test_energies_must_lie_as_they_should() -> None:
    E = Estimate(1.0, 0.01)
    good = energy_tests(E, projected=Estimate(0.99, 0.01), path_action=E, standard_deviation=0.1, gap=1.0)
    assert len(good) == 3
    assert failed(good) == []
    assert failed(energy_tests(E, projected=Estimate(1.1, 0.01)))[0].startswith("projected energy not above")
    assert failed(energy_tests(E, path_action=Estimate(2.0, 0.1)))[0].startswith("path action")
    assert failed(energy_tests(E, path_action=Estimate(math.nan, math.nan)))
    assert failed(energy_tests(E, projected=E, standard_deviation=3.0, gap=1.0))[0].startswith("standard deviation")


def test_walkers_stuck_in_their_wells_have_not_mixed() -> None:
    x = torch.randn(4000, generator=generator())
    groups = torch.arange(4000) % 2
    assert mixing_test(r_hat(x, 1.0, groups)).passed
    apart = mixing_test(r_hat(x + 0.5 * groups, 1.0, groups))
    assert not apart.passed
    assert abs(apart.value - math.sqrt(1 + 0.0625)) < 0.02


def test_slow_walkers_of_one_density_count_as_mixed() -> None:
    """Walkers that hardly move scatter by themselves; that alone is no difference between groups."""
    assert r_hat(torch.randn(400, generator=generator()), 1.0, torch.arange(400) % 2) < 1.01


def test_a_walker_starts_in_one_of_four_regions() -> None:
    r = torch.tensor([[-9.0, 1.0, 0.0], [-9.0, -1.0, 0.1], [9.0, 1.0, -0.1], [9.0, -1.0, 0.0]])[:, None]
    assert sorted(starting_regions(r).tolist()) == [0, 1, 2, 3]
    assert starting_regions(r[..., :1]).unique().tolist() == [0, 1]


def test_temple_bounds_the_oscillator_from_below() -> None:
    for k in (0.7, 1.5, 2.0):
        E, variance = Estimate((k + 1 / k) / 4, 1e-6), (1 - k**2) ** 2 / (8 * k**2)
        bound = lower_bound(E, variance, 1.5)
        assert bound is not None
        assert bound.mean < 0.5 < E.mean
    assert lower_bound(Estimate(1.6, 0.0), 0.1, 1.5) is None


def test_numbers_that_are_none() -> None:
    assert not at_most("x", math.nan, 1.0, "").passed
    assert at_most("x", math.nan, 1.0, "").plain()["value"] is None
