"""Arrays with names as files that other programs read: npz, and NetCDF with named dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from scipy.io import netcdf_file
from torch import Tensor

from fkdrift.errors import BadConfig

Named = Mapping[str, tuple[tuple[str, ...], Tensor]]
"""Arrays by name, each with the names of its dimensions."""

KINDS = (".npy", ".npz", ".nc")


def encoded(arrays: Named, kind: str) -> bytes:
    """The contents of a file.

    Args:
        arrays: what to write; a .npy file takes the first one.
        kind: ".npy", ".npz", or ".nc" for NetCDF 3, which xarray opens.

    Raises:
        BadConfig: there is no such kind.

    Example:
        >>> found = np.load(BytesIO(encoded({"x": (("sample",), torch.arange(3.0))}, ".npz")))
        >>> found["x"]
        array([0., 1., 2.], dtype=float32)
    """
    values = {name: (dims, array.detach().cpu().numpy()) for name, (dims, array) in arrays.items()}
    file = BytesIO()
    if kind == ".npy":
        np.save(file, next(iter(values.values()))[1])
    elif kind == ".npz":
        np.savez(file, allow_pickle=False, **{name: array for name, (_, array) in values.items()})
    elif kind == ".nc":
        with netcdf_file(kept := _Kept(), "w") as dataset:
            for dims, array in values.values():
                for dim, size in zip(dims, array.shape, strict=True):
                    if dim not in dataset.dimensions:
                        dataset.createDimension(dim, size)
            for name, (dims, array) in values.items():
                dataset.createVariable(name, array.dtype.newbyteorder(">"), dims)[:] = array
        return kept.contents
    else:
        raise BadConfig(f"a file that ends in {kind!r} cannot be written: give one that ends in {', '.join(KINDS)}")
    return file.getvalue()


class _Kept(BytesIO):
    """What was in it when it was closed, which scipy does."""

    def close(self) -> None:
        self.contents = self.getvalue()
        super().close()


def write(path: str | Path, arrays: Named) -> Path:
    """Write arrays to a .npy, .npz or .nc file; returns its path."""
    path = Path(path)
    path.write_bytes(encoded(arrays, path.suffix))
    return path
