"""The protocol of tasks that are written down as a sheet: rows of cells, each from its neighbourhood.

A person multiplies two long numbers row by row, and each digit follows from a few others: those above it,
the one written last, a digit of either number. `Worksheet.cell` is that rule, and the whole definition:
data, truth, the list of local contexts and the suites of hard problems are all derived from it.
"""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from lengthwise.errors import InputError
from lengthwise.tasks.framing import END, START
from lengthwise.tasks.transducer import DIGITS, FEW_PROBLEMS, Segment, Transducer

# What stands where there is no token.
CLOSED = 255

# A sight, and what a cell may be: a separator or the end, or a value for each field.
Symbol = int | str | None
Cell = tuple[int, ...] | str

# Before tokens of the second field, of the third, and so on.
_MARKS = "'\"`~"

_NEAR = re.compile(r"(?P<segment>\w+|\W)(?:\[(?P<place>[^]]*)\](?:\.(?P<field>\w+))?)?")
_OFFSET = re.compile(r"(?P<axis>[rc])(?P<steps>[+-]\d+)?")


@dataclass(frozen=True)
class Field:
    """A part of every cell: one token each.

    Attributes:
        name: of the field.
        size: its values are 0 to size - 1.
    """

    name: str
    size: int


@dataclass(frozen=True)
class Near:
    """A token as seen from a cell: `a[c]`, `b[r-1]`, `sheet[r-1,c+1].digit`.

    Attributes:
        segment: of the source, or `sheet`.
        row, column: how far from the cell's own; None where the segment has no such axis.
        field: of a cell of the sheet.
    """

    segment: str
    row: int | None = None
    column: int | None = None
    field: str = ""

    @classmethod
    def parse(cls, text: str) -> Near:
        """Read what `str` gives.

        Raises:
            ValueError: for other text.
        """
        match = _NEAR.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text!r} is no token near a cell, such as a[c] or sheet[r-1,c+1].digit"
            )
        steps: dict[str, int] = {}
        for part in (match["place"] or "").replace(" ", "").split(",") if match["place"] else ():
            offset = _OFFSET.fullmatch(part)
            if offset is None or offset["axis"] in steps:
                raise ValueError(f"{text!r} names no place such as [c], [r-1] or [r-1,c+1]")
            steps[offset["axis"]] = int(offset["steps"] or 0)
        return cls(match["segment"], steps.get("r"), steps.get("c"), match["field"] or "")

    def __str__(self) -> str:
        place = ",".join(
            f"{axis}{steps:+d}" if steps else axis
            for axis, steps in (("r", self.row), ("c", self.column))
            if steps is not None
        )
        return (
            self.segment
            + (f"[{place}]" if place else "")
            + (f".{self.field}" if self.field else "")
        )

    def moved(self, row: int, column: int) -> Near:
        """What the cell so many rows and columns further sees there."""
        return Near(
            self.segment,
            None if self.row is None else self.row + row,
            None if self.column is None else self.column + column,
            self.field,
        )


class Worksheet(ABC):
    """A task that is written as rows of cells, each from its neighbourhood.

    Coordinates are counters of what has been written: a cell's column counts the cells since the last
    separator, its row the separators. A separator stands in the cell after its row's last.

    Attributes:
        name: the registry name.
        segments: the source text from left to right; an operand lies along the axis `axes` names.
        axes: of each operand, `c` for one digit in each column, `r` for one in each row.
        fields: of a cell, in the order in which they are written.
        separators: what may end a row.
        follows: what `cell` is given: tokens near the cell. Where there is none, it is given None, and of a
            separator its text.
        slant: columns by which each row stands further left than the one above, where people lay it out.
        zeros: leading zeros that are written before each operand, where any.
        parameters, bases, example, settings: as of a `Transducer`.
        length: columns and rows that are enough, by default, to learn the task from.
    """

    name: ClassVar[str]
    segments: ClassVar[tuple[Segment, ...]]
    axes: ClassVar[Mapping[str, Literal["r", "c"]]]
    separators: ClassVar[tuple[str, ...]] = (";",)
    follows: ClassVar[tuple[str, ...]]
    slant: ClassVar[int] = 0
    zeros: ClassVar[Mapping[str, int]] = {}
    parameters: ClassVar[dict[str, int | str]] = {}
    example: tuple[str, str]
    bases: ClassVar[Sequence[int]] = (10, *range(2, 10), *range(11, len(DIGITS) + 1))
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

    def __init__(self, base: int | None = None) -> None:
        base = self.bases[0] if base is None else base
        if base not in self.bases:
            raise ValueError(f"base of {self.name} must be from 2 to {len(DIGITS)}, got {base}")
        self.base = base

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base={self.base})"

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

    @cached_property
    def nears(self) -> tuple[Near, ...]:
        """`follows`, parsed."""
        return tuple(map(Near.parse, self.follows))

    operands = Transducer.operands
    symbols = Transducer.symbols
    parse = Transducer.parse
    objection = Transducer.objection

    @cached_property
    def fixed(self) -> list[int]:
        """The operands of one digit: none."""
        return []

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The vocabulary: digits, of later fields with a mark, symbols, separators, start and end."""
        names = [*DIGITS[: max(self.base, self.fields[0].size)], *self.symbols]
        if len(self.fields) > 1 + len(_MARKS):
            raise InputError(
                f"cells of {self.name} have {len(self.fields)} fields, {1 + len(_MARKS)} at most"
            )
        for mark, field in zip(_MARKS, self.fields[1:], strict=False):
            names += [mark + DIGITS[value] for value in range(field.size)]
        return (*names, *self.separators, START, END)

    @cached_property
    def first_token(self) -> tuple[int, ...]:
        """The token of value 0 of each field."""
        first = [0, *[0] * (len(self.fields) - 1)]
        place = max(self.base, self.fields[0].size) + len(self.symbols)
        for number, field in enumerate(self.fields[1:], start=1):
            first[number], place = place, place + field.size
        return tuple(first)

    def token(self, text: str) -> int:
        """The token of a symbol, a separator, the start or the end."""
        return self.tokens.index(text)

    @cached_property
    def alphabets(self) -> tuple[tuple[tuple[int, Symbol], ...], ...]:
        """Of each token near a cell what it may be: tokens, with what `cell` is given for them."""
        names = [field.name for field in self.fields]
        found = []
        for near in self.nears:
            values: list[tuple[int, Symbol]] = [(CLOSED, None)]
            if near.segment != SHEET:
                values += [(digit, digit) for digit in range(self.base)]
            else:
                number = names.index(near.field)
                first = self.first_token[number]
                values += [(first + value, value) for value in range(self.fields[number].size)]
                if not number:
                    values += [(self.token(text), text) for text in self.separators]
            found.append(tuple(values))
        return tuple(found)

    @cached_property
    def table(self) -> np.ndarray:
        """`cell` as tokens, uint8 `[field, sight, ...]`: each axis is one of `alphabets`, in its order.

        Of a separator or the end, the first field is that token and the others are closed.

        Raises:
            InputError: for a `cell` that gives what is no cell.
        """
        shape = [len(values) for values in self.alphabets]
        found = np.full((len(self.fields), *shape), CLOSED, np.uint8)
        for index in np.ndindex(*shape):
            seen = [values[i][1] for values, i in zip(self.alphabets, index, strict=True)]
            try:
                cell = self.cell(*seen)
            except Exception as error:  # a user's rule may raise anything
                raise InputError(
                    f"the rule of {self.name} writes nothing where it sees {seen}: {error!r}"
                ) from error
            if isinstance(cell, str):
                if cell not in (*self.separators, END):
                    raise InputError(
                        f"the rule of {self.name} writes {cell!r} where it sees {seen}"
                    )
                found[(0, *index)] = self.token(cell)
                continue
            for number, (field, value) in enumerate(zip(self.fields, cell, strict=True)):
                if value not in range(field.size):
                    raise InputError(
                        f"the rule of {self.name} writes {value!r} as {field.name} where it sees {seen}; "
                        f"its values are 0 to {field.size - 1}"
                    )
                found[(number, *index)] = self.first_token[number] + value
        return found

    def read(self, answer: Sequence[int]) -> str:
        """An answer as a person writes it: most significant digit first, no leading zeros."""
        return "".join(DIGITS[digit] for digit in reversed(answer)).lstrip("0") or "0"


SHEET, LAST = "sheet", "last"
