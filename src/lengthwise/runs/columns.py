"""Answers of models that write one row, column by column."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lengthwise.decoding.ways import decode_problems
from lengthwise.errors import shorten
from lengthwise.problems.layout import END, Layout, digits_of
from lengthwise.runs.answer import Answer
from lengthwise.runs.parts import check_reach

if TYPE_CHECKING:
    from lengthwise.runs.run import Run


def answer_columns(
    run: Run,
    problems: list[list[str]],
    on_progress: Callable[[int, int], object] | None = None,
) -> list[Answer]:
    """Answer problems of any lengths, side by side.

    Args:
        problems: the operands of each, as text.
        on_progress: called with the symbols written so far and their number.
    """
    lengths = [max(len(part) for part in parts) for parts in problems]
    by_length = {length: run.layout(length) for length in set(lengths)}
    layouts = [by_length[length] for length in lengths]
    answers = [Answer("", "", False)] * len(problems)
    for layout in by_length.values():
        check_reach(run.model, layout)

    def source(i: int) -> np.ndarray:
        width = layouts[i].width
        return layouts[i].source_bytes(digits_of(run.task, problems[i], width))[0]

    with torch.inference_mode():
        for i, tokens in decode_problems(
            run.model,
            run.bias,
            run.config,
            layouts,
            source,
            device=run.device,
            on_progress=on_progress or (lambda done, of: None),
        ):
            answers[i] = read_answer(run.task, layouts[i], tokens)
    return answers


def read_answer(task: Any, layout: Layout, tokens: np.ndarray) -> Answer:
    """The number that the model wrote, or that it wrote none."""
    written, digits = layout.text(torch.from_numpy(tokens)), tokens[:-1]
    if tokens[-1] == layout.vocabulary.end and (digits < task.base).all():
        return Answer(task.read(digits), written.removesuffix(END))
    return Answer(
        f"no answer: {len(digits)} digits and an end ({END}) were due, least significant digit first, "
        f"but the model wrote {shorten(written, 40)}",
        written,
        complete=False,
    )
