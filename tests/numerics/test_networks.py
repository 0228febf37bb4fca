"""Networks have the shapes they promise, start from their seed, and see an image as an image."""

from __future__ import annotations

import math

import pytest
import torch

from fkdrift.generative.data.datasets import load_data
from fkdrift.numerics.networks import (
    MLP,
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    Standardise,
    seeded,
)
from fkdrift.runs.recipes.vae import AutoencoderSettings, build, resolve


@pytest.mark.parametrize("widths", [(), (8,), (8, 8, 6)])
def test_perceptron(widths):
    network = MLP(3, widths, 2)
    assert network(torch.zeros(5, 3)).shape == (5, 2)
    assert len(network.hidden) == len(widths)


def test_without_hidden_layers_it_is_affine():
    network = MLP(3, (), 2).double()
    x, y = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(network(x) + network(y) - network(x + y), network(torch.zeros(4, 3).double()), atol=1e-12)


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (9, 9), (5, 12), (6, 9, 3)])
def test_convolutions_read_and_write_images(shape):
    size = math.prod(shape)
    encoder = ConvolutionalEncoder(shape, (4, 6), 10, 7)
    decoder = ConvolutionalDecoder(7, 10, (6, 4), shape, n_planes=3)
    z = encoder(torch.zeros(2, size))
    assert z.shape == (2, 7)
    assert decoder(z).shape == (2, 3 * size)


def test_planes_come_one_by_one_or_pixel_by_pixel():
    with seeded(0):
        by_plane = ConvolutionalDecoder(2, 4, (4,), (4, 5, 3), n_planes=2)
    with seeded(0):
        by_pixel = ConvolutionalDecoder(2, 4, (4,), (4, 5, 3), n_planes=2, last_axis=True)
    z = torch.ones(1, 2)
    assert torch.equal(by_plane(z).view(2, 60), by_pixel(z).view(60, 2).T)


def test_a_seed_decides_and_the_global_generator_stays():
    before = torch.get_rng_state()
    networks = []
    for seed in (0, 0, 1):
        with seeded(seed):
            networks.append(MLP(3, (8,), 2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(networks[0].last.weight, networks[1].last.weight)
    assert not torch.equal(networks[0].last.weight, networks[2].last.weight)


def test_standardised_data_have_one_scale():
    x = torch.tensor([[0.0, 10.0], [2.0, 30.0]], dtype=torch.float64)
    y = Standardise(x)(x)
    assert torch.allclose(y.mean(0), torch.zeros(2).double())
    assert y.square().mean().item() == pytest.approx(1)
    assert (y[1, 1] / y[1, 0]).item() == pytest.approx(10)
    assert torch.isfinite(Standardise(torch.ones(3, 2))(torch.ones(3, 2))).all()


@pytest.mark.parametrize("network", ["mlp", "conv", "linear"])
@pytest.mark.parametrize("decoder", ["beta-binomial", "categorical", "gaussian"])
@pytest.mark.parametrize("encoder", ["diagonal", "full"])
def test_every_combination_of_settings_trains(network, decoder, encoder):
    data = load_data("digits").to(torch.float32, torch.device("cpu"))
    size = {} if network == "linear" else {"width": 8}
    settings = AutoencoderSettings(latents=3, network=network, decoder=decoder, encoder=encoder, **size)
    model = build(resolve(settings, data), data)
    free_energy = model.free_energy(data.train[:6], torch.Generator().manual_seed(0))
    free_energy.mean().backward()
    assert free_energy.shape == (6,)
    assert torch.isfinite(free_energy).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    assert sum(parameter.grad.abs().sum() for parameter in model.encoder.parameters()) > 0
