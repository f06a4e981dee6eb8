"""Sweeps on Slurm, by commands that stand in for its own: the same table as in one process."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from lengthwise.settings.config import InputError
from lengthwise.sweeps import on_slurm
from lengthwise.sweeps.jobs import Ended
from lengthwise.sweeps.loop import State
from lengthwise.sweeps.on_slurm import SlurmPool
from lengthwise.sweeps.sweep import run_sweep
from slurm_stand_in import install
from sweep_helpers import Here, holder, results, small_plan, stop_amid_a_cell, wait_for_rows

pytestmark = [pytest.mark.slow]
pytest.importorskip("submitit")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A Slurm of this machine; makes a pool of two workers."""
    for key, value in install(tmp_path / "slurm").items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(on_slurm, "_EVERY", 0.3)
    return lambda: SlurmPool("main", tmp_path / "logs", 2, 1, minutes=10)


@pytest.mark.parametrize(
    ("number", "why", "stopped"),
    [
        (signal.SIGKILL, "its job 1 was lost", False),
        (signal.SIGUSR2, "Slurm asked it to end", True),  # a minute before its time is over
        (signal.SIGTERM, "Slurm asked it to end", True),  # as it gives way to others
    ],
)
def test_a_job_that_ends_amid_a_cell_changes_nothing(slurm, tmp_path, number, why, stopped):
    out, hit = tmp_path / "out", []
    lost: list[Ended] = []

    def watch(ended: Ended | None, state: State) -> None:
        if ended is not None and ended.lost:
            lost.append(ended)
        if not hit:
            folder = wait_for_rows(out)
            os.kill(holder(folder / ".lock"), number)
            hit.append(folder.name)

    sweep = run_sweep(small_plan(), out, slurm, watch=watch)
    assert [(ended.name, ended.stopped) for ended in lost] == [(hit[0], stopped)]
    assert why in str(lost[0].error).replace("job 2", "job 1")  # the two begin at once
    assert str(sweep) == "4 of 4 cells done"
    run_sweep(small_plan(), tmp_path / "whole", Here)
    assert results(out) == results(tmp_path / "whole")


def test_asked_to_stop_jobs_keep_checkpoints_and_leave_the_queue(slurm, tmp_path):
    out = tmp_path / "out"
    stop_amid_a_cell(out, slurm)
    until = time.monotonic() + 30  # they have said so, and are about to end
    while on_slurm._queue() and time.monotonic() < until:
        time.sleep(0.1)
    assert on_slurm._queue() == {}


def test_what_slurm_refuses_is_one_line(slurm, tmp_path):
    with pytest.raises(InputError, match=r"Slurm takes no job: .*invalid partition"):
        run_sweep(small_plan(), tmp_path / "out", lambda: SlurmPool("gpu", tmp_path, minutes=5))


def test_a_job_that_waits_says_why(monkeypatch, tmp_path, slurm):
    monkeypatch.setattr(on_slurm, "_queue", lambda: {"7": ("PENDING", "Resources")})
    pool = slurm()
    pool._jobs["a"] = (type("Handed", (), {"job_id": "7", "paths": _Paths(tmp_path)}), 0.0)
    assert pool.wait(2) == [("a", "waits in the queue (Resources)")]


def test_where_there_is_no_slurm_it_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no Slurm here"):
        SlurmPool("gpu", tmp_path, minutes=5)


class _Paths:
    def __init__(self, folder: Path) -> None:
        self.result_pickle = folder / "none.pkl"
