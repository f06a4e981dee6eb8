"""N x 1: a number times one digit."""

from lengthwise.tasks.transducer import Segment, Transducer


class TimesDigit(Transducer):
    """`0123*6` is 738, written `8370` (least significant digit first).

    The state is the carry, up to base - 2.
    """

    name = "nx1"
    segments = (Segment("a", "operand"), Segment("*", "symbol"), Segment("d", "digit"))
    growth = 1
    example = ("123*6", "738")

    def __init__(self, base: int | None = None) -> None:
        super().__init__(base)
        self.states = self.base - 1

    def step(self, state: int, *column: int) -> tuple[int, int]:
        return divmod(column[0] * column[1] + state, self.base)
