"""Exact match by length: measuring it.

An answer counts when greedy decoding writes every symbol and the end token right. That is decided in
one parallel pass: feed the true answer, and ask whether the likeliest token of every row is the true
next one. If it is, greedy decoding writes exactly that answer, by induction over rows; if some row is
wrong, greedy decoding leaves the truth at the first such row. The two are equal problem by problem
(tests/test_evaluation.py), and the pass is hundreds of times faster than decoding. Long problems of a
model whose bias consists of lines are read by their lines, some rows at a time, in bounded memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from lengthwise.decoding.any_rows import AnyRows, Streams
from lengthwise.decoding.ways import follows_lines
from lengthwise.errors import NoProblemsError
from lengthwise.evaluation.shares import Answered, Question
from lengthwise.model import plan_attention
from lengthwise.problems.layout import Layout
from lengthwise.problems.sampling import Suite, generator, suite_problems
from lengthwise.problems.sheets import IGNORED
from lengthwise.runs.run import Run
from lengthwise.settings.config import InputError
from lengthwise.settings.sections import Padding

# Rows x keys x problems that one pass may hold.
CELLS = 40_000_000

# Rows that decide most problems of a model that fails.
_PROBE = 64

# Problems with more rows than this are read by lines, where the bias has no more, so many at a time.
_LONG, _BLOCK = 2000, 2048

# Rows of a share of long problems, about.
_SHARE_ROWS = 20_000

# Stands for a loss that is infinite or no number.
_NO_LOSS = 1e6


def share(run: Run, length: int, padding: Padding, count: int) -> int:
    """Problems of a share: few enough that there are some, many enough to be read at once."""
    rows = run.layout(length, padding).target_length
    if rows > _LONG and follows_lines(run.config, run.bias):
        return max(1, _SHARE_ROWS // rows)
    return 64 if rows > 2 * _PROBE else 256


class ColumnAsker:
    """Asks a model problems of one row."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def draw(self, question: Question) -> tuple[np.ndarray, str]:
        """All problems of a question, and their split."""
        length, suite, seed = question.size, question.suite, question.seed
        layout = self.run.layout(length, question.padding)
        return draw_problems(self.run, layout, suite, length, question.count, seed)  # type: ignore[arg-type]

    def answer(self, question: Question, problems: np.ndarray, split: str) -> Answered:
        """What becomes of some of them."""
        length = question.size
        layout = self.run.layout(length, question.padding)
        right, worst = exact_matches(self.run, layout, problems)
        longer = layout.width > length + self.run.task.growth
        padding = "training" if longer else "answer"
        where = {"length": length, "width": layout.width, "padding": padding}
        return Answered(right.int().tolist(), worst, split, where)


def draw_problems(
    run: Run, layout: Layout, suite: Suite, length: int, count: int, seed: int
) -> tuple[np.ndarray, str]:
    """Test problems of a length, and the split that they come from: see `Score.split`."""
    why: Exception = AssertionError("every problem is in the split `any`")
    for split in ("test", "any"):
        rng = generator(seed, "test", 2 * length + (suite == "carry"))
        sizes = {"length": length, "width": layout.width}
        try:
            return suite_problems(run.task, rng, count, suite=suite, split=split, **sizes), split
        except NoProblemsError as error:
            why = InputError(str(error))
    raise why


@torch.inference_mode()
def exact_matches(run: Run, layout: Layout, operands: np.ndarray) -> tuple[torch.Tensor, float]:
    """Which problems greedy decoding answers right, and how near to an error the model came.

    A problem with a wrong row among the first `_PROBE` is decided; only the others are read to the end.
    Problems longer than learned positions reach are wrong, all of them.

    Args:
        layout: the task at the problems' width.
        operands: digits `[problem, operand, column]`.

    Returns:
        bool `[problem]`, and the largest loss of a symbol among the rows that were read.
    """
    if not run.model.reaches(layout):
        return torch.zeros(len(operands), dtype=torch.bool), _NO_LOSS
    if layout.target_length > _LONG and follows_lines(run.config, run.bias):
        return _match_long(run, layout, operands)
    right = np.ones(len(operands), bool)
    rows, worst = layout.target_length, 0.0
    for stop in (_PROBE, rows) if rows > 2 * _PROBE else (rows,):
        if right.any():
            each = CELLS // (stop * layout.source_length)
            worst = max(worst, read_given(run, layout, operands, right, stop, each))
    return torch.from_numpy(right), worst


@torch.inference_mode()
def read_given(
    run: Run, layout: Any, operands: np.ndarray, right: np.ndarray, stop: int, each: int
) -> float:
    """Read the first rows of problems that are `right` so far, `each` at once, true answers being given.

    One with a wrong row among them is `right` no longer. Returns the largest loss of a symbol.
    """
    plan = plan_attention(
        *(run.bias, layout, len(run.model.layers)),
        queries=range(stop),
        path=run.config.attention,
        device=run.device,
        encoder=run.model.encodes,
    )
    undecided, each, worst = np.flatnonzero(right), max(1, min(256, each)), 0.0
    for first in range(0, len(undecided), each):
        chosen = undecided[first : first + each]
        source, target = (t.to(run.device) for t in layout.batch(operands[chosen]))
        target = F.pad(target, (0, max(0, stop + 1 - target.shape[1])), value=IGNORED)
        logits = run.model(source, target[:, :stop].clamp(min=0), plan).logits
        wanted = target[:, 1 : stop + 1]
        same = (logits.argmax(dim=-1) == wanted) | (wanted == IGNORED)
        right[chosen] = same.all(dim=1).cpu().numpy()
        worst = max(worst, _worst_loss(logits.flatten(0, 1), wanted.flatten()))
    return worst


def _match_long(run: Run, layout: Layout, operands: np.ndarray) -> tuple[torch.Tensor, float]:
    """As `exact_matches`, some rows of one problem at a time."""
    streams = Streams([layout] * len(operands), list(layout.source_bytes(operands)))
    answers = streams.written.reshape(len(operands), -1)
    answers[:, :-1], answers[:, -1] = run.task.answer(operands), layout.vocabulary.end
    any_rows = AnyRows(run.model, run.bias, streams, run.device)  # type: ignore[arg-type]  # of lines
    right, worst = torch.ones(len(operands), dtype=torch.bool), 0.0
    for problem, (start, stop) in enumerate(
        zip(streams.first[:-1].tolist(), streams.first[1:].tolist(), strict=True)
    ):
        for first in range(start, stop, _BLOCK):
            rows = np.arange(first, min(first + _BLOCK, stop))
            logits = any_rows.logits(rows)
            wanted = torch.from_numpy(streams.written[rows].astype(np.int64)).to(run.device)
            worst = max(worst, _worst_loss(logits, wanted))
            if not bool((logits.argmax(dim=-1) == wanted).all()):
                right[problem] = False
                break
    return right, worst


def _worst_loss(logits: torch.Tensor, wanted: torch.Tensor) -> float:
    losses = F.cross_entropy(logits, wanted, reduction="none")
    # A broken model's losses may be no numbers; that must never look like a small loss.
    return losses.nan_to_num(nan=_NO_LOSS, posinf=_NO_LOSS).max().item()
