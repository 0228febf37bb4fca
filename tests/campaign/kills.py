"""Runs that are interrupted at random moments, saves included, on full disks, in odd places, and two at a time.

Runs are made in forked children, so that torch is imported once.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import time
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from runs import COMMAND, assert_same, checkpoint

from campaign.kinds import shorter, small_runs
from campaign.tally import Tally
from fkdrift.errors import FkdriftError
from fkdrift.generative import principal_components
from fkdrift.generative.coding.compression import compress, decompress
from fkdrift.runs import driver, following
from fkdrift.runs.run import Run

REFUSED, BROKEN = 2, 1
WITH_FIGURES = 0.1
"""Share of the runs that are killed that draw their figures."""
TWICE = 0.25
"""Share of kills with two signals."""
SAVE_SECONDS = 0.1
"""Between two saves: about a third of the time is spent in them."""
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
        following.CHECKPOINT_SECONDS = SAVE_SECONDS
        if not figures:
            draw_nothing(Run)
        with shorter():
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
        with shorter():
            driver.load(driver.drive(make(), progress=False).save(out, figures=figures))
        started = time.monotonic()
        assert ended(child(begin(make, out), figures)) == 0
        return checkpoint(out), time.monotonic() - started


def kills(n: int, seed: int, folder: Path, number: signal.Signals) -> Tally:
    """Kill each kind of run n times, resume it up to its end, and compare with a run that was left alone.

    One in four is killed once more when it goes on; one in four has a second signal soon after the first.
    """
    tally, rng, out, runs = Tally(f"kills by {number.name}"), random.Random(seed), folder / "killed", small_runs()
    for kind in dict.fromkeys(name.partition(",")[0] for name in runs):
        for k in range(n):
            name = rng.choice([each for each in runs if each.partition(",")[0] == kind])
            figures = rng.random() < WITH_FIGURES
            expected, length = undisturbed(name, figures)
            shutil.rmtree(out, ignore_errors=True)
            what = f"{name} {k}"
            for _ in range(rng.choice((1, 1, 1, 2))):
                pid = child(_next(runs[name], out), figures)
                _kill(pid, number, length, rng)
                if ended(pid) == 0 and not _saved(out):
                    tally.add("lost", f"{what}: nothing is saved")
            code = ended(child(_next(runs[name], out), figures))
            if code != 0:
                tally.add("lost", f"{what}: resume ended with {code}")
                continue
            _compare(tally, what, out, expected)
    return tally


def _kill(pid: int, number: signal.Signals, length: float, rng: random.Random) -> None:
    """Send a signal within so many seconds, or two."""
    time.sleep(rng.uniform(0, 1.1 * length))
    os.kill(pid, number)
    if rng.random() < TWICE:
        time.sleep(rng.uniform(0, 0.1 * length))
        os.kill(pid, number)


def _compare(tally: Tally, what: str, out: Path, expected: dict[str, Any], outcome: str = "right") -> None:
    """Count the outcome where the run in a folder ended as it would have if it had been left alone."""
    try:
        assert_same(checkpoint(out), expected)
        tally.add(outcome, what)
    except AssertionError as error:
        tally.add("wrong", f"{what}: {error}")


def _saved(out: Path) -> bool:
    """Whether there is something to go on with; a run that is killed before has to begin again."""
    return (out / "checkpoint.pt").exists()


def _next(make: Callable[[], Run], out: Path) -> Callable[[], object]:
    return go_on(out) if _saved(out) else begin(make, out)


def together(n: int, seed: int, folder: Path) -> Tally:
    """Two processes go on with one folder at the same time: one is refused, or comes when the other is done."""
    tally, make = Tally("two processes"), small_runs()["ground state"]
    expected, _ = undisturbed("ground state")
    for k in range(n):
        out = folder / f"shared {k}"
        codes = [ended(pid) for pid in [child(begin(make, out)), child(begin(make, out))]]
        outcome = "refused" if sorted(codes) == [0, REFUSED] else "right" if codes == [0, 0] else "wrong"
        _compare(tally, str(codes), out, expected, outcome)
    return tally


COMMANDS = (
    ("solve", "-p", "x**2/2 + x**4/10", "--no-project", "--n-walkers", "256"),
    ("scan", "-p", "r**4", "-P", "n_dims=1,2,3", "--jobs", "2", "--cold", "2", "--no-project", "--n-walkers", "64"),
)


def commands(n: int, seed: int, folder: Path) -> Tally:
    """The command, and a scan with processes of its own, killed as a terminal does it or alone; then `resume`."""
    tally, rng = Tally("killed commands"), random.Random(seed)
    whole: dict[tuple[str, ...], tuple[dict[str, Any], float]] = {}
    for k in range(n):
        words, out = COMMANDS[k % len(COMMANDS)], folder / f"out {k}"
        if words not in whole:
            started = time.monotonic()
            assert _command(*words, "--out", folder / words[0]).wait() == 0
            whole[words] = checkpoint(folder / words[0]), time.monotonic() - started
        expected, length = whole[words]
        number, send = rng.choice((signal.SIGINT, signal.SIGTERM, signal.SIGKILL)), rng.choice((os.kill, os.killpg))
        process = _command(*words, "--out", out)
        try:
            process.wait(rng.uniform(0, length))
        except subprocess.TimeoutExpired:
            send(process.pid, number)
        code = process.wait(PATIENCE)
        what = f"{words[0]} {k} {number.name} by {send.__name__} ended with {code}"
        goes_on = ("resume", out) if _saved(out) else (*words, "--out", out)
        if (code := _command(*goes_on).wait(PATIENCE)) != 0:
            tally.add("lost", f"{what}: resume ended with {code}")
        else:
            _compare(tally, what, out, expected)
    return tally


def _command(*words: str | Path) -> subprocess.Popen[bytes]:
    """fkdrift in a session of its own, as a terminal has it."""
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([*COMMAND, *map(str, words), "--quiet"], start_new_session=True, **quiet)


def archives(n: int, seed: int, folder: Path) -> Tally:
    """Compressing and decompressing over a file that is there: killed, the file is the old one or the new one."""
    tally, rng = Tally("killed archives"), random.Random(seed)
    x = np.random.default_rng(0).normal(size=(3000, 3))
    model = principal_components(torch.from_numpy(x), n_latents=1).vae()
    packed, array, whole = folder / "data.fkdz", folder / "data.npy", folder / "whole.fkdz"
    compress(x, model, whole, step=0.01)
    started = time.monotonic()
    decompress(whole, model, folder / "whole.npy")
    length = time.monotonic() - started
    acts: dict[Path, Callable[[], object]] = {
        packed: lambda: compress(x, model, packed, step=0.01),
        array: lambda: decompress(whole, model, array),
    }
    for k in range(n):
        out = (packed, array)[k % 2]
        expected, number = (folder / f"whole{out.suffix}").read_bytes(), rng.choice((signal.SIGINT, signal.SIGKILL))
        out.write_bytes(b"old")
        pid = child(acts[out])
        _kill(pid, number, length, rng)
        ended(pid)
        what = f"{out.name} {k} by {number.name}"
        if out.read_bytes() not in (b"old", expected):
            tally.add("lost", what)
        code = ended(child(acts[out]))
        tally.add("right" if code == 0 and out.read_bytes() == expected else "wrong", f"{what}: {code}")
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
