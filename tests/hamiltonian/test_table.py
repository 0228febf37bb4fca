"""Tabulated potentials: accuracy, derivatives, formats, and tables that cannot be used."""

from __future__ import annotations

import itertools
import zipfile

import numpy as np
import pytest
import torch

from fkdrift.errors import BadTable, OutsideTable
from fkdrift.hamiltonian.table import CubicSpline, TablePotential


def save(path, *axes, function, **options):
    """A table of the function, as npz or as shuffled csv."""
    mesh = np.meshgrid(*axes, indexing="ij")
    V, names = function(*mesh), ("x", "y", "z")[: len(axes)]
    if path.suffix == ".npz":
        np.savez(path, V=V, **dict(zip(names, axes, strict=True)))
    else:
        rows = np.stack([*(m.ravel() for m in mesh), V.ravel()], -1)
        np.random.default_rng(0).shuffle(rows)
        np.savetxt(path, rows, delimiter=",", header=",".join((*names, "V")), comments="", fmt="%.17g", **options)
    return str(path)


def test_harmonic_well_exactly(tmp_path):
    """A cubic spline with not-a-knot ends is exact for a quadratic, up to the ends."""
    x = np.linspace(-4, 5, 19)
    for name in ("well.npz", "well.csv"):
        V = TablePotential(save(tmp_path / name, x, function=lambda x: x**2 / 2))
        r = torch.tensor([-4.0, -3.99, 0.0, 1.23, 4.5, 5.0], dtype=torch.float64)
        torch.testing.assert_close(V(r[:, None, None]), r.square() / 2)
        assert V.domain == ((-4.0, 5.0),)
        assert V.n_dims == 1
        assert V.n_particles == 1


@pytest.mark.parametrize("n_dims", [1, 2, 3])
def test_matches_scipy_on_uneven_grids(n_dims):
    from scipy.interpolate import RegularGridInterpolator, make_interp_spline

    rng = np.random.default_rng(0)
    axes = tuple(np.cumsum(rng.uniform(0.3, 1, n)) for n in (9, 7, 7)[:n_dims])
    values = rng.standard_normal([len(axis) for axis in axes])
    points = np.stack([rng.uniform(axis[0], axis[-1], 50) for axis in axes], -1)
    expected = values
    for axis, column in zip(axes, points.T, strict=True):  # interpolate one dimension after the other
        expected = make_interp_spline(axis, expected, k=3)(column)
        expected = np.moveaxis(expected, 0, -1)
    for _ in range(n_dims - 1):
        expected = np.diagonal(expected, axis1=-2, axis2=-1)
    value = CubicSpline(axes, values)(torch.tensor(points))
    np.testing.assert_allclose(value, expected, atol=1e-11)
    if n_dims == 2:
        nodes = np.array(list(itertools.product(*axes)))
        np.testing.assert_allclose(CubicSpline(axes, values)(torch.tensor(nodes)), values.ravel(), atol=1e-11)
        assert np.allclose(RegularGridInterpolator(axes, values)(nodes), values.ravel())


@pytest.mark.parametrize("suffix", [".csv", ".npz"])
@pytest.mark.parametrize("n_dims", [1, 2, 3])
def test_smooth_function_and_two_derivatives(tmp_path, n_dims, suffix):
    axes = [np.linspace(-2, 2.5, 28), np.linspace(-2, 2, 25), np.linspace(-1.5, 2, 23)][:n_dims]
    path = save(tmp_path / f"well{suffix}", *axes, function=lambda *x: sum(np.cos(c) for c in x) + np.prod(x, axis=0))
    V = TablePotential(path)
    assert V.n_dims == n_dims
    r = torch.rand(20, 1, n_dims, generator=torch.Generator().manual_seed(0), dtype=torch.float64).mul(3).sub(1.4)
    r.requires_grad_()
    value = V(r)
    (slope,) = torch.autograd.grad(value.sum(), r, create_graph=True)
    (curvature,) = torch.autograd.grad(slope[:, 0, 0].sum(), r)
    exact = r.cos().sum((-2, -1)) + r.prod(-1).sum(-1)
    (exact_slope,) = torch.autograd.grad(exact.sum(), r)
    torch.testing.assert_close(value, exact, atol=2e-4, rtol=0)
    torch.testing.assert_close(slope, exact_slope, atol=2e-3, rtol=0)
    torch.testing.assert_close(curvature[:, 0, 0], -r[:, 0, 0].cos(), atol=3e-2, rtol=0)


def test_single_precision(tmp_path):
    V = TablePotential(save(tmp_path / "well.npz", np.linspace(-1, 1, 11) / 3, function=np.cos))
    low, high = V.domain[0]
    value = V(torch.tensor([[[low]], [[0.1]], [[high]]]))  # the ends survive rounding to float32
    assert value.dtype == torch.float32
    assert value[1].item() == pytest.approx(np.cos(0.1), abs=1e-6)


def test_outside(tmp_path):
    V = TablePotential(
        save(tmp_path / "w.npz", np.linspace(-1, 2, 9), np.linspace(0, 1, 5), function=lambda x, y: x * y)
    )
    with pytest.raises(
        OutsideTable, match=r"2 of 3 walkers .* such as y = 1\.5: it covers x from -1 to 2, y from 0 to 1"
    ):
        V(torch.tensor([[[0.0, 0.5]], [[0.0, 1.5]], [[0.0, 2.5]]]))
    with pytest.raises(OutsideTable, match="1 of 1 walkers"):
        V(torch.tensor([[[float("nan"), 0.5]]]))


def test_csv_details(tmp_path):
    """Comments, blank lines, spaces, column order, a byte-order mark and rounding noise are all fine."""
    rows = [f"{x * x}, {x + 1e-16 * k}" for k, x in enumerate((0.3, 0.1, 0.2, 0.4, 0.5))]
    (tmp_path / "well.csv").write_text("\ufeff# a well\n V , x\n\n" + "\n".join(rows) + "\n", encoding="utf-8")
    V = TablePotential(str(tmp_path / "well.csv"))
    assert V(torch.tensor([[[0.25]]])).item() == pytest.approx(0.0625)
    grid = [f"{x + 1e-13 * y},{y},{x * y}" for x in range(4) for y in range(4)]
    (tmp_path / "grid.csv").write_text("x,y,V\n" + "\n".join(grid))
    assert TablePotential(str(tmp_path / "grid.csv"))(torch.tensor([[[1.5, 2.0]]])).item() == pytest.approx(3.0)


def csv(*rows: str) -> str:
    return "\n".join(rows)


ROWS = ("0,0", "1,1", "2,4", "3,9", "4,16")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has nothing; it needs x, V"),
        (csv("x,energy", *ROWS), "has x, energy; it needs x, V"),
        (csv("y,V", *ROWS), "it needs x, V"),
        (csv("x,x,V", "0,0,0"), "it needs x, V"),
        (csv(*ROWS), "has 0, 0; it needs"),
        (csv("x,V"), "0 points; a cubic spline needs 4"),
        (csv("x,V", *ROWS[:3]), "3 points; a cubic spline needs 4"),
        (csv("x,V", *ROWS, "4,17"), "x = 4 occurs more than once"),
        (csv("x,V", *ROWS, "5,nan"), "V is nan at x = 5"),
        (csv("x,V", *ROWS, "5,inf"), "V is inf at x = 5"),
        (csv("x,V", *ROWS, "nan,5"), "column x has an entry"),
        (csv("x,V", *ROWS, "5,high"), "'high'"),
        (csv("x,V", *ROWS, "5,25,1"), "columns"),
        (csv("x,V", "0,0,0", "1,1,1"), "3 columns, the header x,V has 2"),
        (csv("x,y,V", *(f"{i},{i},0" for i in range(5))), "5 rows do not fill the 5 x 5 grid"),
        (csv("x,y,V", *(f"{i},{j},0" for i in range(4) for j in range(4) if i + j)), "15 rows do not fill the 4 x 4"),
    ],
)
def test_bad_csv(tmp_path, text, message):
    path = tmp_path / "well.csv"
    path.write_text(text)
    with pytest.raises(BadTable, match=message):
        TablePotential(str(path))


x = np.arange(6.0)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": x}, "has x; it needs x, V"),
        ({"V": x}, "has V; it needs x, V"),
        ({"x": x, "V": x, "w": x}, "it needs x, V"),
        ({"x": x, "V": x[:5]}, r"V has shape \(5,\), but the axes x make it \(6,\)"),
        ({"x": x, "y": x, "V": x}, r"make it \(6, 6\)"),
        ({"x": x[::-1], "V": x}, "must increase"),
        ({"x": np.zeros(6), "V": x}, "must increase"),
        ({"x": x[:3], "V": x[:3]}, "3 points"),
        ({"x": x, "V": x * np.nan}, "V is nan at x = 0"),
        ({"x": x, "V": x * 1j}, "complex128; it must hold real numbers"),
        ({"x": x.reshape(2, 3), "V": x}, r"shape \(2, 3\)"),
        ({"x": np.array([object()] * 6), "V": x}, "cannot be read as npz"),
    ],
)
def test_bad_npz(tmp_path, arrays, message):
    np.savez(tmp_path / "well.npz", **arrays)
    with pytest.raises(BadTable, match=message):
        TablePotential(str(tmp_path / "well.npz"))


def test_files_that_are_not_tables(tmp_path):
    with pytest.raises(BadTable, match="there is no table"):
        TablePotential(str(tmp_path / "absent.csv"))
    for name, content in (("w.npz", b"not a zip"), ("w.npz", b""), ("w.csv", b"\xff\xfe\x00x")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadTable, match="cannot be read"):
            TablePotential(str(tmp_path / name))


def header(shape: str) -> bytes:
    """The beginning of a .npy file of this shape, and a little of what it announces."""
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(400)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"README": b"text"}, "holds 'README', which is no array; write it with"),
        ({"V.npz": b"PK"}, "holds 'V.npz', which is no array"),
        ({"x.npy": header("(999999999999,)")}, "cannot be read as npz: Unable to allocate"),
        ({"x.npy": header("('a',)")}, "cannot be read as npz"),
    ],
)
def test_archives_of_something_else(tmp_path, members, words):
    path = tmp_path / "well.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(BadTable, match=words):
        TablePotential(str(path))


def test_archives_that_unpack_to_more_than_is_sensible(tmp_path, monkeypatch):
    x = np.linspace(-4, 4, 99)
    path = save(tmp_path / "well.npz", x, function=lambda x: x**2)
    monkeypatch.setattr("fkdrift.hamiltonian.table.MOST_BYTES", 1000)
    with pytest.raises(BadTable, match=r"unpacks to .* GB; at most"):
        TablePotential(path)


def test_a_table_that_is_lowest_at_its_edge_says_so(tmp_path):
    x = np.linspace(-3, 3, 31)
    V = TablePotential(save(tmp_path / "hill.npz", x, function=lambda x: -(x**2)))
    with pytest.raises(OutsideTable, match="V is lowest at its edge, at x = -3: nothing keeps a particle inside"):
        V(torch.tensor([[[4.0]]]))
