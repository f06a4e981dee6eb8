"""What the tests of sweeps share: a small sweep, and a pool that works in this process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lengthwise.sweeps.grid import Plan, make_plan
from lengthwise.sweeps.jobs import Ended, Job, perform
from lengthwise.sweeps.loop import Pool, State
from lengthwise.sweeps.results import CELLS, RESULTS
from lengthwise.sweeps.sweep import run_sweep

# Cells of about a second; that their models do not interpolate is their result.
SMALL: dict[str, Any] = {
    "grid": {"method": ["rope", "nope"], "seed": [0, 1]},
    "settings": {
        "task": "successor",
        "device": "cpu",
        "data.length": 3,
        "model": {"width": 16, "heads": 2, "layers": 1, "feed_forward": 32},
        "training": {"batch_size": 32, "max_steps": 160, "evaluate_every": 20},
        "training.checkpoint_every": 20,
        "training.validation_problems": 64,
        "evaluation": {"lengths": [3, 9], "samples": 50},
    },
}

SMALL_FILE = """
[grid]
method = ["rope", "nope"]
seed = [0, 1]

[settings]
task = "successor"
device = "cpu"
data.length = 3
model = { width = 16, heads = 2, layers = 1, feed_forward = 32 }
evaluation = { lengths = [3, 9], samples = 50 }

[settings.training]
batch_size = 32
max_steps = 160
evaluate_every = 20
checkpoint_every = 20
validation_problems = 64
"""


def small_plan(**others: Any) -> Plan:
    """The small sweep, with other tables."""
    return make_plan({**SMALL, **others})


class Here:
    """A pool that does one job at a time, in this process, when it is waited for."""

    slots = 1

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.begun: list[str] = []
        self.ends: list[str] = []

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    def wait(self, seconds: float) -> list[Ended | tuple[str, str]]:
        job = self.jobs.pop()
        self.begun.append(job.name)
        return [perform(job)]

    def stop(self) -> None:
        self.ends.append("stop")

    def close(self) -> None:
        self.ends.append("close")


def results(out: Path) -> bytes:
    """The table that a sweep must come to, however it went."""
    return (out / RESULTS).read_bytes()


def wait_for_rows(out: Path, seconds: float = 60) -> Path:
    """Wait until a cell of a sweep is in the middle of its training; its folder."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for path in out.glob(f"{CELLS}/*/run/metrics.jsonl"):
            if path.stat().st_size and not (path.parents[1] / "cell.json").exists():
                return path.parents[1]
        time.sleep(0.005)
    raise AssertionError("no cell has begun to train")


def stop_amid_a_cell(out: Path, pool: Callable[[], Pool]) -> None:
    """Ask a sweep to stop when its first cell trains: that keeps a checkpoint, and is not done."""
    begun: list[Path] = []

    def watch(ended: Ended | None, state: State) -> None:
        begun.append(wait_for_rows(out))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(small_plan(), out, pool, watch=watch)
    assert (begun[0] / "run" / "checkpoint.pt").exists()
    assert not (begun[0] / "cell.json").exists()


def holder(lock: Path) -> int:
    """The process that has a file open (Linux)."""
    wanted = os.path.realpath(lock)
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal() or int(process.name) == os.getpid():
            continue
        try:
            if any(os.path.realpath(fd) == wanted for fd in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:
            continue
    raise AssertionError(f"nobody holds {lock}")
