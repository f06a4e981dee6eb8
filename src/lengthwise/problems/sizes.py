"""How large problems of worksheets are: digits along columns, and along rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lengthwise.errors import shorten
from lengthwise.tasks.worksheet import Worksheet


@dataclass(frozen=True)
class Size:
    """Digits of the operands along columns and along rows: `20x15`.

    Attributes:
        columns, rows: as above.
    """

    columns: int
    rows: int

    @classmethod
    def parse(cls, text: str) -> Size:
        """Read what `str` gives; `20` is `20x20`.

        Raises:
            ValueError: for other text.
        """
        columns, mark, rows = text.strip().lower().partition("x")
        numbers = [columns, rows if mark else columns]
        if not all(number.isdecimal() and len(number) < 10 and int(number) for number in numbers):
            raise ValueError(f"a size is written like 20x15, got {shorten(text)!r}")
        return cls(*map(int, numbers))

    def __str__(self) -> str:
        return f"{self.columns}x{self.rows}"

    @property
    def cells(self) -> int:
        """Columns times rows."""
        return self.columns * self.rows

    def fits(self, other: Size) -> bool:
        """Whether it is no larger than another, along both axes."""
        return self.columns <= other.columns and self.rows <= other.rows

    @property
    def longest(self) -> int:
        """The larger of the two."""
        return max(self.columns, self.rows)

    def of(self, task: Worksheet, operand: str) -> int:
        """Digits of an operand, without leading zeros that are always written."""
        return self.columns if task.axis(operand).by_column else self.rows


def size_of(task: Worksheet, parts: Sequence[Sequence[str]]) -> Size:
    """The size of a problem whose operands are written as text."""
    columns, rows = 1, 1
    for segment, part in zip(task.operands, parts, strict=True):
        if task.axis(segment.name).by_column:
            columns = max(columns, len(part))
        else:
            rows = max(rows, len(part))
    return Size(columns, rows)
