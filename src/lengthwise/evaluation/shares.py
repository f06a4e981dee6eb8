"""An evaluation in shares of its problems, on this process or on several of this machine.

The shares are the same however many processes there are, so that the scores are, too.
"""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Protocol

import numpy as np

from lengthwise.errors import InputError
from lengthwise.evaluation.curve import LengthCurve, Score, wilson
from lengthwise.runs.elsewhere import computing_with, to_values
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
    size: Any
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
        split: that they are of.
        where: length, width and padding as a score has them; of sheets rows.
        seconds: that it took, the drawing of all problems included where it is their first.
    """

    right: list[int]
    worst: float
    split: str
    where: dict[str, Any]
    seconds: float = 0.0


class Ask(Protocol):
    """Asks one kind of problems."""

    def draw(self, question: Question) -> tuple[np.ndarray, str]:
        """All problems of a question, uint8 `[problem, operand, place]`, and the split that they are of."""
        ...

    def answer(self, question: Question, problems: np.ndarray, split: str) -> Answered:
        """What becomes of some of them."""
        ...


def ask_all(
    run: Run,
    questions: Sequence[Question],
    ask: Ask,
    begin: str,
    workers: int,
    on_progress: Callable[[Score], object] | None,
    keep: Callable[[LengthCurve], object] | None,
) -> LengthCurve:
    """Ask all questions, a score each.

    Args:
        run: whose model answers.
        ask: draws, and answers shares in this process.
        begin: what makes another process answer likewise, by `answering`.
        workers, on_progress, keep: as of `measure`.
    """
    found: list[Score] = []
    with closing(_scores(run, questions, ask, begin, workers)) as scores:
        try:
            for score in scores:
                found.append(score)
                if on_progress is not None:
                    on_progress(score)
        except BaseException:
            if keep is not None and found:
                try:
                    keep(LengthCurve(found))
                except (InputError, OSError) as error:
                    print(f"lengthwise: what was measured is not kept: {error}", file=sys.stderr)
            raise
    return LengthCurve(found)


def _scores(
    run: Run, questions: Sequence[Question], ask: Ask, begin: str, workers: int
) -> Generator[Score]:
    shares = sum(-(-question.count // question.each) for question in questions)
    workers = min(workers, shares)
    with ExitStack() as stack:
        answers: Iterator[dict[str, Any]]
        if workers > 1:
            stack.enter_context(computing_with(1))
            pool = stack.enter_context(Workers(workers, answering(ask), begin, to_values(run)))
            # One process draws. It goes on answering meanwhile, or the others would run out of shares.
            ahead = ThreadPoolExecutor(1)
            stack.callback(ahead.shutdown, wait=False, cancel_futures=True)
            answers = pool.answers(_drawn(ask, questions, ahead))
        else:
            answers = map(answering(ask), _drawn(ask, questions))
        for question in questions:
            parts = [Answered(**next(answers)) for _ in range(0, question.count, question.each)]
            yield _score(run, question, parts)


def _drawn(
    ask: Ask, questions: Sequence[Question], ahead: Executor | None = None
) -> Iterator[dict[str, Any]]:
    """Shares as JSON values, with their problems: one process draws all of a question.

    Args:
        ask, questions: as of `ask_all`.
        ahead: draws a question's problems while those of the one before are handed out.
    """

    def draw(question: Question) -> tuple[np.ndarray, str, float]:
        began = time.thread_time()
        return *ask.draw(question), time.thread_time() - began

    coming = None
    for question, following in zip_longest(questions, questions[1:]):
        problems, split, seconds = draw(question) if coming is None else coming.result()
        if ahead is not None and following is not None:
            coming = ahead.submit(draw, following)
        for first in range(0, question.count, question.each):
            some = np.ascontiguousarray(problems[first : first + question.each], np.uint8)
            yield {
                "question": vars(question),
                "problems": base64.b64encode(some.tobytes()).decode(),
                "shape": some.shape,
                "split": split,
                "seconds": 0.0 if first else seconds,
            }


def answering(ask: Ask) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What answers a share of JSON values with such."""

    def answer(share: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        digits = np.frombuffer(base64.b64decode(share["problems"]), np.uint8)
        problems = digits.reshape(share["shape"]).copy()
        found = ask.answer(Question(**share["question"]), problems, share["split"])
        seconds = share["seconds"] + time.perf_counter() - began
        return {**vars(found), "seconds": seconds}

    return answer


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
