"""Problems to tokens and back: the vocabulary, and where each segment lies at a given width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from lengthwise.tasks import DIGITS, Transducer, Worksheet
from lengthwise.tasks.framing import END, START
from lengthwise.tasks.near import LAST, SHEET

Alignment = Literal["natural", "interleaved"]
InputOrder = Literal["normal", "reversed"]
COLUMNS = "columns"

# The segment that is written, and the axis of one row of columns: 0 for the least significant.
ANSWER, COLUMN = "answer", "c"
# The axis of rows, where a task is a sheet of many.
ROW = "r"


@dataclass(frozen=True)
class Vocabulary:
    """Characters are tokens: the digits of the base, then the task's symbols, then start and end.

    Attributes:
        base: of the numbers.
        symbols: of the task.
        letters: the digits' characters, where they are others than those of the base.
    """

    base: int
    symbols: tuple[str, ...]
    letters: str = ""

    @cached_property
    def characters(self) -> str:
        return (self.letters or DIGITS[: self.base]) + "".join(self.symbols) + START + END

    def __len__(self) -> int:
        return len(self.characters)

    def index(self, character: str) -> int:
        return self.characters.index(character)

    @property
    def start(self) -> int:
        return len(self) - 2

    @property
    def end(self) -> int:
        return len(self) - 1


@dataclass(frozen=True)
class Span:
    """Where a segment lies in a sequence: positions start, start + stride, ... up to stop - 1.

    Attributes:
        start, stop, stride: as above; start and stop may be tensors, a number for each query.
        grows: whether the segment has a token for every column; else it is one token.
        backwards: whether its columns run from the right to the left.
        first: the least column.
    """

    start: int
    stop: int
    grows: bool
    stride: int = 1
    backwards: bool = False
    first: int = 0

    @property
    def axes(self) -> tuple[str, ...]:
        """What its tokens are told apart by: their columns, where it grows."""
        return (COLUMN,) if self.grows else ()


class Number(Protocol):
    """A number that follows from coordinates."""

    def of(self, coordinates: Mapping[str, Tensor]) -> Tensor:
        """The number of each query, int64 `[query]`."""
        ...


class At(Protocol):
    """What is read, in coordinates: a track (`lengthwise.bias.tracks`)."""

    @property
    def segment(self) -> str: ...
    @property
    def place(self) -> Sequence[Number]: ...
    @property
    def field(self) -> str: ...


class Places:
    """Where tokens lie: in a layout, or in those of several queries at once.

    Attributes:
        task: a `Transducer` or a `Worksheet`.
        source_length, target_length: the numbers of keys at `cross` and at `self`.
    """

    task: Any
    source_length: int
    target_length: int

    def anchors(self, site: str) -> dict[str, Span]:
        """Where the segments lie at a site."""
        raise NotImplementedError

    def keys(self, site: str) -> int:
        """The number of keys at a site."""
        return self.target_length if site == "self" else self.source_length

    def coordinates(self, queries: Tensor) -> dict[str, Tensor]:
        """The coordinates of queries `[query]`: of each axis int64 `[query]`. Query i writes column i."""
        return {COLUMN: queries}

    def axes(self, segment: str) -> tuple[str, ...]:
        """What the tokens of a segment are told apart by."""
        return self.anchors(site_of(segment))[segment].axes

    def locate(self, track: At, queries: Tensor) -> tuple[Tensor, Tensor]:
        """The key that each query reads along a track, int64 `[query]`, and whether there is one."""
        own = self.coordinates(queries)
        place = [number.of(own) for number in track.place]
        position, inside = self.find(track.segment, place, track.field)
        return position.expand(queries.shape), inside.expand(queries.shape)

    def find(self, segment: str, place: Sequence[Tensor], field: str = "") -> tuple[Tensor, Tensor]:
        """The keys that hold the tokens of a segment at some coordinates.

        Args:
            segment: a segment of the source, or `answer`.
            place: of each of its axes int64 `[query]`.
            field: of cells of a sheet, which one.

        Returns:
            Positions int64 `[query]`, 0 where there is no such token, and where there is, bool `[query]`.
        """
        span = self.anchors(site_of(segment))[segment]
        steps = (
            span.stride * (place[0] - span.first) if place else torch.zeros((), dtype=torch.int64)
        )
        position = span.stop - 1 - steps if span.backwards else span.start + steps
        inside = torch.as_tensor((position >= span.start) & (position < span.stop))
        return torch.as_tensor(position).where(inside, 0), inside


def axes_of(task: Transducer | Worksheet) -> tuple[str, ...]:
    """The axes that tokens of a task's problems may lie along, and that queries have coordinates of."""
    return (ROW, COLUMN, *task.counters) if isinstance(task, Worksheet) else (COLUMN,)


def site_of(segment: str) -> Literal["self", "cross"]:
    """Where the tokens of a segment are read: what is written at `self`, the source's at `cross`."""
    return "self" if segment in (ANSWER, SHEET, LAST) else "cross"


class Layout(Places):
    """How a problem of a task lies in the source and target sequences at one width.

    The source holds the segments from left to right, operands padded with zeros on the left to
    `width` digits, most significant first: `0123+0748`. The target is read one row at a time: row i
    takes the token before (`^` for row 0) and writes the digit of significance i; row `width` writes
    the end token. So row i writes *column* i, and the digit in column j of an operand that lies at
    `[start, stop)` is at position stop - 1 - j. (A task that writes a fixed number of symbols has that
    many rows instead, and its rows have no columns.)

    Interleaved (paper, input alignment), the symbols come first and then the columns, in each the
    digits of all operands: `+ a_n b_n ... a_1 b_1`, for N x 1 `* a_n d ... a_1 d`. With one operand it is
    the same as natural. Reversed, operands and columns have their least significant
    digit first, and the digit in column j is at start + j.

    Args:
        width: digits an operand is padded to, at least 1.
        alignment: `natural` or `interleaved`.
        input_order: `normal` or `reversed`.

    Attributes:
        stride: keys from one digit of an operand to the next: 1, or interleaved the number of operands.
        source_spans: the pieces that the source consists of: the segments, or interleaved the
            symbols and one growing segment `columns`.
    """

    def __init__(
        self,
        task: Transducer,
        width: int,
        alignment: Alignment = "natural",
        input_order: InputOrder = "normal",
    ) -> None:
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.task, self.width = task, width
        self.input_order = input_order
        self.interleaves = alignment == "interleaved" and len(task.operands) > 1
        self.stride = len(task.operands) if self.interleaves else 1
        self.vocabulary = Vocabulary(task.base, task.symbols, task.letters)
        self.source_spans, self.source_length = self._pieces()
        # One row for each symbol of the answer, and one for the end token.
        self.target_length = (task.writes or width) + 1
        # A row reads the token of the column before its own; before column 0 stands the start token.
        self.target_spans = {ANSWER: Span(0, self.target_length, True, first=-1)}

    def __repr__(self) -> str:
        return (
            f"Layout({self.task.name} in base {self.task.base}, {self.width} digits: {self.source_length} "
            f"source tokens, {self.target_length} target tokens)"
        )

    def _pieces(self) -> tuple[dict[str, Span], int]:
        """The spans of the source's pieces from left to right, and its length."""
        spans, position = {}, 0
        for segment in self.task.segments:
            name, size, grows = segment.name, self.width if segment.grows else 1, segment.grows
            if self.interleaves and segment.kind != "symbol":
                if segment != self.task.operands[-1]:
                    continue
                # In the place of the last operand, so that what stands behind it stays behind.
                name, size, grows = COLUMNS, self.stride * self.width, True
            backwards = grows and self.input_order == "normal"
            spans[name] = Span(position, position + size, grows, backwards=backwards)
            position += size
        return spans, position

    def spans(self, site: str) -> dict[str, Span]:
        """The pieces of the keys that attention at this site (`self` or `cross`) reads."""
        return self.target_spans if site == "self" else self.source_spans

    def anchors(self, site: str) -> dict[str, Span]:
        """The pieces, and every segment of the task.

        Interleaved, an operand lies in `columns`, at every stride-th key.
        """
        spans = self.spans(site)
        if site == "self" or not self.interleaves:
            return spans
        columns = spans[COLUMNS]
        operands = {
            segment.name: replace(
                columns,
                start=columns.start + index,
                stop=columns.stop - self.stride + index + 1,
                stride=self.stride,
            )
            for index, segment in enumerate(self.task.operands)
        }
        return {**spans, **operands}

    def source(self, operands: np.ndarray) -> Tensor:
        """Source tokens `[problem, source_length]` of digits `[problem, operand, width]`."""
        return torch.from_numpy(self.source_bytes(operands).astype(np.int64))

    def source_bytes(self, operands: np.ndarray) -> np.ndarray:
        """As `source`, in an eighth of the memory: uint8."""
        ordered = operands if self.input_order == "reversed" else operands[:, :, ::-1]
        parts, index = [], 0
        for segment in self.task.segments:
            if segment.kind == "symbol":
                token = self.vocabulary.index(segment.text)
                parts.append(np.full((len(operands), 1), token, np.uint8))
                continue
            if not self.interleaves:
                parts.append(ordered[:, index] if segment.grows else operands[:, index, :1])
            elif segment == self.task.operands[-1]:
                parts.append(ordered.transpose(0, 2, 1).reshape(len(operands), -1))
            index += 1
        return np.concatenate(parts, axis=1)

    def target(self, answers: np.ndarray) -> Tensor:
        """Target tokens `[problem, target_length + 1]`: start, the answer, end.

        All but the last are what the model reads, all but the first what it should write.
        """
        tokens = np.empty((len(answers), self.target_length + 1), np.int64)
        tokens[:, 0] = self.vocabulary.start
        tokens[:, 1:-1] = answers
        tokens[:, -1] = self.vocabulary.end
        return torch.from_numpy(tokens)

    def batch(self, operands: np.ndarray) -> tuple[Tensor, Tensor]:
        """Source and target tokens of a batch of problems, with the true answers."""
        return self.source(operands), self.target(self.task.answer(operands))

    def text(self, tokens: Tensor) -> str:
        """One row of tokens as characters."""
        characters = self.vocabulary.characters
        return "".join([characters[token] for token in tokens.tolist()])


@lru_cache(maxsize=64)
def _values(letters: str) -> np.ndarray:
    """The value of each digit by its character's code, uint8."""
    codes = np.frombuffer(letters.encode("utf-32-le"), np.uint32)
    values = np.zeros(codes.max() + 1, np.uint8)
    values[codes] = np.arange(len(letters))
    return values


def digits_of(
    task: Transducer | Worksheet, parts: Sequence[Sequence[str]], width: int
) -> np.ndarray:
    """Digits `[1, operand, width]`, least significant first, of operands written as text.

    Of worksheets in the order in which they are counted; what is no digit is written as texts of its own.
    """
    digits = np.zeros((1, len(parts), width), np.uint8)
    if isinstance(task, Worksheet):
        for index, (segment, texts) in enumerate(zip(task.operands, parts, strict=True)):
            known = {text: value for value, text in enumerate(task.texts(segment.name))}
            order = texts if segment.name in task.from_left else texts[::-1]
            digits[0, index, : len(texts)] = [known[text] for text in order]
        return digits
    letters = task.letters
    known = _values(DIGITS if DIGITS.startswith(letters) else letters)
    for index, (_, text) in enumerate(zip(task.operands, parts, strict=True)):
        values = known[np.frombuffer(str(text).encode("utf-32-le"), np.uint32)[::-1]]
        digits[0, index, : len(values)] = values
    if task.fixed:
        digits[:, task.fixed] = digits[:, task.fixed, :1]
    return digits


def least_width(task: Transducer, operands: np.ndarray) -> int:
    """The width that all of these problems `[problem, operand, column]` need, with their answers."""
    used = np.flatnonzero(operands[:, task.growing].any(axis=(0, 1)))
    return (int(used[-1]) + 1 if len(used) else 1) + task.growth
