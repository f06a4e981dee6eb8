"""Jobs of a Slurm cluster, through submitit; the extra `slurm`.

What became of a job is in a file that it writes. Slurm is only asked for its queue: where a job is no
longer there and left no file, it was lost. (Its accounting, which submitit asks, many clusters don't keep.)
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lengthwise.errors import InputError, library
from lengthwise.files import reason
from lengthwise.sweeps.jobs import GRACE, Ended, Job, ended_of, perform_text

# Seconds between two looks at the queue, and between two at the files.
_EVERY, _FILES = 5.0, 0.2

# Jobs that wait in the queue or run, where --workers does not say: what clusters let one person have.
_MOST = 200

# So many looks at the queue a job must be missing from, for file systems show a file later elsewhere.
_LOOKS = 3

# All jobs of this user that are not over: number, state, and why one waits.
_QUEUE = ("squeue", "--me", "--noheader", "--format=%i|%T|%r")


class SlurmPool:
    """Each job of a sweep is a job of Slurm. One that is lost with its node is handed out again.

    The nodes need this package, and must see the sweep's folder under the same path.

    Args:
        partition: of the cluster; None for its default.
        folder: where submitit keeps its scripts and logs.
        workers: jobs that are in the queue at once, at most.
        threads: cores, and threads, of each.
        minutes: after which Slurm ends a job; `GRACE` before that it is asked to keep a checkpoint and
            end, and is handed out again.
        gpus: of each.

    Raises:
        InputError: where submitit is not installed, or there is no Slurm.
    """

    def __init__(
        self,
        partition: str | None,
        folder: Path,
        workers: int | None = None,
        threads: int | None = None,
        *,
        minutes: int,
        gpus: int = 0,
    ) -> None:
        advice = "--slurm needs submitit: pip install 'lengthwise[slurm]'"
        submitit = library("submitit", advice)
        self.slots, self.threads = workers or _MOST, threads or 1
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster="slurm")
        except RuntimeError as error:
            raise InputError(f"no Slurm here: {error}") from error
        asked: dict[str, Any] = {"cpus_per_task": self.threads, "timeout_min": minutes}
        if partition is not None:
            asked["slurm_partition"] = partition
        if gpus:
            asked["gpus_per_node"] = gpus
        self._executor.update_parameters(
            name="lengthwise", slurm_signal_delay_s=int(GRACE), **asked
        )
        self._jobs: dict[str, tuple[Any, float]] = {}
        self._missing: dict[str, int] = {}
        self._looked = time.monotonic()

    def submit(self, job: Job) -> None:
        """See `Pool.submit`.

        Raises:
            InputError: when Slurm refuses it: a partition that is not there, too many jobs of one person.
        """
        try:
            handed = self._executor.submit(perform_on_slurm, job.to_json(), self.threads)
        except RuntimeError as error:  # submitit's own kind is one
            raise InputError(f"Slurm takes no job: {reason(error)}") from error
        self._jobs[job.name] = (handed, time.monotonic())

    def wait(self, seconds: float) -> list[Ended | tuple[str, str]]:
        until, told = time.monotonic() + seconds, []
        while True:
            ended = [name for name, (handed, _) in self._jobs.items() if self._has_said(handed)]
            if not ended and time.monotonic() - self._looked >= _EVERY:
                told, ended = self._look()
            if ended or told or time.monotonic() >= until:
                return [*told, *(self._end(name) for name in ended)]
            time.sleep(_FILES)

    def _has_said(self, handed: Any) -> bool:
        """Whether a job has written what became of it."""
        return handed.paths.result_pickle.exists()

    def _look(self) -> tuple[list[Ended | tuple[str, str]], list[str]]:
        """What the queue says: jobs that wait, with why; and those that have gone without a word."""
        queue = _queue()
        self._looked = time.monotonic()
        if queue is None:
            return [], []
        told: list[Ended | tuple[str, str]] = []
        gone = []
        for name, (handed, _) in self._jobs.items():
            state, why = queue.get(handed.job_id, ("", ""))
            self._missing[name] = 0 if state else self._missing.get(name, 0) + 1
            if self._missing[name] >= _LOOKS:
                gone.append(name)
            elif state == "PENDING":
                told.append((name, f"waits in the queue ({why})"))
        return told, gone

    def _end(self, name: str) -> Ended:
        handed, began = self._jobs.pop(name)
        self._missing.pop(name, None)
        spent = round(time.monotonic() - began, 3)
        lost = Ended(name, f"its job {handed.job_id} was lost", spent, lost=True)
        if not self._has_said(handed):
            return lost
        try:
            ended = ended_of(handed.result())
        except Exception as error:  # what submitit raises where there is no result, or a broken one
            return Ended(name, f"{lost.error} ({type(error).__name__})", spent, lost=True)
        if ended.stopped:
            self._cancel(handed)  # or Slurm would begin again what gave way to others, beside ours
        return ended

    def _cancel(self, handed: Any) -> None:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["scancel", handed.job_id], capture_output=True, timeout=60)

    def stop(self) -> None:
        for handed, _ in self._jobs.values():
            self._cancel(handed)
        until = time.monotonic() + GRACE
        while self._jobs and time.monotonic() < until:
            self.wait(_EVERY)
        self._jobs.clear()

    def close(self) -> None:
        """Jobs of Slurm end by themselves."""


def perform_on_slurm(text: str, threads: int) -> str:
    """As `perform_text`; where Slurm asks it to end, it keeps a checkpoint, ends and says so."""
    began = time.monotonic()
    # submitit passes over the one, and has the other raise an error amid a step.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for name in ("SIGUSR1", "SIGUSR2"):
        signal.signal(
            getattr(signal, name), lambda number, frame: signal.raise_signal(signal.SIGTERM)
        )
    try:
        return perform_text(text, threads)
    except KeyboardInterrupt:
        spent = round(time.monotonic() - began, 3)
        why = "Slurm asked it to end: its minutes are over, or it gave way to others"
        return json.dumps(
            asdict(Ended(Job.from_json(text).name, why, spent, lost=True, stopped=True))
        )


def _queue() -> dict[str, tuple[str, str]] | None:
    """State and reason of each job in the queue, by number; None where Slurm does not answer."""
    try:
        done = subprocess.run(_QUEUE, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = [
        line.strip().split("|", 2) for line in done.stdout.splitlines() if line.count("|") == 2
    ]
    return {number: (state, why) for number, state, why in lines}
