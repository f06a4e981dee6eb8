"""A task whose source is framed by a start and an end token, as the paper's code frames it."""

from __future__ import annotations

import copy
from functools import lru_cache

from lengthwise.tasks.transducer import Segment, Transducer

START, END = "^", "$"
FRAME = (START, END)


@lru_cache(maxsize=64)
def add_frame(task: Transducer) -> Transducer:
    """The same task with the source `^0123+0748$`. People write its expressions without the frame."""
    framed = copy.copy(task)
    segments = (Segment(START, "symbol"), *task.segments, Segment(END, "symbol"))

    def parse(expression: str) -> list[str]:
        return task.parse(expression.strip().removeprefix(START).removesuffix(END))

    # Its own source; all else, tables included, is the task's. The vocabulary has both tokens anyway.
    vars(framed).update(segments=segments, symbols=task.symbols, parse=parse)
    return framed
