"""Work that is killed: each in a process of its own, forked from one that has loaded everything.

Moments are `None` (not killed, the file events are counted), `("event", n)` at the n-th file event in the
folder, `("half", n)` amid the n-th checkpoint or table, half of whose bytes are written, and
`("share", x)` after that share of the time that the work takes; that is up to whoever started it.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

Moment = tuple[str, float] | None
_EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.listdir"}
_START = multiprocessing.get_context("forkserver")


def start(work: str, folder: Path, moment: Moment, *given: Any) -> tuple[int | None, float]:
    """Do some work in another process; its exit code, and the seconds it took."""
    _START.set_forkserver_preload(["killed_work", "lengthwise.training.trainer", "sweep_helpers"])
    process = _START.Process(target=_work, args=(work, folder, moment, *given))
    began = time.monotonic()
    process.start()
    if moment is not None and moment[0] == "share":
        process.join(moment[1])
        process.kill()
    process.join(300)
    return process.exitcode, time.monotonic() - began


def moments(seed: str, events: int, seconds: float, halves: int) -> list[Moment]:
    """Twenty moments, the same for the same seed (those by the clock as far as clocks allow)."""
    rng = random.Random(seed)
    found: list[Moment] = [("event", rng.randint(1, events)) for _ in range(10)]
    found += [("share", seconds * rng.random()) for _ in range(6)]
    return [*found, *(("half", rng.randint(1, halves)) for _ in range(4))]


def _work(work: str, folder: Path, moment: Moment, *given: Any) -> None:
    import torch

    torch.set_num_threads(1)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in _EVENTS and str(arguments[0]).startswith(str(folder)):
            count += 1
            if moment is not None and moment[0] == "event" and count == moment[1]:
                os.kill(os.getpid(), signal.SIGKILL)

    if moment is not None and moment[0] == "half":
        _write_half(int(moment[1]))
    sys.addaudithook(hook)
    with contextlib.suppress(RuntimeError):  # it did not interpolate
        WORK[work](folder, *given)
    if moment is None:
        folder.with_suffix(".count").write_text(json.dumps(count))


def _write_half(number: int) -> None:
    """Let the n-th file that is written whole be written by half, and the process be killed then."""
    from lengthwise import files

    real, seen = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            real(descriptor)
            os.kill(os.getpid(), signal.SIGKILL)
        real(descriptor)

    files.os.fsync = fsync  # type: ignore[assignment]


def _train(folder: Path, values: dict[str, Any]) -> None:
    from lengthwise.settings.config import make_config
    from lengthwise.training.trainer import train_run

    train_run(make_config(values), folder, resume=True)


def _prove(folder: Path) -> None:
    from lengthwise.cli import entry
    from lengthwise.proof import prover

    prover._SAVE_EVERY = 0.0
    assert entry.run(["prove", str(folder)]) == 0


def _sweep(folder: Path, tables: dict[str, Any]) -> None:
    from lengthwise.sweeps.sweep import run_sweep
    from sweep_helpers import Here, make_plan

    run_sweep(make_plan(tables), folder, Here)


WORK = {"train": _train, "prove": _prove, "sweep": _sweep}
