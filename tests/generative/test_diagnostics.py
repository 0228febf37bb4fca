"""Diagnostics of models whose latents are known exactly."""

from __future__ import annotations

import math

import pytest
import torch

from fkdrift.errors import BadParameter
from fkdrift.generative.diagnostics import energy_distance, latent_use, mutual_information, overlaps
from fkdrift.generative.linear import copula, principal_components
from fkdrift.generative.markov import MarkovAutoencoder

CHAIN = torch.diag(torch.tensor([0.9, 0.6349, 0.4768, 0.3], dtype=torch.float64))


@pytest.fixture
def data():
    """Four independent coordinates with the variances of a harmonic chain's modes, turned by a rotation."""
    g = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=g)).Q
    return torch.randn(4000, 4, dtype=torch.float64, generator=g) @ CHAIN.sqrt() @ turn.T, turn


def test_the_energy_distance_of_normal_numbers():
    """In one dimension 2 E|x - y| - E|x - x'| - E|y - y'| is known, and the spread of 100 repetitions is the error.

    Where there is no difference the mean influence of a datum vanishes, and the error is sqrt(2) times the spread.
    """
    g, shift, found = torch.Generator().manual_seed(0), 1.0, []
    for _ in range(100):
        x, y = torch.randn(2, 100, 1, generator=g, dtype=torch.float64)
        found.append((energy_distance(x, y + shift), energy_distance(x, y)))
    folded = 2 / math.sqrt(math.pi) * math.exp(-(shift**2) / 4) + shift * math.erf(shift / 2)
    known = ((2 * folded - 4 / math.sqrt(math.pi), 1.0), (0.0, 0.5**0.5))
    for pairs, (exact, spread) in zip(zip(*found, strict=True), known, strict=True):
        means, errors = torch.tensor([(pair.mean, pair.error) for pair in pairs]).T
        assert abs(means.mean() - exact) < 4 * means.std() / 10
        assert means.std() / errors.square().mean().sqrt() == pytest.approx(spread, abs=0.2)


def test_exact_model_has_half_the_log_of_its_variances(data):
    x, _ = data
    exact = principal_components(x, 3, noise=0.4)
    for full in (True, False):
        use = latent_use(exact.vae(full), x, torch.Generator().manual_seed(1))
        assert torch.allclose(use.unit_kl, exact.unit_kl, atol=1e-10)
        assert use.joint_kl.mean == pytest.approx(exact.unit_kl.sum().item(), abs=1e-10)
    assert use.n_active == 3


def test_collapsed_units_are_seen(data):
    x, _ = data
    exact = principal_components(x, 3, noise=0.55)
    use = latent_use(exact.vae(), x, torch.Generator().manual_seed(1))
    assert use.n_active == 2
    assert use.unit_kl[2] < 1e-12


def test_turned_latents_keep_the_joint_divergence_and_share_it_otherwise(data):
    x, _ = data
    exact = principal_components(x, 2, noise=0.4)
    s = math.sqrt(0.5)
    turned = exact.rotated(torch.tensor([[s, -s], [s, s]], dtype=torch.float64))
    use, other = (latent_use(m.vae(), x, torch.Generator().manual_seed(1)) for m in (exact, turned))
    assert other.joint_kl.mean == pytest.approx(use.joint_kl.mean, abs=1e-10)
    assert other.unit_kl[0].item() == pytest.approx(other.unit_kl[1].item(), abs=1e-10)
    assert other.unit_kl.sum() < use.unit_kl.sum() - 0.01


def test_columns_of_the_decoder_are_the_factors(data):
    x, turn = data
    exact = principal_components(x, 3, noise=0.4)
    found = overlaps(exact.loadings, turn)
    assert found.shape == (3, 4)
    assert (found[:, :3].diagonal() > 0.995).all()
    assert overlaps(torch.tensor([[2.0], [0.0]]), torch.tensor([[-1.0, 3.0], [0.0, 4.0]])).tolist() == [
        pytest.approx([1.0, 0.6])
    ]


def test_information_of_a_gaussian_channel():
    for correlation in (0.0, 0.6, 0.95):
        x = torch.randn(2048, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        model = copula(correlation)
        information = mutual_information(model.posterior(1, x), torch.Generator().manual_seed(2))
        assert information == pytest.approx(-math.log(1 - correlation**2) / 2, abs=0.06)
        assert information <= math.log(2048)


def test_information_stays_below_the_divergence_and_the_log_of_the_number(data):
    x, _ = data
    exact = principal_components(x, 3, noise=1e-6)
    for n in (16, 2048):
        use = latent_use(exact.vae(), x[:n], torch.Generator().manual_seed(1))
        assert use.information <= min(math.log(n) + 1e-9, use.joint_kl.mean + 4 * use.joint_kl.error)
    assert use.information > math.log(2048) - 0.1


def test_a_chain_has_no_one_divergence():
    vae = copula(0.5)
    chain = MarkovAutoencoder([vae.encoder] * 2, [vae.decoder] * 2, 1).double()
    with pytest.raises(BadParameter, match="chain of 2 latents"):
        latent_use(chain, torch.zeros(3, 1).double(), torch.Generator())
