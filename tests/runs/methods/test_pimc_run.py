"""Runs of path integral Monte Carlo: what they print and save, resumed bit for bit, refused where they must be."""

from __future__ import annotations

import json
import math
from pathlib import Path

import jsonschema
import pytest
import torch

import fkdrift as fk
from fkdrift.errors import BadConfig, InputError
from fkdrift.estimators.path_integral import FOURTH_ORDER, oscillator_energy
from fkdrift.runs.driver import drive, load, resume, show
from fkdrift.runs.methods.pimc import Pimc, PimcSettings

SMALL = PimcSettings(temperature=0.5, n_slices=4, n_chains=8, n_blocks=4, n_equilibration=3)
SCHEMA = json.loads((Path(fk.__file__).parent / "runs" / "result.schema.json").read_text())


def test_an_oscillator_from_the_first_line_to_the_saved_folder(tmp_path):
    out = tmp_path / "warm"
    settings = PimcSettings(temperature=0.5, n_slices=8, n_blocks=30, n_equilibration=10)
    result = fk.pimc("harmonic", settings=settings, observables=["x**2"], out=out)
    exact = 0.5 / math.tanh(1.0)
    assert abs(result.energy.deviation(oscillator_energy(2.0, 8, FOURTH_ORDER))) < 3.5
    assert abs(result.thermal.observables["x**2"].estimate.deviation(exact)) < 3.5
    bias = oscillator_energy(2.0, 8, FOURTH_ORDER) - exact
    assert abs(result.slice_bias.deviation(bias)) < 3.5
    chains = result.beads().square().reshape(result.n_walkers, -1).mean(1)
    assert abs(float(chains.mean()) - exact) < 5 * float(chains.std()) / len(chains) ** 0.5
    saved = json.loads((out / "result.json").read_text())
    jsonschema.validate(saved, SCHEMA)
    assert saved["energies"]["exact"]["mean"] == pytest.approx(exact, abs=1e-8)
    assert saved["energies"]["exact"]["specific_heat"] == pytest.approx(1 / math.sinh(1.0) ** 2, abs=1e-6)
    assert (out / "figures" / "thermal.png").is_file()
    assert str(show(out)) == str(result)
    assert "x**2" in str(result)
    assert load(out).energy == result.energy


def test_bosons_print_their_permutations(tmp_path):
    result = fk.pimc("harmonic", n_particles=2, settings=SMALL, out=tmp_path / "two")
    assert "permutations" in str(result)
    assert set(result.thermal.observables) == {"density", "g(r)"}
    jsonschema.validate(json.loads((tmp_path / "two" / "result.json").read_text()), SCHEMA)


@pytest.mark.parametrize("stop", [2, 12])
def test_a_run_that_stopped_goes_on_bit_for_bit(tmp_path, stop):
    """Stopped while equilibrating, and in the phase with half the slices."""
    potential = fk.load_potential("harmonic", n_particles=2)
    whole = drive(Pimc(potential, SMALL))
    part = Pimc(potential, SMALL)
    for made, _ in enumerate(part.advance(), start=1):
        if made == stop:
            break
    part.save(tmp_path, figures=False)
    again = resume(tmp_path)
    assert again.energy == whole.energy
    assert again.slice_bias == whole.slice_bias
    assert torch.equal(again.fine.sampler.positions, whole.fine.sampler.positions)


@pytest.mark.parametrize("temperature", [0.0, -0.5, math.inf])
def test_temperatures_that_cannot_be_are_refused(temperature):
    with pytest.raises(BadConfig, match=r"temperature = .* above 1e-100"):
        fk.pimc("harmonic", temperature=temperature)


@pytest.mark.parametrize("n_slices", [0, -4, 5])
def test_numbers_of_slices_that_cannot_be_are_refused(n_slices):
    with pytest.raises(BadConfig, match=f"n_slices = {n_slices}"):
        fk.pimc("harmonic", temperature=1.0, n_slices=n_slices)


def test_other_bad_input_is_refused():
    with pytest.raises(BadConfig, match="n_chains = 1"):
        fk.pimc("harmonic", temperature=1.0, n_chains=1)
    with pytest.raises(BadConfig, match="action"):
        fk.pimc("harmonic", temperature=1.0, action="second-order")
    with pytest.raises(InputError, match="bounded below"):
        fk.pimc("hydrogen", temperature=1.0)
    with pytest.raises(InputError, match="x\\*\\*"):
        fk.pimc("harmonic", temperature=1.0, observables=["x**"])
