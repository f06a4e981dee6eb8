"""Exact match of sheets: every symbol of a sheet is judged, and its end.

A model that reads along lines writes its sheets itself, greedily (`lengthwise.decoding.sheets`). Another
is given the right sheet, as `exact_match` does: if the likeliest token is the right one everywhere, greedy
decoding writes exactly that sheet. Most wrong sheets are known by their first tokens; others are read on.
"""

from __future__ import annotations

import contextlib

import numpy as np

from lengthwise.bias import CalibratedBias
from lengthwise.decoding.sheets import SightTable, decode_sheets, make_sight_table
from lengthwise.errors import NoProblemsError
from lengthwise.evaluation.exact_match import read_given
from lengthwise.evaluation.shares import Answered, Question
from lengthwise.problems.sampling import Split, generator
from lengthwise.problems.sheet_sampling import SheetSuite, suite_sheets
from lengthwise.problems.sheets import SheetLayout
from lengthwise.problems.sizes import Size
from lengthwise.problems.wavefront import true_sheets
from lengthwise.runs.run import Run
from lengthwise.settings.config import InputError
from lengthwise.settings.sections import Padding

# Tokens that decide most sheets of a model that fails; then so many times more, until all are read.
_PROBE, _MORE = 64, 4

# Queries x keys of one pass, and tokens of the longest sheet that a model without lines is asked.
_CELLS, _LONGEST = 20_000_000, 20_000

# Tokens of sheets that are written at once.
_TOKENS = 8_000_000


def share(run: Run, size: Size, padding: Padding, count: int) -> int:
    """Sheets of a share: those that are written at once; of a model without lines all, as they are cut by
    what is still undecided."""
    if not isinstance(run.bias, CalibratedBias):
        return count
    return max(1, _TOKENS // _layout(run, size, padding).tokens_at_most)


def _layout(run: Run, size: Size, padding: Padding) -> SheetLayout:
    return run.config.layout(run.config.size if padding == "training" else size)


class SheetAsker:
    """Asks a model sheets; it keeps what the model writes."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.table = make_sight_table(run.model, run.bias, run.task, run.device)

    def draw(self, question: Question) -> tuple[np.ndarray, str]:
        """All problems of a question, and their split."""
        size, suite, seed = Size.parse(question.size), question.suite, question.seed
        problems, split = draw_sheets(self.run, suite, size, question.count, seed)  # type: ignore[arg-type]
        layout = _layout(self.run, size, question.padding)
        if layout.width > size.longest:
            wider = layout.width - size.longest
            problems = np.pad(problems, ((0, 0), (0, 0), (0, wider)))
        return problems, split

    def answer(self, question: Question, problems: np.ndarray, split: str) -> Answered:
        """What becomes of some of them."""
        size = Size.parse(question.size)
        layout = _layout(self.run, size, question.padding)
        if isinstance(self.run.bias, CalibratedBias):
            right, worst = _match_written(self.run, self.table, layout, problems)
        else:
            right, worst = _match_given(self.run, layout, problems)
        where = {"length": size.columns, "rows": size.rows, "width": layout.width}
        where |= {"padding": question.padding}
        return Answered(right.astype(int).tolist(), worst, split, where)


def draw_sheets(
    run: Run, suite: SheetSuite, size: Size, count: int, seed: int
) -> tuple[np.ndarray, str]:
    """Test problems of a size, and the split that they come from: see `Score.split`."""
    # Of the hard suite some problems are the same for every seed, so that no split may hold enough of them.
    splits: tuple[Split, ...] = ("test", "any") if suite == "uniform" else ("any",)
    stream = size.columns * 10_000_019 + 2 * size.rows + (suite == "hard")
    for split in splits:
        rng = generator(seed, "test", stream)
        with contextlib.suppress(NoProblemsError):
            return suite_sheets(run.task, rng, count, suite=suite, size=size, split=split), split
    raise AssertionError("every problem is in the split `any`")


def _match_written(
    run: Run, table: SightTable | None, layout: SheetLayout, problems: np.ndarray
) -> tuple[np.ndarray, float]:
    """Which sheets the model writes right, greedily, and the largest loss of a token that it wrote.

    Where there is no table, losses are not known, and 0 stands for them.
    """
    assert isinstance(run.bias, CalibratedBias)
    if table is not None:
        table.worst = 0.0
    truth = true_sheets(layout.task, layout.parts(problems), **layout.limits)
    written = decode_sheets(run.model, run.bias, layout, problems, device=run.device, table=table)
    return written.same_as(truth), 0.0 if table is None else table.worst


def _match_given(run: Run, layout: SheetLayout, problems: np.ndarray) -> tuple[np.ndarray, float]:
    """Which sheets a model would write right, the right ones being given."""
    right, worst = np.ones(len(problems), bool), 0.0
    length, stop = layout.target_length, _PROBE
    if layout.task.varies:
        length = layout.batch(problems)[1].shape[1] - 1
    while right.any():
        stop = min(stop, length)
        if stop > _LONGEST:
            raise InputError(
                f"sheets of {layout.size} have up to {length:,} tokens, and the model without lines is "
                f"right on some of them as far as {_LONGEST:,}; that is as far as it is asked"
            )
        if not run.model.reaches(layout, stop):
            return np.zeros(len(problems), bool), worst
        each = _CELLS // (stop * max(stop, layout.source_length))
        worst = max(worst, read_given(run, layout, problems, right, stop, each))
        if stop == length:
            break
        stop *= _MORE
    return right, worst
