"""Sheets, written: every cell as soon as what it sees is there, many at once.

A cell sees a few cells before it in its row and in the rows above. So the cell in column c of row r can be
written at time `pace * r + c`, with a pace such that all it sees is then written: rows follow each other
like waves. What is written is what writing one token after the other would write, for each token follows
from the same sight; a row is begun before the one above has ended, and counts only if that ends in a
separator. Rows past the one that holds the end are never begun.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lengthwise.problems.sheet_rule import Rule, rule_of
from lengthwise.tasks.framing import END, START
from lengthwise.tasks.near import BEFORE, CLOSED, LAST, SHEET, Near
from lengthwise.tasks.worksheet import Worksheet


@dataclass(frozen=True)
class Written:
    """Sheets of some problems.

    Attributes:
        task: of all of them.
        cells: tokens, uint8 `[problem, row, column, field]`; closed where none is. A separator, and the
            end, is the first field of its cell.
        rows: of each problem the row that holds the end, or where there is none the first that does not
            end within the limits, or holds a token that can't stand there, the last then.
        ended: whether the end was written.
        asked: whether all that is asked for was: the end, or of a task without one the last row.
    """

    task: Worksheet
    cells: np.ndarray
    rows: np.ndarray
    ended: np.ndarray
    asked: np.ndarray

    @classmethod
    def of(cls, each: Sequence[Written]) -> Written:
        """Sheets of the same limits together."""
        parts = (
            np.concatenate([getattr(one, name) for one in each])
            for name in ("cells", "rows", "ended", "asked")
        )
        return cls(each[0].task, *parts)

    def same_as(self, other: Written) -> np.ndarray:
        """Which sheets are the same as others of the same limits, to their ends, bool `[problem]`."""
        ends = (self.rows == other.rows) & (self.ended == other.ended) & self.asked & other.asked
        rows = np.arange(self.cells.shape[1])
        same = (self.cells == other.cells).all(axis=(2, 3)) | (rows > self.rows[:, None])
        return ends & same.all(axis=1)

    def tokens(self, problem: int) -> np.ndarray:
        """Everything that was written, in the order of writing."""
        cells = self.cells[problem, : self.rows[problem] + 1]
        return cells[cells != CLOSED]

    def values(self, problem: int) -> list[np.ndarray]:
        """The rows of a sheet before the end, as values `[column, field]`; -1 is what can't stand there."""
        first, task = np.array(self.task.first_token), self.task
        closing = [CLOSED, *(task.token(text) for text in (*task.separators, END))]
        found = []
        for row in self.cells[problem, : self.rows[problem] + 1]:
            length = int((~np.isin(row[:, 0], closing)).sum())
            values = row[:length].astype(np.int64) - first
            inside = (values >= 0) & (values < [field.size for field in task.fields])
            found.append(np.where(inside, values, -1))
        return [row for row in found if len(row)]


def pace_of(nears: Sequence[Near]) -> int:
    """Columns by which a row must be ahead of the one below it.

    Raises:
        ValueError: for a cell that would see what is written after it.
    """
    pace = 1
    for near in nears:
        if near.segment != SHEET:
            continue
        rows, columns = -(near.row or 0), near.column or 0
        if rows < 0 or (rows == 0 and columns > 0):
            raise ValueError(f"{near} is written after the cell that would see it")
        if rows:
            pace = max(pace, -(-(columns + 1) // rows))
    return pace


def write_sheets(
    task: Worksheet,
    operands: Sequence[np.ndarray],
    nears: Sequence[Near],
    rule: Rule,
    *,
    columns: int,
    rows: int,
    on_progress: Callable[[int, int], object] | None = None,
) -> Written:
    """Write the sheets of some problems.

    Args:
        operands: digits of each operand, uint8 `[problem, place]`, least significant first; closed past a
            problem's own.
        nears: what a token follows from; `last` is the token before it.
        rule: the token of a field that sees this.
        columns, rows: limits: cells of a row, and rows.
        on_progress: called with the steps done and their greatest number.
    """
    page = _Page(task, operands, nears, columns, rows)
    end, separators = task.token(END), [task.token(text) for text in task.separators]
    # By field and token: whether a row stops with it, and whether it is a separator.
    stops = np.ones((len(task.fields), 256), bool)
    parts = np.zeros_like(stops)
    for own, starts, field in zip(stops, task.first_token, task.fields, strict=True):
        own[starts : starts + field.size] = False
    parts[0, separators] = True
    count = len(operands[0])
    alive = np.ones((count, rows + 1), bool)  # rows that have not ended
    last = np.full(count, rows + 1)  # the row that holds the end, or does not end, once known
    first, moments = 0, page.pace * rows + columns + 2
    for moment in range(moments):
        while first <= rows and not alive[:, first].any():
            first += 1
        stop = min(rows, moment // page.pace) + 1
        lines = np.arange(first, stop)
        active = alive[:, first:stop] & (lines <= last[:, None])
        if first > rows or not (alive & (np.arange(rows + 1) <= last[:, None])).any():
            break
        if not active.any():
            continue
        page.turn(moment, lines)
        for field in range(len(task.fields)):
            written = rule(field, page.seen(field, active))
            page.place(field)[active] = written
            closes = stops[field][written]
            if closes.any():
                problems, places = (index[closes] for index in np.nonzero(active))
                alive[problems, places + first] = False
                # With the end, and with what can't stand there, the sheet ends.
                finished = ~parts[field][written[closes]]
                np.minimum.at(last, problems[finished], places[finished] + first)
                active[problems, places] = False
        # A row that may hold no more cells, and has not ended, ends the sheet there.
        for line in lines[moment - page.pace * lines >= columns]:
            stuck = alive[:, line]
            last[stuck] = np.minimum(last[stuck], line)
            alive[:, line] = False
        if on_progress is not None:
            on_progress(moment + 1, moments)
    last = np.minimum(last, rows)
    every = np.arange(count)
    ended = (page.cells[every, last, :, 0] == end).any(axis=1)
    asked = ended.copy()
    if task.endless:
        asked |= np.isin(page.cells[every, last, :, 0], separators).any(axis=1) & (last == rows)
    return Written(task, page.cells, last, ended, asked)


class _Page:
    """The cells of sheets, with room around them where nothing is, and what is seen from some of them.

    Args:
        task, operands, nears, columns, rows: as of `write_sheets`.

    Attributes:
        cells: uint8 `[problem, row, column, field]`, without the room around them.
        pace: as of `pace_of`.
    """

    def __init__(
        self,
        task: Worksheet,
        operands: Sequence[np.ndarray],
        nears: Sequence[Near],
        columns: int,
        rows: int,
    ) -> None:
        self.task, self.nears = task, nears
        of_sheet = [near for near in nears if near.segment == SHEET]
        self.pace = pace_of(of_sheet)
        up = max([0, *(-(near.row or 0) for near in of_sheet)])
        left = max([1, *(-(near.column or 0) for near in of_sheet)])
        right = max([1, *((near.column or 0) for near in of_sheet)])
        self.fields, self.wide = len(task.fields), left + columns + 1 + right
        shape = (len(operands[0]), up + rows + 1, self.wide, self.fields)
        every = np.full(shape, CLOSED, np.uint8)
        self.cells = every[:, up:, left : left + columns + 1]
        self._flat, self._corner = every.reshape(len(every), -1), up * self.wide + left
        self._names = [field.name for field in task.fields]
        self._far = 1 + max([0, *(abs(n.row or 0) + abs(n.column or 0) for n in nears)])
        room = (self._far, self._far + max(rows, columns) + self.pace * rows + 2)
        # Values are tokens from here on.
        self._sources = {
            segment.name: np.pad(
                np.where(digits == CLOSED, CLOSED, digits + task.first_digit(segment.name)),
                ((0, 0), room),
                constant_values=CLOSED,
            ).astype(np.uint8)
            for segment, digits in zip(task.operands, operands, strict=True)
        }
        self._start = task.token(START)
        self._separators = [task.token(text) for text in task.separators]
        several = len(self._separators) > 1 and any(n.segment in (LAST, BEFORE) for n in nears)
        self._counters = {
            near.counter: [task.token(text) for text in task.counters[near.counter]]
            for near in nears
            if near.counter in task.counters
        }
        if several or self._counters:
            # A row's first token is written after its separator, whose kind is to be known.
            self.pace = max(self.pace, columns + 1)
        self._known: tuple[int, dict[str, np.ndarray]] = (0, {})
        self._step = (self.wide - self.pace) * self.fields
        self.turn(0, np.arange(1))

    def turn(self, moment: int, lines: np.ndarray) -> None:
        """Look from the cells that are written at a moment, one of each of these rows."""
        self._lines, self._columns = lines, moment - self.pace * lines
        first = self._corner + int(lines[0]) * self.wide + int(self._columns[0])
        self._origin = first * self.fields

    def place(self, field: int, ahead: int = 0) -> np.ndarray:
        """A field of these cells, or of those so many cells further, `[problem, row]`; a view."""
        origin = self._origin + ahead * self.fields + field
        return self._flat[:, origin : origin + self._step * (len(self._lines) - 1) + 1 : self._step]

    def seen(self, field: int, active: np.ndarray) -> np.ndarray:
        """What those of the cells see that are active, bool `[problem, row]`: uint8 `[near, cell]`."""
        return np.stack([self._look(near, field)[active] for near in self.nears])

    def _before_row(self, line: int) -> np.ndarray | int:
        """The token before a row's first, `[problem]`.

        The row above is taken to end in a separator; if it does not, what is below does not count.
        """
        if line == 0:
            return self._start
        if len(self._separators) == 1:
            return self._separators[0]
        above = self.cells[:, line - 1, :, 0]
        ends = np.isin(above, self._separators)
        return above[np.arange(len(above)), ends.argmax(axis=1)]

    def _count(self, counter: str, line: int) -> np.ndarray:
        """The separators of a counter's kinds above a row, `[problem]`; rows come one after the other."""
        row, counts = self._known
        counts = counts or {name: np.zeros(len(self._flat), np.int64) for name in self._counters}
        while row < line:
            kinds = self._before_row(row + 1)
            counts = {n: counts[n] + np.isin(kinds, own) for n, own in self._counters.items()}
            row += 1
        self._known = row, counts
        return counts[counter]

    def _look(self, near: Near, field: int) -> np.ndarray:
        """What all of the cells see at one place, `[problem, row]`."""
        if near.segment in (LAST, BEFORE):
            if field and near.segment == LAST:
                return self.place(field - 1)
            found = self.place(self.fields - 1, -1).copy()
            for place in np.flatnonzero(self._columns == 0):
                found[:, place] = self._before_row(int(self._lines[place]))
            return found
        if near.segment == SHEET:
            ahead = (near.row or 0) * self.wide + (near.column or 0)
            return self.place(self._names.index(near.field), ahead)
        shape, digits = (len(self._flat), len(self._lines)), self._sources.get(near.segment)
        if digits is None:
            return np.full(shape, self.task.token(near.segment), np.uint8)
        axis, last = self.task.axis(near.segment), digits.shape[1] - 1
        rows, columns = self._lines + (near.row or 0), self._columns + (near.column or 0)
        if axis.counter in self._counters:
            # One row at a time is written.
            found = np.full(shape, CLOSED, np.uint8)
            at = self._count(axis.counter, int(self._lines[-1])) + (near.row or 0)
            found[:, -1] = digits[np.arange(len(digits)), np.clip(self._far + at, 0, last)]
        else:
            at = columns if axis.by_column else rows
            found = digits[:, np.minimum(self._far + at, last)]
        if axis.edge is not None:
            found[:, (rows if axis.by_column else columns) != -1] = CLOSED
        return found


class Pen:
    """A sheet of one problem that is written one token after the other.

    It ends with the end, with a token that can't stand where it does, and with the limits.

    Args:
        columns, rows: as of `write_sheets`.

    Attributes:
        row, column, field: where the next token stands.
    """

    def __init__(self, task: Worksheet, *, columns: int, rows: int) -> None:
        self.task, self._columns, self._rows, self._ended = task, columns, rows, False
        self._cells = np.full((1, rows + 1, columns + 1, len(task.fields)), CLOSED, np.uint8)
        self.row = self.column = self.field = 0

    def write(self, token: int) -> bool:
        """Write a token; whether the sheet goes on."""
        task, text = self.task, self.task.tokens[token]
        self._cells[0, self.row, self.column, self.field] = token
        if not self.field and text in task.separators:
            self.row, self.column = self.row + 1, 0
        elif 0 <= token - task.first_token[self.field] < task.fields[self.field].size:
            self.field = (self.field + 1) % len(task.fields)
            self.column += self.field == 0
        else:
            self._ended = not self.field and text == END
            return False
        return self.row <= self._rows and self.column <= self._columns

    @property
    def written(self) -> Written:
        """What was written so far."""
        last, ended = np.array([min(self.row, self._rows)]), np.array([self._ended])
        asked = ended | (self.task.endless and self.row > self._rows)
        return Written(self.task, self._cells, last, ended, asked)


def read_tokens(task: Worksheet, tokens: np.ndarray, *, columns: int, rows: int) -> Written:
    """A sheet that was written one token after the other; see `Pen`."""
    pen = Pen(task, columns=columns, rows=rows)
    for token in tokens.tolist():
        if not pen.write(token):
            break
    return pen.written


def true_sheets(
    task: Worksheet, operands: Sequence[np.ndarray], columns: int, rows: int
) -> Written:
    """The right sheets of some problems; see `write_sheets`.

    Raises:
        ValueError: where a sheet does not end within the limits, of a task whose sheets all end.
    """
    written = write_sheets(task, operands, task.nears, rule_of(task), columns=columns, rows=rows)
    if not written.asked.all():
        raise ValueError(f"a sheet of {task.name} has no end within {rows} rows of {columns} cells")
    return written
