"""What processes of one machine tell each other once a step, in memory that all of them see.

A process that waits for a message sleeps, and takes milliseconds of a step of ten to wake, whatever carries
the message. These look whether the others are there yet, for a moment, and then sleep between two looks
(docs/scale.md).
"""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

# Files there are memory. Where there is none (not Linux) processes send messages.
_MEMORY = Path("/dev/shm")

# Processors on which what one process wrote first is seen first by the others, too.
_ORDERED = ("x86_64", "AMD64")

# Seconds that a process looks without sleeping, sleeps between two looks, and lets pass until it asks
# whether the others are still there; and how long it waits for those that are, as torch does.
_LOOKING, _SLEEP, _ASKING, _PATIENCE = 2e-3, 5e-5, 0.1, 1800.0


class GoneError(RuntimeError):
    """One of the processes is no longer there, or does not answer."""


class SharedMemory:
    """Gradients of processes that train together, and whether any of them was asked to stop.

    Each writes its own, says so, waits until all have, and adds up those of all in the same order. There
    are two places for each: while one process still reads those of a step, another writes the next.

    Attributes:
        asked: whether this process was asked to stop; the others hear of it with the next gradient.
        any_asked: whether any was, when the last gradients were written: the same in all processes.
    """

    def __init__(self, memory: np.ndarray, process: int, pids: list[int]) -> None:
        self._process, self._pids, self._steps = process, pids, 0
        count = len(pids)
        words = memory[: 8 * 3 * count].view(np.int64).reshape(3, count)
        self._written, self._flags = words[0], words[1:]
        gradients = memory[8 * 3 * count :].view(np.float32).reshape(2, count, -1)
        self._gradients = torch.from_numpy(gradients)
        self.asked = self.any_asked = False

    @classmethod
    def open(cls, numbers: int) -> SharedMemory | None:
        """Memory of all processes of this training; None, for all of them, where they can't share any.

        They can't on several machines, with more processes than cores, or without memory to spare.

        Args:
            numbers: of a gradient, float32.
        """
        process, count = dist.get_rank(), dist.get_world_size()
        size = 8 * 3 * count + 4 * 2 * count * numbers
        path, memory = _make(size, count) if process == 0 else None, None
        told: list[Any] = [None] * count
        dist.all_gather_object(told, (os.getpid(), path))
        pids, file = [pid for pid, _ in told], told[0][1]
        with contextlib.suppress(OSError, ValueError):  # of another machine
            if file is not None and not any(map(_is_gone, pids)):
                memory = np.memmap(file, np.uint8, "r+", shape=(size,))
        dist.all_gather_object(told, memory is not None)
        if path is not None:
            path.unlink()  # the memory stays until the last of them ends
        return cls(memory, process, pids) if memory is not None and all(told) else None

    def average(self, gradient: Tensor) -> None:
        """Make the gradient the mean of all processes'; every process has the same bits then.

        Args:
            gradient: of this process, `[number]`.

        Raises:
            GoneError: when another process does not write its own.
        """
        self._steps += 1
        place = self._steps % 2
        gradients, flags = self._gradients[place], self._flags[place]
        gradients[self._process].copy_(gradient)
        flags[self._process] = self.asked
        self._written[self._process] = self._steps
        for other, pid in enumerate(self._pids):
            if self._written[other] < self._steps:
                self._wait(other, pid)
        torch.add(gradients[0], gradients[1], out=gradient)
        for more in gradients[2:]:
            gradient += more
        gradient /= len(self._pids)
        self.any_asked = bool(flags.any())

    def _wait(self, other: int, pid: int) -> None:
        """Look until another process has written what it has of this step."""
        began = asked = now = time.perf_counter()
        while self._written[other] < self._steps:
            now = time.perf_counter()
            if now - began > _LOOKING:
                time.sleep(_SLEEP)
            if now - asked > _ASKING:
                asked = now
                if _is_gone(pid):
                    raise GoneError(f"process {pid} has gone")
                if now - began > _PATIENCE:
                    raise GoneError(f"process {pid} does not answer")


def _make(size: int, processes: int) -> Path | None:
    """A file of memory, of zeros; None where there is none to share or no core for each to look from."""
    cores, fill = (getattr(os, name, None) for name in ("sched_getaffinity", "posix_fallocate"))
    if cores is None or fill is None or platform.machine() not in _ORDERED:  # not Linux, or no PC
        return None
    if len(cores(0)) < processes:
        return None
    try:
        handle, name = tempfile.mkstemp(prefix="lengthwise-", dir=_MEMORY)
    except OSError:
        return None
    try:
        fill(handle, 0, size)  # or a later write would end the process
    except OSError:
        Path(name).unlink()
        return None
    finally:
        os.close(handle)
    return Path(name)


def _is_gone(pid: int) -> bool:
    """Whether a process of this machine has ended, even if nobody has asked how."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"
