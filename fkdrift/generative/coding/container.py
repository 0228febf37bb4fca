"""The layout of compressed files: a header and blocks, whose lengths, digests and values are checked before use.

    file    FKDZ | version 2 | length 4 | header (JSON) | digest 16 of all before | block | block | ...
    block   items 4 | bytes 4 | bottom 4 | initial 4 | low 4 | high 4 | bytes 4 of the grids | grids of the latents
            | digest 8 of the data | words of the stack | digest 8 of the last 8 bytes before the block and of all so
            far in it

All numbers are little-endian, and the grids are deflated.  A block is a stack of its own, so that memory stays bounded
however long the file.  Its stack starts with `initial` pseudo-random words; the first `bottom` of them were never
popped and are not in the file.  After decoding they must all be back, bit for bit.  Together with the digests this
makes a damaged file, another model, or arithmetic that differs in the last digit an error, and never wrong data.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import BinaryIO

import numpy as np
import torch
from torch import nn

from fkdrift.errors import BadParameter, CorruptStream, StarvedStack
from fkdrift.generative.chain import Chain
from fkdrift.generative.coding.bits_back import BitsBack, survey
from fkdrift.generative.coding.codec import Grid
from fkdrift.generative.coding.stack import Stack, Symbols, random_words

MAGIC, VERSION = b"FKDZ", 2
PREFIX = struct.Struct("<4sHI")
BLOCK = struct.Struct("<IIIIii")
LATENT, LENGTH = struct.Struct("<II"), struct.Struct("<I")
HEADER_DIGEST, DIGEST = 16, 8
INITIAL_WORDS, MOST_WORDS = 1 << 16, 1 << 26
LARGEST_HEADER = 1 << 16

Advance = Callable[[int], None]
"""Told how many more data are done."""


@dataclass(frozen=True)
class Header:
    """What a compressed file says about itself.

    Args:
        shape, dtype: of the data.
        step: to which continuous data were rounded; None for discrete data.
        block: how many data are in a block.
        model: the fingerprint of the model.
        arithmetic: what its networks gave where it was written, see `self_test`.
        refine: steps by which the posteriors of the data were refined.
        torch: the version that wrote it.
    """

    shape: tuple[int, ...]
    dtype: str
    step: float | None
    block: int
    model: str
    arithmetic: str
    refine: int = 0
    torch: str = torch.__version__

    def pack(self) -> bytes:
        """The beginning of the file."""
        body = json.dumps(asdict(self), separators=(",", ":")).encode()
        packed = PREFIX.pack(MAGIC, VERSION, len(body)) + body
        return packed + _digest(packed, HEADER_DIGEST)

    @classmethod
    def read(cls, file: BinaryIO) -> tuple[Header, bytes]:
        """The header at the beginning of a file, and its last bytes, which the digest of the first block continues.

        Raises:
            CorruptStream: not such a file, of another version, or damaged.
        """
        prefix = file.read(PREFIX.size)
        if len(prefix) < PREFIX.size or prefix[:4] != MAGIC:
            raise CorruptStream("not a file that fkdrift compressed: it does not begin with FKDZ")
        _, version, length = PREFIX.unpack(prefix)
        if version != VERSION:
            raise CorruptStream(
                f"the compressed file is of version {version}, or damaged: this fkdrift reads version {VERSION}"
            )
        body = _read(file, min(length, LARGEST_HEADER))
        digest = _read(file, HEADER_DIGEST)
        if digest != _digest(prefix + body, HEADER_DIGEST):
            raise CorruptStream("the header of the compressed file is damaged")
        values = json.loads(body)
        return cls(**{**values, "shape": tuple(values["shape"])}), digest[-DIGEST:]


@dataclass(frozen=True)
class PackedBlock:
    """A block as it is written.

    Args:
        data: bytes for the file.
        net_bits: by how much the stack grew.
        initial_bits: of the initial words, how many were needed and are in the file.
    """

    data: bytes
    net_bits: int
    initial_bits: int


def pack_block(chain: Chain, symbols: Symbols, grid: Grid | None, previous: bytes, advance: Advance) -> PackedBlock:
    """Encode a block.

    Args:
        chain: the model.
        symbols: (n, ...) the data, in steps of the grid.
        grid: of continuous data; None for discrete ones.
        previous: the last bytes of what is before it in the file.
    """
    latents = survey(chain, symbols.astype(np.float64) if grid is None else grid.values(symbols))
    stack, initial = _fill(BitsBack(chain, latents, grid), symbols, advance)
    words, bottom = stack.words, stack.untouched
    grids = zlib.compress(b"".join(_pack_grid(latent) for latent in latents), 9)
    body = LENGTH.pack(len(grids)) + grids + _digest(_bytes(symbols, "<i4")) + _bytes(words[bottom:], "<u4")
    low, high = (0, 0) if grid is None else (grid.low, grid.high)
    packed = BLOCK.pack(len(symbols), len(body), bottom, initial, low, high) + body
    packed += _digest(previous + packed)
    return PackedBlock(packed, stack.n_bits - 32 * initial, 32 * (initial - bottom))


def unpack_block(
    file: BinaryIO, chain: Chain, n: int, step: float | None, previous: bytes, advance: Advance
) -> tuple[Symbols, Grid | None, bytes]:
    """The next n data as symbols, their grid, and the last bytes of the block.

    Raises:
        CorruptStream: the block is truncated or damaged, or the model's numbers are not those of the encoder.
    """
    head = _read(file, BLOCK.size)
    n_items, n_bytes, bottom, initial, low, high = BLOCK.unpack(head)
    if n_items != n or not bottom <= initial <= MOST_WORDS:
        raise CorruptStream("a block of the compressed file has impossible lengths: it is damaged")
    body, digest = _read(file, n_bytes), _read(file, DIGEST)
    if digest != _digest(previous + head + body):
        raise CorruptStream("a block of the compressed file is damaged: its checksum is wrong")
    start_of_data = LENGTH.size + LENGTH.unpack_from(body)[0]
    packed, body = zlib.decompress(body[LENGTH.size : start_of_data]), body[start_of_data:]
    latents = []
    for _ in range(chain.n_steps):
        latent, packed = _unpack_grid(packed)
        latents.append(latent)
    grid = None if step is None else Grid(step, low, high)
    start = random_words(initial, seed=initial)
    stack = Stack(np.concatenate([start[:bottom], np.frombuffer(body[DIGEST:], "<u4").astype(np.uint32)]))
    try:
        symbols = BitsBack(chain, tuple(latents), grid).pop(stack, n, advance)
        same = np.array_equal(stack.words, start) and _digest(_bytes(symbols, "<i4")) == body[:DIGEST]
    except (StarvedStack, BadParameter):
        same = False
    if not same:
        raise CorruptStream(
            "the model gave other numbers in decoding than in encoding, so the data cannot be recovered here: decode "
            "on the kind of machine, and with the version of torch, that encoded them"
        )
    return symbols, grid, digest


def fingerprint(model: nn.Module) -> str:
    """A hash of a model's modules and parameters, hexadecimal: models that are equal code alike."""
    digest = hashlib.blake2b(digest_size=16)
    for name, module in model.named_modules():
        digest.update(f"{name}:{type(module).__qualname__};".encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _fill(coder: BitsBack, symbols: Symbols, advance: Advance) -> tuple[Stack, int]:
    """A stack with the symbols on it, and how many words it started with: as many as are needed."""
    n_words = INITIAL_WORDS
    while True:
        stack = Stack(random_words(n_words, seed=n_words))
        try:
            coder.push(stack, symbols, advance)
        except StarvedStack:
            if n_words >= MOST_WORDS:
                raise
            n_words *= 4
        else:
            return stack, n_words


def _pack_grid(grid: Grid) -> bytes:
    """Largest k, number of components, and for each the power of 2 that is its step."""
    step = np.atleast_1d(grid.step)
    return LATENT.pack(grid.high, len(step)) + np.log2(step).astype(np.int8).tobytes()


def _unpack_grid(packed: bytes) -> tuple[Grid, bytes]:
    """A grid, and the bytes after it."""
    high, dim = LATENT.unpack_from(packed)
    end = LATENT.size + dim
    step = np.exp2(np.frombuffer(packed[LATENT.size : end], np.int8).astype(float))
    return Grid(step, -high, high), packed[end:]


def _digest(data: bytes, size: int = DIGEST) -> bytes:
    return hashlib.blake2b(data, digest_size=size).digest()


def _bytes(values: np.ndarray, dtype: str) -> bytes:
    return np.ascontiguousarray(values).astype(dtype).tobytes()


def _read(file: BinaryIO, n: int) -> bytes:
    data = file.read(n)
    if len(data) < n:
        raise CorruptStream("the compressed file is truncated")
    return data
