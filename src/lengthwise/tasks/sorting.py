"""Sorting: a list of keys, to the same keys in order, by passes that carry the largest so far."""

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np

from lengthwise.errors import InputError
from lengthwise.tasks.framing import END
from lengthwise.tasks.near import Cell, Field, Symbol, number
from lengthwise.tasks.transducer import DIGITS, Segment
from lengthwise.tasks.worksheet import Worksheet, sheet_settings


class Sorting(Worksheet):
    """`5,2,9,1` is 1,2,5,9 (bubble sort). The first row is the list, each other one a pass over the last.

    A pass carries the largest key so far, and leaves the smaller of it and the next key behind. A cell
    holds the key left behind, and what is carried on, marked where anything was out of order so far. The
    sheet ends with the pass that finds nothing out of order.
    """

    name = "sorting"
    segments = (Segment("keys", "operand"),)
    axes: ClassVar = {"keys": "r-1,c"}
    from_left: ClassVar = frozenset(("keys",))
    numbers = False
    varies = True
    follows = ("keys[r-1,c]", "sheet[r-1,c].key", "sheet[r-1,c+1].key", "sheet[r,c-1].carried")
    example = ("5,2,9,1", "1,2,5,9")
    settings: ClassVar = sheet_settings((5, 5), (6, 6), "5x5", "6x6", "10x10", "100x100")

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        texts = DIGITS[: self.base]
        carried = (*texts, *(f"{text}!" for text in texts))
        return Field("key", self.base), Field("carried", 2 * self.base, carried)

    def cell(self, *seen: Symbol) -> Cell:
        given, above, following, left = seen
        if above is None:
            # The first row; what it carries says that there is a pass to come.
            return (given, self.base + given) if isinstance(given, int) else ";"
        disorder, carried = (0, number(above)) if left is None else divmod(number(left), self.base)
        if not isinstance(above, int):
            return ";" if disorder else END
        if not isinstance(following, int):
            return carried, disorder * self.base + carried
        disorder |= following < carried
        return min(carried, following), disorder * self.base + max(carried, following)

    def room(self, columns: int, rows: int) -> tuple[int, int]:
        return columns + 2, columns + 3

    def answer(self, rows: list[np.ndarray]) -> list[int]:
        return rows[-1][:, 0].tolist()

    def parse(self, expression: str) -> list[str]:
        keys = "".join(expression.split()).lower().split(",")
        wrong = next((key for key in keys if key not in self.texts("keys")), None)
        if wrong is not None:
            allowed = self.texts("keys")
            raise InputError(
                f"{wrong[:40]!r} is no key, which are {allowed[0]} to {allowed[-1]}; {self.name} takes "
                f"lists like {self.example[0]!r}"
            )
        return ["".join(keys)]

    def expression(self, parts: Sequence[Sequence[str]]) -> str:
        return ",".join(*parts)

    def read(self, answer: Sequence[int]) -> str:
        return ",".join(DIGITS[key] for key in answer)
