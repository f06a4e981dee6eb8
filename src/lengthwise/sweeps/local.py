"""Workers of this machine: processes that are started once and do one job after the other."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import time

from lengthwise.sweeps.jobs import GRACE, Ended, Job
from lengthwise.workers import Child, environment


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def share_cores(workers: int | None, threads: int | None) -> tuple[int, int]:
    """How many workers, and threads of each, so that together they have no more than there are cores.

    By default a worker for each core, with one thread: threads of a small model mostly wait for each other.
    """
    if workers is None:
        workers = max(1, cores() // (threads or 1))
    return workers, threads or max(1, cores() // workers)


class LocalPool:
    """Worker processes of this machine; one that dies is replaced when there is work for it.

    Args:
        workers: at most so many; see `share_cores`.
        threads: of each.
    """

    def __init__(self, workers: int | None = None, threads: int | None = None) -> None:
        self.slots, self.threads = share_cores(workers, threads)
        self._workers: list[_Worker] = []
        self._lines: queue.Queue[tuple[_Worker, str | None]] = queue.Queue()

    @property
    def pids(self) -> dict[str, int]:
        """The process that does each running job."""
        return {w.job.name: w.process.pid for w in self._workers if w.job is not None}

    def submit(self, job: Job) -> None:
        idle = next((worker for worker in self._workers if worker.job is None), None)
        if idle is None:
            taken = {worker.number for worker in self._workers}
            number = next(n for n in range(self.slots + 1) if n not in taken)
            idle = _Worker(number, self.threads, self._lines)
            self._workers.append(idle)
        idle.give(job)

    def wait(self, seconds: float) -> list[Ended | tuple[str, str]]:
        events: list[Ended | tuple[str, str]] = []
        until = time.monotonic() + seconds
        while not events:
            with contextlib.suppress(queue.Empty):
                events += self._hear(*self._lines.get(timeout=max(0.0, until - time.monotonic())))
                while True:
                    events += self._hear(*self._lines.get_nowait())
            if time.monotonic() >= until:
                break
        return events

    def _hear(self, worker: _Worker, line: str | None) -> list[Ended | tuple[str, str]]:
        if line is None:
            self._workers.remove(worker)
            how = worker.end(GRACE)
            if worker.job is None:
                return []
            return [Ended(worker.job.name, f"its worker {how}", worker.spent, lost=True)]
        values = json.loads(line)
        if "says" in values:
            return [(values["name"], values["says"])]
        worker.job = None
        return [Ended(**values)]

    def stop(self) -> None:
        busy = [worker for worker in self._workers if worker.job is not None]
        for worker in busy:
            worker.process.terminate()
        until = time.monotonic() + GRACE
        try:
            for worker in busy:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.process.wait(max(0.0, until - time.monotonic()))
        finally:
            # Asked to stop once more, or out of patience.
            for worker in busy:
                worker.process.kill()

    def close(self) -> None:
        for worker in self._workers:
            worker.end(GRACE)
        self._workers.clear()


class _Worker(Child):
    """A worker process, and the job that it does."""

    def __init__(
        self, number: int, threads: int, lines: queue.Queue[tuple[_Worker, str | None]]
    ) -> None:
        self.number = number
        self.job: Job | None = None
        self.began = 0.0
        command = ["lengthwise.sweeps.worker", str(GRACE)]
        super().__init__(command, _environment(number, threads), lines)

    @property
    def spent(self) -> float:
        """Seconds since the job was given."""
        return round(time.monotonic() - self.began, 3)

    def give(self, job: Job) -> None:
        self.job, self.began = job, time.monotonic()
        self.write(job.to_json() + "\n")


def _environment(number: int, threads: int) -> dict[str, str]:
    """That of a worker, with its GPU where there are several."""
    values = environment(threads)
    gpus = values.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if not gpus[0]:
        import torch

        gpus = [str(n) for n in range(torch.cuda.device_count())]
    if len(gpus) > 1:
        values["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    return values
