"""All local contexts that a task allows, each as a short problem in which it occurs.

The row that writes column i of a problem of width w sees a *context*: the symbols of its cone, and which of
them lie before the first column or past the last. What lies past an end depends on min(i, ...) and
min(w - i, ...) alone, so that short problems show every context of every length (docs/proof.md, lemma 2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, product

import numpy as np

from lengthwise.proof.cone import Cone
from lengthwise.tasks import Transducer

Column = tuple[int, ...]


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


class Contexts:
    """The contexts of a task under a cone. Iterate to get them in batches.

    Args:
        task: the task.
        cone: what a row depends on.
    """

    def __init__(self, task: Transducer, cone: Cone) -> None:
        self.task, self.cone = task, cone
        names = [segment.name for segment in task.operands]
        fixed = [i for i, s in enumerate(task.operands) if s.kind == "digit"]
        self._grows = [i for i in range(len(names)) if i not in fixed]
        self._fixed = fixed
        self._read = {
            offset: [names.index(name) for name, column in cone.reads if column == offset]
            for offset in range(cone.first, cone.last + 1)
        }
        self._tokens = {row - 1 for row in cone.rows} | {0}

    def __iter__(self) -> Iterator[Batch]:
        for digits, end, first, start, prefix in self._cases():
            yield from self._batches(digits, end, first, start, prefix)

    def bound(self) -> int:
        """At least as many contexts as there are, counted without building them."""
        return sum(
            self._count(digits, first, start, end) for digits, end, first, start, _ in self._cases()
        )

    def _cases(self) -> Iterator[tuple[Column, int, int, int, list[Column]]]:
        """One-digit operands, rows to the end, first column of the window, state and columns before it.

        `end` is w - i; its largest value stands for all above. The window is cut off by the start of
        the problem, or whole, after any state that some number of columns leads to.
        """
        shortest = 1 + self.task.growth
        for digits in product(range(self.task.base), repeat=len(self._fixed)):
            for end in range(self._general + 1):
                for row in range(max(0, shortest - end), -self.cone.first):
                    yield digits, end, -row, self.task.start_state, []
                least = max(0, shortest - end + self.cone.first)
                for state, prefix in self._prefixes(digits, least).items():
                    yield digits, end, self.cone.first, state, prefix

    @property
    def _general(self) -> int:
        """So many rows from the end, and more, a window has neither end nor padding in it."""
        return self.cone.last + self.task.growth + 1

    def _batches(
        self, digits: Column, end: int, first: int, start: int, prefix: list[Column]
    ) -> Iterator[Batch]:
        general = end == self._general
        window, states = self._window(digits, first, start, end)
        padding = [self._column(digits, ())] * max(0, end - 1 - self.cone.last)
        suffixes = self._suffixes(digits)
        for state in np.unique(states).tolist():
            if general:
                suffix = suffixes.get(state)
            else:
                suffix = padding if self._accepts(digits, state, len(padding)) else None
            if suffix is None:
                continue  # no problem of the task goes on like this
            chosen = window[states == state]
            around = [
                np.array(part, np.uint8).reshape(-1, window.shape[1]).T for part in (prefix, suffix)
            ]
            before, after = (np.repeat(part[None], len(chosen), axis=0) for part in around)
            yield Batch(np.concatenate([before, chosen, after], axis=2), len(prefix) - first)

    def _window(
        self, digits: Column, first: int, start: int, end: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Columns `[context, operand, column]` of the window, and the state after them `[context]`."""
        columns = np.zeros((1, len(self.task.operands), 0), np.uint8)
        states = np.array([start])
        for offset in range(first, min(self.cone.last + 1, end)):
            padding = end < self._general and offset >= end - self.task.growth
            parts, after = [], []
            for state in np.unique(states):
                options = self._options(digits, int(state), offset, padding)
                chosen = columns[states == state]
                grown = np.repeat(chosen[:, :, :, None], len(options), axis=0).reshape(
                    len(chosen) * len(options), *chosen.shape[1:]
                )
                added = np.tile(
                    np.array([column for column, _ in options], np.uint8), (len(chosen), 1)
                )
                parts.append(np.concatenate([grown, added[:, :, None]], axis=2))
                after.append(
                    np.tile(np.array([following for _, following in options]), len(chosen))
                )
            columns, states = np.concatenate(parts), np.concatenate(after)
        return columns, states

    def _count(self, digits: Column, first: int, start: int, end: int) -> int:
        counts = {start: 1}
        for offset in range(first, min(self.cone.last + 1, end)):
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
        found: dict[tuple, tuple[Column, int]] = {}
        values = [0] if padding else range(self.task.base)
        for choice in product(values, repeat=len(self._grows)):
            column = self._column(digits, choice)
            after, written = self.task.step(state, *column)
            seen = tuple(column[index] for index in self._read[offset])
            key = (seen, written if offset in self._tokens else None, after)
            found.setdefault(key, (column, after))
        return list(found.values())

    def _column(self, digits: Column, choice: Column) -> Column:
        """A column with these digits of the growing operands (zeros by default) and the fixed ones."""
        column = [0] * len(self.task.operands)
        for index, digit in zip(self._grows, choice, strict=False):
            column[index] = digit
        for index, digit in zip(self._fixed, digits, strict=True):
            column[index] = digit
        return tuple(column)

    def _prefixes(self, digits: Column, least: int) -> dict[int, list[Column]]:
        """For each state that `least` or more columns lead to, the fewest such columns."""
        found: dict[int, list[Column]] = {}
        frontier: dict[int, list[Column]] = {self.task.start_state: []}
        for steps in count():
            if steps >= least:
                frontier = {s: path for s, path in frontier.items() if s not in found}
                found |= frontier
            following: dict[int, list[Column]] = {}
            for state, path in frontier.items():
                for choice in product(range(self.task.base), repeat=len(self._grows)):
                    column = self._column(digits, choice)
                    after, _ = self.task.step(state, *column)
                    following.setdefault(after, [*path, column])
            frontier = following
            if steps >= least and not frontier.keys() - found.keys():
                return found
        raise AssertionError("the states are finite")

    def _suffixes(self, digits: Column) -> dict[int, list[Column]]:
        """For each state that a problem can go on from, the shortest columns to its end.

        The last `growth` columns of them are padding.
        """
        padding = [self._column(digits, ())] * self.task.growth
        found = {
            state: padding
            for state in range(self.task.states)
            if self._accepts(digits, state, self.task.growth)
        }
        grew = True
        while grew:
            grew = False
            for state in range(self.task.states):
                if state in found:
                    continue
                for choice in product(range(self.task.base), repeat=len(self._grows)):
                    column = self._column(digits, choice)
                    after, _ = self.task.step(state, *column)
                    if after in found:
                        found[state] = [column, *found[after]]
                        grew = True
                        break
        return found

    def _accepts(self, digits: Column, state: int, padding: int) -> bool:
        """Whether a problem may end after so many columns of padding."""
        for _ in range(max(0, padding)):
            state, _ = self.task.step(state, *self._column(digits, ()))
        return self.task.final_states is None or state in self.task.final_states
