"""Answers of models that write sheets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from lengthwise.bias import CalibratedBias
from lengthwise.decoding.greedy import decode_with_cache
from lengthwise.decoding.sheets import decode_sheets, make_sight_table
from lengthwise.errors import shorten
from lengthwise.problems.layout import digits_of
from lengthwise.problems.sheet_text import Sheet
from lengthwise.problems.sheets import SheetLayout, Size
from lengthwise.problems.wavefront import read_tokens
from lengthwise.runs.answer import Answer
from lengthwise.tasks import Worksheet

if TYPE_CHECKING:
    from lengthwise.runs.run import Run


@dataclass(frozen=True, repr=False)
class SheetAnswer(Answer):
    """An answer, with the sheet from which it was read.

    Attributes:
        sheet: the sheet; its `str` is laid out as a person would.
    """

    sheet: Sheet | None = field(default=None, compare=False)

    @property
    def shown(self) -> str:
        """The sheet, laid out."""
        return "\n".join(f"  {line}" for line in str(self.sheet or "").splitlines())


def size_of(task: Worksheet, parts: list[str]) -> Size:
    """The size of a problem whose operands are written as text."""
    columns, rows = 1, 1
    for segment, part in zip(task.operands, parts, strict=True):
        if task.axis(segment.name).by_column:
            columns = max(columns, len(part))
        else:
            rows = max(rows, len(part))
    return Size(columns, rows)


def answer_sheets(
    run: Run,
    problems: list[list[str]],
    on_progress: Callable[[int, int], object] | None = None,
) -> list[SheetAnswer]:
    """Answer problems, each on a sheet of its own size.

    Args:
        run: the run.
        problems: the operands of each, as text.
        on_progress: called with the steps of writing that are done, and how many there may be.
    """
    task, found = run.task, []
    table = make_sight_table(run.model, run.bias, task, run.device)
    for parts in problems:
        size = size_of(task, parts)
        if not isinstance(run.bias, CalibratedBias) and size.fits(run.config.size):
            size = run.config.size  # a model without lines has learned that one
        layout: SheetLayout = run.config.layout(size)
        operands = digits_of(task, parts, size.longest)
        if isinstance(run.bias, CalibratedBias):
            written = decode_sheets(
                *(run.model, run.bias, layout, operands),
                device=run.device,
                table=table,
                on_progress=on_progress,
            )
        else:
            source = layout.source(operands).to(run.device)
            with torch.inference_mode():
                tokens = decode_with_cache(
                    run.model, run.bias, layout, source, run.config.attention
                )
            written = read_tokens(task, tokens[0].cpu().numpy(), **layout.limits)
        sheet = Sheet.of(written, layout.parts(operands))
        work = " ".join(task.tokens[token] for token in written.tokens(0))
        if sheet.answer is None:
            text = (
                f"no answer: the sheet of {size} should end after {size.rows} rows, but the model wrote no "
                f"end within {layout.limits['rows']} rows of {layout.limits['columns']} cells: "
                f"{shorten(work, 40)}"
            )
            found.append(SheetAnswer(text, work, complete=False, sheet=sheet))
        else:
            found.append(SheetAnswer(sheet.answer, work, sheet=sheet))
    return found
