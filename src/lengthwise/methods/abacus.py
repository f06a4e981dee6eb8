"""Abacus embeddings: where a digit stands in its number (McLeish et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lengthwise.methods.base import Positions
from lengthwise.problems.layout import COLUMN
from lengthwise.problems.tokens import Extent, Tokens


@dataclass(frozen=True)
class Abacus(Positions):
    """The digits of every number have ids from 1 on, least significant first; what is no digit has 0.

    In training one shift from 0 to `max_shift` is added to all of a batch's, in an evaluation none (their
    section 3 and code, where k is `max_shift` + 1). They need numbers that are written least significant
    digit first, as our answers are; of operands we count from that digit, whichever way they are written.
    The digits of an operand that lies along the rows of a sheet are one number, those of each row another;
    a cell of several tokens counts once. Other positions, which they add, are none here.

    Attributes:
        max_shift: the largest shift.
        size: ids, as many as the largest shift and the longest number need.
    """

    name = "abacus"
    paper = "McLeish et al. 2024"
    arxiv = "2405.17399"
    needs = ("segments", "coordinates")

    max_shift: int = 99
    size: int = 1024

    def __post_init__(self) -> None:
        self.positive("size")
        if not 0 <= self.max_shift < self.size:
            raise ValueError(
                f"max_shift must be at least 0 and below size, got {self.max_shift} and {self.size}"
            )

    def draw(self, rng: np.random.Generator, problems: int, extent: Extent) -> Tensor:
        most = min(self.max_shift, self.size - 1 - max(extent.along.values()))
        return torch.tensor([[int(rng.integers(0, max(0, most) + 1))]])

    def reaches(self, extent: Extent) -> bool:
        return max(extent.along.values()) < self.size

    def ids(self, tokens: Tokens, drawn: Tensor) -> Tensor:
        place = tokens.coordinates[COLUMN]
        digit = tokens.known[COLUMN]
        for axis in tokens.coordinates:
            if axis != COLUMN:
                along = tokens.known[axis] & ~(digit & (place >= 0))  # an operand along rows
                place, digit = tokens.coordinates[axis].where(along, place), digit | along
        digit = digit & (tokens.segment >= 0) & (place >= 0)
        return (place + 1 + drawn).where(digit, 0)[None]
