"""Multiplication by a constant: n to n times a factor that is the same for all problems."""

from typing import ClassVar

from lengthwise.tasks.transducer import Segment, Transducer, digits_needed


class MultiplyBy(Transducer):
    """With the factor 7, `0123` is 861, written `1680` (least significant digit first).

    The state is the carry, up to one less than the factor.

    Args:
        factor: the constant, from 2 to 1000.
    """

    name = "multiply_by"
    segments = (Segment("a", "operand"),)
    parameters: ClassVar = {"factor": 7}

    def __init__(self, base: int | None = None, factor: int = 7) -> None:
        super().__init__(base)
        if not 2 <= factor <= 1000:
            raise ValueError(f"factor of {self.name} must be from 2 to 1000, got {factor}")
        self.factor = self.states = factor
        self.example = ("123", str(123 * factor))
        self.growth = digits_needed(factor - 1, self.base)

    def step(self, state: int, *column: int) -> tuple[int, int]:
        return divmod(column[0] * self.factor + state, self.base)
