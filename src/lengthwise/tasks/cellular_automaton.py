"""Elementary cellular automata: a row of bits, and what it becomes, generation by generation."""

from functools import cached_property
from typing import ClassVar

import numpy as np

from lengthwise.tasks.framing import END
from lengthwise.tasks.transducer import Segment
from lengthwise.tasks.worksheet import Cell, Field, Symbol, Worksheet


class CellularAutomaton(Worksheet):
    """`0010:111` is what `0010` becomes in three generations, one for each mark; beside it all is 0.

    A cell is bit 4 l + 2 m + r of the rule's number, of its left neighbour l, itself m and its right
    neighbour r in the generation before (Wolfram 1983).

    Args:
        base: 2.
        rule: 0 to 255.
    """

    name = "cellular_automaton"
    segments = (Segment("a", "operand"), Segment(":", "symbol"), Segment("n", "operand"))
    axes: ClassVar = {"a": "c", "n": "r"}
    parameters: ClassVar = {"rule": 110}
    # Columns count from the right: the left neighbour is one column further.
    follows = (
        *("a[c+1]", "a[c]", "a[c-1]", "n[r]"),
        *("sheet[r-1,c+1].bit", "sheet[r-1,c].bit", "sheet[r-1,c-1].bit"),
    )
    example = ("0010:111", "1110")
    bases = (2,)
    length = 8
    settings: ClassVar = {
        **Worksheet.settings,
        "data": {"columns": 8, "rows": 6, "carry_fraction": 0.0},
        "model": {"dropout": 0.1},  # there are but 256 such rows
        "retraining": {**Worksheet.settings["retraining"], "columns": 8, "rows": 6},
        "evaluation": {"suites": ("uniform", "hard"), "sizes": ("6x6", "20x20", "100x100")},
    }

    def __init__(self, base: int | None = None, rule: int = 110) -> None:
        super().__init__(base)
        if not 0 <= rule <= 255:
            raise ValueError(f"rule of {self.name} must be from 0 to 255, got {rule}")
        self.rule = rule

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        return (Field("bit", 2),)

    def cell(self, *seen: Symbol) -> Cell:
        first, mark, above = seen[:3], seen[3], seen[4:]
        if mark is None:
            return END
        if seen[1] is None:
            return ";"
        # In the first row nothing is above; elsewhere the cell above is there.
        before = first if above[1] is None else above
        number = 0
        for bit in before:
            number = 2 * number + (bit if isinstance(bit, int) else 0)
        return (self.rule >> number & 1,)

    def admit(self, operands: np.ndarray) -> np.ndarray:
        operands = operands.copy()
        operands[:, 1] = 1
        return operands

    def objection(self, parts: list[str]) -> str | None:
        return None if set(parts[1]) == {"1"} else "has marks that are not 1"

    def answer(self, rows: list[np.ndarray]) -> list[int]:
        return rows[-1][:, 0].tolist()
