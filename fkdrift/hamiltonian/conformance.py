"""What every potential has to do, as one call for the tests of a plug-in."""

from __future__ import annotations

import pickle

import torch
from torch import Tensor

from fkdrift.hamiltonian.potential import Potential

N_BATCH = 7
RELATIVE = 1e-9
"""Of float64: what symmetries may be off by."""


def check_potential(potential: Potential, spread: float = 1.0, seed: int = 0) -> None:
    """Raise AssertionError, which says what is wrong, unless a potential does what fkdrift asks of one.

    V has to map (batch, particle, dim) to (batch,) for any batch size, in the dtype of the positions, each walker by
    itself, with a gradient; to have the symmetries that it says it has; and to be pickled.

    Args:
        potential: with any parameters.
        spread: positions are drawn from a normal distribution this wide.
        seed: of the draw.

    Example:
        >>> check_potential(fk.load_potential("helium"))
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (N_BATCH, potential.n_particles, potential.n_dims)
    r = spread * torch.randn(shape, generator=generator, dtype=torch.float64)
    V = potential(r)
    assert V.shape == (N_BATCH,), f"V has the shape {tuple(V.shape)} for {N_BATCH} walkers, not ({N_BATCH},)"
    assert V.dtype == torch.float64, f"V is {V.dtype} for positions in float64: make constants with r.new_tensor"
    assert bool(torch.isfinite(V).all()), f"V is not finite: {V.tolist()}"
    assert potential(r.float()).dtype == torch.float32, "V is not float32 for positions in float32"
    _same(torch.cat([potential(one[None]) for one in r]), V, "a walker alone has another V than in a batch")
    _check_symmetries(potential, r, V)
    if not potential.values_only:
        moving = r.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(potential(moving).sum(), moving)
        assert bool(torch.isfinite(gradient).all()), "the gradient of V is not finite: use distance() for lengths"
    again = pickle.loads(pickle.dumps(potential))
    _same(again(r), V, "V is another one after pickling")


def _check_symmetries(potential: Potential, r: Tensor, V: Tensor) -> None:
    """Those that the potential says it has."""
    for group in potential.groups:
        order = list(range(potential.n_particles))
        for a, b in zip(group, (*group[1:], group[0]), strict=True):
            order[a] = b
        _same(
            potential(r[:, order]), V, f"V is not symmetric in the particles {group}, which groups says are identical"
        )
    if potential.free:
        _same(potential(r + 0.7), V, "free says that all particles may move together, and V changes when they do")
    if potential.isotropic and potential.n_dims > 1:
        turn = torch.linalg.qr(
            torch.randn(r.shape[-1], r.shape[-1], generator=torch.Generator().manual_seed(1)).double()
        )[0]
        _same(potential(r @ turn), V, "isotropic says that all particles may turn together, and V changes when they do")
    if potential.box is not None:
        _same(potential(r + r.new_tensor(potential.box)), V, "V does not have the periods that box says")


def _same(a: Tensor, b: Tensor, otherwise: str) -> None:
    """Assert that values agree to rounding."""
    apart = ((a - b).abs() / (1 + b.abs())).max()
    assert bool(apart < RELATIVE), f"{otherwise} (by {float(apart):.1e})"
