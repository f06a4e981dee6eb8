"""Randomized positions: an ordered sample of many ids, under another scheme (Ruoss et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lengthwise.methods.base import Encoding, Positions
from lengthwise.problems.tokens import Extent, Tokens


@dataclass(frozen=True)
class Randomized(Positions):
    """Of `max_position` ids as many are drawn as there are tokens, and given out in ascending order.

    Problem and answer are one sequence here, as they are to a model without cross-attention: one sample for
    both, the problem first. A batch shares one, as in their code; they draw in evaluations, too, where ours
    is always the same one for a number of tokens, so that an answer can be given again.

    Attributes:
        max_position: L in the paper, 2048 there.
        under: the scheme that turns ids into vectors, or into turns of queries and keys.
    """

    name = "randomized"
    paper = "Ruoss et al. 2023"
    arxiv = "2305.16843"
    needs = ("lengths",)

    max_position: int = 2048
    under: Encoding = "sinusoidal"

    def __post_init__(self) -> None:
        self.positive("max_position")

    @property
    def encoding(self) -> Encoding:  # type: ignore[override]  # a setting, here
        return self.under

    @property
    def size(self) -> int:
        return self.max_position

    def draw(self, rng: np.random.Generator, problems: int, extent: Extent) -> Tensor:
        count = min(extent.tokens, self.max_position)
        chosen = rng.choice(self.max_position, count, replace=False, shuffle=False)
        return torch.from_numpy(np.sort(chosen))[None]

    def fixed(self, extent: Extent) -> Tensor:
        return self.draw(np.random.default_rng(extent.tokens), 1, extent)

    def reaches(self, extent: Extent) -> bool:
        return extent.tokens <= self.max_position

    def ids(self, tokens: Tokens, drawn: Tensor) -> Tensor:
        return drawn[:, tokens.place][None]
