"""A task whose source is framed by a start and an end token, as the paper's code frames it."""

from __future__ import annotations

from functools import cached_property

from lengthwise.tasks.transducer import Segment, Transducer

START, END = "^", "$"
FRAME = (START, END)


def add_frame(task: Transducer) -> Transducer:
    """The same task with the source `^0123+0748$`. People write its expressions without the frame."""
    kind = type(task)

    class Framed(kind):
        segments = (Segment(START, "symbol"), *kind.segments, Segment(END, "symbol"))

        @cached_property
        def symbols(self) -> tuple[str, ...]:
            # The vocabulary has both tokens anyway.
            return task.symbols

        def parse(self, expression: str) -> list[str]:
            return task.parse(expression.strip().removeprefix(START).removesuffix(END))

    return Framed(task.base)
