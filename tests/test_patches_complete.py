"""The list of sights lacks none: rules that see each other's first fields, two cells aside, rare values."""

from __future__ import annotations

from functools import cached_property

import pytest

from lengthwise.locality.patches import patches, sights_of
from lengthwise.problems.sizes import Size
from lengthwise.tasks import Field, make_task
from lengthwise.tasks.near import Near
from sheet_rules import Made, real_views


class Table(Made):
    """A digit from those of a and b, and from others on the sheet; its first field is all that there is."""

    follows = ("a[c]", "b[r]", "sheet[r-1,c].digit", "sheet[r,c-1].digit")

    @cached_property
    def fields(self):
        return (Field("digit", 3),)

    def values(self, a, b, others):
        return (self.digit(a + b, [n if isinstance(n, int) else 0 for n in others], others),)

    def digit(self, own, numbers, others):
        return (own + sum((k + 1) * n for k, n in enumerate(numbers))) % 3


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
    sizes = [Size(columns, rows) for columns in (1, 2, 3, 4) for rows in (1, 2, 3)]
    found = real_views(task, relation.names, sizes, 32)
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
