"""A sheet of one's own, and the end of what is known of own tasks."""

from __future__ import annotations

import inspect
from functools import cached_property

import lengthwise as lw
from lengthwise import tasks


class Odometer(lw.Worksheet):
    """As in docs/tasks.md."""

    segments = (lw.Segment("a", "operand"), lw.Segment("+", "symbol"), lw.Segment("b", "operand"))
    axes = {"a": "c", "b": "r"}  # noqa: RUF012
    follows = ("a[c]", "b[r]", "sheet[r-1,c].digit", "sheet[r,c-1].carry")
    example = ("97+855", "15")

    @cached_property
    def fields(self):
        return lw.Field("digit", self.base), lw.Field("carry", 2)

    def cell(self, *seen):
        wheel, steps, above, carry = seen
        if steps is None:
            return "$"
        if wheel is None:
            return ";"
        shown = above if isinstance(above, int) else wheel
        carry, digit = divmod(shown + (steps if carry is None else carry), self.base)
        return digit, carry

    def answer(self, rows):
        return rows[-1][:, 0].tolist()


# The same as a file of a person's own.
ODOMETER = (
    "from functools import cached_property\nimport lengthwise as lw\n\n\n"
    + inspect.getsource(Odometer)
)


def forget_own_tasks() -> None:
    """As in a new process, which knows the package's tasks alone."""
    for home in (tasks.TASKS, tasks.WORKSHEETS):
        for name in [name for name in home if tasks.is_own(name)]:
            del home[name]
    tasks.make_task.cache_clear()
