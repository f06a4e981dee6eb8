"""The protocol of tasks that are written down as a sheet: rows of cells, each from its neighbourhood.

A person multiplies two long numbers row by row, and each digit follows from a few others: those above it,
the one written last, a digit of either number. `Worksheet.cell` is that rule, and the whole definition:
data, truth, the list of local contexts and the suites of hard problems are all derived from it.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from lengthwise.errors import InputError
from lengthwise.own_code import told
from lengthwise.tasks.framing import END, START
from lengthwise.tasks.near import BEFORE, CLOSED, SHEET, Axis, Cell, Field, Near, Symbol
from lengthwise.tasks.transducer import DIGITS, FEW_PROBLEMS, Task

# Before tokens of the second field, of the third, and so on.
_MARKS = "'\"`~"

# Rows of a rule's table; what is larger is asked sight by sight.
LARGEST_TABLE = 250_000


def sheet_settings(
    first: tuple[int, int],
    second: tuple[int, int],
    *sizes: str,
    problems: int = 256,
    widths: str = "fixed",
    **training: float,
) -> dict[str, dict[str, Any]]:
    """Settings of a worksheet other than multiplication.

    Args:
        first, second: columns and rows of the first and the second training; the second is on all smaller
            sizes, too, for what a list of one key shows, no longer one does.
        sizes: that are evaluated.
        problems: that are looked at in a capture.
        widths: of the first training.
        training: what else the first has of its own.
    """
    usual, names = Worksheet.settings, ("columns", "rows")
    return {
        "data": {**usual["data"], **dict(zip(names, first, strict=True)), "widths": widths},
        "training": {**usual["training"], **training},
        "retraining": {
            **usual["retraining"],
            **dict(zip(names, second, strict=True)),
            "widths": "varied",
        },
        "calibration": {"problems": problems},
        "evaluation": {**usual["evaluation"], "sizes": sizes},
    }


class Worksheet(Task):
    """A task that is written as rows of cells, each from its neighbourhood.

    Coordinates are counters of what has been written: a cell's column counts the cells since the last
    separator, its row the separators. A separator stands in the cell after its row's last.

    Attributes:
        axes: of each operand, `c` for one digit in each column, `r` for one in each row; `r-1,c` for one
            that is row -1, which is seen in the first row alone, `r,c-1` for one that is column -1.
        counters: letters that take the place of `r`, of rows that are counted by separators of some kinds.
        from_left: operands whose digits are counted from the left; of others the last is the first.
        fields: of a cell, in the order in which they are written.
        main: the field that people read first, where that is not the first.
        separators: what may end a row.
        follows: what `cell` is given: tokens near the cell. Where there is none, it is given None, and of a
            separator its text. `before` is what was written before the cell.
        numbers: whether rows are numbers, which people write with the first cell on the right.
        endless: whether a sheet may have no end: then as many rows are asked for as a problem's size says.
        varies: whether sheets of problems of one size differ in length.
        slant: columns by which each row stands further left than the one above, where people lay it out.
        zeros: leading zeros that are written before each operand, where any.
        from_zero: the parameters that may be 0.
    """

    axes: ClassVar[Mapping[str, str]]
    counters: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    from_left: ClassVar[frozenset[str]] = frozenset()
    main: ClassVar[str] = ""
    separators: ClassVar[tuple[str, ...]] = (";",)
    follows: ClassVar[tuple[str, ...]]
    numbers: ClassVar[bool] = True
    endless: ClassVar[bool] = False
    varies: ClassVar[bool] = False
    slant: ClassVar[int] = 0
    zeros: ClassVar[Mapping[str, int]] = {}
    from_zero: ClassVar[frozenset[str]] = frozenset()
    length: ClassVar[int] = 3
    settings: ClassVar[dict[str, dict[str, Any]]] = {
        "data": {"carry_fraction": 0.0},
        "training": {"exact_match": 0.9, "loss": 0.03, "cooldown_steps": 400},
        "retraining": {
            "carry_fraction": 0.5,
            "dropout": 0.0,
            "columns": 4,
            "rows": 4,
            "exact_match": 0.95,
            "loss": 5e-3,
            "cooldown_steps": 1000,
            "worst_loss": 0.5,  # whether all contexts are right is for the proof to say
        },
        "evaluation": {"suites": ("uniform", "hard"), "sizes": ("3x3", "6x6", "20x20", "100x100")},
    }

    # What every task is asked: a worksheet is local, whatever its size, and no answer of it grows.
    writes: ClassVar[None] = None
    growth: ClassVar[int] = 0

    @classmethod
    def defaults(cls, base: int) -> dict[str, dict[str, Any]]:
        """As `Transducer.defaults`.

        Where there are few problems at all, a model learns them by heart unless it is kept from it.
        Contexts grow with the fourth power of the base, and the rate of the second training must fall more
        slowly (docs/log.md, 2026-11-26, "sixty-four sheets" and "the rarest neighbourhood").
        """
        found = copy.deepcopy(cls.settings)
        few = base ** (2 * cls.length) < FEW_PROBLEMS
        found["data"] = {"length": cls.length + few, **found.get("data", {})}
        if few:
            found["model"] = {"dropout": 0.1, **found.get("model", {})}
        if base > cls.bases[0]:
            found["retraining"]["cooldown_steps"] = 2500
        return found

    @property
    @abstractmethod
    def fields(self) -> tuple[Field, ...]:
        """The fields of a cell."""

    @abstractmethod
    def cell(self, *seen: Symbol) -> Cell:
        """What stands in a cell that sees this: a value of each field, a separator, or the end."""

    @abstractmethod
    def answer(self, rows: list[np.ndarray]) -> list[int]:
        """The digits of the answer, least significant first, of rows of cells `[column, field]`."""

    def admit(
        self, rng: np.random.Generator, operands: list[np.ndarray], *, begin: bool = False
    ) -> list[np.ndarray]:
        """Turn random digits, of each operand uint8 `[problem, place]`, into problems; most are.

        Args:
            rng: the generator of the problems.
            operands: the digits.
            begin: whether a process begins where a person would begin it, rather than anywhere.
        """
        return operands

    def room(self, columns: int, rows: int) -> tuple[int, int]:
        """Columns and rows that sheets of problems of this size may have: more than any right one."""
        return columns + sum(self.zeros.values()) + 2, rows + 2

    @cached_property
    def nears(self) -> tuple[Near, ...]:
        """`follows`, parsed."""
        return tuple(map(Near.parse, self.follows))

    def axis(self, operand: str) -> Axis:
        """How an operand is counted."""
        return Axis.parse(self.axes[operand])

    @cached_property
    def _blocks(self) -> tuple[tuple[str, ...], dict[str, int]]:
        """The vocabulary, and where the values of fields and operands begin in it."""
        lead = self.fields[0]
        tokens = [*(lead.texts or DIGITS[: max(self.base, lead.size)])]
        first, plain = {lead.name: 0}, len(tokens)
        tokens += self.symbols
        if len(self.fields) > 1 + len(_MARKS):
            raise InputError(
                f"cells of {self.name} have {len(self.fields)} fields, {1 + len(_MARKS)} at most"
            )
        for mark, field in zip(_MARKS, self.fields[1:], strict=False):
            first[field.name] = len(tokens)
            tokens += [mark + text for text in field.texts or DIGITS[: field.size]]
        for segment in self.operands:
            texts = [*self.texts(segment.name)]
            known = tokens[: min(len(texts), plain)] == texts
            first[segment.name] = 0 if known else len(tokens)
            tokens += [] if known else texts
        tokens += [*self.separators, START, END]
        twice = [text for text in dict.fromkeys(tokens) if tokens.count(text) > 1]
        if twice or len(tokens) >= CLOSED:
            what = f"has two tokens {twice[0]!r}" if twice else f"has {len(tokens)} tokens"
            raise InputError(
                f"{self.name} {what}; they are all different, and at most {CLOSED - 1}"
            )
        return tuple(tokens), first

    @property
    def tokens(self) -> tuple[str, ...]:
        """The vocabulary: values of the first field, symbols, marked values of others, separators."""
        return self._blocks[0]

    @cached_property
    def first_token(self) -> tuple[int, ...]:
        """The token of value 0 of each field."""
        return tuple(self._blocks[1][field.name] for field in self.fields)

    def first_digit(self, operand: str) -> int:
        """The token of value 0 of an operand."""
        return self._blocks[1][operand]

    def token(self, text: str) -> int:
        """The token of a symbol, a separator, the start or the end."""
        return self.tokens.index(text)

    def alphabet(self, near: Near) -> list[tuple[int, Symbol]]:
        """What a token near a cell may be: tokens, with what `cell` is given for them."""
        names = [field.name for field in self.fields]
        marks: list[tuple[int, Symbol]] = [(self.token(text), text) for text in self.separators]
        if near.segment == BEFORE:
            first = self.first_token[-1]
            ends = [(first + value, value) for value in range(self.fields[-1].size)]
            return [(self.token(START), None), *ends, *marks]
        values: list[tuple[int, Symbol]] = [(CLOSED, None)]
        if near.segment != SHEET:
            first = self.first_digit(near.segment)
            return values + [(first + v, v) for v in range(len(self.texts(near.segment)))]
        number = names.index(near.field)
        first = self.first_token[number]
        values += [(first + value, value) for value in range(self.fields[number].size)]
        return values if number else values + marks

    @cached_property
    def alphabets(self) -> tuple[tuple[tuple[int, Symbol], ...], ...]:
        """`alphabet` of each token that the rule follows from."""
        return tuple(tuple(self.alphabet(near)) for near in self.nears)

    @cached_property
    def sights(self) -> int:
        """What a cell might see, if everything could stand beside everything."""
        return math.prod(map(len, self.alphabets))

    def written(self, seen: Sequence[Symbol]) -> tuple[int, ...]:
        """`cell` as tokens, one for each field; of a separator or the end that, then closed.

        Raises:
            InputError: for a `cell` that gives what is no cell.
        """
        try:
            cell = self.cell(*seen)
        except Exception as error:  # a user's rule may raise anything
            raise InputError(
                f"the rule of {self.name} writes nothing where it sees {list(seen)}: {told(error)}"
            ) from error
        if isinstance(cell, str):
            if cell not in (*self.separators, END):
                raise InputError(
                    f"the rule of {self.name} writes {cell!r} where it sees {list(seen)}"
                )
            return (self.token(cell), *[CLOSED] * (len(self.fields) - 1))
        for field, value in zip(self.fields, cell, strict=True):
            if value not in range(field.size):
                raise InputError(
                    f"the rule of {self.name} writes {value!r} as {field.name} where it sees {list(seen)}; "
                    f"its values are 0 to {field.size - 1}"
                )
        return tuple(first + value for first, value in zip(self.first_token, cell, strict=True))

    @cached_property
    def table(self) -> np.ndarray:
        """`written` of all that `alphabets` allow, in their order, uint8 `[field, sight, ...]`."""
        shape = [len(values) for values in self.alphabets]
        found = np.empty((len(self.fields), *shape), np.uint8)
        for index in np.ndindex(*shape):
            seen = [values[i][1] for values, i in zip(self.alphabets, index, strict=True)]
            found[(slice(None), *index)] = self.written(seen)
        return found

    def read(self, answer: Sequence[int]) -> str:
        """An answer as a person writes it: most significant digit first, no leading zeros."""
        return "".join(DIGITS[digit] for digit in reversed(answer)).lstrip("0") or "0"
