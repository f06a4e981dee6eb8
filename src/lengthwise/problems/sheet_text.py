"""A written sheet as a person lays it out: the most significant digit left, each row where it counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lengthwise.problems.wavefront import Written
from lengthwise.tasks import Worksheet
from lengthwise.tasks.transducer import DIGITS


class Sheet:
    """One written sheet; its `str` is the laid-out sheet.

    Attributes:
        task: the worksheet.
        operands: digits of each operand, least significant first.
        rows: of each row the values of its cells, int64 `[column, field]`, least significant first.
        answer: what is read from it, or None where it has no end.
    """

    def __init__(
        self,
        task: Worksheet,
        operands: Sequence[np.ndarray],
        rows: Sequence[np.ndarray],
        answer: str | None,
    ) -> None:
        self.task, self.rows, self.answer = task, list(rows), answer
        self.operands = list(operands)

    @classmethod
    def of(cls, written: Written, operands: Sequence[np.ndarray], problem: int = 0) -> Sheet:
        """The sheet of one problem."""
        rows, task = written.values(problem), written.task
        answer = task.read(task.answer(rows)) if written.ended[problem] and rows else None
        return cls(task, [digits[problem] for digits in operands], rows, answer)

    def __repr__(self) -> str:
        return f"Sheet({self.task.name}: {len(self.rows)} rows, {self.answer or 'no answer'})"

    def __str__(self) -> str:
        task, slant = self.task, self.task.slant
        widest = max([1, *(len(row) + slant * r for r, row in enumerate(self.rows))])
        along = [
            (segment.name, digits)
            for segment, digits in zip(task.operands, self.operands, strict=True)
            if task.axes[segment.name] == "r"
        ]
        lines = []
        for r, row in enumerate(self.rows):
            label = ", ".join(
                f"{name}[{r}] = {DIGITS[digits[r]]}" for name, digits in along if r < len(digits)
            )
            text = " ".join(map(_digit, row[::-1, 0])) + "  " * (slant * r)
            rest = "   ".join(
                f"{field.name} {' '.join(map(_digit, row[::-1, place]))}"
                for place, field in enumerate(task.fields[1:], start=1)
            )
            lines.append((label, text, rest))
        left = max([0, *(len(label) for label, _, _ in lines)])
        out = [
            f"{label:<{left}}  {text:>{2 * widest}}   {rest}".rstrip()
            for label, text, rest in lines
        ]
        answer = "no answer" if self.answer is None else " ".join(self.answer)
        return "\n".join([*out, f"{'':<{left}}  {answer:>{2 * widest}}".rstrip()])

    def _repr_html_(self) -> str:
        return f"<pre>{self}</pre>"


def _digit(value: int) -> str:
    """A value as people write it; what can't stand there, and nothing, is a question mark."""
    return DIGITS[value] if 0 <= value < len(DIGITS) else "?"
