"""Problems as plain rows of values: what `lengthwise export` writes, and what data sets are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from lengthwise.arguments import as_choice
from lengthwise.errors import library
from lengthwise.interop.clrs_text import clrs_text_row
from lengthwise.problems.items import Problems
from lengthwise.problems.worked import Problem


def plain_row(problems: Problems, problem: Problem, work: bool = True) -> dict[str, Any]:
    """A problem as JSON values: `Problem`'s own, and all that draws it again.

    Args:
        problems: those that it is of.
        work: whether what a right model writes is among them; of a sheet row by row.
    """
    of = problems.format
    row: dict[str, Any] = {"expression": problem.expression, "answer": problem.answer}
    if work:
        row["work"] = [*problem.rows]
    defining = {"parameters": dict(of.parameters)} if of.parameters else {}
    return {
        **row,
        **{"task": of.name, "base": of.base, **defining},
        **{"size": str(problem.size), "suite": problems.suite, "split": problems.split},
        **{"seed": problems.seed, "index": problem.index},
    }


FORMATS: dict[str, Callable[[Problems, Problem, bool], dict[str, Any]]] = {
    "jsonl": plain_row,
    "clrs-text": clrs_text_row,
}


def rows(problems: Problems, form: str = "jsonl", work: bool = True) -> Iterator[dict[str, Any]]:
    """Rows of values, one for each problem.

    Args:
        problems: from `lw.problems`.
        form: `jsonl`, or `clrs-text` (`lengthwise.interop.clrs_text`).
        work: whether they hold what a right model writes, besides the answer.

    Raises:
        InputError: for another form.
    """
    make = FORMATS[as_choice("format", form, FORMATS)]
    return (make(problems, problem, work) for problem in problems)


def to_dataset(problems: Problems, form: str = "jsonl", work: bool = True) -> Any:
    """The rows as a `datasets.Dataset`, made by its `from_generator`.

    Raises:
        InputError: as `rows`, and where datasets is not installed.
    """
    advice = "to_dataset needs datasets: pip install 'lengthwise[datasets]'; rows() needs nothing"
    datasets = library("datasets", advice)
    as_choice("format", form, FORMATS)
    given = {"problems": problems, "form": form, "work": work}
    return datasets.Dataset.from_generator(rows, gen_kwargs=given)
