"""A problem with its true answer, as text: what people, and other programs, make of the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lengthwise.errors import InputError
from lengthwise.problems.format import Format
from lengthwise.problems.layout import END, digits_of
from lengthwise.problems.sheet_text import Sheet
from lengthwise.problems.sizes import Size, size_of
from lengthwise.problems.wavefront import true_sheets
from lengthwise.tasks import Transducer, Worksheet
from lengthwise.tasks.near import CLOSED

# Rows that are written of sheets that may have no end, one limit after the other, as `solve` does.
ROWS = (64, 512, 4096)


@dataclass(frozen=True)
class Problem:
    """A problem with its true answer.

    Attributes:
        expression: as a person writes it, and `Run.solve` takes it.
        answer: as `Run.solve` gives it.
        work: all that a right model writes, without the end: of one pass the symbols, least significant
            digit first; of a sheet its tokens, with spaces between them.
        rows: `work` in pieces: of a sheet a text for each row, its separator among it; else the one text.
        size: digits of the longest operand; of a sheet columns and rows.
        sheet: of a sheet what `str` lays out.
        index: where it stands among the problems that it was drawn with; -1 where it was not drawn.
    """

    expression: str
    answer: str
    work: str
    rows: tuple[str, ...] = field(repr=False)
    size: int | Size
    sheet: Sheet | None = field(default=None, compare=False, repr=False)
    index: int = -1

    @property
    def length(self) -> int:
        """Digits of the longest operand."""
        return self.size.longest if isinstance(self.size, Size) else self.size


def worked(problems: Format, expression: str, rows: Sequence[int] = ROWS) -> Problem:
    """An expression with its true answer, by the task's rule.

    Args:
        problems: their format.
        expression: as a person writes it.
        rows: of a sheet that may have no end, limits that are tried in this order.

    Raises:
        InputError: when the expression is malformed, or its sheet has no end within the limits.
    """
    task = problems.task
    parts = significant(task, task.parse(expression))
    if not isinstance(task, Worksheet):
        length = max(len(part) for part in parts)
        layout = problems.at(length + task.growth)
        digits = digits_of(task, parts, layout.width)
        answer = task.answer(digits)
        work = layout.text(layout.target(answer)[0, 1:]).removesuffix(END)
        return Problem(expression, task.read(answer[0]), work, (work,), length)
    size = size_of(task, parts)
    for most in rows if task.endless else [size.rows]:
        layout = problems.at(Size(size.columns, most))
        digits = digits_of(task, parts, layout.width)
        written = true_sheets(task, layout.parts(digits), **layout.limits)
        if written.ended[0]:
            sheet = Sheet.of(written, layout.parts(digits))
            break
    else:
        raise InputError(f"{task.name} of {expression[:40]!r} has no end within {rows[-1]} rows")
    hidden = [CLOSED, task.token(END)]
    lines = [row[~np.isin(row, hidden)] for row in written.cells[0, : written.rows[0] + 1]]
    every = tuple(" ".join(task.tokens[token] for token in line) for line in lines if len(line))
    return Problem(expression, sheet.answer or "", " ".join(every), every, size, sheet)


def answer_to(task: Transducer, parts: Sequence[str], more: int = 0) -> str:
    """The answer to operands, as people write both; with so many more zeros on the left than they need."""
    digits = digits_of(task, parts, max(map(len, parts)) + task.growth + more)
    return task.read(task.answer(digits)[0])


def significant(task: Transducer | Worksheet, parts: Sequence[Any]) -> list[Any]:
    """Operands without zeros on the left; lists, which are counted from the left, as they are."""
    lists, zero = getattr(task, "from_left", ()), task.letters[0]
    return [
        part
        if segment.name in lists
        else (part if isinstance(part, str) else "".join(part)).lstrip(zero) or zero
        for segment, part in zip(task.operands, parts, strict=True)
    ]


def texts_of(
    task: Transducer | Worksheet, operands: np.ndarray, size: int | Size
) -> list[list[str]]:
    """Digits as people write them, zeros on the left kept.

    Args:
        operands: digits `[operand, place]`, least significant first, of lists in their order.
        size: of the problem.
    """
    parts = []
    for segment, digits in zip(task.operands, operands.tolist(), strict=True):
        texts = task.texts(segment.name)
        length = size.of(task, segment.name) if isinstance(size, Size) else size  # type: ignore[arg-type]
        own = [texts[digit] for digit in digits[: length if segment.grows else 1]]
        parts.append(own if segment.name in getattr(task, "from_left", ()) else own[::-1])
    return parts


def expression_of(task: Transducer | Worksheet, operands: np.ndarray, size: int | Size) -> str:
    """What `parse` takes apart, of digits as of `texts_of`; without zeros on the left, but of lists."""
    return task.expression(significant(task, texts_of(task, operands, size)))
