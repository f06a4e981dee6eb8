"""How long a sweep will take, before it is begun: a few steps of each kind of cell are tried."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from lengthwise.forecast import duration, forecast, forecast_training
from lengthwise.runs.elsewhere import computing_with
from lengthwise.sweeps.grid import ABC, Cell
from lengthwise.sweeps.results import Sweep
from lengthwise.sweeps.sweep import took

# Seconds that are spent on trying, at most; kinds that were not tried count as the mean of the others.
_TRYING = 60.0


@dataclass(frozen=True)
class Estimate:
    """What is left of a sweep.

    Attributes:
        seconds: of each kind of cell (`Cell.alike`) that is left, one after the other.
        measured: kinds whose seconds are those that cells of them took; the others are what they take at
            most, if no training ends before its last step.
        left: cells that are left.
        worker: seconds of one worker for all of them.
        workers: that share them.
    """

    seconds: dict[str, float]
    measured: set[str]
    left: int
    worker: float
    workers: int

    def __str__(self) -> str:
        if not self.left:
            return "Nothing is left to do."
        how = "About" if self.seconds.keys() <= self.measured else "At most about"
        share = "one worker" if self.workers == 1 else f"{self.workers} workers"
        cells = "1 cell is" if self.left == 1 else f"{self.left:,} cells are"
        return f"{cells} left. {how} {duration(self.worker / self.workers)} with {share}."


def estimate(
    sweep: Sweep,
    workers: int,
    threads: int = 1,
    *,
    retry: bool = False,
    say: Callable[[str], object] = print,
) -> Estimate:
    """Time a few steps of each kind of cell that is left; where some are done, as long as these took.

    Args:
        sweep: as it stands.
        workers: that share it.
        threads: of each.
        retry: whether cells that failed count as left.
        say: hears what is tried.

    Raises:
        InputError: for settings that no model can be trained with.
    """
    known = {kind: statistics.fmean(times) for kind, times in took(sweep).items()}
    states = ("begun", "missing", "failed") if retry else ("begun", "missing")
    left = [standing.cell for standing in sweep.of(*states)]
    found: dict[str, float] = {}
    first = {cell.alike: cell for cell in reversed(left)}
    until = time.monotonic() + _TRYING
    for kind, cell in first.items():
        if kind in known:
            found[kind] = known[kind]
        elif time.monotonic() < until:
            say(f"trying a few steps of {cell.name}")
            found[kind] = _try(cell, threads)
    others = statistics.fmean(found.values()) if found else 0.0
    seconds = {kind: round(found.get(kind, others), 1) for kind in first}
    total = sum(seconds[cell.alike] for cell in left)
    return Estimate(seconds, known.keys() & first.keys(), len(left), round(total, 1), workers)


def _try(cell: Cell, threads: int) -> float:
    """Seconds of a cell at most, with so many threads."""
    with computing_with(threads):
        return forecast(cell.config).most if cell.method == ABC else forecast_training(cell.config)
