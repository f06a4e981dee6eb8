"""What every bias is: numbers added to attention logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from lengthwise.problems.layout import Layout

Site = Literal["self", "cross"]
SITES: tuple[Site, ...] = ("self", "cross")
SomeSite = Literal["self", "cross", "encoder"]
CLOSED = float("-inf")


@dataclass(frozen=True)
class OpenKeys:
    """The only keys that each query may read, where they are few.

    Attributes:
        index: key positions, int64 `[head, query, slot]`; 0 where a slot is unused.
        value: what is added to their logits, float32 `[head, query, slot]`; `-inf` in unused slots.
    """

    index: Tensor
    value: Tensor


class AttentionBias(Protocol):
    """Everything that is added to attention logits, as one object.

    Training, decoding, evaluation and proof take the same object, so they cannot disagree. A bias may
    have two methods more: `relative`, where part of it is learned (see `relative_index`), and
    `encoder`, where it acts in an encoder (see `encoder_bias`).

    Attributes:
        heads: attention heads of the model that it fits.
    """

    heads: int

    def dense(self, site: Site, layer: int, layout: Layout, queries: range) -> Tensor:
        """The bias of one layer at one site, for some queries.

        Args:
            site: `self` (decoder self-attention) or `cross` (decoder to source).
            layer: 0 for the first decoder layer.
            layout: the task at one width, which fixes the numbers of queries and keys.
            queries: which.

        Returns:
            float32 `[head, query, key]`; `-inf` closes a key, which then has exactly zero weight.
            The self-attention bias is causal.
        """
        ...

    def open_keys(self, site: Site, layer: int, layout: Layout, queries: range) -> OpenKeys | None:
        """The same bias as a list of open keys, or None where a query may read ever more keys."""
        ...


@dataclass(frozen=True)
class LearnedTables:
    """What a bias leaves to training: tables that the model holds, one for each site.

    Attributes:
        kind: `numbers`: an entry holds a number for each head, which is added to scores, in all layers the
            same; `keys`: an entry holds a key, whose product with the query is added, in each layer its
            own.
        entries: of each table.
    """

    kind: Literal["numbers", "keys"]
    entries: int


@dataclass(frozen=True)
class LearnedModules:
    """What a bias leaves to training, where tables do not do: a module of each layer at each site.

    Attributes:
        make: of heads and the model's width makes a module. It is called with what `relative` gives of some
            queries and keys, `[query, key, ...]`, and with the queries `[batch, head, query, channel]`, and
            gives what is added to scores, `[(batch,) head, query, key]`.
    """

    make: Callable[[int, int], nn.Module]


def relative_index(
    bias: AttentionBias, site: SomeSite, layout: Layout, queries: range
) -> Tensor | None:
    """The entry of the learned table that each query and key look up, int64 `[query, key]`.

    With `LearnedModules` what these are asked for, `[query, key, ...]`. None for a bias of which nothing is
    learned: one without a method `relative`.
    """
    method = getattr(bias, "relative", None)
    return None if method is None else method(site, layout, queries)


def encoder_bias(bias: AttentionBias, layout: Layout) -> Tensor | None:
    """What is added in the encoder, float32 `[head, query, key]`, the same in all layers.

    None where every key is open with value 0: for a bias without a method `encoder`.
    """
    method = getattr(bias, "encoder", None)
    return None if method is None else method(layout)


def distances(keys: int, queries: range) -> Tensor:
    """Key minus query, int64 `[query, key]`, each counted from the start of its own sequence."""
    return torch.arange(keys) - torch.arange(queries.start, queries.stop)[:, None]


def sequence_distances(site: SomeSite, layout: Layout, queries: range) -> Tensor:
    """How far each key stands before its query, int64 `[query, key]`; below 0 for keys behind it.

    Problem and answer are one sequence here, the problem first: row i stands `source_length + i` keys after
    the first key of the source. So a paper without cross-attention counts.
    """
    begin = layout.source_length if site == "cross" else 0
    return begin - distances(layout.keys("cross" if site == "encoder" else site), queries)


def closed_where(far: Tensor) -> Tensor:
    """`-inf` where it is true, elsewhere 0; float32."""
    return torch.zeros(far.shape).masked_fill_(far, CLOSED)


def causal(keys: int, queries: range) -> Tensor:
    """The causal mask, float32 `[query, key]`: 0 where key <= query, `-inf` elsewhere."""
    return closed_where(torch.arange(keys) > torch.arange(queries.start, queries.stop)[:, None])


class Spoken:
    """A bias whose `str` is a sentence, which its `repr` then shows."""

    heads: int

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.heads} heads: {self})"

    def open_keys(self, site: Site, layer: int, layout: Layout, queries: range) -> OpenKeys | None:
        """See `AttentionBias.open_keys`; by default a query may read ever more."""
        return None


class Causal(Spoken):
    """The bias of a vanilla transformer: self-attention sees the past, cross-attention everything."""

    def __init__(self, heads: int) -> None:
        self.heads = heads

    def __str__(self) -> str:
        return "every head sees the whole problem and all of the answer so far"

    def dense(self, site: Site, layer: int, layout: Layout, queries: range) -> Tensor:
        if site == "cross":
            return torch.zeros(self.heads, len(queries), layout.source_length)
        return causal(layout.target_length, queries).expand(self.heads, -1, -1)
