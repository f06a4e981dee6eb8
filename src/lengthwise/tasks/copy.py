"""Copy: a number to itself."""

from lengthwise.tasks.transducer import Segment, Transducer


class Copy(Transducer):
    """`0123` is written `3210`: the digits from the right. There is one state."""

    name = "copy"
    segments = (Segment("a", "operand"),)
    states = 1
    growth = 0
    example = ("123", "123")

    def step(self, state: int, *column: int) -> tuple[int, int]:
        return 0, column[0]
