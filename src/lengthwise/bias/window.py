"""Windowed attention: Attention Bias Scaffolding, drawn by hand (paper, section on ABS)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lengthwise.bias.base import CLOSED, OpenKeys, Site, Spoken, closed_where, distances
from lengthwise.problems.layout import Layout

Sides = Literal["both", "left", "right", "code"]


class Window(Spoken):
    """Each row reads a few keys around its own place.

    At self-attention a row reads itself and the `window` rows before it. At cross-attention, row i
    reads the keys of column i, the anti-diagonal of the last operand, and those of `window` columns
    beside it; a column is `layout.stride` keys wide (one, or as many as there are interleaved
    operands). What lies outside the source is left out. In an encoder, where a model has one, a key
    reads `window` columns to each side: the paper has an identity encoder there, and a bounded window
    keeps the receptive cone bounded.

    Args:
        heads: attention heads.
        window: rows or columns beside the own one, w in the paper.
        sides: where those columns lie: `both` sides (the paper's text), or the `left`, of larger digits,
            or the `right`. `code` opens what the paper's code does: it counts from the end of the
            source, where it has an end token, and opens w keys to the left of that anti-diagonal; with
            w = 1 these are the columns i and i - 1, as with `right`.
    """

    def __init__(self, heads: int, window: int = 1, sides: Sides = "both") -> None:
        self.heads, self.window, self.sides = heads, window, sides

    def __str__(self) -> str:
        there = f"{self.window + 1} keys from the anti-diagonal of the source on to the left"
        sides = {"both": "to each side", "left": "to its left", "right": "to its right"}
        if self.sides != "code":
            there = f"the column being written and {self.window} {sides[self.sides]}"
        return f"every head sees its own row and {self.window} back, and {there}"

    def open_keys(self, site: Site, layer: int, layout: Layout, queries: range) -> OpenKeys:
        """See `AttentionBias.open_keys`; every head and layer has the same."""
        query = torch.arange(queries.start, queries.stop)[:, None]
        if site == "self":
            keys = query - torch.arange(self.window + 1)
        else:
            left = self.window if self.sides in ("both", "left", "code") else 0
            right = self.window if self.sides in ("both", "right") else 0
            end = layout.source_length
            if self.sides != "code":
                end = max(span.stop for span in layout.source_spans.values() if span.grows)
            first = end - layout.stride * (query + 1 + left)
            keys = first + torch.arange(layout.stride * (left + 1 + right))
        inside = (keys >= 0) & (keys < layout.keys(site))
        index, value = keys.where(inside, 0), closed_where(~inside)
        return OpenKeys(index.repeat(self.heads, 1, 1), value.repeat(self.heads, 1, 1))

    def dense(self, site: Site, layer: int, layout: Layout, queries: range) -> Tensor:
        """See `AttentionBias.dense`."""
        keys = self.open_keys(site, layer, layout, queries)
        bias = torch.full((self.heads, len(queries), layout.keys(site)), CLOSED)
        return bias.scatter_reduce_(-1, keys.index, keys.value, "amax")

    def encoder(self, layout: Layout) -> Tensor:
        """See `encoder_bias`."""
        far = distances(layout.source_length, range(layout.source_length)).abs()
        return closed_where(far > self.window * layout.stride).expand(self.heads, -1, -1)
