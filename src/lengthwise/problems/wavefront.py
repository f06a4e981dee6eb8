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

from lengthwise.tasks.framing import END, START
from lengthwise.tasks.worksheet import CLOSED, LAST, SHEET, Near, Worksheet

# What tokens are written: of a field, by what is seen, uint8 `[near, cell]`.
Rule = Callable[[int, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Written:
    """Sheets of some problems.

    Attributes:
        task: of all of them.
        cells: tokens, uint8 `[problem, row, column, field]`; closed where none is. A separator, and the end,
            is the first field of its cell.
        rows: of each problem the row that holds the end, or where there is none the first that does not
            end, within the limit of columns or of rows.
        ended: whether the end was written.
    """

    task: Worksheet
    cells: np.ndarray
    rows: np.ndarray
    ended: np.ndarray

    def same_as(self, other: Written) -> np.ndarray:
        """Which sheets are the same as others of the same limits, to their ends, bool `[problem]`."""
        ends = (self.rows == other.rows) & self.ended & other.ended
        rows = np.arange(self.cells.shape[1])
        same = (self.cells == other.cells).all(axis=(2, 3)) | (rows > self.rows[:, None])
        return ends & same.all(axis=1)

    def tokens(self, problem: int) -> np.ndarray:
        """Everything that was written, in the order of writing."""
        cells = self.cells[problem, : self.rows[problem] + 1]
        return cells[cells != CLOSED]

    def values(self, problem: int) -> list[np.ndarray]:
        """The rows of a sheet before the end, as values `[column, field]`."""
        first = np.array(self.task.first_token)
        found = []
        for row in self.cells[problem, : self.rows[problem] + 1]:
            length = int((row[:, -1] != CLOSED).sum())
            found.append(row[:length].astype(np.int64) - first)
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
        task: the task.
        operands: digits of each operand, uint8 `[problem, place]`, least significant first; closed past a
            problem's own.
        nears: what a token follows from; `last` is the token before it.
        rule: the token of a field that sees this.
        columns, rows: limits: cells of a row, and rows.
        on_progress: called with the steps done and their greatest number.
    """
    fields, count = len(task.fields), len(operands[0])
    names = [field.name for field in task.fields]
    of_sheet = [near for near in nears if near.segment == SHEET]
    pace = pace_of(of_sheet)
    up = max([0, *(-(near.row or 0) for near in of_sheet)])
    left = max([1, *(-(near.column or 0) for near in of_sheet)])
    right = max([1, *((near.column or 0) for near in of_sheet)])
    wide = left + columns + 1 + right
    cells = np.full((count, up + rows + 1, wide, fields), CLOSED, np.uint8)
    flat = cells.reshape(count, -1)
    step = (wide - pace) * fields
    far = max([0, *(abs(near.row or 0) + abs(near.column or 0) for near in nears)]) + 1
    sources = {
        segment.name: np.pad(
            digits,
            ((0, 0), (far, far + max(rows, columns) + pace * rows + 2)),
            constant_values=CLOSED,
        )
        for segment, digits in zip(task.operands, operands, strict=True)
    }
    separators = {task.token(text) for text in task.separators}
    end, start = task.token(END), task.token(START)
    ends = np.array([*separators, end], np.uint8)
    guess = task.token(task.separators[0])
    alive = np.ones((count, rows + 1), bool)
    last_row = np.full(count, rows + 1)  # the row that holds the end, where it is known
    over = np.full(count, rows + 1)  # the first row that did not end
    first, moments = 0, pace * rows + columns + 2
    for moment in range(moments):
        stop = min(rows, moment // pace) + 1
        first = max(first, -(-(moment - columns) // pace))
        while first < stop and not alive[:, first].any():
            first += 1
        if first >= stop:
            if first > rows or not alive.any():
                break
            continue
        lines = np.arange(first, stop)
        active = alive[:, first:stop] & (lines <= np.minimum(last_row, over)[:, None])
        if not active.any():
            if (alive & (np.arange(rows + 1) <= np.minimum(last_row, over)[:, None])).any():
                continue
            break
        origin = ((up + first) * wide + left + moment - pace * first) * fields
        number = len(lines)

        def look(near: Near, field: int, active: np.ndarray) -> np.ndarray:
            if near.segment == LAST:
                if field:
                    return _slice(flat, origin + field - 1, step, number)[active]
                found = _slice(flat, origin - 1, step, number).copy()
                fresh = moment - pace * lines == 0
                found[:, fresh] = np.where(lines[fresh] == 0, start, guess)
                return found[active]
            if near.segment == SHEET:
                ahead = ((near.row or 0) * wide + (near.column or 0)) * fields
                return _slice(flat, origin + ahead + names.index(near.field), step, number)[active]
            digits = sources[near.segment]
            if near.row is not None:
                at = lines + near.row
            elif near.column is not None:
                at = moment - pace * lines + near.column
            else:
                return np.full(int(active.sum()), task.token(near.segment), np.uint8)
            return digits[:, far + at][active]

        for field in range(fields):
            seen = np.stack([look(near, field, active) for near in nears])
            written = rule(field, seen)
            place = _slice(flat, origin + field, step, number)
            place[active] = written
            if field:
                continue
            closes = np.isin(written, ends)
            if closes.any():
                problems, places = np.nonzero(active)
                alive[problems[closes], places[closes] + first] = False
                finished = written == end
                np.minimum.at(last_row, problems[finished], places[finished] + first)
                active = active.copy()
                active[problems[closes], places[closes]] = False
        # A row that may hold no more cells, and has not ended, ends the sheet there.
        full = lines[moment - pace * lines >= columns]
        for line in full:
            stuck = alive[:, line]
            over[stuck] = np.minimum(over[stuck], line)
            alive[:, line] = False
        if on_progress is not None:
            on_progress(moment + 1, moments)
    ended = last_row < over
    kept = np.minimum(np.where(ended, last_row, over), rows)
    return Written(task, cells[:, up:, left : left + columns + 1], kept, ended & (last_row <= rows))


def _slice(flat: np.ndarray, origin: int, step: int, number: int) -> np.ndarray:
    """One field of cells of rows that follow each other, `[problem, row]`; a view."""
    return flat[:, origin : origin + step * (number - 1) + 1 : step]


def read_tokens(task: Worksheet, tokens: np.ndarray, *, columns: int, rows: int) -> Written:
    """A sheet that was written one token after the other, of one problem.

    Tokens that stand where they can't, and those past the limits, end it there.
    """
    fields = len(task.fields)
    cells = np.full((1, rows + 1, columns + 1, fields), CLOSED, np.uint8)
    separators, end = {task.token(text) for text in task.separators}, task.token(END)
    row = column = field = 0
    ended = False
    for token in tokens.tolist():
        if row > rows or column > columns:
            break
        value = token - task.first_token[field]
        if field == 0 and (token in separators or token == end):
            cells[0, row, column, 0] = token
            if token == end:
                ended = True
                break
            row, column = row + 1, 0
        elif 0 <= value < task.fields[field].size:
            cells[0, row, column, field] = token
            field = (field + 1) % fields
            column += field == 0
        else:
            break
    return Written(task, cells, np.array([min(row, rows)]), np.array([ended]))


def rule_of(task: Worksheet) -> Rule:
    """The rule of a task itself, by its table."""
    codes = np.zeros((len(task.nears), 256), np.int64)
    shape = task.table.shape[1:]
    for number, values in enumerate(task.alphabets):
        codes[number, [token for token, _ in values]] = np.arange(len(values))
    table = task.table.reshape(len(task.fields), -1)

    def rule(field: int, seen: np.ndarray) -> np.ndarray:
        index = np.zeros(seen.shape[1], np.int64)
        for number, tokens in enumerate(seen):
            index = index * shape[number] + codes[number, tokens]
        return table[field, index]

    return rule


def true_sheets(
    task: Worksheet, operands: Sequence[np.ndarray], columns: int, rows: int
) -> Written:
    """The right sheets of some problems; see `write_sheets`.

    Raises:
        ValueError: where a sheet does not end within the limits.
    """
    written = write_sheets(task, operands, task.nears, rule_of(task), columns=columns, rows=rows)
    if not written.ended.all():
        raise ValueError(f"a sheet of {task.name} has no end within {rows} rows of {columns} cells")
    return written
