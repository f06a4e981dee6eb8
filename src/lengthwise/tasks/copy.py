"""Copy: a number to itself."""

from lengthwise.tasks.transducer import Segment, Transducer


class Copy(Transducer):
    """`0123` is written `3210`: the digits from the right. There is one state."""

    name = "copy"
    segments = (Segment("a", "operand"),)
    growth = 0
    example = ("123", "123")

    @property
    def states(self) -> int:
        """One: nothing is remembered."""
        return 1

    def step(self, state: int, *column: int) -> tuple[int, int]:
        return 0, column[0]
