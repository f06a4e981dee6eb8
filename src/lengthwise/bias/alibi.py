"""ALiBi: attention falls with distance, by a slope of each head's own (Press et al. 2022)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from lengthwise.bias.base import Site, Spoken, causal, distances
from lengthwise.problems.layout import Layout

Cross = Literal["none", "distance"]


def slopes(heads: int) -> Tensor:
    """The slope of each head, float32 `[head]`: 2^(-8 k / heads) for k = 1, 2, ...

    Where the number of heads is no power of two, the slopes of the power of two below it come first, then
    every second one of the power above (their published code, `get_slopes`).
    """
    below = 2 ** math.floor(math.log2(heads))
    first = [2 ** (-8 * k / below) for k in range(1, below + 1)]
    more = [2 ** (-8 * k / (2 * below)) for k in range(1, 2 * (heads - below), 2)]
    return torch.tensor(first + more)


class Alibi(Spoken):
    """Minus slope times distance, added to every open key.

    Self-attention is causal. The encoder, where a model has one, gets the symmetric form.
    Cross-attention gets nothing by default, for a row of the answer and a key of the problem lie in
    different sequences, between which no distance is defined; the same goes for the paper's code.

    Args:
        heads: attention heads.
        cross: `none`, or `distance`: minus slope times |key - row|, both counted from their starts.
    """

    def __init__(self, heads: int, cross: Cross = "none") -> None:
        self.heads, self.cross = heads, cross

    def __str__(self) -> str:
        where = " and in the problem" if self.cross == "distance" else ""
        return (
            "every head sees the whole problem and all of the answer so far, with attention that falls "
            f"with distance in the answer{where}"
        )

    def dense(self, site: Site, layer: int, layout: Layout, queries: range) -> Tensor:
        """See `AttentionBias.dense`."""
        keys = layout.keys(site)
        if site == "cross" and self.cross == "none":
            return torch.zeros(self.heads, len(queries), keys)
        bias = self._falling(keys, queries)
        return bias + causal(keys, queries) if site == "self" else bias

    def encoder(self, layout: Layout) -> Tensor:
        """See `encoder_bias`."""
        return self._falling(layout.source_length, range(layout.source_length))

    def _falling(self, keys: int, queries: range) -> Tensor:
        return slopes(self.heads)[:, None, None] * -distances(keys, queries).abs()
