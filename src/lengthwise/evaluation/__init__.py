"""Exact match by length and by size, with intervals; and where mistakes are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from lengthwise.arguments import as_whole, as_wholes
from lengthwise.errors import InputError
from lengthwise.evaluation import exact_match, sheets
from lengthwise.evaluation.curve import LengthCurve, Score
from lengthwise.evaluation.shares import Ask, Question, answering, ask_all
from lengthwise.problems.sizes import Size
from lengthwise.runs.elsewhere import from_values
from lengthwise.runs.run import Run

# More problems of a length than anyone waits for; their digits have to fit the memory, too.
_MOST_SAMPLES = 10_000_000


def measure(
    run: Run,
    at: Iterable[int | Size],
    *,
    suites: Iterable[str] | None = None,
    samples: int | None = None,
    seed: int | None = None,
    workers: int = 1,
    on_progress: Callable[[Score], object] | None = None,
    keep: Callable[[LengthCurve], object] | None = None,
) -> LengthCurve:
    """Measure exact match on test problems of exactly these lengths, or of a task of sheets these sizes.

    Operands are padded by no more than the answer needs; those of a model that learned one width, or one
    size, also to that (`Run.paddings`). The problems depend on the seed, the suite and the length.

    Args:
        at: digits; of sheets sizes, 20 is 20 x 20 there.
        suites: `uniform`, `carry`, or both (see `suite_problems`); of sheets `uniform` and `hard`.
        samples: problems of each length; by default 1000, 200 past 100 digits, 20 from 10,000 on and
            4 from 100,000 on.
        seed: of the test problems; the run's own by default.
        workers: processes of this machine, of one thread each, that share the problems; the scores are the
            same for any number of them, but for their seconds.
        on_progress: called with each score.
        keep: called with what was measured where the measurement does not end; what ended it is raised
            again. Where it can't be kept, that is said on stderr.

    Raises:
        InputError: for lengths and sizes that can't be asked.
    """
    questions = questions_of(run, at, suites, samples, seed)
    begin = "lengthwise.evaluation:begin"
    return ask_all(run, questions, _asker(run), begin, workers, on_progress, keep)


def begin(values: dict[str, Any]) -> Callable[[Any], dict[str, Any]]:
    """Another process's part of `measure`."""
    return answering(_asker(from_values(values)))


def _asker(run: Run) -> Ask:
    return sheets.SheetAsker(run) if run.config.is_sheet else exact_match.ColumnAsker(run)


def questions_of(
    run: Run,
    at: Iterable[int | Size],
    suites: Iterable[str] | None,
    samples: int | None,
    seed: int | None,
) -> list[Question]:
    """What `measure` asks; all is checked before anything is drawn."""
    evaluation, suites = run.config.evaluation, None if suites is None else list(suites)
    each: Callable[..., int]
    count_of: Callable[..., int]
    if run.config.is_sheet:
        sizes = [size if isinstance(size, Size) else Size(size, size) for size in at]
        for size in sizes:
            run.check_size(size)
        kinds, count_of, each = ("uniform", "hard"), evaluation.samples_of, sheets.share
    else:
        sizes = as_wholes("lengths", at)
        if max(sizes) > run.longest:
            raise InputError(f"lengths must be at most {run.longest}, got {max(sizes)}")
        kinds, count_of, each = ("uniform", "carry"), evaluation.samples_at, exact_match.share
    samples = None if samples is None else as_whole("samples", samples, 1, _MOST_SAMPLES)
    seed = run.config.seed if seed is None else as_whole("seed", seed)
    return [
        Question(suite, name, padding, count, seed, each(run, size, padding, count))
        for size in sizes
        for name in [str(size) if isinstance(size, Size) else size]
        for count in [samples or count_of(size)]
        for suite in (kinds if suites is None else suites)
        for padding in run.paddings(size)
    ]


__all__ = ["measure", "questions_of"]
