"""Layers, with the mathematics of `torch.nn.Transformer`: pre-norm or post-norm, relu."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from lengthwise.model.linear import Linear, feed_forward, linear
from lengthwise.model.plans import Plan

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

    def apply(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """The function of every token, `[batch, position, ...]`; it must treat each by itself."""
        x = function(self.table)
        return x if self.index is None else F.embedding(self.index, x)


class Attention(nn.Module):
    """Multi-head attention with fused projections; the plan says which keys are open."""

    def __init__(self, width: int, heads: int, cross: bool) -> None:
        super().__init__()
        self.heads, self.cross = heads, cross
        if cross:
            self.query = Linear(width, width)
            self.key_value = Linear(width, 2 * width)
        else:
            self.query_key_value = Linear(width, 3 * width)
        self.out = Linear(width, width)

    def project(self, x: Tensor, plan: Plan) -> Tensor:
        """Queries, keys and values (of the source: keys and values), fused `[..., part * width]`.

        Only the values, the last part, where the plan needs no scores.
        """
        fused = self.key_value if self.cross else self.query_key_value
        if plan.scores:
            return fused(x)
        return linear(x, *self.value)

    @property
    def value(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the values alone, the last part of the fused projection."""
        fused, width = self.key_value if self.cross else self.query_key_value, self.out.in_features
        return fused.weight[-width:], fused.bias[-width:]

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """`[batch, position, part * width]` to one `[batch, head, position, channel]` per part."""
        batch, length, _ = x.shape
        x = x.view(batch, length, -1, self.heads, self.out.in_features // self.heads)
        # One copy of all parts now, or several of each by the products to come.
        return x.permute(2, 0, 3, 1, 4).contiguous().unbind(0)

    def join(self, read: Tensor) -> Tensor:
        """`[batch, head, position, channel]` to `[batch, position, width]`, projected."""
        return self.out(read.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """What decoder and encoder layers share. Each part normalizes its input and adds its output to
    the residual stream (pre-norm), or adds its output and normalizes the sum (post-norm).
    """

    norm: Norm
    self_attention: Attention
    expand: Linear
    contract: Linear
    norm_self: nn.LayerNorm
    norm_feed_forward: nn.LayerNorm
    dropout: nn.Module

    def before(self, norm: nn.LayerNorm, x: Tensor) -> Tensor:
        """The input of a part."""
        return norm(x) if self.norm == "pre" else x

    def after(self, norm: nn.LayerNorm, x: Tensor) -> Tensor:
        """The residual stream after a part."""
        return x if self.norm == "pre" else norm(x)

    def read_own(self, rows: Embedded, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of a sequence itself; the values stand for all without scores."""
        attention, norm = self.self_attention, self.norm_self
        parts = attention.split(rows.apply(lambda x: attention.project(self.before(norm, x), plan)))
        return parts[0], parts[-2 if plan.scores else -1], parts[-1]

    def add_own(self, x: Tensor, read: Tensor) -> Tensor:
        """Add what self-attention read."""
        return self.after(self.norm_self, x + self.dropout(self.self_attention.join(read)))

    def add_feed_forward(self, x: Tensor) -> Tensor:
        """Add the feed-forward part."""
        inner = self.before(self.norm_feed_forward, x)
        if self.training and isinstance(self.dropout, nn.Dropout):
            hidden = self.dropout(F.relu(self.expand(inner)))
            added = x + self.dropout(self.contract(hidden))
        else:
            added = feed_forward(inner, self.expand, self.contract, x)
        return self.after(self.norm_feed_forward, added)


class Layer(Block):
    """A decoder layer: self-attention, cross-attention, feed-forward."""

    def __init__(
        self, width: int, heads: int, feed_forward: int, dropout: float, norm: Norm = "pre"
    ) -> None:
        super().__init__()
        self.norm = norm
        self.self_attention = Attention(width, heads, cross=False)
        self.cross_attention = Attention(width, heads, cross=True)
        self.expand = Linear(width, feed_forward)
        self.contract = Linear(feed_forward, width)
        self.norm_self = nn.LayerNorm(width)
        self.norm_cross = nn.LayerNorm(width)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def read_source(self, memory: Embedded, plan: Plan) -> tuple[Tensor, Tensor]:
        """Keys and values of the source; the values stand for both without scores."""
        attention = self.cross_attention
        parts = attention.split(memory.apply(lambda x: attention.project(x, plan)))
        return parts[0], parts[-1]

    def add_self(self, x: Tensor, read: Tensor, cross: Plan) -> tuple[Tensor, Tensor]:
        """Add what self-attention read; return the rows and their queries for cross-attention."""
        x, attention = self.add_own(x, read), self.cross_attention
        if not cross.scores:
            return x, x
        (query,) = attention.split(attention.query(self.before(self.norm_cross, x)))
        return x, query

    def add_cross(self, x: Tensor, read: Tensor) -> Tensor:
        """Add what cross-attention read, then the feed-forward part."""
        added = x + self.dropout(self.cross_attention.join(read))
        return self.add_feed_forward(self.after(self.norm_cross, added))


class EncoderLayer(Block):
    """An encoder layer: self-attention over the source, feed-forward."""

    def __init__(
        self, width: int, heads: int, feed_forward: int, dropout: float, norm: Norm = "pre"
    ) -> None:
        super().__init__()
        self.norm = norm
        self.self_attention = Attention(width, heads, cross=False)
        self.expand = Linear(width, feed_forward)
        self.contract = Linear(feed_forward, width)
        self.norm_self = nn.LayerNorm(width)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
