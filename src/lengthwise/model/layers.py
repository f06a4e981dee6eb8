"""Layers, with the mathematics of `torch.nn.Transformer`: pre-norm or post-norm, relu.

A layer is written once. What its rows read, and which rows these are, is a `Reader`'s
(`lengthwise.model.views`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lengthwise.engine.products import Linear, feed_forward, linear

Norm = Literal["pre", "post"]


@dataclass(frozen=True)
class Embedded:
    """Embedded tokens: all of them, or the few that differ and where each stands.

    What is computed from a token and its position alone can be computed once for each that differs, and
    then looked up: a batch has thousands of tokens, but few pairs of token and position.

    Attributes:
        table: `[batch, position, width]`, or `[entry, width]` with an index.
        index: entries, int64 `[batch, position]`, or None.
    """

    table: Tensor
    index: Tensor | None = None

    @property
    def length(self) -> int:
        """How many positions there are."""
        return (self.table if self.index is None else self.index[..., None]).shape[-2]

    def apply(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """The function of every token, `[batch, position, ...]`; it must treat each by itself."""
        return look_up(self.index, function(self.table))


def look_up(index: Tensor | None, x: Tensor) -> Tensor:
    """The entries of `x` `[(1,) entry, channel]` at an index; all of `x` without one."""
    return x if index is None else F.embedding(index, x.flatten(0, -2))


class Reader(Protocol):
    """What the rows of one attention read."""

    def rows(self, x: Tensor) -> Tensor:
        """The rows that attention adds to, `[..., width]`, of those that the layer was given."""
        ...

    def read(self, attention: Attention, given: Callable[[], Tensor]) -> Tensor:
        """What attention adds to them.

        Args:
            attention: its weights.
            given: makes the part's input of what the layer was given, where that is needed.
        """
        ...


class Attention(nn.Module):
    """The weights of multi-head attention, with fused projections."""

    def __init__(self, width: int, heads: int, cross: bool) -> None:
        super().__init__()
        self.heads, self.cross = heads, cross
        if cross:
            self.query = Linear(width, width)
            self.key_value = Linear(width, 2 * width)
        else:
            self.query_key_value = Linear(width, 3 * width)
        self.out = Linear(width, width)

    def project(self, x: Tensor, scores: bool) -> Tensor:
        """Queries, keys and values (of the source: keys and values), fused `[..., part * width]`.

        Only the values, the last part, where no scores are needed.
        """
        fused = self.key_value if self.cross else self.query_key_value
        return fused(x) if scores else linear(x, *self._last())

    def _last(self, parts: int = 1) -> tuple[Tensor, Tensor]:
        """Weight and bias of the last parts of the fused projection; by default of the values alone."""
        fused = self.key_value if self.cross else self.query_key_value
        rows = parts * self.out.in_features
        return fused.weight[-rows:], fused.bias[-rows:]

    def remember(self, x: Tensor, scores: bool) -> Tensor:
        """As `project` what is only read: keys and values, or the values alone."""
        return linear(x, *self._last(2 if scores else 1))

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """`[(batch,) position, part * width]` to one `[batch, head, position, channel]` per part."""
        batch, length, _ = x.shape if x.dim() == 3 else (1, *x.shape)
        x = x.view(batch, length, -1, self.heads, self.out.in_features // self.heads)
        x = x.permute(2, 0, 3, 1, 4)
        # One copy of all parts now, or several of each by the products to come.
        return (x if batch == 1 else x.contiguous()).unbind(0)

    def join(self, read: Tensor) -> Tensor:
        """`[batch, head, position, channel]` to `[batch, position, width]`, projected."""
        return self.out(read.transpose(1, 2).flatten(2))

    def read_itself(self, x: Tensor) -> Tensor:
        """What rows `[..., width]` add that read themselves and nothing else."""
        weight, bias = self._last()
        # In training always the same products, however many rows differ in a batch.
        if x.shape[:-1].numel() <= len(weight) and not torch.is_grad_enabled():
            return self.out(linear(x, weight, bias))
        # Of many rows: two products with weights in one.
        return linear(x, linear(self.out.weight, weight.T), self.out(bias))

    def meaning(self, table: Tensor) -> Tensor:
        """What each entry `[entry, width]` adds where a head reads it alone, `[head, entry + 1, width]`.

        The last entry stands for nothing.
        """
        value = linear(table, *self._last()).unflatten(-1, (self.heads, -1))
        out = self.out.weight.unflatten(-1, (self.heads, -1))
        return F.pad(torch.einsum("thc,whc->htw", value, out), (0, 0, 0, 1))

    def add_up(self, meaning: Tensor, places: Tensor) -> Tensor:
        """What rows `[row, width]` add whose heads read one entry each, int64 `[head, row]`."""
        heads, size, _ = meaning.shape
        bags = places + torch.arange(0, heads * size, size, device=places.device)[:, None]
        found = F.embedding_bag(bags.T.contiguous(), meaning.flatten(0, 1), mode="sum")
        return found + self.out.bias


class Layer(nn.Module):
    """A decoder layer: self-attention, cross-attention, feed-forward. An encoder layer, and one that reads
    problem and answer together, has no cross-attention.

    Each part normalizes its input and adds its output to the residual stream (pre-norm), or adds its
    output and normalizes the sum (post-norm).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        feed_forward: int,
        dropout: float,
        norm: Norm = "pre",
        cross: bool = True,
    ) -> None:
        super().__init__()
        self.norm, self.cross = norm, cross
        self.self_attention = Attention(width, heads, cross=False)
        if cross:
            self.cross_attention = Attention(width, heads, cross=True)
        self.expand = Linear(width, feed_forward)
        self.contract = Linear(feed_forward, width)
        self.norm_self = nn.LayerNorm(width)
        if cross:
            self.norm_cross = nn.LayerNorm(width)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor, own: Reader, cross: Reader | None = None) -> Tensor:
        """The residual stream after the layer.

        Args:
            x: what the layer is given, `[..., width]`.
            own: what rows read at self-attention.
            cross: at cross-attention.
        """
        x = self._attend(self.self_attention, self.norm_self, x, own)
        if cross is not None:
            x = self._attend(self.cross_attention, self.norm_cross, x, cross)
        inner = self._before(self.norm_feed_forward, x)
        if self.training and isinstance(self.dropout, nn.Dropout):
            hidden = self.dropout(F.relu(self.expand(inner)))
            x = x + self.dropout(self.contract(hidden))
        else:
            x = feed_forward(inner, self.expand, self.contract, x)
        return self._after(self.norm_feed_forward, x)

    def readable(self, x: Tensor) -> Tensor:
        """What self-attention takes keys and values from, of what the layer is given."""
        return self._before(self.norm_self, x)

    def _attend(
        self, attention: Attention, norm: nn.LayerNorm, x: Tensor, reader: Reader
    ) -> Tensor:
        read = reader.read(attention, lambda: self._before(norm, x))
        return self._after(norm, reader.rows(x) + self.dropout(read))

    def _before(self, norm: nn.LayerNorm, x: Tensor) -> Tensor:
        return norm(x) if self.norm == "pre" else x

    def _after(self, norm: nn.LayerNorm, x: Tensor) -> Tensor:
        return x if self.norm == "pre" else norm(x)
