"""Base conversion: a number in one base, to the same number in another, by Horner's rule."""

import math
from functools import cached_property
from typing import ClassVar

import numpy as np

from lengthwise.tasks.framing import END
from lengthwise.tasks.near import Cell, Field, Symbol, number
from lengthwise.tasks.transducer import DIGITS, Segment
from lengthwise.tasks.worksheet import Worksheet, sheet_settings


class BaseConversion(Worksheet):
    """`13` is 1101 in base 2: each row is the row above times 10 plus the next digit, the first one first.

    A cell holds a digit of the target base and the carry. A row ends where nothing is above and nothing is
    carried, so rows grow. The base of the task is that of the number given.
    """

    name = "base_conversion"
    segments = (Segment("number", "operand"),)
    axes: ClassVar = {"number": "r"}
    from_left: ClassVar = frozenset(("number",))
    varies = True
    follows = ("number[r]", "sheet[r-1,c].digit", "sheet[r,c-1].carry")
    parameters: ClassVar = {"to": 2}
    example = ("13", "1101")
    settings: ClassVar = sheet_settings(
        (4, 4), (4, 4), "4x4", "6x6", "10x10", "100x100", problems=128
    )

    def __init__(self, base: int | None = None, to: int = 2) -> None:
        super().__init__(base)
        if to not in range(2, len(DIGITS) + 1):
            raise ValueError(f"{self.name} is to a base from 2 to {len(DIGITS)}, got {to}")
        self.to = to

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        return Field("digit", self.to), Field("carry", self.base)

    def cell(self, *seen: Symbol) -> Cell:
        given, above, before = seen
        if given is None:
            return END
        if before == 0 and not isinstance(above, int):
            return ";"
        carry = given if before is None else before
        carry, digit = divmod(number(carry) + self.base * number(above), self.to)
        return digit, carry

    def room(self, columns: int, rows: int) -> tuple[int, int]:
        return math.ceil(rows * math.log(self.base, self.to)) + 3, rows + 2

    def answer(self, rows: list[np.ndarray]) -> list[int]:
        return rows[-1][:, 0].tolist()
