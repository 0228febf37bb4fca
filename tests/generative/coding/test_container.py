"""Compressed files: the same data in a fresh process, bounded memory, and an error for everything that is not right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_chains import Autoregression, Correlated, LinearGaussian, Network

from fkdrift.errors import BadParameter, CannotWrite, CorruptStream, WrongModel
from fkdrift.generative.coding import compression, container
from fkdrift.generative.coding.compression import compress, decompress
from fkdrift.generative.coding.container import fingerprint
from fkdrift.runs.learning import learn

MODEL = Network()


def images(n: int, dtype: str = "uint8") -> np.ndarray:
    return MODEL.draw(n).numpy().astype(dtype)


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "images.fkdz"
    compress(images(50), MODEL, path)
    return path


FRESH = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from toy_chains import Network
from fkdrift.generative.coding.compression import decompress
assert np.array_equal(decompress(sys.argv[2], Network()), np.load(sys.argv[3]))
"""


def test_a_thousand_data_come_back_in_a_fresh_process(tmp_path):
    x = images(1000)
    np.save(tmp_path / "x.npy", x)
    result = compress(tmp_path / "x.npy", MODEL, tmp_path / "x.fkdz")
    assert (result.n_items, result.n_components) == (1000, 20)
    assert result.file_bytes == (tmp_path / "x.fkdz").stat().st_size
    assert 0 < 8 * result.file_bytes - result.net_bits - result.initial_bits < 8 * 400
    assert result.net_rate < result.gross_rate < 8 * x.nbytes / x.size
    script = [
        sys.executable,
        "-c",
        FRESH,
        str(Path(__file__).parents[2]),
        str(tmp_path / "x.fkdz"),
        str(tmp_path / "x.npy"),
    ]
    subprocess.run(script, check=True)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32", ">i2"])
def test_dtypes_are_kept(tmp_path, dtype):
    x = images(7, dtype)
    compress(x, MODEL, tmp_path / "x.fkdz")
    y = decompress(tmp_path / "x.fkdz", MODEL)
    assert y.dtype == x.dtype
    assert np.array_equal(x, y)


def test_images_keep_their_shape(tmp_path):
    x = images(30).reshape(30, 4, 5)
    compress(x, MODEL, tmp_path / "x.fkdz")
    assert np.array_equal(decompress(tmp_path / "x.fkdz", MODEL), x)


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_and_one_datum(tmp_path, n):
    compress(images(n), MODEL, tmp_path / "x.fkdz")
    decompress(tmp_path / "x.fkdz", MODEL, tmp_path / "y.npy")
    assert np.array_equal(np.load(tmp_path / "y.npy"), images(n))
    assert np.load(tmp_path / "y.npy").shape == (n, 20)


@pytest.mark.parametrize("model", [LinearGaussian(), Autoregression(5), Correlated(LinearGaussian())])
def test_continuous_data_on_a_step(tmp_path, model):
    x = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    compress(x, model, tmp_path / "x.fkdz", step=2.0**-7)
    y = decompress(tmp_path / "x.fkdz", model)
    assert y.dtype == np.float32
    assert np.array_equal(y, np.rint(x * 128) / 128)
    compress(y, model, tmp_path / "y.fkdz", step=2.0**-7)
    assert np.array_equal(decompress(tmp_path / "y.fkdz", model), y)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("vae", {"encoder": "full", "decoder": "beta-binomial", "width": 16}),
        ("vae", {"network": "conv", "decoder": "categorical", "width": 16}),
        ("vae", {"network": "linear", "decoder": "gaussian"}),
        ("markov", {"upper": (3, 2), "upper_width": (8,), "width": 16}),
    ],
)
def test_learned_models(tmp_path, model, options):
    x = np.random.default_rng(0).integers(0, 4, size=(150, 8, 8)).astype(np.uint8)
    learned = learn(model, x, latents=3, n_updates=5, batch_size=50, progress=False, **options)
    step = 0.25 if options.get("decoder") == "gaussian" else None
    for refine in (0, 2):
        compress(x, learned.model, tmp_path / "x.fkdz", step=step, refine=refine)
        assert np.array_equal(decompress(tmp_path / "x.fkdz", learned.model), x)


def test_bytes_are_coded_without_tables(tmp_path):
    """Images of 256 levels with a learned Laplace decoder, at the rate of its bound."""
    x = np.random.default_rng(0).normal(128, 20, (300, 8, 8)).clip(0, 255).astype(np.uint8)
    options = {"latents": 2, "width": 16, "n_updates": 150, "learning_rate": 0.01}
    learned = learn("vae", x, decoder="laplace", progress=False, **options)
    result = compress(learned.data.test.numpy().astype(np.uint8), learned.model, tmp_path / "x.fkdz")
    assert np.array_equal(decompress(tmp_path / "x.fkdz", learned.model), learned.data.test.numpy())
    assert result.net_rate == pytest.approx(learned.result["free_energy"]["test"]["bits_per_component"], rel=0.02)


def test_another_arithmetic_is_refused_before_decoding(packed, monkeypatch):
    monkeypatch.setattr(compression, "self_test", lambda chain: "another")
    with pytest.raises(CorruptStream, match="last digits"):
        decompress(packed, MODEL)


def test_blocks_are_read_and_written_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(compression, "SYMBOLS_PER_BLOCK", 20 * 64)
    x = images(500)
    np.save(tmp_path / "x.npy", x)
    seen: list[tuple[int, int]] = []
    compress(tmp_path / "x.npy", MODEL, tmp_path / "x.fkdz", progress=lambda *done: seen.append(done))
    assert seen[-1] == (500, 500)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    y = decompress(tmp_path / "x.fkdz", MODEL, tmp_path / "y.npy")
    assert isinstance(y, np.memmap)
    assert np.array_equal(x, y)
    data = (tmp_path / "x.fkdz").read_bytes()
    assert len(list(tmp_path.iterdir())) == 3, "no temporary file is left"
    header = container.PREFIX.unpack_from(data)[2] + container.PREFIX.size + container.HEADER_DIGEST
    ends, start = [header], header
    while start < len(data):
        start += container.BLOCK.size + container.BLOCK.unpack_from(data, start)[1] + container.DIGEST
        ends.append(start)
    assert len(ends) == 9
    swapped = data[: ends[0]] + data[ends[1] : ends[2]] + data[ends[0] : ends[1]] + data[ends[2] :]
    for wrong in (swapped, data[: ends[3]] + data[ends[4] :], data[: ends[-2]]):
        (tmp_path / "wrong.fkdz").write_bytes(wrong)
        with pytest.raises(CorruptStream):
            decompress(tmp_path / "wrong.fkdz", MODEL)


def test_a_stack_that_starves_gets_more(tmp_path, monkeypatch):
    x = images(200)
    compress(x, MODEL, tmp_path / "a.fkdz")
    monkeypatch.setattr(container, "INITIAL_WORDS", 2)
    compress(x, MODEL, tmp_path / "b.fkdz")
    for name in ("a.fkdz", "b.fkdz"):
        assert np.array_equal(decompress(tmp_path / name, MODEL), x)


def test_every_flipped_byte_is_noticed(packed, tmp_path):
    data = packed.read_bytes()
    for k in range(len(data)):
        wrong = bytearray(data)
        wrong[k] ^= 1 << k % 8
        (tmp_path / "wrong.fkdz").write_bytes(wrong)
        with pytest.raises(CorruptStream):
            decompress(tmp_path / "wrong.fkdz", MODEL)


def test_every_truncation_is_noticed(packed, tmp_path):
    data = packed.read_bytes()
    for k in range(len(data)):
        (tmp_path / "wrong.fkdz").write_bytes(data[:k])
        with pytest.raises(CorruptStream):
            decompress(tmp_path / "wrong.fkdz", MODEL, tmp_path / "y.npy")
        assert not (tmp_path / "y.npy").exists()
    (tmp_path / "wrong.fkdz").write_bytes(data + b"\0")
    with pytest.raises(CorruptStream, match="goes on after its last block"):
        decompress(tmp_path / "wrong.fkdz", MODEL)


def test_foreign_files_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", images(3))
    with pytest.raises(CorruptStream, match="does not begin with FKDZ"):
        decompress(tmp_path / "x.npy", MODEL)


def test_another_model_is_refused(packed):
    other = Network()
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1e-6
    assert fingerprint(Network()) == fingerprint(MODEL) != fingerprint(other)
    with pytest.raises(WrongModel, match="give the model that it was compressed with"):
        decompress(packed, other)
    assert fingerprint(torch.nn.Sequential(torch.nn.Tanh())) != fingerprint(torch.nn.Sequential(torch.nn.ReLU()))


def test_numbers_that_come_out_differently_are_no_data(packed, monkeypatch):
    """The digests are right, the model's arithmetic is not: as on another kind of machine."""
    with packed.open("rb") as file:
        header, _ = container.Header.read(file)
    monkeypatch.setattr(compression, "self_test", lambda chain: header.arithmetic)
    honest = Network.generative
    monkeypatch.setattr(Network, "generative", lambda self, t, z: honest(self, t, z * (1 + 1e-6)))
    with pytest.raises(CorruptStream, match="other numbers in decoding than in encoding"):
        decompress(packed, MODEL)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (np.full((3, 20), np.nan), "not finite"),
        (np.full((3, 20), 0.5), "give the step"),
        (np.full((3, 20), 2), "probabilities to 0 ... 1 only"),
        (np.full((3, 20), 1e12), "use a larger step"),
        (np.zeros(20), "no axis of components"),
        (np.zeros((3, 20), complex), "real numbers"),
        (np.zeros((3, 20), "U1"), "real numbers"),
        (np.zeros((3, 21)), "21 components each, but those of the model have 20"),
    ],
)
def test_data_that_cannot_be_coded(tmp_path, data, reason):
    with pytest.raises(BadParameter, match=reason):
        compress(data, MODEL, tmp_path / "x.fkdz")
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_read_or_written(tmp_path):
    (tmp_path / "x.npy").write_bytes(b"not an array")
    with pytest.raises(BadParameter, match=r"cannot read .* as a .npy file"):
        compress(tmp_path / "x.npy", MODEL, tmp_path / "x.fkdz")
    with pytest.raises(CannotWrite, match="choose another name"):
        compress(images(3), MODEL, tmp_path / "nowhere" / "x.fkdz")
    with pytest.raises(BadParameter, match="positive number"):
        compress(images(3).astype(float), MODEL, tmp_path / "x.fkdz", step=-1.0)
