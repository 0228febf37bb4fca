"""Workers in forked processes, for tests of what they share: no interpreter is started, nothing is imported again."""

from __future__ import annotations

import os
import pickle
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from fkdrift.numerics.workers import Workers

SECONDS = 20


def with_workers(n: int, function: Callable[[Workers], Any]) -> list[Any]:
    """What a function of the workers returns in each of n processes."""
    with tempfile.TemporaryDirectory() as folder:
        children = [_forked(rank, n, function, Path(folder)) for rank in range(n)]
        for child in children:
            os.waitpid(child, 0)
        found = [pickle.loads((Path(folder) / str(rank)).read_bytes()) for rank in range(n)]
    for each in found:
        if isinstance(each, _Failed):
            raise AssertionError(each)
    return found


class _Failed(str):
    """The traceback of a worker."""


def _forked(rank: int, n: int, function: Callable[[Workers], Any], folder: Path) -> int:
    child = os.fork()
    if child:
        return child
    try:
        import torch.distributed as dist

        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        at = f"file://{folder / 'store'}"
        dist.init_process_group("gloo", at, timeout=timedelta(seconds=SECONDS), rank=rank, world_size=n)
        workers = Workers()
        workers.join(dist.group.WORLD)
        found = function(workers)
    except BaseException:
        found = _Failed(traceback.format_exc())
    (folder / str(rank)).write_bytes(pickle.dumps(found))
    os._exit(0)
