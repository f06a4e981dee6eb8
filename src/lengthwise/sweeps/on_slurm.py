"""Jobs of a Slurm cluster, through submitit; the extra `slurm`."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from lengthwise.errors import InputError
from lengthwise.sweeps.jobs import GRACE, Ended, Job, ended_of, perform_text

# Seconds between two looks at the queue: Slurm's accounting is not to be asked more often.
_EVERY = 5.0

# Jobs that wait in the queue or run, where --workers does not say: what clusters let one person have.
_MOST = 200


class SlurmPool:
    """Each job of a sweep is a job of Slurm. One that is lost with its node is handed out again.

    The nodes need this package, and must see the sweep's folder under the same path.

    Args:
        partition: of the cluster; None for its default.
        folder: where submitit keeps its scripts and logs.
        workers: jobs that are in the queue at once, at most.
        threads: cores, and threads, of each.
        minutes: after which Slurm ends a job; it is handed out again, and goes on from its checkpoint.
        gpus: of each.
        cluster: `slurm`; `local` and `debug` run here, for tests.

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
        cluster: str = "slurm",
    ) -> None:
        try:
            import submitit
        except ImportError as error:
            raise InputError("--slurm needs submitit: pip install 'lengthwise[slurm]'") from error
        self.slots, self.threads = workers or _MOST, threads or 1
        self.every = _EVERY if cluster == "slurm" else 0.2
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        except RuntimeError as error:
            raise InputError(f"no Slurm here: {error}") from error
        asked: dict[str, Any] = {"cpus_per_task": self.threads, "timeout_min": minutes}
        if partition is not None:
            asked["slurm_partition"] = partition
        if gpus:
            asked["gpus_per_node"] = gpus
        self._executor.update_parameters(name="lengthwise", **asked)
        self._jobs: dict[str, tuple[Any, float]] = {}

    def submit(self, job: Job) -> None:
        handed = self._executor.submit(perform_text, job.to_json(), self.threads)
        self._jobs[job.name] = (handed, time.monotonic())

    def wait(self, seconds: float) -> list[Ended | tuple[str, str]]:
        until = time.monotonic() + max(seconds, self.every)
        while True:
            ended = [name for name, (handed, _) in self._jobs.items() if handed.done()]
            if ended or time.monotonic() >= until:
                return [self._end(name) for name in ended]
            time.sleep(min(self.every, 0.2))

    def _end(self, name: str) -> Ended:
        handed, began = self._jobs.pop(name)
        try:
            return ended_of(handed.result())
        except Exception as error:  # what submitit raises where there is no result, or a broken one
            spent = round(time.monotonic() - began, 3)
            why = f"its job {handed.job_id} was lost ({type(error).__name__})"
            return Ended(name, why, spent, lost=True)

    def stop(self) -> None:
        for handed, _ in self._jobs.values():
            with contextlib.suppress(Exception):
                handed.cancel()
        until = time.monotonic() + GRACE
        while time.monotonic() < until:
            if all(handed.done() for handed, _ in self._jobs.values()):
                break
            time.sleep(self.every)
        self._jobs.clear()

    def close(self) -> None:
        """Jobs of Slurm end by themselves."""
