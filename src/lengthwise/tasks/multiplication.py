"""Long multiplication: a, b to a * b, on a sheet of one row for each digit of b."""

from functools import cached_property
from typing import ClassVar

import numpy as np

from lengthwise.tasks.framing import END
from lengthwise.tasks.near import Cell, Field, Symbol, number
from lengthwise.tasks.transducer import Segment
from lengthwise.tasks.worksheet import Worksheet


class Multiplication(Worksheet):
    """`0123*45` is 5535. Row r is what stands above it, without its last digit, plus a times digit r of b.

    A cell holds a digit and the carry into the next column. The product is the last digit of every row,
    and then the rest of the last row.
    """

    name = "multiplication"
    segments = (Segment("a", "operand"), Segment("*", "symbol"), Segment("b", "operand"))
    axes: ClassVar = {"a": "c", "b": "r"}
    slant = 1
    zeros: ClassVar = {"a": 1}  # so that no row is longer than a
    follows = ("a[c]", "b[r]", "sheet[r-1,c+1].digit", "sheet[r,c-1].carry")
    example = ("123*45", "5535")

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        return Field("digit", self.base), Field("carry", self.base)

    def cell(self, *seen: Symbol) -> Cell:
        a, b, above, before = seen
        if b is None:
            return END
        if a is None:
            return ";"
        carry, digit = divmod(int(a) * int(b) + number(above) + number(before), self.base)
        return digit, carry

    def answer(self, rows: list[np.ndarray]) -> list[int]:
        digits = [int(row[0, 0]) for row in rows[:-1]]
        return digits + rows[-1][:, 0].tolist()
