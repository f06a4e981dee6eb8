"""What an author wants to know of a task before a model is trained on it: one sentence for each check."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lengthwise.bias import OWN_TOKEN, Track
from lengthwise.errors import InputError, NoProblemsError, shorten
from lengthwise.locality import Cone, Contexts
from lengthwise.locality.patches import TooManyError, patches
from lengthwise.problems.format import Format
from lengthwise.problems.layout import digits_of
from lengthwise.problems.sampling import Split, generator, suite_problems, training_problems
from lengthwise.problems.sheet_sampling import suite_sheets, training_sheets
from lengthwise.problems.sheet_text import Sheet
from lengthwise.problems.sizes import Size, size_of
from lengthwise.problems.wavefront import true_sheets
from lengthwise.problems.worked import answer_to, significant, texts_of
from lengthwise.tasks.own import check_rule, has_rule

# Columns before the one being written that a task may read and still be called local here.
_FURTHEST = 3

# Problems of each length that are asked, and lengths.
_PROBLEMS, _LENGTHS = 200, (1, 2, 6, 20)

# Zeros on the left that must not matter.
_WIDER = 8

# Rows that a sheet without an end is written to.
_ROWS = 300

_SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes:
        name: of the check.
        good: whether all is well.
        found: what was found; where it is not well, with what to mend.
    """

    name: str
    good: bool
    found: str

    def __str__(self) -> str:
        return f"{'ok    ' if self.good else 'MEND  '}{self.name}: {self.found}"

    def to_dict(self) -> dict[str, Any]:
        """The check as JSON values."""
        return asdict(self)


def check_task(config: Any) -> list[Check]:
    """Check the task of some settings: its rule, what it answers, its problems, whether it is local.

    A task may have a method `truth`, of each operand as text to the answer as text; then the rule is
    compared with it on random problems.
    """
    task = config.make_task()
    checks = _of_sheets if config.is_sheet else _of_columns
    found: list[Check] = []
    for name, check in checks(task, config):
        try:
            good, sentence = check()
        except (InputError, ValueError) as error:
            good, sentence = False, str(error)
        found.append(Check(name, good, sentence))
        if not good and name == "rule":
            break  # all else follows from it
    return found


_Found = tuple[bool, str]
_Named = Iterator[tuple[str, Callable[[], _Found]]]


def _of_columns(task: Any, config: Any) -> _Named:
    if has_rule(task):
        yield "rule", lambda: _total(task)
    else:
        yield "rule", lambda: (True, f"none; {len(task.problems.lengths):,} problems with answers")
    yield "example", lambda: _example(task, lambda parts: answer_to(task, parts))
    if has_rule(task):
        yield "growth", lambda: _growth(task)
        if hasattr(task, "truth"):
            yield "truth", lambda: _truth(task)
    yield "problems", lambda: _problems(task, config)
    if has_rule(task):
        yield "local", lambda: _local(task)


def _total(task: Any) -> _Found:
    check_rule(task)
    columns = f"{task.base}^{len(task.operands)} columns"
    return True, f"total: {task.states} states x {columns}, each with one result"


def _example(task: Any, answer: Callable[[Any], str]) -> _Found:
    expression, wanted = task.example
    got = answer(task.parse(expression))
    if got != wanted:
        return (
            False,
            f"{expression} is {got} by the rule, and {wanted} in example; mend one of them",
        )
    return True, f"{expression} is {got}"


def _random(task: Any, length: int, split: Split = "any") -> np.ndarray:
    return suite_problems(
        task,
        generator(0, "any", length),
        _PROBLEMS,
        suite="uniform",
        length=length,
        width=length + task.growth,
        split=split,
    )


def _growth(task: Any) -> _Found:
    """Whether an answer stays what it is when operands get more zeros on the left."""
    if task.writes is not None:
        return True, f"an answer is {task.writes} symbols, whatever the length"
    asked = 0
    for length in _LENGTHS:
        for problem in _random(task, length):
            texts = _texts(task, problem)
            got, wider = answer_to(task, texts), answer_to(task, texts, more=_WIDER)
            if got != wider:
                return False, (
                    f"with growth {task.growth} the answer to {', '.join(texts)} is {got}, with more zeros "
                    f"on the left {wider}; growth is the digits that an answer has more than its operands"
                )
            asked += 1
    return True, f"{task.growth}; more zeros on the left change none of {asked:,} answers"


def _texts(task: Any, problem: np.ndarray) -> list[str]:
    """The operands of a problem `[operand, column]` as people write them."""
    return significant(task, texts_of(task, problem, problem.shape[1]))


def _truth(task: Any) -> _Found:
    drawn = (_texts(task, problem) for length in _LENGTHS for problem in _random(task, length))
    answers = ((texts, answer_to(task, texts)) for texts in drawn)
    return _compare(task, answers, f"{_LENGTHS[-1]} digits")


def _compare(task: Any, answers: Iterator[tuple[list[str], str | None]], most: str) -> _Found:
    """Problems that the rule has answered, with what `truth` answers."""
    asked = 0
    for texts, got in answers:
        wanted = str(task.truth(*texts))
        if got != wanted:
            return False, f"{', '.join(texts)} is {got} by the rule, and {wanted} by truth"
        asked += 1
    return True, f"as the rule on {asked:,} random problems of up to {most}"


def _problems(task: Any, config: Any) -> _Found:
    length = config.data.length
    counts = []
    for split in _SPLITS:
        try:
            problems = training_problems(
                task,
                generator(0, split),
                _PROBLEMS,
                length=length,
                width=length + task.growth,
                carry_fraction=config.data.carry_fraction,
                split=split,
            )
            _ = task.answer(problems)
            counts.append(len(np.unique(problems, axis=0)))
        except NoProblemsError as error:
            return False, f"{error}; longer ones (data.length) have some"
    if has_rule(task):
        for size in (n for n in (*_LENGTHS, length) if n > 2):
            _ = _random(task, size, "test")
    shown = ", ".join(f"{split} {n}" for split, n in zip(_SPLITS, counts, strict=True))
    return True, f"drawn up to {length} digits; different ones of {_PROBLEMS}: {shown}"


def _local(task: Any) -> _Found:
    if task.writes is not None:
        return False, (
            f"an answer of {task.writes} symbols depends on all of the problem; such a task is trained, "
            f"and not calibrated (writes=None keeps a symbol in every column)"
        )
    growing = [one.name for one in task.operands if one.grows]
    fixed = [one.name for one in task.operands if not one.grows]
    for furthest in range(_FURTHEST + 1):
        for written in (False, True):
            digits = [Track.along(n, -back) for n in growing for back in range(furthest + 1)]
            cone = Cone((*digits, *map(Track, fixed), *[OWN_TOKEN] * written))
            contexts = Contexts(task, cone)
            if contexts.bound() <= 50_000_000 and contexts.suffice():
                return True, f"{cone} tell every symbol; at most {contexts.bound():,} contexts"
    return False, (
        f"columns up to {_FURTHEST} before the one being written and the symbol written last do not tell "
        f"what to write: the state is not seen. Write it (as parity does), or make a worksheet of the task"
    )


def _of_sheets(task: Any, config: Any) -> _Named:
    yield "rule", lambda: _sheet_total(task)
    yield "example", lambda: _example(task, lambda parts: _sheet_answer(task, parts, config.format))
    if hasattr(task, "truth"):
        yield "truth", lambda: _sheet_truth(task, config)
    yield "problems", lambda: _sheet_problems(task, config)


def _sheet_total(task: Any) -> _Found:
    check_rule(task)
    try:
        relation = patches(task)
    except TooManyError as error:
        return (
            False,
            f"{error}, so that no proof can list what a cell sees; let a cell follow from less",
        )
    seen = {row[: len(task.nears)] for row in relation.rows}
    return True, f"total and local: a cell can see {len(seen):,} things ({', '.join(task.follows)})"


def _sheet_answer(task: Any, parts: list[str], format: Format) -> str:
    size = size_of(task, parts)
    if task.endless:
        size = Size(size.columns, _ROWS)
    return (
        _written(task, digits_of(task, parts, size.longest), format.at(size)).answer or "no answer"
    )


def _written(task: Any, digits: np.ndarray, layout: Any) -> Sheet:
    parts = layout.parts(digits)
    return Sheet.of(true_sheets(task, parts, **layout.limits), parts)


def _sheet_truth(task: Any, config: Any) -> _Found:
    def answers() -> Iterator[tuple[list[str], str | None]]:
        for size in (config.size, Size(6, 6)):
            rng, some = generator(0, "any"), _PROBLEMS // 4
            for digits in suite_sheets(task, rng, some, suite="uniform", size=size, split="any"):
                texts = ["".join(part) for part in texts_of(task, digits, size)]
                yield texts, _written(task, digits[None], config.format.at(size)).answer

    return _compare(task, answers(), "6 by 6")


def _sheet_problems(task: Any, config: Any) -> _Found:
    size, shown = config.size, []
    for split in _SPLITS[:2]:
        problems = training_sheets(
            task, generator(0, split), _PROBLEMS, size=size, large=0.0, split=split
        )
        shown.append(f"{split} {len(np.unique(problems, axis=0))}")
    layout = config.format.at(size)
    written = true_sheets(task, layout.parts(problems), **layout.limits)
    ended = float(np.mean(written.ended))
    if ended < 1 and not task.endless:
        text = layout.text(layout.source(problems[~written.ended][:1])[0])
        return False, (
            f"the sheet of {shorten(text)} has no end within {layout.limits['columns']} columns and "
            f"{layout.limits['rows']} rows; mend the rule, or give it more room (`room`)"
        )
    return True, f"drawn of {size}; different ones of {_PROBLEMS}: {', '.join(shown)}"
