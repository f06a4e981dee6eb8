"""The loop that every sweep runs in: hand out what may begin, hear what ended, hand lost work out again.

Who does the work is a `Pool`: processes of this machine (`local`), a Ray cluster (`on_ray`) or Slurm
(`on_slurm`).
"""

from __future__ import annotations

import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from lengthwise.sweeps.jobs import Ended, Job

# How often a job is begun, at most, whose worker is lost each time: then it is the job that kills it.
ATTEMPTS = 3

# How often one is begun, at most, that is asked to end each time, its time being over.
PARTS = 100

# Seconds between two looks at the clock, where nothing happens.
_TICK = 0.5


class Pool(Protocol):
    """Who does the jobs.

    Attributes:
        slots: how many jobs it takes at once; a cluster's may change while it works.
    """

    @property
    def slots(self) -> int: ...

    def submit(self, job: Job) -> None:
        """Take a job; there is a slot for it."""
        ...

    def wait(self, seconds: float) -> list[Ended | tuple[str, str]]:
        """What ended since, and what was said (a job's name and the words); at most so long."""
        ...

    def stop(self) -> None:
        """Ask what runs to keep a checkpoint and end, and wait for that; take nothing more."""
        ...

    def close(self) -> None:
        """Let the workers go; nothing runs any more."""
        ...


@dataclass
class State:
    """How far a sweep is.

    Attributes:
        jobs: all of them, by name.
        done: names of those that are done, those of an earlier start too.
        failed: those that failed, with why.
        running: those that run, with the second at which each began.
        said: what each of these said last.
        took: seconds that those of each kind took.
        slots: how many run at once.
    """

    jobs: dict[str, Job]
    done: set[str] = field(default_factory=set)
    failed: dict[str, Ended] = field(default_factory=dict)
    running: dict[str, float] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    took: dict[str, list[float]] = field(default_factory=dict)
    slots: int = 1

    @property
    def left(self) -> list[Job]:
        """Those that are neither done nor failed."""
        over = self.done | self.failed.keys()
        return [job for name, job in self.jobs.items() if name not in over]

    def seconds_left(self) -> float | None:
        """About how long the rest takes, as those that are alike took; None before any ended.

        It looks at every job that is left.
        """
        known = {kind: statistics.fmean(times) for kind, times in self.took.items()}
        if not known:
            return None
        others = statistics.fmean(known.values())
        now, seconds, longest = time.monotonic(), 0.0, 0.0
        for job in self.left:
            took = known.get(job.alike, others)
            if job.name in self.running:
                took = max(0.0, took - (now - self.running[job.name]))
            seconds, longest = seconds + took, max(longest, took)
        return max(seconds / max(1, self.slots), longest)


# Is told after each event what it was, and how far the sweep is; None where only time has passed.
Watch = Callable[[Ended | None, State], object]


def run_jobs(
    jobs: Iterable[Job],
    pool: Pool,
    *,
    done: Iterable[str] = (),
    failed: Iterable[Ended] = (),
    took: dict[str, list[float]] | None = None,
    watch: Watch = lambda ended, state: None,
) -> State:
    """Do all jobs that are not done, each after the one that it needs.

    A job whose worker is lost is handed out again, `ATTEMPTS` times in all; one whose time was over,
    `PARTS` times. When asked to stop (Ctrl-C), jobs that run are asked to keep a checkpoint and end; they
    count as not done.

    Args:
        jobs: in the order in which they are to begin.
        pool: who does them; it is closed at the end.
        done: names of those that are done already.
        failed: those that are not to be tried again.
        took: seconds that jobs of each kind took before.
        watch: hears what happens.

    Returns:
        How it ended. Jobs that needed one that failed are neither done nor failed.
    """
    state = State({job.name: job for job in jobs}, set(done), took=dict(took or {}))
    state.failed = {ended.name: ended for ended in failed}
    waiting = deque(state.left)
    lost: Counter[tuple[str, bool]] = Counter()
    try:
        _hand_out(waiting, state, pool)
        watch(None, state)
        while state.running:
            events = pool.wait(_TICK)
            for event in events:
                if not isinstance(event, Ended):
                    state.said[event[0]] = event[1]
                    continue
                state.running.pop(event.name, None)
                state.said.pop(event.name, None)
                job = state.jobs[event.name]
                lost[event.name, event.stopped] += event.lost
                most = PARTS if event.stopped else ATTEMPTS
                if event.error is None:
                    state.done.add(event.name)
                    state.took.setdefault(job.alike, []).append(event.seconds)
                elif event.lost and lost[event.name, event.stopped] < most:
                    waiting.appendleft(job)
                else:
                    if event.lost:
                        why = f"{event.error}, {most} times; it is not begun again"
                        event = replace(event, error=why)
                    state.failed[event.name] = event
                _hand_out(waiting, state, pool)
                watch(event, state)
            _hand_out(waiting, state, pool)
            if not events:
                watch(None, state)
    except BaseException:
        pool.stop()
        raise
    finally:
        pool.close()
    return state


def _hand_out(waiting: deque[Job], state: State, pool: Pool) -> None:
    """Hand out jobs whose needs are met, in their order, no more than there are slots."""
    state.slots = pool.slots
    blocked: list[Job] = []
    while waiting and len(state.running) < state.slots:
        job = waiting.popleft()
        if job.needs is not None and job.needs in state.jobs and job.needs not in state.done:
            # What needs a failed one is dropped.
            if not _never(job, state):
                blocked.append(job)
            continue
        pool.submit(job)
        state.running[job.name] = time.monotonic()
    waiting.extendleft(reversed(blocked))


def _never(job: Job, state: State) -> bool:
    """Whether a job that this one needs, directly or by way of others, has failed."""
    need = job.needs
    while need is not None and need in state.jobs:
        if need in state.failed:
            return True
        need = state.jobs[need].needs
    return False
