"""Correlations of the oscillator, and of a well whose psi is wrong, against closed forms and the exact spectrum."""

import math

import pytest

from fkdrift.errors import InputError
from fkdrift.estimators.correlation import CorrelationSampler
from fkdrift.estimators.observables import density, parse_observable
from fkdrift.paths.process import Process
from fkdrift.wavefunction.neural import NeuralWavefunction
from tests.systems import Stretched, generator, system_of


def follow(
    names: list[str], *, stretch: float = 0.0, n_walkers: int = 4096, n_blocks: int = 1, **options
) -> CorrelationSampler:
    """Windows of V = x^2 / 2 with psi = exp(-(1 + stretch) x^2 / 2), from walkers that are those of psi^2."""
    system, g = system_of("harmonic"), generator()
    observables = [parse_observable(name, system.potential) for name in names]
    walkers = system.initial_walkers(n_walkers, g) / (1 + stretch) ** 0.5
    process = Process(Stretched(system, stretch), system)
    sampler = CorrelationSampler(process, walkers, observables, time_scale=1.0, n_equilibration=0, **options)
    for _ in range(n_blocks):
        sampler.advance(g)
    return sampler


@pytest.fixture(scope="module")
def powers() -> CorrelationSampler:
    return follow(["x", "x**2", "x**3"], longest=4.0, n_lags=16, padding=1.0)


def test_position_in_the_oscillator(powers):
    """C = exp(-tau) / 2 within errors at every lag, and a susceptibility of 1."""
    sampler = powers
    for kind in ("variational", "pure"):
        found = sampler.correlation(kind)
        z = (found.mean[:, 0, 0] - (-found.times).exp() / 2) / found.error[:, 0, 0]
        assert z.abs().max() < 4.5
        assert abs(sampler.susceptibility(0, kind=kind).deviation(1.0)) < 4
        assert 0 < sampler.susceptibility(0, kind=kind).error < 0.1


def test_even_and_odd_observables_do_not_mix_and_have_their_own_gaps(powers):
    found = powers.correlation()
    assert (found.mean[:, 0, 1] / found.error[:, 0, 1]).abs().max() < 4.5
    first = powers.gaps()[0]
    for gap, exact in zip(first, (1.0, 2.0, 3.0), strict=True):
        assert abs(gap.mean - exact) < 4 * gap.error + 0.02 * exact


def test_weights_undo_a_wrong_psi():
    """psi too narrow by 30% relaxes at a rate of 1.3 instead of 1, and has <x^2> = 0.385 instead of 0.5."""
    sampler = follow(["x"], stretch=0.3, longest=2.0, n_lags=8, padding=3.0)
    at_0 = {kind: sampler.correlation(kind) for kind in ("variational", "pure")}
    assert at_0["variational"].mean[0, 0, 0] == pytest.approx(0.5 / 1.3, abs=0.02)
    pure = at_0["pure"]
    z = (pure.mean[:, 0, 0] - (-pure.times).exp() / 2) / pure.error[:, 0, 0]
    assert z.abs().max() < 4.5
    rate = {kind: sampler.gaps(kind)[0][0] for kind in at_0}
    of_a_step = -math.log(1 - 1.3 / 64) * 64
    assert abs(rate["variational"].deviation(of_a_step)) < 4
    assert rate["variational"].deviation(1.0) > 6
    assert abs(rate["pure"].deviation(1.0)) < 4


def test_comes_back_and_shows_itself():
    options = {"n_walkers": 64, "n_lags": 4, "longest": 1.0, "padding": 0.5}
    one, two = follow(["x"], **options), follow(["x"], n_blocks=0, **options)
    two.load_state_dict(one.state_dict())
    one.advance(generator(3))
    two.advance(generator(3))
    assert one.results() == two.results()
    assert len(one.results()["correlations"]["x"]["pure"]["mean"]) == 5


def test_what_cannot_be_correlated_is_refused():
    with pytest.raises(InputError, match="n_lags = 5 is not allowed"):
        follow(["x"], n_lags=5)
    with pytest.raises(InputError, match="8 walkers are too few"):
        follow(["x"], n_walkers=8)
    with pytest.raises(InputError, match="nothing to correlate"):
        follow([])
    system = system_of("harmonic")
    process = Process(NeuralWavefunction(system, width=4), system)
    walkers = system.initial_walkers(64, generator())
    with pytest.raises(InputError, match="density has many bins"):
        CorrelationSampler(process, walkers, [density(system.potential, walkers)], time_scale=1.0)
