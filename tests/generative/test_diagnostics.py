"""Diagnostics of models whose latents are known exactly."""

from __future__ import annotations

import math

import pytest
import torch

from fkdrift.errors import BadParameter
from fkdrift.generative.diagnostics import latent_use, mutual_information, overlaps
from fkdrift.generative.linear import copula, principal_components
from fkdrift.generative.markov import MarkovAutoencoder

CHAIN = torch.diag(torch.tensor([0.9, 0.6349, 0.4768, 0.3], dtype=torch.float64))


@pytest.fixture
def data():
    """Four independent coordinates with the variances of a harmonic chain's modes, turned by a rotation."""
    g = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=g)).Q
    return torch.randn(4000, 4, dtype=torch.float64, generator=g) @ CHAIN.sqrt() @ turn.T, turn


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
