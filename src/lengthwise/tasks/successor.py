"""Successor: n to n + 1."""

from lengthwise.tasks.transducer import Segment, Transducer


class Successor(Transducer):
    """`0199` is followed by 200, written `0020` (least significant digit first).

    The state is the carry, which starts at 1.
    """

    name = "successor"
    segments = (Segment("a", "operand"),)
    start_state = 1
    growth = 1
    example = ("199", "200")

    def step(self, state: int, *column: int) -> tuple[int, int]:
        return divmod(column[0] + state, self.base)
