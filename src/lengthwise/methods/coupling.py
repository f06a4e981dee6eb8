"""Position coupling: tokens that belong together have one id (Cho et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lengthwise.errors import InputError
from lengthwise.methods.base import Positions
from lengthwise.problems.layout import COLUMN
from lengthwise.problems.tokens import Extent, Tokens


@dataclass(frozen=True)
class Coupling(Positions):
    """One id for each axis: digits of one column share it, and of sheets those of one row another one.

    An id is a start plus the coordinate; the start is drawn for each problem and axis, in training from all
    that keep the problem within `max_position`, in an evaluation it is 1. What has no coordinate has id 0.

    `direction = "down"` is the first paper (section 3.1 and its code, `653+049=2070`): ids fall with
    significance, the first digit of the answer's number has the start, and `+`, as `=`, comes after the
    last. `up` is the second (its code for multiplication with a scratchpad): ids rise, and a separator has
    the column before its number's first digit, in that number's row. There, symbols of the source have 0;
    in problems of one row they are as `+` above. Our start token stands for `=`.

    We depart where our sheets are not theirs: a has one leading zero, a cell is two tokens of one place
    (digit and carry) that share their ids, and there is no third axis, for rows are shifted, not added up.
    Row 0 has the start plus one, as column 0 has, for some operands lie in row -1. `down` is of one row
    alone.

    Attributes:
        max_position: the largest id.
        direction: as above.
    """

    name = "coupling"
    paper = "Cho et al. 2024; Cho, Cha, Bhojanapalli, Yun 2024"
    arxiv = "2405.20671, 2410.15787"
    needs = ("coordinates", "lengths")

    max_position: int = 132
    direction: Literal["up", "down"] = "up"

    def __post_init__(self) -> None:
        self.positive("max_position")

    @property
    def size(self) -> int:
        return self.max_position + 1

    def levels(self, axes: tuple[str, ...]) -> int:
        return len(axes)

    def draw(self, rng: np.random.Generator, problems: int, extent: Extent) -> Tensor:
        last = [self.max_position - count for count in extent.along.values()]
        starts = [rng.integers(1, max(1, most) + 1, problems) for most in last]
        return torch.from_numpy(np.stack(starts, axis=1))

    def fixed(self, extent: Extent) -> Tensor:
        return torch.ones(1, len(extent.along), dtype=torch.int64)

    def reaches(self, extent: Extent) -> bool:
        return max(extent.along.values()) < self.max_position

    def ids(self, tokens: Tokens, drawn: Tensor) -> Tensor:
        found = []
        for level, (axis, count) in enumerate(tokens.extent.along.items()):
            start, place = drawn[:, level : level + 1], tokens.coordinates[axis]
            known = tokens.known[axis]
            if len(tokens.extent.along) == 1:
                place, known = place.where(~tokens.operator, -1), known | tokens.operator
            if self.direction == "down":
                if axis != COLUMN or len(tokens.extent.along) > 1:
                    raise InputError(
                        "positions.direction 'down' is of problems of one row; of sheets take 'up'"
                    )
                place = count - 2 - place
            found.append((start + 1 + place).where(known, 0))
        return torch.stack(torch.broadcast_tensors(*found))
