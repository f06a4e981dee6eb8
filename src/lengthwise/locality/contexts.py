"""All local contexts that a task allows, each as a short problem in which it occurs.

The row that writes column i of a problem of width w sees a *context*: the symbols of its cone, and which of
them lie before the first column or past the last. What lies past an end depends on min(i, ...) and
min(w - i, ...) alone, so that short problems show every context of every length (docs/proof.md, lemma 2).
Where positions have a period T, a row sees i modulo T and w modulo T besides, its *phase*.

The same enumeration, with contexts that look alike kept together, says whether a cone is enough: whether
what a row sees, its phase left out, tells it what to write (`Contexts.suffice`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, product
from typing import NamedTuple

import numpy as np

from lengthwise.locality.cone import Cone
from lengthwise.problems.layout import ANSWER
from lengthwise.tasks import Transducer

Column = tuple[int, ...]

# Contexts of one batch, about: few enough that a stretch of them is small, many enough to be quick.
_BATCH = 1 << 18


@dataclass(frozen=True)
class Batch:
    """Short problems of one width, in each of which one row shows a context.

    Attributes:
        operands: digits, uint8 `[problem, operand, column]`, least significant first.
        row: the row that shows it.
    """

    operands: np.ndarray
    row: int

    @property
    def width(self) -> int:
        """Columns of the problems."""
        return self.operands.shape[2]


class _Place(NamedTuple):
    """A row of a problem as far as a cone can tell, on the way through the columns of its stretch.

    Attributes:
        digits: the one-digit operands.
        row: the row; its largest value stands for all later ones.
        end: rows to the end; its largest value stands for all above.
        state: after the columns so far.
        written: what the row should write, -1 for the end token; None before its column.
    """

    digits: Column
    row: int
    end: int
    state: int
    written: int | None = None


class Contexts:
    """The contexts of a task under a cone. Iterate to get them in batches, always in the same order.

    Args:
        cone: what a row depends on.
    """

    def __init__(self, task: Transducer, cone: Cone) -> None:
        self.task, self.cone = task, cone
        self._grows, self._fixed = task.growing, task.fixed
        names = [segment.name for segment in task.operands]
        columns = cone.columns
        # The stretch: from the first column that is read to the last; the one being written is in it.
        self._first, self._last = min(columns), max(0, *columns)
        self._read = {
            offset: tuple(
                sorted(names.index(name) for name in columns.get(offset, set()) - {ANSWER})
            )
            for offset in range(self._first, self._last + 1)
        }
        self._tokens = {offset for offset, segments in columns.items() if ANSWER in segments}
        self._constants = [task.fixed.index(names.index(name)) for name in sorted(cone.constants)]
        self._option_cache: dict[tuple, list[tuple[Column, int]]] = {}
        self._sight_cache: dict[tuple, dict[tuple, set[tuple[int, int]]]] = {}
        self._prefix_cache: dict[tuple, dict[tuple[int, int], list[Column]]] = {}
        self._suffix_cache: dict[Column, dict[int, list[list[Column]]]] = {}

    def __iter__(self) -> Iterator[Batch]:
        for digits, end in self._ends():
            for row in self._rows(end):
                yield from self._batches(digits, end, -row, self.task.start_state, [])
            for (state, _), prefix in self._prefixes(digits, end).items():
                yield from self._batches(digits, end, self._first, state, prefix)

    def bound(self) -> int:
        """At least as many contexts as there are, counted without building them."""
        total = 0
        for digits, end in self._ends():
            found = [
                self._count(digits, -row, {self.task.start_state: 1}, end)
                for row in self._rows(end)
            ]
            states = Counter(state for state, _ in self._prefixes(digits, end))
            found.append(self._count(digits, self._first, states, end))
            total += self._widths(end) * sum(found)
        return total

    def stretches(self) -> int:
        """How many stretches the contexts are enumerated in, each a batch or a few."""
        return sum(
            self._widths(end) * (len(self._rows(end)) + len(self._prefixes(digits, end)))
            for digits, end in self._ends()
        )

    def suffice(self) -> bool:
        """Whether what a row sees always tells what it must write.

        Rows that have looked alike so far are followed together, as sets, through the columns of the
        stretch; two of a set that write different symbols are two contexts that no model can tell apart
        unless by their phases.
        """
        begun: dict[Column, set[_Place]] = defaultdict(set)
        for digits, end in self._ends():
            seen = begun[tuple(digits[index] for index in self._constants)]
            for row in self._rows(end):
                seen.add(_Place(digits, row, end, self.task.start_state))
            for state, _ in self._prefixes(digits, end):
                seen.add(_Place(digits, -self._first, end, state))
        alike = {frozenset(places) for places in begun.values()}
        for offset in range(self._first, self._last + 1):
            following = set()
            for places in alike:
                looks: dict[tuple, set[_Place]] = defaultdict(set)
                for place in places:
                    for sight, next_place in self._sights(place, offset):
                        looks[sight].add(next_place)
                following |= {frozenset(some) for some in looks.values()}
            alike = following
        return all(
            len({place.written for place in places if self._endings(place)}) <= 1
            for places in alike
        )

    def _sights(self, place: _Place, offset: int) -> Iterator[tuple[tuple, _Place]]:
        """What a row may see of a column, and of the token that its digit is; and what follows."""
        digits, row, end, state, written = place
        read, visible = self._read[offset], offset in self._tokens
        if not -row <= offset < end:
            # Neither has the row a column here; just before the first, it sees the start token.
            token = "^" if visible and offset == -row - 1 else None
            closed = (*[None] * len(read), token)
            yield closed, place if offset else place._replace(written=-1)
            return
        padding = end < self._general and offset >= end - self.task.growth
        key = (digits, state, read, visible, padding)
        if key not in self._sight_cache:
            found: dict[tuple, set[tuple[int, int]]] = defaultdict(set)
            for column, after, digit in self._columns(digits, state, padding):
                token = digit if visible else None
                found[(*[column[index] for index in read], token)].add((after, digit))
            self._sight_cache[key] = found
        for sight, ways in self._sight_cache[key].items():
            for after, digit in ways:
                yield sight, _Place(digits, row, end, after, written if offset else digit)

    def _endings(self, place: _Place) -> list[list[Column]]:
        """Columns after the stretch with which the problem ends properly, one choice for each width of it
        modulo the period; none where it can't."""
        digits, _, end, state, _ = place
        if end == self._general:
            return self._suffixes(digits).get(state, [])
        padding = max(0, end - 1 - self._last)
        return (
            [[self._column(digits, ())] * padding] if self._accepts(digits, state, padding) else []
        )

    # The stretch is cut off by the start of the problem (`_rows`), or whole, after any state that enough
    # columns lead to (`_prefixes`). A phase is how many columns stand before and after the stretch, modulo
    # the period; one of them is given where the stretch is cut off or the end in sight.

    def _ends(self) -> Iterator[tuple[Column, int]]:
        """One-digit operands, and rows to the end; the largest stands for all above."""
        for digits in product(range(self.task.base), repeat=len(self._fixed)):
            for end in range(self._general + 1):
                yield digits, end

    def _rows(self, end: int) -> range:
        """The rows whose stretch is cut off by the start of the problem."""
        return range(max(0, 1 + self.task.growth - end), -self._first)

    def _widths(self, end: int) -> int:
        """How many widths modulo the period a row so far from the end may have, at most."""
        return self.cone.period if end == self._general else 1

    @property
    def _general(self) -> int:
        """So many rows from the end, and more, a stretch has neither end nor padding in it."""
        return self._last + self.task.growth + 1

    def _batches(
        self, digits: Column, end: int, first: int, start: int, prefix: list[Column]
    ) -> Iterator[Batch]:
        columns = np.zeros((1, len(self.task.operands), 0), np.uint8)
        for stretch, states in self._stretches(
            digits, first, end, columns, np.array([start], np.int64)
        ):
            for state in np.unique(states).tolist():
                chosen = stretch[states == state]
                # Without an ending, no problem of the task goes on like this.
                for suffix in self._endings(_Place(digits, -first, end, state)):
                    around = [
                        np.array(part, np.uint8).reshape(-1, stretch.shape[1]).T
                        for part in (prefix, suffix)
                    ]
                    before, after = (np.repeat(part[None], len(chosen), axis=0) for part in around)
                    whole = np.concatenate([before, chosen, after], axis=2)
                    yield Batch(whole, len(prefix) - first)

    def _stretches(
        self, digits: Column, offset: int, end: int, columns: np.ndarray, states: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Columns `[context, operand, column]` of the stretch, and the state after them `[context]`.

        Args:
            offset: the next column.
            columns, states: those so far; digits fit a byte, states (carries of a factor) need not.
        """
        if offset >= min(self._last + 1, end):
            yield columns, states
            return
        padding = end < self._general and offset >= end - self.task.growth
        parts, after = [], []
        for state in np.unique(states).tolist():
            options = self._options(digits, state, offset, padding)
            chosen = columns[states == state]
            grown = np.repeat(chosen, len(options), axis=0)
            added = np.tile(np.array([column for column, _ in options], np.uint8), (len(chosen), 1))
            parts.append(np.concatenate([grown, added[:, :, None]], axis=2))
            after.append(np.tile(np.array([s for _, s in options], np.int64), len(chosen)))
        columns, states = np.concatenate(parts), np.concatenate(after)
        # The next columns make many of each.
        following = min(self._last, end - 1) - offset
        share = max(1, _BATCH // self.task.base ** len(self._grows)) if following else len(columns)
        for i in range(0, len(columns), share):
            some = slice(i, i + share)
            yield from self._stretches(digits, offset + 1, end, columns[some], states[some])

    def _count(self, digits: Column, first: int, counts: dict[int, int], end: int) -> int:
        for offset in range(first, min(self._last + 1, end)):
            padding = end < self._general and offset >= end - self.task.growth
            following: dict[int, int] = {}
            for state, ways in counts.items():
                for _, after in self._options(digits, state, offset, padding):
                    following[after] = following.get(after, 0) + ways
            counts = following
        return sum(counts.values())

    def _options(
        self, digits: Column, state: int, offset: int, padding: bool
    ) -> list[tuple[Column, int]]:
        """Columns that differ in what the cone sees of them, and the state after each.

        Of a column it sees the digits that it reads, the digit written where that is a token of the cone or
        is asked for, and, through what follows, the state after it.
        """
        read, shown = self._read[offset], offset in self._tokens or offset == 0
        key = (digits, state, read, shown, padding)
        if key not in self._option_cache:
            found: dict[tuple, tuple[Column, int]] = {}
            for column, after, written in self._columns(digits, state, padding):
                sight = (*[column[index] for index in read], written if shown else None, after)
                found.setdefault(sight, (column, after))
            self._option_cache[key] = list(found.values())
        return self._option_cache[key]

    def _columns(
        self, digits: Column, state: int, padding: bool = False
    ) -> Iterator[tuple[Column, int, int]]:
        """Every column, the state after it and the digit written."""
        values = range(1 if padding else self.task.base)
        for choice in product(values, repeat=len(self._grows)):
            column = self._column(digits, choice)
            yield column, *self.task.step(state, *column)

    def _column(self, digits: Column, choice: Column) -> Column:
        """A column with these digits of the growing operands (zeros by default) and the fixed ones."""
        column = [0] * len(self.task.operands)
        for index, digit in zip(self._grows, choice, strict=False):
            column[index] = digit
        for index, digit in zip(self._fixed, digits, strict=True):
            column[index] = digit
        return tuple(column)

    def _prefixes(self, digits: Column, end: int) -> dict[tuple[int, int], list[Column]]:
        """Columns before a whole stretch so far from the end of a problem.

        For each state that they may lead to and each number of them modulo the period, the fewest.
        """
        # Padding that begins before the stretch; and a problem has a column that is none.
        zeros = max(0, self.task.growth - end + self._first)
        least = max(0, 1 + self.task.growth - end + self._first) - zeros
        if (digits, least, zeros) in self._prefix_cache:
            return self._prefix_cache[digits, least, zeros]
        period, padding = self.cone.period, [self._column(digits, ())] * zeros
        found: dict[tuple[int, int], list[Column]] = {}
        frontier: dict[int, list[Column]] = {self.task.start_state: []}
        for steps in count():
            if steps >= least:
                frontier = {
                    s: path for s, path in frontier.items() if (s, steps % period) not in found
                }
                if not frontier:
                    break
                found |= {(s, steps % period): path for s, path in frontier.items()}
            following: dict[int, list[Column]] = {}
            for state, path in frontier.items():
                for column, after, _ in self._columns(digits, state):
                    following.setdefault(after, [*path, column])
            frontier = following
        ended: dict[tuple[int, int], list[Column]] = {}
        for (state, steps), path in found.items():
            after = self._after(digits, state, zeros)
            ended.setdefault((after, (steps + zeros) % period), [*path, *padding])
        self._prefix_cache[digits, least, zeros] = ended
        return ended

    def _suffixes(self, digits: Column) -> dict[int, list[list[Column]]]:
        """For each state that a problem can go on from, the fewest columns to its end.

        They are one choice for each number of them modulo the period; the last `growth` are padding.
        """
        if digits in self._suffix_cache:
            return self._suffix_cache[digits]
        padding, period = [self._column(digits, ())] * self.task.growth, self.cone.period
        frontier = {
            state: padding
            for state in range(self.task.states)
            if self._accepts(digits, state, self.task.growth)
        }
        found = {(state, 0): path for state, path in frontier.items()}
        for steps in count(1):
            following: dict[int, list[Column]] = {}
            for state in range(self.task.states):
                if (state, steps % period) in found:
                    continue
                for column, after, _ in self._columns(digits, state):
                    if after in frontier:
                        following[state] = [column, *frontier[after]]
                        break
            found |= {(state, steps % period): path for state, path in following.items()}
            frontier = following
            if not frontier:
                break
        ways: dict[int, list[list[Column]]] = {}
        for (state, _), path in found.items():
            ways.setdefault(state, []).append(path)
        self._suffix_cache[digits] = ways
        return ways

    def _accepts(self, digits: Column, state: int, padding: int) -> bool:
        """Whether a problem may end after so many columns of padding."""
        state = self._after(digits, state, padding)
        return self.task.final_states is None or state in self.task.final_states

    def _after(self, digits: Column, state: int, padding: int) -> int:
        """The state after so many columns of padding."""
        for _ in range(padding):
            state, _ = self.task.step(state, *self._column(digits, ()))
        return state
