"""An evaluation in shares of its problems, on this process or on several of this machine.

The shares are the same however many processes there are, so that the scores are, too.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from lengthwise.evaluation.curve import Score, wilson
from lengthwise.runs.elsewhere import one_thread, to_values
from lengthwise.runs.run import Run
from lengthwise.settings.sections import Padding
from lengthwise.workers import Workers


@dataclass(frozen=True)
class Question:
    """What one score is of: problems that are drawn alike.

    Attributes:
        suite, size, padding: of the problems; the size is digits, or of sheets `20x15`.
        count, seed: how many, and their seed.
        each: problems of a share, at most.
    """

    suite: str
    size: int | str
    padding: Padding
    count: int
    seed: int
    each: int


@dataclass(frozen=True)
class Answered:
    """What became of a share.

    Attributes:
        right: for each problem 1 or 0.
        worst: the largest loss of a symbol.
        seconds: that it took, the drawing of all problems included where it is their first.
        split: that they are of.
        where: length, width and padding as a score has them; of sheets rows.
    """

    right: list[int]
    worst: float
    seconds: float
    split: str
    where: dict[str, Any]


# Answers a share: a question, and the first of its problems.
Ask = Callable[[Question, int], Answered]


def scores_of(
    run: Run, questions: Sequence[Question], ask: Ask, begin: str, workers: int
) -> Generator[Score]:
    """Scores, one after the other.

    Args:
        run: whose model answers.
        questions: one for each score.
        ask: answers a share in this process.
        begin: what makes another process answer likewise, by `answering`.
        workers: processes.
    """
    shares = [
        (question, first)
        for question in questions
        for first in range(0, question.count, question.each)
    ]
    workers = min(workers, len(shares))
    with ExitStack() as stack:
        answers: Iterator[dict[str, Any]]
        if workers > 1:
            stack.enter_context(one_thread())
            pool = stack.enter_context(Workers(workers, answering(ask), begin, to_values(run)))
            answers = pool.answers([vars(question), first] for question, first in shares)
        else:
            answers = (vars(ask(*share)) for share in shares)
        for question in questions:
            parts = [Answered(**next(answers)) for _ in range(0, question.count, question.each)]
            yield _score(run, question, parts)


def answering(ask: Ask) -> Callable[[Any], dict[str, Any]]:
    """The same of JSON values."""
    return lambda share: vars(ask(Question(**share[0]), share[1]))


def _score(run: Run, question: Question, parts: list[Answered]) -> Score:
    right = [one for part in parts for one in part.right]
    correct, count = sum(right), len(right)
    low, high = wilson(correct, count)
    return Score(
        task=run.config.task,
        base=run.config.base,
        method=run.method,
        seed=run.config.seed,
        problem_seed=question.seed,
        suite=question.suite,
        split=parts[0].split,
        n=count,
        correct=correct,
        low=round(low, 6),
        high=round(high, 6),
        worst_loss=round(max(part.worst for part in parts), 6),
        seconds=round(sum(part.seconds for part in parts), 3),
        model=run.fingerprint,
        **parts[0].where,
    )
