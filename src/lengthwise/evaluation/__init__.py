"""Exact match by length and by size, with intervals; and where mistakes are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lengthwise.evaluation.curve import LengthCurve
from lengthwise.evaluation.exact_match import evaluate_run
from lengthwise.evaluation.sheets import evaluate_sheets
from lengthwise.problems.sizes import Size
from lengthwise.runs.run import Run


def measure(run: Run, at: Iterable[int | Size], **options: Any) -> LengthCurve:
    """Measure exact match at some lengths, or of a task of sheets at some sizes; 20 is 20 x 20 there.

    Options are those of `evaluate_run` and `evaluate_sheets`.

    Raises:
        InputError: for lengths and sizes that can't be asked.
    """
    if not run.config.is_sheet:
        return evaluate_run(run, at, **options)  # type: ignore[arg-type]
    sizes = [size if isinstance(size, Size) else Size(size, size) for size in at]
    return evaluate_sheets(run, sizes, **options)


__all__ = ["measure"]
