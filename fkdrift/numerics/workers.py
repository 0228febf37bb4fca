"""The processes that share the walkers of a run: what is summed, gathered and exchanged between them.

Every process runs the same program on its own share of the walkers, with its own random numbers, and holds a copy of
everything else: parameters, time steps, decisions.  Whole arrays of walkers are the shares one after the other, each n
of them cut by `share(n)`, so that what all processes have together is what one process would have.  A single process
exchanges nothing, and every method returns what it was given.

Messages go through torch.distributed: gloo between CPUs, nccl between GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Workers:
    """The processes that share the walkers, and which of them this one is; alone until it joins others.

    Attributes:
        group: of torch.distributed; None while alone.
        rank, size: of this process, from 0, and of all.
        messages, bytes: sent by this process so far, as collectives and as their payload.

    Example (alone, everything is its own):
        >>> workers = Workers()
        >>> workers.share(10), workers.gather(torch.arange(3)).tolist()
        (slice(0, 10, None), [0, 1, 2])
    """

    def __init__(self) -> None:
        self.group: ProcessGroup | None = None
        self.rank, self.size = 0, 1
        self.messages = self.bytes = 0

    def join(self, group: ProcessGroup) -> None:
        """Become one of the processes of a group."""
        self.group, self.rank, self.size = group, group.rank(), group.size()

    def leave(self) -> None:
        """Be alone again."""
        self.group, self.rank, self.size = None, 0, 1

    # Shares

    def share(self, n: int) -> slice:
        """Which of n walkers are here; shares differ by one at most, larger ones first."""
        each, more = divmod(n, self.size)
        first = self.rank * each + min(self.rank, more)
        return slice(first, first + self.count(n))

    def count(self, n: int) -> int:
        """How many of n walkers are here."""
        return n // self.size + (self.rank < n % self.size)

    def own(self, whole: Tensor, axis: int = 0) -> Tensor:
        """The share of this process in an array of all walkers along an axis."""
        if self.size == 1:
            return whole
        mine = self.share(whole.shape[axis])
        return whole.narrow(axis, mine.start, mine.stop - mine.start).clone()

    # Messages

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes, bit for bit the same in each."""
        if self.size == 1:
            return value
        import torch.distributed as dist  # here, and below: a single process needs none of it

        total = self._sent(value.detach().clone(memory_format=torch.contiguous_format))
        dist.all_reduce(total, group=self.group)
        return total

    def average(self, mean: Tensor, n: int) -> Tensor:
        """The mean over all walkers from that over those here.

        Args:
            mean: over n walkers, of any shape.
            n: how many are here.
        """
        if self.size == 1:
            return mean
        total = self.sum(torch.cat([mean.detach().reshape(-1) * n, mean.new_tensor([n])]))
        return (total[:-1] / total[-1]).reshape(mean.shape)

    def gather(self, mine: Tensor, axis: int = 0) -> Tensor:
        """The array of all walkers from the shares along an axis, the same in each process."""
        if self.size == 1:
            return mine
        import torch.distributed as dist

        rows = mine.detach().movedim(axis, 0).contiguous()
        lengths = [int(n) for n in self._all(rows.new_tensor([len(rows)], dtype=torch.int64)).flatten()]
        padded = rows.new_zeros(max(lengths), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(parts, self._sent(padded), group=self.group)
        return torch.cat([part[:n] for part, n in zip(parts, lengths, strict=True)]).movedim(0, axis)

    def first(self, value: Tensor) -> Tensor:
        """What the first process has."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        value = self._sent(value.detach().clone())
        dist.broadcast(value, 0, group=self.group)
        return value

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it is set in any process."""
        if self.size == 1:
            return flags
        return tuple((self.sum(torch.tensor(flags, dtype=torch.int64)) > 0).tolist())

    def accumulated(self, before: Tensor, now: Tensor, n: int) -> Tensor:
        """A running mean over walkers, that was the same everywhere before each process added to it from its n own."""
        return now if self.size == 1 else before + self.average(now - before, n)

    def exchange(self, values: Mapping[str, Tensor], source: Tensor) -> dict[str, Tensor]:
        """Walkers of populations that all processes share are replaced by copies; only those move that have to.

        Args:
            values: arrays by name, (population, walker, ...), with the walkers that are here.
            source: (population, walker), which of all walkers of its population each is replaced by, the same in each
                process; see `balanced`.
        """
        mine = self.share(source.shape[1])
        rows = torch.arange(len(source), device=source.device)[:, None]
        if self.size == 1:
            return {name: value[rows, source] for name, value in values.items()}
        owner, place = (
            self._owner(source, source.shape[1]),
            self._owner(rows.new_tensor(range(source.shape[1])), source.shape[1]),
        )
        routes = [(owner == self.rank) & (place == rank) for rank in range(self.size)]
        sent = [
            torch.nonzero(route).T if rank != self.rank else rows.new_empty(2, 0) for rank, route in enumerate(routes)
        ]
        routes = [(owner == rank) & (place == self.rank) for rank in range(self.size)]
        got = [
            torch.nonzero(route).T if rank != self.rank else rows.new_empty(2, 0) for rank, route in enumerate(routes)
        ]
        stay, go, come = torch.nonzero(routes[self.rank]).T, torch.cat(sent, 1), torch.cat(got, 1)
        sizes = [s.shape[1] for s in sent], [g.shape[1] for g in got]

        def moved(value: Tensor) -> Tensor:
            new = torch.empty_like(value)
            new[stay[0], stay[1] - mine.start] = value[stay[0], source[stay[0], stay[1]] - mine.start]
            packet = value[go[0], source[go[0], go[1]] - mine.start]
            new[come[0], come[1] - mine.start] = self._swap(packet, *sizes)
            return new

        return {name: moved(value) for name, value in values.items()}

    def _owner(self, index: Tensor, n: int) -> Tensor:
        """In which process each of n walkers is."""
        ends = [sum(n // self.size + (k < n % self.size) for k in range(rank + 1)) for rank in range(self.size)]
        return torch.bucketize(index, index.new_tensor(ends), right=True)

    def _swap(self, packet: Tensor, sent: list[int], got: list[int]) -> Tensor:
        """Rows that others send, for rows that they get, (row, ...), both by process."""
        import torch.distributed as dist

        kind, shape = packet.dtype, packet.shape[1:]
        packet = packet.to(torch.uint8) if kind is torch.bool else packet
        arrived = packet.new_empty(sum(got), *shape)
        dist.all_to_all_single(arrived, self._sent(packet.contiguous()), got, sent, group=self.group)
        return arrived.to(kind)

    def _all(self, row: Tensor) -> Tensor:
        """One row of every process, (process, ...)."""
        import torch.distributed as dist

        rows = [torch.empty_like(row) for _ in range(self.size)]
        dist.all_gather(rows, self._sent(row), group=self.group)
        return torch.stack(rows)

    def _sent(self, value: Tensor) -> Tensor:
        self.messages += 1
        self.bytes += value.numel() * value.element_size()
        return value


ALONE = Workers()
"""A process that shares its walkers with nobody."""


def balanced(chosen: Tensor, size: int) -> Tensor:
    """The same copies with as many as possible in the process of their origin, so that the least is sent.

    Args:
        chosen: (population, walker) which walker each is replaced by, as `systematic` has it.
        size: how many processes share the walkers of every population.

    Returns:
        (population, walker), each row in another order.

    Example (of four walkers in two processes, the last two are copies of the first two):
        >>> balanced(torch.tensor([[0, 0, 1, 1]]), 2).tolist(), balanced(torch.tensor([[0, 2, 2, 2]]), 2).tolist()
        ([[0, 0, 1, 1]], [[0, 2, 2, 2]])
    """
    if size == 1:
        return chosen
    n = chosen.shape[1]
    ranks = np.repeat(np.arange(size), [n // size + (rank < n % size) for rank in range(size)])
    rows = []
    for row in chosen.cpu().numpy():
        placed, left = np.full(n, -1), []
        for rank in range(size):
            places, copies = np.flatnonzero(ranks == rank), row[ranks[row] == rank]
            m = min(len(places), len(copies))
            placed[places[:m]] = copies[:m]
            left.append(copies[m:])
        placed[placed < 0] = np.concatenate(left)
        rows.append(placed)
    return torch.from_numpy(np.stack(rows)).to(chosen)


def stream(seed: int, rank: int) -> int:
    """The seed of a process's own random numbers, from that of the run.

    Example:
        >>> stream(0, 1) != stream(0, 2), stream(0, 1) == stream(0, 1)
        (True, True)
    """
    return int(np.random.SeedSequence([seed, rank]).generate_state(1, np.uint32)[0])
