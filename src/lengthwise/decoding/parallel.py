"""Parallel greedy decoding: guess every output, compute all rows from the guess, repeat where it changed.

A row's output depends on the tokens of earlier rows alone, so outputs that reproduce themselves are those
of greedy decoding (docs/decoding.md has the proof). Rows are *stale* while they have not been computed
from the tokens that stand before them now. Each pass takes the first stale rows, a block of them; a row
whose token changed makes those that read it stale. The first stale row of a problem is right once it is
computed, so every pass settles at least one, and mostly a whole block.

Where each row hangs on the one before (a long carry, parity), passes settle little more than that one; a
walk (`walks.py`) is cheaper there, and takes over until it no longer is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from lengthwise.decoding.any_rows import AnyRows
from lengthwise.decoding.walks import ABREAST, walk, walk_steps

# Rows of a pass: enough for large matrix products, few enough to stay in a processor's cache
# (docs/log.md, 2026-11-24, "A hundred thousand digits").
BLOCK = 2048

# Passes without fresh rows, and without the stale ones halving, after which a walk takes over.
_PATIENCE = 4

# Steps of the first walk; and rows that a walk goes on to write that no pass has seen. Both double.
_WALK, _ONWARD = 32, 1024


def decode_in_parallel(
    any_rows: AnyRows,
    on_progress: Callable[[int], object],
    walks: bool = True,
    begun: np.ndarray | None = None,
) -> None:
    """Write all problems into `streams.written`.

    Args:
        any_rows: the problems, through the model's bias.
        on_progress: called with the number of rows that are done.
        walks: whether walks may take over.
        begun: where only the rest of some problems is left to write, the first row of that of each.
    """
    work, history, onward = _Work(any_rows, begun), [], _ONWARD
    while work.advance():
        on_progress(work.settled)
        rows, fresh = work.pick()
        work.compute(rows)
        history = [] if fresh > BLOCK // 8 else [*history, len(rows)]
        if walks and len(history) > _PATIENCE and 2 * len(rows) > history[-1 - _PATIENCE]:
            _walk_on(work, onward, on_progress)
            history, onward = [], 2 * onward
    on_progress(work.settled)


def _walk_on(work: _Work, onward: int, on_progress: Callable[[int], object]) -> None:
    """Walk while it changes what the passes left, and then through some rows that they have not seen."""
    steps = _WALK
    while work.advance():
        on_progress(work.settled)
        fresh = work.fresh
        changes = work.walk(steps)
        seen = work.settled + steps <= fresh
        onward -= 0 if seen else steps
        if onward <= 0 or (seen and not changes):
            return
        steps *= 2


class _Work:
    """What is stale.

    Attributes:
        settled: the first stale row; all before it are right.
        fresh: the row after the last that has been computed.
    """

    def __init__(self, any_rows: AnyRows, begun: np.ndarray | None) -> None:
        self.any_rows, self.streams = any_rows, any_rows.streams
        self.stale = np.full(len(self.streams.written), begun is None)
        for row in () if begun is None else begun.tolist():
            self.stale[row : self.streams.stops(np.array([row]))[0]] = True
        self.settled = self.fresh = 0

    def advance(self) -> bool:
        """Move on to the first stale row, past problems that have written the end token; is there one?"""
        streams = self.streams
        while True:
            before = self.settled
            found = self._first_stale(before, 1)
            self.settled = int(found[0]) if len(found) else len(self.stale)
            right = streams.written[before : self.settled]
            ends = before + np.flatnonzero(right == streams.vocabulary.end)
            # Of each problem the first; what follows it is the end token too, as sequential decoding
            # writes it, whatever the passes wrote there.
            problems, places = np.unique(streams.problems(ends), return_index=True)
            over = False
            for problem, end in zip(problems.tolist(), ends[places].tolist(), strict=True):
                stop = int(streams.first[problem + 1])
                streams.written[end:stop] = streams.vocabulary.end
                over |= stop > self.settled
                self.stale[end:stop] = False
            if not over:
                return self.settled < len(self.stale)

    def pick(self) -> tuple[np.ndarray, int]:
        """The first stale rows, a block of them, and how many of these were never computed."""
        rows = self._first_stale(self.settled, BLOCK)
        fresh = int((rows >= self.fresh).sum())
        self.fresh = max(self.fresh, int(rows[-1]) + 1)
        return rows, fresh

    def _first_stale(self, start: int, count: int) -> np.ndarray:
        found, size = [], count
        while count > 0 and start < len(self.stale):
            part = start + np.flatnonzero(self.stale[start : start + size])[:count]
            found.append(part)
            count -= len(part)
            start, size = start + size, min(2 * size, 1 << 20)
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def compute(self, rows: np.ndarray) -> None:
        """One pass: all these rows from what stands before them now."""
        tokens = self.any_rows.logits(rows).argmax(dim=-1).to(torch.uint8).cpu().numpy()
        changed = rows[tokens != self.streams.written[rows]]
        self.streams.written[rows] = tokens
        self.stale[rows] = False
        self.stale[self.any_rows.readers(changed)] = True

    def walk(self, steps: int) -> bool:
        """Write rows one after the other, from the first stale row of each of the next problems.

        Returns:
            Whether the later half of the steps still changed much.
        """
        streams = self.streams
        first = int(streams.problems(np.array([self.settled]))[0])
        fronts = []
        for problem in range(first, min(first + ABREAST, len(streams))):
            start, stop = streams.first[problem : problem + 2]
            place = int(self.stale[start:stop].argmax())
            if self.stale[start + place]:
                fronts.append(start + place)
        rows = np.array(fronts)
        ends = streams.stops(rows)
        steps = min(steps, walk_steps(len(rows)), int((ends - rows).max()))
        tokens = walk(self.any_rows, rows, steps)
        flat = rows + np.arange(steps)[:, None]
        inside = flat < ends
        changed = np.zeros(flat.shape, bool)
        changed[inside] = tokens[inside] != streams.written[flat[inside]]
        streams.written[flat[inside]] = tokens[inside]
        self.stale[self.any_rows.readers(np.sort(flat[changed]))] = True
        self.stale[flat[inside]] = False
        self.fresh = max(self.fresh, int(flat[inside].max()) + 1)
        later = slice(steps // 2, None)
        return 4 * int(changed[later].sum()) > int(inside[later].sum())
