"""Running sums: each digit written is the sum of the digits so far; parity is the case of base 2."""

import numpy as np

from lengthwise.tasks.transducer import DIGITS, Segment, Transducer


class ModularSum(Transducer):
    """`0123` is written `3566`: the digits from the right, summed modulo the base. The state is the sum.

    The answer, as a person reads it, is the last of them: the sum of all digits.
    """

    name = "modular_sum"
    segments = (Segment("a", "operand"),)
    growth = 0
    example = ("7123", "3")

    def __init__(self, base: int | None = None) -> None:
        super().__init__(base)
        self.states = self.base

    def step(self, state: int, *column: int) -> tuple[int, int]:
        total = (state + column[0]) % self.base
        return total, total

    def read(self, answer: np.ndarray) -> str:
        """The sum of all digits."""
        return DIGITS[answer[-1]]


class Parity(ModularSum):
    """`0110` is written `0100`: the running exclusive or from the right (paper, parity with scratchpad).

    The answer, as a person reads it, is the last of them: is the count of ones odd?
    """

    name = "parity"
    example = ("0111", "1")
    bases = (2,)
    length = 16


class ParityClassification(Parity):
    """`0110` is written `0`: parity without the scratchpad (paper, parity as classification).

    The one symbol depends on all of the problem, so no bounded pattern of attention finds it.
    """

    name = "parity_classification"
    writes = 1
