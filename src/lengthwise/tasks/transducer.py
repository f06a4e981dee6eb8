"""The protocol that every task follows: a sequential transducer over aligned columns.

A task reads one column of digits at a time from the least significant end, keeps a small state (the
carry) and writes one symbol. `Transducer.step` is the whole definition: data, truth, the list of
local contexts, and the suites of hard problems are all derived from it.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from lengthwise.errors import InputError
from lengthwise.own_code import told

# Of fewer numbers a model keeps a table in mind, and attends to no columns (docs/log.md, 2026-11-26,
# "sixty-four numbers").
FEW_PROBLEMS = 10_000

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Segment:
    """One piece of the source text.

    Attributes:
        name: for an operand a letter, for a symbol the character itself; no two segments share one.
        kind: `operand` grows with the width of the problem, `digit` is an operand of one digit that
            every column reads, `symbol` is a fixed character.
        character: of a symbol, where it is not the name.
    """

    name: str
    kind: Literal["operand", "digit", "symbol"]
    character: str = ""

    @property
    def text(self) -> str:
        """The character of a symbol."""
        return self.character or self.name

    @property
    def grows(self) -> bool:
        """Whether the segment is as wide as the problem (otherwise it is one symbol)."""
        return self.kind == "operand"


class Task(ABC):
    """What every task is, one of a pass over columns (`Transducer`) or of a sheet (`Worksheet`).

    Attributes:
        name: the registry name.
        segments: the source text from left to right.
        parameters: what defines the task besides its base, by names (of settings, and of arguments of its
            constructor), each with its default: a number from 1 up, or a text.
        example: an expression in base 10 (or the only base) with its answer, for help texts.
        bases: the bases that the task allows, the default first.
        length: digits that are enough, by default, to learn the task from; of sheets columns and rows.
        settings: other settings that the task has its own defaults of, nested, such as the model's.
    """

    name: ClassVar[str]
    segments: tuple[Segment, ...]
    parameters: ClassVar[dict[str, int | str]] = {}
    example: tuple[str, str]
    bases: ClassVar[Sequence[int]] = (10, *range(2, 10), *range(11, len(DIGITS) + 1))
    length: ClassVar[int]
    settings: ClassVar[dict[str, dict[str, Any]]] = {}

    def __init__(self, base: int | None = None) -> None:
        base = self.bases[0] if base is None else base
        if base not in self.bases:
            allowed = f"from 2 to {len(DIGITS)}" if len(self.bases) > 1 else str(self.bases[0])
            raise ValueError(f"base of {self.name} must be {allowed}, got {base}")
        self.base = base

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base={self.base})"

    @property
    def letters(self) -> str:
        """The character of each digit, that of value 0 first."""
        return DIGITS[: self.base]

    @cached_property
    def operands(self) -> tuple[Segment, ...]:
        """The segments that hold digits, in the order in which a column lists them."""
        return tuple(segment for segment in self.segments if segment.kind != "symbol")

    @cached_property
    def fixed(self) -> list[int]:
        """The places of the operands of one digit among all."""
        return [place for place, segment in enumerate(self.operands) if not segment.grows]

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """The fixed characters of the source text, each once."""
        return tuple(dict.fromkeys(s.text for s in self.segments if s.kind == "symbol"))

    def texts(self, operand: str) -> tuple[str, ...]:
        """What a digit of an operand can be: texts, that of value 0 first."""
        return tuple(self.letters)

    @cached_property
    def _spelling(self) -> tuple[dict[str, str], frozenset[str], bool]:
        """The characters of each operand, all that an expression may hold; whether capitals are small."""
        letters = {segment.name: "".join(self.texts(segment.name)) for segment in self.operands}
        allowed = "".join(dict.fromkeys([*"".join(letters.values()), *self.symbols]))
        lowers = allowed == allowed.lower()
        # Of ASCII alone: `lower` turns other scripts' letters into these too (the Kelvin sign into k).
        either = allowed + allowed.upper() if lowers else allowed
        return letters, frozenset(either), lowers and either != allowed

    def parse(self, expression: str) -> list[str]:
        """Split an expression such as `12+3` into its operands' digits, most significant first.

        Raises:
            InputError: in one sentence, what is wrong and what a right expression looks like.
        """
        text = "".join(expression.split())
        hint = f"{self.name} takes expressions like {self.example[0]!r}"
        if not text:
            raise InputError(f"empty expression; {hint}")
        shown = repr(text if len(text) <= 40 else f"{text[:30]}...{text[-7:]}")
        letters, either, lowers = self._spelling
        if not either.issuperset(text):
            position, character = next(
                (place, own) for place, own in enumerate(text) if own not in either
            )
            raise InputError(
                f"unexpected {character!r} at position {position + 1} of {shown}; {hint}"
            )
        text = text.lower() if lowers else text
        parts, position = [], 0
        for segment in self.segments:
            if segment.kind == "symbol":
                if text[position : position + 1] != segment.text:
                    raise InputError(f"{shown} lacks {segment.text!r}; {hint}")
                position += 1
                continue
            end = len(text) - len(text[position:].lstrip(letters[segment.name]))
            if end == position:
                raise InputError(f"{shown} has no digits for operand {segment.name}; {hint}")
            if segment.kind == "digit" and end - position != 1:
                raise InputError(f"operand {segment.name} of {shown} must be one digit; {hint}")
            parts.append(text[position:end])
            position = end
        if position != len(text):
            raise InputError(f"{shown} goes on after the last operand; {hint}")
        objection = self.objection(parts)
        if objection is not None:
            raise InputError(f"{shown} {objection}")
        return parts

    def expression(self, parts: Sequence[Sequence[str]]) -> str:
        """What `parse` takes apart, together again."""
        texts = iter(parts)
        return "".join(
            s.text if s.kind == "symbol" else "".join(next(texts)) for s in self.segments
        )

    def objection(self, parts: list[str]) -> str | None:
        """Why operands that are well written are still no problem of the task; None where they are."""
        return None


class Transducer(Task):
    """A task: alphabets, start state, step, and how the columns lie in the source text.

    Subclasses set the class attributes and write `step`. Operands and answers are arrays of digits,
    least significant first.

    Attributes:
        states: the number of states.
        start_state: the state before the first column.
        growth: digits by which an answer can be longer than the longest operand.
        writes: symbols of an answer, the last of those that `step` writes; None keeps one in every
            column. With it an answer has the same length whatever the width, and is not local.
        final_states: the states in which a problem may end; None allows all. A problem that ends in
            another (a smaller number less a larger one) is none of this task.
    """

    states: int = 2
    start_state: ClassVar[int] = 0
    growth: int
    writes: ClassVar[int | None] = None
    final_states: ClassVar[frozenset[int] | None] = None
    length: ClassVar[int] = 6

    @classmethod
    def defaults(cls, base: int) -> dict[str, dict[str, Any]]:
        """The task's own defaults of settings, nested; some follow from the base."""
        length = (
            max(cls.length, digits_needed(FEW_PROBLEMS - 1, base)) if 2 <= base < 10 else cls.length
        )
        found = copy.deepcopy(cls.settings)
        return {**found, "data": {"length": length, **found.get("data", {})}}

    @abstractmethod
    def step(self, state: int, *column: int) -> tuple[int, int]:
        """Read one column of digits; return the next state and the digit written."""

    def stepped(self, state: int, *column: int) -> tuple[int, int]:
        """As `step`, which is checked.

        Raises:
            InputError: for a `step` that fails, writes no digit of the base, or leads to no state.
        """
        try:
            after, written = (int(value) for value in self.step(state, *column))
        except Exception as error:  # a user's rule may raise anything
            raise InputError(
                f"the rule of {self.name} writes nothing where state {state} reads {list(column)}: "
                f"{told(error)}"
            ) from error
        if written not in range(self.base) or after not in range(self.states):
            raise InputError(
                f"the rule of {self.name} writes {written} and goes on in state {after} where state "
                f"{state} reads {list(column)}; digits are 0 to {self.base - 1}, states 0 to "
                f"{self.states - 1}"
            )
        return after, written

    @cached_property
    def growing(self) -> list[int]:
        """The places of a column that hold the digits of operands that grow."""
        return [place for place, segment in enumerate(self.operands) if segment.grows]

    @cached_property
    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """`step` as two lookup tables `[state, digit, ...]`: next state and digit written.

        Raises:
            InputError: as `stepped`.
        """
        shape = (self.states, *[self.base] * len(self.operands))
        next_state, written = np.zeros(shape, np.int64), np.zeros(shape, np.uint8)
        for index in np.ndindex(shape):
            next_state[index], written[index] = self.stepped(*index)
        return next_state, written

    def answer(self, operands: np.ndarray) -> np.ndarray:
        """Run the transducer over a batch of problems.

        Args:
            operands: digits `[problem, operand, column]`, least significant first; a one-digit
                operand is repeated in every column.

        Returns:
            The digits of the answers, uint8 `[problem, column]`, or only the last that the task `writes`.
        """
        answers, _ = self._run(operands)
        return answers if self.writes is None else answers[:, -self.writes :]

    def _run(self, operands: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What every column writes, `[problem, column]`, and the state after the last, `[problem]`."""
        next_state, written = (table.reshape(self.states, -1) for table in self.tables)
        column = np.zeros((operands.shape[0], operands.shape[2]), np.int64)
        for operand in range(operands.shape[1]):
            column = column * self.base + operands[:, operand]
        state = np.full(len(operands), self.start_state, np.int64)
        answers = np.empty(column.shape, np.uint8)
        for position in range(column.shape[1]):
            answers[:, position] = written[state, column[:, position]]
            state = next_state[state, column[:, position]]
        return answers, state

    @cached_property
    def propagating(self) -> np.ndarray:
        """Which columns let the state through: boolean `[digit, ...]`.

        A column propagates when the next state depends on the state before it: 9 for the successor,
        a + b = 9 for addition. Long runs of such columns are the carry chains of the hard suites.
        """
        next_state, _ = self.tables
        return (next_state != next_state[:1]).any(axis=0)

    def admit(self, operands: np.ndarray) -> np.ndarray:
        """Turn random digits `[problem, operand, column]` into problems of the task.

        By default those are kept that end in one of `final_states`; a task that has few of them makes some.
        """
        if self.final_states is None:
            return operands
        return operands[np.isin(self._run(operands)[1], [*self.final_states])]

    def enrich(
        self, rng: np.random.Generator, operands: np.ndarray, lengths: np.ndarray
    ) -> np.ndarray:
        """Make columns common in training that random digits hardly ever show, where a task has such.

        Args:
            rng: the generator of the problems.
            operands: training problems `[problem, operand, column]`.
            lengths: digits of the longest operand, `[problem]`.
        """
        return operands

    def read(self, answer: np.ndarray) -> str:
        """An answer `[column]` as a person writes it: most significant digit first, no leading zeros."""
        letters = self.letters
        text = "".join([letters[digit] for digit in answer[::-1].tolist()])
        return text.lstrip(letters[0]) or letters[0]

    def objection(self, parts: list[str]) -> str | None:
        allowed = self.final_states
        if allowed is None:
            return None
        width = max(map(len, parts)) + self.growth
        digits = np.zeros((1, len(self.operands), width), np.uint8)
        for place, (segment, part) in enumerate(zip(self.operands, parts, strict=True)):
            values = {text: value for value, text in enumerate(self.texts(segment.name))}
            digits[0, place, : len(part)] = [values[character] for character in part[::-1]]
        digits[:, self.fixed] = digits[:, self.fixed, :1]
        state = int(self._run(digits)[1][0])
        if state in allowed:
            return None
        final = ", ".join(map(str, sorted(allowed)))
        return (
            f"is no problem of {self.name}: it ends in state {state}, and problems end in {final}"
        )


def digits_needed(number: int, base: int) -> int:
    """The digits of a number in a base; none for zero."""
    digits = 0
    while number:
        number, digits = number // base, digits + 1
    return digits
