"""Worksheets that tests make up, and a writer of sheets that goes cell by cell, with no array in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np

from lengthwise.locality.patches import FIRST_COLUMN, FIRST_ROW
from lengthwise.problems.sheets import SheetLayout
from lengthwise.problems.sizes import Size
from lengthwise.problems.wavefront import true_sheets
from lengthwise.tasks import Field, Segment, Worksheet
from lengthwise.tasks.near import CLOSED, SHEET, Near


class Made(Worksheet):
    """Base of the rules below: a along columns, b along rows, two fields."""

    name = "made"
    segments = (Segment("a", "operand"), Segment("+", "symbol"), Segment("b", "operand"))
    axes: ClassVar = {"a": "c", "b": "r"}
    follows = ("a[c]", "b[r]", "sheet[r-1,c].x", "sheet[r,c-1].y")
    example = ("12+3", "4")

    @cached_property
    def fields(self):
        return Field("x", 3), Field("y", 2)

    def cell(self, *seen):
        a, b, *others = seen
        if b is None:
            return "$"
        if a is None:
            return ";"
        return self.values(a, b, others)

    def values(self, a, b, others):
        total = a + 2 * b + sum(n for n in others if isinstance(n, int))
        return total % 3, total % 2

    def answer(self, rows):
        return rows[-1][:, 0].tolist()


class Diagonal(Made):
    """It sees two columns on, and two before."""

    follows = ("a[c+1]", "b[r]", "a[c]", "sheet[r-1,c+2].y", "sheet[r-1,c-1].x", "sheet[r,c-2].x")

    def cell(self, *seen):
        after, b, a, *others = seen
        return super().cell(a, b, after, *others)


class Aside(Made):
    """The same, less of it."""

    follows = ("a[c]", "b[r]", "sheet[r-1,c+2].y", "sheet[r,c-2].x")


class Growing(Made):
    """Each row is a cell longer than the one above: it ends where above it is nothing."""

    follows = ("a[c]", "b[r]", "sheet[r-1,c].x", "sheet[r-1,c-1].x")

    def cell(self, *seen):
        a, b, above, before = seen
        if b is None:
            return "$"
        if above is None and not isinstance(before, str) and (a is None or before is not None):
            return ";"
        return self.values(a or 0, b, (above, before))


class Shrinking(Made):
    """Each row is a cell shorter, and the end stands in the middle of a row."""

    follows = ("a[c]", "b[r]", "sheet[r-1,c+1].x", "sheet[r,c-1].x")

    def cell(self, *seen):
        a, b, above, before = seen
        if above == ";" or a is None:
            return ";"
        if b is None and before is not None:
            return "$"
        return self.values(a, b or 0, (above, before))


class Endless(Made):
    """A row that never ends."""

    def cell(self, *seen):
        a, b, *others = seen
        return self.values(a or 0, b or 0, others)


RULES = (Made, Diagonal, Aside, Growing, Shrinking, Endless)


def by_hand(task: Worksheet, operands: list[list[int]], columns: int, rows: int) -> list[int]:
    """The tokens of one sheet: row by row, cell by cell, as the protocol says it."""
    grid: list[list] = [[]]
    tokens: list[int] = []
    digits = dict(zip((s.name for s in task.operands), operands, strict=True))
    names = [field.name for field in task.fields]

    def look(near: Near):
        if near.segment != SHEET:
            place = (
                (len(grid) - 1 + near.row) if near.row is not None else len(grid[-1]) + near.column
            )
            own = digits[near.segment]
            return own[place] if 0 <= place < len(own) else None
        row, column = len(grid) - 1 + near.row, len(grid[-1]) + near.column
        if row < 0 or column < 0 or column >= len(grid[row]):
            return None
        cell = grid[row][column]
        number = names.index(near.field)
        return (None if number else cell) if isinstance(cell, str) else cell[number]

    while len(grid) <= rows + 1:
        cell = task.cell(*map(look, task.nears))
        if isinstance(cell, str):
            tokens.append(task.token(cell))
            grid[-1].append(cell)
            if cell == "$":
                return tokens
            grid.append([])
            if len(grid) > rows + 1:
                return tokens
            continue
        if len(grid[-1]) >= columns + 1:
            return tokens
        tokens += [first + value for first, value in zip(task.first_token, cell, strict=True)]
        grid[-1].append(cell)
        if len(grid[-1]) > columns:
            return tokens
    return tokens


def random_operands(
    task: Worksheet, seed: int, count: int, columns: int, rows: int
) -> list[np.ndarray]:
    """Digits of operands of one size."""
    rng = np.random.default_rng(seed)
    sizes = {"c": columns, "r": rows}
    return [
        rng.integers(0, task.base, (count, sizes[task.axes[s.name]]), np.uint8)
        for s in task.operands
    ]


def draw(task: Worksheet, size: Size, count: int) -> list[np.ndarray]:
    """Random operands of one size, as they are written."""
    rng = np.random.default_rng(size.columns * 100 + size.rows)
    digits = rng.integers(0, task.base, (count, len(task.operands), size.longest), np.uint8)
    return SheetLayout(task, size).parts(digits)


def sees(
    task: Worksheet,
    operands: list[np.ndarray],
    cells: np.ndarray,
    near: Near,
    row: int,
    column: int,
):
    """What stands near a cell of a written sheet, as the rule is given it."""
    if near == FIRST_ROW:
        return row == 0
    if near == FIRST_COLUMN:
        return column == 0
    if near.segment == SHEET:
        row, column = row + (near.row or 0), column + (near.column or 0)
        if not (0 <= row < cells.shape[0] and 0 <= column < cells.shape[1]):
            return None
        field = [one.name for one in task.fields].index(near.field)
        token = int(cells[row, column, field])
        value = token - task.first_token[field]
        if token == CLOSED:
            return None
        return value if 0 <= value < task.fields[field].size else task.tokens[token]
    digits = operands[[one.name for one in task.operands].index(near.segment)]
    place = column + near.column if near.column is not None else row + (near.row or 0)
    return int(digits[place]) if 0 <= place < len(digits) else None


def real_views(
    task: Worksheet, names: Sequence[Near], sizes: Iterable[Size], count: int
) -> set[tuple]:
    """What the cells of real sheets see at some places, of so many problems of each size."""
    found = set()
    for size in sizes:
        operands = draw(task, size, count)
        written = true_sheets(task, operands, **SheetLayout(task, size).limits)
        for problem, cells in enumerate(written.cells):
            own = [digits[problem] for digits in operands]
            for row, column in np.argwhere(cells[:, :, 0] != CLOSED):
                if row <= written.rows[problem]:
                    views = (sees(task, own, cells, near, row, column) for near in names)
                    found.add(tuple(views))
    return found
