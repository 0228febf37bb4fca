"""Formulas, tables and compressed files: random ones, against numpy and finite differences, and damaged ones."""

from __future__ import annotations

import io
import math
import random
import warnings
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

import fkdrift as fk
from campaign.tally import Tally
from fkdrift.errors import BadTable, FkdriftError
from fkdrift.generative.coding.compression import compress, decompress
from fkdrift.hamiltonian.potential import require_gradient

UNARY = ("sqrt", "exp", "log", "sin", "cos", "tan", "atan", "tanh", "sech", "erf", "abs", "cosh")
HOSTILE = (
    "__import__('os').system('touch {victim}')", "open('{victim}','w')", "(lambda: 0)()", "[x for x in (1,)]",
    "x.__class__", "x if x else 1", "exec('1')", "'a'*10**9", "10**10**10", "x**" * 300 + "1", "(" * 500 + "x",
    "x" * 5000, "x\0", "~x.csv", "~nobody/w.py:X", "x**2 + 1e300", "f'{{x}}'", "x:=3", "x;y", "\n", "#x",
    "9" * 4000 + "*x", "ase:..:x", "1j*x", "x@x", "x//2", "not x", "x and y", "x==1", "where(x, 1, 2)", "sin()",
    "sin(x, x)", "log(-1)*x", "1/0*x",
)  # fmt: skip
NAMES = {name: getattr(np, {"atan": "arctan"}.get(name, name), None) for name in UNARY} | {
    "sech": lambda x: 1 / np.cosh(x), "erf": np.vectorize(math.erf), "minimum": partial(np.minimum, dtype=float),
    "maximum": partial(np.maximum, dtype=float), "where": lambda c, a, b: np.where(c, np.float64(a), b),
    "pi": math.pi, "e": math.e, "__builtins__": {},
}  # fmt: skip
POINTS = np.array([-2.3, -1.1, -0.37, 0.21, 0.83, 1.7, 3.1])
STEP = 1e-5


def expression(rng: random.Random, depth: int = 0) -> str:
    """A random formula of x and y."""
    if depth > 3 or rng.random() < 0.2:
        return rng.choice(("x", "x", "y", f"{rng.uniform(-3, 3):.3g}", str(rng.randint(0, 5)), "pi"))
    inner = lambda: expression(rng, depth + 1)  # noqa: E731
    kind = rng.random()
    if kind < 0.5:
        return f"({inner()} {rng.choice('+-*/')} {inner()})"
    if kind < 0.6:
        return f"({inner()})**{rng.choice((2, 3, 4, 0.5, -1))}"
    if kind < 0.8:
        return f"{rng.choice(UNARY)}({inner()})"
    if kind < 0.9:
        return f"where({inner()} {rng.choice(('<', '>', '<=', '>='))} {inner()}, {inner()}, {inner()})"
    return f"{rng.choice(('minimum', 'maximum'))}({inner()}, {inner()})"


def formulas(n: int, seed: int, folder: Path) -> Tally:
    """Values against numpy, gradients against finite differences; hostile and mutilated text."""
    tally, rng, victim = Tally("formulas"), random.Random(seed), folder / "executed"
    for _ in range(n):
        kind = rng.random()
        if kind < 0.1:
            text = rng.choice(HOSTILE).replace("{victim}", str(victim)).replace("{{", "{").replace("}}", "}")
        else:
            text = expression(rng)
        if kind > 0.8:
            k = rng.randrange(len(text))
            text = text[:k] + rng.choice("()*/.^x1,<e_'\0é~:") + text[k + rng.randint(0, 1) :]
        tally.attempt(repr(text[:200]), partial(fk.load_potential, text), lambda V, text=text: _right(V, text))
        if victim.exists():
            tally.add("wrong", f"executed {text!r}")
            victim.unlink()
    return tally


def _agrees(V: fk.Potential, text: str) -> bool:
    """Whether V and its gradient are what numpy makes of the same text, away from kinks and poles."""
    dim = V.n_dims
    r = np.stack([POINTS, POINTS[::-1] * 0.7 + 0.05, POINTS * 0.3 - 0.11][:dim], 1)
    x = torch.tensor(r)[:, None].requires_grad_()
    require_gradient(V, x)
    value = V(x)
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value.sum(), x)
    else:
        gradient = torch.zeros_like(x)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, found = _by_numpy(text, r), value.detach().numpy()
        rounding = 100 * np.abs(_by_numpy(text, r * (1 + 1e-14)) - expected)  # all of the value, as in cos(1e16*x)
        if not (np.isclose(found, expected, 1e-6, 1e-9, equal_nan=True) | (np.abs(found - expected) < rounding)).all():
            return False
        sound = rounding < 1e-6 * (1 + np.abs(expected))
        for k in range(dim):
            step = np.eye(dim)[k] * STEP
            slopes = [
                (_by_numpy(text, r + h * step) - _by_numpy(text, r - h * step)) / (2 * h * STEP) for h in (1, 2, 50)
            ]
            smooth = sound & np.isfinite(slopes).all(0)
            spread = np.ptp(slopes, axis=0) + 1e-9 * np.abs(expected) / STEP
            smooth &= spread < 1e-3 * (1 + np.abs(slopes[0]))
            apart = np.abs(gradient[:, 0, k].numpy() - slopes[0])
            if not (apart[smooth] <= 10 * spread[smooth] + 1e-5 * (1 + np.abs(slopes[0][smooth]))).all():
                return False
    return True


def _right(V: fk.Potential, text: str) -> bool:
    """As `_agrees`; numpy has no chained comparisons."""
    try:
        return _agrees(V, text)
    except FkdriftError:
        raise
    except ValueError as error:
        return "ambiguous" in str(error)


def _by_numpy(text: str, r: np.ndarray) -> np.ndarray:
    values = dict(zip("xyz", r.T, strict=False)) | {"r": np.linalg.norm(r, axis=1)}
    return np.broadcast_to(eval(" ".join(text.split()), NAMES, values), len(r)).astype(float)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(shape: str, descr: str) -> bytes:
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(400)


def archive(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in members.items():
            zipped.writestr(name, content)
    return file.getvalue()


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content cut, with other bytes, with a part lost, doubled or zeroed."""
    a, b = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    kind = rng.randrange(6)
    if kind == 0:
        return content[:a]
    if kind == 1:
        return content[:a] + content[b:]
    if kind == 2:
        return content[:a] + bytes(b - a) + content[b:]
    if kind == 3:
        return content[:b] + content[a:]
    changed = bytearray(content)
    for _ in range(1 if kind == 4 else 20):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def tables(n: int, seed: int, folder: Path) -> Tally:
    """Damaged archives and csv files, foreign members, headers that claim too much."""
    tally, rng = Tally("tables"), random.Random(seed)
    x = np.linspace(-5, 5, 40)
    good = {"x.npy": npy(x), "V.npy": npy(x**2 / 2)}
    csv = "\n".join(["x,V", *(f"{a!r},{b!r}" for a, b in zip(x.tolist(), (x**2 / 2).tolist(), strict=True))]).encode()
    shapes = (
        "(999999999999,)",
        "(-4,)",
        "(40, 1)",
        "(40,)",
        "'a'",
        "None",
        "(2.5,)",
        "()",
        "(9999999999999999999999,)",
    )
    kinds = ("<f8", "|O", "<c16", "<U7", "junk", "<M8[s]", ">i4", "<f2", "|V3")
    at = torch.tensor([[[1.234]], [[-3.21]]], dtype=torch.float64)
    exact = fk.load_potential(_write(folder / "good.npz", archive(good)))(at)
    for k in range(n):
        kind = rng.randrange(5)
        if kind == 0:
            content, name = damaged(csv, rng), "t.csv"
        elif kind == 1:
            other = {"x.npy": header(rng.choice(shapes), rng.choice(kinds)), "V.npy": good["V.npy"]}
            content, name = archive(other), "t.npz"
        elif kind == 2:
            more = rng.choice(({"README": b"text"}, {"V.npz": archive(good)}, {"x": b"1"}, {"../x.npy": good["x.npy"]}))
            content, name = archive({**good, **more}), "t.npz"
        else:
            content, name = damaged(archive(good), rng), "t.npz"
        file = _write(folder / name, content)

        def right(V: fk.Potential, name: str = name) -> bool:
            try:  # another csv is another table; an archive has checksums
                return bool(torch.isfinite(V(at)).all()) if name == "t.csv" else torch.allclose(V(at), exact)
            except (BadTable, fk.errors.OutsideTable):
                return name == "t.csv"

        tally.attempt(f"table {k} of kind {kind}", lambda file=file: fk.load_potential(file), right)
    return tally


def _write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def streams(n: int, seed: int, folder: Path) -> Tally:
    """Damaged compressed files."""
    tally, rng = Tally("compressed files"), random.Random(seed)
    x = np.random.default_rng(0).normal(size=(40, 3))
    model = fk.generative.principal_components(torch.from_numpy(x), n_latents=1).vae()
    path = folder / "normal.fkdz"
    compress(x, model, path, step=0.01)
    content, exact = path.read_bytes(), decompress(path, model)
    for k in range(n):
        path.write_bytes(changed := damaged(content, rng))
        tally.attempt(
            f"stream {k} of {len(changed)} bytes", lambda: decompress(path, model), lambda y: np.array_equal(y, exact)
        )
    return tally
