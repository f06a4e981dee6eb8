"""Sweeps on Ray: the same table as on processes of this machine."""

from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path

import pytest

from lengthwise.settings.config import InputError
from lengthwise.sweeps.jobs import Ended, Job
from lengthwise.sweeps.loop import State
from lengthwise.sweeps.sweep import run_sweep
from sweep_helpers import Here, holder, results, small_plan, stop_amid_a_cell, wait_for_rows

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    """The small sweep, undisturbed, in this process."""
    out = tmp_path_factory.mktemp("sweep") / "whole"
    run_sweep(small_plan(), out, Here)
    return out


@pytest.fixture
def ray_pool(monkeypatch, tmp_path):
    """Makes a pool of two workers on a Ray cluster that this process starts; nothing goes to the home."""
    pytest.importorskip("ray")
    from lengthwise.sweeps.on_ray import RayPool

    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's own
        yield lambda: RayPool("local", 2, 1)
    assert not (tmp_path / "home").exists()


# Ray's own warnings are not ours to mend.
@pytest.mark.filterwarnings("ignore")
def test_on_ray_a_worker_that_is_killed_amid_a_cell_changes_nothing(swept, ray_pool, tmp_path):
    """A real Ray, a real SIGKILL of the worker process that holds the cell's lock."""
    out, killed, lost = tmp_path / "out", [], []

    def watch(ended: Ended | None, state: State) -> None:
        if ended is not None and ended.lost:
            lost.append((ended.name, ended.error))
        if not killed:
            folder = wait_for_rows(out)
            os.kill(holder(folder / ".lock"), signal.SIGKILL)
            killed.append(folder.name)

    sweep = run_sweep(small_plan(), out, ray_pool, watch=watch)
    assert [name for name, _ in lost] == killed
    assert "its worker was lost (WorkerCrashedError)" in str(lost[0][1])
    assert str(sweep) == "4 of 4 cells done"
    assert results(out) == results(swept)


@pytest.mark.filterwarnings("ignore")
def test_on_ray_asked_to_stop_cells_keep_checkpoints(swept, ray_pool, tmp_path):
    out = tmp_path / "out"
    stop_amid_a_cell(out, ray_pool)
    run_sweep(small_plan(), out, Here)
    assert results(out) == results(swept)


@pytest.mark.filterwarnings("ignore")
def test_on_ray_a_failure_is_told_as_here(ray_pool, tmp_path):
    pool = ray_pool()
    try:
        pool.submit(Job("a", "lengthwise.nothing:at_all", tmp_path))
        events = []
        while not events:
            events = pool.wait(1)
        assert not events[0].lost
        assert "No module named 'lengthwise.nothing'" in events[0].error
    finally:
        pool.close()


@pytest.mark.filterwarnings("ignore")
def test_no_cluster_is_one_line(monkeypatch):
    pytest.importorskip("ray")
    from lengthwise.sweeps.on_ray import RayPool

    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    with pytest.raises(InputError, match=r"no Ray cluster at '127\.0\.0\.1:1'"):
        RayPool("127.0.0.1:1")
