"""Problems to tokens and back: the vocabulary, and where each segment lies at a given width."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lengthwise.tasks import DIGITS, FRAME, Transducer

START, END = FRAME


@dataclass(frozen=True)
class Vocabulary:
    """Characters are tokens: the digits of the base, then the task's symbols, then start and end."""

    base: int
    symbols: tuple[str, ...]

    @cached_property
    def characters(self) -> str:
        return DIGITS[: self.base] + "".join(self.symbols) + START + END

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
    """Where a segment lies in a sequence: positions start to stop - 1."""

    start: int
    stop: int
    grows: bool


class Layout:
    """How a problem of a task lies in the source and target sequences at one width.

    The source holds the segments from left to right, operands padded with zeros on the left to
    `width` digits, most significant first: `0123+0748`. The target is read one row at a time: row i
    takes the token before (`^` for row 0) and writes the digit of significance i; row `width` writes
    the end token. So row i writes *column* i, and the digit of significance j of an operand that
    lies at `[start, stop)` is at position stop - 1 - j.

    Args:
        task: the task.
        width: digits an operand is padded to, at least 1.
    """

    def __init__(self, task: Transducer, width: int) -> None:
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.task, self.width = task, width
        self.vocabulary = Vocabulary(task.base, task.symbols)
        spans, position = {}, 0
        for segment in task.segments:
            stop = position + (width if segment.grows else 1)
            spans[segment.name] = Span(position, stop, segment.grows)
            position = stop
        self.source_spans: dict[str, Span] = spans
        self.source_length = position
        self.target_length = width + 1
        self.target_spans: dict[str, Span] = {"answer": Span(0, self.target_length, True)}

    @property
    def stride(self) -> int:
        """Keys of the source that one column of digits takes: one."""
        return 1

    def spans(self, site: str) -> dict[str, Span]:
        """The segments of the keys that attention at this site (`self` or `cross`) reads."""
        return self.target_spans if site == "self" else self.source_spans

    def keys(self, site: str) -> int:
        """The number of keys at this site."""
        return self.target_length if site == "self" else self.source_length

    def source(self, operands: np.ndarray) -> Tensor:
        """Source tokens `[problem, source_length]` of digits `[problem, operand, width]`."""
        parts, index = [], 0
        for segment in self.task.segments:
            if segment.kind == "symbol":
                token = self.vocabulary.index(segment.name)
                parts.append(np.full((len(operands), 1), token, np.uint8))
                continue
            digits = operands[:, index]
            parts.append(digits[:, ::-1] if segment.grows else digits[:, :1])
            index += 1
        return torch.from_numpy(np.concatenate(parts, axis=1).astype(np.int64))

    def target(self, answers: np.ndarray) -> Tensor:
        """Target tokens `[problem, width + 2]`: start, the answer, end.

        All but the last are what the model reads, all but the first what it should write.
        """
        tokens = np.empty((len(answers), self.width + 2), np.int64)
        tokens[:, 0] = self.vocabulary.start
        tokens[:, 1:-1] = answers
        tokens[:, -1] = self.vocabulary.end
        return torch.from_numpy(tokens)

    def batch(self, operands: np.ndarray) -> tuple[Tensor, Tensor]:
        """Source and target tokens of a batch of problems, with the true answers."""
        return self.source(operands), self.target(self.task.answer(operands))

    def text(self, tokens: Tensor) -> str:
        """One row of tokens as characters."""
        return "".join(self.vocabulary.characters[token] for token in tokens.tolist())


def digits_of(task: Transducer, parts: list[str], width: int) -> np.ndarray:
    """Digits `[1, operand, width]`, least significant first, of operands written as text."""
    digits = np.zeros((1, len(parts), width), np.uint8)
    for index, (segment, text) in enumerate(zip(task.operands, parts, strict=True)):
        values = [DIGITS.index(character) for character in reversed(text)]
        digits[0, index, : len(values)] = values
        if segment.kind == "digit":
            digits[0, index] = values[0]
    return digits
