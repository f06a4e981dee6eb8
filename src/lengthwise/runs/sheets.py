"""Answers of models that write sheets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from lengthwise.bias import CalibratedBias
from lengthwise.decoding.greedy import decode_with_cache
from lengthwise.decoding.sheets import SightTable, decode_sheets, make_sight_table
from lengthwise.errors import shorten
from lengthwise.problems.layout import digits_of
from lengthwise.problems.sheet_text import Sheet
from lengthwise.problems.sheets import SheetLayout
from lengthwise.problems.sizes import Size, size_of
from lengthwise.problems.wavefront import Written, read_tokens
from lengthwise.problems.worked import ROWS
from lengthwise.runs.answer import Answer

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


def answer_sheets(
    run: Run,
    problems: list[list[str]],
    on_progress: Callable[[int, int], object] | None = None,
) -> list[SheetAnswer]:
    """Answer problems, each on a sheet of its own size.

    Args:
        problems: the operands of each, as text.
        on_progress: called with the steps of writing that are done, and how many there may be.
    """
    task, found = run.task, []
    table = make_sight_table(run.model, run.bias, task, run.device)
    for parts in problems:
        size = size_of(task, parts)
        learned = run.config.size
        if not isinstance(run.bias, CalibratedBias) and size.fits(learned):
            # A model without lines has learned that one; a list with more in it is another.
            size = Size(size.columns, learned.rows) if task.endless else size
            size = size if task.from_left else learned
        # Where a sheet may have no end, as many rows are written as it takes, up to a limit.
        for rows in ROWS if task.endless and isinstance(run.bias, CalibratedBias) else [size.rows]:
            layout = run.config.layout(Size(size.columns, rows))
            operands = digits_of(task, parts, layout.width)
            written = _write(run, layout, operands, table, on_progress)
            if written.ended[0] or not written.asked[0]:
                break
        sheet = Sheet.of(written, layout.parts(operands))
        work = " ".join(task.tokens[token] for token in written.tokens(0))
        if sheet.answer is None:
            limits = f"{layout.limits['rows'] + 1:,} rows of {layout.limits['columns']:,} cells"
            text = f"no answer: the model wrote no end within {limits}: {shorten(work, 40)}"
            found.append(SheetAnswer(text, work, complete=False, sheet=sheet))
        else:
            found.append(SheetAnswer(sheet.answer, work, sheet=sheet))
    return found


def _write(
    run: Run,
    layout: SheetLayout,
    operands: np.ndarray,
    table: SightTable | None,
    on_progress: Callable[[int, int], object] | None,
) -> Written:
    """What a run's model writes, greedily."""
    if isinstance(run.bias, CalibratedBias):
        return decode_sheets(
            *(run.model, run.bias, layout, operands),
            device=run.device,
            table=table,
            on_progress=on_progress,
        )
    source = layout.source(operands).to(run.device)
    with torch.inference_mode():
        tokens = decode_with_cache(run.model, run.bias, layout, source, run.config.attention)
    return read_tokens(layout.task, tokens[0].cpu().numpy(), **layout.limits)
