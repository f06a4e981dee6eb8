"""Decrement: n to n - 1, where n is at least 1."""

import numpy as np

from lengthwise.tasks.transducer import Segment, Transducer


class Decrement(Transducer):
    """`0200` follows 199, written `9910` (least significant digit first).

    The state is the borrow, which starts at 1.
    """

    name = "decrement"
    segments = (Segment("a", "operand"),)
    start_state = 1
    growth = 0
    final_states = frozenset({0})
    example = ("200", "199")

    def step(self, state: int, *column: int) -> tuple[int, int]:
        return int(column[0] < state), (column[0] - state) % self.base

    def admit(self, operands: np.ndarray) -> np.ndarray:
        """One in place of zero, which has no predecessor."""
        zero = ~operands[:, 0].any(axis=1)
        operands[zero, 0, 0] = 1
        return operands

    def objection(self, parts: list[str]) -> str | None:
        """Zero has no predecessor here: answers have no sign."""
        return (
            None if parts[0].strip("0") else "has no predecessor; decrement takes numbers from 1 up"
        )
