"""One piece of work as data, that any process of any machine can do, and what became of it."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lengthwise.files import reason
from lengthwise.workers.process import find

# Seconds that work is given to keep a checkpoint and end, when it is asked to stop.
GRACE = 60.0

# Tells how far it is, in a few words.
Say = Callable[[str], object]


@dataclass(frozen=True)
class Job:
    """A piece of work.

    Attributes:
        name: tells it from all others of its sweep.
        work: the function that does it in its folder, as `lengthwise.sweeps.cell:run_cell`; it goes on
            where it was stopped, and what it raises is its failure.
        folder: where it writes; on a cluster all nodes must see it under this path.
        values: what the function is given, JSON values.
        needs: the job that must be done before it begins, if there is one.
        alike: jobs of one kind take about as long as each other.
    """

    name: str
    work: str
    folder: Path
    values: Mapping[str, Any] = field(default_factory=dict)
    needs: str | None = None
    alike: str = ""

    def to_json(self) -> str:
        """The job as one line."""
        return json.dumps({**asdict(self), "folder": str(self.folder)})

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job that `to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "folder": Path(values["folder"])})


@dataclass(frozen=True)
class Ended:
    """What became of a job.

    Attributes:
        name: of the job.
        error: one line that says why it failed; None where it is done.
        seconds: that it took.
        lost: whether it was its worker that failed, so that another is to try again.
        stopped: whether that worker was asked to end, its time being over; it is nobody's fault.
        trace: of an error that nobody foresaw.
    """

    name: str
    error: str | None = None
    seconds: float = 0.0
    lost: bool = False
    stopped: bool = False
    trace: str = ""


def perform(job: Job, say: Say = lambda words: None) -> Ended:
    """Do a job here and now; what it raises is told, but for a request to stop.

    Raises:
        KeyboardInterrupt: when asked to stop.
    """
    began = time.perf_counter()
    error, trace = None, ""
    try:
        find(job.work)(job.folder, dict(job.values), say)
    except Exception as raised:
        error = " ".join(str(raised).split()) or reason(raised)
        ours = type(raised).__module__.partition(".")[0] == "lengthwise"
        if not ours and not isinstance(raised, OSError | FloatingPointError):
            trace = traceback.format_exc()
    return Ended(job.name, error, round(time.perf_counter() - began, 3), trace=trace)


def perform_text(text: str, threads: int) -> str:
    """`perform` of a job's line, for workers that are handed text; what became of it as a line."""
    import torch

    torch.set_num_threads(threads)
    return json.dumps(asdict(perform(Job.from_json(text))))


def ended_of(text: str) -> Ended:
    """What `perform_text` says."""
    return Ended(**json.loads(text))
