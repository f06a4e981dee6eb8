"""Subtraction: a, b to a - b, where a is no less than b."""

import numpy as np

from lengthwise.tasks.transducer import Segment, Transducer


class Subtraction(Transducer):
    """`0748-0123` is 625, written `5260` (least significant digit first). The state is the borrow."""

    name = "subtraction"
    segments = (Segment("a", "operand"), Segment("-", "symbol"), Segment("b", "operand"))
    growth = 0
    final_states = frozenset({0})
    example = ("748-123", "625")

    def step(self, state: int, *column: int) -> tuple[int, int]:
        difference = column[0] - column[1] - state
        return int(difference < 0), difference % self.base

    def admit(self, operands: np.ndarray) -> np.ndarray:
        """Exchange the operands where the first is the smaller."""
        a, b = operands[:, 0, ::-1], operands[:, 1, ::-1]
        # The most significant column in which they differ decides.
        row, top = np.arange(len(a)), (a != b).argmax(axis=1)
        smaller = a[row, top] < b[row, top]
        operands[smaller] = operands[smaller][:, ::-1]
        return operands

    def objection(self, parts: list[str]) -> str | None:
        """The first operand must not be the smaller: answers have no sign."""
        a, b = (part.lstrip("0") for part in parts)
        if (len(a), a) < (len(b), b):
            return "is negative; subtraction takes a-b with a no less than b"
        return None
