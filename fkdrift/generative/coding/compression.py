"""Compress data with a generative model, and get them back bit for bit.

    compress     data -> file, at -ELBO / ln 2 bits for each datum
    decompress   file -> the same data, or an error

Data are read and written block by block, so memory stays bounded however large the files are.  How the blocks are laid
out is in `container`, how they are coded in `bits_back`.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from torch import nn

from fkdrift.errors import BadParameter, CannotWrite, CorruptStream, WrongModel
from fkdrift.generative.chain import Chain
from fkdrift.generative.coding.bits_back import chain_of, self_test, shape_of_data
from fkdrift.generative.coding.codec import Grid
from fkdrift.generative.coding.container import DIGEST, Header, fingerprint, pack_block, unpack_block
from fkdrift.generative.coding.stack import Symbols
from fkdrift.generative.refinement import refined

SYMBOLS_PER_BLOCK = 1 << 22

OnProgress = Callable[[int, int], None]
"""Called with how many data are done and how many there are."""


@dataclass(frozen=True)
class Compression:
    """What compressing data gave.

    Args:
        n_items: number of data.
        n_components: numbers in each of them.
        file_bytes: length of the file.
        raw_bytes: length of the data in memory.
        net_bits: by how much the stacks grew.
        initial_bits: of pseudo-random bits that the first latents took, and that are in the file.
        seconds: of wall time.
    """

    n_items: int
    n_components: int
    file_bytes: int
    raw_bytes: int
    net_bits: int
    initial_bits: int
    seconds: float

    @property
    def net_rate(self) -> float:
        """Bits per component, without initial bits and headers; on average -ELBO / (ln 2 dim)."""
        return self.net_bits / max(1, self.n_items * self.n_components)

    @property
    def gross_rate(self) -> float:
        """Bits per component, of the whole file."""
        return 8 * self.file_bytes / max(1, self.n_items * self.n_components)

    def plain(self) -> dict[str, float]:
        """As JSON values."""
        return {**asdict(self), "net_rate": self.net_rate, "gross_rate": self.gross_rate}

    def __str__(self) -> str:
        ratio = self.raw_bytes / self.file_bytes
        speed = self.raw_bytes / 1e6 / max(self.seconds, 1e-9)
        return (
            f"{self.n_items} data of {self.n_components} components: {self.raw_bytes} to {self.file_bytes} bytes, "
            f"{ratio:.2f} to 1\n"
            f"net {self.net_rate:.4f} bits per component ({self.initial_bits} initial bits), "
            f"whole file {self.gross_rate:.4f}, {speed:.2f} MB/s"
        )


def compress(
    data: np.ndarray | Path | str, model: nn.Module, path: Path | str, *, step: float | None = None,
    refine: int = 0, progress: OnProgress | None = None,
) -> Compression:  # fmt: skip
    """Write data to a compressed file with a generative model, bits-back.

    Args:
        data: (n, ...) an array, or the name of a .npy file, which is read block by block; each datum is laid out flat.
        model: a VAE, Markov autoencoder or any `Chain` module.
        path: the file to write; it appears when it is complete.
        step: for continuous data: they are rounded to whole multiples of it, and zero has no sign; without meaning for
            discrete data.
        refine: steps by which q(z_1 | x) of a VAE or a Markov autoencoder is refined for each datum: fewer bits, and
            much more time in both directions.
        progress: told how far it is.

    Returns:
        Compression: sizes and rates.

    Raises:
        BadParameter: data that the model gives no probability to, that are not finite, or of another shape;
            continuous data without a step; or nothing to refine.
        CannotWrite: the file cannot be written.

    Example (normal numbers rounded to hundredths: log2(100 sqrt(2 pi e)) = 8.691 bits each):
        >>> x = np.random.default_rng(0).normal(size=(1000, 4))
        >>> model = fk.generative.principal_components(torch.from_numpy(x), n_latents=2).vae()
        >>> print(compress(x, model, "normal.fkdz", step=0.01))
        1000 data of 4 components: 32000 to 4605 bytes, 6.95 to 1
        net 8.6865 bits per component (64 initial bits), whole file 9.2100, ... MB/s
        >>> bool((abs(decompress("normal.fkdz", model) - x) < 0.0051).all())
        True
    """
    started = time.perf_counter()
    array = _open(data)
    path = Path(path)
    chain = refined(chain_of(_exact_copy(model)), refine)
    n_components, shape = int(np.prod(array.shape[1:])), shape_of_data(chain)
    if n_components != math.prod(shape):
        raise BadParameter(
            f"the data have shape {array.shape}, {n_components} components each, but those of the model have "
            f"{math.prod(shape)}"
        )
    size = max(1, SYMBOLS_PER_BLOCK // max(1, n_components))
    header = Header(array.shape, array.dtype.str, step, size, fingerprint(model), self_test(chain), refine)
    net = initial = 0
    with _writing(path), _replacing(path) as temporary, temporary.open("wb") as file:
        last = header.pack()
        file.write(last)
        for start in range(0, len(array), size):
            symbols, grid = _symbols(np.asarray(array[start : start + size]), step)
            symbols = symbols.reshape(-1, *shape)
            block = pack_block(chain, symbols, grid, last[-DIGEST:], _advance(progress, start, len(array)))
            net, initial = net + block.net_bits, initial + block.initial_bits
            last = block.data
            file.write(last)
        n_bytes = file.tell()
    seconds = time.perf_counter() - started
    return Compression(len(array), n_components, n_bytes, array.nbytes, net, initial, seconds)


def decompress(
    path: Path | str, model: nn.Module, out: Path | str | None = None, *, progress: OnProgress | None = None
) -> np.ndarray:
    """Read a file that `compress` wrote.

    Args:
        path: the file.
        model: the same model.
        out: the name of a .npy file to write, block by block; it appears when it is complete.  None: only returned.
        progress: told how far it is.

    Returns:
        The data with their shape and dtype; with `out`, mapped from that file.

    Raises:
        CorruptStream: not a compressed file, or damaged or truncated.
        WrongModel: written with another model.
        CannotWrite: `out` cannot be written.
    """
    path = Path(path)
    with path.open("rb") as file:
        header, last = Header.read(file)
        if header.model != fingerprint(model):
            raise WrongModel(
                f"{path} was written with another model (fingerprint {header.model[:12]}, this one has "
                f"{fingerprint(model)[:12]}): give the model that it was compressed with"
            )
        chain = refined(chain_of(_exact_copy(model)), header.refine)
        if header.arithmetic != self_test(chain):
            raise CorruptStream(
                f"{path} was written with torch {header.torch} where the model gives other numbers than here in the "
                "last digits, and cannot be decoded here: decode it on the kind of machine that wrote it"
            )
        if out is None:
            array = np.empty(header.shape, header.dtype)
            _read_blocks(file, chain, header, last, array, progress)
            return array
        out = Path(out)
        with _writing(out), _replacing(out) as temporary:
            array = _new_npy(temporary, header)
            _read_blocks(file, chain, header, last, array, progress)
            if isinstance(array, np.memmap):
                array.flush()
        return np.load(out, mmap_mode="r" if array.size else None)


def _read_blocks(
    file: BinaryIO, chain: Chain, header: Header, last: bytes, array: np.ndarray, progress: OnProgress | None
) -> None:
    """Decode all blocks into the array."""
    for start in range(0, len(array), header.block):
        n = min(header.block, len(array) - start)
        symbols, grid, last = unpack_block(file, chain, n, header.step, last, _advance(progress, start, len(array)))
        values = symbols if grid is None else grid.values(symbols)
        array[start : start + n] = values.reshape(n, *array.shape[1:])
    if file.read(1):
        raise CorruptStream("the compressed file goes on after its last block: it is damaged")


def _open(data: np.ndarray | Path | str) -> np.ndarray:
    """The data, mapped if they are in a file."""
    if not isinstance(data, np.ndarray):
        try:
            data = np.load(data, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            reason = "it holds no numbers" if "pickle" in str(error) else (str(error) or "it is empty").splitlines()[0]
            raise BadParameter(f"cannot read {data} as a .npy file: {reason}") from None
        if not isinstance(data, np.ndarray):
            raise BadParameter("the data are an archive of several arrays: give a .npy file with one")
    if data.ndim < 2:
        raise BadParameter(f"data of shape {data.shape} have no axis of components: the shape has to be (n, ...)")
    return data


def _exact_copy(model: nn.Module) -> nn.Module:
    """The model in double precision on the CPU, in evaluation mode."""
    return copy.deepcopy(model).cpu().double().eval()


def _symbols(block: np.ndarray, step: float | None) -> tuple[Symbols, Grid | None]:
    """Data as whole numbers: as they are, or in units of the step."""
    if not (np.issubdtype(block.dtype, np.number) or block.dtype == bool) or np.iscomplexobj(block):
        raise BadParameter(f"data of dtype {block.dtype} cannot be compressed: they have to be real numbers")
    values = block.astype(np.float64)
    if not np.isfinite(values).all():
        raise BadParameter("the data have entries that are not finite: remove them first")
    if step is not None and not (np.isfinite(step) and step > 0):
        raise BadParameter(f"the step is {step}: it has to be a positive number")
    k = np.rint(values if step is None else values / step)
    if step is None and (k != values).any():
        raise BadParameter("the data are not whole numbers: give the step to which they may be rounded")
    if step is None and (np.signbit(values) & (values == 0)).any():
        raise BadParameter(
            "the data have zeros with a minus sign, which would come back without it: add 0.0 to the data"
        )
    if (abs(k) > 2**30).any():
        raise BadParameter(f"data as large as {abs(values).max():.3g} cannot be coded: use a larger step")
    symbols = k.astype(np.int32)
    if step is None:
        return symbols, None
    low, high = (int(symbols.min()), int(symbols.max())) if symbols.size else (0, 0)
    return symbols, Grid(step, low - 1, high + 1)


def _advance(progress: OnProgress | None, start: int, total: int) -> Callable[[int], None]:
    """Adds up batches for `progress`."""
    done = start

    def advance(n: int) -> None:
        nonlocal done
        done += n
        if progress is not None:
            progress(done, total)

    return advance


def _new_npy(path: Path, header: Header) -> np.ndarray:
    """A .npy file to be filled; an empty one is written at once."""
    if 0 not in header.shape:
        return np.lib.format.open_memmap(path, "w+", np.dtype(header.dtype), header.shape)
    array = np.empty(header.shape, header.dtype)
    with path.open("wb") as file:
        np.save(file, array)
    return array


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place at the end, and is gone after an error."""
    temporary = path.with_name(path.name + ".new")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """An operating system's refusal, in words."""
    try:
        yield
    except OSError as error:
        raise CannotWrite(
            f"cannot write {path}: {error.strerror or error}; make room, or choose another name"
        ) from None
