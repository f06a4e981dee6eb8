"""The list of sights lacks none: rules that see each other's first fields, two cells aside, rare values."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np
import pytest

from lengthwise.locality.patches import patches, sights_of
from lengthwise.problems.sheets import Size
from lengthwise.problems.wavefront import true_sheets
from lengthwise.tasks import Field, Segment, Worksheet, make_task
from lengthwise.tasks.worksheet import CLOSED, Near
from test_docs_sheets import SheetLayout, draw, sees


class Table(Worksheet):
    """A digit from those of a and b, and from others on the sheet; its first field is all that there is."""

    name = "table"
    segments = (Segment("a", "operand"), Segment("+", "symbol"), Segment("b", "operand"))
    axes: ClassVar = {"a": "c", "b": "r"}
    follows = ("a[c]", "b[r]", "sheet[r-1,c].digit", "sheet[r,c-1].digit")
    example = ("12+3", "45")

    @cached_property
    def fields(self):
        return (Field("digit", 3),)

    def cell(self, *seen):
        a, b, *others = seen
        if b is None:
            return "$"
        if a is None:
            return ";"
        return (self.digit(a + b, [n if isinstance(n, int) else 0 for n in others], others),)

    def digit(self, own, numbers, others):
        return (own + sum((k + 1) * n for k, n in enumerate(numbers))) % 3

    def answer(self, rows):
        return rows[-1][:, 0].tolist()


class TwoAbove(Table):
    follows = ("a[c]", "b[r]", "sheet[r-1,c-1].digit", "sheet[r-1,c-2].digit")


class TwoBefore(Table):
    follows = ("a[c]", "b[r]", "sheet[r,c-1].digit", "sheet[r,c-2].digit")


class SecondColumn(Table):
    """A digit that stands in the second column alone."""

    follows = (
        *("a[c]", "b[r]", "sheet[r-1,c+1].digit", "sheet[r-1,c+2].digit"),
        "sheet[r,c-1].digit",
    )

    def digit(self, own, numbers, others):
        return min(2, numbers[-1] + 1) if isinstance(others[-1], int) else 0


def missing(task, relation):
    """Sights of real sheets of up to four columns and three rows that a relation lacks."""
    found = set()
    for size in (Size(columns, rows) for columns in (1, 2, 3, 4) for rows in (1, 2, 3)):
        operands = draw(task, size, 32)
        written = true_sheets(task, operands, **SheetLayout(task, size).limits)
        for problem, cells in enumerate(written.cells):
            own = [digits[problem] for digits in operands]
            for row, column in np.argwhere(cells[:, :, 0] != CLOSED):
                if row <= written.rows[problem]:
                    found.add(
                        tuple(sees(task, own, cells, near, row, column) for near in relation.names)
                    )
    assert len(found) > 20
    return found - relation.rows


@pytest.mark.parametrize("kind", [Table, TwoAbove, TwoBefore, SecondColumn])
def test_no_sight_of_a_rule_is_left_out(kind):
    task = kind(2)
    assert missing(task, patches(task)) == set()


@pytest.mark.parametrize(
    "more",
    [
        ["sheet[r-2,c].digit"],
        ["sheet[r,c-1].digit", "sheet[r,c-2].digit"],
        ["sheet[r-1,c-1].digit", "sheet[r-1,c-2].digit"],
        ["a[c-1]", "a[c+1]", "b[r-1]"],
    ],
    ids=" ".join,
)
def test_no_sight_along_other_lines_is_left_out(more):
    task = make_task("multiplication", 2)
    assert missing(task, sights_of(task, map(Near.parse, more))) == set()
