"""Long division: a / b, to quotient and remainder, by taking b away as often as it goes."""

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np

from lengthwise.tasks.framing import END
from lengthwise.tasks.near import Cell, Field, Symbol, number
from lengthwise.tasks.transducer import DIGITS, Segment
from lengthwise.tasks.worksheet import Worksheet, sheet_settings

# What a row does: shift the next digit of a in; take b away; add b back, taken away once too often.
SHIFT, TAKE, ADD = range(3)


class Division(Worksheet):
    """`1000/7` is 142 r 6. A row is what remains; which row comes next is told by the separator.

    `:` follows a row into which a digit of a was shifted, `,` one from which b was taken away, `!` one from
    which it was taken once too often, `.` one to which it was added back; a digit of a is counted by `:`.
    A cell holds what the row does, with the carry, and a digit. A digit of the quotient is how often b was
    taken away between two shifts, but for the last time, which was once too often.
    """

    name = "division"
    segments = (Segment("a", "operand"), Segment("/", "symbol"), Segment("b", "operand"))
    axes: ClassVar = {"a": "s,c-1", "b": "c"}
    counters: ClassVar = {"s": (":",)}
    from_left: ClassVar = frozenset(("a",))
    zeros: ClassVar = {"b": 1}  # so that ten times what remains fits
    separators = (":", ",", "!", ".")
    main = "digit"
    varies = True
    follows = ("a[s,c-1]", "b[c]", "sheet[r-1,c].digit", "sheet[r,c-1].doing", "before")
    example = ("1000/7", "142 r 6")
    settings: ClassVar = sheet_settings(
        (1, 3), (3, 4), "1x3", "2x3", "3x4", "10x20", "30x60", problems=128
    )

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        digits = DIGITS[: self.base]
        doing = (*digits, *(f"{mark}{borrow}" for mark in "-+" for borrow in "01"))
        return Field("doing", len(doing), doing), Field("digit", self.base)

    def cell(self, *seen: Symbol) -> Cell:
        a, b, above, left, before = seen
        if left is None:  # a row's first cell: the separator says what the row does
            does, carry = {":": TAKE, ",": TAKE, "!": ADD}.get(str(before), SHIFT), 0
            if does == SHIFT:
                if a is None:
                    return END
                carry = number(a)
        else:
            does, carry = self._doing(number(left))
        if b is None:
            return {SHIFT: ":", TAKE: "!" if carry else ",", ADD: "."}[does]
        above, b = number(above), number(b)
        if does == SHIFT:
            carry, digit = above, carry
        elif does == TAKE:
            carry, digit = int(above < b + carry), (above - b - carry) % self.base
        else:
            carry, digit = divmod(above + b + carry, self.base)
        return carry + (0 if does == SHIFT else self.base + 2 * (does == ADD)), digit

    def _doing(self, value: int) -> tuple[int, int]:
        """What a row does, and the carry, from the first field of a cell."""
        if value < self.base:
            return SHIFT, value
        does, carry = divmod(value - self.base, 2)
        return TAKE + does, carry

    def admit(
        self, rng: np.random.Generator, operands: list[np.ndarray], *, begin: bool = False
    ) -> list[np.ndarray]:
        a, b = operands
        nothing = ~b.any(axis=1)
        b[nothing, 0] = rng.integers(1, self.base, int(nothing.sum()))
        return [a, b]

    def objection(self, parts: list[str]) -> str | None:
        return None if parts[1].strip("0") else "divides by zero"

    def room(self, columns: int, rows: int) -> tuple[int, int]:
        return columns + 3, rows * (self.base + 2) + 2

    def answer(self, rows: list[np.ndarray]) -> list[int]:
        """The digits of the remainder, -1, and those of the quotient, each least significant first."""
        quotient: list[int] = []
        for row in rows:
            does, borrow = self._doing(int(row[-1, 0]))
            if does == SHIFT:
                quotient.append(0)
            elif does == TAKE and not borrow and quotient:
                quotient[-1] += 1
        return [*rows[-1][:, 1].tolist(), -1, *reversed(quotient)]

    def read(self, answer: Sequence[int]) -> str:
        cut = list(answer).index(-1)
        remainder, quotient = (
            super(Division, self).read(p) for p in (answer[:cut], answer[cut + 1 :])
        )
        return f"{quotient} r {remainder}"
