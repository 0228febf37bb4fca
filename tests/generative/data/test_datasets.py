"""Data are checked at the door, split once, and distorted without a change of what they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fkdrift.errors import BadConfig, BadParameter, MissingExtra
from fkdrift.generative.data import datasets as sources
from fkdrift.generative.data.datasets import blank, check_range, dataset, load_data, split
from fkdrift.generative.data.images import distort
from fkdrift.runs.recipes.markov import MarkovSettings
from fkdrift.runs.recipes.vae import AutoencoderSettings, resolve


def numbers(n=50, size=4, seed=0):
    return np.random.default_rng(seed).normal(size=(n, size))


def test_digits():
    data = load_data("digits")
    assert (data.train.shape, data.test.shape) == ((1497, 64), (300, 64))
    assert (data.n_levels, data.shape, data.is_image) == (17, (8, 8), True)
    assert data.train.min() == 0
    assert data.train.max() == 16
    counts = torch.bincount(data.test_labels)
    assert counts.min() >= 28
    assert counts.max() <= 32


@pytest.mark.slow
def test_mnist5k_is_binary_split_evenly_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = load_data("mnist5k")
    assert (data.train.shape, data.test.shape) == ((4000, 784), (1000, 784))
    assert torch.equal(data.train.unique(), torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert torch.bincount(data.test_labels).tolist() == [100] * 10
    assert torch.bincount(data.train_labels).tolist() == [400] * 10
    assert torch.equal(data.prepare(data.originals, torch.Generator()), data.train)
    kept = tmp_path / "fkdrift" / "mnist5k.npz"
    assert kept.stat().st_size < 2_000_000
    monkeypatch.setattr(sources, "require_extra", None)  # the copy is used from now on
    assert load_data("mnist5k").digest == data.digest
    kept.write_bytes(b"damaged")
    monkeypatch.undo()


def test_no_test_datum_is_learned_from():
    for labels in (None, torch.arange(100) % 7):
        train, test = split(100, 21, labels)
        assert (len(train), len(test)) == (79, 21)
        assert torch.equal(torch.cat([train, test]).sort().values, torch.arange(100))
        again = split(100, 21, labels)
        assert torch.equal(test, again[1])
    assert torch.bincount(labels[test]).tolist() == [3] * 7


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((0, 3)), "too few"),
        (np.zeros((1, 3)), "too few"),
        (np.zeros((5, 0)), "too few"),
        (np.zeros(5), "no axis of components"),
        (np.full((5, 2), np.nan), "5 of 5 data have NaN"),
        (np.array([[1.0], [np.inf], [2.0]]), "item 1 first"),
        (np.zeros((5, 2), complex), "real numbers"),
        (np.array([["a"], ["b"]]), "real numbers"),
        (np.array([[0], [-1]]), "go from -1"),
    ],
)
def test_data_that_cannot_be_learned_from(x, words):
    with pytest.raises(BadParameter, match=words):
        dataset(x)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros(4), r"do not match 50 data"),
        (np.full(50, 0.5), "whole numbers"),
        (np.arange(50) % 3 * 2, r"\[0, 2, 4\]: number them anew"),
        (np.arange(50) % 3 + 1, r"none left out"),
        (np.full(50, "a"), "whole numbers"),
    ],
)
def test_labels_that_are_no_classes(labels, words):
    with pytest.raises(BadParameter, match=words):
        dataset(numbers(), labels)


def test_levels():
    whole = np.arange(12).reshape(6, 2)
    assert dataset(whole).n_levels == 12
    assert dataset(whole.astype(float)).n_levels is None
    assert dataset(whole % 2 == 0).n_levels == 2
    with pytest.raises(BadParameter, match=r"have to be 0 ... 9, and these go from 0 to 11"):
        dataset(whole, n_levels=10)
    assert check_range(dataset(whole.astype(float)), "categorical") == 12
    with pytest.raises(BadParameter, match=r"whole numbers, and there is"):
        check_range(dataset(whole + 0.25), "categorical")
    with pytest.raises(BadParameter, match="Bernoulli decoder takes 0 and 1"):
        check_range(dataset(whole), "bernoulli")


def test_settings_follow_the_data():
    kind = AutoencoderSettings
    assert resolve(kind(), load_data("digits")).decoder == "beta-binomial"
    assert resolve(kind(), dataset(numbers())).decoder == "gaussian"
    assert resolve(kind(), dataset(numbers() > 0)).decoder == "bernoulli"
    with pytest.raises(BadParameter, match="Bernoulli"):
        resolve(kind(decoder="bernoulli"), load_data("digits"))
    with pytest.raises(BadConfig, match="no images"):
        resolve(kind(network="conv"), dataset(numbers()))
    with pytest.raises(BadConfig, match="beta"):
        resolve(kind(beta=2.0, samples=4), dataset(numbers()))


@pytest.mark.parametrize("options", [{"encoder": "lstm"}, {"latents": 0}, {"width": -1}, {"beta": float("nan")},
                                     {"latents": 2.5}, {"decoder": "mse"}])  # fmt: skip
def test_settings_out_of_range(options):
    with pytest.raises(BadConfig, match="is not allowed"):
        AutoencoderSettings(**options)


def test_markov_settings():
    with pytest.raises(BadConfig, match="upper"):
        MarkovSettings(upper=())
    with pytest.raises(BadConfig, match="set every upper to latents"):
        MarkovSettings(latents=5, upper=(4,), decay=0.5)
    assert MarkovSettings(latents=5, upper=[5, 5], decay=0.5).upper == (5, 5)
    with pytest.raises(BadConfig, match="3 values of kernels do not fit 2 steps"):
        MarkovSettings(upper=(4, 3), kernels=("full", "diagonal", "full"))
    for options in ({"hold": 1.0}, {"hold": 1.0, "decay": 0.5, "latents": 20, "samples": 3}):
        with pytest.raises(BadConfig, match="hold goes with a decay"):
            MarkovSettings(**options)


def test_files(tmp_path):
    np.save(tmp_path / "x.npy", numbers())
    data = load_data(tmp_path / "x.npy")
    assert data.size == 4
    assert torch.equal(torch.cat([data.train, data.test]).sort(0).values, torch.from_numpy(numbers()).sort(0).values)
    (tmp_path / "bad.npy").write_bytes(b"not an array")
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name, words in (("missing", "no file"), ("bad", "cannot read"), ("object", "cannot read")):
        with pytest.raises(BadParameter, match=words):
            load_data(tmp_path / f"{name}.npy")
    with pytest.raises(BadParameter, match="choose from digits, mnist5k"):
        load_data("cifar")


def test_archives(tmp_path):
    x, classes = numbers(), np.arange(50) % 3
    np.savez(tmp_path / "all.npz", data=x, other=x[:, :2], kind=classes, times=np.arange(4) ** 2)
    np.savez(tmp_path / "two.npz", a=x, b=x)
    np.savez(tmp_path / "one.npz", a=x, labels=classes)
    data = load_data(tmp_path / "all.npz", "kind")
    assert (data.size, data.n_classes, data.times, data.labelled) == (4, 3, (0.0, 1.0, 4.0, 9.0), "kind")
    assert torch.allclose(data.class_shares.double(), torch.full((3,), 1 / 3).double(), atol=0.02)
    again = blank(data.describe())
    assert (again.n_classes, again.times, again.describe()) == (3, data.times, data.describe())
    assert load_data(tmp_path / "one.npz", "labels").digest != load_data(tmp_path / "one.npz").digest
    assert load_data(f"{tmp_path / 'two.npz'}:b").size == 4
    np.save(tmp_path / "few.npy", classes[:40])
    for source, labels, words in [
        ("two.npz", None, r"no array 'data', but a, b: give .*two.npz:NAME"),
        ("all.npz", "sort", "no array 'sort', but data, other, kind, times"),
        ("all.npz:other", None, r"times of shape \(4,\) do not fit series of shape \(50, 2\)"),
        ("all.npz", tmp_path / "few.npy", r"labels of shape \(40,\) do not match 50 data"),
        ("few.npy", "kind", "or a name in the data's .npz"),
    ]:
        with pytest.raises(BadParameter, match=words):
            load_data(f"{tmp_path}/{source}", labels)
    with pytest.raises(BadParameter, match="classes of its own"):
        load_data("digits", "kind")


def test_what_is_a_picture():
    for shape, is_image in [((8, 8), True), ((5, 9), True), ((6, 8, 3), True), ((40, 2), False), ((4, 4, 2), False)]:
        assert dataset(np.zeros((3, *shape))).is_image is is_image


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtra, match=r"pip install 'fkdrift\[data\]'"):
        load_data("digits")


def test_blank_data_have_the_shape_and_nothing_else():
    data = load_data("digits")
    copy = blank(data.describe())
    assert (copy.size, copy.n_levels, copy.shape, copy.name) == (64, 17, (8, 8), "digits")
    assert not copy.train.any()
    assert copy.digest != data.digest


# -- distortions -------------------------------------------------------------------------------------------------------


def test_no_distortion_is_none():
    data = load_data("digits")
    assert distort(data.train, (8, 8), torch.Generator(), 0.0) is data.train
    same = data.prepare(data.train, torch.Generator(), 1e-6)
    assert torch.equal(same, data.train)


def test_distorted_images_are_still_data():
    data = load_data("digits")
    moved = data.prepare(data.train, torch.Generator().manual_seed(0), 1.0)
    assert moved.shape == data.train.shape
    assert torch.equal(moved, moved.round())
    assert 0 <= moved.min() <= moved.max() <= 16
    assert 0.02 < ((moved - data.train).square().mean() / data.train.var()).item() < 0.5
    again = data.prepare(data.train, torch.Generator().manual_seed(0), 1.0)
    assert torch.equal(moved, again)


def test_distortions_are_those_of_a_plane():
    """A smooth blob moves, on average, by nothing, and each one by the size that is asked for."""
    axis = torch.linspace(-1, 1, 29, dtype=torch.float64)[:-1] + 1 / 28
    blob = torch.exp(-8 * (axis[:, None] ** 2 + axis**2)).flatten()
    moved = distort(blob.expand(2000, -1), (28, 28), torch.Generator().manual_seed(0)).unflatten(1, (28, 28))
    total = moved.sum((1, 2))
    right = (moved.sum(1) * axis).sum(1) / total
    assert abs(right.mean()) < 4 * 0.045 / 2000**0.5
    assert right.std() == pytest.approx(0.045, rel=0.1)
