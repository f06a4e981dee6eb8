"""Processes that share one computation, and their answers in order.

The process that asks takes its part; each of the others is a fresh Python with one thread, so that a script
needs no `if __name__ == "__main__"` and nothing is forked amid threads. They are asked and answer in lines
of JSON, which keep every bit of a number.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from lengthwise.errors import InputError
from lengthwise.workers.child import Child

# What libraries read to know how many threads to use.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

# Variables by which torchrun tells processes that they train together; workers do not.
_TOGETHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

# Shares that another process holds: it goes on with the second while this one is busy itself.
_AHEAD = 2

# A share whose worker dies is given to others so many times in all.
_TRIES = 3


def environment(threads: int) -> dict[str, str]:
    """That of a worker: its threads, and where the package lies."""
    values = {key: value for key, value in os.environ.items() if key not in _TOGETHER}
    values |= dict.fromkeys(_THREADS, str(threads))
    # Threads that wait by spinning would take the time of other workers (docs/log.md).
    values.setdefault("GOMP_SPINCOUNT", "1000")
    package = str(Path(__file__).parents[2])
    others = values.get("PYTHONPATH")
    values["PYTHONPATH"] = os.pathsep.join([package, others] if others else [package])
    return values


class Workers:
    """This process and others, to be used in a `with`: at its end the others are ended, whatever they do.

    Args:
        count: how many, this one among them; each is started when there is a share for it.
        here: what answers a share in this process.
        begin: what makes another ready, as `lengthwise.proof.shared:begin`. It is called with `values` and
            returns what answers a share there.
        values: JSON values.
    """

    def __init__(
        self, count: int, here: Callable[[Any], Any], begin: str, values: dict[str, Any]
    ) -> None:
        self.others, self.here = count - 1, here
        self._first = json.dumps({"begin": begin, "values": values}) + "\n"
        self._workers: list[_Worker] = []
        self._lines: queue.Queue[tuple[_Worker, str | None]] = queue.Queue()
        # Shares of workers that died, with how often each did; and answers, by the share's number.
        self._again: list[tuple[int, Any]] = []
        self._deaths: dict[int, int] = {}
        self._found: dict[int, Any] = {}

    @property
    def pids(self) -> list[int]:
        """The other processes that are there."""
        return [worker.process.pid for worker in self._workers]

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *raised: object) -> None:
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def answers(self, shares: Iterable[Any]) -> Iterator[Any]:
        """What is answered to each share, JSON values both, in the order of the shares.

        Shares are taken one after the other, each when somebody is free for it. That of a worker which dies
        is given to another.

        Raises:
            InputError: what a worker raised; or where workers die over one share again and again.
            RuntimeError: for any other error of a worker, with where it happened.
        """
        coming = enumerate(shares)
        following = 0
        while True:
            while (worker := self._free()) is not None:
                share = self._next(coming)
                if share is None:
                    break
                worker.give(*share)
            share = self._next(coming)
            if share is not None:
                self._found[share[0]] = self.here(share[1])
            elif not any(worker.shares for worker in self._workers):
                return
            else:
                self._hear(*self._lines.get())
            with contextlib.suppress(queue.Empty):
                while True:
                    self._hear(*self._lines.get_nowait())
            while following in self._found:
                yield self._found.pop(following)
                following += 1

    def _next(self, coming: Iterator[tuple[int, Any]]) -> tuple[int, Any] | None:
        return self._again.pop(0) if self._again else next(coming, None)

    def _hear(self, worker: _Worker, line: str | None) -> None:
        if line is None:
            self._bury(worker)
            return
        values = json.loads(line)
        if "error" in values:
            kind = InputError if values["bad_input"] else RuntimeError
            raise kind(values["error"])
        self._found[values["share"]] = values["answer"]
        worker.shares.pop(0)

    def _free(self) -> _Worker | None:
        """A worker with fewer shares than it may have; a new one where there may be one more."""
        free = [worker for worker in self._workers if len(worker.shares) < _AHEAD]
        if free:
            return min(free, key=lambda worker: len(worker.shares))
        if len(self._workers) == self.others:
            return None
        self._workers.append(_Worker(self._first, self._lines))
        return self._workers[-1]

    def _bury(self, worker: _Worker) -> None:
        """Do without a worker that died; its shares are given again."""
        self._workers.remove(worker)
        how = worker.end()
        if not worker.shares:
            return
        self._again = sorted([*self._again, *worker.shares], key=lambda share: share[0])
        number = worker.shares[0][0]
        self._deaths[number] = self._deaths.get(number, 0) + 1
        if self._deaths[number] == _TRIES:
            raise InputError(
                f"a worker {how}, {_TRIES} times over the same share; if memory is short, fewer --workers "
                f"need less"
            )


class _Worker(Child):
    """One of the others, and the shares that it holds."""

    def __init__(self, first: str, lines: queue.Queue[tuple[_Worker, str | None]]) -> None:
        self.shares: list[tuple[int, Any]] = []
        super().__init__(["lengthwise.workers.process"], environment(1), lines)
        self.write(first)

    def give(self, number: int, values: Any) -> None:
        self.shares.append((number, values))
        self.write(json.dumps({"share": number, "values": values}) + "\n")
