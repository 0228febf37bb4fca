"""Runs that are interrupted at random moments, saves included, on full disks, in odd places, and two at a time.

Runs are made in forked children, so that torch is imported once.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from runs import assert_same, checkpoint

from campaign.folders import small_runs
from campaign.tally import Tally
from fkdrift.errors import FkdriftError
from fkdrift.runs import driver
from fkdrift.runs.run import Run

REFUSED, BROKEN = 2, 1
WITH_FIGURES = 10
"""One in so many of the runs that are killed draws its figures."""
PATIENCE = 300.0
"""Seconds that a resumed run may take."""


def child(act: Callable[[], object], figures: bool = False, quiet: bool = True) -> int:
    """Start a process that does something and ends with 0, REFUSED or BROKEN; returns its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 0
    try:
        torch.set_num_threads(1)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in the background of a shell
        driver.CHECKPOINT_SECONDS = 0.0  # a save after every block: half of the time is spent in saves
        if not figures:
            draw_nothing(Run)
        act()
    except FkdriftError:
        code = REFUSED
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        code = BROKEN
        if not quiet:
            traceback.print_exc()
    os._exit(code)


def draw_nothing(kind: type[Run]) -> None:
    """Leave out the figures, which are most of the time of a small run."""
    kind.plot = lambda run: {}  # type: ignore[method-assign]
    for each in kind.__subclasses__():
        draw_nothing(each)


def ended(pid: int, seconds: float = PATIENCE) -> int:
    """The exit code of a child, negative for a signal; one that takes too long is killed."""
    for _ in range(int(seconds / 0.01)):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -signal.SIGKILL


def begin(make: Callable[[], Run], out: Path) -> Callable[[], object]:
    return lambda: driver.drive(make(), out=out, progress=False)


def go_on(out: Path) -> Callable[[], object]:
    return lambda: driver.resume(out, progress=False)


@cache
def undisturbed(kind: str, figures: bool = False) -> tuple[dict[str, Any], float]:
    """The last checkpoint of a run that is left alone, and how long a child takes for one, with figures or without.

    It is made here first, so that no child has to import what it needs.
    """
    make = small_runs()[kind]
    with TemporaryDirectory() as folder:
        out = Path(folder)
        driver.load(driver.drive(make(), progress=False).save(out, figures=figures))
        started = time.monotonic()
        assert ended(child(begin(make, out), figures)) == 0
        return checkpoint(out), time.monotonic() - started


def kills(n: int, seed: int, folder: Path, number: signal.Signals) -> Tally:
    """Kill each kind of run n times, resume it up to its end, and compare with a run that was left alone."""
    tally, rng, out = Tally(f"kills by {number.name}"), random.Random(seed), folder / "killed"
    for kind, make in small_runs().items():
        for k in range(n):
            figures = k % WITH_FIGURES == WITH_FIGURES - 1
            expected, length = undisturbed(kind, figures)
            shutil.rmtree(out, ignore_errors=True)
            pid = child(begin(make, out), figures)
            time.sleep(rng.uniform(0, 1.1 * length))
            os.kill(pid, number)
            ended(pid)
            what = f"{kind} {k}"
            saved = (out / "checkpoint.pt").exists()  # otherwise killed before there was anything to save
            code = ended(child(go_on(out) if saved else begin(make, out), figures))
            if code != 0:
                tally.add("lost", f"{what}: resume ended with {code}")
                continue
            try:
                assert_same(checkpoint(out), expected)
                tally.add("right")
            except AssertionError as error:
                tally.add("wrong", f"{what}: {error}")
    return tally


def together(n: int, seed: int, folder: Path) -> Tally:
    """Two processes go on with one folder at the same time: one is refused, or comes when the other is done."""
    tally, make = Tally("two processes"), small_runs()["ground state"]
    expected, _ = undisturbed("ground state")
    for k in range(n):
        out = folder / f"shared {k}"
        codes = [ended(pid) for pid in [child(begin(make, out)), child(begin(make, out))]]
        try:
            assert_same(checkpoint(out), expected)
            outcome = "refused" if sorted(codes) == [0, REFUSED] else "right" if codes == [0, 0] else "wrong"
            tally.add(outcome, codes)
        except AssertionError as error:
            tally.add("wrong", error)
    return tally


def full_disk(n: int, seed: int, folder: Path) -> Tally:
    """A disk with room for part of a save: refused, and the last checkpoint is still there and goes on."""
    tally, rng, make = Tally("full disks"), random.Random(seed), small_runs()["ground state"]
    undisturbed("ground state")
    for k in range(n):
        out = folder / f"full {k}"
        pid = child(begin(make, out))
        time.sleep(rng.uniform(0, 1))
        os.kill(pid, signal.SIGKILL)
        ended(pid)
        if not (out / "checkpoint.pt").exists():
            shutil.rmtree(out, ignore_errors=True)
            ended(child(begin(make, out)))
        before = checkpoint(out)
        room = rng.randrange((out / "checkpoint.pt").stat().st_size)

        def little_room(out: Path = out, room: int = room) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
            driver.resume(out, progress=False)

        code = ended(child(little_room))
        try:
            assert_same(checkpoint(out), before)
            tally.add("refused" if code == REFUSED else "wrong", f"{k}: exit code {code}")
        except AssertionError as error:
            tally.add("lost", f"{k}: {error}")
            continue
        if ended(child(go_on(out))) != 0:
            tally.add("lost", f"{k} does not go on")
    return tally


def odd_places(n: int, seed: int, folder: Path) -> Tally:
    """Folders with odd names, files in the place of a folder, names that are too long."""
    tally, rng, make = Tally("odd places"), random.Random(seed), small_runs()["ground state"]
    (folder / "file").write_text("")
    (folder / "loop").symlink_to(folder / "loop")
    names = [
        "with space",
        "ü°",
        "-p",
        "a\nb",
        "'quoted\"",
        ".hidden",
        "a" * 300,
        "file",
        "file/below",
        "loop",
        "\0",
        "a" * 240,
    ]
    names += ["x" * 200 + "/" + "y" * 200, "$HOME", "*", "deep/er/and/deeper"]
    for k in range(n):
        name = (
            names[k] if k < len(names) else "".join(chr(rng.randrange(1, 0x2FF)) for _ in range(rng.randrange(1, 80)))
        )
        out = Path(f"{folder}/{name}")

        def act(out: Path = out) -> Any:
            run = make()
            list(zip(range(2), run.advance(), strict=False))
            return driver.load(run.save(out, figures=False))

        tally.attempt(repr(name[:60]), act, lambda run: run.n_updates > 0)
    return tally
