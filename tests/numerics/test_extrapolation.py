"""Extrapolation to zero step: the error knows how far the model can be trusted."""

import math

import pytest
import torch

from fkdrift.errors import BadParameter
from fkdrift.numerics.estimates import Estimate
from fkdrift.numerics.extrapolation import extrapolate
from tests.systems import generator

STEPS = (0.4, 0.2, 0.1)


def test_exact_energies_are_fitted_exactly() -> None:
    energies = [Estimate(2.0 + 0.3 * dt - 0.7 * dt**2, 1e-7) for dt in STEPS]
    fit = extrapolate(STEPS, energies, curvature_scale=10.0)
    assert abs(fit.value.mean - 2.0) < 1e-5
    assert abs(fit.slope - 0.3) < 1e-4
    assert abs(fit.curvature + 0.7) < 1e-3


def test_error_lies_between_the_mean_and_a_free_fit() -> None:
    """Without bias the error is that of a weighted mean, with nothing known that of the line."""
    energies = [Estimate(1.0, 0.01)] * 3
    none = extrapolate(STEPS, energies, slope_scale=0.0).value
    some = extrapolate(STEPS, energies, slope_scale=0.05).value
    line = extrapolate(STEPS, energies).value
    assert abs(none.error - 0.01 / math.sqrt(3)) < 1e-5
    x = torch.tensor(STEPS)
    expected = 0.01 * math.sqrt(x.square().sum() / (3 * x.square().sum() - x.sum() ** 2))
    assert abs(line.error - expected) < 1e-5
    assert none.error < some.error < line.error


def test_claimed_errors_cover() -> None:
    """Slopes and curvatures drawn from their priors and noisy energies: the values at zero step scatter as claimed."""
    z = []
    for noise in torch.randn((400, 5), generator=generator(), dtype=torch.float64).tolist():
        a, b = 0.2 + 0.1 * noise[0], 0.5 * noise[1]
        energies = [Estimate(1 + a * dt + b * dt**2 + 0.01 * n, 0.01) for dt, n in zip(STEPS, noise[2:], strict=True)]
        fit = extrapolate(STEPS, energies, slope=0.2, slope_scale=0.1, curvature_scale=0.5)
        z.append(fit.value.deviation(1.0))
    assert abs(sum(x**2 for x in z) / 400 - 1) < 4 * math.sqrt(2 / 400)
    assert abs(sum(z) / 20) < 4


def test_a_bad_fit_is_improbable() -> None:
    energies = [Estimate(1.0, 0.01), Estimate(1.3, 0.01), Estimate(1.0, 0.01)]
    assert extrapolate(STEPS, energies).probability < 1e-6
    assert extrapolate(STEPS, [Estimate(1.0, 0.01)] * 3).probability > 0.99


@pytest.mark.parametrize(
    ("steps", "energies"),
    [((0.1,), [Estimate(1.0, 0.1)]), ((0.1, 0.1), [Estimate(1.0, 0.1)] * 2), (STEPS, [Estimate(math.nan, 0.1)] * 3)],
)
def test_what_cannot_be_fitted(steps: tuple[float, ...], energies: list[Estimate]) -> None:
    with pytest.raises(BadParameter, match="two different steps"):
        extrapolate(steps, energies)
