"""Elementary cellular automata: cells, and a mark for each generation, to the last generation."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from lengthwise.tasks.framing import END
from lengthwise.tasks.near import Cell, Field, Symbol, number
from lengthwise.tasks.transducer import DIGITS, Segment
from lengthwise.tasks.worksheet import Worksheet, sheet_settings


class CellularAutomaton(Worksheet):
    """`00010000|||` by rule 110 is 01110000: a row for each mark, the first as given, borders 0.

    The rule's number says what follows (Wolfram's code): its binary digit 4 * left + 2 * own + right.
    """

    name = "cellular_automaton"
    segments = (Segment("cells", "operand"), Segment("generations", "operand"))
    axes: ClassVar = {"cells": "r-1,c", "generations": "r"}
    from_left: ClassVar = frozenset(("cells", "generations"))
    numbers = False
    follows = (
        "cells[r-1,c]",
        "generations[r]",
        *(f"sheet[r-1,{place}].cell" for place in ("c-1", "c", "c+1")),
    )
    parameters: ClassVar = {"rule": 110}
    from_zero: ClassVar = frozenset(("rule",))
    bases = (2,)
    example = ("00010000|||", "01110000")
    settings: ClassVar = sheet_settings(
        *((7, 4), (8, 6), "7x4", "8x12", "20x20", "100x100"), widths="rows", learning_rate=4e-3
    )

    def __init__(self, base: int | None = None, rule: int = 110) -> None:
        super().__init__(base)
        if rule not in range(256):
            raise ValueError(f"rules of {self.name} are 0 to 255, got {rule}")
        self.rule = rule

    @property
    def fields(self) -> tuple[Field, ...]:
        return (Field("cell", 2),)

    def texts(self, operand: str) -> tuple[str, ...]:
        return ("|",) if operand == "generations" else tuple(DIGITS[:2])

    def cell(self, *seen: Symbol) -> Cell:
        given, generation, left, above, right = seen
        if generation is None:
            return END
        if above is None:  # the first row, or past the end of the one above
            return ";" if not isinstance(given, int) else (given,)
        if not isinstance(above, int):
            return ";"
        code = 4 * number(left) + 2 * above + number(right)  # past the border 0
        return (self.rule >> code & 1,)

    def answer(self, rows: list[np.ndarray]) -> list[int]:
        return rows[-1][:, 0].tolist()

    def read(self, answer: Sequence[int]) -> str:
        return "".join(map(str, answer))
