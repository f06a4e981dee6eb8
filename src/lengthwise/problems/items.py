"""Problems as a sequence: each can be drawn again by its number, whatever was drawn before."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, overload

import numpy as np

from lengthwise.errors import InputError, NoProblemsError
from lengthwise.problems.format import Format
from lengthwise.problems.sampling import Split, generator, suite_problems
from lengthwise.problems.sheet_sampling import admit, of_split, suite_sheets
from lengthwise.problems.sizes import Size
from lengthwise.problems.worked import Problem, expression_of, worked

# How often a problem is drawn again where one is none that a person would write, or has no end.
_REDRAWS = 100


class Problems(Sequence[Problem]):
    """Problems with their answers. Number i follows from the arguments and i alone.

    Problem i has size i of `sizes`, counted around. Every problem belongs to one split, by its operands, as
    in training (`lengthwise.problems.sampling`); where a size has few, some
    are drawn more than once.
    A process begins where a person would begin it: a Turing machine in its start state on the first symbol;
    of tasks whose sheets may have no end, those are drawn that end within the rows of their size.

    Args:
        problems: their format.
        sizes: digits of the operands; of sheets columns and rows.
        count: how many there are.
        split: `train`, `validation` or `test`.
        seed: of all of them.
        suite: `uniform`, or of one pass `carry`, of sheets `hard`: see `suite_problems` and `suite_sheets`.
    """

    def __init__(
        self,
        problems: Format,
        sizes: Sequence[int | Size],
        *,
        count: int,
        split: Split,
        seed: int,
        suite: str = "uniform",
    ) -> None:
        self.format, self.sizes, self._count = problems, tuple(sizes), count
        self.split: Split = split
        self.seed, self.suite = seed, suite

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        some = ", ".join(map(str, self.sizes[:4])) + ", ..." * (len(self.sizes) > 4)
        return (
            f"Problems({self.format.name} in base {self.format.base}: {self._count:,} of size {some}, "
            f"{self.split}, seed {self.seed})"
        )

    @overload
    def __getitem__(self, index: int) -> Problem: ...

    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...

    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        place = operator.index(index)
        place += self._count if place < 0 else 0
        if not 0 <= place < self._count:
            raise IndexError(f"problem {index} of {self._count}")
        rng = generator(self.seed, "items", place)
        size = self.sizes[place % len(self.sizes)]
        try:
            draw = self._sheet if isinstance(size, Size) else self._line
            return replace(draw(rng, size), index=place)  # type: ignore[arg-type]
        except NoProblemsError as error:
            raise InputError(f"{error}; ask for larger ones, or for another split") from error

    def worked(self, expression: str) -> Problem:
        """Any expression of the task, with its true answer.

        Raises:
            InputError: when it is malformed; of a task whose sheets may have no end, when this one has none
                within some thousand rows.
        """
        return worked(self.format, expression)

    def _line(self, rng: np.random.Generator, length: int) -> Problem:
        options: dict[str, Any] = {"suite": self.suite, "length": length, "width": length}
        task = self.format.task
        (digits,) = suite_problems(task, rng, 1, split=self.split, **options)
        return worked(self.format, expression_of(task, digits, length))

    def _sheet(self, rng: np.random.Generator, size: Size) -> Problem:
        task, suite = self.format.task, self.suite
        for _ in range(_REDRAWS):
            drawn = suite_sheets(task, rng, 16, suite=suite, size=size, split="any")  # type: ignore[arg-type]
            drawn = admit(task, rng, drawn, size, begin=True)
            for digits in drawn[of_split(task, drawn, size, self.split)]:
                expression = expression_of(task, digits, size)
                if suite == "uniform" and task.numbers and not self._leads(digits, size):
                    continue
                with contextlib.suppress(InputError):  # it has no end within these rows
                    return worked(self.format, expression, (size.rows,))
        within = f" that ends within {size.rows} rows" if task.endless else ""
        raise NoProblemsError(
            f"the {self.split} split holds no problem of {task.name} of size {size}{within}"
        )

    def _leads(self, digits: np.ndarray, size: Size) -> bool:
        """Whether numbers that are counted from the left do not begin with a zero."""
        task = self.format.task
        return all(
            digits[place, 0] or size.of(task, segment.name) == 1
            for place, segment in enumerate(task.operands)
            if segment.name in task.from_left
        )
