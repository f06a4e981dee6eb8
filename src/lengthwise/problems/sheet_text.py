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
        # The field that is read first, and the others, each with its place in a cell.
        fields = list(enumerate(task.fields))
        fields.sort(key=lambda one: one[1].name != task.main)
        (place, lead), *others = fields
        order = slice(None, None, -1) if task.numbers else slice(None)
        rows = [[lead.text(value) for value in row[order, place]] for row in self.rows]
        wide = max([1, *(len(text) for row in rows for text in row)])
        lines = []
        for r, (row, texts) in enumerate(zip(self.rows, rows, strict=True)):
            line = "".join(text.rjust(1 + wide) for text in texts) + " " * ((1 + wide) * slant * r)
            rest = "   ".join(
                " ".join([field.name, *(field.text(value) for value in row[order, place])])
                for place, field in others
            )
            lines.append((self._label(r), line, rest))
        answer = "no answer" if self.answer is None else self.answer
        if task.numbers and self.answer is not None and set(answer) <= set(DIGITS):
            answer = "".join(text.rjust(1 + wide) for text in answer)
        elif not task.numbers:
            answer = " " * wide + answer
        left = max([0, *(len(label) for label, _, _ in lines)])
        widest = max([len(answer), *(len(line) for _, line, _ in lines)])
        pad = str.rjust if task.numbers else str.ljust
        out = [
            f"{label:<{left}}  {pad(line, widest)}   {rest}".rstrip() for label, line, rest in lines
        ]
        return "\n".join([*out, f"{'':<{left}}  {pad(answer, widest)}".rstrip()])

    def _label(self, row: int) -> str:
        """The digits of operands that belong to a row."""
        task, found = self.task, []
        for segment, digits in zip(task.operands, self.operands, strict=True):
            texts = task.texts(segment.name)
            if task.axis(segment.name).counter == "r" and row < len(digits) and len(texts) > 1:
                found.append(f"{segment.name}[{row}] = {texts[digits[row]]}")
        return ", ".join(found)

    def _repr_html_(self) -> str:
        return f"<pre>{self}</pre>"
