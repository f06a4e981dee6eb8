"""Where a model goes wrong: which symbols of its greedily decoded answers, and which numbers of a range.

Exact match (`exact_match.py`) says how many answers are wrong; here they are decoded, symbol by symbol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from lengthwise.decoding.greedy import greedy_decode
from lengthwise.evaluation import questions_of
from lengthwise.evaluation.exact_match import CELLS, draw_problems
from lengthwise.files import write_csv
from lengthwise.problems.layout import END, Layout
from lengthwise.problems.sampling import Suite
from lengthwise.problems.worked import answer_to
from lengthwise.runs.elsewhere import computing_with, from_values, to_values
from lengthwise.runs.run import Run
from lengthwise.settings.config import InputError
from lengthwise.tasks import DIGITS
from lengthwise.workers import Workers

# Numbers of a range that are decoded at once.
_BATCH = 512


@dataclass(frozen=True)
class Mistakes:
    """How often each symbol of the answers of one length is wrong.

    Attributes:
        length: digits of every operand.
        suite: `uniform` or `carry`.
        n: problems.
        wrong: per row, answers whose symbol there differs from the truth: row i is the digit of
            significance i, the last row the end token.
    """

    length: int
    suite: str
    n: int
    wrong: tuple[int, ...]


def count_mistakes(
    run: Run,
    lengths: Iterable[int],
    *,
    suites: Iterable[Suite] = ("uniform",),
    samples: int | None = None,
    seed: int | None = None,
) -> list[Mistakes]:
    """Decode the test problems of each length, and count wrong symbols by their place.

    The problems are those of `measure`. A symbol after the first wrong one may be wrong because of
    it: that is what a reader of the answer sees. A model that stops early leaves end tokens.

    Args:
        lengths: digits.
        suites: `uniform`, `carry`, or both.
        samples: problems of each length; by default those of the run's settings.
        seed: of the test problems; the run's own by default.
    """
    found = []
    for asked in questions_of(run, lengths, suites, samples, seed):
        if asked.padding != run.paddings(asked.size)[0]:
            continue
        layout, suite = run.layout(asked.size), cast(Suite, asked.suite)
        operands, _ = draw_problems(run, layout, suite, asked.size, asked.count, asked.seed)
        wrong = wrong_symbols(run, layout, operands).sum(dim=0)
        found.append(Mistakes(asked.size, suite, asked.count, tuple(wrong.tolist())))
    return found


@torch.inference_mode()
def wrong_symbols(run: Run, layout: Layout, operands: np.ndarray) -> torch.Tensor:
    """Which symbols of the greedily decoded answers differ from the truth, bool `[problem, row]`."""
    batch = max(1, min(256, CELLS // (layout.target_length * layout.source_length)))
    parts = []
    for first in range(0, len(operands), batch):
        source, target = layout.batch(operands[first : first + batch])
        written = greedy_decode(
            run.model, run.bias, layout, source.to(run.device), run.config.attention
        )
        parts.append(written.cpu() != target[:, 1:])
    return torch.cat(parts)


def save_mistakes(mistakes: Iterable[Mistakes], path: Path) -> None:
    """Write counts as CSV, one line for each symbol: length, suite, row, what it writes, wrong, n."""
    rows: list[tuple] = [("length", "suite", "row", "writes", "wrong", "n")]
    for one in mistakes:
        for row, wrong in enumerate(one.wrong):
            writes = END if row == len(one.wrong) - 1 else f"s{row}"
            rows.append((one.length, one.suite, row, writes, wrong, one.n))
    write_csv(path, rows)


@dataclass(frozen=True)
class RangeResult:
    """What a model answers of a range of numbers.

    Attributes:
        first, last: the range, both ends included; where a search stopped, the last number asked.
        n, correct: numbers asked, and those answered right.
        wrong: the first few that it gets wrong: the number, its answer, the truth.
    """

    first: int
    last: int
    n: int
    correct: int
    wrong: tuple[tuple[str, str, str], ...]


def check_range(
    run: Run,
    first: int,
    last: int,
    *,
    stop_at_first: bool = False,
    keep: int = 10,
    workers: int = 1,
) -> RangeResult:
    """Ask every number from `first` to `last` of a task with one operand.

    Args:
        first, last: both included.
        stop_at_first: stop at the first wrong answer.
        keep: wrong answers to report.
        workers: processes of this machine, of one thread each, that share the numbers; the result is that
            of one.

    Raises:
        InputError: for a task of several operands, or an empty range.
    """
    if len(run.task.operands) != 1:
        raise InputError(
            f"numbers from one to another are asked of tasks with one operand, not {run.task.name}"
        )
    if not 0 <= first <= last:
        raise InputError(f"a range goes up from 0 or more, got {first} to {last}")
    ask, begin = _asking(run), "lengthwise.evaluation.mistakes:begin"
    shares = range(first, last + 1, _BATCH)
    ranges = ([start, min(start + _BATCH - 1, last)] for start in shares)
    # One for each share, at most; `len` can't count those of the longest ranges.
    workers = min(workers, -(-(last + 1 - first) // _BATCH))
    asked, correct, wrong = 0, 0, []
    with ExitStack() as stack:
        answers: Iterable[list[list[Any]]] = map(ask, ranges)
        if workers > 1:
            stack.enter_context(computing_with(1))
            pool = Workers(workers, ask, begin, to_values(run))
            answers = stack.enter_context(pool).answers(ranges)
        for start, found in zip(shares, answers, strict=True):
            wrong += [tuple(texts) for _, *texts in found][: keep - len(wrong)]
            if found and stop_at_first:
                asked += found[0][0] - start + 1
                return RangeResult(first, first + asked - 1, asked, asked - 1, tuple(wrong[:1]))
            count = min(_BATCH, last + 1 - start)
            asked, correct = asked + count, correct + count - len(found)
    return RangeResult(first, last, asked, correct, tuple(wrong))


def begin(values: dict[str, Any]) -> Callable[[list[int]], list[list[Any]]]:
    """Another process's part of `check_range`."""
    return _asking(from_values(values))


def _asking(run: Run) -> Callable[[list[int]], list[list[Any]]]:
    """What asks the numbers from one to another, both included: of each that is answered wrong the number,
    its text, the answer, the truth."""
    digits = str.maketrans(DIGITS[: run.task.base], run.task.letters)

    def ask(ends: list[int]) -> list[list[Any]]:
        numbers = range(ends[0], ends[1] + 1)
        texts = [
            np.base_repr(number, run.task.base).lower().translate(digits) for number in numbers
        ]
        found = zip(numbers, texts, run.solve_many(texts), strict=True)
        told = [[*one, answer_to(run.task, run.parse(one[1]))] for one in found]
        return [one for one in told if one[2] != one[3]]

    return ask
