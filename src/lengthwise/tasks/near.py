"""What a cell of a sheet sees and is made of: tokens near it, fields, and how operands are counted."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from lengthwise.tasks.transducer import DIGITS

# What stands where there is no token.
CLOSED = 255

# Of all tokens near a cell: those of the sheet itself; the token that a query reads; and the one that was
# written before the cell, which is a separator, or the start, before a row's first.
SHEET, LAST, BEFORE = "sheet", "last", "before"

# A sight, and what a cell may be: a separator or the end, or a value for each field.
Symbol = int | str | None
Cell = tuple[int, ...] | str


def number(symbol: Symbol) -> int:
    """A value that is seen; 0 where there is none, and of a separator."""
    return symbol if isinstance(symbol, int) else 0


_NEAR = re.compile(r"(?P<segment>\w+|\W)(?:\[(?P<place>[^]]*)\](?:\.(?P<field>\w+))?)?")
_OFFSET = re.compile(r"(?P<axis>[a-z])(?P<steps>[+-]\d+)?")


@dataclass(frozen=True)
class Field:
    """A part of every cell: one token each.

    Attributes:
        name: of the field.
        size: its values are 0 to size - 1.
        texts: of each value, where they are no digits.
        shown: the same as people write them, where that is shorter.
    """

    name: str
    size: int
    texts: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()

    def text(self, value: int) -> str:
        """A value as people write it; a question mark for what can't stand there, and for nothing."""
        texts = self.shown or self.texts or DIGITS
        return texts[value] if 0 <= value < len(texts) else "?"


@dataclass(frozen=True)
class Near:
    """A token as seen from a cell: `a[c]`, `b[r-1]`, `sheet[r-1,c+1].digit`.

    Attributes:
        segment: of the source, or `sheet`.
        row, column: how far from the cell's own; None where the segment has no such axis.
        field: of a cell of the sheet.
        counter: what `row` is counted by: `r` for all rows, or a counter of the task's.
    """

    segment: str
    row: int | None = None
    column: int | None = None
    field: str = ""
    counter: str = "r"

    @classmethod
    def parse(cls, text: str) -> Near:
        """Read what `str` gives.

        Raises:
            ValueError: for other text.
        """
        match = _NEAR.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text!r} is no token near a cell, such as a[c] or sheet[r-1,c+1].digit"
            )
        steps = _offsets(match["place"] or "")
        rows = [axis for axis in steps if axis != "c"]
        if len(rows) > 1:
            raise ValueError(f"{text!r} counts rows in two ways")
        counter, field = rows[0] if rows else "r", match["field"] or ""
        return cls(match["segment"], steps.get(counter), steps.get("c"), field, counter)

    def __str__(self) -> str:
        place = ",".join(
            f"{axis}{steps:+d}" if steps else axis
            for axis, steps in ((self.counter, self.row), ("c", self.column))
            if steps is not None
        )
        field = f".{self.field}" if self.field else ""
        return f"{self.segment}[{place}]{field}" if place else f"{self.segment}{field}"

    def moved(self, row: int, column: int) -> Near:
        """What the cell so many rows and columns further sees there."""
        return replace(
            self,
            row=None if self.row is None else self.row + row,
            column=None if self.column is None else self.column + column,
        )


def _offsets(place: str) -> dict[str, int]:
    """Steps along each axis, of text such as `r-1,c`."""
    steps: dict[str, int] = {}
    for part in place.replace(" ", "").split(",") if place else ():
        offset = _OFFSET.fullmatch(part)
        if offset is None or offset["axis"] in steps:
            raise ValueError(f"[{place}] names no place such as [c], [r-1] or [r-1,c+1]")
        steps[offset["axis"]] = int(offset["steps"] or 0)
    return steps


@dataclass(frozen=True)
class Axis:
    """How the digits of an operand are counted, and where they can be read.

    Attributes:
        counter: what they are counted by: `c` for columns, `r` for rows, or a counter of the task's, of
            separators of stated kinds.
        edge: `r` of an operand that is row -1, read in the first row alone, `c` of one that is column -1,
            read in the first column alone; None where it is read wherever it reaches.
    """

    counter: str
    edge: str | None = None

    @classmethod
    @lru_cache(maxsize=256)
    def parse(cls, text: str) -> Axis:
        """Read it as a cell sees it: `c`, `r`, and at an edge `r-1,c` or `s,c-1`.

        Raises:
            ValueError: for other text.
        """
        steps = _offsets(text)
        along = [axis for axis, offset in steps.items() if not offset]
        edges = [axis for axis, offset in steps.items() if offset == -1]
        pair = {along[0] == "c", edges[0] == "c"} if along and edges else {True, False}
        if len(along) != 1 or len(along) + len(edges) != len(steps) or len(pair) != 2:
            raise ValueError(f"an operand lies along 'c', 'r', 'r-1,c' or 'r,c-1', not {text!r}")
        return cls(along[0], edges[0] if edges else None)

    @property
    def by_column(self) -> bool:
        """Whether it has a digit for each column."""
        return self.counter == "c"

    @property
    def names(self) -> tuple[str, ...]:
        """The coordinates of a digit."""
        if self.edge is None:
            return (self.counter,)
        return (self.edge, "c") if self.by_column else (self.counter, self.edge)

    def near(self, segment: str, steps: int = 0) -> Near:
        """The digit so many further than the one of this row, or of this column."""
        edge = None if self.edge is None else -1
        if self.by_column:
            return Near(segment, row=edge, column=steps)
        return Near(segment, row=steps, column=edge, counter=self.counter)

    def steps(self, near: Near) -> int | None:
        """How far a digit is along it; None for what is none of its digits."""
        steps = near.column if self.by_column else near.row
        return steps if steps is not None and near == self.near(near.segment, steps) else None
