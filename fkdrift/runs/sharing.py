"""Workers: processes that share the walkers of a run, on this machine or on many.

On one machine they are started here, by the process layer of torch.distributed.elastic, as `python -m
fkdrift.runs.worker`: they take the run over, advance it together and leave its checkpoint, from which this process goes
on alone.  On many, torchrun starts `fkdrift solve`, or any script, in every one of them.  The first worker shows the
progress and writes the files.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from subprocess import Popen
from tempfile import TemporaryDirectory
from typing import Any

import joblib
import torch

from fkdrift.errors import BadConfig, ComputationError, FkdriftError
from fkdrift.hamiltonian.loading import execute_again, files_executed
from fkdrift.runs.following import cpu_threads, follow, interruptible
from fkdrift.runs.report import REFRESH_SECONDS, Progress, progress_line
from fkdrift.runs.run import Run
from fkdrift.runs.run_folder import CHECKPOINT, read_checkpoint
from fkdrift.settings import AUTO

PATIENCE = 20.0
"""Seconds that a worker waits for the others, which do the same work, before it takes one of them for dead."""
GRACE = 3.0
"""Seconds that workers have to end after one of them has failed."""
STARTING, STARTING_HERE = 600.0, 60.0
"""Seconds that all workers have to come together: on a cluster that starts them one by one, and on one machine."""
START_SECONDS = 4.0
"""What it takes to start a worker: Python, torch, and the run made again."""
WORTH = 2.0
"""Workers have to save so many times what it takes to start them."""
VARIABLE = "FKDRIFT_WORKERS"


def number_of_workers(run: Run) -> int:
    """How many workers are to share a run: what the settings, a saved state or the surroundings say, in this order.

    Raises:
        BadConfig: the run is of a kind that cannot be shared, or torchrun has started another number.
    """
    asked = getattr(run.settings, "workers", None)
    if in_a_group():
        n = int(os.environ["WORLD_SIZE"])
        if asked not in (None, AUTO, str(n)):
            raise BadConfig(f"workers = {asked}, and {n} processes have been started: leave it out, or start {asked}")
    elif asked is None or (asked == AUTO and run.begun):
        n = run.n_workers if run.begun or not run.shareable else _number(os.environ.get(VARIABLE, "1"))
    elif asked == AUTO:
        n, run.remark_on_workers = _worth(run)
    else:
        n = int(asked)
    if n > 1 and not run.shareable:
        raise BadConfig(f"a {run.kind} is computed by one process: leave out workers = {n}")
    if n > 1 and n > run.n_walkers:
        raise BadConfig(f"{n} workers are more than the {run.n_walkers} walkers that they would share")
    return n


def _number(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise BadConfig(f"{VARIABLE} = {text!r} is not allowed: give a number of at least 1")
    return int(text)


def _worth(run: Run) -> tuple[int, str]:
    """As many workers as there are physical cores or GPUs, or one where the work is not worth more; and why."""
    device = run.generator.device
    n = torch.cuda.device_count() if device.type == "cuda" else joblib.cpu_count(only_physical_cores=True)
    what = "GPUs" if device.type == "cuda" else "physical cores"
    seconds = run.seconds_alone() if n > 1 and run.shareable else None
    if n == 1 or seconds is None:
        return 1, f"auto: there is 1 of {what}" if n == 1 else f"auto: a {run.kind} is computed by one"
    saved = seconds * (1 - 1 / n)
    if saved < WORTH * START_SECONDS:
        return (
            1,
            f"auto: 1 of {n} {what}, since others save about {saved:.1f} s and take {START_SECONDS:.0f} s to start",
        )
    return n, f"auto: all {n} {what}, which save about {saved:.0f} s by a first measurement"


# Inside a group


def in_a_group() -> bool:
    """Whether torchrun (or `launch`) has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def take_device() -> None:
    """Make the GPU of this worker, one of those of its machine, the one that `cuda` stands for."""
    if in_a_group() and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def is_first() -> bool:
    """Whether this process is the one that shows and writes."""
    return not in_a_group() or os.environ["RANK"] == "0"


@contextmanager
def shared(run: Run, starting: float = STARTING) -> Iterator[None]:
    """Share the walkers of a run with the other processes of the group, all of which have it; afterwards all have all.

    Args:
        run: the same in every process.
        starting: seconds that the others have to come.

    Raises:
        LostWorker: another process died, hangs, or is out of reach.
    """
    import torch.distributed as dist

    with _told():
        gpu = run.generator.device.type == "cuda"
        if not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=timedelta(seconds=starting))
        group = dist.new_group(timeout=timedelta(seconds=PATIENCE))
        assert isinstance(group, dist.ProcessGroup)
        run.distribute(group)
        yield
        run.collect()


class LostWorker(ComputationError):
    """Another worker died, hangs, or is out of reach."""


@contextmanager
def _told() -> Iterator[None]:
    """Errors of torch.distributed in words."""
    import torch.distributed as dist

    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        text = str(error)
        if isinstance(error, FkdriftError) or not (
            isinstance(error, dist.DistError) or any(word in text.lower() for word in ("gloo", "connection", "nccl"))
        ):
            raise
        late = f"had no answer from another for {PATIENCE:.0f} s"
        what = late if "imed out" in text else f"lost the connection to another: {text.splitlines()[0]}"
        raise LostWorker(f"worker {os.environ.get('RANK')} {what}") from error


# Starting workers on this machine


@dataclass(frozen=True)
class Job:
    """What a started worker needs.

    Args:
        run: pickled.
        files: of Python that have been executed by name, and have to be again before the run is unpickled.
        path: where modules are found.
        threads: of each worker.
        folder: for checkpoints.
        parent: the process that waits for them.
    """

    run: bytes
    files: tuple[str, ...]
    path: tuple[str, ...]
    threads: int
    folder: Path
    parent: int


def launch(run: Run, n: int, out: Path | None, progress: bool | None) -> bool:
    """Have n workers advance a run, and take over what they reach; whether they came to the end.

    Args:
        run: as it is; changed to what it is in the end.
        n: workers, started on this machine.
        out: folder for checkpoints, held by this process; None for one that is taken away.
        progress: as for `drive`.

    Raises:
        ComputationError: a worker failed, died or hangs; `partial` has the run as it was saved last, if it was.
        InputError: a worker refused the run.
    """
    import cloudpickle

    with TemporaryDirectory(prefix="fkdrift-workers-") as name:
        scratch = Path(name)
        folder = scratch / "run" if out is None else out
        before = _stamp(folder)
        job = Job(
            run=cloudpickle.dumps(run),
            files=files_executed(),
            path=tuple(sys.path),
            threads=run.settings.threads,
            folder=folder,
            parent=os.getpid(),
        )
        (scratch / JOB).write_bytes(cloudpickle.dumps(job))
        with progress_line(run.title, progress, run.symbol) as show:
            failed = _run_workers(scratch, n, run.settings.threads, _relay(scratch / PROGRESS, show))
        if _stamp(folder) != before:
            run.load_state_dict(read_checkpoint(folder))
        if failed is not None:
            saved = f"; the last checkpoint is in {out}" if out is not None and (out / CHECKPOINT).exists() else ""
            raise _error_of(scratch, failed, saved, run)
        return bool(json.loads((scratch / ENDED).read_text()))


JOB, ENDED, STOP, PROGRESS = "job.pickle", "ended.json", "stop", "progress.pickle"
POLL_SECONDS = 0.05


def _reported(steps: Iterable[Progress], file: Path) -> Iterator[Progress]:
    """The steps of the first worker, the last of which is in a file for the process that waits for it."""
    written = 0.0
    for step in steps:
        if is_first() and time.monotonic() - written > REFRESH_SECONDS:
            fresh = file.with_suffix(".new")
            fresh.write_bytes(pickle.dumps(step))
            fresh.replace(file)
            written = time.monotonic()
        yield step


def _relay(file: Path, show: Callable[[Progress], None]) -> Callable[[], None]:
    """Shows what the first worker has reported, if that is new."""
    seen = b""

    def look() -> None:
        nonlocal seen
        if file.exists() and (found := file.read_bytes()) != seen:
            show(pickle.loads(found))
            seen = found

    return look


def _stamp(folder: Path) -> int:
    """Tells a checkpoint from an older one; 0 where there is none."""
    file = folder / CHECKPOINT
    return file.stat().st_mtime_ns if file.exists() else 0


def _run_workers(scratch: Path, n: int, threads: int, look: Callable[[], None]) -> str | None:
    """Start n workers and wait for them, looking now and then; None, or how the first of them failed."""
    from torch.distributed import TCPStore
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std, start_processes
    from torch.distributed.elastic.multiprocessing.api import SubprocessContext

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": str(n)}
    shared |= {"LOCAL_WORLD_SIZE": str(n), "TORCHELASTIC_USE_AGENT_STORE": "True", "OMP_NUM_THREADS": str(threads)}
    if sys.platform == "linux":
        shared["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what fails is said here
    logs = DefaultLogsSpecs(str(scratch), redirects=dict.fromkeys(range(1, n), Std.ALL))
    with _own_signals(), interruptible(lambda: (scratch / STOP).touch()):
        with _own_signals():
            context = start_processes(
                "worker",
                sys.executable,
                {rank: ("-m", "fkdrift.runs.worker", str(scratch)) for rank in range(n)},
                {rank: {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(n)},
                logs,
            )
        assert isinstance(context, SubprocessContext)
        try:
            return _wait({rank: handler.proc for rank, handler in context.subprocess_handlers.items()}, look)
        finally:
            context.close(signal.SIGTERM, 1)


def _wait(processes: Mapping[int, Popen[bytes]], look: Callable[[], None]) -> str | None:
    """Until all have ended well, or one has not and the others have had their time; None, or how the first failed."""
    since = None
    while since is None or time.monotonic() - since < GRACE:
        ended = {rank: code for rank, process in processes.items() if (code := process.poll()) is not None}
        failed = {rank: code for rank, code in ended.items() if code}
        look()
        if len(ended) == len(processes):
            break
        if failed and since is None:
            since = time.monotonic()
        time.sleep(POLL_SECONDS)
    if not failed:
        return None
    rank, code = min(failed.items(), key=lambda item: item[1])  # killed ones first
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
    hanging = [str(rank) for rank in processes if rank not in ended]
    return f"worker {rank} {how}" + (f", while worker {' and '.join(hanging)} did not answer" if hanging else "")


@contextmanager
def _own_signals() -> Iterator[None]:
    """What was set up for signals is as before, whatever the process layer of torch does to it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]


def _error_of(scratch: Path, failed: str, saved: str, run: Run) -> Exception:
    """What to raise: the error of a worker that says why, or that one of them is gone."""
    errors = [pickle.loads(file.read_bytes()) for file in sorted(scratch.glob("error-*.pickle"))]
    own = [error for error in errors if not isinstance(error, LostWorker)]
    for error in own:
        if not isinstance(error, ComputationError):
            return error
        return type(error)(f"{error}{saved}", run)
    lost = f" ({errors[0]})" if errors and "killed" not in failed else ""
    return ComputationError(f"{failed}{lost}, and all workers were stopped{saved}", run)


def work(scratch: Path) -> None:
    """What a started worker does: take the run over, advance it with the others, leave its checkpoint."""
    rank = os.environ["RANK"]
    job: Job = pickle.loads((scratch / JOB).read_bytes())
    sys.path[:] = job.path

    def stopped() -> bool:
        return (scratch / STOP).exists() or os.getppid() != job.parent

    try:
        take_device()
        with cpu_threads(job.threads):
            execute_again(job.files)
            run: Run = pickle.loads(job.run)
            options: dict[str, Any] = {"progress": False, "out": job.folder, "held": True}
            with shared(run, STARTING_HERE):
                ended = follow(run, _reported(run.advance(), scratch / PROGRESS), **options, stopped=stopped)
            if rank == "0":
                run.save(job.folder, figures=False, held=True)
                (scratch / ENDED).write_text(json.dumps(ended))
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(0)  # connections and threads end with the process, in whatever order the others end
    except FkdriftError as error:
        error.__cause__ = error.__context__ = None
        if isinstance(error, ComputationError):
            error = type(error)(str(error))
        (scratch / f"error-{rank}.pickle").write_bytes(pickle.dumps(error))
        raise SystemExit(1) from None
    except Exception:
        told = RuntimeError(f"worker {rank} failed: {traceback.format_exc()}")
        (scratch / f"error-{rank}.pickle").write_bytes(pickle.dumps(told))
        raise SystemExit(1) from None
