"""Addition: a, b to a + b."""

from lengthwise.tasks.transducer import Segment, Transducer


class Addition(Transducer):
    """`0123+0748` is 871, written `1780` (least significant digit first). The state is the carry."""

    name = "addition"
    segments = (Segment("a", "operand"), Segment("+", "symbol"), Segment("b", "operand"))
    growth = 1
    example = ("123+748", "871")

    def step(self, state: int, *column: int) -> tuple[int, int]:
        return divmod(sum(column) + state, self.base)
