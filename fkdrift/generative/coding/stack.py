"""A stack of bits, and an asymmetric numeral system that writes symbols to it.

Pushing a symbol x with probability p(x) adds -log2 p(x) bits; popping with the same p takes them away and returns x.
Popping from bits that are random draws a sample of p: that is what bits-back coding lives on.

The coder is constriction's: 32-bit words, a head of two words, probabilities in multiples of 2^-24.  Popped when it is
empty it goes on in silence with the leftmost symbols; here that is an error.

Reference: Duda, arXiv:1311.2540; Bamler, arXiv:2201.01741.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fkdrift.errors import CorruptStream, StarvedStack, require_extra

HEAD = 2
"""Words of 32 bits in the head of the coder: with fewer it has been emptied, and what it gives is no longer data."""

Symbols = NDArray[np.int32]
Words = NDArray[np.uint32]
Numbers = NDArray[np.float64]


class Stack:
    """A stack of bits.

    Args:
        words: (n,) what lies on it, 32-bit words with the top one last.

    Raises:
        CorruptStream: the top word is 0, which no stack ends in.

    Example:
        >>> from fkdrift.generative.coding.codec import BernoulliCodec
        >>> stack = Stack(random_words(64, seed=0))
        >>> codec = BernoulliCodec(np.full(100, 0.9))
        >>> x = codec.pop(stack)                          # 100 draws
        >>> codec.push(stack, x)                          # and their randomness put back
        >>> bool((stack.words == random_words(64, seed=0)).all())
        True
    """

    def __init__(self, words: Words) -> None:
        constriction = require_extra("constriction", "compress")
        self._models = constriction.stream.model
        if len(words) and words[-1] == 0:
            raise CorruptStream("a stack of bits never ends in a zero word: the data are damaged")
        self._coder = constriction.stream.stack.AnsCoder(np.ascontiguousarray(words, np.uint32))
        self.lowest = self.n_words

    @property
    def n_words(self) -> int:
        """How many 32-bit words are on the stack."""
        return self._coder.num_words()

    @property
    def n_bits(self) -> int:
        """How many bits are on the stack."""
        return self._coder.num_valid_bits()

    @property
    def untouched(self) -> int:
        """How many words at the bottom have never been popped."""
        return max(0, self.lowest - HEAD)

    @property
    def words(self) -> Words:
        """A copy of what is on the stack, (n,), the top word last."""
        return self._coder.get_compressed()

    def push(self, symbols: Symbols, family: tuple[Any, ...], *parameters: Numbers | Symbols) -> None:
        """Push symbols (n,) with the constriction model `family` = (name, *arguments) and its parameters (n, ...)."""
        if len(symbols):
            self._coder.encode_reverse(symbols, self._model(family), *parameters)

    def pop(self, family: tuple[Any, ...], *parameters: Numbers | Symbols) -> Symbols:
        """Pop as many symbols as there are parameters.

        Raises:
            StarvedStack: there were not enough bits.
        """
        if not len(parameters[0]):
            return np.empty(0, np.int32)
        before = self.n_words
        symbols = self._coder.decode(self._model(family), *parameters)
        self.lowest = min(self.lowest, self.n_words)
        if self.n_words < HEAD:
            raise StarvedStack(
                f"popping {len(symbols)} symbols emptied the stack, which held {before} words of 32 bits: start with "
                "more initial words"
            )
        return symbols

    def _model(self, family: tuple[Any, ...]) -> Any:
        name, *arguments = family
        keywords = {"perfect": False} if name in ("Bernoulli", "Categorical") else {}
        return getattr(self._models, name)(*arguments, **keywords)


def random_words(n: int, seed: int) -> Words:
    """n words of random bits to start a stack with, the top one not 0; the same on every machine."""
    words = np.random.PCG64(seed).random_raw(n).astype(np.uint32)
    words[-1:] |= np.uint32(1 << 31)
    return words
