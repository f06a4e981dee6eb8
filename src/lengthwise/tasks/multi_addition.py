"""Addition of several numbers: k operands to their sum."""

from functools import cached_property
from typing import ClassVar

import numpy as np

from lengthwise.tasks.transducer import Segment, Transducer, digits_needed

# Entries of the tables of a task, one for every state and column.
_LARGEST_TABLE = 1_000_000


class MultiAddition(Transducer):
    """`0123+0748+0999` is 1870, written `0781` (least significant digit first).

    The state is the carry, up to one less than the operands.

    Args:
        operands: how many numbers are added, at least 2.
    """

    name = "multi_addition"
    parameters: ClassVar = {"operands": 3}
    # A head for each digit of two columns. With one layer a row can't ask earlier rows for the sums that
    # they saw: it must read the column before itself, which makes its cone small (docs/log.md).
    settings: ClassVar = {"model": {"heads": 8, "layers": 1}}

    def __init__(self, base: int | None = None, operands: int = 3) -> None:
        super().__init__(base)
        most = max(k for k in range(2, 10) if k == 2 or k * self.base**k <= _LARGEST_TABLE)
        if not 2 <= operands <= most:
            raise ValueError(
                f"operands of {self.name} must be from 2 to {most} in base {self.base}, got {operands}"
            )
        numbers = (123, 748, 999, 100, 200, 300, 400, 500, 600)[:operands]
        self.example = ("+".join(map(str, numbers)), str(sum(numbers)))
        letters = "abcdefghi"[:operands]
        pieces = [Segment(letters[0], "operand")]
        for place, letter in enumerate(letters[1:], start=1):
            # The character repeats, and the names of segments must not.
            name = "+" if place == 1 else f"+{place}"
            pieces += [Segment(name, "symbol", "+"), Segment(letter, "operand")]
        self.segments = tuple(pieces)
        self.states = operands
        self.growth = digits_needed(operands - 1, self.base)

    @cached_property
    def _by_sum(self) -> tuple[np.ndarray, np.ndarray]:
        """Columns, each as one number, in the order of their sums; how many there are of each sum."""
        sums = np.indices((self.base,) * len(self.operands)).sum(axis=0).ravel()
        return np.argsort(sums, kind="stable"), np.bincount(sums)

    def enrich(
        self, rng: np.random.Generator, operands: np.ndarray, lengths: np.ndarray
    ) -> np.ndarray:
        """In a quarter of the problems every column has a uniform sum.

        Random digits hardly ever add up to the least or the largest sum: three nines come once in a
        thousand columns, and after a carry of 2 once in six thousand.
        """
        chosen = np.flatnonzero(rng.random(len(operands)) < 0.25)
        order, counts = self._by_sum
        total = rng.integers(0, len(counts), (len(chosen), operands.shape[2]))
        column = order[(counts.cumsum() - counts)[total] + rng.integers(0, counts[total])]
        inside = np.arange(operands.shape[2]) < lengths[chosen, None]
        for index in reversed(range(len(self.operands))):
            column, digit = np.divmod(column, self.base)
            operands[chosen, index] = np.where(inside, digit, 0)
        return operands

    def step(self, state: int, *column: int) -> tuple[int, int]:
        return divmod(sum(column) + state, self.base)
