"""Gradients in memory that processes share: threads stand for the processes, one array for their memory."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from lengthwise.training import shared_memory
from lengthwise.training.shared_memory import GoneError, SharedMemory

NUMBERS = 1000
ON_LINUX = pytest.mark.skipif(
    not Path("/dev/shm").is_dir(), reason="memory is shared on Linux alone"
)


def processes(count, pids=None):
    """What each of some processes has of memory that all of them share."""
    memory = np.zeros(8 * 3 * count + 4 * 2 * count * NUMBERS, np.uint8)
    return [SharedMemory(memory, number, pids or [os.getpid()] * count) for number in range(count)]


@pytest.mark.parametrize("count", [2, 3])
def test_every_process_gets_the_mean_with_the_same_bits_and_hears_of_a_request(count):
    steps, at = 60, 23
    gradients = torch.randn(count, steps, NUMBERS, generator=torch.Generator().manual_seed(0))

    def train(shared, own):
        means, heard = [], []
        for step, gradient in enumerate(own.clone()):
            shared.average(gradient)
            shared.asked = shared is asked and step == at
            means.append(gradient)
            heard.append(shared.any_asked)
        return torch.stack(means), heard

    shared = processes(count)
    asked = shared[-1]
    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(train, shared, gradients))
    for means, heard in found:
        torch.testing.assert_close(means, gradients.mean(0), rtol=1e-5, atol=1e-6)
        assert torch.equal(means, found[0][0])
        assert heard == [step == at + 1 for step in range(steps)]


@ON_LINUX
def test_a_process_that_has_ended_is_noticed(monkeypatch):
    """Also one that nobody has asked how it ended; one that is there, but does not answer, later."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    first, _ = processes(2, [os.getpid(), ended.pid])
    with pytest.raises(GoneError, match=f"process {ended.pid} has gone"):
        first.average(torch.zeros(NUMBERS))
    ended.wait()
    first, _ = processes(2, [os.getpid(), ended.pid])
    with pytest.raises(GoneError, match="has gone"):
        first.average(torch.zeros(NUMBERS))
    monkeypatch.setattr(shared_memory, "_PATIENCE", 0.15)
    first, _ = processes(2)
    with pytest.raises(GoneError, match="does not answer"):
        first.average(torch.zeros(NUMBERS))


@ON_LINUX
@pytest.mark.parametrize(
    "lacking",
    ["nothing", "memory", "room", "cores", "order", "this machine", "Linux", "room's call"],
)
def test_memory_is_shared_where_it_can_be(monkeypatch, tmp_path, lacking):
    """One process that is told what two would tell each other."""
    told = []

    def gather(into, value):
        told.append(value)
        into[:] = [value, value]

    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_gather_object", gather)
    monkeypatch.setattr(shared_memory, "_MEMORY", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    if lacking == "memory":
        monkeypatch.setattr(shared_memory, "_MEMORY", tmp_path / "none")
    if lacking == "room":
        monkeypatch.setattr(os, "posix_fallocate", _full)
    if lacking == "cores":
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    if lacking == "Linux":  # neither Windows nor macOS says which cores are this process's
        monkeypatch.delattr(os, "sched_getaffinity")
    if lacking == "room's call":
        monkeypatch.delattr(os, "posix_fallocate")
    if lacking == "order":
        monkeypatch.setattr("platform.machine", lambda: "aarch64")
    if lacking == "this machine":
        monkeypatch.setattr(np, "memmap", _missing)
    shared = SharedMemory.open(NUMBERS)
    assert (shared is not None) == (lacking == "nothing")
    assert told[1] is (lacking == "nothing")
    assert list(tmp_path.iterdir()) == []


def _full(*_):
    raise OSError(28, "No space left on device")


def _missing(*_, **__):
    raise FileNotFoundError
