"""Our tasks as data sets of reasoning-gym, and data sets of theirs put to our models.

```python
import reasoning_gym
from lengthwise.interop import reasoning_gym as ours

ours.register()  # ["lengthwise_addition", ...]
data = reasoning_gym.create_dataset("lengthwise_multiplication", size=100, seed=0, max_columns=20)
ours.evaluate("runs/multiplication", "products", max_digits=30, size=100, seed=0)
```

This module needs nothing; its functions need reasoning-gym (`pip install 'lengthwise[reasoning-gym]'`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lengthwise.api.given import SomeRun, as_run
from lengthwise.errors import InputError, library, shorten
from lengthwise.evaluation.curve import wilson

# Before the names of our data sets among theirs.
PREFIX = "lengthwise_"

# Mistakes that are kept to be looked at.
_MOST_MISTAKES = 20

# Problems that are answered side by side.
_SIDE_BY_SIDE = 256


def register() -> list[str]:
    """Make every task a data set of reasoning-gym, with a curriculum over sizes, and return their names.

    Calling it again changes nothing.

    Raises:
        InputError: where reasoning-gym is not installed.
    """
    _theirs()
    from lengthwise.interop.gym_datasets import register_all

    return register_all(PREFIX)


@dataclass(frozen=True)
class GymScore:
    """What a model made of a data set of theirs.

    Attributes:
        dataset: its name.
        asked: items that are problems of the model's task.
        left_out: items that are none: other operators, negative numbers, words.
        right: of those asked, items with the full score.
        score: mean of their own scores of those asked, by the data set's `score_answer`.
        low, high: 95 % Wilson interval of the share that is right.
        mistakes: question, answer and right answer of the first mistakes.
    """

    dataset: str
    asked: int
    left_out: int
    right: int
    score: float
    low: float
    high: float
    mistakes: tuple[tuple[str, str, str], ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.dataset}: {self.right:,} of {self.asked:,} right (95 % interval {self.low:.1%} to "
            f"{self.high:.1%}), mean score {self.score:.3f}; {self.left_out:,} items are no problems of "
            f"the task"
        )


def evaluate(
    run: SomeRun,
    dataset: Any,
    *,
    expression: Callable[[dict[str, Any]], str | None] | None = None,
    answer: Callable[[str], str] | None = None,
    **options: Any,
) -> GymScore:
    """Put the items of one of their data sets to one of our models, and score by the data set's own rule.

    An item is asked where its expression, the `expression` of its metadata, is one of the model's task:
    `12 + 34` of `basic_arithmetic` or `chain_sum` for addition, `12 * 34` of `products` for multiplication.

    Args:
        run: a run, or its folder.
        dataset: a data set of reasoning-gym, or its name.
        expression: makes the expression of an item, or None where it is to be left out.
        answer: makes of the model's answer what the data set scores, where it wants another form.
        options: of the data set, where its name is given.

    Raises:
        InputError: where reasoning-gym is not installed; for a data set that there is none, or options
            that it does not take; for a model of another base than 10, unless `expression` is given; and
            where no item is a problem of the task.
    """
    theirs, opened = _theirs(), as_run(run)
    name = dataset if isinstance(dataset, str) else type(dataset).__name__
    if isinstance(dataset, str):
        try:
            dataset = theirs.create_dataset(dataset, **options)
        except (ValueError, TypeError, AssertionError) as error:
            raise InputError(f"reasoning-gym makes no {shorten(name)!r}: {error}") from error
    elif options:
        raise InputError(
            f"options are of a data set that is named; got {', '.join(options)} besides"
        )
    if expression is None and opened.config.base != 10:
        raise InputError(
            f"their numbers are decimal, the model's in base {opened.config.base}; give expression="
        )
    asked, texts = [], []
    for index in range(len(dataset)):
        item = dataset[index]
        text = (expression or _expression)(item)
        try:
            opened.parse(text or "")
        except InputError:
            continue
        asked.append(item)
        texts.append(text)
    if not asked:
        raise InputError(f"no item of {name} is a problem of {opened.config.task}")
    answers: list[str] = []
    for start in range(0, len(texts), _SIDE_BY_SIDE):
        answers += opened.solve_many(texts[start : start + _SIDE_BY_SIDE])
    if answer is not None:
        answers = [*map(answer, answers)]
    scores = [
        float(dataset.score_answer(own, entry=item))
        for own, item in zip(answers, asked, strict=True)
    ]
    right = sum(score >= 1 for score in scores)
    low, high = wilson(right, len(asked))
    wrong = [
        (str(item["question"]), own, str(item["answer"]))
        for score, own, item in zip(scores, answers, asked, strict=True)
        if score < 1
    ]
    left_out = len(dataset) - len(asked)
    return GymScore(
        *(name, len(asked), left_out, right, sum(scores) / len(scores), low, high),
        mistakes=tuple(wrong[:_MOST_MISTAKES]),
    )


def _expression(item: dict[str, Any]) -> str | None:
    """What a data set says is the expression of an item."""
    found = item.get("metadata", {}).get("expression")
    return found if isinstance(found, str) else None


def _theirs() -> Any:
    advice = "this needs reasoning-gym: pip install 'lengthwise[reasoning-gym]'"
    return library("reasoning_gym", advice)
